"""The study's data: workloads, the orders of each condition, and what the cluster did with them.

Anfa Majid, "Forecast-Error Semantics in Predictive Kubernetes Autoscaling: Reproducibility Artifact" (2026), CC BY 4.0.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError

Array = NDArray[np.float64]
ATTRIBUTION = (
    "Data: Anfa Majid, Forecast-Error Semantics in Predictive Kubernetes Autoscaling: Reproducibility Artifact (2026),"
    " https://github.com/anfa-majid/forecast-error-semantics-kubernetes-autoscaling, CC BY 4.0"
    " (https://creativecommons.org/licenses/by/4.0/). Changes: columns selected and renamed, values rounded, replica-seconds"
    " derived."
)
# The study's rule: requests/s that 1 to 4 pods are trusted with, how far it looks ahead, and how long it holds a peak.
_TRUSTED_RPS, _AHEAD_SECONDS, _HELD_SECONDS = (30.0, 40.0, 55.0, 65.0), 6, 30
LATENCY_SLO_SECONDS = 0.3


@dataclass(frozen=True)
class Condition:
    """One workload under one kind of forecast error.

    Attributes:
        workload, name: as the study names them.
        reactive: whether the reactive safety net was on.
        label: for tables.
        forecast: from the (num_seconds,) true rates to those forecast; None where the orders are only in a timeline.
        run_id: of a complete timeline, if there is one.
    """

    workload: str
    name: str
    label: str
    forecast: Callable[[Array], Array] | None = None
    reactive: bool = False
    run_id: str = ""


def _same(rates: Array) -> Array:
    return rates


def _plus(change: float, begin: int = 0, end: int | None = None) -> Callable[[Array], Array]:
    def forecast(rates: Array) -> Array:
        out = rates.copy()
        out[begin:end] += change
        return out

    return forecast


def _at(level: float, begin: int, end: int) -> Callable[[Array], Array]:
    def forecast(rates: Array) -> Array:
        out = rates.copy()
        out[begin:end] = level
        return out

    return forecast


def _later(seconds: int) -> Callable[[Array], Array]:
    def forecast(rates: Array) -> Array:
        at = np.clip(np.arange(len(rates)) - seconds, 0, len(rates) - 1)
        return rates[at]

    return forecast


_SPIKE, _SUSTAINED, _RAMP, _TRIANGLE = "narrow-spike-v1", "sustained-peak-v1", "gradual-ramp-v1", "periodic-triangle-v1"
# The orders that follow from these forecasts are held against the replica-seconds of every run.
CONDITIONS = (
    Condition(_SPIKE, "oracle", "spike: oracle", _same, run_id="final-oracle-spike-r01-s0"),
    Condition(_SPIKE, "false_peak", "spike: false peak", _at(60.0, 100, 130)),
    Condition(_SPIKE, "early_event", "spike: 10 s early", _later(-10)),
    Condition(_SPIKE, "late_event", "spike: 10 s late", _later(10), run_id="final-p07-b-r01-s0"),
    Condition(_SPIKE, "missed_peak", "spike: missed", _at(25.0, 60, 90), run_id="final-p03-b-r01-s0"),
    Condition(_SPIKE, "missed_peak", "spike: missed, reactive", None, True, "final-p03-b-r05-s1"),
    Condition(_SUSTAINED, "oracle", "sustained: oracle", _same),
    Condition(_SUSTAINED, "persistent_positive_bias", "sustained: +5 requests/s", _plus(5.0)),
    Condition(_SUSTAINED, "persistent_negative_bias", "sustained: −5 requests/s", _plus(-5.0)),
    Condition(_SUSTAINED, "extended_peak", "sustained: 30 s longer", _at(60.0, 240, 270)),
    Condition(_SUSTAINED, "shortened_peak", "sustained: 30 s shorter", _at(25.0, 210, 240)),
    Condition(_RAMP, "oracle", "ramp: oracle", _same),
    Condition(_RAMP, "stable_period_error", "ramp: +8 while stable", _plus(8.0, 420, 480)),
    Condition(_RAMP, "transition_period_error", "ramp: +8 in transition", _plus(8.0, 60, 120)),
    Condition(_TRIANGLE, "oracle", "triangle: oracle", _same),
    Condition(_TRIANGLE, "early_event", "triangle: early", _later(-15)),
    Condition(_TRIANGLE, "late_event", "triangle: late", _later(15)),
    # Wrong between the steps of the rule: they order what the perfect forecast does.
    Condition(_TRIANGLE, "sharpened", "triangle: sharpened", _same),
    Condition(_TRIANGLE, "smoothed", "triangle: smoothed", _same),
)


def orders_of(forecast_rps: Array) -> Array:
    """(num_seconds,) pods that the study's rule orders: up at once, down to the most of its last 30 decisions, one a second."""
    decided = 1.0 + np.searchsorted(_TRUSTED_RPS, forecast_rps - 1e-9).clip(0, 3)
    decided = decided[np.minimum(np.arange(len(decided)) + _AHEAD_SECONDS, len(decided) - 1)]
    orders, now = np.empty_like(decided), 1.0
    for second, wanted in enumerate(decided):
        most = decided[max(0, second + 1 - _HELD_SECONDS) : second + 1].max()
        now = wanted if wanted > now else max(most, now - 1.0) if most < now else now
        orders[second] = now
    return orders


@dataclass(frozen=True)
class Recorded:
    """What the cluster did with one condition: over the runs, one entry each.

    Attributes:
        replica_seconds, late_seconds, p99_ms, failed: ordered, seconds whose 99 % latency was above 300 ms, of all requests
            of a run, and requests that failed.
    """

    replica_seconds: Array
    late_seconds: Array
    p99_ms: Array
    failed: Array


@dataclass(frozen=True)
class Timeline:
    """A run second by second, each (num_seconds,)."""

    p99_ms: Array
    failed: Array
    ordered: Array
    ready: Array
    late: Array


@dataclass(frozen=True)
class Study:
    """Everything that is replayed.

    Attributes:
        rates_rps: workload → (num_seconds,).
        recorded: for each of `CONDITIONS`, in order.
        timelines: run → what it did, of complete runs.
    """

    rates_rps: dict[str, Array]
    recorded: tuple[Recorded, ...]
    timelines: dict[str, Timeline]

    def orders(self, condition: Condition) -> Array:
        """(num_seconds,) pods ordered: by the study's rule, or as recorded where it does not tell them."""
        if condition.forecast is None:
            return self.timelines[condition.run_id].ordered
        return orders_of(condition.forecast(self.rates_rps[condition.workload]))


def read_study(folder: Path) -> Study:
    """Read `folder`/data.

    Raises:
        InputError: a file is missing or not what the study's is, or its orders are not those that are replayed.
    """
    try:
        return _read(folder)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{folder / 'data'}: {what}; allowed: the study's files, as its README describes them") from None


def _read(folder: Path) -> Study:
    workloads = _columns(folder, "workloads.csv", "workload", ("requests_per_second",))
    rates = {name: columns["requests_per_second"] for name, columns in workloads.items()}
    runs = _rows(folder, "runs.csv")
    figures = ("requested_replica_s", "latency_violation_s", "request_p99_ms", "failed_requests")
    recorded = []
    for c in CONDITIONS:
        own = [
            r for r in runs if (r["workload"], r["condition"], r["reactive_safety"]) == (c.workload, c.name, str(int(c.reactive)))
        ]
        if not own:
            raise InputError(f"{folder / 'data' / 'runs.csv'}: has no run of {c.workload}, {c.name}; allowed: the study's runs")
        recorded.append(Recorded(*(np.array([float(r[name]) for r in own]) for name in figures)))
    names = ("latency_p99_ms", "failed", "desired_replicas", "ready_replicas", "latency_violation")
    wanted = {c.run_id for c in CONDITIONS if c.run_id}
    timelines = {
        run: Timeline(*(columns[name] for name in names))
        for run, columns in _columns(folder, "timelines.csv", "run_id", names).items()
        if run in wanted
    }
    study = Study(rates, tuple(recorded), timelines)
    for c, found in zip(CONDITIONS, recorded, strict=True):
        ordered = study.orders(c)
        if not (found.replica_seconds == ordered.sum()).all():
            raise InputError(
                f"{folder}: {c.label} ordered {found.replica_seconds[0]:g} replica-seconds, the replay {ordered.sum():g}"
            )
        if c.run_id and not np.array_equal(ordered, study.timelines[c.run_id].ordered):
            raise InputError(f"{folder}: the orders of {c.run_id} are not those of its condition")
    return study


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    path = folder / "data" / name
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; allowed: the study's folder, with its data/{name}") from None


def _columns(folder: Path, name: str, by: str, columns: tuple[str, ...]) -> dict[str, dict[str, Array]]:
    found: dict[str, dict[str, list[float]]] = {}
    for row in _rows(folder, name):
        for column in columns:
            found.setdefault(row[by], {c: [] for c in columns})[column].append(float(row[column]))
    return {key: {c: np.array(values) for c, values in group.items()} for key, group in found.items()}
