"""A policy inside Ray Serve's controller, with a context as Serve gives it: what is counted, known and returned."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scalepilot.operate.ray_serve import Counted, ScalepilotPolicy
from scalepilot.operate.ray_serve.context import ContextTarget, ContextTelemetry
from scalepilot.operate.ray_serve.counting import BUCKET, BUSY, ERRORS, REQUESTS
from scalepilot.operate.snapshot import Reading
from scalepilot.operate.telemetry import TelemetryContext
from scalepilot.policy import autoscale_fields
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe

PARAMS = AutoscaleParams(interval_seconds=10.0, startup_seconds=40.0, service_time_seconds=0.1, wait_slo_seconds=0.9)
START = 1_000_000.0
SETTINGS = ("look_back_period_s", "upscale_delay_s", "downscale_delay_s")


@dataclass
class Context:
    """What is read of Serve's."""

    current_num_replicas: int = 1
    target_num_replicas: int = 1
    total_queued_requests: float | None = 0.0
    raw_metrics: dict[str, dict[str, list[Any]]] | None = None
    config: Any = field(
        default_factory=lambda: SimpleNamespace(look_back_period_s=0.0, upscale_delay_s=0.0, downscale_delay_s=0.0)
    )


def samples(now: float, **rates: dict[str, float]) -> dict[str, dict[str, list[Any]]]:
    """Counters that have risen steadily since START, as a replica pushes the last 30 s of them every 2 s."""
    times = [moment for moment in np.arange(START, now + 1e-6, 2.0) if moment > now - 30]
    return {
        name_of(key): {
            replica: [SimpleNamespace(timestamp=t, value=rate * (t - START)) for t in times] for replica, rate in found.items()
        }
        for key, found in rates.items()
    }


def name_of(key: str) -> str:
    """As replicas push it: "le0p5" is the bucket up to 0.5 s."""
    return BUCKET + key[2:].replace("p", ".") if key.startswith("le") else f"scalepilot_{key}"


def read(*, seconds: float = 200.0, replicas: int = 2, queued: float = 0.0, **rates: dict[str, float]) -> dict[str, Reading]:
    """The fields after some time of steady rates, looked at every interval."""
    telemetry = ContextTelemetry(TelemetryContext(describe(PARAMS), autoscale_fields(PARAMS)))
    target = ContextTarget()
    for now in np.arange(START + 10, START + seconds + 1e-6, 10.0):
        context = Context(replicas, replicas, queued, samples(float(now), **rates))
        target.see(context, float(now))
        telemetry.see(context, float(now))
        found = telemetry.read(float(now), target.read(float(now)))
    return dict(found.readings)


def values(readings: dict[str, Reading], *names: str) -> list[float | None]:
    return [None if (value := readings[name].value) is None else round(value, 3) for name in names]


STEADY = {
    "requests": {"a": 3.0, "b": 5.0},
    "errors": {"a": 0.0, "b": 0.8},
    "busy_seconds": {"a": 0.3, "b": 0.5},
    "le0p5": {"a": 3.0, "b": 4.0},
    "le1p0": {"a": 3.0, "b": 4.6},
    "leinf": {"a": 3.0, "b": 5.0},
}


def test_fields_are_what_replicas_counted() -> None:
    readings = read(**STEADY)
    assert values(readings, "request_rate_rps_0", "request_rate_rps_7", "request_rate_mean_rps") == [8.0, 8.0, 8.0]
    assert values(readings, "cpu_utilisation", "error_share", "late_share") == [0.4, 0.1, 0.05]
    assert values(readings, "ready_replicas", "backlog_requests") == [2.0, 0.0]
    assert all(reading.source for reading in readings.values())


def test_without_counting_replicas_nothing_is_made_up() -> None:
    readings = read()
    assert values(readings, "request_rate_rps_0", "cpu_utilisation", "late_share", "error_share") == [None] * 4
    assert "no samples" in readings["request_rate_rps_0"].problem
    assert values(readings, "ready_replicas", "backlog_requests") == [2.0, 0.0]


def test_a_replica_that_does_not_tell_makes_the_rate_unknown_and_not_less() -> None:
    readings = read(**{**STEADY, "requests": {"a": 3.0}})
    assert readings["request_rate_rps_0"].value is None
    assert "1 of 2 replicas" in readings["request_rate_rps_0"].problem


def test_replicas_that_push_seldom_and_each_at_its_own_time_are_all_still_there() -> None:
    telemetry = ContextTelemetry(TelemetryContext(describe(PARAMS), autoscale_fields(PARAMS)))
    target = ContextTarget()
    phases = {"a": 0.0, "b": 3.0, "c": 7.5}
    for now in np.arange(START + 10, START + 300, 10.0):
        # As by default: two seconds of samples every ten.
        heaps = {
            name: [SimpleNamespace(timestamp=at, value=2.0 * (at - START)) for at in np.arange(pushed - 1.6, pushed + 0.1, 0.4)]
            for name, phase in phases.items()
            if (pushed := START + phase + 10.0 * ((now - START - phase) // 10.0)) >= START
        }
        context = Context(3, 3, 0.0, {REQUESTS: heaps})
        target.see(context, float(now))
        telemetry.see(context, float(now))
        found = telemetry.read(float(now), target.read(float(now)))
        if now > START + 120:
            rate = found.readings["request_rate_rps_0"]
            assert rate.value == pytest.approx(6.0, abs=0.01), rate.problem


def test_how_long_those_take_that_wait_before_the_replicas_is_not_known() -> None:
    readings = read(queued=12.0, **STEADY)
    assert values(readings, "latency_p95_seconds", "late_share", "backlog_requests") == [None, None, 12.0]
    assert "raise max_ongoing_requests" in readings["late_share"].problem


def test_who_begins_to_wait_has_come_although_no_replica_counted_it() -> None:
    telemetry = ContextTelemetry(TelemetryContext(describe(PARAMS), autoscale_fields(PARAMS)))
    target = ContextTarget()
    for now in np.arange(START + 10, START + 200, 10.0):
        context = Context(2, 2, max(0.0, now - START - 150) * 4.0, samples(float(now), **STEADY))
        target.see(context, float(now))
        telemetry.see(context, float(now))
        found = telemetry.read(float(now), target.read(float(now)))
    assert found.readings["request_rate_rps_0"].value == pytest.approx(12.0)
    assert found.readings["request_rate_rps_7"].value == pytest.approx(8.0)


def test_a_queue_that_empties_at_once_does_not_make_a_busy_service_look_idle() -> None:
    telemetry = ContextTelemetry(TelemetryContext(describe(PARAMS), autoscale_fields(PARAMS)))
    target = ContextTarget()
    for now in np.arange(START + 10, START + 200, 10.0):
        context = Context(2, 2, 500.0 if now < START + 190 else 0.0, samples(float(now), **STEADY))
        target.see(context, float(now))
        telemetry.see(context, float(now))
        found = telemetry.read(float(now), target.read(float(now)))
    assert found.readings["request_rate_rps_0"].value == pytest.approx(4.0)


def test_memory_does_not_grow_with_replicas_that_come_and_go() -> None:
    telemetry = ContextTelemetry(TelemetryContext(describe(PARAMS), autoscale_fields(PARAMS)))
    for at in range(300):
        now = START + 10.0 * at
        telemetry.see(Context(raw_metrics=samples(now, requests={f"r{at // 3}": 1.0}, le1p0={f"r{at // 3}": 1.0})), now)
    assert len(telemetry._series) < 25


def test_starting_replicas_are_as_old_as_their_order() -> None:
    target = ContextTarget()
    target.see(Context(2, 2), START)
    target.see(Context(2, 4), START + 10)
    target.see(Context(2, 5), START + 20)
    assert target.read(START + 25).starting_ages_seconds == (15.0, 15.0, 5.0)
    target.see(Context(3, 5), START + 30)
    assert target.read(START + 30).starting_ages_seconds == (20.0, 10.0)
    target.see(Context(3, 3), START + 40)
    assert target.read(START + 40).starting_ages_seconds == ()


def policy(**changes: Any) -> ScalepilotPolicy:
    service = {"interval_seconds": 10.0, "startup_seconds": 40.0, "service_time_seconds": 0.1}
    return ScalepilotPolicy("tracking:utilisation=0.5", service=service, capacity_rps=2.0, **changes)


def test_a_policy_decides_once_an_interval_and_holds_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    found = policy()
    asked = []
    moment = START

    def clock() -> float:
        return moment

    monkeypatch.setattr("time.time", clock)
    found._controller.clock = clock
    target = 2
    for tick in range(3000):
        moment = START + 200 + 0.1 * tick
        context = Context(2, target, 0.0, samples(moment, **STEADY) if tick % 20 == 0 else None)
        target, _ = found(context)
        asked.append(target)
    changes = [tick for tick in range(1, 3000) if asked[tick] != asked[tick - 1]]
    assert asked[-1] == 8
    assert all(tick % 100 == 0 for tick in changes)


def test_without_a_decision_the_replicas_stay() -> None:
    assert policy()(Context(3, 3))[0] == 3


def test_what_fails_inside_does_not_end_serves_control_loop(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Context):
        @property
        def raw_metrics(self) -> Any:  # type: ignore[override]
            raise RuntimeError("as if")

        @raw_metrics.setter
        def raw_metrics(self, value: Any) -> None:
            pass

    with caplog.at_level(logging.ERROR, "ray.serve"):
        assert policy()(Broken(3, 3))[0] == 3
    assert "no decision; the replicas stay" in caplog.text


def test_delays_of_serve_that_work_against_it_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    config = SimpleNamespace(look_back_period_s=30.0, upscale_delay_s=30.0, downscale_delay_s=600.0)
    found = policy()
    with caplog.at_level(logging.WARNING, "ray.serve"):
        found(Context(config=config))
    assert "upscale_delay_s: 30 delays each decision; allowed: 0" in caplog.text
    assert "look_back_period_s: 30 blurs the queue; allowed: up to 10" in caplog.text


class Web(Counted):
    latency_bounds = (0.05, 10.0)


def test_a_replica_counts_requests_failures_time_and_how_long_they_take() -> None:
    web = Web()
    with web.counted():
        pass
    with pytest.raises(ValueError, match="as asked"), web.counted():
        raise ValueError("as asked")
    with web.counted():
        inside = web.record_autoscaling_stats()
    assert (inside[REQUESTS], inside[ERRORS], inside[f"{BUCKET}inf"]) == (3.0, 1.0, 2.0)
    found = web.record_autoscaling_stats()
    assert found[f"{BUCKET}0.05"] == found[f"{BUCKET}10.0"] == found[f"{BUCKET}inf"] == 3.0
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())


def test_a_replica_is_busy_by_the_share_of_what_it_works_on_at_once() -> None:
    web = Web()
    web.concurrency = 4
    with web.counted(), web.counted():
        began = web.record_autoscaling_stats()[BUSY]
        counts = web._counts()
        counts.since -= 10.0
        assert web.record_autoscaling_stats()[BUSY] - began == pytest.approx(5.0, abs=0.1)
