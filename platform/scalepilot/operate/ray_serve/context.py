"""What Ray Serve's autoscaling context tells, as a target and as telemetry."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from scalepilot.operate.ray_serve.counting import BUCKET, BUSY, ERRORS, REQUESTS
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.operate.targets import Written
from scalepilot.operate.telemetry import TelemetryContext
from scalepilot.operate.telemetry.counters import Array, Samples
from scalepilot.operate.telemetry.fields import plan_of
from scalepilot.operate.telemetry.measured import Measured
from scalepilot.operate.telemetry.settings import (
    CounterSource,
    CpuSource,
    ErrorSource,
    GaugeSource,
    LatencySource,
    PrometheusSettings,
)

_MARGIN_INTERVALS = 4
_SOURCE = "ray serve"
# Of what replicas counted in an interval at least this came in it, however much the queue has shrunk.
_LEAST_SHARE = 0.5


class Context(Protocol):
    """What is read of Serve's `AutoscalingContext`."""

    current_num_replicas: int
    target_num_replicas: int
    config: Any

    @property
    def total_queued_requests(self) -> float | None:
        """Requests that wait at handles."""
        ...

    @property
    def raw_metrics(self) -> Mapping[str, Mapping[Any, Iterable[Any]]] | None:
        """Name → replica → samples, each with `timestamp` and `value`."""
        ...


class ContextTarget:
    """A deployment, seen from Serve's controller. What is written is what the policy returns next."""

    name = "ray serve deployment"

    def __init__(self) -> None:
        self.wanted: int | None = None
        self._spec: int | None = None
        self._ready = 0
        # When each replica that does not serve yet was asked for, oldest first.
        self._ordered: deque[float] = deque()

    def see(self, context: Context, now: float) -> None:
        """Take the replicas of a moment in: Serve tells their numbers, and not since when one has been starting."""
        self._spec, self._ready = context.target_num_replicas, context.current_num_replicas
        starting = max(0, self._spec - self._ready)
        while len(self._ordered) > starting:
            self._ordered.popleft()
        self._ordered.extend([now] * (starting - len(self._ordered)))

    def read(self, now: float) -> Replicas:
        """As last seen."""
        ages = tuple(max(0.0, now - since) for since in self._ordered)
        return Replicas(self._spec, self._ready if self._spec is not None else None, ages)

    def write(self, replicas: int, expected: int) -> Written:
        """Have it returned to Serve."""
        if expected != self._spec:
            return Written("refused", self._spec, f"{self._spec} are asked for, not {expected}")
        self.wanted = replicas
        return Written("written", replicas)

    def tell(self, reason: str, message: str) -> None:
        """Serve has no place for notes but its log, which has the decisions already."""

    def check(self, *, dry_run: bool) -> list[str]:
        """Nothing stands in the way."""
        return []

    def close(self) -> None:
        """Nothing to let go."""


class _Measured(Measured):
    """Requests that wait at Serve's handles were counted by no replica yet, but have come."""

    @cached_property
    def counts(self) -> Array:
        """(window_steps,) requests that came in each interval, newest first; NaN where unknown."""
        counts: Array = Measured.counts.func(self)  # type: ignore[attr-defined]
        queued = self.series("queued")
        if self.requests is None or not queued:
            return counts
        ends = self.requests.ends(self.now, self.interval_seconds, self.window_steps)
        (one,) = queued
        # Before the first sample as at it: nothing is made up for a time when nobody looked.
        grown = np.interp(ends, one.times, one.values) - np.interp(ends - self.interval_seconds, one.times, one.values)
        # The queue and the counters are looked at at different times: a queue that empties in between must not make a rate of 0.
        return np.maximum(counts + grown, _LEAST_SHARE * counts)


class ContextTelemetry:
    """The fields of a policy's observation, from what replicas count and Serve carries.

    Args:
        context: whose fields are wanted.
        capacity_rps: requests/s one replica serves; None to learn it.
    """

    def __init__(self, context: TelemetryContext, capacity_rps: float | None = None) -> None:
        self._names = [f.name for f in context.fields]
        self._plan = plan_of(context.env)
        self._interval = context.env.interval_seconds
        self._settings = PrometheusSettings(
            url="http://ray-serve",
            requests=CounterSource(counter=REQUESTS, per_replica=True),
            errors=ErrorSource(counter=ERRORS),
            latency=LatencySource(histogram=BUCKET),
            cpu=CpuSource(counter=BUSY),
            backlog=GaugeSource(gauge="total_queued_requests"),
            capacity_rps=capacity_rps,
        )
        self._memory = self._plan.memory(self._interval)
        self._series: dict[tuple[str, str], deque[tuple[float, float]]] = {}
        self._queued: deque[tuple[float, float]] = deque()
        self._labels = {
            "requests": f"{_SOURCE} {REQUESTS}",
            "errors": f"{_SOURCE} {ERRORS}",
            "latency": f"{_SOURCE} {BUCKET}…",
            "cpu": f"{_SOURCE} {BUSY}",
            "backlog": f"{_SOURCE} total_queued_requests",
        }

    def see(self, context: Context, now: float) -> None:
        """Take new samples in; Serve itself keeps them for `look_back_period_s` only.

        Args:
            context: of this moment.
            now: Unix seconds.
        """
        window = (self._plan.window_steps + _MARGIN_INTERVALS) * self._interval
        for name, by_replica in (context.raw_metrics or {}).items():
            if name not in (REQUESTS, ERRORS, BUSY) and not name.startswith(BUCKET):
                continue
            for replica, samples in by_replica.items():
                kept = self._series.setdefault((name, _id(replica)), deque())
                # The newest alone: a replica pushes some seconds of samples at once, each at its own time, and what comes in
                # such heaps would look as if it had stopped in between.
                newest = max(((s.timestamp, s.value) for s in samples), default=None)
                if newest is not None and (not kept or newest[0] > kept[-1][0]):
                    kept.append(newest)
        queued = context.total_queued_requests
        if queued is not None:
            # A mean over what Serve looks back on: of its middle.
            looked_back = float(getattr(context.config, "look_back_period_s", 0.0))
            self._queued.append((now - looked_back / 2, float(queued)))
        for key, kept in list(self._series.items()):
            # Of all but the requests, which a statistic looks far back on, the newest intervals count.
            _forget(kept, now - (window if key[0] in (REQUESTS, ERRORS) else _MARGIN_INTERVALS * self._interval))
            if not kept:
                del self._series[key]
        _forget(self._queued, now - window)

    def read(self, now: float, replicas: Replicas) -> Snapshot:
        """What is known at a moment."""
        answers = {
            "requests": self._samples(REQUESTS),
            "errors": self._samples(ERRORS),
            "cpu": self._samples(BUSY),
            "latency": [
                one for name in {name for name, _ in self._series if name.startswith(BUCKET)} for one in self._samples(name)
            ],
            "backlog": [_as_samples({}, self._queued)] if self._queued else [],
            "queued": [_as_samples({}, self._queued)] if self._queued else [],
        }
        measured = _Measured(
            now, self._interval, self._plan.window_steps, replicas, self._settings, answers, self._labels, self._memory
        )
        measured.remember()
        readings = {name: self._reading(name, measured) for name in self._names}
        return Snapshot(now, readings, replicas, {"requests": measured.count()})

    def _reading(self, name: str, measured: Measured) -> Reading:
        make = self._plan.makes.get(name)
        if make is None:
            return Reading(None, "", None, "nothing in Ray Serve measures it")
        waiting = measured.gauge("backlog").value
        if name in _OF_LATENCY and waiting is not None and waiting >= 1.0:
            told = f"{waiting:.0f} requests wait at Serve's handles, and how long is not known (raise max_ongoing_requests)"
            return Reading(None, self._labels["latency"], None, told)
        return make(measured)

    def _samples(self, metric: str) -> list[Samples]:
        # The bound of a histogram's bucket is a label of it in the words of Prometheus.
        bound = {"le": metric.removeprefix(BUCKET)} if metric.startswith(BUCKET) else {}
        return [_as_samples({"pod": replica, **bound}, kept) for (name, replica), kept in self._series.items() if name == metric]

    def check(self, now: float) -> list[str]:
        """Nothing that can be known before it runs."""
        return []

    def close(self) -> None:
        """Nothing to let go."""


_OF_LATENCY = frozenset(("latency_p95_seconds", "late_share"))


def _id(replica: Any) -> str:
    return str(getattr(replica, "unique_id", replica))


def _forget(kept: deque[tuple[float, float]], before: float) -> None:
    while kept and kept[0][0] < before:
        kept.popleft()


def _as_samples(labels: Mapping[str, str], kept: Iterable[tuple[float, float]]) -> Samples:
    table = np.array(list(kept), np.float64)
    return Samples(labels, table[:, 0], table[:, 1])


__all__ = ["Context", "ContextTarget", "ContextTelemetry"]
