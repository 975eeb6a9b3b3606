"""Which key decides: shares of the variance of ranks that each explains by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.experiments.sweep.config import RangeConfig
from scalepilot.experiments.sweep.plan import Point

Array = NDArray[np.float64]
_BINS = 4


@dataclass(frozen=True)
class Importance:
    """How much each key decides.

    Attributes:
        shares: key → share of the variance of the ranks of the scores that its own effect explains; NaN where there are too
            few trials to tell.
        rest: what no key explains by itself: keys that matter together, and the luck of the seed.
        num_trials: behind it.
    """

    shares: Mapping[str, float]
    rest: float
    num_trials: int

    @property
    def is_known(self) -> bool:
        """Whether there were enough trials."""
        return math.isfinite(self.rest)


def importance(space: Mapping[str, list[Any] | RangeConfig], points: Sequence[Point], scores: Sequence[float]) -> Importance:
    """Effects of the keys, one beside the other, without their interactions.

    Ranks, not scores: one trial that learnt nothing would otherwise be all of the variance. Shares are ε², which takes off what
    as many random groups would explain, so that a key without an effect has a share near 0 and not near its number of values.

    Args:
        space: the searched keys.
        points: one a trial.
        scores: likewise, minimised.

    Source:
        ε²: Kelley, "An unbiased correlation ratio measure", PNAS 21 (1935).
    """
    n = len(points)
    ranks = _ranks(np.asarray(scores, np.float64))
    groups = {key: _groups(choices, [point[key] for point in points]) for key, choices in space.items()}
    columns = {key: _one_hot(of) for key, of in groups.items()}
    total = float(((ranks - ranks.mean()) ** 2).sum())
    full = [column for column in columns.values() if column.shape[1]]
    freedom = n - 1 - sum(column.shape[1] for column in full)
    if n < 3 or freedom < 1 or total == 0:
        return Importance(dict.fromkeys(space, math.nan), math.nan, n)
    residual = _residual(ranks, full)
    noise = residual / freedom
    shares = {}
    for key, column in columns.items():
        without = _residual(ranks, [other for name, other in columns.items() if name != key and other.shape[1]])
        shares[key] = float(np.clip((without - residual - column.shape[1] * noise) / total, 0.0, 1.0))
    return Importance(shares, float(np.clip(1.0 - sum(shares.values()), 0.0, 1.0)), n)


def _ranks(values: Array) -> Array:
    """(n,) ranks, equal values sharing theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_rank: Array = (ends - (counts - 1) / 2.0)[places]
    return mean_rank


def _groups(choices: list[Any] | RangeConfig, values: Sequence[Any]) -> NDArray[np.int64]:
    """(n,) group of each value: the choice, or the quarter of a range's values."""
    if isinstance(choices, list):
        return np.array([choices.index(value) for value in values], np.int64)
    order = np.argsort(np.argsort(np.asarray(values, np.float64), kind="stable"), kind="stable")
    bins = max(1, min(_BINS, len(values) // 3))
    return np.asarray(order * bins // max(1, len(values)), np.int64)


def _one_hot(groups: NDArray[np.int64]) -> Array:
    """(n, number of groups − 1) indicators."""
    found = np.unique(groups)
    return (
        np.stack([groups == group for group in found[1:]], axis=1).astype(np.float64)
        if len(found) > 1
        else np.zeros((len(groups), 0))
    )


def _residual(values: Array, columns: Sequence[Array]) -> float:
    design = np.concatenate([np.ones((len(values), 1)), *columns], axis=1)
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(((values - fitted) ** 2).sum())


__all__ = ["Importance", "importance"]
