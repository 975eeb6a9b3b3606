"""Requests of each interval, as far back as a policy looks: kept from moment to moment, and asked for once at the beginning."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scalepilot.operate.telemetry.asking import Asking, Problem
from scalepilot.operate.telemetry.counters import Array, Counters, Samples
from scalepilot_envs.autoscale.long_windows import BEFORE_STEPS, LAGGED, STATISTICS, LongWindows

# Stretches that are asked for at a time, and how often one that gives no answer is.
_AT_ONCE, _TRIES = 4, 3


class RateHistory:
    """What was counted in the newest intervals, by the number of the moment of the grid at which each ended.

    Raw samples of hours are too much to be asked for at every moment: each one brings those of the short window, and what lies
    before is asked for in stretches as long as that, once.

    Args:
        steps: intervals that are kept; 0 keeps none.
        window_steps: intervals that every moment brings.
        interval_seconds: of one.
    """

    def __init__(self, steps: int, window_steps: int, interval_seconds: float) -> None:
        self.steps, self._window, self._seconds = steps, window_steps, interval_seconds
        self._counts: dict[int, float] = {}
        self._tries: dict[int, int] = {}

    def keep(self, now: float, counts: Array, age_seconds: float) -> None:
        """Take what a moment knows.

        Args:
            now: Unix seconds of the moment.
            counts: requests of the newest intervals, newest first; NaN where unknown.
            age_seconds: of the newest sample, at which the newest of them ends.
        """
        newest = round(now / self._seconds)
        for back in np.flatnonzero(~np.isnan(counts)).tolist():
            self._counts[newest - int(age_seconds // self._seconds) - back] = float(counts[back])
        # A clock that was set back has not made the future known.
        kept = range(newest - self.steps + 1, newest + 1)
        self._counts = {moment: count for moment, count in self._counts.items() if moment in kept}

    def look_back(self, now: float, ask: Callable[[float, float], list[Samples]], asking: Asking, seconds: float) -> None:
        """Ask for what is not known yet, the newest first; what there is no time for is asked for at the next moment.

        Args:
            now: Unix seconds of the moment.
            ask: (Unix seconds, seconds for an answer) → raw samples of the short window before.
            asking: in which threads.
            seconds: for all of it.
        """
        newest = round(now / self._seconds)
        # Moments of the grid at which a stretch ends, counted so that they are the same from moment to moment.
        last = (newest - self._window) // self._window * self._window
        while seconds > 0:
            ends = range(last + self._window, newest - self.steps, -self._window)
            wanted = [end for end in ends if self._tries.get(end, 0) < _TRIES and self._lacks(end, newest)][:_AT_ONCE]
            if not wanted:
                return
            questions = {f"past {end}": _question(ask, min(now, end * self._seconds)) for end in wanted}
            seconds = self._asked(wanted, asking, questions, seconds)

    def _lacks(self, end: int, newest: int) -> bool:
        moments = range(max(end - self._window, newest - self.steps) + 1, min(end, newest - self._window) + 1)
        return any(moment not in self._counts for moment in moments)

    def _asked(self, wanted: list[int], asking: Asking, questions: Mapping[str, Callable[[float], Any]], seconds: float) -> float:
        begun = time.monotonic()
        answers = asking.ask(questions, seconds)
        for end in wanted:
            answer = answers[f"past {end}"]
            if isinstance(answer, Problem):
                self._tries[end] = self._tries.get(end, 0) + 1
                continue
            self._tries[end] = _TRIES
            if answer:
                self._take(end, Counters(answer, self._seconds))
        return seconds - (time.monotonic() - begun)

    def _take(self, end: int, counters: Counters) -> None:
        moments = np.arange(end, end - self._window, -1)
        # At the phase of the samples, as the newest intervals are counted.
        early = (end * self._seconds - counters.newest) % self._seconds
        counts = counters.counted(np.asarray(moments * self._seconds - early, dtype=np.float64), self._seconds)
        for moment, count in zip(moments.tolist(), counts.tolist(), strict=True):
            # What a moment has counted itself knows more: who was not scraped, for one.
            if not np.isnan(count):
                self._counts.setdefault(moment, count)

    def window(self, now: float, at: int, steps: int) -> tuple[float | None, int, int]:
        """A statistic of the requests of many intervals, as the simulator computes it.

        The unknown are taken to be like the one before; what lies before the first that is known, like it, as at the beginning of
        an episode: nobody waits for hours before a policy decides.

        Args:
            now: Unix seconds of the moment.
            at: which of `LongWindows.values`.
            steps: intervals of the longer window.

        Returns:
            Its value, None where nothing is known yet; how many of its intervals are known; how many there are.
        """
        newest = round(now / self._seconds)
        counts = np.array([self._counts.get(moment, np.nan) for moment in range(newest - self.steps + 1, newest + 1)])
        known = ~np.isnan(counts)
        looked_back = [*[steps // 4] * len(STATISTICS), *[steps] * len(STATISTICS), *[steps // 4 + BEFORE_STEPS] * len(LAGGED)]
        span = looked_back[at]
        if not known.any():
            return None, 0, span
        last = np.maximum.accumulate(np.where(known, np.arange(self.steps), int(known.argmax())))
        windows = LongWindows(steps, 1)
        windows.fill(np.ones(1, np.bool_), counts[last][:, None])
        return float(windows.values[at, 0]), int(known[-span:].sum()), span


def _question(ask: Callable[[float, float], list[Samples]], moment: float) -> Callable[[float], Any]:
    return lambda seconds: ask(moment, seconds)


__all__ = ["RateHistory"]
