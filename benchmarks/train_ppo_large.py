"""PPO on CartPole-v1 with large batches: 512 environments, 16,384 transitions a rollout, minibatches of 2,048, 4 epochs.

Against stock RLlib at its best setting and against stock Stable-Baselines3 with 64 environments, once with minibatches of 256
and once with ours (`SB3_SETTINGS`). For RLlib all of `STOCK_SETTINGS` are tried and the best median counts: few or many
environments, in the driver or on two remote runners, RLlib's own network and vectorisation or, more than it comes with, our
network and gymnasium's native vector environment. 2×64 tanh for policy and value each. The engines alternate; each figure is
the median over all iterations after the first two of each round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from benchmarks.train_ppo_cartpole import EPOCHS, Batch, rllib_rates, sb3_rates, timed
from scalepilot.cluster.connection import connected
from scalepilot.config.running import ResourcesConfig

ROUNDS = 3
OURS = Batch(num_envs=512, rollout_steps=32, minibatch_size=2048)
SMALL = Batch(num_envs=64, rollout_steps=64, minibatch_size=256)
# Remote env runners, the batch.
STOCK_SETTINGS = {
    "0_runners_64_envs": (0, SMALL),
    "2_runners_64_envs": (2, SMALL),
    "2_runners_512_envs": (2, OURS),
}
SB3_SETTINGS = {"4096_256": SMALL, "16384_2048": Batch(64, 256, 2048)}
STOCK_ITERATIONS = 5


def stock_rates(num_env_runners: int, batch: Batch) -> list[float]:
    """RLlib as it comes: its own network and its own vectorisation; Ray must be up."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    algorithm = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=num_env_runners,
            num_envs_per_env_runner=batch.num_envs // max(1, num_env_runners),
            rollout_fragment_length=batch.rollout_steps,
        )
        .training(train_batch_size_per_learner=batch.size, minibatch_size=batch.minibatch_size, num_epochs=EPOCHS, lr=3e-4)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False))
        .debugging(log_level="ERROR")
        .build_algo()
    )
    try:
        return timed(algorithm.train, STOCK_ITERATIONS, batch)
    finally:
        algorithm.stop()


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in steps/s and the ratios."""
    measurements: dict[str, Callable[[], list[float]]] = {"ours": partial(rllib_rates, "rllib", OURS, 22)}
    for name, (runners, batch) in STOCK_SETTINGS.items():
        measurements[f"stock_{name}"] = partial(stock_rates, runners, batch)
        measurements[f"stock_native_{name}"] = partial(rllib_rates, "rllib-stock", batch, STOCK_ITERATIONS, runners)
    for name, batch in SB3_SETTINGS.items():
        measurements[f"sb3_{name}"] = partial(sb3_rates, batch, 8)
    rates: dict[str, list[float]] = {name: [] for name in measurements}
    with connected(ResourcesConfig(num_env_runners=2)):
        for _ in range(ROUNDS):
            for name, measure in measurements.items():
                rates[name] += measure()
    medians = {name: statistics.median(measured) for name, measured in rates.items()}

    def best(prefix: str) -> float:
        return max(value for name, value in medians.items() if name.startswith(prefix))

    figures = {f"{name}_env_steps_per_second": value for name, value in medians.items()}
    ratios = {
        "vs_rllib_stock": medians["ours"] / best("stock"),
        "vs_rllib_stock_as_it_comes": medians["ours"] / max(medians[f"stock_{name}"] for name in STOCK_SETTINGS),
        "vs_sb3": medians["ours"] / medians["sb3_4096_256"],
        "vs_sb3_16384_2048": medians["ours"] / medians["sb3_16384_2048"],
    }
    return figures, ratios
