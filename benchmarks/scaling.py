"""How training grows with env runners: measured with 0, 1 and 2, and a model fitted to one runner that says 10, 100 and 1,000.

PPO on Autoscale as `tune_configs/autoscale-ppo.yaml` has it. An iteration is synchronous: sample (shared by N runners), move,
learn, sync. So, with B transitions a batch,

    seconds(N, B) = sampling × B / N + stepping + (moving + learning) × B + per_runner × N + fixed

where `sampling`, `moving` and `learning` are seconds a transition, `stepping` what a rollout's steps cost however few
environments they step, `per_runner` what each runner adds in the driver (its request, its metrics, its weights), `fixed` the
rest. All are measured here, with one and two runners and with large and small batches; `model_error_2` says how well two runners
are told. Networks are not measured: `bytes_per_step` and `weights_bytes` say what goes over one.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

from scalepilot.cluster.connection import connected
from scalepilot.config import config_from_mapping

ITERATIONS, WARM_UP = 64, 4
# Transitions a runner: 128 environments, 64 steps.
PER_RUNNER = 128 * 64
LARGE = (10, 100, 1000)
# A datacentre's common network, bytes a second, into the learner's node.
NETWORK = 10e9 / 8


@dataclass(frozen=True)
class Costs:
    """What the model is made of, in seconds; see the module."""

    sampling: float
    stepping: float
    moving: float
    learning: float
    per_runner: float
    fixed: float
    bytes_per_step: float

    def seconds(self, runners: int, batch: int, *, learners: int = 1, learner_speed: float = 1.0) -> float:
        """Of an iteration; moving is shared by learners, and never faster than the network."""
        moving = max(self.moving, self.bytes_per_step / NETWORK) * batch / learners
        return (
            self.sampling * batch / runners
            + self.stepping
            + moving
            + self.learning * batch / learners / learner_speed
            + self.per_runner * runners
            + self.fixed
        )

    def rate(self, runners: int, batch: int, **arguments: Any) -> float:
        """Transitions a second."""
        return batch / self.seconds(runners, batch, **arguments)


def measure(runners: int, num_envs: int) -> dict[str, float]:
    """Lower quartiles of an iteration's parts: what a busy machine adds is not what is asked for."""
    from scalepilot.learn.algorithms import make_trainer
    from scalepilot.learn.task import Task

    ppo = {"total_env_steps": 10**9, "num_envs": num_envs, "minibatch_size": min(1024, num_envs * 8)}
    config = config_from_mapping({"ppo": ppo, "resources": {"num_env_runners": runners}})
    with connected(config.resources):
        trainer: Any = make_trainer(config, Task(config))
        try:
            rows, seconds = [], []
            for _ in range(ITERATIONS):
                began = time.perf_counter()
                rows.append(trainer.iterate())
                seconds.append(time.perf_counter() - began)
            state = trainer.algorithm.env_runner_group.local_env_runner.module.state_dict()
            weights = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
            fields = trainer.algorithm.env_runner_group.local_env_runner.module.observation_space.shape[0]
        finally:
            trainer.close()
    names = ("sample_seconds", "learn_seconds", "transfer_seconds", "sync_seconds")
    found = {name: _quartile([row.get(name, 0.0) for row in rows[WARM_UP:]]) for name in names}
    # Observation in 32 bits, and action, log-probability, reward and three flags.
    return {**found, "seconds": _quartile(seconds[WARM_UP:]), "weights_bytes": weights, "bytes_per_step": 4 * fields + 27}


def _quartile(values: list[float]) -> float:
    return statistics.quantiles(values, n=4)[0]


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Measured rates, the model's parts, and what it says of many runners."""
    none, one, two = (measure(runners, 128 * max(1, runners)) for runners in (0, 1, 2))
    small, small_two = measure(1, 16), measure(2, 32)
    batch, less = PER_RUNNER, 16 * 64
    # Two points on a line: what grows with the batch, and what does not.
    sampling = (one["sample_seconds"] - small["sample_seconds"]) / (batch - less)
    moving = max(0.0, (one["transfer_seconds"] - small["transfer_seconds"]) / (batch - less))
    learning = one["learn_seconds"] / batch
    stepping = max(0.0, small["sample_seconds"] - sampling * less)
    per_runner = sum(max(0.0, small_two[name] - small[name]) for name in ("sample_seconds", "sync_seconds"))
    explained = (sampling + moving + learning) * batch + stepping + per_runner
    costs = Costs(sampling, stepping, moving, learning, per_runner, max(0.0, one["seconds"] - explained), one["bytes_per_step"])
    figures = {
        "rate_0_runners": batch / none["seconds"],
        "rate_1_runner": batch / one["seconds"],
        "rate_2_runners": 2 * batch / two["seconds"],
        **{f"model_{key}": value for key, value in vars(costs).items()},
        "weights_bytes": one["weights_bytes"],
        "model_rate_2_runners": costs.rate(2, 2 * batch),
    }
    slow = replace(costs, sampling=1e-3)
    for runners in LARGE:
        grown = runners * batch
        figures |= {
            f"model_rate_{runners}_runners": costs.rate(runners, grown),
            f"model_rate_{runners}_runners_learner_20x": costs.rate(runners, grown, learner_speed=20.0),
            f"model_rate_{runners}_runners_8_learners_20x": costs.rate(runners, grown, learners=8, learner_speed=20.0),
            f"model_rate_{runners}_runners_1ms_env_learner_20x": slow.rate(runners, grown, learner_speed=20.0),
        }
    ratios = {
        "2_runners_vs_1": figures["rate_2_runners"] / figures["rate_1_runner"],
        "model_error_2": figures["model_rate_2_runners"] / figures["rate_2_runners"] - 1,
    }
    return figures, ratios
