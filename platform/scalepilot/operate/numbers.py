"""A decision as numbers by name, as trackers and TensorBoard take them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scalepilot.operate.ledger import Entry
from scalepilot.operate.snapshot import Reading
from scalepilot.operate.tick import Record

# What the fields of different environments have in common, and what brings it to the unit of its name.
_SAME: Mapping[str, tuple[tuple[str, float], ...]] = {
    "metrics/latency_ms": (("latency_p95_seconds", 1000.0), ("latency_seconds", 1000.0), ("sojourn_mean_seconds", 1000.0)),
    "metrics/cpu_usage_percent": (("cpu_utilisation", 100.0), ("cpu_share", 100.0), ("load_share", 100.0)),
    "metrics/queue_length": (("backlog_requests", 1.0), ("worker_queue", 1.0), ("queue_requests", 1.0)),
}


# Outcomes of a write after which the replicas are not what was asked for, as far as is known.
_FAILED = ("refused", "forbidden", "throttled", "unknown")


def numbers_of(entry: Entry) -> dict[str, float]:
    """What was known and decided; what is unknown is left out, never 0.

    Returns:
        `metrics/…` (latency_ms, cpu_usage_percent, throughput_req_per_sec, queue_length, pod_count, ready_pods), `decision/…`
        (wanted, target, action, q_value_mean and q_value_max or probability, limited, failed_write), and every field as
        `field/NAME`.
    """
    record = entry.record
    snapshot = record.snapshot
    fields = {name: value for name, reading in snapshot.readings.items() if (value := _value(reading)) is not None}
    found = {
        name: fields[field] * factor for name, sources in _SAME.items() for field, factor in sources[::-1] if field in fields
    }
    requests = _value(snapshot.extra.get("requests"))
    if requests is not None:
        failed = fields.get("error_share", 0.0)
        found["metrics/throughput_req_per_sec"] = requests * (1.0 - failed) / entry.interval_seconds
    numbers = {
        "metrics/pod_count": snapshot.replicas.spec,
        "metrics/ready_pods": snapshot.replicas.ready,
        "decision/wanted": record.wanted,
        "decision/target": record.target,
        "decision/action": record.action,
        "decision/probability": record.probability,
        "decision/limited": bool(record.steps),
        "decision/failed_write": not_done(record),
    }
    found |= {name: float(number) for name, number in numbers.items() if number is not None}
    if record.scores is not None and record.probability is None:
        found |= {"decision/q_value_mean": float(np.mean(record.scores)), "decision/q_value_max": float(np.max(record.scores))}
    return {**found, **{f"field/{name}": value for name, value in fields.items()}}


def not_done(record: Record) -> bool:
    """Whether what was decided did not come about: a write failed or was refused, or nothing could be asked for."""
    return record.wanted is None or record.target is None or record.outcome in _FAILED


def _value(reading: Reading | None) -> float | None:
    return None if reading is None or reading.value is None or not np.isfinite(reading.value) else float(reading.value)
