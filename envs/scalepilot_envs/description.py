"""What a person, a policy and the documentation need to know of an environment: fields, actions, reward, parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.checks import did_you_mean
from scalepilot_envs.objective import Objective, by_return

# What says which actions are valid, wherever: a key of the observation or of `info`, of a request; and its fields' first word.
MASK_KEY = "action_mask"
_MASK_FIELD = re.compile(rf"{MASK_KEY}_\d+")
# What environments call what they scale.
_REPLICAS = ("replicas", "pods", "workers", "instances")
Columns = Callable[[str], NDArray[np.float64]]
Signal = Callable[[Columns], NDArray[np.float64]]


@dataclass(frozen=True)
class ObservationField:
    """One number an operator can look up.

    Attributes:
        name: stable identifier, unit included where there is one.
        unit: what a person reads beside the number.
        low: smallest possible value.
        high: largest possible value.
        description: what it is.
        promql: a PromQL template; "" where it is a constant of the deployment, or nothing usual measures it. `$selector` are the
            labels of the service's own series, `$pods` those of its pods (cAdvisor, kube-state-metrics), `$deployment` those of
            its deployment, each with the namespace; `$window` is the interval and one scrape, `$step` the interval in seconds.
        dtype: float32 for a number; uint8 for an image, which is one field.
        shape: () for a number, of an image three lengths.
        axes: what the axes of an image are: "height", "width" and "channels" or "frame_stack" (oldest frame first).
    """

    name: str
    unit: str
    low: float
    high: float
    description: str
    promql: str = ""
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The field as plain data, for artifacts and clients."""
        return asdict(self)


@dataclass(frozen=True)
class Action:
    """One action of a discrete action space.

    Attributes:
        kind: "absolute" adds `size` replicas, "relative" adds `size` × replicas, "plain" moves no replicas.
        size: replicas or share; 0 for plain actions.
        label: what a person reads.
        value: what the environment takes, as plain data; None where that is the index.
    """

    kind: Literal["absolute", "relative", "plain"]
    size: float
    label: str
    value: Any = None


@dataclass(frozen=True)
class ActionComponent:
    """One number of a continuous action.

    Attributes:
        name: stable identifier.
        unit: what a person reads beside the number.
        low: smallest value.
        high: largest value.
    """

    name: str
    unit: str
    low: float
    high: float


def mask_field(index: int) -> ObservationField:
    """The field that says whether an action is valid."""
    return ObservationField(f"{MASK_KEY}_{index}", "1", 0.0, 1.0, f"1 where action {index} is valid")


def is_mask(name: str) -> bool:
    """Whether a field says that an action is valid; such fields stand last, one an action."""
    return _MASK_FIELD.fullmatch(name) is not None


def valid_at(shares: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) the actions at shares (n,) in [0, 1) of the valid ones, (n, num_actions)."""
    nth = (shares * valid.sum(axis=1)).astype(np.int64)
    found: NDArray[np.int64] = (valid.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    return found


@dataclass(frozen=True)
class EnvDescription:
    """An environment with given parameters.

    Attributes:
        env_id: versioned id.
        params: the frozen dataclass of its physical constants.
        fields: in the order of the observation vector (one field where the observation is one integer).
        actions: index = action.
        reward: a sentence or two.
        end: when an episode terminates or is truncated.
        commands_targets: policies command any number of replicas; otherwise they choose an action.
        signals: physical quantities that rules read, computed from fields: total_replicas, utilisation (share of what the
            replicas can do), backlog_requests, demand (requests of a step), replica_capacity (requests of a step).
        components: of a continuous action, which then stand in place of `actions`.
        rule_defaults: rule name → parameters that suit this environment better than the rule's own defaults.
        options: those of the environment's other arguments that were given and change what is described here.
        reward_bounds: lowest and highest reward of a step; infinite where nobody says.
        episode_steps: most steps of an episode unless it is made with others; None without a limit.
        num_states: where one integer is the whole observation (but for the mask), how many there are, from `fields[0].low` on.
        judged_by: what episodes are compared by; None for their return.
    """

    env_id: str
    params: Any
    fields: tuple[ObservationField, ...]
    actions: tuple[Action, ...]
    reward: str
    end: str
    commands_targets: bool = False
    signals: Mapping[str, Signal] = field(default_factory=dict)
    rule_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    components: tuple[ActionComponent, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    reward_bounds: tuple[float, float] = (-np.inf, np.inf)
    episode_steps: int | None = None
    num_states: int | None = None
    judged_by: Objective | None = None

    def most_steps(self, arguments: Mapping[str, Any]) -> float:
        """Most steps of an episode, made with these arguments; infinite without a limit."""
        names = ("episode_steps", "max_episode_steps")
        given = next((arguments[name] for name in names if arguments.get(name) is not None), self.episode_steps)
        return float(np.inf if given is None or given < 1 else given)

    def return_bounds(self, arguments: Mapping[str, Any]) -> tuple[float, float]:
        """Lowest and highest return an episode of 1 to `most_steps` steps can have."""
        low, high = self.reward_bounds
        steps = self.most_steps(arguments)
        return (low if low >= 0 else low * steps), (high if high <= 0 else high * steps)

    def objective(self, arguments: Mapping[str, Any] | None = None) -> Objective:
        """How episodes are evaluated that are made with these arguments."""
        given = arguments or {}
        return self.judged_by or by_return(self.return_bounds(given), self.most_steps(given))

    @property
    def image(self) -> ObservationField | None:
        """The one field of an environment that shows images."""
        return self.fields[0] if self.fields[0].shape else None

    @property
    def num_masked(self) -> int:
        """Actions of which the observation says whether they are valid, in its last fields; 0 where it says nothing."""
        return sum(is_mask(f.name) for f in self.fields)

    def actions_at(self, shares: NDArray[np.float64], observation: NDArray[Any] | None = None) -> NDArray[Any]:
        """The actions at shares in [0, 1) of their range, for uniform draws.

        Args:
            shares: (n, k) for k components, (n, 1) for numbered actions.
            observation: (n, num_fields) they answer, so that only valid ones are drawn.

        Returns:
            (n, k) float32, or (n,) int64.
        """
        if self.num_masked and observation is not None:
            return valid_at(shares[:, 0], np.asarray(observation)[:, -self.num_masked :] > 0.5)
        if not self.components:
            return np.asarray(shares[:, 0] * len(self.actions), dtype=np.int64)
        low, high = (np.array([getattr(c, side) for c in self.components]) for side in ("low", "high"))
        return np.asarray(low + shares * (high - low), dtype=np.float32)

    @property
    def interval_seconds(self) -> float:
        """Seconds between two decisions; 1 where the environment has no unit of time."""
        return float(getattr(self.params, "interval_seconds", getattr(self.params, "step_seconds", 1.0)))

    @property
    def replica_bounds(self) -> tuple[float, float]:
        """Fewest and most replicas (pods, workers, instances) a target may name; infinite where the environment says nothing."""
        words = [word for word in _REPLICAS if hasattr(self.params, f"max_{word}")]
        if not words:
            return -np.inf, np.inf
        return float(getattr(self.params, f"min_{words[0]}", 1)), float(getattr(self.params, f"max_{words[0]}"))


def documented(kind: type) -> dict[str, str]:
    """Name → sentence, from the `Attributes:` section of a class's docstring."""
    meanings: dict[str, str] = {}
    name = ""
    for line in (kind.__doc__ or "").partition("Attributes:")[2].splitlines():
        text = line.strip()
        if line.startswith(" " * 8) and not line.startswith(" " * 9) and ": " in text:
            name, _, meaning = text.partition(": ")
            meanings[name] = meaning
        elif text and name:
            meanings[name] += f" {text}"
    return meanings


def params_from_mapping(params_type: type[Any], values: Mapping[str, Any] | Any | None) -> Any:
    """Parameters from a plain mapping, as stored in an artifact; an instance passes through.

    Raises:
        ValueError: an unknown key, or a value that is not allowed.
    """
    if isinstance(values, params_type):
        return values
    names = [f.name for f in fields(params_type)]
    given = dict(values or {})
    unknown = set(given) - set(names)
    if unknown:
        hint = did_you_mean(min(unknown), names)
        raise ValueError(f"params.{min(unknown)}: unknown key; allowed: {', '.join(names) or 'none'}{hint}")
    return params_type(**given)
