"""What the server counts, for Prometheus: plain dictionaries on the way of a request, families only when somebody scrapes.

A replica writes what it counted into a folder it shares with the others of its machine, so that whoever is scraped answers for
all of them; what a replica that ended had counted stays counted.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from scalepilot import __version__
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.decide.answers import Clipped
from scalepilot.serve.decide.decisions import Outcome
from scalepilot.serve.http import endpoints
from scalepilot.serve.ingress.proxy_counts import proxy_families, proxy_socket
from scalepilot.serve.ingress.replica_counts import Counts, Labels, ReplicaFiles, Total

_PREFIX = "scalepilot_serve_"
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_OBSERVATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_REPLICAS = (0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000, 5000)
# Counters: name → (labels, help).
_COUNTERS = {
    "requests": (("endpoint", "policy", "version", "status"), "Requests answered, by HTTP status."),
    "decisions": (("policy", "version", "move"), "Decisions, by move; for rules up, hold or down."),
    "fallbacks": (("policy", "version"), "Decisions made by the fallback because the policy returned no finite number."),
    "clipped_fields": (("policy", "field"), "Out-of-range observation fields clipped at the client's request."),
    "shadow_decisions": (
        ("policy", "shadow", "agreement"),
        "Decisions repeated by a shadow policy: same, different, failed or skipped.",
    ),
    "shadow_difference_replicas": (("policy", "shadow"), "Sum of the differences between a policy's replicas and its shadow's."),
    "policy_loads": (("result",), "Policies loaded from the watched folder or refused; every replica counts its own."),
}
# Histograms: name → (labels, help, bounds).
_HISTOGRAMS = {
    "request_duration_seconds": (("endpoint",), "Time from a request's first byte in the replica to its response.", _SECONDS),
    "batch_observations": (("endpoint",), "Observations in a request.", _OBSERVATIONS),
    "desired_replicas": (("policy", "version"), "Replicas requested, one value per decision.", _REPLICAS),
}
# Gauges of every replica: name → help.
_GAUGES = {
    "ready": "1 while a replica is ready.",
    "in_flight_requests": "Requests in progress in a replica, including this one.",
}


class Metrics:
    """Counters and histograms of one replica. Each is counted by one thread; any may save.

    Args:
        folder: shared with the other replicas of this machine; None where there are none.
        proxy: socket of the HAProxy in front, which is asked when somebody scrapes; None for the one Serve names, if any.
    """

    def __init__(self, folder: Path | None = None, *, proxy: Path | None = None) -> None:
        self._proxy = proxy
        self._counters: dict[str, dict[Labels, float]] = {name: {} for name in _COUNTERS}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {name: {} for name in _HISTOGRAMS}
        self._files = None if folder is None else ReplicaFiles(folder)
        self._process, self._platform = ProcessCollector(registry=None), PlatformCollector(registry=None)
        self._replica = str(os.getpid())
        self._state: Callable[[], tuple[bool, int]] | None = None

    def follow(self, state: Callable[[], tuple[bool, int]]) -> None:
        """Let `save` tell the other replicas, too, whether this one is ready and how many requests it has begun.

        Args:
            state: gives both.
        """
        self._state = state

    def count(self, name: str, labels: Labels, amount: float = 1) -> None:
        """Add to a counter."""
        counts = self._counters[name]
        counts[labels] = counts.get(labels, 0) + amount

    def observe(self, name: str, endpoint: str, value: float) -> None:
        """Add a value to a histogram by endpoint."""
        self._histogram(name, (endpoint,)).add(value)

    def decided(
        self, served: ServedPolicy, outcome: Outcome, observations: int, endpoint: str, clipped: Sequence[Clipped] | None
    ) -> None:
        """Count what a request decided."""
        spec = served.spec
        self.observe("batch_observations", endpoint, observations)
        for move, times in _moves(served, outcome):
            self.count("decisions", (spec.name, spec.version, move), times)
        if outcome.desired_replicas is not None:
            self._histogram("desired_replicas", (spec.name, spec.version)).add_all(outcome.desired_replicas)
        if outcome.fell_back is not None:
            self.count("fallbacks", (spec.name, spec.version), int(outcome.fell_back.sum()))
        for entries in clipped or ():
            for entry in entries:
                self.count("clipped_fields", (spec.name, entry["field"]))

    def decided_one(self, served: ServedPolicy, move: str, endpoint: str, desired_replicas: int | None = None) -> None:
        """Count one decision of one observation."""
        spec = served.spec
        self.observe("batch_observations", endpoint, 1)
        self.count("decisions", (spec.name, spec.version, move))
        if desired_replicas is not None:
            self._histogram("desired_replicas", (spec.name, spec.version)).add(desired_replicas)

    def save(self) -> None:
        """Write the counts where the other replicas read them; once a second is enough.

        Raises:
            OSError: they cannot be written.
        """
        if self._files is None:
            return
        state = {} if self._state is None else _state_gauges(*self._state())
        self._files.write(lambda: self._own(state))

    def text(self, catalogue: Catalogue, *, ready: bool, in_flight: int) -> bytes:
        """The answer of /metrics."""
        # What is told here once must be in the file before another replica is asked: counters never fall. A full disk is no
        # reason to tell nothing.
        with contextlib.suppress(OSError):
            self.save()
        others = [] if self._files is None else list(self._files.others())
        parts = [*others, (self._own(_state_gauges(ready, in_flight)), True)]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(list(self._families(parts, catalogue))))
        return bytes(generate_latest(registry))

    def _families(self, parts: Sequence[tuple[Counts, bool]], catalogue: Catalogue) -> Iterator[Metric]:
        counted = Total([_zeros(catalogue), *(part for part, _ in parts)])
        for name, (labels, help_text) in _COUNTERS.items():
            counter = CounterMetricFamily(_PREFIX + name, help_text, labels=labels)
            for values, total in counted.counters.get(name, {}).items():
                counter.add_metric(values, total)
            yield counter
        for name, (labels, help_text, bounds) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(_PREFIX + name, help_text, labels=labels)
            for values, (counts, total) in counted.histograms.get(name, {}).items():
                edges = [str(float(bound)) for bound in bounds] + ["+Inf"]
                family.add_metric(values, list(zip(edges, accumulate(counts), strict=True)), total)
            yield family
        yield _policy_info(catalogue)
        info = GaugeMetricFamily(f"{_PREFIX}build_info", "Always 1: Scalepilot's own version.", labels=("version",))
        info.add_metric([__version__], 1)
        yield info
        # By replica: of two with the same process id, one has just ended.
        yield from self._of_each_replica(list({part.replica: part for part, present in parts if present}.values()))
        yield from self._platform.collect()
        # It comes and goes with the server, and may be there later than this replica.
        proxy = self._proxy or proxy_socket()
        if proxy is not None:
            yield from proxy_families(proxy, _PREFIX)

    def _of_each_replica(self, parts: Sequence[Counts]) -> Iterator[Metric]:
        """What cannot be added: a value of each replica that is there."""
        for name, help_text in _GAUGES.items():
            gauge = GaugeMetricFamily(_PREFIX + name, help_text, labels=("replica",))
            for part in parts:
                if name in part.gauges:
                    gauge.add_metric([part.replica], part.gauges[name])
            yield gauge
        for family in self._process.collect():
            kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
            labelled = kind(family.name, family.documentation, labels=("replica",))
            for part in parts:
                if family.name in part.gauges:
                    labelled.add_metric([part.replica], part.gauges[family.name])
            yield labelled

    def _histogram(self, name: str, labels: Labels) -> _Histogram:
        histogram = self._histograms[name].get(labels)
        if histogram is None:
            histogram = self._histograms[name][labels] = _Histogram(_HISTOGRAMS[name][2])
        return histogram

    def _own(self, state: dict[str, float]) -> Counts:
        """This replica's counts at the moment; copies first, as requests may count on meanwhile."""
        counters = {name: list(counts.copy().items()) for name, counts in self._counters.items()}
        histograms = {
            name: [(labels, h.counts.copy(), h.total) for labels, h in found.copy().items()]
            for name, found in self._histograms.items()
        }
        process = {family.name: float(sample.value) for family in self._process.collect() for sample in family.samples}
        return Counts(counters, histograms, state | process, self._replica)


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: NDArray[Any]) -> None:
        """Add (n,) values."""
        if len(values) == 1:
            self.add(values[0].item())
            return
        times = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts)).tolist()
        self.counts = [a + b for a, b in zip(self.counts, times, strict=True)]
        self.total += float(values.sum())


class _Once(Collector):
    """Gives families that are already made."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _state_gauges(ready: bool, in_flight: int) -> dict[str, float]:
    return {"ready": float(ready), "in_flight_requests": float(in_flight)}


def _policy_info(catalogue: Catalogue) -> Metric:
    info = GaugeMetricFamily(
        f"{_PREFIX}policy_info", "Always 1: what is served.", labels=("policy", "version", "kind", "env", "default")
    )
    defaults = {served.reference for served in catalogue.defaults()}
    for served in catalogue:
        spec = served.spec
        default = "true" if served.reference in defaults else "false"
        info.add_metric([spec.name, spec.version, spec.kind, spec.env_id, default], 1)
    return info


def _zeros(catalogue: Catalogue) -> Counts:
    """What alerts look for, at 0: a counter that first appears at 1 has not increased, as Prometheus sees it."""
    policies: list[Labels] = [(served.spec.name, served.spec.version) for served in catalogue]
    labels = list(dict.fromkeys(e.label for e in endpoints.ENDPOINTS if e.method == "POST" and "{name}" in e.path))
    posts: list[Labels] = [(label, *policy) for label in labels for policy in policies]
    pairs = _shadowed(catalogue)
    zeros: dict[str, list[Labels]] = {
        "requests": [(*post, status) for post in posts for status in ("200", "500")]
        + [("other", "", "", status) for status in ("401", "500", "503")],
        "fallbacks": policies,
        "shadow_decisions": [(*pair, word) for pair in pairs for word in ("same", "different")],
        "shadow_difference_replicas": pairs,
        "policy_loads": [("loaded",), ("refused",)],
    }
    none = [0] * (len(_SECONDS) + 1)
    durations: list[tuple[Labels, list[int], float]] = [((label,), none, 0.0) for label in labels]
    counters = {name: [(values, 0.0) for values in found] for name, found in zeros.items()}
    return Counts(counters, {"request_duration_seconds": durations})


def _shadowed(catalogue: Catalogue) -> list[Labels]:
    """(policy, shadow), each as name@version, that requests by name alone may lead to."""
    pairs: list[Labels] = []
    for name, route in catalogue.routes.items():
        if route.shadow is not None:
            shadow = catalogue.find(route.shadow).reference
            answering = [catalogue.get(name)] + ([catalogue.find(route.canary.policy)] if route.canary else [])
            pairs += [(served.reference, shadow) for served in answering]
    return pairs


def _moves(served: ServedPolicy, outcome: Outcome) -> list[tuple[str, int]]:
    """Move → how often, bounded in number whatever a rule commands."""
    action, labels = outcome.action, served.move_labels
    if action is not None and action.ndim == 1 and labels:
        if len(action) == 1:
            return [(labels[action[0]] if action[0] >= 0 else "fallback", 1)]
        times = np.bincount(action + 1, minlength=len(labels) + 1).tolist()
        return [(label, n) for label, n in zip(("fallback", *labels), times, strict=True) if n]
    if outcome.desired_replicas is None or outcome.total_replicas is None:
        return [("continuous", len(action))] if action is not None else []
    change = np.sign(outcome.desired_replicas - outcome.total_replicas)
    return [(word, n) for word, sign in (("down", -1), ("hold", 0), ("up", 1)) if (n := int((change == sign).sum()))]
