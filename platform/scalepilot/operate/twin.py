"""The twin: the simulator in wall time, to try everything around a policy where nothing can be broken.

It shows what a real service shows, a page of metrics and replicas that start, and takes orders like one.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.operate.answering import Handler, answering
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import Written
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.arrivals import drawn_arrivals
from scalepilot_envs.autoscale.dynamics import AutoscaleState

Array = NDArray[np.float64]
# Bounds of the histogram beside the one that tells late requests; in units of the service time.
_BOUNDS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0)

# Looks at what is asked for elsewhere, an interval.
_LOOKS = 10


@dataclass
class Clock:
    """A clock that may run faster than the wall's.

    Args:
        pace: its seconds in a second of the wall.
    """

    pace: float = 1.0
    _begin: float = field(default_factory=time.time)
    _mark: float = field(default_factory=time.monotonic)

    def __call__(self) -> float:
        """Unix seconds."""
        return self._begin + (time.monotonic() - self._mark) * self.pace

    def sleep_until(self, moment: float, stop: Callable[[], bool]) -> None:
        """Wait for a moment, or until `stop` says so."""
        while not stop() and (left := (moment - self()) / self.pace) > 0:
            time.sleep(min(left, 0.1))


@dataclass(frozen=True)
class TwinInterval:
    """What really happened in an interval.

    Attributes:
        start: Unix seconds.
        rate_rps: mean rate.
        arrived: requests.
        late: of them.
        J: money.
        billed: replicas.
        fields: the observation at its end, as the simulator shows it.
    """

    start: float
    rate_rps: float
    arrived: float
    late: float
    J: float
    billed: float
    fields: dict[str, float]


class Twin:
    """A simulated service that lives through one interval after the other.

    An order is taken up at the next moment of the grid, as a controller's reaches a real one a little after it was decided.

    Args:
        params: the service.
        rates_rps: (n,) mean rate of each interval.
        start: Unix seconds of the first moment, on the grid.
        seed: of the arrivals.
    """

    def __init__(self, params: AutoscaleParams, rates_rps: Array, start: float, seed: int = 0) -> None:
        self.params, self.rates_rps = params, rates_rps
        self.arrived = drawn_arrivals(rates_rps * params.interval_seconds, params.arrival_dispersion, np.random.default_rng(seed))
        self.intervals: list[TwinInterval] = []
        self._names = [f.name for f in _fields(params)]
        # What was asked for is taken up at the end of an interval, and seen from then on.
        self._state = AutoscaleState(replace(params, actuation_lag_steps=1), 1)
        self._state.reset(np.array([True]), rates_rps[:1])
        self._spec = int(self._state.total[0])
        self._next = start
        # Since when the newest interval runs; None before the first.
        self._since: float | None = None
        slo = params.service_time_seconds + params.wait_slo_seconds
        self._bounds = np.array(sorted({*(bound * params.service_time_seconds for bound in _BOUNDS), slo}))
        self._totals = {"requests": 0.0, "errors": 0.0}
        # Pods that serve, the oldest first: name, CPU seconds so far. One that comes later is another one.
        self._pods: list[tuple[str, float]] = []
        self._num_pods = 0
        self._below = np.zeros(len(self._bounds))
        self._seconds = 0.0
        self._added: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether the traffic has ended."""
        return len(self.intervals) >= len(self.rates_rps)

    def order(self, replicas: int) -> None:
        """Ask for so many replicas."""
        with self._lock:
            self._spec = replicas

    def advance(self, now: float) -> None:
        """Live up to a moment."""
        with self._lock:
            while not self.over and now >= self._next:
                self._live()

    def _live(self) -> None:
        """The end of an interval, and the beginning of the next."""
        if self._since is not None:
            self._end(self._since)
            if self.over:
                return
        self._begin(float(self.arrived[len(self.intervals)]))
        self._since = self._next
        self._next += self.params.interval_seconds

    def _end(self, since: float) -> None:
        k, end = len(self.intervals), since + self.params.interval_seconds
        outcome = self._state.step(np.array([float(self._spec)]), self.arrived[k : k + 1])
        shown = self._state.observe(np.array([end]))[:, 0]
        self.intervals.append(
            TwinInterval(
                since,
                float(self.rates_rps[k]),
                float(self.arrived[k]),
                float(outcome.late[0]),
                float(outcome.cost.total[0]),
                float(outcome.billed_replicas[0]),
                dict(zip(self._names, shown.tolist(), strict=True)),
            )
        )
        self._settle()

    def _begin(self, arrived: float) -> None:
        """What the interval will have brought at its end, to be shown little by little: no order changes it any more."""
        p, ready = self.params, int(self._state.ready[0])
        ahead = copy.deepcopy(self._state)
        outcome = ahead.step(np.array([float(self._spec)]), np.array([arrived]))
        late, p95 = float(ahead.late_share[0]), float(ahead.latency_p95_seconds[0])
        self._added = {
            "requests": arrived,
            "errors": float(outcome.dropped[0]),
            "cpu": float(ahead.cpu[0]) * p.interval_seconds,
            "below": arrived * np.array([self._share_below(bound, late, p95) for bound in self._bounds]),
            "seconds": arrived * p.service_time_seconds,
        }
        del self._pods[ready:]
        while len(self._pods) < ready:
            self._pods.append((f"web-{self._num_pods}", 0.0))
            self._num_pods += 1

    def _settle(self) -> None:
        self._pods = [(name, seconds + self._added.get("cpu", 0.0)) for name, seconds in self._pods]
        for name in self._totals:
            self._totals[name] += self._added.get(name, 0.0)
        self._below = self._below + self._added.get("below", 0.0)
        self._seconds += self._added.get("seconds", 0.0)
        self._added = {}

    def _share_below(self, bound: float, late: float, p95: float) -> float:
        """A distribution of response times with this late share and this 95 % quantile."""
        p = self.params
        slo = p.service_time_seconds + p.wait_slo_seconds
        p95 = max(p95, slo * (1 + 1e-6)) if late > 0.05 else min(p95, slo * (1 - 1e-6))
        points = sorted({(0.0, 0.0), (slo, 1.0 - late), (p95, 0.95), (p95 + slo + p.max_wait_seconds, 1.0)})
        at, share = np.array(points).T
        return float(np.interp(bound, at, np.maximum.accumulate(share)))

    def replicas(self, now: float) -> Replicas:
        """What a cluster would say at a moment."""
        self.advance(now)
        with self._lock:
            state, p = self._state, self.params
            steps = len(state.starting)
            since = now - (self._next - p.interval_seconds)
            ages = [
                (steps - 1 - row) * p.interval_seconds + since for row in range(steps) for _ in range(int(state.starting[row, 0]))
            ]
            serving = int(state.serving[0])
            # Those that fail their probe have been there for as long as a start-up takes.
            ages += [p.startup_seconds + since] * (int(state.ready[0]) - serving)
            return Replicas(self._spec, serving, tuple(ages))

    def page(self, now: float) -> str:
        """The metrics at a moment, in the exposition format; counters grow evenly within an interval."""
        self.advance(now)
        with self._lock:
            share = min(1.0, max(0.0, 1.0 - (self._next - now) / self.params.interval_seconds))
            total = {name: self._totals[name] + share * self._added.get(name, 0.0) for name in self._totals}
            below = self._below + share * np.asarray(self._added.get("below", 0.0))
            seconds = self._seconds + share * self._added.get("seconds", 0.0)
            pods = [(name, cpu + share * self._added.get("cpu", 0.0)) for name, cpu in self._pods]
            backlog, ready, spec = float(self._state.backlog[0]), int(self._state.serving[0]), self._spec
        labels = 'namespace="shop",app="web"'
        lines = [
            "# TYPE http_requests_total counter",
            f'http_requests_total{{{labels},code="200"}} {total["requests"] - total["errors"]!r}',
            f'http_requests_total{{{labels},code="503"}} {total["errors"]!r}',
            "# TYPE http_request_duration_seconds histogram",
            *(
                f'http_request_duration_seconds_bucket{{{labels},le="{bound:g}"}} {value!r}'
                for bound, value in zip(self._bounds, below.tolist(), strict=True)
            ),
            f'http_request_duration_seconds_bucket{{{labels},le="+Inf"}} {total["requests"]!r}',
            f"http_request_duration_seconds_sum{{{labels}}} {seconds!r}",
            f"http_request_duration_seconds_count{{{labels}}} {total['requests']!r}",
            "# TYPE http_requests_queued gauge",
            f"http_requests_queued{{{labels}}} {backlog!r}",
            "# TYPE container_cpu_usage_seconds_total counter",
            *(f'container_cpu_usage_seconds_total{{namespace="shop",pod="{pod}",container="web"}} {cpu!r}' for pod, cpu in pods),
            "# TYPE kube_deployment_status_replicas_ready gauge",
            f'kube_deployment_status_replicas_ready{{namespace="shop",deployment="web"}} {ready}',
            "# TYPE kube_deployment_spec_replicas gauge",
            f'kube_deployment_spec_replicas{{namespace="shop",deployment="web"}} {spec}',
        ]
        return "\n".join(lines) + "\n"

    @property
    def J_per_hour(self) -> float:
        """Money an hour so far."""
        hours = len(self.intervals) / self.params.steps_per_hour
        return sum(interval.J for interval in self.intervals) / hours if hours else 0.0


def _fields(params: AutoscaleParams) -> tuple[Any, ...]:
    from scalepilot_envs.autoscale.observation import observation_fields

    return observation_fields(params)


class TwinTarget:
    """The twin as a target, without a cluster.

    Args:
        twin: what is scaled.
        clock: the twin's.
    """

    name = "the twin"

    def __init__(self, twin: Twin, clock: Callable[[], float]) -> None:
        self._twin, self._clock = twin, clock

    def read(self, now: float) -> Replicas:
        """What it has."""
        return self._twin.replicas(now)

    def write(self, replicas: int, expected: int) -> Written:
        """Order; it is taken up at the next moment of the grid."""
        asked = self._twin.replicas(self._clock()).spec
        if asked != expected:
            return Written("refused", asked, f"{asked} are asked for, not {expected}")
        self._twin.order(replicas)
        return Written("written", replicas)

    def tell(self, reason: str, message: str) -> None:
        """Nobody looks."""

    def check(self, *, dry_run: bool) -> list[str]:
        """Nothing stands in the way."""
        return []

    def close(self) -> None:
        """Nothing to let go."""


@contextlib.contextmanager
def exporter(twin: Twin, clock: Callable[[], float], port: int = 0, broken: Callable[[], bool] = bool) -> Iterator[str]:
    """Serve the twin's page on loopback for the length of a `with` block.

    Args:
        twin: whose.
        clock: the twin's.
        port: 0 for any.
        broken: while it says so, every scrape fails.

    Yields:
        The page's address.
    """

    class Scrape(Handler):
        """One scrape."""

        def do_GET(self) -> None:
            if broken():
                self.send_error(503)
                return
            self.answer(200, twin.page(clock()).encode(), "text/plain; version=0.0.4; charset=utf-8")

    with answering(Scrape, "127.0.0.1", port, "twin exporter") as url:
        yield f"{url}/metrics"


@contextlib.contextmanager
def living(twin: Twin, clock: Clock, spec: Callable[[], int] | None = None) -> Iterator[None]:
    """Let the twin live in a thread for the length of a `with` block.

    Args:
        twin: which.
        clock: its own.
        spec: replicas asked for elsewhere, such as at a real Deployment, looked at some times an interval; None where they are
            ordered at the twin itself.
    """
    ended = threading.Event()

    def live() -> None:
        pause = twin.params.interval_seconds / (1 if spec is None else _LOOKS)
        while not ended.is_set() and not twin.over:
            now = clock()
            if spec is not None:
                # Whoever does not answer is asked again.
                with contextlib.suppress(Exception):
                    twin.order(spec())
            twin.advance(now)
            clock.sleep_until((now // pause + 1) * pause, ended.is_set)

    thread = threading.Thread(target=live, name="twin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
