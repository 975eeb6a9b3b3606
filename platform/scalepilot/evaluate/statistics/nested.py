"""Intervals that say what another training seed would bring: for studies and engines, where the seed is what is asked about.

The resampling is that of `bootstrap`. Two things are particular: a single seed has no interval, however many episodes it ran, for
it says nothing of the next; and of two contenders with seeds of their own, those of each are drawn for themselves, while both
meet the same blocks of episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.statistics.aggregate import interquartile_mean
from scalepilot.evaluate.statistics.bootstrap import Indices, block_sums, drawn_sums, nested_bootstrap
from scalepilot.evaluate.statistics.intervals import Interval, block_bootstrap, percentile_interval
from scalepilot_envs.objective import UNBOUNDED, Bounds

Array = NDArray[np.float64]


def nested_mean(values: Array, blocks: Indices, *, samples: int = 2000, seed: int = 0, bounds: Bounds = UNBOUNDED) -> Interval:
    """Mean over training seeds and episodes with its 95 % interval.

    Args:
        values: (num_seeds, num_episodes).
        blocks: (num_episodes,) what is resampled together: the day or the episode itself.
        samples: resamples.
        seed: of the draws.
        bounds: of what the quantity can be.
    """
    if len(values) < 2:
        return Interval(float(values.mean()), math.nan, math.nan)
    return block_bootstrap(values, blocks, samples=samples, seed=seed, bounds=bounds)


def nested_difference(first: Array, second: Array, blocks: Indices, *, samples: int = 2000, seed: int = 0) -> Interval:
    """Mean of the first minus mean of the second, as `nested_mean`.

    Args:
        first: (num_seeds, num_episodes).
        second: (any number of seeds, num_episodes), of the same episodes.
        blocks: (num_episodes,).
        samples: resamples.
        seed: of the draws.

    Raises:
        ValueError: different episodes.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"first, second: shapes {first.shape} and {second.shape}; allowed: the same episodes in both")
    if min(len(first), len(second)) < 2:
        return Interval(float(first.mean() - second.mean()), math.nan, math.nan)
    _, block_of = np.unique(blocks, return_inverse=True)
    ours, theirs, sizes = (block_sums(v, block_of) for v in (first, second, np.ones(len(block_of))))
    split = len(first)

    def statistic(members: Indices, drawn: Sequence[Array]) -> Array:
        of_ours = drawn_sums(ours, members[:, :split], drawn[0]) / split
        of_theirs = drawn_sums(theirs, members[:, split:], drawn[0]) / len(theirs)
        difference: Array = (of_ours - of_theirs) / (drawn[0] @ sizes[0])
        return difference

    seeds = (split, len(second))
    return percentile_interval(*nested_bootstrap(statistic, [sizes.shape[1]], seeds, samples=samples, seed=seed))


def nested_iqm(values: Array, blocks: Indices, *, samples: int = 2000, seed: int = 0, bounds: Bounds = UNBOUNDED) -> Interval:
    """Interquartile mean over training seeds and episodes with its interval; arguments as `nested_mean`."""
    if len(values) < 2:
        return Interval(float(interquartile_mean(values)), math.nan, math.nan)
    unique, block_of = np.unique(blocks, return_inverse=True)
    episodes = np.arange(values.shape[1])

    def statistic(members: Indices, drawn: Sequence[Array]) -> Array:
        counts = drawn[0].astype(np.int64)[:, block_of]
        return np.array(
            [
                interquartile_mean(values[which][:, np.repeat(episodes, count)])
                for which, count in zip(members, counts, strict=True)
            ]
        )

    return percentile_interval(*nested_bootstrap(statistic, [len(unique)], len(values), samples=samples, seed=seed), bounds)


def difference_over_seeds(first: Sequence[float], second: Sequence[float], samples: int = 2000) -> Interval:
    """Mean of the first minus mean of the second, of what each seed has a single number of.

    Args:
        first: one a seed.
        second: likewise, of seeds of their own.
        samples: resamples.
    """
    ours, theirs = np.array(first), np.array(second)
    if min(len(ours), len(theirs)) < 2:
        return Interval(float(ours.mean() - theirs.mean()), math.nan, math.nan)

    def statistic(members: Indices, drawn: Sequence[Array]) -> Array:
        split = len(ours)
        difference: Array = ours[members[:, :split]].mean(axis=1) - theirs[members[:, split:]].mean(axis=1)
        return difference

    return percentile_interval(*nested_bootstrap(statistic, [], (len(ours), len(theirs)), samples=samples))
