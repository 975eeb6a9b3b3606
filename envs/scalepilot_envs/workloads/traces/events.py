"""From requests at their own times to rates: each is counted in the interval that it falls into."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.traces.means import MAX_POINTS
from scalepilot_envs.workloads.traces.rows import Rows, TraceError

# A recording of hours or more is kept by the minute, a shorter one by this.
_SHORT_SECONDS, _LONG_SECONDS = 15.0, 60.0
_LONG_FROM_SECONDS = 7200.0


class EventBins:
    """Counts events in intervals that begin at whole multiples of their length.

    Args:
        name: of the file, in messages.
        place: an event's line → where it stands.
        interval_seconds: of an interval; None for a minute, or 15 s where the recording is shorter than two hours.
    """

    def __init__(self, name: str, place: Callable[[int], str], interval_seconds: float | None) -> None:
        self.name, self.place = name, place
        self._is_open = interval_seconds is None
        self.seconds = interval_seconds or _SHORT_SECONDS
        self.total = 0.0
        self._first = 0
        self._counts: NDArray[np.float64] = np.zeros(0)

    def add(self, rows: Rows) -> None:
        """Count the next events, in any order.

        Raises:
            TraceError: they span more intervals than are allowed.
        """
        known = ~np.isnan(rows.values)
        rows = rows.where(known)
        if not len(rows.stamps):
            return
        self._make_room(rows)
        numbers = np.floor(rows.stamps / self.seconds).astype(np.int64) - self._first
        self._counts += np.bincount(numbers, weights=rows.values, minlength=len(self._counts))
        self.total += float(rows.values.sum())

    def finish(self) -> RateSeries:
        """The rates.

        Raises:
            TraceError: no event.
        """
        if not len(self._counts):
            raise TraceError(f"{self.name}: holds no requests; allowed: at least one")
        return RateSeries(self._counts / self.seconds, self.seconds, self._first * self.seconds)

    def _make_room(self, rows: Rows) -> None:
        first, last = float(rows.stamps.min()), float(rows.stamps.max())
        if len(self._counts):
            first, last = min(first, self._first * self.seconds), max(last, self._end() - self.seconds)
        if self._is_open and last - first >= _LONG_FROM_SECONDS:
            self._coarsen()
        low, high = (int(np.floor(t / self.seconds)) for t in (first, last))
        if high - low >= MAX_POINTS:
            far = int(np.argmax(np.abs(rows.stamps - np.median(rows.stamps))))
            raise TraceError(
                f"{self.place(int(rows.lines[far]))}: the requests span {high - low:,} intervals of {self.seconds:g} s;"
                f" allowed: up to {MAX_POINTS:,}, or a coarser --interval-seconds"
            )
        if not len(self._counts):
            self._first = low
        grown = np.zeros(high - low + 1)
        at = self._first - low
        grown[at : at + len(self._counts)] = self._counts
        self._first, self._counts = low, grown

    def _end(self) -> float:
        return (self._first + len(self._counts)) * self.seconds

    def _coarsen(self) -> None:
        self._is_open = False
        times = int(_LONG_SECONDS / self.seconds)
        if len(self._counts):
            numbers = (self._first + np.arange(len(self._counts))) // times
            first = int(numbers[0])
            self._counts = np.bincount(numbers - first, weights=self._counts).astype(np.float64)
            self._first = first
        self.seconds = _LONG_SECONDS
