"""What the server counts, for Prometheus: plain dictionaries on the way of a request, families only when somebody scrapes.

A replica writes what it counted into a folder it shares with the others of its machine, so that whoever is scraped answers for
all of them; what a replica that ended had counted stays counted.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from scalepilot.serve.answers import Clipped
from scalepilot.serve.decisions import Outcome
from scalepilot.serve.store import Catalogue, ServedPolicy

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "scalepilot_serve_"
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_OBSERVATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
# Counters: name → (labels, help).
_COUNTERS = {
    "requests": (("endpoint", "policy", "version", "status"), "Requests answered, by HTTP status."),
    "decisions": (("policy", "version", "move"), "Decisions, by move; a rule's are up, hold or down."),
    "fallbacks": (("policy", "version"), "Decisions left to the fallback: the policy gave no finite number."),
    "clipped_fields": (("policy", "field"), "Observation fields out of their range, brought into it at the client's wish."),
    "shadow_decisions": (("policy", "shadow", "agreement"), "Decisions that a shadow made again: same or different."),
    "shadow_difference_replicas": (("policy", "shadow"), "Sum of the distance between a policy's replicas and its shadow's."),
    "policy_loads": (("result",), "Policies loaded from the watched folder, or refused."),
}
# Histograms: name → (labels, help, bounds).
_HISTOGRAMS = {
    "request_duration_seconds": (("endpoint",), "Time from a request's first byte in the replica to its answer.", _SECONDS),
    "batch_observations": (("endpoint",), "Observations in a request.", _OBSERVATIONS),
}
_STALE_LIMIT = 1000


class _Counts(msgspec.Struct):
    """Everything a replica counted: plain data, so that it can be written and added."""

    counters: dict[str, list[tuple[list[str], float]]] = {}
    histograms: dict[str, list[tuple[list[str], list[int], float]]] = {}


class Metrics:
    """Counters and histograms of one replica; used from one thread.

    Args:
        folder: shared with the other replicas of this machine; None where there are none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._counters: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _COUNTERS}
        self._histograms: dict[str, dict[str, _Histogram]] = {name: {} for name in _HISTOGRAMS}
        self._folder = folder
        self._file = None if folder is None else folder / f"replica-{os.getpid()}.json"
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def count(self, name: str, labels: tuple[str, ...], amount: float = 1) -> None:
        """Add to a counter."""
        counts = self._counters[name]
        counts[labels] = counts.get(labels, 0) + amount

    def observe(self, name: str, endpoint: str, value: float) -> None:
        """Add a value to a histogram."""
        histogram = self._histograms[name].get(endpoint)
        if histogram is None:
            histogram = self._histograms[name][endpoint] = _Histogram(_HISTOGRAMS[name][2])
        histogram.counts[bisect_left(histogram.bounds, value)] += 1
        histogram.total += value

    def decided(
        self, served: ServedPolicy, outcome: Outcome, observations: int, endpoint: str, clipped: Sequence[Clipped] | None
    ) -> None:
        """Count what a request decided."""
        spec = served.spec
        self.observe("batch_observations", endpoint, observations)
        for move, times in _moves(served, outcome):
            self.count("decisions", (spec.name, spec.version, move), times)
        if outcome.fell_back is not None:
            self.count("fallbacks", (spec.name, spec.version), int(outcome.fell_back.sum()))
        for entries in clipped or ():
            for entry in entries:
                self.count("clipped_fields", (spec.name, entry["field"]))

    def decided_one(self, served: ServedPolicy, move: str, endpoint: str) -> None:
        """Count one decision of one observation."""
        spec = served.spec
        self.observe("batch_observations", endpoint, 1)
        self.count("decisions", (spec.name, spec.version, move))

    def save(self) -> None:
        """Write the counts where the other replicas read them; once a second is enough."""
        if self._file is None:
            return
        aside = self._file.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(self._own()))
        aside.replace(self._file)

    def text(self, catalogue: Catalogue, *, ready: bool, in_flight: int) -> bytes:
        """The answer of /metrics."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(list(self._families(catalogue, ready=ready, in_flight=in_flight))))
        return bytes(generate_latest(registry) + generate_latest(self._process))

    def _families(self, catalogue: Catalogue, *, ready: bool, in_flight: int) -> Iterator[Metric]:
        counters, histograms = _sum([self._own(), *self._others()])
        for name, (labels, help_text) in _COUNTERS.items():
            counter = CounterMetricFamily(_PREFIX + name, help_text, labels=labels)
            for values, total in counters.get(name, {}).items():
                counter.add_metric(values, total)
            yield counter
        for name, (labels, help_text, bounds) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(_PREFIX + name, help_text, labels=labels)
            for values, (counts, total) in histograms.get(name, {}).items():
                reached = np.cumsum(counts).tolist()
                edges = [str(float(bound)) for bound in bounds] + ["+Inf"]
                family.add_metric(values, list(zip(edges, reached, strict=True)), total)
            yield family
        yield from self._gauges(catalogue, ready=ready, in_flight=in_flight)

    @staticmethod
    def _gauges(catalogue: Catalogue, *, ready: bool, in_flight: int) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            f"{_PREFIX}policy_info", "Always 1: what is served.", labels=("policy", "version", "kind", "env", "default")
        )
        defaults = {served.reference for served in catalogue.defaults()}
        for served in catalogue:
            spec = served.spec
            default = "true" if served.reference in defaults else "false"
            info.add_metric([spec.name, spec.version, spec.kind, spec.env_id, default], 1)
        yield info
        yield GaugeMetricFamily(f"{_PREFIX}ready", "1 while this replica is ready.", value=float(ready))
        yield GaugeMetricFamily(f"{_PREFIX}in_flight_requests", "Requests this replica has begun.", value=in_flight)

    def _own(self) -> _Counts:
        counters = {name: [(list(labels), total) for labels, total in counts.items()] for name, counts in self._counters.items()}
        histograms = {
            name: [([endpoint], list(h.counts), h.total) for endpoint, h in found.items()]
            for name, found in self._histograms.items()
        }
        return _Counts(counters, histograms)

    def _others(self) -> Iterator[_Counts]:
        if self._folder is None:
            return
        for file in sorted(self._folder.glob("replica-*.json"))[:_STALE_LIMIT]:
            if file != self._file:
                # A replica may just be replacing its file.
                with contextlib.suppress(OSError, msgspec.MsgspecError):
                    yield msgspec.json.decode(file.read_bytes(), type=_Counts)


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class _Once(Collector):
    """Gives families that are already made."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


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


def _sum(parts: Sequence[_Counts]) -> tuple[dict[str, Any], dict[str, Any]]:
    counters: dict[str, dict[tuple[str, ...], float]] = {}
    histograms: dict[str, dict[tuple[str, ...], tuple[list[int], float]]] = {}
    for part in parts:
        for name, totals in part.counters.items():
            into = counters.setdefault(name, {})
            for values, total in totals:
                into[tuple(values)] = into.get(tuple(values), 0) + total
        for name, found in part.histograms.items():
            merged = histograms.setdefault(name, {})
            for values, counts, total in found:
                before: Mapping[tuple[str, ...], tuple[list[int], float]] = merged
                old_counts, old_total = before.get(tuple(values), ([0] * len(counts), 0.0))
                merged[tuple(values)] = ([a + b for a, b in zip(counts, old_counts, strict=True)], total + old_total)
    return counters, histograms
