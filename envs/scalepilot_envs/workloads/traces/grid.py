"""From rows with time stamps to a series on a regular grid, in one pass and 8 bytes a point; no request is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.traces.means import CLOCK_SECONDS, FILLED_AT_ONCE, Grid, Means, Points
from scalepilot_envs.workloads.traces.rows import CounterResets, Gaps, Kind, Rows, TraceError, joined

# The grid is the median step of at least so many rows, or of all where there are fewer.
ROWS_TO_LEARN_GRID = 10_000
# A row this near to its point of the grid stands on it: scrapes and timers are a little early or late.
_JITTER = 0.2
# Rows further apart than this leave something out.
_GAP = 1.4
_FILL = "--gaps linear | previous | zero (gaps: in YAML)"


def learn_grid(stamps: NDArray[np.float64], kind: Kind = "rate", period: float | None = None) -> Grid:
    """The grid that rising stamps lie on, but for jitter and for rows left out.

    Args:
        stamps: (n,) Unix seconds, n from 2.
        kind: what the values are. A count belongs to the shortest step: the longer ones leave rows out.
        period: the interval that the file states.
    """
    steps = np.diff(stamps)
    rough = period or float(np.median(steps))
    if kind == "count" and period is None:
        shortest = float(steps.min())
        multiples = shortest * np.rint(steps / shortest)
        if (np.abs(steps - multiples) <= 0.03 * multiples).all():
            rough = shortest
    if np.abs(steps - rough).max() <= 1e-6 * rough + CLOCK_SECONDS and period is None:
        return Grid(float(stamps[0]), _nice(float((stamps[-1] - stamps[0]) / len(steps)), rough, 1e-7))
    numbers = np.maximum(np.rint(steps / rough), 1)
    near = np.abs(steps - numbers * rough) <= 1.25 * _JITTER * rough
    seconds = period or rough
    if period is None and near.any():
        seconds = _nice(float(steps[near].sum() / numbers[near].sum()), rough, 1e-3)
    off = stamps - stamps[0]
    off -= seconds * np.rint(off / seconds)
    start = float(stamps[0] + np.median(off))
    if start > stamps[0] + _JITTER * seconds:
        start -= seconds
    spread = float(np.abs(off - np.median(off)).max())
    whole = seconds * round(start / seconds)
    if abs(start - whole) <= min(spread, _JITTER * seconds):
        start = whole
    elif abs(start - round(start)) <= min(spread, 0.5):
        start = float(round(start))
    return Grid(start, seconds)


def _nice(mean: float, rough: float, within: float) -> float:
    """A step of whole seconds or milliseconds where the mean is within what jitter leaves."""
    for unit, share in ((1.0, within), (1e-3, 0.1 * within)):
        whole = round(mean / unit) * unit
        if whole and abs(mean - whole) <= share * mean:
            return round(whole, 3)
    return rough if abs(mean - rough) <= 1e-9 * rough else mean


class GridBuilder:
    """Takes rows in the order of the file and keeps the means over the intervals of a regular grid.

    A rate holds from its row until the next, a count is that of its interval, a counter's rise is spread evenly between two
    rows. Each is a sum that grows with time, and a point of the grid is its rise over one interval: nothing is dropped.

    Args:
        name: of the file, in messages.
        place: a row's line → where it stands, such as "a.csv:7".
        gaps: what to do where rows are missing.
        interval_seconds: average into intervals of this length; None keeps the recorded grid.
        kind: what the values are.
        counter_resets: what to do where a counter falls.
        expected_rows: for how many rows to set memory aside, which is only taken as it fills.
        grid: use this one instead of learning it.
        period: the interval that the file states.
        local: the stamps are of a clock without a zone, taken as UTC.
    """

    def __init__(
        self,
        name: str,
        place: Callable[[int], str],
        *,
        gaps: Gaps = "error",
        interval_seconds: float | None = None,
        kind: Kind = "rate",
        counter_resets: CounterResets = "error",
        expected_rows: int = 0,
        grid: Grid | None = None,
        period: float | None = None,
        local: bool = False,
    ) -> None:
        self.name, self.place, self.gaps = name, place, gaps
        self.wanted_seconds, self.kind, self.counter_resets = interval_seconds, kind, counter_resets
        self.expected_rows, self.period, self.local = expected_rows, period, local
        self.num_rows = self.num_missing = self.num_gaps = self.num_between = self.num_resets = 0
        self.largest_jitter = 0.0
        self.left_out_seconds = 0.0
        self._number_of_last = -np.inf
        self._jitter = _JITTER
        self._grid = grid
        self._waiting: list[Rows] = []
        self._last: Rows | None = None
        self._first_gap = self._first_missing = ""
        self._means: Means | None = None

    def add(self, rows: Rows) -> None:
        """Take the next rows.

        Raises:
            TraceError: disorder, a duplicate, a counter reset, more points than allowed.
        """
        empty = np.isnan(rows.values)
        if empty.any():
            if not self.num_missing:
                self._first_missing = f"{self.place(int(rows.lines[empty][0]))}: {rows.missing}"
            self.num_missing += int(empty.sum())
            rows = rows.where(~empty)
        if not len(rows.stamps):
            return
        self.num_rows += len(rows.stamps)
        if self._means is None:
            self._waiting.append(rows)
            if self.num_rows >= ROWS_TO_LEARN_GRID:
                self._begin()
        else:
            self._take(rows)

    def finish(self) -> RateSeries:
        """The series.

        Raises:
            TraceError: too few rows, or a gap where none is allowed.
        """
        if self.num_missing and self.gaps == "error":
            raise TraceError(
                f"{self._first_missing} is not allowed ({self.num_missing} such places);"
                f" allowed: finite numbers from 0, or {_FILL}"
            )
        fewest = 3 if self.kind == "counter" else 2
        if self.num_rows < fewest:
            raise TraceError(f"{self.name}: {self.num_rows} rows; allowed: at least {'three' if fewest == 3 else 'two'}")
        if self._means is None:
            self._begin()
        assert self._means is not None
        assert self._last is not None
        if self.num_gaps and self.gaps == "error":
            raise TraceError(f"{self._first_gap} ({self.num_gaps} such places); allowed: a regular grid, or {_FILL}")
        last = float(self._last.stamps[0])
        self._means.finish(last if self.kind == "counter" else self._means.after(last))
        points = self._means.points
        self.left_out_seconds = points.num_left_out * points.recorded_seconds
        return RateSeries(points.finish(), points.interval_seconds, self._means.start)

    def _begin(self) -> None:
        rows = joined(self._waiting)
        self._waiting.clear()
        self._refuse_disorder(np.diff(rows.stamps), rows)
        grid = self._grid or learn_grid(rows.stamps, self.kind, self.period)
        if self._grid is None and self.wanted_seconds and self._is_irregular(rows, grid):
            # Between samples of no grid any interval is as good as another.
            grid = Grid(self.wanted_seconds * np.floor(grid.start / self.wanted_seconds), self.wanted_seconds)
        factor = 1
        if self.wanted_seconds is not None:
            factor = round(self.wanted_seconds / grid.seconds)
            if factor < 1 or abs(factor * grid.seconds - self.wanted_seconds) > 1e-6 * self.wanted_seconds:
                raise TraceError(
                    f"{self.name}: interval_seconds {self.wanted_seconds:g} is not allowed;"
                    f" allowed: multiples of the recorded grid, {grid.seconds:g} s"
                )
        if self._is_irregular(rows, grid):
            self._jitter = 0.0
        self._means = Means(grid, Points(self.name, grid.seconds, factor, self.expected_rows))
        self._take(rows)

    def _is_irregular(self, rows: Rows, grid: Grid) -> bool:
        """Whether the samples keep to no grid: then none is moved, and each counts from its own time on."""
        off = np.abs(rows.stamps - grid.start - grid.seconds * np.rint((rows.stamps - grid.start) / grid.seconds))
        return self.kind != "count" and float(np.mean(off > _JITTER * grid.seconds)) > 0.1

    def _take(self, rows: Rows) -> None:
        assert self._means is not None
        every = rows if self._last is None else joined([self._last, rows])
        self._refuse_disorder(np.diff(every.stamps), every)
        fresh = self._on_grid(rows)
        every = fresh if self._last is None else joined([self._last, fresh])
        steps = np.diff(every.stamps)
        self._means.points.refuse_too_many((float(every.stamps[-1]) - self._means.start) / self._means.seconds)
        long = self._find_gaps(steps, every)
        if not (self.num_gaps and self.gaps == "error"):
            if self.kind == "counter":
                rates = self._rises(every) / steps
                self._means.add(every.stamps[:-1], rates)
            else:
                self._fill_and_add(every, long, fresh)
        self._last = fresh.where(slice(-1, None))

    def _on_grid(self, rows: Rows) -> Rows:
        """The rows with the stamps that are near enough to their own point of the grid moved onto it; counts become rates."""
        assert self._means is not None
        start, seconds = self._means.start, self._means.seconds
        numbers = np.rint((rows.stamps - start) / seconds)
        points = start + numbers * seconds
        off = np.abs(rows.stamps - points)
        exact = 1e-6 * seconds + CLOCK_SECONDS
        near = off <= max(self._jitter * seconds, exact)
        # Two rows at one point: neither is moved, but for one that stands right there.
        twice = np.concatenate([[self._number_of_last], numbers[:-1]]) == numbers
        twice[:-1] |= twice[1:]
        near &= ~twice | (off <= exact)
        self.largest_jitter = max(self.largest_jitter, float(off[near].max(initial=0.0)))
        self.num_between += int((~near).sum())
        if self.kind == "count" and not near.all():
            i = int(np.flatnonzero(~near)[0])
            raise TraceError(
                f"{self.place(int(rows.lines[i]))}: {off[i]:g} s beside the grid of {seconds:g} s, so that the interval of"
                " this count is not known; allowed: counts on a regular grid"
            )
        self._number_of_last = float(numbers[-1])
        values = rows.values / seconds if self.kind == "count" else rows.values
        return Rows(np.where(near, points, rows.stamps), values, rows.lines)

    def _refuse_disorder(self, steps: NDArray[np.float64], rows: Rows) -> None:
        if steps.size and not steps.min() > 0:
            i = int(np.flatnonzero(~(steps > 0))[0]) + 1
            fault = "repeats the time stamp before it" if steps[i - 1] == 0 else "is earlier than the row before it"
            shown = datetime.fromtimestamp(float(rows.stamps[i]), UTC).isoformat().replace("+00:00", "Z")
            cause = self._cause(float(steps[i - 1]), float(np.median(steps)))
            raise TraceError(
                f"{self.place(int(rows.lines[i]))}: timestamp {shown!r} {fault}{cause}; allowed: rising time stamps"
                f"{', or --timezone' if cause else ''}"
            )

    def _find_gaps(self, steps: NDArray[np.float64], rows: Rows) -> NDArray[np.int64]:
        assert self._means is not None
        seconds = self._means.seconds
        long = np.flatnonzero(steps > _GAP * seconds)
        if len(long) and not self.num_gaps:
            i = int(long[0])
            place, cause = self.place(int(rows.lines[i + 1])), self._cause(float(steps[i]), seconds)
            self._first_gap = f"{place}: {steps[i]:g} s after the row before it, the grid is {seconds:g} s{cause}"
        self.num_gaps += len(long)
        return long

    def _cause(self, step: float, usual: float) -> str:
        if not self.local or abs(abs(step - usual) - 3600) > max(1.0, _JITTER * abs(usual)):
            return ""
        what = "missing, as where clocks go forward" if step > usual else "repeated, as where clocks go back"
        return f" (one hour is {what}; the stamps have no zone: say --timezone, such as Europe/Berlin)"

    def _rises(self, rows: Rows) -> NDArray[np.float64]:
        rises = np.diff(rows.values)
        falls = np.flatnonzero(rises < 0)
        if len(falls) and self.counter_resets == "error":
            i = int(falls[0]) + 1
            raise TraceError(
                f"{self.place(int(rows.lines[i]))}: requests_total {rows.values[i]:.15g} is below {rows.values[i - 1]:.15g}"
                " before it, a counter reset; allowed: a rising counter, or --counter-resets restart (counter_resets: in YAML)"
            )
        self.num_resets += len(falls)
        rises[falls] = rows.values[falls + 1]
        return rises

    def _fill_and_add(self, every: Rows, long: NDArray[np.int64], fresh: Rows) -> None:
        """The rows, with rows put into each gap, some at a time however long it is."""
        assert self._means is not None
        done = len(every.stamps) - len(fresh.stamps)
        seconds = self._means.seconds
        for i in long:
            self._means.add(every.stamps[done : i + 1], every.values[done : i + 1])
            done = int(i) + 1
            (start, end), (before, after) = every.stamps[i : i + 2], every.values[i : i + 2]
            missing = int(np.ceil((end - start) / seconds - 0.5)) - 1
            for first in range(1, missing + 1, FILLED_AT_ONCE):
                ahead = np.arange(first, min(first + FILLED_AT_ONCE, missing + 1)) * seconds
                filled = np.full(len(ahead), before if self.gaps == "previous" else 0.0)
                if self.gaps == "linear":
                    filled = before + (after - before) * (ahead / (end - start))
                self._means.add(start + ahead, filled)
        self._means.add(every.stamps[done:], every.values[done:])
