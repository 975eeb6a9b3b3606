"""What one moment's samples do not tell, and earlier moments did."""

from __future__ import annotations

from collections import deque

from scalepilot.operate.telemetry.counters import Counters
from scalepilot.operate.telemetry.rate_history import RateHistory

_MOST_MOMENTS = 200
_SCRAPES_TO_BE_SEEN = 2.5
# More replicas than instances for so long, and none of these lost: the counter is not the replicas' own.
_MOMENTS_UNMATCHED = 20


class Memory:
    """What a telemetry remembers from moment to moment; nothing in it is needed to begin.

    Args:
        rates: requests of each interval, where a policy looks far back.
    """

    def __init__(self, rates: RateHistory | None = None) -> None:
        self.rates = rates
        self._ready: deque[tuple[float, int]] = deque(maxlen=_MOST_MOMENTS)
        # Instances that were scraped when as many were as served; None where that never was so.
        self._complete: int | None = None
        self._unmatched = 0
        self.capacity_rps: float | None = None

    def see(self, now: float, ready: int | None) -> None:
        """Keep how many replicas serve at a moment."""
        if self._ready and self._ready[-1][0] >= now:
            # The clock was set back, or the moment is read again.
            self._ready = deque((one for one in self._ready if one[0] < now), maxlen=_MOST_MOMENTS)
        if ready is not None:
            self._ready.append((now, ready))

    def ready_between(self, start: float, end: float) -> float | None:
        """The mean of the replicas that served, each number from its moment on; None before anything was seen."""
        if not self._ready:
            return None
        moments = [at for at, _ in self._ready]
        # What served before the first moment, and after the last one, is taken as it was then.
        starts, ends = [start, *moments[1:]], [*moments[1:], end]
        parts = [
            ready * max(0.0, min(end, until) - max(start, at))
            for (_, ready), at, until in zip(self._ready, starts, ends, strict=True)
        ]
        return sum(parts) / (end - start)

    def learn_capacity(self, rps: float) -> None:
        """Keep the highest."""
        self.capacity_rps = max(rps, self.capacity_rps or 0.0)

    def unseen(self, counters: Counters, ready: int | None, per_replica: bool | None) -> int:
        """How many replicas serve and are not scraped, as far as that is known.

        An ingress counts for all replicas, and then fewer instances than replicas are no loss. So, unless it is said: only where
        as many were scraped as served before, and fewer are now than then.

        Args:
            counters: of the requests.
            ready: replicas that serve.
            per_replica: whether each has series of its own; None where nobody has said.
        """
        if ready is None or per_replica is False:
            return 0
        live = counters.num_live
        # Those that began to serve a moment ago may not have been scraped yet.
        since = counters.newest - _SCRAPES_TO_BE_SEEN * counters.scrape_seconds
        until = [*(at for at, _ in self._ready), float("inf")][1:]
        expected = min([ready, *(then for (_, then), end in zip(self._ready, until, strict=True) if end > since)])
        if live >= expected:
            if live >= ready:
                self._complete, self._unmatched = live, 0
            return 0
        if per_replica is None:
            if self._complete is None and counters.num_vanished and counters.most_live >= expected:
                self._complete = counters.most_live
            if self._complete is None:
                return 0
            if live >= self._complete:
                self._unmatched += 1
                if self._unmatched >= _MOMENTS_UNMATCHED:
                    self._complete = None
                return 0
            expected = min(expected, self._complete)
        return expected - live


__all__ = ["Memory"]
