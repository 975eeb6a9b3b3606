"""What two env runners cost beside sampling and learning: rollouts into the object store and out of it, weights back.

PPO as `tune_configs/autoscale-ppo.yaml` has it, on Autoscale's environments, and on CartPole with large batches; two env runners,
the learner in the driver. Shares are of the iteration, medians over the iterations after the first five. `weights_*` is the whole
way of the weights, driver → object store → runner → loaded, waited for: training itself does not wait.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from scalepilot.cluster.connection import connected
from scalepilot.config import ExperimentConfig, config_from_mapping

ITERATIONS, WARM_UP = 40, 5
CASES: dict[str, dict[str, Any]] = {
    "autoscale": {"ppo": {"total_env_steps": 10**9}},
    "cartpole_large": {
        "env": {"id": "CartPole-v1"},
        "ppo": {"total_env_steps": 10**9, "num_envs": 512, "rollout_steps": 32, "minibatch_size": 2048, "envs_per_input": 1},
    },
}


def config(case: dict[str, Any]) -> ExperimentConfig:
    """An experiment with two env runners."""
    return config_from_mapping({**case, "resources": {"num_env_runners": 2}})


def measure(case: dict[str, Any]) -> dict[str, float]:
    """Medians in seconds, and shares of the iteration; Ray must be up."""
    from scalepilot.learn.algorithms import make_trainer
    from scalepilot.learn.task import Task

    experiment = config(case)
    trainer: Any = make_trainer(experiment, Task(experiment))
    try:
        rows, seconds, weights = [], [], []
        for _ in range(ITERATIONS):
            began = time.perf_counter()
            rows.append(trainer.iterate())
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            trainer.algorithm.env_runner_group.sync_weights(
                from_worker_or_learner_group=trainer.algorithm.learner_group, inference_only=True, timeout_seconds=60.0
            )
            weights.append(time.perf_counter() - began)
    finally:
        trainer.close()

    def median(values: list[float]) -> float:
        return statistics.median(values[WARM_UP:])

    iteration = median(seconds)
    found = {
        f"{name}_seconds": median([row[f"{name}_seconds"] for row in rows]) for name in ("sample", "learn", "transfer", "sync")
    }
    found |= {"iteration_seconds": iteration, "weights_seconds": median(weights)}
    # The longer of the two ways of looking at the weights.
    moved = found["transfer_seconds"] + max(found["sync_seconds"], found["weights_seconds"])
    return {**found, "moved_share": moved / iteration, "steps_per_second": experiment.learning.rollout_size / iteration}


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures by case, and the largest share."""
    figures: dict[str, float] = {}
    for name, case in CASES.items():
        with connected(config(case).resources):
            figures |= {f"{name}_{key}": value for key, value in measure(case).items()}
    return figures, {"largest_moved_share": max(figures[f"{name}_moved_share"] for name in CASES)}
