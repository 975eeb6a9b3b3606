"""The shell around a decision: what fails outside ends nothing, writes nothing wrong, and is in the record."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.test_operate_tick import HEALTHY, SERVICE, Wants, deciders

from scalepilot.operate.controller import RESUME_SECONDS, Controller
from scalepilot.operate.ledger import Ledger, read_entries
from scalepilot.operate.page import _in_order
from scalepilot.operate.pausing import paused_by_signal
from scalepilot.operate.replay import replayed
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.operate.status import status_server
from scalepilot.operate.targets import TargetContext, Written, make_target


class Healthy:
    """Telemetry that knows everything, or raises what it is told to."""

    error: Exception | None = None

    def read(self, now: float, replicas: Replicas) -> Snapshot:
        if self.error is not None:
            raise self.error
        return Snapshot(now, {name: Reading(value, "test", 1.0) for name, value in HEALTHY.items()}, replicas)

    def check(self, now: float) -> list[str]:
        return []

    def close(self) -> None:
        pass


class Deployment:
    """A target that keeps what it is told to, answers as it is told to, and notes every write."""

    name = "deployment shop/web"

    def __init__(self, spec: int = 8) -> None:
        self.spec = spec
        self.writes: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.answer: Callable[[int], Written] | Exception | None = None
        self.shown: dict[str, Any] = {}
        self.error: Exception | None = None

    def read(self, now: float) -> Replicas:
        if self.error is not None:
            raise self.error
        return Replicas(self.spec, self.spec, (), **self.shown)

    def write(self, replicas: int, expected: int) -> Written:
        self.writes.append((expected, replicas))
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer(replicas)
        self.spec = replicas
        return Written("written", replicas)

    def tell(self, reason: str, message: str) -> None:
        self.notes.append(reason)

    def check(self, *, dry_run: bool) -> list[str]:
        return []

    def close(self) -> None:
        pass


class Bench:
    """A controller with a clock that is moved by hand."""

    def __init__(self, tmp_path: Path, *wanted: float, dry_run: bool = False, ledger: Any = None) -> None:
        self.now = 1e9
        self.telemetry, self.target = Healthy(), Deployment()
        self.folder = tmp_path / "records"
        self.service = replace(SERVICE, deciders=deciders(Wants(*wanted)))
        self.dry_run = dry_run
        self.controller = self.started(ledger)

    def started(self, ledger: Any = None) -> Controller:
        ledger = ledger or Ledger(self.folder)
        return Controller(self.service, self.telemetry, self.target, ledger, self.dry_run, clock=lambda: self.now)

    def step(self, seconds: float = 15.0) -> Any:
        self.now += seconds
        return self.controller.step().record

    @property
    def recorded(self) -> list[Any]:
        return [entry.record for entry in read_entries(self.folder)]


def test_a_decision_is_written_noted_and_put_down_once(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)
    first, second = bench.step(), bench.step()
    assert (first.outcome, second.outcome) == ("written", "same")
    assert bench.target.writes == [(8, 10)]
    assert bench.target.notes == ["ScaledUp"]
    assert [record.target for record in bench.recorded] == [10, 10]


def test_a_dry_run_never_writes_and_lets_others_scale(tmp_path: Path):
    bench = Bench(tmp_path, 10.0, dry_run=True)
    bench.target.answer = AssertionError("written in a dry run")
    bench.target.shown = {"owners": ("HorizontalPodAutoscaler web",)}
    for spec in (8, 70, 0, 5):
        bench.target.spec = spec
        record = bench.step()
        assert record.outcome == ("" if spec == 0 else "dry run")
        assert record.target is None or 1 <= record.target <= 60
    assert bench.target.notes == []
    assert "AssertionError" not in json.dumps([entry.to_json() for entry in bench.controller.entries])


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (TimeoutError("2 s"), "unknown"),
        (lambda n: Written("refused", 7, "HTTP 422"), "refused"),
        (lambda n: Written("forbidden", None, "HTTP 403: patch deployments/scale"), "forbidden"),
    ],
)
def test_a_write_that_fails_is_in_the_record_and_tried_again_on_what_is_then_there(tmp_path: Path, answer: Any, outcome: str):
    bench = Bench(tmp_path, 10.0)
    bench.target.answer = answer
    assert bench.step().outcome == outcome
    bench.target.answer = None
    record = bench.step()
    assert (record.mode, record.outcome) == ("active", "written")
    assert bench.target.writes == [(8, 10), (8, 10)]


def test_a_write_of_unknown_outcome_that_was_carried_out_is_ours(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)
    bench.target.answer = TimeoutError()
    bench.step()
    bench.target.spec = 10
    assert bench.step().mode == "active"
    bench.target.spec = 4
    assert bench.step().mode == "contested"


def test_who_is_throttled_waits(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)
    bench.target.answer = lambda n: Written("throttled", None, "HTTP 429", 40.0)
    assert [bench.step().outcome for _ in range(4)] == ["throttled"] * 4
    assert len(bench.target.writes) == 2


def test_a_target_that_keeps_less_than_it_took_is_believed(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)

    def clamp(replicas: int) -> Written:
        bench.target.spec = 5
        return Written("written", 5)

    bench.target.answer = clamp
    record = bench.step()
    assert record.detail == "the target keeps 5"
    assert bench.step().mode == "active"


def test_what_fails_outside_ends_nothing(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)
    bench.step()
    bench.telemetry.error = OSError("down")
    assert bench.step().mode == "holding"
    bench.target.error = OSError("gone")
    record = bench.step()
    assert (record.mode, record.target) == ("holding", None)
    bench.telemetry.error = bench.target.error = None
    assert bench.step().mode == "active"
    assert bench.target.notes == ["ScaledUp", "TelemetryLost", "Recovered"]


def test_a_full_disk_does_not_stop_it(tmp_path: Path):
    class Full:
        folder = tmp_path

        def write(self, entry: Any) -> None:
            raise OSError(28, "No space left on device")

        def last(self, not_before: float) -> None:
            return None

    bench = Bench(tmp_path, 10.0, ledger=Full())
    assert bench.step().outcome == "written"
    assert b"lost_records_total 1.0" in bench.controller.metrics.text()


def test_killed_between_write_and_record_it_goes_on_by_itself(tmp_path: Path):
    bench = Bench(tmp_path, 10.0, 12.0)
    bench.step()
    # Written, and killed before the line was.
    bench.target.spec = 12
    bench.controller = bench.started()
    assert bench.controller.state.guard.moves
    assert bench.step().mode == "active"
    # Long ago, nothing of it counts any more.
    bench.now += RESUME_SECONDS + 60
    assert bench.started().state.guard.moves == ()


def test_what_others_did_stays_contested_over_a_restart(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)
    bench.step()
    bench.target.spec = 3
    assert bench.step().mode == "contested"
    bench.controller = bench.started()
    assert bench.step().mode == "contested"
    bench.controller.acknowledge()
    assert bench.step().outcome == "written"


def test_a_pause_a_restart_and_an_acknowledgement_are_replayed_as_they_were(tmp_path: Path):
    bench = Bench(tmp_path, *[10.0, 9.0] * 10)
    bench.step()
    bench.controller.pause(True)
    bench.step()
    bench.controller.pause(False)
    bench.step()
    bench.target.spec = 30
    bench.step()
    bench.controller = bench.started()
    bench.step()
    bench.controller.acknowledge()
    bench.step()
    bench.now += 1000
    bench.controller = bench.started()
    bench.step()
    assert [record.mode for record in bench.recorded] == [
        "active", "paused", "active", "contested", "contested", "active", "active",
    ]  # fmt: skip
    service = replace(bench.service, deciders=deciders(Wants(*[10.0, 9.0] * 10)))
    pairs = list(replayed(bench.folder, service))
    assert [again.target for _, again in pairs] == [entry.record.target for entry, _ in pairs]
    assert [again.mode for _, again in pairs] == [entry.record.mode for entry, _ in pairs]


def test_whoever_does_not_lead_writes_nothing(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)
    bench.target.shown = {"leading": False}
    assert [bench.step().mode for _ in range(3)] == ["standby"] * 3
    bench.target.shown, bench.target.spec = {}, 20
    # The other one's doing is nobody else's.
    assert bench.step().mode == "active"
    assert bench.target.writes == [(20, 15)]


def _asked(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_its_door_shows_everything_and_takes_a_pause_from_this_machine_alone(tmp_path: Path):
    bench = Bench(tmp_path, 10.0)
    with status_server(bench.controller, "127.0.0.1:0") as url:
        assert json.loads(_asked(f"{url}/status")[1])["newest"] is None
        bench.step()
        assert json.loads(_asked(f"{url}/status")[1])["newest"]["target"] == 10
        assert len(json.loads(_asked(f"{url}/v1/decisions?last=5")[1])) == 1
        assert 'scalepilot_operate_mode{mode="active"} 1.0' in _asked(f"{url}/metrics")[1]
        for last in ("0", "1001", "000001" + "9" * 5000):
            assert _asked(f"{url}/v1/decisions?last={last}")[0] == 422
        assert _asked(f"{url}/nothing")[0] == 404
        assert _asked(f"{url}/status", Host="evil.example")[0] == 421
        assert _asked(f"{url}/v1/pause", "POST", Origin="http://evil.example")[0] == 403
        assert bench.step().mode == "active"
        assert _asked(f"{url}/v1/pause", "POST")[0] == 200
        assert bench.step().mode == "paused"
        assert _asked(f"{url}/v1/resume", "POST")[0] == 200
        assert bench.step().mode == "active"


def test_clients_that_say_nothing_keep_nobody_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scalepilot.operate.answering._MOST_CONNECTIONS", 4)
    bench = Bench(tmp_path, 10.0)
    with status_server(bench.controller, "127.0.0.1:0") as url, contextlib.ExitStack() as silent:
        host, _, port = url.removeprefix("http://").partition(":")
        first, *_ = [silent.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(6)]
        assert _asked(f"{url}/healthz") == (200, "ok\n")
        # Ended long before its time is up, as the oldest.
        began = time.monotonic()
        assert first.recv(1) == b""
        assert time.monotonic() - began < 2.0


def test_what_a_target_says_of_itself_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    bench = Bench(tmp_path, 10.0)
    for problem in ("", "2 workers have\x1b vanished", "2 workers have\x1b vanished", "1 worker has vanished", ""):
        bench.target.shown = {"problem": problem}
        assert bench.step().mode == "active"
    assert [line.partition(": ")[2] for line in caplog.messages] == ["2 workers have\\x1b vanished", "1 worker has vanished"]


def test_its_page_needs_nothing_but_the_controller_and_asks_only_for_what_is_new(tmp_path: Path):
    bench = Bench(tmp_path, 10.0, 12.0)
    with status_server(bench.controller, "127.0.0.1:0") as url:
        with urllib.request.urlopen(f"{url}/", timeout=5) as answer:
            policy, text = answer.headers["content-security-policy"], answer.read().decode()
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert not re.search(r"(src|href)=\"(https?:|//)|@import|url\(", text)
        assert "{{" not in text
        first = json.loads(_asked(f"{url}/v1/history")[1])
        assert (first["rows"], first["interval_seconds"]) == ([], bench.controller.interval)
        bench.step()
        bench.step()
        told = json.loads(_asked(f"{url}/v1/history?since=0")[1])
        newest = dict(zip(told["columns"], told["rows"][-1], strict=True))
        assert (len(told["rows"]), newest["target"], newest["mode"], newest["wanted"]) == (2, 12, "active", 12)
        assert len(json.loads(_asked(f"{url}/v1/history?since={told['rows'][0][0]!r}")[1])["rows"]) == 1
        assert _asked(f"{url}/v1/history?since=nan")[0] == 422
        assert _asked(f"{url}/v1/history?since=yesterday")[0] == 422


def test_a_signal_pauses_and_the_next_one_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bench = Bench(tmp_path, 10.0)
    before = signal.getsignal(signal.SIGUSR1)
    with paused_by_signal(bench.controller):
        for paused in (True, False):
            # Also where a decision is being made.
            with bench.controller._asked_state:
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.01)
            end = time.monotonic() + 5
            while bench.controller.state.pause is not paused and time.monotonic() < end:
                time.sleep(0.005)
            assert bench.step().mode == ("paused" if paused else "active")
    assert signal.getsignal(signal.SIGUSR1) == before
    assert "paused by SIGUSR1; another one resumes" in capsys.readouterr().err


def test_a_number_in_a_file_is_a_target(tmp_path: Path):
    path, ready = tmp_path / "replicas", tmp_path / "ready"
    path.write_text("8\n")
    target = make_target({"kind": "file", "path": str(path), "ready_path": str(ready)}, TargetContext("me", False, 15.0))
    assert target.read(0).spec == 8
    assert target.read(0).ready is None
    assert target.write(10, 7).outcome == "refused"
    assert target.write(10, 8).outcome == "written"
    ready.write_text("9")
    assert target.read(0) == Replicas(10, 9)
    path.write_text("many")
    assert target.read(0).spec is None
    assert target.write(10, 8).outcome == "unknown"
    assert target.check(dry_run=True) == [f"{path}: 'many' is not allowed; allowed: one whole number of replicas, to 1000000"]
    with pytest.raises(Exception, match=r"target.kind: 'kubernets' is not allowed"):
        make_target({"kind": "kubernets"}, TargetContext("me", False, 15.0))
    with pytest.raises(Exception, match="target: pth: unknown key"):
        make_target({"kind": "file", "path": "y", "pth": "x"}, TargetContext("me", False, 15.0))


def test_what_was_decided_before_the_clock_was_set_back_is_not_newer():
    entries = [SimpleNamespace(record=SimpleNamespace(snapshot=SimpleNamespace(time=time))) for time in (10, 20, 30, 15, 25)]
    assert [entry.record.snapshot.time for entry in _in_order(entries)] == [10, 15, 25]
