"""A rate over time, its split by time and its windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.quantiles import quantiles

Part = Literal["train", "validation", "test", "all"]
PARTS: tuple[Part, ...] = ("train", "validation", "test", "all")
TRAIN_END, VALIDATION_END = 0.70, 0.85
_RESAMPLED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class RateSeries:
    """Mean request rates on a regular grid.

    Attributes:
        rates_rps: (num_steps,) float64 requests/s, finite, from 0; read-only, shared with the series cut from it.
        interval_seconds: grid.
        start_unix_seconds: beginning of the first interval.
    """

    rates_rps: NDArray[np.float64]
    interval_seconds: float
    start_unix_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.interval_seconds) and self.interval_seconds > 0):
            raise ValueError(f"interval_seconds: {self.interval_seconds!r} is not allowed; allowed: finite numbers above 0")
        rates = np.asarray(self.rates_rps, dtype=np.float64)
        if rates.ndim != 1 or not len(rates):
            raise ValueError(f"rates_rps: shape {rates.shape} is not allowed; allowed: (num_steps,) with at least one step")
        # The extremes tell it without an array of truth values: NaN is the minimum of whatever holds one.
        if not (rates.min() >= 0 and math.isfinite(rates.max())):
            raise ValueError("rates_rps: holds negative or non-finite values; allowed: finite numbers from 0")
        rates = rates.view()
        rates.flags.writeable = False
        object.__setattr__(self, "rates_rps", rates)

    def __len__(self) -> int:
        return len(self.rates_rps)

    def between(self, first: int, last: int) -> RateSeries:
        """Steps first … last − 1 as a series of their own."""
        return RateSeries(
            self.rates_rps[first:last], self.interval_seconds, self.start_unix_seconds + first * self.interval_seconds
        )

    def part(self, part: Part) -> RateSeries:
        """The part of the time split 70 / 15 / 15; the parts never overlap.

        Raises:
            ValueError: an unknown part.
        """
        if part not in PARTS:
            raise ValueError(f"part: {part!r} is not allowed; allowed: {', '.join(PARTS)}")
        first, last = int(TRAIN_END * len(self)), int(VALIDATION_END * len(self))
        bounds = {"train": (0, first), "validation": (first, last), "test": (last, len(self)), "all": (0, len(self))}
        return self.between(*bounds[part])

    def window_starts(self, num_steps: int) -> NDArray[np.int64]:
        """First steps of all disjoint windows of `num_steps` steps.

        Raises:
            ValueError: the series is shorter than one window.
        """
        if len(self) < num_steps:
            raise ValueError(f"window: {num_steps} steps is longer than the series ({len(self)} steps)")
        return np.arange(len(self) // num_steps) * num_steps

    def drawn_starts(self, num_steps: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """First steps of `count` windows drawn with replacement; they may overlap.

        Raises:
            ValueError: the series is not longer than one window.
        """
        if len(self) <= num_steps:
            raise ValueError(f"window: {num_steps} steps leaves nothing to draw from in a series of {len(self)} steps")
        return rng.integers(0, len(self) - num_steps, count)

    def liveliest_start(self, num_steps: int) -> int:
        """First step of the window whose rate varies most, of 200 spread over the series."""
        starts = np.unique(np.linspace(0, len(self) - num_steps, 200).astype(np.int64))
        return int(starts[int(self.windows(starts, num_steps).std(axis=1).argmax())])

    def windows(self, starts: NDArray[np.int64], num_steps: int) -> NDArray[np.float64]:
        """(len(starts), num_steps) rates of the windows that begin at `starts`."""
        return np.stack([self.rates_rps[s : s + num_steps] for s in starts])

    def resampled(self, interval_seconds: float) -> RateSeries:
        """Linear interpolation onto another grid, from the first to before the last point.

        Raises:
            ValueError: fewer than two points.
        """
        if len(self) < 2:
            raise ValueError("rates_rps: one point cannot be resampled; allowed: at least two")
        start, own = self.start_unix_seconds, self.interval_seconds
        grid = np.arange(start, start + (len(self) - 1) * own, interval_seconds)
        rates = np.empty(len(grid))
        # A block at a time: the points' times are never held for the whole of a long recording.
        last = 0
        while last < len(grid):
            first_point = max(0, int((grid[last] - start) / own) - 1)
            points = start + np.arange(first_point, min(first_point + _RESAMPLED_AT_ONCE, len(self))) * own
            upto = len(grid) if first_point + len(points) == len(self) else int(np.searchsorted(grid, points[-1]))
            rates[last:upto] = np.interp(grid[last:upto], points, self.rates_rps[first_point : first_point + len(points)])
            last = upto
        return RateSeries(rates, interval_seconds, start)

    def scaled_to_peak(self, peak_rps: float, quantile: float = 0.995, *, in_place: bool = False) -> RateSeries:
        """Scale so that `quantile` of the points is `peak_rps`.

        Args:
            peak_rps: requests/s.
            quantile: share of the points at or below the peak.
            in_place: overwrite this series' rates; only for who made it and hands it to nobody else.

        Raises:
            ValueError: the quantile is 0, so no factor reaches the peak.
        """
        at_quantile = quantiles(self.rates_rps, [quantile])[0]
        if at_quantile <= 0:
            raise ValueError(
                f"peak_rps: the workload's {quantile:.1%} quantile is 0 requests/s; it cannot be scaled to {peak_rps:g}"
            )
        rates = self.rates_rps.view()
        if in_place:
            rates.flags.writeable = True
            rates *= peak_rps / at_quantile
        else:
            rates = rates * (peak_rps / at_quantile)
        return RateSeries(rates, self.interval_seconds, self.start_unix_seconds)
