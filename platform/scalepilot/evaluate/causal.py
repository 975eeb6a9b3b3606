"""The best causal policy as a row of a comparison, and how far the others are above it."""

from __future__ import annotations

import numpy as np

from scalepilot.evaluate.comparison import Comparison
from scalepilot.evaluate.statistics.intervals import Interval, block_bootstrap

CAUSAL_OPTIMUM = "optimum (causal)"


def above_causal(comparison: Comparison, *, samples: int = 2000) -> dict[str, Interval]:
    """By what share of its cost policies and baselines cost more than the best causal policy, over the same episodes.

    Args:
        comparison: on Autoscale.
        samples: resamples behind the intervals.

    Returns:
        Policy or baseline → share; empty without the best causal policy. Over a finite test a share may be below 0 by chance.
    """
    best = next((c for c in comparison.contenders if c.name == CAUSAL_OPTIMUM), None)
    if best is None:
        return {}
    column, blocks = comparison.objective.column, comparison.episodes.blocks
    cost = np.asarray(best.results[column], dtype=np.float64)
    others = [*comparison.of_role("policy"), *comparison.of_role("baseline")]
    return {c.name: block_bootstrap(c.by_member(column) - cost, blocks, weights=cost, samples=samples) for c in others}
