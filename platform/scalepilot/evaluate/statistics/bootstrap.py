"""Resampling what is not independent: whole days of every workload, for all policies alike, and training seeds around them.

Two windows of the same day share its traffic, and the seeds of a window share everything but the arrival noise, so the
day is the unit of chance. Policies that differ only in their training seed all meet the same days: seeds and days are each
drawn with replacement, and what either draw changes adds up, which errs towards too wide an interval.

There are often few of either, and the plain percentile bootstrap is then too narrow (with three days it cannot reach beyond
the best and the worst one). Deviations of the resamples from the estimate are therefore widened by
t(0.975, n − 1) · √(n / (n − 1)) / 1.96, those from drawing seeds and those from drawing days each by their own factor, which
tends to 1 as n grows.

Source:
    Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 and 13; the widening is the idea of
    T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015), section 5.3; on
    resampling two crossed factors A. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
# (drawn members (k, num_members), how often each block is drawn (k, num_blocks), one array a workload) → (k,) values.
Statistic = Callable[[Indices, Sequence[Array]], Array]

NORMAL_QUANTILE = 1.959964
# Student's t(0.975) for 1, 2, … degrees of freedom; above these the expansion below is right to 0.1 %.
_T_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def widening(num_blocks: int, num_strata: int = 1) -> float:
    """Factor on the resamples' deviations that makes up for few blocks; NaN where a stratum cannot have two.

    Args:
        num_blocks: in all strata together.
        num_strata: groups (workloads) that are resampled each for itself; each costs a degree of freedom.
    """
    freedom = num_blocks - num_strata
    if freedom < 1:
        return math.nan
    if freedom <= len(_T_QUANTILES):
        quantile = _T_QUANTILES[freedom - 1]
    else:
        z = NORMAL_QUANTILE
        # Cornish–Fisher expansion of Student's t; Abramowitz & Stegun 26.7.5.
        quantile = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return quantile * math.sqrt(num_blocks / freedom) / NORMAL_QUANTILE


def nested_bootstrap(
    statistic: Statistic,
    num_blocks: Sequence[int],
    num_members: int | Sequence[int] = 1,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, Array]:
    """The estimate of a statistic and its widened resamples.

    The same blocks, samples and seed give the same draws of blocks, so intervals of several policies are paired.

    Args:
        statistic: of resamples; NaN where one says nothing.
        num_blocks: of each workload; empty where chance lies in the members alone.
        num_members: training seeds; 1 draws blocks alone. Of several groups, each is drawn for itself and their draws stand
            side by side: the statistic's members have as many columns as all of them together.
        samples: resamples.
        seed: of the draws.

    Returns:
        The estimate from everything, and (samples,) resamples; all NaN where a workload has a single block.
    """
    groups = [num_members] if isinstance(num_members, int) else list(num_members)
    every = np.concatenate([np.arange(size) for size in groups])[None]
    whole = [np.ones((1, count)) for count in num_blocks]
    estimate = float(statistic(every, whole)[0])
    if num_blocks and min(num_blocks) < 2:
        return estimate, np.full(samples, math.nan)
    rng = np.random.default_rng(seed)
    every, whole = np.repeat(every, samples, axis=0), [np.repeat(ones, samples, axis=0) for ones in whole]
    resamples = np.full(samples, estimate)
    if num_blocks:
        # How often each block is drawn: all that a resample of whole blocks needs.
        drawn = [rng.multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64) for count in num_blocks]
        resamples += widening(sum(num_blocks), len(num_blocks)) * _deviations(statistic(every, drawn), estimate)
    first = 0
    for size in groups:
        if size > 1:
            members = every.copy()
            members[:, first : first + size] = rng.integers(size, size=(samples, size))
            # Each level carries the chance of single (seed, day) pairs already: their crossing would count it once more.
            resamples += widening(size) * _deviations(statistic(members, whole), estimate)
        first += size
    return estimate, resamples


def _deviations(resamples: Array, estimate: float) -> Array:
    """From the estimate; a resample of blocks without any weight (no requests at all) says nothing and counts as none."""
    return np.where(np.isfinite(resamples), resamples - estimate, 0.0)


def block_sums(values: NDArray[np.floating], blocks: Indices) -> Array:
    """Sums (num_members, num_blocks) of values (n,) or (num_members, n) over blocks numbered from 0."""
    count = int(blocks.max()) + 1
    return np.stack([np.bincount(blocks, row, count) for row in np.atleast_2d(values)])


def drawn_sums(sums: Array, members: Indices, drawn: Array) -> Array:
    """Total (k,) of `block_sums` over the members and blocks of each resample; one row stands for all members alike."""
    if len(sums) == 1:
        return np.asarray(members.shape[1] * (drawn @ sums[0]))
    counts = np.stack([(members == m).sum(axis=1) for m in range(len(sums))], axis=1)
    return np.asarray(((counts @ sums) * drawn).sum(axis=1))


def ratio(top: Array, bottom: Array) -> Array:
    """One divided by the other, NaN where there is nothing to divide by."""
    shares: Array = np.divide(top, bottom, out=np.full(np.shape(top), math.nan), where=bottom != 0)
    return shares
