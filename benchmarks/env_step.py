"""Steps a second of Autoscale-v0: 1,024 environments in one process against one at a time in a Python loop.

The loop is the shared specification's reference (../shared/golden), or benchmarks/scalar_service.py where that is absent. Both
decode an action, serve the interval, price it and build the observation; arrivals are drawn beforehand for both.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
NUM_ENVS, BATCH_STEPS, LOOP_STEPS, ROUNDS = 1024, 200, 2000, 5


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Alternate both, five times; medians."""
    scalar, source = _scalar_type()
    rng = np.random.default_rng(0)
    batched, looped = [], []
    for _ in range(ROUNDS):
        batched.append(_batch_steps_per_second(rng))
        looped.append(_loop_steps_per_second(scalar, rng))
    ratios = [fast / slow for fast, slow in zip(batched, looped, strict=True)]
    figures = {
        "num_envs": NUM_ENVS,
        "rounds": ROUNDS,
        "batch_steps_per_second": round(statistics.median(batched)),
        "python_loop_steps_per_second": round(statistics.median(looped)),
        "python_loop": source,
        "ratio_lowest": round(min(ratios), 1),
        "ratio_highest": round(max(ratios), 1),
    }
    return figures, {"vs_python_loop": round(statistics.median(ratios), 1)}


def _scalar_type() -> tuple[Any, str]:
    if (GOLDEN / "autoscale.py").is_file():
        sys.path.insert(0, str(GOLDEN))
        try:
            return importlib.import_module("autoscale").Autoscale, "shared specification, golden/autoscale.py"
        finally:
            sys.path.remove(str(GOLDEN))
    from benchmarks.scalar_service import Autoscale

    return Autoscale, "benchmarks/scalar_service.py"


def _batch_steps_per_second(rng: np.random.Generator) -> float:
    import gymnasium as gym

    envs = gym.make_vec("scalepilot_envs:scalepilot/Autoscale-v0", num_envs=NUM_ENVS, vectorization_mode="vector_entry_point")
    envs.reset(seed=0)
    actions = rng.integers(0, 8, (BATCH_STEPS, NUM_ENVS))
    begin = time.perf_counter()
    for action in actions:
        envs.step(action)
    seconds = time.perf_counter() - begin
    envs.close()
    return NUM_ENVS * BATCH_STEPS / seconds


def _loop_steps_per_second(scalar: Any, rng: np.random.Generator) -> float:
    rates = rng.uniform(50, 500, LOOP_STEPS)
    arrived = rng.poisson(rates * 15.0).astype(float).tolist()
    actions = rng.integers(0, 8, LOOP_STEPS).tolist()
    service = scalar()
    service.reset(float(rates[0]))
    begin = time.perf_counter()
    for action, rate, count in zip(actions, rates.tolist(), arrived, strict=True):
        service.step(service.target_of(action), rate, count)
    return LOOP_STEPS / (time.perf_counter() - begin)
