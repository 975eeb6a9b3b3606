"""What was to be sent, what was, and what came back: in all, and by interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# A latency's place in the histogram is known to one part in a hundred; from 10 µs to a day.
_LOWEST_SECONDS, _RATIO, _PLACES = 1e-5, 1.01, 2300
_LOG_RATIO = math.log(_RATIO)
# Shares of fewer requests say little.
_FEWEST = 100
# Sent later than this after its moment, a request is one that was sent late.
LATE_SENT_SECONDS = 0.1
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
NOT_MODIFIED = 304
NO_TIME = "not sent in time"


class Latencies:
    """A histogram whose memory does not grow."""

    def __init__(self) -> None:
        self.count, self.sum, self.most = 0, 0.0, 0.0
        self._places: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.sum += seconds
        self.most = max(self.most, seconds)
        place = math.ceil(math.log(seconds / _LOWEST_SECONDS) / _LOG_RATIO) if seconds > _LOWEST_SECONDS else 0
        self._places[min(place, _PLACES)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds, within 1 %; None without any."""
        left = math.ceil(share * self.count)
        for place in sorted(self._places):
            left -= self._places[place]
            if left <= 0:
                return min(self.most, _LOWEST_SECONDS * _RATIO ** (place - 0.5) if place else _LOWEST_SECONDS)
        return None

    def figures(self) -> dict[str, float | None]:
        """Mean, quantiles and the longest, in seconds; None without any."""
        if not self.count:
            return dict.fromkeys(("mean", *QUANTILES, "max"))
        quantiles = {name: self.quantile(share) or 0.0 for name, share in QUANTILES.items()}
        found = {"mean": self.sum / self.count} | quantiles | {"max": self.most}
        return {name: float(f"{value:.4g}") for name, value in found.items()}


@dataclass
class Counts:
    """Requests of a stretch of time.

    Attributes:
        intended: whose moment is in it.
        sent: sent in it, whenever they should have been.
        sent_late: of the intended, those sent more than a tenth of a second late.
        answered: of the intended, with whatever status.
        not_sent: of the intended.
        late: of the intended, answered after the SLO or not at all; 0 without an SLO.
        errors: of the intended, by kind.
        latencies: of the intended, from the moment that they should have been sent at.
    """

    intended: int = 0
    sent: int = 0
    sent_late: int = 0
    answered: int = 0
    not_sent: int = 0
    late: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def sent_error(self) -> float | None:
        """How far the requests sent are off those intended, as a share; None where there are few."""
        return abs(self.sent - self.intended) / self.intended if self.intended >= _FEWEST else None


class Tally:
    """Counts the requests of a replay.

    Args:
        interval_seconds: of the wall.
        slo_seconds: an answer after that is late; None: nothing is said about late ones.
        expected: requests that the workload asks for between two moments, in seconds since the beginning.
        tell: takes each interval's figures as soon as it is over and its requests are settled.
    """

    def __init__(
        self,
        interval_seconds: float,
        slo_seconds: float | None,
        expected: Callable[[float, float], float],
        tell: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        self.interval_seconds, self.slo_seconds = interval_seconds, slo_seconds
        self.all = Counts()
        self._expected, self._tell = expected, tell
        self._open: dict[int, Counts] = {0: Counts()}
        self._worst: float | None = None

    def intend(self, moment: float) -> None:
        """A request is to be sent."""
        self.all.intended += 1
        self._at(moment).intended += 1

    def send(self, moment: float, now: float) -> None:
        """It is sent."""
        self.all.sent += 1
        self._at(now).sent += 1
        if now - moment > LATE_SENT_SECONDS:
            self.all.sent_late += 1
            self._at(moment).sent_late += 1

    def answer(self, moment: float, now: float, status: int) -> None:
        """It is answered in full."""
        for counts in (self.all, self._at(moment)):
            counts.answered += 1
            counts.latencies.add(now - moment)
            counts.late += self.slo_seconds is not None and now - moment > self.slo_seconds
            # A redirect is not followed, so what was asked for has not come.
            if status >= 300 and status != NOT_MODIFIED:
                counts.errors[f"status {status}"] += 1

    def fail(self, moment: float, kind: str, waited: float | None = None) -> None:
        """It is not answered.

        Args:
            moment: that it should have been sent at.
            kind: of error; NO_TIME where it was not even sent.
            waited: seconds, where it was given up after waiting: its latency is at least that.
        """
        for counts in (self.all, self._at(moment)):
            counts.not_sent += kind == NO_TIME
            counts.errors[kind] += 1
            counts.late += self.slo_seconds is not None
            if waited is not None:
                counts.latencies.add(waited)

    def settle(self, upto: float) -> None:
        """Everything whose moment is before this one is answered, or never will be."""
        for index in sorted(self._open):
            if (index + 1) * self.interval_seconds > upto:
                break
            counts = self._open.pop(index)
            # What was sent in the meantime is looked up by its interval, so none is left out.
            self._open.setdefault(index + 1, Counts())
            self._tell(self._row(index, counts))

    def finish(self, seconds: float) -> dict[str, Any]:
        """The last intervals, and the figures in all.

        Args:
            seconds: from the beginning to the last moment that requests were sent at.
        """
        for index in sorted(self._open):
            if index * self.interval_seconds < seconds or self._open[index].sent:
                self._tell(self._row(index, self._open[index]))
        self._open.clear()
        counts, asked = self.all, self._expected(0.0, seconds)
        return {
            "seconds": round(seconds, 3),
            "workload": round(asked, 1),
            "intended": counts.intended,
            "sent": counts.sent,
            "sent_late": counts.sent_late,
            "not_sent": counts.not_sent,
            "answered": counts.answered,
            "errors": dict(counts.errors.most_common()),
            "late_share": self._share(counts),
            "slo_seconds": self.slo_seconds,
            "latency_seconds": counts.latencies.figures(),
            "sent_error": round(abs(counts.sent - asked) / asked, 5) if asked >= _FEWEST else None,
            "worst_interval_sent_error": None if self._worst is None else round(self._worst, 5),
            "interval_seconds": self.interval_seconds,
        }

    def _at(self, moment: float) -> Counts:
        return self._open.setdefault(max(0, int(moment / self.interval_seconds)), Counts())

    def _share(self, counts: Counts) -> float | None:
        if self.slo_seconds is None or not counts.intended:
            return None
        return round(counts.late / counts.intended, 6)

    def _row(self, index: int, counts: Counts) -> dict[str, Any]:
        begin, end = index * self.interval_seconds, (index + 1) * self.interval_seconds
        if (error := counts.sent_error) is not None:
            self._worst = max(error, self._worst or 0.0)
        return {
            "seconds": round(begin, 3),
            "workload_rps": round(self._expected(begin, end) / self.interval_seconds, 3),
            "intended": counts.intended,
            "sent": counts.sent,
            "sent_late": counts.sent_late,
            "not_sent": counts.not_sent,
            "answered": counts.answered,
            "errors": sum(counts.errors.values()),
            "late_share": self._share(counts),
            **{f"{name}_seconds": value for name, value in counts.latencies.figures().items()},
            "sent_error": None if error is None else round(error, 5),
        }
