"""Intervals for numbers whose episodes are not independent: whole days are resampled, for all policies alike.

Two windows of the same day share its traffic, and the seeds of a window share everything but the arrival noise, so the
day is the unit of chance. A test part often has few of them, and the plain percentile bootstrap is then too narrow (with
three days it cannot reach beyond the best and the worst one). Deviations of the resamples from the estimate are therefore
widened by t(0.975, days − 1) · √(days / (days − 1)) / 1.96, which tends to 1 as days are added.

Source:
    Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 and 13; the widening is the idea of
    T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015), section 5.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LEVEL_PERCENT = (2.5, 97.5)
_NORMAL_QUANTILE = 1.959964
# Student's t(0.975) for 1, 2, … degrees of freedom; above these the expansion below is right to 0.1 %.
_T_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
SMALLEST_GAP_SHARE = 0.05


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval.

    Attributes:
        mean: the estimate from all episodes; NaN where there is none.
        low, high: the interval; NaN where the episodes cannot give one (a single block).
    """

    mean: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class PairedDifference:
    """First policy minus second over the same episodes.

    Attributes:
        difference: in the unit of the values; negative where the first is lower.
        relative: mean difference as a share of the second's mean; NaN where that is 0.
        probability_lower: share of the resamples in which the first is lower; NaN where the interval is.
    """

    difference: Interval
    relative: float
    probability_lower: float


@dataclass(frozen=True)
class GapClosed:
    """How much of the way from a baseline to a reference a policy goes: 1 all, 0 none, negative worse.

    Attributes:
        share: ratio of sums over the pairs kept.
        pairs: (window, seed) pairs kept.
        left_out: pairs in which the baseline is within 5 % of the reference (or better): no gap to close.
    """

    share: Interval
    pairs: int
    left_out: int


def widening(num_blocks: int) -> float:
    """Factor on the resamples' deviations that makes up for few blocks; NaN for fewer than two."""
    if num_blocks < 2:
        return math.nan
    freedom = num_blocks - 1
    if freedom <= len(_T_QUANTILES):
        quantile = _T_QUANTILES[freedom - 1]
    else:
        z = _NORMAL_QUANTILE
        # Cornish–Fisher expansion of Student's t; Abramowitz & Stegun 26.7.5.
        quantile = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return quantile * math.sqrt(num_blocks / freedom) / _NORMAL_QUANTILE


def block_bootstrap(
    values: NDArray[Any],
    blocks: NDArray[np.int64],
    *,
    weights: NDArray[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    lowest: float = -math.inf,
) -> Interval:
    """The mean, or a ratio of sums, with its interval from whole blocks drawn with replacement.

    The same blocks, samples and seed give the same draws, so intervals of several policies are paired.

    Args:
        values: (n,) one an episode; with weights, the numerators.
        blocks: (n,) which block (day) each belongs to.
        weights: (n,) denominators: the estimate is sum(values) / sum(weights). None for the mean.
        samples: resamples.
        seed: of the draws.
        lowest: the quantity cannot be below this (0 for costs and shares).

    Raises:
        ValueError: shapes differ, nothing is given, or fewer than one resample.
    """
    estimate, resamples = _resampled_ratio(values, np.ones(len(values)) if weights is None else weights, blocks, samples, seed)
    return _interval(estimate, resamples, lowest)


def paired_difference(
    first: NDArray[Any], second: NDArray[Any], blocks: NDArray[np.int64], *, samples: int = 2000, seed: int = 0
) -> PairedDifference:
    """Mean of first − second over the same (window, seed) pairs.

    Args:
        first: (n,) values of one policy.
        second: (n,) values of the other, same order of pairs.
        blocks: (n,) day of each pair.
        samples: resamples.
        seed: of the draws.

    Raises:
        ValueError: as `block_bootstrap`.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"first, second: shapes {first.shape} and {second.shape} differ; allowed: the same pairs in both")
    estimate, resamples = _resampled_ratio(first - second, np.ones(len(first)), blocks, samples, seed)
    baseline = float(second.mean())
    lower = np.where(resamples == 0, 0.5, resamples < 0)
    probability = float(lower.mean()) if np.isfinite(resamples).all() else math.nan
    return PairedDifference(_interval(estimate, resamples), estimate / baseline if baseline else math.nan, probability)


def gap_closed(
    policy: NDArray[Any],
    baseline: NDArray[Any],
    reference: NDArray[Any],
    blocks: NDArray[np.int64],
    *,
    samples: int = 2000,
    seed: int = 0,
) -> GapClosed:
    """G = Σ(J_base − J_policy) / Σ(J_base − J_reference) over the pairs where there is a gap.

    Args:
        policy: (n,) J of the policy, one a (window, seed) pair.
        baseline: (n,) J of the baseline.
        reference: (n,) J of the reference. G = 1 means "as good as that", not "optimal", unless it is a lower bound.
        blocks: (n,) day of each pair.
        samples: resamples.
        seed: of the draws.

    Raises:
        ValueError: as `block_bootstrap`.

    Source:
        Shared specification, `reference/baselines.md`.
    """
    policy, baseline, reference = (np.asarray(x, np.float64) for x in (policy, baseline, reference))
    kept = baseline - reference >= SMALLEST_GAP_SHARE * baseline
    # A pair without a gap and without a cost would divide by zero.
    kept &= baseline > reference
    pairs = int(kept.sum())
    if not pairs:
        return GapClosed(Interval(math.nan, math.nan, math.nan), 0, len(policy))
    share = block_bootstrap(
        (baseline - policy)[kept], np.asarray(blocks)[kept], weights=(baseline - reference)[kept], samples=samples, seed=seed
    )
    return GapClosed(share, pairs, len(policy) - pairs)


def _resampled_ratio(
    values: NDArray[Any], weights: NDArray[Any], blocks: NDArray[np.int64], samples: int, seed: int
) -> tuple[float, Array]:
    """Estimate and (samples,) widened resamples of sum(values) / sum(weights); NaN resamples for a single block."""
    values, weights, blocks = np.asarray(values, np.float64), np.asarray(weights, np.float64), np.asarray(blocks)
    if values.ndim != 1 or not len(values) or values.shape != weights.shape or values.shape != blocks.shape:
        raise ValueError(
            f"values, weights, blocks: shapes {values.shape}, {weights.shape}, {blocks.shape} are not allowed;"
            " allowed: (n,) each, n at least 1"
        )
    if samples < 1:
        raise ValueError(f"samples: {samples} is not allowed; allowed: at least 1")
    unique, block_of = np.unique(blocks, return_inverse=True)
    count = len(unique)
    sums = np.bincount(block_of, values, count)
    denominators = np.bincount(block_of, weights, count)
    total = float(denominators.sum())
    estimate = float(sums.sum()) / total if total else math.nan
    if count < 2:
        return estimate, np.full(samples, math.nan)
    # How often each block is drawn: all that a resample of whole blocks needs.
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64)
    bottom = drawn @ denominators
    # A resample of blocks without any weight (no requests at all) says nothing; it counts as the estimate itself.
    resamples = np.divide(drawn @ sums, bottom, out=np.full(samples, estimate), where=bottom != 0)
    return estimate, estimate + widening(count) * (resamples - estimate)


def _interval(estimate: float, resamples: Array, lowest: float = -math.inf) -> Interval:
    if not np.isfinite(resamples).all():
        return Interval(estimate, math.nan, math.nan)
    low, high = (float(x) for x in np.percentile(resamples, _LEVEL_PERCENT))
    return Interval(estimate, max(low, lowest), high)
