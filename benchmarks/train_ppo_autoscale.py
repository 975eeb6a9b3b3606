"""PPO on Autoscale: our batch-native engine against stock RLlib, same config, same run.

2×64 tanh, 256 environments, 64 steps a rollout, 4 epochs, minibatches of 2,048, no remote env runner. The engines
alternate; each figure is the median over all iterations after the first two of each round.
"""

from __future__ import annotations

import statistics
import time

from scalepilot.cluster.connection import connected
from scalepilot.config import ExperimentConfig, config_from_mapping

ROUNDS = 3
ITERATIONS = {"rllib": 22, "rllib-stock": 4}
WARM_UP = 2


def config(engine: str) -> ExperimentConfig:
    """The benchmark's experiment for one engine."""
    ppo = {"num_envs": 256, "rollout_steps": 64, "num_epochs": 4, "minibatch_size": 2048, "hidden": [64, 64]}
    return config_from_mapping({"name": "bench", "engine": engine, "ppo": ppo, "resources": {"torch_threads": None}})


def steps_per_second(engine: str) -> list[float]:
    """Environment steps a second of each measured iteration, sampling and learning together."""
    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.learn.task import Task

    experiment = config(engine)
    trainer = RLlibTrainer(experiment, Task(experiment))
    rates = []
    try:
        for _ in range(ITERATIONS[engine]):
            began = time.perf_counter()
            trainer.iterate()
            rates.append(experiment.ppo.batch_size / (time.perf_counter() - began))
    finally:
        trainer.close()
    return rates[WARM_UP:]


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in steps/s and the ratio against stock RLlib."""
    rates: dict[str, list[float]] = {engine: [] for engine in ITERATIONS}
    with connected(config("rllib").resources):
        for _ in range(ROUNDS):
            for engine, measured in rates.items():
                measured += steps_per_second(engine)
    medians = {engine: statistics.median(measured) for engine, measured in rates.items()}
    figures = {
        "env_steps_per_second": medians["rllib"],
        "stock_env_steps_per_second": medians["rllib-stock"],
        "env_steps_per_second_lowest": min(rates["rllib"]),
        "env_steps_per_second_highest": max(rates["rllib"]),
    }
    return figures, {"vs_rllib_stock": medians["rllib"] / medians["rllib-stock"]}
