"""Quantiles and shares from the buckets of a histogram."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scalepilot.operate.telemetry.counters import Array, Counters

# A bucket is at a moment of time that is asked for, but for the last digits of how either is written.
_SAME = 1e-6


@dataclass(frozen=True)
class Buckets:
    """How many of an interval's requests took how long.

    Attributes:
        bounds: (k,) upper bounds in seconds, rising, the last infinite.
        counts: (k,) requests up to each; NaN where that is not known.
    """

    bounds: Array
    counts: Array

    @property
    def total(self) -> float:
        """Requests."""
        return float(self.counts[-1])

    def bracket(self, seconds: float) -> tuple[float, float]:
        """The bounds around a time: both are it where there is such a bucket; from 0 below the first."""
        at = int(np.searchsorted(self.bounds, seconds * (1 - _SAME)))
        high = float(self.bounds[at])
        if abs(high - seconds) <= _SAME * seconds:
            return high, high
        return (float(self.bounds[at - 1]) if at else 0.0), high

    def share_above(self, seconds: float) -> float | None:
        """Share of the requests that took longer, straight between the bounds around it.

        Returns:
            None without requests, and where no finite bucket lies at or above the time while some requests exceed the others.
        """
        if not self.total > 0:
            return None
        low, high = self.bracket(seconds)
        below = float(self.counts[np.searchsorted(self.bounds, low * (1 - _SAME))]) if low > 0 else 0.0
        above = float(self.counts[np.searchsorted(self.bounds, high * (1 - _SAME))])
        if high == low or above == below:
            return 1 - above / self.total
        if math.isinf(high):
            return None
        return 1 - (below + (above - below) * (seconds - low) / (high - low)) / self.total

    def quantile(self, share: float) -> float | None:
        """The time within which a share of the requests was answered; the highest finite bound where it lies beyond.

        Returns:
            None without requests, or without a finite bucket.
        """
        if not self.total > 0 or len(self.bounds) < 2:
            return None
        rank = share * self.total
        at = int(np.searchsorted(self.counts, rank * (1 - 1e-12)))
        if at >= len(self.bounds) - 1:
            return float(self.bounds[-2])
        low, below = (float(self.bounds[at - 1]), float(self.counts[at - 1])) if at else (0.0, 0.0)
        high, within = float(self.bounds[at]), float(self.counts[at]) - below
        return high if within <= 0 else low + (high - low) * (rank - below) / within


def bound_of(labels: Mapping[str, str]) -> float:
    """The upper bound of a bucket's series, "1" of Prometheus 2 or "1.0" of Prometheus 3; NaN where there is none."""
    try:
        return float(labels.get("le", "nan"))
    except ValueError:
        return math.nan


def buckets_of(counters: Counters, end: float, seconds: float, unit_seconds: float = 1.0) -> Buckets | None:
    """The buckets of one interval; None where no series has a bound.

    Args:
        counters: of the histogram's buckets.
        end: of the interval.
        seconds: of the interval.
        unit_seconds: of the bounds, such as 0.001.
    """
    found = {bound: float(count[0]) for bound, count in counters.counted_by(np.array([end]), seconds, bound_of).items()}
    bounds = np.array(sorted(bound for bound in found if not math.isnan(bound)))
    if not len(bounds) or not math.isinf(bounds[-1]):
        return None
    # Rounding, and samples of replicas that are late by different times, may leave a bucket a little below the one before it.
    return Buckets(bounds * unit_seconds, np.maximum.accumulate([found[bound] for bound in bounds]))


__all__ = ["Buckets", "bound_of", "buckets_of"]
