"""From rows with time stamps to a series on a regular grid, in one pass and 8 bytes a point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.series import RateSeries

Gaps = Literal["error", "linear", "previous"]
CounterResets = Literal["error", "restart"]
GAPS: tuple[Gaps, ...] = get_args(Gaps)
COUNTER_RESETS: tuple[CounterResets, ...] = get_args(CounterResets)
MAX_POINTS = 100_000_000
# The grid is the median step of at least so many rows, or of all where there are fewer.
_ROWS_TO_LEARN_GRID = 10_000
_FILLED_AT_ONCE = 1 << 18
_CLOCK_SECONDS = 1e-6


class TraceError(ValueError):
    """A trace file that cannot be used; the message names file, line, value and what is allowed."""


@dataclass(frozen=True)
class Rows:
    """A block of rows.

    Attributes:
        stamps: (n,) Unix seconds.
        values: (n,) finite, from 0: requests/s, or requests counted.
        lines: (n,) places in the file, as the reader counts them.
    """

    stamps: NDArray[np.float64]
    values: NDArray[np.float64]
    lines: NDArray[np.int64]


class GridBuilder:
    """Takes rows in the order of the file and keeps the points of a regular grid.

    Args:
        name: of the file, in messages.
        place: a row's line → where it stands, such as "a.csv:7".
        gaps: what to do where rows are missing.
        interval_seconds: average into intervals of this length; None keeps the recorded grid.
        counter: the values are a rising counter.
        counter_resets: what to do where it falls.
        expected_rows: for how many rows to set memory aside, which is only taken as it fills.
    """

    def __init__(
        self,
        name: str,
        place: Callable[[int], str],
        *,
        gaps: Gaps = "error",
        interval_seconds: float | None = None,
        counter: bool = False,
        counter_resets: CounterResets = "error",
        expected_rows: int = 0,
    ) -> None:
        self.name, self.place, self.gaps = name, place, gaps
        self.wanted_seconds, self.counter, self.counter_resets = interval_seconds, counter, counter_resets
        self.expected_rows = expected_rows
        self.num_rows = 0
        self._waiting: list[Rows] = []
        self._last: Rows | None = None
        self._interval = 0.0
        self._first_gap, self._num_gaps = "", 0
        self._points: _Points | None = None
        # The grid's beginning, and its last recorded point: what a gap is filled from.
        self._start = 0.0
        self._point = (0.0, 0.0)

    def add(self, rows: Rows) -> None:
        """Take the next rows.

        Raises:
            TraceError: disorder, a duplicate, a counter reset, more points than allowed.
        """
        if not len(rows.stamps):
            return
        self.num_rows += len(rows.stamps)
        if self._points is None:
            self._waiting.append(rows)
            if self.num_rows >= _ROWS_TO_LEARN_GRID:
                self._learn_grid()
        else:
            self._take(rows)

    def finish(self) -> RateSeries:
        """The series.

        Raises:
            TraceError: too few rows, or a gap where none is allowed.
        """
        fewest = 3 if self.counter else 2
        if self.num_rows < fewest:
            raise TraceError(f"{self.name}: {self.num_rows} rows; allowed: at least {'three' if self.counter else 'two'}")
        if self._points is None:
            self._learn_grid()
        assert self._points is not None
        assert self._last is not None
        if self._num_gaps and self.gaps == "error":
            raise TraceError(
                f"{self._first_gap} ({self._num_gaps} such places); allowed: a regular grid, or gaps: linear | previous"
            )
        if self._num_gaps:
            # A counter's last rate holds until its last row; a rate's last row is a point itself.
            self._fill_to(float(self._last.stamps[-1]) + (-0.5 if self.counter else 0.5) * self._interval)
        return RateSeries(self._points.finish(), self._points.interval_seconds, self._start)

    def _learn_grid(self) -> None:
        rows = Rows(*(np.concatenate([getattr(r, name) for r in self._waiting]) for name in ("stamps", "values", "lines")))
        self._waiting.clear()
        steps = np.diff(rows.stamps)
        self._refuse_disorder(steps, rows)
        self._interval, self._start = float(np.median(steps)), float(rows.stamps[0])
        factor = 1
        if self.wanted_seconds is not None:
            factor = round(self.wanted_seconds / self._interval)
            if factor < 1 or abs(factor * self._interval - self.wanted_seconds) > 1e-6 * self.wanted_seconds:
                raise TraceError(
                    f"{self.name}: interval_seconds {self.wanted_seconds:g} is not allowed;"
                    f" allowed: multiples of the recorded grid, {self._interval:g} s"
                )
        self._points = _Points(self.name, self._interval, factor, self.expected_rows)
        self._take(rows)

    def _take(self, rows: Rows) -> None:
        joined = rows
        if self._last is not None:
            pairs = [(getattr(self._last, name), getattr(rows, name)) for name in ("stamps", "values", "lines")]
            joined = Rows(*(np.concatenate(pair) for pair in pairs))
        steps = np.diff(joined.stamps)
        self._refuse_disorder(steps, joined)
        self._find_gaps(steps, joined)
        if self.counter:
            self._emit(joined.stamps[:-1], self._rates_of_counter(steps, joined))
        else:
            self._emit(rows.stamps, rows.values)
        self._last = Rows(rows.stamps[-1:], rows.values[-1:], rows.lines[-1:])

    def _refuse_disorder(self, steps: NDArray[np.float64], rows: Rows) -> None:
        if steps.size and not steps.min() > 0:
            i = int(np.flatnonzero(~(steps > 0))[0]) + 1
            fault = "repeats the time stamp before it" if steps[i - 1] == 0 else "is earlier than the row before it"
            shown = datetime.fromtimestamp(float(rows.stamps[i]), UTC).isoformat().replace("+00:00", "Z")
            raise TraceError(f"{self.place(int(rows.lines[i]))}: timestamp {shown!r} {fault}; allowed: rising time stamps")

    def _find_gaps(self, steps: NDArray[np.float64], rows: Rows) -> None:
        irregular = np.flatnonzero(np.abs(steps - self._interval) > 1e-6 * self._interval + _CLOCK_SECONDS)
        if len(irregular) and not self._num_gaps:
            i = int(irregular[0])
            place = self.place(int(rows.lines[i + 1]))
            self._first_gap = f"{place}: {steps[i]:g} s after the row before it, the grid is {self._interval:g} s"
        self._num_gaps += len(irregular)

    def _rates_of_counter(self, steps: NDArray[np.float64], rows: Rows) -> NDArray[np.float64]:
        rises = np.diff(rows.values)
        falls = np.flatnonzero(rises < 0)
        if len(falls) and self.counter_resets == "error":
            i = int(falls[0]) + 1
            raise TraceError(
                f"{self.place(int(rows.lines[i]))}: requests_total {rows.values[i]:.15g} is below {rows.values[i - 1]:.15g}"
                " before it, a counter reset; allowed: a rising counter, or counter_resets: restart"
            )
        rises[falls] = rows.values[falls + 1]
        rates: NDArray[np.float64] = rises / steps
        return rates

    def _emit(self, stamps: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
        assert self._points is not None
        if not len(stamps) or (self._num_gaps and self.gaps == "error"):
            return
        if self._num_gaps:
            self._fill(stamps, rates)
        else:
            self._points.put(rates)
        self._point = float(stamps[-1]), float(rates[-1])

    def _fill(self, stamps: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
        """Put the grid's points up to the last of `stamps`, from the recorded ones around them."""
        assert self._points is not None
        if self._points.count:
            stamps, rates = np.concatenate([[self._point[0]], stamps]), np.concatenate([[self._point[1]], rates])
        points = (stamps[-1] - self._start) / self._interval
        longest_gap = np.diff(stamps).max(initial=0.0) / self._interval
        if points / self._points.factor > MAX_POINTS or longest_gap > MAX_POINTS:
            raise self._points.too_many(points)
        slack = 1e-6 * self._interval
        last = int((stamps[-1] - self._start + slack) / self._interval)
        for first in range(self._points.count, last + 1, _FILLED_AT_ONCE):
            grid = self._start + np.arange(first, min(first + _FILLED_AT_ONCE, last + 1)) * self._interval
            if self.gaps == "linear":
                self._points.put(np.interp(grid, stamps, rates))
            else:
                self._points.put(rates[np.searchsorted(stamps, grid + slack, side="right") - 1])

    def _fill_to(self, end: float) -> None:
        assert self._points is not None
        missing = int(np.ceil((end - self._start) / self._interval - 1e-6)) - self._points.count
        if self._points.count + missing > MAX_POINTS * self._points.factor:
            raise self._points.too_many(self._points.count + missing)
        for first in range(0, missing, _FILLED_AT_ONCE):
            self._points.put(np.full(min(_FILLED_AT_ONCE, missing - first), self._point[1]))


class _Points:
    """A growing array of means over `factor` points each."""

    def __init__(self, name: str, interval_seconds: float, factor: int, expected_points: int) -> None:
        self.name, self.recorded_seconds, self.factor = name, interval_seconds, factor
        self.interval_seconds = factor * interval_seconds
        self.count = 0
        # Untouched memory costs nothing: the system hands it out page by page as it is written.
        self._kept = np.empty(min(expected_points // factor, MAX_POINTS) + 16)
        self._num_kept = 0
        self._rest = np.empty(0)

    def put(self, points: NDArray[np.float64]) -> None:
        self.count += len(points)
        if self.factor > 1:
            points = np.concatenate([self._rest, points])
            whole = len(points) // self.factor * self.factor
            self._rest, points = points[whole:], points[:whole].reshape(-1, self.factor).mean(axis=1)
        upto = self._num_kept + len(points)
        if upto > MAX_POINTS:
            raise self.too_many(self.count)
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

    def too_many(self, points: float) -> TraceError:
        return TraceError(
            f"{self.name}: spans {points:.0f} intervals of {self.recorded_seconds:g} s;"
            f" allowed: up to {MAX_POINTS}, or a coarser interval_seconds"
        )
