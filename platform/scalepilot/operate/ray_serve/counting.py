"""What a replica counts of its requests, and how Serve hands that to the autoscaling policy."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Names under which Serve carries them.
REQUESTS, ERRORS, BUSY, BUCKET = "scalepilot_requests", "scalepilot_errors", "scalepilot_busy_seconds", "scalepilot_le_"
# Seconds; as fine as a p95 needs from milliseconds to a minute.
DEFAULT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class _Counts:
    """Of one replica.

    Attributes:
        lock: a deployment may answer on several threads.
        buckets: answered within each bound, and beyond the last.
        ongoing: requests being answered.
        busy_seconds: time in which it was busy, up to `since`.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    buckets: list[int] = field(default_factory=list)
    requests: int = 0
    errors: int = 0
    ongoing: int = 0
    busy_seconds: float = 0.0
    since: float = 0.0


class Counted:
    """A mixin for the class of a Serve deployment. What answers a request does so within `with self.counted():`.

    Attributes:
        concurrency: how many requests a replica works on at once: with so many it is busy.
        latency_bounds: seconds; one of them should be what is late.
    """

    concurrency: int = 1
    latency_bounds: tuple[float, ...] = DEFAULT_BOUNDS

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request, how long it takes, and whether it fails."""
        counts, began = self._counts(), time.monotonic()
        with counts.lock:
            self._tell(counts, began)
            counts.requests += 1
            counts.ongoing += 1
        failed = 1
        try:
            yield
            failed = 0
        finally:
            ended = time.monotonic()
            with counts.lock:
                self._tell(counts, ended)
                counts.ongoing -= 1
                counts.errors += failed
                counts.buckets[bisect.bisect_left(self.latency_bounds, ended - began)] += 1

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve asks each replica for, several times an interval: counts since it began."""
        counts = self._counts()
        with counts.lock:
            self._tell(counts, time.monotonic())
            found = {REQUESTS: float(counts.requests), ERRORS: float(counts.errors), BUSY: counts.busy_seconds}
            total = 0
            for bound, count in zip((*self.latency_bounds, float("inf")), counts.buckets, strict=True):
                total += count
                found[f"{BUCKET}{bound}"] = float(total)
            return found

    def _counts(self) -> _Counts:
        counts: _Counts = self.__dict__.get("_scalepilot_counts") or self.__dict__.setdefault(
            "_scalepilot_counts", _Counts(buckets=[0] * (len(self.latency_bounds) + 1), since=time.monotonic())
        )
        return counts

    def _tell(self, counts: _Counts, now: float) -> None:
        counts.busy_seconds += (now - counts.since) * min(1.0, counts.ongoing / self.concurrency)
        counts.since = now


__all__ = ["BUCKET", "BUSY", "ERRORS", "REQUESTS", "Counted"]
