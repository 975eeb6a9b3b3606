"""A service whose truth is known: pods that come and go and share its requests, and what a Prometheus would scrape of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import yaml
from numpy.typing import NDArray
from tests.real_prometheus import HOST, binary, started

from scalepilot.serve.http.listen import free_port

Array = NDArray[np.float64]
# What is drawn in closed form elsewhere is added up here, in steps of so many seconds.
_STEP_SECONDS = 0.1
DURATION, MEAN_SECONDS = "http_request_duration_seconds", 0.12
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, float("inf"))


@dataclass(frozen=True)
class Pod:
    """A replica.

    Attributes:
        name: of it.
        start: seconds since when it serves.
        end: until when.
        restarts: when its counters began again from zero.
        unscraped: (from, to) without samples.
    """

    name: str
    start: float
    end: float = np.inf
    restarts: tuple[float, ...] = ()
    unscraped: tuple[tuple[float, float], ...] = ()


@dataclass
class Fleet:
    """Pods over a time.

    Attributes:
        pods: of it.
        end: of the time, seconds; it begins at 0.
        rate_rps: time (n,) → requests/s (n,) of all.
        error_share: of the requests.
        late_share: of the requests: slower than 0.25 s.
        cpu_per_request: seconds.
        phases: pod → of its scrapes, a share of the scrape interval.
        labels: of every series.
    """

    pods: Sequence[Pod]
    end: float
    rate_rps: Callable[[Array], Array]
    error_share: float = 0.02
    late_share: float = 0.1
    cpu_per_request: float = 0.03
    phases: Mapping[str, float] = field(default_factory=dict)
    labels: str = 'namespace="shop",app="web"'

    def __post_init__(self) -> None:
        self._times = np.arange(0.0, self.end + _STEP_SECONDS, _STEP_SECONDS)
        serving = np.zeros(len(self._times))
        for pod in self.pods:
            serving += (self._times >= pod.start) & (self._times < pod.end)
        rate = self.rate_rps(self._times)
        self._total = np.concatenate([[0.0], np.cumsum(rate * _STEP_SECONDS)[:-1]])
        self._ready = serving
        self._served: dict[str, Array] = {}
        for pod in self.pods:
            share = np.where((self._times >= pod.start) & (self._times < pod.end), rate / np.maximum(serving, 1), 0.0)
            self._served[pod.name] = np.concatenate([[0.0], np.cumsum(share * _STEP_SECONDS)[:-1]])

    def requests(self, start: float, end: float) -> float:
        """All requests between two times."""
        low, high = np.interp([start, end], self._times, self._total)
        return float(high - low)

    def ready(self, at: float) -> int:
        """Replicas that serve at a time."""
        return int(self._ready[int(at / _STEP_SECONDS)])

    def counter(self, pod: Pod, times: Array) -> Array:
        """Requests a pod has counted by the times, since its last restart."""
        total = np.interp(times, self._times, self._served[pod.name])
        begun = np.zeros(len(times))
        for restart in pod.restarts:
            begun = np.where(times >= restart, np.interp(restart, self._times, self._served[pod.name]), begun)
        return total - begun

    def scrapes(self, pod: Pod, seconds: float) -> Array:
        """When a pod is scraped."""
        phase = self.phases.get(pod.name, (hash_share(pod.name)))
        times = (np.arange(int(self.end / seconds) + 1) + phase) * seconds
        times = times[(times >= pod.start) & (times < min(pod.end, self.end))]
        for start, end in pod.unscraped:
            times = times[(times < start) | (times >= end)]
        return np.round(times, 3)

    def openmetrics(self, scrape_seconds: float, at: float, extra: str = "") -> str:
        """Everything that was scraped, as promtool takes it.

        Args:
            scrape_seconds: between two scrapes.
            at: Unix seconds of the fleet's 0.
            extra: further families.
        """
        requests, buckets, counts, sums, cpu = [], [], [], [], []
        for pod in self.pods:
            times = self.scrapes(pod, scrape_seconds)
            counted = self.counter(pod, times)
            labels = f'{self.labels},pod="{pod.name}"'
            for code, share in (("200", 1 - self.error_share), ("500", self.error_share)):
                if share:
                    requests += _lines(f'http_requests_total{{{labels},code="{code}"}}', at + times, share * counted)
            for bound, share in zip(BOUNDS, self.shares_within(), strict=True):
                le = "+Inf" if np.isinf(bound) else f"{bound:g}"
                buckets += _lines(f'{DURATION}_bucket{{{labels},le="{le}"}}', at + times, share * counted)
            counts += _lines(f"{DURATION}_count{{{labels}}}", at + times, counted)
            sums += _lines(f"{DURATION}_sum{{{labels}}}", at + times, MEAN_SECONDS * counted)
            used = counted * self.cpu_per_request
            cpu += _lines(f'container_cpu_usage_seconds_total{{{labels},container="web"}}', at + times, used)
            cpu += _lines(f'container_cpu_usage_seconds_total{{{labels},container=""}}', at + times, 1.02 * used)
        families = {
            "http_requests counter": requests,
            "container_cpu_usage_seconds counter": cpu,
            f"{DURATION}_bucket unknown": buckets,
            f"{DURATION}_count unknown": counts,
            f"{DURATION}_sum unknown": sums,
        }
        lines = [line for family, found in families.items() for line in (f"# TYPE {family}", *found)]
        return "\n".join([*lines, *extra.split("\n"), "# EOF"]).replace("\n\n", "\n") + "\n"

    def shares_within(self) -> list[float]:
        """Of the requests, by bound."""
        on_time = 1 - self.late_share
        return [0.4 * on_time, 0.8 * on_time, on_time, on_time + 0.6 * self.late_share, 1.0, 1.0]


def hash_share(name: str) -> float:
    """A pod's phase, the same in every process."""
    return (sum(ord(letter) * 31**i for i, letter in enumerate(name)) % 97) / 97


def _lines(series: str, times: Array, values: Array) -> list[str]:
    return [f"{series} {value:.6f} {moment:.3f}" for moment, value in zip(times, values, strict=True)]


@contextmanager
def backfilled(
    folder: Path, *texts: str, scrape: Sequence[dict[str, object]] = (), web: dict[str, object] | None = None
) -> Iterator[str]:
    """The URL of a Prometheus of its own that holds what is given; see `Fleet.openmetrics`.

    Args:
        folder: for its files.
        texts: OpenMetrics; their times end more than two hours before now, or a block of theirs would be too young.
        scrape: what it scrapes beside, as in its configuration.
        web: its certificate and users, as in its web configuration.
    """
    promtool, data = binary("promtool"), folder / "tsdb"
    for number, text in enumerate(texts):
        path = folder / f"{number}.om"
        path.write_text(text)
        command = [promtool, "tsdb", "create-blocks-from", "--max-block-duration=744h", "openmetrics", str(path), str(data)]
        subprocess.run(command, check=True, capture_output=True)
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": list(scrape)}))
    address = f"{HOST}:{free_port(HOST, 0)}"
    command = [binary("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address={address}"]
    if web is not None:
        (folder / "web.yaml").write_text(yaml.safe_dump(web))
        command.append(f"--web.config.file={folder / 'web.yaml'}")
    url = f"{'http' if web is None else 'https'}://{address}"
    with started([*command, "--storage.tsdb.retention.time=10y"], folder, lambda: _is_ready(f"{url}/-/ready")):
        yield url


def _is_ready(url: str) -> bool:
    try:
        # Whoever wants a password is there as well.
        return httpx.get(url, timeout=2, verify=False).status_code in (200, 401)
    except httpx.TransportError:
        return False
