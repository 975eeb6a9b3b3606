"""From raw observations to features, as the first layer of a network: it trains, exports and serves with the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from scalepilot.learn.images import ImageEncoder
from scalepilot.policy.masks import INVALID_SCORE
from scalepilot.policy.spec import IMAGE_SCALE

_MAX_RATIO = 5.0
# More states than this are a number, not a feature each.
_MOST_ONE_HOT = 20_000
MAX_NORMALISED = 8.0
_MIN_CAPACITY_RPS = 1e-6
# Doublings of the hour's angle: what is scheduled begins and ends within minutes, which one wave an hour cannot tell apart.
_HOUR_DOUBLINGS = 3
_LEAST_UNREST = 0.003
_LONG_WINDOW = re.compile(r"request_rate_(mean|max|change|rise)_rps_\d+")
_LAGGED = re.compile(r"request_rate_(lagged|lagged_soon|lagged_later)_rps_\d+")
# Those of the parameters as they come: where a service's constants are 1, or 0 on a logarithmic scale.
_SERVICE_FEATURES, _USUAL_STAKE, _USUAL_ROOM = 5, 72.0, 4.0


class ScaleFreeEncoder(nn.Module):
    """Physical fields of Autoscale → ratios to the current capacity, so that one policy runs 5 or 500 replicas.

    Rates, backlog and starting replicas are relative to (ready + starting) × capacity of a replica; the size of the
    service enters only as a logarithm and as the relative size of Poisson noise, 1/√(requests an interval).

    Args:
        field_names: the observation's fields in order.
        interval_seconds: decision interval, which turns rates into counts.
        max_replicas: most that may be asked for; near it a policy can no longer answer a crowd by growing.
    """

    def __init__(self, field_names: Sequence[str], interval_seconds: float, max_replicas: int) -> None:
        super().__init__()
        self.max_replicas = float(max_replicas)
        names = list(field_names)
        self.interval_seconds = interval_seconds
        self.rates = [i for i, n in enumerate(names) if n.startswith("request_rate_rps_")]
        self.at = {name: i for i, name in enumerate(names)}
        self.starting = [i for i, n in enumerate(names) if n.startswith("starting_replicas_")]
        self.clock = [i for i, n in enumerate(names) if n.startswith("clock_")]
        self.knows_hour = "clock_hour_sin" in self.at
        self.num_features = 2 * len(self.rates) + len(self.starting) + len(self.clock) + 13
        self.num_features += 2 * _HOUR_DOUBLINGS if self.knows_hour else 0
        # Long windows: relative to the capacity as all rates are.
        self.long = [i for i, n in enumerate(names) if _LONG_WINDOW.fullmatch(n)]
        self.knows_service = "startup_seconds" in self.at
        self.lagged = [i for i, n in enumerate(names) if _LAGGED.fullmatch(n)]
        self.num_features += (2 * len(self.long) + 1 + len(self.lagged) + 2 if self.long else 0) + (
            _SERVICE_FEATURES if self.knows_service else 0
        )

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(n, num_fields) float32 physical values → (n, num_features)."""

        def column(name: str) -> torch.Tensor:
            return observation[:, self.at[name] : self.at[name] + 1]

        rates = observation[:, self.rates[0] : self.rates[-1] + 1]
        starting = observation[:, self.starting[0] : self.starting[-1] + 1]
        ready = column("ready_replicas")
        total = (ready + starting.sum(dim=1, keepdim=True)).clamp_min(1.0)
        capacity = (total * column("replica_capacity_rps")).clamp_min(_MIN_CAPACITY_RPS)
        ready_capacity = (ready * column("replica_capacity_rps")).clamp_min(_MIN_CAPACITY_RPS)
        interval = column("interval_seconds") if self.knows_service else self.interval_seconds
        requests = column("request_rate_mean_rps") * interval
        relative = [
            rates / capacity,
            rates[:, :1] / ready_capacity,
            rates.amax(dim=1, keepdim=True) / capacity,
            column("request_rate_mean_rps") / capacity,
            column("request_rate_std_rps") / capacity,
            column("backlog_requests") / (capacity * interval),
        ]
        # Beside levels that vary by hours, what changed within the last intervals would drown in normalisation.
        newest = rates[:, :1]
        changes = torch.cat([newest - rates[:, 1:], newest - column("request_rate_mean_rps")], dim=1) / capacity
        # Share of the replicas that will serve within each quarter of the start-up time.
        soon = ready / total
        serving = [soon]
        for i in range(len(self.starting)):
            soon = soon + starting[:, i : i + 1] / total
            serving.append(soon)
        features = [
            torch.cat(relative, dim=1).clamp(0.0, _MAX_RATIO),
            changes.clamp(-_MAX_RATIO, _MAX_RATIO),
            *serving,
            column("cpu_utilisation"),
            column("late_share"),
            column("error_share"),
            torch.log1p(column("latency_p95_seconds").clamp_min(0.0)),
            torch.log(total) / 4.0,
            ((column("max_replicas") if self.knows_service else self.max_replicas) / total - 1.0).clamp(0.0, _MAX_RATIO),
            1.0 / torch.sqrt(requests.clamp_min(1.0)),
        ]
        if self.clock:
            features.append(observation[:, self.clock[0] : self.clock[-1] + 1])
        if self.knows_hour:
            sine, cosine = column("clock_hour_sin"), column("clock_hour_cos")
            for _ in range(_HOUR_DOUBLINGS):
                sine, cosine = 2.0 * sine * cosine, cosine.square() - sine.square()
                features += [sine, cosine]
        if self.long:
            relative_long = (observation[:, self.long[0] : self.long[-1] + 1] / capacity).clamp(0.0, _MAX_RATIO)
            # How restless traffic is spans orders of magnitude, of which a linear scale shows the upper one alone.
            unrest = torch.cat([relative_long, column("request_rate_std_rps") / capacity], dim=1)
            features += [relative_long, torch.log(unrest.clamp(0.0, _MAX_RATIO) + _LEAST_UNREST)]
            lagged = observation[:, self.lagged[0] : self.lagged[-1] + 1]
            # What the newest rates become if they grow as they did then.
            growth = (lagged[:, 1:] / lagged[:, :1].clamp_min(1e-6)).clamp(0.0, _MAX_RATIO)
            recent = rates[:, : len(self.rates) // 2 + 1].mean(dim=1, keepdim=True)
            features += [(lagged / capacity).clamp(0.0, _MAX_RATIO), (growth * recent / capacity).clamp(0.0, _MAX_RATIO)]
        if self.knows_service:
            features += self._service_features(column, total)
        return torch.cat(features, dim=1)

    def _service_features(self, column: Callable[[str], torch.Tensor], total: torch.Tensor) -> list[torch.Tensor]:
        """What differs between services, without their size: logarithms of ratios, of the order of 1."""
        capacity = column("replica_capacity_rps").clamp_min(_MIN_CAPACITY_RPS)
        interval = column("interval_seconds").clamp_min(1e-3)
        # A replica's requests of an hour, all late, in hours of a replica.
        stake = column("late_request_replica_hours") * capacity * 3600.0
        return [
            torch.log(column("startup_seconds").clamp_min(1e-3) / interval),
            torch.log(interval / 15.0),
            torch.log(stake.clamp_min(1e-3) / _USUAL_STAKE),
            # Requests that a replica serves while the next may wait.
            torch.log((column("wait_slo_seconds") * capacity).clamp_min(1e-3) / _USUAL_ROOM),
            (column("min_replicas") / total).clamp(0.0, 1.0),
        ]


class FlatEncoder(nn.Module):
    """Any other vector observation, as it is."""

    def __init__(self, num_fields: int) -> None:
        super().__init__()
        self.num_features = num_fields

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(n, num_fields) → the same, float32; without what stands behind, such as an action mask."""
        return (observation if observation.shape[-1] == self.num_features else observation[..., : self.num_features]).float()


class OneHotEncoder(nn.Module):
    """A numbered state as one feature a state."""

    states: torch.Tensor

    def __init__(self, num_states: int, first: int = 0) -> None:
        super().__init__()
        self.num_features = num_states
        self.register_buffer("states", torch.arange(first, first + num_states, dtype=torch.float32))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(n,) or (n, 1) state numbers → (n, num_states); without what stands behind, such as an action mask."""
        if observation.ndim > 1 and observation.shape[-1] > 1:
            observation = observation[..., :1]
        return (observation.reshape(-1, 1).float() == self.states).float()


Encoder = ScaleFreeEncoder | FlatEncoder | OneHotEncoder | ImageEncoder


class Unchanged(nn.Module):
    """Stands where nothing is to be encoded or normalised, because what follows learns it."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The same."""
        return values

    def update(self, values: torch.Tensor) -> None:
        """Nothing is remembered."""


def make_encoder(inputs: Mapping[str, Any]) -> Encoder:
    """The encoder for an environment: convolutions for images, scale-free where the fields are a service's, else one-hot or flat.

    Args:
        inputs: field_names, num_states (None unless states are numbered) from first_state on, interval_seconds, max_replicas; for
            images also image ({"shape", "axes", "scale"}), cnn and hidden.
    """
    image = inputs.get("image")
    if image:
        return ImageEncoder(image["shape"], image["axes"], inputs["cnn"], inputs["hidden"], image.get("scale", IMAGE_SCALE))
    if "replica_capacity_rps" in inputs["field_names"]:
        return ScaleFreeEncoder(inputs["field_names"], inputs["interval_seconds"], inputs["max_replicas"])
    if inputs["num_states"] is not None and inputs["num_states"] <= _MOST_ONE_HOT:
        return OneHotEncoder(int(inputs["num_states"]), int(inputs.get("first_state", 0)))
    return FlatEncoder(len(inputs["field_names"]))


class RunningNormaliser(nn.Module):
    """Mean and variance of all features seen in training, as buffers that travel with the weights.

    Source:
        parallel update of mean and variance: Chan, Golub and LeVeque (1979).
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("variance", torch.ones(num_features))
        # It counts transitions: float32 stops counting ones at 16.8 million, and Apple's GPUs know no float64.
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, num_features) → centred, scaled and cut at ±8."""
        return ((features - self.mean) / torch.sqrt(self.variance + 1e-6)).clamp(-MAX_NORMALISED, MAX_NORMALISED)

    @torch.no_grad()
    def update(self, features: torch.Tensor) -> None:
        """Fold a batch (n, num_features) into the statistics, over all learners when there are several."""
        device = torch.device("cpu") if features.device.type == "mps" else features.device
        features = features.to(device).double()
        n = torch.tensor(float(len(features)), dtype=torch.float64, device=device)
        total, squares = features.sum(dim=0), features.square().sum(dim=0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for part in (n, total, squares):
                torch.distributed.all_reduce(part)
        batch_mean = total / n
        batch_variance = (squares / n - batch_mean.square()).clamp_min(0.0)
        count, mean, variance = (buffer.to(device).double() for buffer in (self.count, self.mean, self.variance))
        delta, all_count = batch_mean - mean, count + n
        self.mean.copy_(mean + delta * n / all_count)
        # The variance before the first batch is a placeholder, of weight 0.
        self.variance.copy_((variance * count + batch_variance * n + delta.square() * count * n / all_count) / all_count)
        self.count.copy_(all_count)


def make_normaliser(encoder: Encoder) -> RunningNormaliser | Unchanged:
    """Running statistics of features; none for those of an encoder that learns."""
    return Unchanged() if isinstance(encoder, ImageEncoder) else RunningNormaliser(encoder.num_features)


class _FastTanh(torch.autograd.Function):
    """tanh(x) = 2σ(2x) − 1 with tanh's own one-kernel gradient."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        result = (values * 2.0).sigmoid_().mul_(2.0).sub_(1.0)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (result,) = ctx.saved_tensors
        gradient: torch.Tensor = torch.ops.aten.tanh_backward(gradients[0], result)
        return gradient


class Tanh(nn.Module):
    """tanh by way of the sigmoid: on a CPU torch's own tanh takes five times as long."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise, any shape; exported as the standard operator."""
        if torch.compiler.is_exporting():
            return torch.tanh(values)
        result: torch.Tensor = _FastTanh.apply(values)  # type: ignore[no-untyped-call]
        return result


def mlp(num_inputs: int, hidden: Sequence[int], num_outputs: int, output_gain: float) -> nn.Sequential:
    """A tanh network with orthogonal weights and zero biases; `output_gain` scales the last layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [_linear(num_inputs, width, 2**0.5), Tanh()]
        num_inputs = width
    return nn.Sequential(*layers, _linear(num_inputs, num_outputs, output_gain))


def _linear(num_inputs: int, num_outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class BoxOutput(nn.Module):
    """Continuous actions from units in which the bounds are ± 1 to the environment's, cut at them.

    Args:
        low: (k,) lower bounds.
        high: (k,) upper bounds.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        super().__init__()
        # Of the environment, not learnt: no part of the state.
        self.register_buffer("low", torch.as_tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.as_tensor(high, dtype=torch.float32), persistent=False)

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """(n, k) → (n, k)."""
        return self.low + (action.clamp(-1.0, 1.0) + 1.0) * (0.5 * (self.high - self.low))


class ScoresNetwork(nn.Module):
    """Raw observation → scores of the actions, or a continuous action: what is exported and what acts greedily.

    Args:
        encoder: raw observation → features.
        normaliser: of the features.
        head: features → (n, num_actions) logits or Q-values, or (n, k) actions in units in which the bounds are ± 1.
        output: from there to the environment's units; None for scores.
        num_masked: actions whose validity stands in the last fields of the observation: those that are not valid score so low
            that nobody chooses them.
    """

    def __init__(
        self, encoder: nn.Module, normaliser: nn.Module, head: nn.Module, output: BoxOutput | None = None, num_masked: int = 0
    ) -> None:
        super().__init__()
        self.num_masked = num_masked
        self.encoder, self.normaliser, self.head, self.output = encoder, normaliser, head, output

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """(n, *shape) → (n, num_actions) or (n, k)."""
        scores: torch.Tensor = self.head(self.normaliser(self.encoder(observation)))
        if self.num_masked:
            scores = masked(scores, valid_of(observation, self.num_masked))
        return scores if self.output is None else self.output(scores)

    @torch.no_grad()
    def scale_scores(self, factor: float) -> None:
        """Multiply all scores by a number: the weights of the last layer, or of the last of each stream."""
        if factor == 1.0:
            return
        linear = [(name, layer) for name, layer in self.head.named_modules() if isinstance(layer, nn.Linear)]
        streams = [layer for name, layer in linear if name.rpartition(".")[2] in ("value", "advantage")]
        for layer in streams or [linear[-1][1]]:
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)


def valid_of(observation: torch.Tensor, num_masked: int) -> torch.Tensor:
    """(…, num_actions) bool, from the last fields of observations."""
    return observation[..., -num_masked:] > 0.5


def masked(scores: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Scores with those of invalid actions beyond choice: of probability 0, and never the largest."""
    return torch.where(valid, scores, torch.full_like(scores, INVALID_SCORE))
