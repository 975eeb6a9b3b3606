"""Counts over intervals from the raw samples of counters: resets, new and vanished series, and what is not known.

Prometheus' own `rate` needs two samples within its window, forgets what a new series counted before its first sample, and goes
on answering for a while after the last one. Here the samples themselves are taken: a counter is a line through its samples,
counted on from zero where it falls, and an interval's count is the rise of all lines over it. What no samples bracket is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Keep = Callable[[Mapping[str, str]], bool]
Key = TypeVar("Key", bound=Hashable)

# A series is still there while its newest sample is no older than so many of its scrapes, against the newest of all.
DUE, _LATE = 1.5, 2.5
# What a new replica may have counted before its first sample, against the busiest of the others: more is no beginning, but an
# old one that was not scraped before. And so many in any case.
_PLAUSIBLE, _FEW = 4.0, 10.0
# Without any sample for so many intervals or scrapes, what came within is spread over too long a time to be told apart.
LONGEST_HOLE = 3.0
# A clock's tick: the grid is computed from the newest sample, and must not miss the oldest by a rounding.
_NEAR = 1e-3


@dataclass(frozen=True)
class Samples:
    """The samples of a series.

    Attributes:
        labels: of it.
        times: (n,) Unix seconds, rising, n from 1.
        values: (n,) finite.
    """

    labels: Mapping[str, str]
    times: Array
    values: Array

    @cached_property
    def instance(self) -> tuple[str, ...]:
        """What it was scraped from: series of one replica have the same, also where several of its ports are scraped."""
        names = ("namespace", "pod") if "pod" in self.labels else ("job", "instance")
        return tuple(self.labels.get(name, "") for name in names)


@dataclass(frozen=True)
class _Line:
    """What a series has counted since it began, or since its first sample: straight between (times, totals)."""

    labels: Mapping[str, str]
    times: Array
    totals: Array


def may_begin(counted: float, busiest: float, seconds: float) -> bool:
    """Whether an instance that is seen for the first time may have counted so much from zero.

    Args:
        counted: by it at its first sample.
        busiest: requests/s of the busiest of the others.
        seconds: that it may have been there.
    """
    return bool(counted <= _PLAUSIBLE * busiest * seconds + _FEW)


def risen(values: Array) -> Array:
    """(n,) what a counter has counted since its first sample; where it falls it began again from zero."""
    rises = np.diff(values, prepend=values[0])
    return np.cumsum(np.where(rises < 0, values, rises))


def busiest_rate(series: Iterable[Samples]) -> float:
    """The highest rate of an instance between two samples; 0 where none has two."""
    rates: dict[tuple[str, ...], float] = {}
    for one in series:
        if len(one.times) > 1:
            highest = float((np.diff(risen(one.values)) / np.diff(one.times)).max())
            rates[one.instance] = rates.get(one.instance, 0.0) + highest
    return max(rates.values(), default=0.0)


def scrape_seconds(series: Iterable[Samples]) -> float | None:
    """The usual time between two samples; None where no series has two."""
    gaps = [np.diff(one.times) for one in series if len(one.times) > 1]
    return float(np.median(np.concatenate(gaps))) if gaps else None


def scrapes_by_instance(series: Iterable[Samples], otherwise: float) -> dict[tuple[str, ...], float]:
    """Instance → the usual time between two of its samples: one source may be scraped by several jobs, each at its own pace."""
    longest: dict[tuple[str, ...], Samples] = {}
    for one in series:
        known = longest.get(one.instance)
        if known is None or len(known.times) < len(one.times):
            longest[one.instance] = one
    return {
        # The middle one, as a median of few numbers takes longer.
        instance: float(np.sort(np.diff(one.times))[(len(one.times) - 1) // 2]) if len(one.times) > 1 else otherwise
        for instance, one in longest.items()
    }


class Counters:
    """The counters of one source, up to their newest sample.

    Args:
        series: of it, at least one.
        interval_seconds: what counts are asked for.
        ready: replicas that serve, which tells a replica whose sample is late from one that is gone; None where nobody knows.
    """

    def __init__(self, series: Sequence[Samples], interval_seconds: float, ready: int | None = None) -> None:
        self.newest = max(float(one.times[-1]) for one in series)
        self.scrape_seconds = scrape_seconds(series) or interval_seconds
        scrapes = scrapes_by_instance(series, self.scrape_seconds)
        oldest = min(float(one.times[0]) for one in series)
        # Those that were there at the beginning, each with its first sample at its own phase.
        self._begun = max(float(one.times[0]) for one in series if one.times[0] <= oldest + DUE * scrapes[one.instance])
        moments = np.unique(np.concatenate([one.times for one in series]))
        longest = LONGEST_HOLE * max(interval_seconds, self.scrape_seconds)
        holes = np.flatnonzero(np.diff(moments) > longest)
        self._holes = np.stack([moments[holes], moments[holes + 1]], axis=1)
        spans: dict[tuple[str, ...], tuple[float, float]] = {}
        for one in series:
            start, end = spans.get(one.instance, (np.inf, -np.inf))
            spans[one.instance] = min(start, float(one.times[0])), max(end, float(one.times[-1]))
        self._spans = np.array(list(spans.values()))
        self._live = _live(self._spans, self.newest, np.array([scrapes[instance] for instance in spans]), ready)
        live = {instance for instance, there in zip(spans, self._live, strict=True) if there}
        beginning = _Beginnings(series, moments, self._begun, scrapes)
        self._lines = [
            _ended(beginning.line(one), self.newest, spans[one.instance][1] if one.instance in live else None) for one in series
        ]
        self._live_lines = [line for line, one in zip(self._lines, series, strict=True) if one.instance in live]

    @property
    def num_series(self) -> int:
        """Series with samples."""
        return len(self._lines)

    @property
    def num_live(self) -> int:
        """Instances that are scraped."""
        return int(self._live.sum())

    @property
    def most_live(self) -> int:
        """The most instances that were scraped at one time, of those that the samples tell of."""
        starts = np.sort(self._spans[:, 0])
        ends = np.sort(self._spans[:, 1])
        return int((np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="left")).max())

    @property
    def num_vanished(self) -> int:
        """Instances that are no longer scraped."""
        return len(self._live) - self.num_live

    def counted(self, ends: Array, seconds: float, keep: Keep = lambda labels: True) -> Array:
        """(n,) what was counted in the `seconds` before each of `ends` (n,), by the series to keep; NaN where that is not known.

        Args:
            ends: Unix seconds.
            seconds: of an interval.
            keep: labels → whether a series counts.
        """
        found = self.counted_by(ends, seconds, keep)
        # No series of this kind: nothing of this kind was counted while others were.
        return found[True] if True in found else np.where(self._is_known(ends) & self._is_known(ends - seconds), 0.0, np.nan)

    def counted_by(self, ends: Array, seconds: float, key: Callable[[Mapping[str, str]], Key]) -> dict[Key, Array]:
        """The same for each group of series that have the same key."""
        moments = np.concatenate([ends, ends - seconds])
        totals: dict[Key, Array] = {}
        for line in self._lines:
            group = key(line.labels)
            rise = np.interp(moments, line.times, line.totals)
            totals[group] = totals[group] + rise if group in totals else rise
        unknown = ~self._is_known(moments)
        num_ends = len(ends)
        for total in totals.values():
            total[unknown] = np.nan
        return {group: np.maximum(total[:num_ends] - total[num_ends:], 0.0) for group, total in totals.items()}

    def spread(self, ends: Array, seconds: float) -> Array:
        """(n,) as `counted`; what came while nothing was scraped is spread evenly over that time. NaN outside of all samples."""
        moments = np.concatenate([ends, ends - seconds])
        total = np.zeros(len(moments))
        for line in self._lines:
            total += np.interp(moments, line.times, line.totals)
        total[~self._is_within(moments)] = np.nan
        found: Array = np.maximum(total[: len(ends)] - total[len(ends) :], 0.0)
        return found

    def of_unseen(self, ends: Array, seconds: float, number: int) -> Array:
        """(n,) what so many instances that are not scraped any more would have counted, each as much as the mean of the others.

        Args:
            ends: (n,) of the intervals.
            seconds: of an interval.
            number: of instances; the last that were lost, and beyond them such as the samples no longer tell of.
        """
        moments = np.concatenate([ends, ends - seconds])
        lost = np.sort(self._spans[~self._live, 1])[::-1][:number]
        since = np.concatenate([lost, np.full(number - len(lost), self._begun)])
        mean = np.zeros(len(moments))
        at_loss = np.zeros(number)
        for line in self._live_lines:
            mean += np.interp(moments, line.times, line.totals) / self.num_live
            at_loss += np.interp(since, line.times, line.totals) / self.num_live
        total = np.maximum(mean[:, None] - at_loss, 0.0).sum(axis=1)
        found: Array = total[: len(ends)] - total[len(ends) :]
        return found

    def ends(self, now: float, interval_seconds: float, number: int) -> Array:
        """(number,) ends of the newest intervals that the samples tell of whole, newest first."""
        return min(now, self.newest) - interval_seconds * np.arange(number, dtype=np.float64)

    def _is_within(self, moments: Array) -> NDArray[np.bool_]:
        within: NDArray[np.bool_] = (moments >= self._begun - _NEAR) & (moments <= self.newest + _NEAR)
        return within

    def _is_known(self, moments: Array) -> NDArray[np.bool_]:
        known = self._is_within(moments)
        for start, end in self._holes:
            known &= (moments <= start + _NEAR) | (moments >= end - _NEAR)
        return known


def _live(spans: Array, newest: float, scrapes: Array, ready: int | None) -> NDArray[np.bool_]:
    """(n,) which instances are still there: those whose next sample is not overdue, and as many late ones as replicas serve."""
    lags = newest - spans[:, 1]
    live: NDArray[np.bool_] = lags <= DUE * scrapes
    missing = 0 if ready is None else ready - int(live.sum())
    if missing > 0:
        late = np.flatnonzero(~live & (lags <= _LATE * scrapes))
        live[late[np.argsort(lags[late], kind="stable")][:missing]] = True
    return live


class _Beginnings:
    """Where the counters that appeared later began to count.

    Args:
        series: of a source.
        moments: (m,) of all samples, rising.
        begun: since when there are samples of all that were there at the beginning.
        scrapes: instance → seconds between two of its samples.
    """

    def __init__(self, series: Sequence[Samples], moments: Array, begun: float, scrapes: Mapping[tuple[str, ...], float]) -> None:
        self._moments, self._begun, self._scrapes = moments, begun, scrapes
        self._first: dict[tuple[str, ...], float] = {}
        self._at_first: dict[tuple[str, ...], float] = {}
        for one in series:
            key, start = one.instance, float(one.times[0])
            if start < self._first.get(key, np.inf):
                self._first[key], self._at_first[key] = start, 0.0
            if start == self._first[key]:
                self._at_first[key] += float(one.values[0])
        self._series = series

    @cached_property
    def _busiest(self) -> float:
        """Only asked for where something has appeared."""
        return busiest_rate(self._series)

    def line(self, one: Samples) -> _Line:
        """A series as a line, from zero where it is known to have begun there."""
        times, totals, start = one.times, risen(one.values), float(one.times[0])
        if start <= self._begun:
            return _Line(one.labels, times, totals)
        # Not yet seen by the scrape before; where nothing at all was scraped then, it began at any time since.
        scrape = self._scrapes[one.instance]
        before = start - scrape
        at = int(np.searchsorted(self._moments, before - 0.5 * scrape))
        if self._moments[at] >= start and at:
            before = float(self._moments[at - 1])
        before = max(before, self._begun)
        # Several series of one replica begin together.
        is_first = start == self._first[one.instance] and before < start
        if is_first and not may_begin(self._at_first[one.instance], self._busiest, start - before):
            return _Line(one.labels, times, totals)
        return _Line(one.labels, np.insert(times, 0, before), np.insert(totals + one.values[0], 0, 0.0))


def _ended(line: _Line, newest: float, instance_newest: float | None) -> _Line:
    """A line to the newest sample of all: those still there go on as they went, the others have ended.

    Args:
        line: to be continued.
        newest: sample of all.
        instance_newest: newest sample of whatever the series was scraped from; None where that is gone.
    """
    last = float(line.times[-1])
    if instance_newest is None or last < instance_newest or last >= newest or len(line.times) < 2:
        return line
    slope = (line.totals[-1] - line.totals[-2]) / max(line.times[-1] - line.times[-2], 1e-3)
    end = line.totals[-1] + slope * (newest - last)
    return _Line(line.labels, np.append(line.times, newest), np.append(line.totals, end))


def newest_values(series: Sequence[Samples]) -> tuple[list[tuple[Mapping[str, str], float]], float]:
    """The newest values of gauges that are still there, and the time of the newest sample of all.

    Args:
        series: at least one.
    """
    newest = max(float(one.times[-1]) for one in series)
    scrapes = scrapes_by_instance(series, scrape_seconds(series) or np.inf)
    there = [one for one in series if newest - one.times[-1] <= DUE * scrapes[one.instance]]
    return [(one.labels, float(one.values[-1])) for one in there], newest


__all__ = [
    "Array",
    "Counters",
    "Keep",
    "Samples",
    "busiest_rate",
    "newest_values",
    "risen",
    "scrape_seconds",
    "scrapes_by_instance",
]
