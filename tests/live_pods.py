"""ClusterDeployment-v0's service in wall time: a page of metrics, and pods that start when somebody asks for them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np

from scalepilot_envs.cluster_deployment.measurement import CPU, LATENCY, MEMORY, SWAP, measure
from scalepilot_envs.cluster_deployment.params import MEMORY_LIMIT_BYTES, POD_LOAD_REQUESTS, SWAP_LIMIT_BYTES

LABELS = 'namespace="training",app="web"'
_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Pods:
    """What the simulator computes a step, at every moment.

    Args:
        interval: seconds of a step.
        asked: replicas that are asked for now.
        clock: Unix seconds.
        load: requests of a step at a moment.
        startup_steps: steps until a pod serves.
    """

    def __init__(
        self,
        interval: float,
        asked: Callable[[], int],
        clock: Callable[[], float],
        load: Callable[[float], float] | None = None,
        startup_steps: int = 2,
    ) -> None:
        self.interval, self._asked, self._clock = interval, asked, clock
        self.load = load or (lambda now: 1500 * (1 + 0.5 * math.sin(now / (20 * interval))))
        self._startup, self._at = startup_steps * interval, clock()
        # Pods that serve, the oldest first: name, CPU seconds so far.
        self._pods = [[f"web-{i}", 0.0] for i in range(asked())]
        self._num_pods, self._starting = len(self._pods), list[float]()
        self.requests = self.failed = self.seconds = 0.0
        self._below = np.zeros(len(_BOUNDS))
        self._lock = threading.Lock()

    def advance(self, now: float) -> None:
        """Live up to a moment."""
        with self._lock:
            while self._at < now:
                step = min(now - self._at, 0.05 * self.interval)
                self._at += step
                self._scale()
                self._serve(step)

    def _scale(self) -> None:
        asked = self._asked()
        for _ in range(sum(born + self._startup <= self._at for born in self._starting)):
            self._pods.append([f"web-{self._num_pods}", 0.0])
            self._num_pods += 1
        self._starting = [born for born in self._starting if born + self._startup > self._at]
        more = asked - self.ready - len(self._starting)
        self._starting += [self._at] * more
        while more < 0:
            if self._starting:
                self._starting.pop()
            else:
                self._pods.pop()
            more += 1

    @property
    def ready(self) -> int:
        return len(self._pods)

    def fields(self) -> np.ndarray:
        """(fields,) as the simulator measures them now."""
        return measure(np.array([self.load(self._at)]), np.array([float(max(1, self.ready))]))[:, 0]

    def _serve(self, seconds: float) -> None:
        load, fields, share = self.load(self._at), self.fields(), seconds / self.interval
        arrived = load * share
        self.requests += arrived
        self.failed += max(0.0, load - POD_LOAD_REQUESTS * self.ready) * share
        self.seconds += arrived * float(fields[LATENCY])
        self._below += arrived * (np.array(_BOUNDS) >= fields[LATENCY])
        for pod in self._pods:
            pod[1] += float(fields[CPU]) * seconds

    def page(self, now: float) -> str:
        """The metrics at a moment."""
        self.advance(now)
        with self._lock:
            fields, ready = self.fields(), self.ready
            return "\n".join(
                [
                    "# TYPE http_requests_total counter",
                    f'http_requests_total{{{LABELS},code="200"}} {self.requests - self.failed!r}',
                    f'http_requests_total{{{LABELS},code="503"}} {self.failed!r}',
                    "# TYPE http_request_duration_seconds histogram",
                    *(
                        f'http_request_duration_seconds_bucket{{{LABELS},le="{bound:g}"}} {count!r}'
                        for bound, count in zip(_BOUNDS, self._below.tolist(), strict=True)
                    ),
                    f'http_request_duration_seconds_bucket{{{LABELS},le="+Inf"}} {self.requests!r}',
                    f"http_request_duration_seconds_sum{{{LABELS}}} {self.seconds!r}",
                    f"http_request_duration_seconds_count{{{LABELS}}} {self.requests!r}",
                    "# TYPE container_cpu_usage_seconds_total counter",
                    *(
                        f'container_cpu_usage_seconds_total{{namespace="training",pod="{pod}",container="web"}} {seconds!r}'
                        for pod, seconds in self._pods
                    ),
                    "# TYPE container_memory_working_set_bytes gauge",
                    'container_memory_working_set_bytes{namespace="training",pod="web-0",container="web"}'
                    f" {float(fields[MEMORY]) * MEMORY_LIMIT_BYTES * ready!r}",
                    "# TYPE container_memory_swap gauge",
                    'container_memory_swap{namespace="training",pod="web-0",container="web"}'
                    f" {float(fields[SWAP]) * SWAP_LIMIT_BYTES * ready!r}",
                    "",
                ]
            )
