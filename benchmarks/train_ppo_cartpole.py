"""PPO on CartPole-v1: our engine against stock RLlib and stock Stable-Baselines3, same hyperparameters, same run.

2×64 tanh for policy and value each, 64 environments, 64 steps a rollout (4,096 transitions), 4 epochs, minibatches of 256, no
remote env runner. Stable-Baselines3 is taken as it comes: `make_vec_env` and `MlpPolicy`. The engines alternate; each figure
is the median over all iterations after the first two of each round. All have the machine's default number of threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from scalepilot.cluster.connection import connected
from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.config.running import ResourcesConfig

ROUNDS = 3
ITERATIONS = {"rllib": 22, "rllib-stock": 6, "sb3": 12}
WARM_UP, EPOCHS = 2, 4


class Batch(NamedTuple):
    """How much is sampled for an update, and learnt from at a time."""

    num_envs: int
    rollout_steps: int
    minibatch_size: int

    @property
    def size(self) -> int:
        """Transitions of one iteration."""
        return self.num_envs * self.rollout_steps


BATCH = Batch(num_envs=64, rollout_steps=64, minibatch_size=256)


def config(engine: str, batch: Batch, num_env_runners: int) -> ExperimentConfig:
    """The benchmark's experiment for one of RLlib's engines; torch has the machine's default number of threads."""
    ppo = {**batch._asdict(), "num_epochs": EPOCHS, "hidden": [64, 64], "envs_per_input": 1, "lr": 3e-4, "gamma": 0.99}
    resources = {"num_env_runners": num_env_runners, "torch_threads": None}
    values = {"name": "bench", "engine": engine, "env": {"id": "CartPole-v1"}, "ppo": ppo, "resources": resources}
    return config_from_mapping(values)


def timed(iterate: Callable[[], object], iterations: int, batch: Batch) -> list[float]:
    """Environment steps a second of each iteration after the warm-up, sampling and learning together."""
    rates = []
    for _ in range(iterations):
        began = time.perf_counter()
        iterate()
        rates.append(batch.size / (time.perf_counter() - began))
    return rates[WARM_UP:]


def rllib_rates(engine: str, batch: Batch, iterations: int, num_env_runners: int = 0) -> list[float]:
    """Ours or stock RLlib; Ray must be up."""
    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.learn.task import Task

    experiment = config(engine, batch, num_env_runners)
    trainer = RLlibTrainer(experiment, Task(experiment))
    try:
        return timed(trainer.iterate, iterations, batch)
    finally:
        trainer.close()


def sb3_rates(batch: Batch, iterations: int) -> list[float]:
    """Stock Stable-Baselines3, through its own `learn`."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    networks: dict[str, Any] = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", batch.num_envs, seed=0),
        n_steps=batch.rollout_steps,
        batch_size=batch.minibatch_size,
        n_epochs=EPOCHS,
        policy_kwargs=networks,
        device="cpu",
    )
    return timed(lambda: model.learn(batch.size, reset_num_timesteps=False), iterations, batch)


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in steps/s and the ratios."""
    rates: dict[str, list[float]] = {engine: [] for engine in ITERATIONS}
    with connected(ResourcesConfig()):
        for _ in range(ROUNDS):
            for engine, measured in rates.items():
                count = ITERATIONS[engine]
                measured += sb3_rates(BATCH, count) if engine == "sb3" else rllib_rates(engine, BATCH, count)
    medians = {engine: statistics.median(measured) for engine, measured in rates.items()}
    figures = {
        "env_steps_per_second": medians["rllib"],
        "stock_env_steps_per_second": medians["rllib-stock"],
        "sb3_env_steps_per_second": medians["sb3"],
        "env_steps_per_second_lowest": min(rates["rllib"]),
        "env_steps_per_second_highest": max(rates["rllib"]),
    }
    ratios = {
        "vs_rllib_stock": medians["rllib"] / medians["rllib-stock"],
        "vs_sb3": medians["rllib"] / medians["sb3"],
    }
    return figures, ratios
