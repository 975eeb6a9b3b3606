"""Synthetic results of a study, as different as a test needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.study_metrics import Arm, SeedRun, TaskResult, compare_arms, measure_arm

EPISODES, BUDGET, POINTS = 40, 10_000, 20


def arm(
    name: str,
    final: float,
    *,
    seeds: int = 5,
    between_seeds: float = 1.0,
    reached_after: float = 0.5,
    fall: float = 0.0,
    shares: Sequence[float] = (0.5, 0.5),
    success_return: float | None = 475.0,
    draw: int = 0,
) -> Arm:
    """An arm whose validation rises to `final` by a share of the budget, and once falls by `fall`.

    Args:
        name: of the arm.
        final: mean test return.
        seeds: runs.
        between_seeds: standard deviation of their means.
        reached_after: share of the budget.
        fall: at three quarters of the budget.
        shares: of the actions.
        success_return: threshold.
        draw: seed of the noise.
    """
    rng = np.random.default_rng(draw)
    steps = np.linspace(BUDGET / POINTS, BUDGET, POINTS)
    runs = []
    for seed in range(seeds):
        mean = final + rng.normal(0, between_seeds)
        value = np.minimum(1.0, steps / (reached_after * BUDGET)) * mean
        value[(3 * POINTS) // 4] -= fall + rng.normal(0, 0.01)
        test = np.clip(mean + rng.normal(0, 2.0, EPISODES), 0, 500)
        runs.append(SeedRun(seed, Curve(steps, value), steps / 1000, mean, test, np.array(shares), 3.0, f"runs/{name}/{seed}"))
    return measure_arm(name, "synthetic", BUDGET, runs, success_return, samples=300)


def task(name: str, *arms: Arm, random: float = 22.0, success_return: float | None = 475.0) -> TaskResult:
    """A task with a random agent around `random`."""
    returns = random + np.random.default_rng(9).normal(0, 5, EPISODES)
    return compare_arms(name, "Some-v0", success_return, ("left", "right"), returns, arms, samples=300)


def text(paragraphs: Sequence[object]) -> Mapping[str, str]:
    """Heading → text."""
    return {p.heading: p.text for p in paragraphs}  # type: ignore[attr-defined]
