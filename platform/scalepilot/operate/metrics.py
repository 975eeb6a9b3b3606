"""What Prometheus is told of a running controller."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from scalepilot.operate.ledger import Entry
from scalepilot.operate.tick import MODES, Record

_NAME = "scalepilot_operate"


class Metrics:
    """Counters and gauges, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{_NAME}_{name}", text, labels, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{_NAME}_{name}", text, labels, registry=self.registry)

        self._replicas = {
            "spec": gauge("spec_replicas", "Replicas asked for at the target."),
            "ready": gauge("ready_replicas", "Replicas that serve."),
            "wanted": gauge("wanted_replicas", "Replicas the policy wants, before the limits."),
            "target": gauge("target_replicas", "Replicas asked for after the limits."),
        }
        self._shadow = gauge("shadow_replicas", "Replicas a shadow policy wants.", "policy")
        self._mode = gauge("mode", "1 for the mode the controller is in.", "mode")
        self._leader = gauge("leader", "1 where this process may write.")
        self._age = gauge("field_age_seconds", "Age of a field's newest sample.", "field")
        self._known = gauge("field_known", "1 where a field is known.", "field")
        self._seconds = gauge("phase_seconds", "Duration of a phase of the newest decision.", "phase")
        self._newest = gauge("last_decision_timestamp_seconds", "Unix time of the newest decision.")
        self._ticks = counter("decisions", "Decisions.", "mode")
        self._writes = counter("writes", "Writes to the target.", "outcome")
        self._moves = counter("moves", "Replicas asked for, by direction.", "direction")
        self._guard = counter("limited", "Decisions that a limit changed.", "rule")
        self.feed_answers = counter("feed_answers", "Answers to an autoscaler that reads the target here.", "answer")
        self.missed = counter("missed_decisions", "Grid moments that passed without a decision.")
        self.lost_records = counter("lost_records", "Decisions that could not be written down.")

    def tell(self, entry: Entry) -> None:
        """Take a decision in."""
        record = entry.record
        replicas = record.snapshot.replicas
        values = {"spec": replicas.spec, "ready": replicas.ready, "wanted": record.wanted, "target": record.target}
        for name, value in values.items():
            # What is unknown is NaN, not what it was.
            self._replicas[name].set(float("nan") if value is None else value)
        for name, value in record.shadows.items():
            self._shadow.labels(name).set(float("nan") if value is None else value)
        for mode in MODES:
            self._mode.labels(mode).set(mode == record.mode)
        self._leader.set(replicas.leading)
        for name, reading in record.snapshot.readings.items():
            self._known.labels(name).set(reading.value is not None)
            if reading.age_seconds is not None:
                self._age.labels(name).set(reading.age_seconds)
        for phase, milliseconds in record.milliseconds.items():
            self._seconds.labels(phase).set(milliseconds / 1000.0)
        self._newest.set(record.snapshot.time)
        self._ticks.labels(record.mode).inc()
        for rule in {step.rule for step in record.steps}:
            self._guard.labels(rule).inc()
        if record.outcome not in ("", "same", "dry run", "feed"):
            self._writes.labels(record.outcome).inc()
        if record.outcome == "written":
            self._moves.labels(_direction(record)).inc()

    def text(self) -> bytes:
        """In the exposition format."""
        return generate_latest(self.registry)


def _direction(record: Record) -> str:
    spec, target = record.snapshot.replicas.spec, record.target
    assert spec is not None
    assert target is not None
    return "up" if target > spec else "down"
