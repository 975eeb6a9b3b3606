"""Weeks of a counter's samples, a part at a time, as requests of each step; and which steps nobody can tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scalepilot.operate.telemetry.counters import (
    DUE,
    LONGEST_HOLE,
    Array,
    Samples,
    busiest_rate,
    may_begin,
    risen,
    scrape_seconds,
    scrapes_by_instance,
)

Key = frozenset[tuple[str, str]]


class Tally:
    """Counts of each step of a regular grid.

    Requests are conserved: a counter's rise between two samples is spread evenly over the time between them, also where that
    is long. Where an instance was not scraped for longer, its steps are told as such.

    Args:
        start: Unix seconds of the first step.
        step_seconds: of a step.
        num_steps: how many.
    """

    def __init__(self, start: float, step_seconds: float, num_steps: int) -> None:
        self.start, self.step_seconds, self.num_steps = start, step_seconds, num_steps
        self.counts = np.zeros(num_steps)
        self.num_resets = self.num_samples = 0
        self._edges = start + step_seconds * np.arange(num_steps + 1, dtype=np.float64)
        self._scrapes: dict[tuple[str, ...], float] = {}
        self._begun = np.inf
        self._newest = -np.inf
        self._last: dict[Key, tuple[float, float]] = {}
        self._last_of: dict[tuple[str, ...], float] = {}
        # Differences along the steps: how many instances are seen, and how many are in a hole.
        self._seen, self._hole = np.zeros(num_steps + 1), np.zeros(num_steps + 1)

    def add(self, series: Sequence[Samples]) -> None:
        """Take the next part; samples that were taken before are left out."""
        fresh = [one for one in (self._after(one) for one in series) if one is not None]
        if not fresh:
            return
        usual = scrape_seconds(fresh) or self.step_seconds
        # One that has a single sample in this part keeps its pace.
        known = scrapes_by_instance(fresh, 0.0)
        self._scrapes |= {instance: gap or self._scrapes.get(instance, usual) for instance, gap in known.items()}
        self._begun = min(self._begun, *(float(one.times[0]) for one in fresh))
        busiest = busiest_rate(fresh)
        at_first = self._at_first(fresh)
        for one in fresh:
            self._take(one, self._scrapes[one.instance], busiest, at_first)
        self._see(fresh)
        for one in fresh:
            self._last[_key(one)] = float(one.times[-1]), float(one.values[-1])
            self._newest = max(self._newest, float(one.times[-1]))
            self.num_samples += len(one.times)

    @property
    def num_seen(self) -> NDArray[np.int64]:
        """(num_steps,) instances with samples about the middle of each step."""
        return np.rint(np.cumsum(self._seen[:-1])).astype(np.int64)

    @property
    def in_hole(self) -> NDArray[np.bool_]:
        """(num_steps,) where an instance was not scraped for a while, and then went on."""
        held: NDArray[np.bool_] = np.cumsum(self._hole[:-1]) > 0.5
        return held

    def whole(self) -> tuple[int, int]:
        """First step and the one after the last that the samples tell of from edge to edge."""
        if not self._scrapes:
            return 0, 0
        first = int(np.ceil((self._begun - self.start) / self.step_seconds - 1e-6))
        # The newest samples of instances of other phases lie up to a scrape before the newest of all.
        late = [at for instance, at in self._last_of.items() if self._newest - at <= DUE * self._scrapes[instance]]
        last = int(np.floor((min(late) - self.start) / self.step_seconds + 1e-6))
        return max(0, first), min(self.num_steps, last)

    def _after(self, one: Samples) -> Samples | None:
        """The samples after those taken before, behind the last of these."""
        known = self._last.get(_key(one))
        if known is None:
            return one
        new = one.times > known[0]
        if not new.any():
            return None
        return Samples(one.labels, np.insert(one.times[new], 0, known[0]), np.insert(one.values[new], 0, known[1]))

    def _at_first(self, series: Sequence[Samples]) -> dict[tuple[str, ...], tuple[float, float]]:
        """Instance that is new → its first moment, and what its series had counted then."""
        found: dict[tuple[str, ...], tuple[float, float]] = {}
        for one in series:
            if one.instance not in self._last_of:
                at, value = float(one.times[0]), float(one.values[0])
                known = found.get(one.instance, (np.inf, 0.0))
                if at <= known[0]:
                    found[one.instance] = at, value + (known[1] if at == known[0] else 0.0)
        return found

    def _take(self, one: Samples, scrape: float, busiest: float, at_first: dict[tuple[str, ...], tuple[float, float]]) -> None:
        times, values = one.times, one.values
        # Whoever was gone for long and has begun again from zero since was not there meanwhile.
        falls = np.flatnonzero(np.diff(values) < 0)
        self.num_resets += len(falls)
        totals = risen(values)
        for at in falls[::-1]:
            gone = times[at + 1] - times[at]
            begins = may_begin(values[at + 1], busiest, scrape)
            if gone > LONGEST_HOLE * scrape and begins:
                # The line rests until a scrape before it is seen again.
                times = np.insert(times, at + 1, times[at + 1] - scrape)
                totals = np.insert(totals, at + 1, totals[at])
        if _key(one) not in self._last and times[0] > self._begun + DUE * scrape:
            first = at_first.get(one.instance)
            is_first = first is not None and times[0] == first[0]
            if not is_first or (first is not None and may_begin(first[1], busiest, scrape)):
                # New: it counts from zero.
                totals = np.insert(totals + values[0], 0, 0.0)
                times = np.insert(times, 0, times[0] - scrape)
        low = max(0, int(np.searchsorted(self._edges, times[0], side="right")) - 1)
        high = min(self.num_steps, int(np.searchsorted(self._edges, times[-1], side="left")))
        if high > low:
            self.counts[low:high] += np.diff(np.interp(self._edges[low : high + 1], times, totals))

    def _see(self, series: Sequence[Samples]) -> None:
        times: dict[tuple[str, ...], list[Array]] = {}
        restarted: dict[tuple[str, ...], list[Array]] = {}
        for one in series:
            times.setdefault(one.instance, []).append(one.times)
            falls = np.flatnonzero(np.diff(one.values) < 0)
            restarted.setdefault(one.instance, []).append(one.times[falls + 1])
        for instance, parts in times.items():
            before = self._last_of.get(instance)
            moments = np.unique(np.concatenate(parts if before is None else [np.array([before]), *parts]))
            self._last_of[instance] = float(moments[-1])
            scrape = self._scrapes[instance]
            long = np.flatnonzero(np.diff(moments) > max(LONGEST_HOLE * scrape, self.step_seconds))
            for start, end in zip(np.append(0, long + 1), np.append(long, len(moments) - 1), strict=True):
                # What joins the part before was seen there up to its last sample already.
                begins = moments[start] if before is not None and start == 0 else moments[start] - scrape
                self._mark(self._seen, begins, moments[end], middle=True)
            anew = np.concatenate(restarted[instance])
            for at in long:
                if not np.isin(moments[at + 1], anew):
                    self._mark(self._hole, moments[at], moments[at + 1])

    def _mark(self, marks: Array, start: float, end: float, *, middle: bool = False) -> None:
        """Add one from the step of `start` to that of `end`: those they touch, or those whose middle lies between."""
        low, high = (start - self.start) / self.step_seconds, (end - self.start) / self.step_seconds
        first = int(np.ceil(low - 0.5)) if middle else int(np.floor(low + 1e-6))
        last = int(np.ceil(high - 0.5)) if middle else int(np.ceil(high - 1e-6))
        first, last = max(first, 0), min(last, self.num_steps)
        if last > first:
            marks[first] += 1
            marks[last] -= 1


def _key(one: Samples) -> Key:
    return frozenset(one.labels.items())


__all__ = ["Tally"]
