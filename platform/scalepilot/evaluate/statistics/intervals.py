"""Figures of one workload with their 95 % intervals: means and ratios, paired differences, the gap closed; see `bootstrap`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.statistics.bootstrap import block_sums, drawn_sums, nested_bootstrap, ratio
from scalepilot_envs.objective import ABOVE_ZERO, UNBOUNDED, Bounds

Array = NDArray[np.float64]

_LEVEL_PERCENT = (2.5, 97.5)
SMALLEST_GAP_SHARE = 0.05


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval.

    Attributes:
        mean: the estimate from all episodes; NaN where there is none.
        low, high: the interval; NaN where the episodes cannot give one (a single block, or too few of them).
    """

    mean: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


UNKNOWN = Interval(math.nan, math.nan, math.nan)


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


def block_bootstrap(
    values: NDArray[Any],
    blocks: NDArray[np.int64],
    *,
    weights: NDArray[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    bounds: Bounds = UNBOUNDED,
) -> Interval:
    """The mean, or a ratio of sums, with its interval from whole blocks drawn with replacement.

    The same blocks, samples and seed give the same draws, so intervals of several policies are paired.

    Args:
        values: (n,) one an episode, or (num_members, n) for training seeds that flew the same; with weights, the numerators.
        blocks: (n,) which block (day) each belongs to.
        weights: denominators, of the shape of values or (n,): the estimate is sum(values) / sum(weights). None for the mean.
        samples: resamples.
        seed: of the draws.
        bounds: of what the quantity can be; the interval ends there.

    Raises:
        ValueError: shapes differ, nothing is given, or fewer than one resample.
    """
    denominators = np.ones(np.shape(values)[-1]) if weights is None else weights
    estimate, resamples = _resampled_ratio(values, denominators, blocks, samples, seed)
    return percentile_interval(estimate, resamples, bounds)


def paired_difference(
    first: NDArray[Any], second: NDArray[Any], blocks: NDArray[np.int64], *, samples: int = 2000, seed: int = 0
) -> PairedDifference:
    """Mean of first − second over the same (window, seed) pairs.

    Args:
        first: (n,) values of one policy, or (num_members, n) of its training seeds.
        second: (n,) values of the other, same order of pairs.
        blocks: (n,) day of each pair.
        samples: resamples.
        seed: of the draws.

    Raises:
        ValueError: as `block_bootstrap`.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape[-1:] != second.shape:
        raise ValueError(f"first, second: shapes {first.shape} and {second.shape} differ; allowed: the same pairs in both")
    estimate, resamples = _resampled_ratio(first - second, np.ones(len(second)), blocks, samples, seed)
    baseline = float(second.mean())
    lower = np.where(resamples == 0, 0.5, resamples < 0)
    probability = float(lower.mean()) if np.isfinite(resamples).all() else math.nan
    return PairedDifference(percentile_interval(estimate, resamples), estimate / baseline if baseline else math.nan, probability)


def gap_closed(
    policy: NDArray[Any],
    baseline: NDArray[Any],
    reference: NDArray[Any],
    blocks: NDArray[np.int64],
    *,
    samples: int = 2000,
    seed: int = 0,
) -> GapClosed:
    """G = Σ(J_base − J_policy) / Σ(J_base − J_reference) over the pairs where there is a gap; J may be any loss.

    Args:
        policy: (n,) J of the policy, one a (window, seed) pair, or (num_members, n) of its training seeds.
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
    kept = has_gap(baseline, reference)
    pairs = int(kept.sum())
    if not pairs:
        return GapClosed(UNKNOWN, 0, len(baseline))
    share = block_bootstrap(
        (baseline - policy)[..., kept], np.asarray(blocks)[kept], weights=(baseline - reference)[kept], samples=samples, seed=seed
    )
    return GapClosed(share, pairs, len(baseline) - pairs)


def has_gap(baseline: Array, reference: Array) -> NDArray[np.bool_]:
    """(n,) pairs in which the baseline's loss is at least 5 % of its own size above the reference's."""
    # A pair without a gap and without a cost would divide by zero.
    kept: NDArray[np.bool_] = (baseline - reference >= SMALLEST_GAP_SHARE * np.abs(baseline)) & (baseline > reference)
    return kept


def percentile_interval(estimate: float, resamples: Array, bounds: Bounds = UNBOUNDED) -> Interval:
    """The estimate with the middle 95 % of its resamples, cut at the bounds; no interval where a resample is unknown."""
    if not np.isfinite(resamples).all():
        return Interval(estimate, math.nan, math.nan)
    ends = np.percentile(resamples, _LEVEL_PERCENT)
    if bounds == ABOVE_ZERO and ends[0] <= 0:
        return Interval(estimate, math.nan, math.nan)
    low, high = (float(x) for x in np.clip(ends, *bounds))
    return Interval(estimate, low, high)


def _resampled_ratio(
    values: NDArray[Any], weights: NDArray[Any], blocks: NDArray[np.int64], samples: int, seed: int
) -> tuple[float, Array]:
    """Estimate and (samples,) widened resamples of sum(values) / sum(weights); NaN resamples for a single block."""
    values, weights, blocks = np.asarray(values, np.float64), np.asarray(weights, np.float64), np.asarray(blocks)
    n = values.shape[-1:]
    if values.ndim not in (1, 2) or not values.size or weights.shape not in (values.shape, n) or blocks.shape != n:
        raise ValueError(
            f"values, weights, blocks: shapes {values.shape}, {weights.shape}, {blocks.shape} are not allowed;"
            " allowed: (n,) each, or (num_members, n) values, n at least 1"
        )
    if samples < 1:
        raise ValueError(f"samples: {samples} is not allowed; allowed: at least 1")
    unique, block_of = np.unique(blocks, return_inverse=True)
    top, bottom = block_sums(values, block_of), block_sums(weights, block_of)
    return nested_bootstrap(
        lambda members, drawn: ratio(drawn_sums(top, members, drawn[0]), drawn_sums(bottom, members, drawn[0])),
        [len(unique)],
        len(top),
        samples=samples,
        seed=seed,
    )
