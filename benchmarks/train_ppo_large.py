"""PPO on CartPole-v1 with large batches: 512 environments, 16,384 transitions a rollout, minibatches of 2,048, 4 epochs.

Against stock RLlib at its best setting (`STOCK_SETTINGS` are all tried, the best median counts) and against stock
Stable-Baselines3 with 64 environments, once with minibatches of 256 and once with ours (`SB3_SETTINGS`). 2×64 tanh for policy
and value each. The engines alternate; each figure is the median over all iterations after the first two of each round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.train_ppo_cartpole import Batch, rllib_rates, sb3_rates
from scalepilot.cluster import connected
from scalepilot.settings import ResourcesConfig

ROUNDS = 3
OURS = Batch(num_envs=512, rollout_steps=32, minibatch_size=2048)
# Remote env runners, the batch.
STOCK_SETTINGS = {
    "0_runners_64_envs": (0, Batch(64, 64, 256)),
    "2_runners_64_envs": (2, Batch(64, 64, 256)),
    "0_runners_512_envs": (0, OURS),
    "2_runners_512_envs": (2, OURS),
}
SB3_SETTINGS = {"4096_256": Batch(64, 64, 256), "16384_2048": Batch(64, 256, 2048)}


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in steps/s and the ratios."""
    measurements: dict[str, Callable[[], list[float]]] = {"ours": lambda: rllib_rates("rllib", OURS, 22)}
    for name, (runners, batch) in STOCK_SETTINGS.items():
        measurements[f"stock_{name}"] = lambda r=runners, b=batch: rllib_rates("rllib-stock", b, 5, num_env_runners=r)
    for name, batch in SB3_SETTINGS.items():
        measurements[f"sb3_{name}"] = lambda b=batch: sb3_rates(b, 8)
    rates: dict[str, list[float]] = {name: [] for name in measurements}
    with connected(ResourcesConfig(num_env_runners=2)):
        for _ in range(ROUNDS):
            for name, measure in measurements.items():
                rates[name] += measure()
    medians = {name: statistics.median(measured) for name, measured in rates.items()}
    best_stock = max(value for name, value in medians.items() if name.startswith("stock"))
    figures = {f"{name}_env_steps_per_second": value for name, value in medians.items()}
    ratios = {
        "vs_rllib_stock": medians["ours"] / best_stock,
        "vs_sb3": medians["ours"] / medians["sb3_4096_256"],
        "vs_sb3_16384_2048": medians["ours"] / medians["sb3_16384_2048"],
    }
    return figures, ratios
