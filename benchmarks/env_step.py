"""Steps a second of every environment: 1,024 of them in one process against one at a time in a Python loop.

The loop is the shared specification's reference (../shared/golden), or a re-implementation in benchmarks/scalar_*.py where that
is absent. Both sides take the actions, build observation and reward, and start ended episodes anew.
"""

from __future__ import annotations

import re
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.scalar_loops import RIVALS, Rival

NUM_ENVS, ROUNDS = 1024, 5


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Alternate both, five times, one environment after the other; medians.

    Autoscale-v0's figures keep the names they have always had; those of the others carry the environment's.
    """
    figures: dict[str, Any] = {"num_envs": NUM_ENVS, "rounds": ROUNDS}
    ratios: dict[str, float] = {}
    for name, rival in RIVALS.items():
        suffix = "" if name == "Autoscale-v0" else f"_{_snake(name)}"
        measured, ratio = _measure(name, rival)
        figures |= {f"{figure}{suffix}": value for figure, value in measured.items()}
        ratios[f"vs_python_loop{suffix}"] = ratio
    return figures, ratios


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("-v0")).lower()


def _measure(name: str, rival: Rival) -> tuple[dict[str, Any], float]:
    scalar, source = rival.scalar()
    rng = np.random.default_rng(0)
    batched, looped = [], []
    for _ in range(ROUNDS):
        batched.append(_batch_steps_per_second(name, rival, rng))
        looped.append(rival.loop_steps / rival.loop(scalar, rng, rival.loop_steps))
    ratios = [fast / slow for fast, slow in zip(batched, looped, strict=True)]
    figures = {
        "batch_steps_per_second": round(statistics.median(batched)),
        "python_loop_steps_per_second": round(statistics.median(looped)),
        "python_loop": source,
        "ratio_lowest": round(min(ratios), 1),
        "ratio_highest": round(max(ratios), 1),
    }
    return figures, round(statistics.median(ratios), 1)


def _batch_steps_per_second(name: str, rival: Rival, rng: np.random.Generator) -> float:
    import gymnasium as gym

    envs = gym.make_vec(f"scalepilot_envs:scalepilot/{name}", num_envs=NUM_ENVS, vectorization_mode="vector_entry_point")
    envs.reset(seed=0)
    actions = rival.actions(rng, rival.batch_steps, NUM_ENVS)
    begin = time.perf_counter()
    for action in actions:
        envs.step(action)
    seconds = time.perf_counter() - begin
    envs.close()
    return NUM_ENVS * rival.batch_steps / seconds
