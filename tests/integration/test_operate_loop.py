"""The whole loop with real parts: Prometheus, the controller and an API server around a simulated service."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from tests.frozen import frozen
from tests.live_loop import Loop, live_loop, run_for, service_of, summary
from tests.real_kubernetes import Kubernetes

from scalepilot.operate.replay import replayed

pytestmark = pytest.mark.slow
INTERVAL, HEALTHY = 1.0, 22
# Longer than a sample may be old.
OUTAGE_SECONDS = 5.0


def _outage(loop: Loop, process: int) -> tuple[list[int], list[str]]:
    """What the replicas were while a process stood still, and the modes until all was well again."""
    before = len(loop.controller.entries)
    with frozen(process):
        end = time.monotonic() + OUTAGE_SECONDS
        run_for(loop, lambda: time.monotonic() > end)
    held = [entry.record.snapshot.replicas.spec for entry in list(loop.controller.entries)[before:]]
    deadline = time.monotonic() + 30
    run_for(loop, lambda: loop.controller.entries[-1].record.mode == "active" or time.monotonic() > deadline)
    return [n for n in held if n is not None], [entry.record.mode for entry in list(loop.controller.entries)[before:]]


def test_a_rule_costs_what_the_simulator_says_and_outages_remove_nothing(kubernetes: Kubernetes, tmp_path: Path):
    service = service_of("tracking:utilisation=0.7", INTERVAL, window_steps=10)
    with live_loop(kubernetes, tmp_path, service, decisions=120) as loop:
        run_for(loop, lambda: len(loop.controller.entries) >= HEALTHY)
        found = summary(loop)
        assert set(found["modes"]) <= {"active", "standby", "starting"}
        assert found["modes"]["active"] >= HEALTHY - 3, found
        assert found["outcomes"]["written"] >= 10
        # Within 10 % over 400 decisions (`python -m tests.live_loop`); a few on a busy machine have some late by an interval.
        assert 0.6 < found["ratio"] < 1.6, found

        prometheus = next(p for p in psutil.Process().children() if p.name() == "prometheus")
        held, modes = _outage(loop, prometheus.pid)
        assert "holding" in modes
        assert modes[-1] == "active", modes
        assert held == sorted(held), "something was removed"

        held, modes = _outage(loop, kubernetes.server)
        assert {"holding", "standby"} & {*modes}
        assert modes[-1] == "active", modes
        assert held == sorted(held)
    pairs = list(replayed(tmp_path / "records-shop", service))
    assert [again.target for _, again in pairs] == [entry.record.target for entry, _ in pairs]
    assert [again.mode for _, again in pairs] == [entry.record.mode for entry, _ in pairs]
