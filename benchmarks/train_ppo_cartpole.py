"""PPO on CartPole-v1: our engine against stock RLlib and stock Stable-Baselines3, same hyperparameters, same run.

2×64 tanh for policy and value each, 64 environments, 64 steps a rollout (4,096 transitions), 4 epochs, minibatches of 256, no
remote env runner. Stable-Baselines3 is taken as it comes: `make_vec_env` and `MlpPolicy`. The engines alternate; each figure
is the median over all iterations after the first two of each round. All have the machine's default number of threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from scalepilot.cluster import connected
from scalepilot.config import ExperimentConfig, config_from_mapping

ROUNDS = 3
ITERATIONS = {"rllib": 22, "rllib-stock": 6, "sb3": 12}
WARM_UP = 2
NUM_ENVS, ROLLOUT_STEPS, EPOCHS, MINIBATCH = 64, 64, 4, 256


def config(engine: str) -> ExperimentConfig:
    """The benchmark's experiment for one of RLlib's engines."""
    ppo = {"num_envs": NUM_ENVS, "rollout_steps": ROLLOUT_STEPS, "num_epochs": EPOCHS, "minibatch_size": MINIBATCH}
    ppo |= {"hidden": [64, 64], "envs_per_input": 1, "lr": 3e-4, "gamma": 0.99}
    return config_from_mapping({"name": "bench", "engine": engine, "env": {"id": "CartPole-v1"}, "ppo": ppo})


def timed(iterate: Callable[[], object], iterations: int) -> list[float]:
    """Environment steps a second of each iteration after the warm-up, sampling and learning together."""
    rates = []
    for _ in range(iterations):
        began = time.perf_counter()
        iterate()
        rates.append(NUM_ENVS * ROLLOUT_STEPS / (time.perf_counter() - began))
    return rates[WARM_UP:]


def rllib_rates(engine: str) -> list[float]:
    """Ours or stock RLlib."""
    from scalepilot.experiment import make_task
    from scalepilot.learn.rllib.trainer import RLlibTrainer

    experiment = config(engine)
    trainer = RLlibTrainer(experiment, make_task(experiment, None))
    try:
        return timed(trainer.iterate, ITERATIONS[engine])
    finally:
        trainer.close()


def sb3_rates() -> list[float]:
    """Stock Stable-Baselines3, through its own `learn`."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    networks: dict[str, Any] = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", NUM_ENVS, seed=0),
        n_steps=ROLLOUT_STEPS,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        policy_kwargs=networks,
        device="cpu",
    )
    rollout = NUM_ENVS * ROLLOUT_STEPS
    return timed(lambda: model.learn(rollout, reset_num_timesteps=False), ITERATIONS["sb3"])


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in steps/s and the ratios."""
    rates: dict[str, list[float]] = {engine: [] for engine in ITERATIONS}
    with connected(config("rllib").resources):
        for _ in range(ROUNDS):
            for engine, measured in rates.items():
                measured += sb3_rates() if engine == "sb3" else rllib_rates(engine)
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
