"""Rates that each hold until the next → their means over the intervals of a regular grid, 8 bytes a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.traces.rows import TraceError

MAX_POINTS = 100_000_000
# Time stamps are as exact as this.
CLOCK_SECONDS = 1e-6
FILLED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Grid:
    """Where intervals begin.

    Attributes:
        start: Unix seconds of the first.
        seconds: length.
    """

    start: float
    seconds: float


class Means:
    """Rates that each hold until the next → their means over the intervals of a grid."""

    def __init__(self, grid: Grid, points: Points) -> None:
        self.start, self.seconds, self.points = grid.start, grid.seconds, points
        # The interval that is being filled, and what was asked for in it up to the open rate's beginning.
        self._number, self._sum = 0, 0.0
        self._open: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def after(self, stamp: float) -> float:
        """The end of the interval that a stamp lies in."""
        return float(self.start + (np.floor((stamp - self.start) / self.seconds + 1e-6) + 1) * self.seconds)

    def add(self, starts: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
        """Rates that begin at rising moments; the last one stays open."""
        if not len(starts):
            return
        if self._open is not None:
            starts, rates = np.concatenate([self._open[0], starts]), np.concatenate([self._open[1], rates])
        self._close(starts, rates[:-1])
        self._open = starts[-1:], rates[-1:]

    def finish(self, end: float) -> None:
        """The open rate ends here."""
        if self._open is not None and end > self._open[0][0]:
            self._close(np.append(self._open[0], end), self._open[1])
        if end - self._edge(self._number) > 1e-6 * self.seconds:
            self.points.put(np.array([self._sum / self.seconds]))

    def _edge(self, number: int) -> float:
        return self.start + number * self.seconds

    def _close(self, moments: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
        if not len(rates):
            return
        edges = self._edge(self._number) + np.arange(len(moments)) * self.seconds
        if not self._sum and np.abs(moments - edges).max() <= 1e-6 * self.seconds + CLOCK_SECONDS:
            self.points.put(rates)
            self._number += len(rates)
            return
        sums = np.concatenate([[0.0], np.cumsum(rates * np.diff(moments))])
        upto = int(np.floor((moments[-1] - self.start) / self.seconds + 1e-9))
        before, carried = 0.0, self._sum
        for first in range(self._number + 1, upto + 1, FILLED_AT_ONCE):
            numbers = np.arange(first, min(first + FILLED_AT_ONCE, upto + 1))
            at = np.interp(self.start + numbers * self.seconds, moments, sums)
            counted = np.diff(at, prepend=before)
            counted[0] += carried
            self.points.put(counted / self.seconds)
            before, carried = float(at[-1]), 0.0
        self._number = max(self._number, upto)
        self._sum = carried + max(0.0, float(sums[-1]) - before)


class Points:
    """A growing array of means over `factor` points each."""

    def __init__(self, name: str, interval_seconds: float, factor: int, expected_points: int) -> None:
        self.name, self.recorded_seconds, self.factor = name, interval_seconds, factor
        self.interval_seconds = factor * interval_seconds
        self.count = 0
        # Untouched memory costs nothing: the system hands it out page by page as it is written.
        self._kept = np.empty(min(expected_points // factor, MAX_POINTS) + 16)
        self._num_kept = 0
        self._rest = np.empty(0)

    @property
    def num_left_out(self) -> int:
        """Points of a last interval that is not complete."""
        return len(self._rest)

    def put(self, points: NDArray[np.float64]) -> None:
        """Take the next ones, (n,).

        Raises:
            TraceError: more than allowed.
        """
        self.count += len(points)
        if self.factor > 1:
            points = np.concatenate([self._rest, points])
            whole = len(points) // self.factor * self.factor
            self._rest, points = points[whole:], points[:whole].reshape(-1, self.factor).mean(axis=1)
        upto = self._num_kept + len(points)
        if upto > MAX_POINTS:
            self.refuse_too_many(self.count)
        if upto > len(self._kept):
            # In place where the allocator can: no second copy of a long recording.
            self._kept.resize(upto + upto // 8, refcheck=False)
        self._kept[self._num_kept : upto] = points
        self._num_kept = upto

    def finish(self) -> NDArray[np.float64]:
        """The means; a last interval that is not complete is left out."""
        if not self._num_kept:
            raise TraceError(
                f"{self.name}: spans {self.count} intervals of {self.recorded_seconds:g} s;"
                f" allowed: at least {self.interval_seconds:g} s, or a shorter interval_seconds"
            )
        self._kept.resize(self._num_kept, refcheck=False)
        return self._kept

    def refuse_too_many(self, points: float) -> None:
        """Say so where a span of so many intervals is too long to be held."""
        if points / self.factor > MAX_POINTS:
            raise TraceError(
                f"{self.name}: spans {points:.0f} intervals of {self.recorded_seconds:g} s;"
                f" allowed: up to {MAX_POINTS}, or a coarser interval_seconds"
            )
