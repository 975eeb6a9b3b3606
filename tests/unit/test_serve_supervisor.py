"""What the server's main process does when one of its descendants ends; the descendants are real, what they do is not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

psutil = pytest.importorskip("psutil")
from scalepilot.serve import supervisor as module  # noqa: E402
from scalepilot.serve.supervisor import (  # noqa: E402
    CONTROLLER,
    HAPROXY,
    REPLICA,
    Bridge,
    ServerLostError,
    Supervisor,
    answers_at,
    last_failure,
    ready_replicas,
    role_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names processes as Linux does")
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that is called something."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*names: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["bash", "-c", 'exec -a "$0" sleep 600', *names])
        started.append(process)
        # Only after bash has become it is it called so.
        while psutil.Process(process.pid).cmdline()[:1] != [names[0]]:
            time.sleep(0.005)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


class Looked(Supervisor):
    """A supervisor whose words are kept."""

    def __init__(self, **parts: object) -> None:
        self.said: list[str] = []
        self.ready: set[int] = set()
        self.up = True
        whole = {"answers": lambda: self.up, "expected": {}, "replicas_ready": lambda: self.ready, "say": self.said.append}
        super().__init__(**(whole | parts))  # type: ignore[arg-type]

    def look_at_all(self) -> None:
        self._next_scan = self._next_probe = 0.0
        self.look()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_a_process_is_known_by_its_command_line() -> None:
    assert role_of(["/x/gcs/gcs_server", "--log"]) == "Ray's control service (gcs_server)"
    assert role_of(["/x/raylet/raylet", "--agent=/x/python /x/log_monitor.py"]) == "Ray's node service (raylet)"
    assert role_of(["ray::ServeReplica:scalepilot:policies"]) == REPLICA
    for haproxy in ("/x/bin/haproxy", "/x/ha/node/haproxy-json"):
        assert role_of([haproxy, "-db", "-f", "/x/haproxy.cfg"]) == HAPROXY
    for other in (
        [],
        ["ray::IDLE"],
        ["/x/bin/python", "/x/default_worker.py", "--raylet-name=/x/sockets/raylet"],
        ["haproxy", "-v"],
    ):
        assert role_of(other) is None


@pytest.mark.parametrize("name", ["gcs_server", "raylet", "ray::RuntimeEnvAgent", "ray::DashboardAgent"])
def test_without_a_part_of_the_cluster_the_server_ends_and_says_why(start: Start, name: str) -> None:
    process = start(name)
    looked = Looked()
    looked.look_at_all()
    end(process)
    with pytest.raises(ServerLostError, match=rf"\(process {process.pid}\) ended: the cluster cannot continue without it;"):
        looked.look()


def test_what_ended_together_is_named_together(start: Start) -> None:
    both = [start("raylet"), start("ray::RuntimeEnvAgent")]
    looked = Looked()
    looked.look_at_all()
    for process in both:
        end(process)
    with pytest.raises(ServerLostError) as caught:
        looked.look()
    assert all(f"(process {process.pid})" in str(caught.value) for process in both)


def test_what_comes_back_is_told_when_it_goes_and_when_it_is_there_again(start: Start) -> None:
    process = start("ray::ServeController")
    looked = Looked(expected={CONTROLLER: 1})
    looked.look_at_all()
    end(process)
    looked.look_at_all()
    assert looked.said == [f"Serve's controller (process {process.pid}) ended; is being restarted"]
    start("ray::ServeController")
    looked.look_at_all()
    assert looked.said[1].startswith("Serve's controller is back, after 0.")


def test_a_replica_is_back_once_it_is_ready_and_its_reason_is_told_where_it_cannot(start: Start) -> None:
    first = start("ray::ServeReplica:a")
    why = ""
    looked = Looked(expected={REPLICA: 1}, failure=lambda: why)
    looked.ready = {first.pid}
    looked.look_at_all()
    end(first)
    looked.look_at_all()
    second = start("ray::ServeReplica:a")
    why = "api_key_file: k: cannot be read"
    for _ in range(3):
        looked.look_at_all()
    assert looked.said[1:] == ["a replica cannot start: api_key_file: k: cannot be read"]
    looked.ready = {second.pid}
    looked.look_at_all()
    assert "is back" in looked.said[2]


def test_a_replica_too_many_is_no_loss_and_a_worker_without_a_name_is_not_missed(start: Start) -> None:
    idle, *replicas = start("ray::IDLE"), start("ray::ServeReplica:a"), start("ray::ServeReplica:b")
    looked = Looked(expected={REPLICA: 1})
    looked.ready = {process.pid for process in replicas}
    looked.look_at_all()
    end(idle)
    end(replicas[0])
    looked.look_at_all()
    assert looked.said == []


def test_what_does_not_come_back_ends_the_server_if_nothing_is_served(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GIVE_UP_SECONDS", 0.0)
    process = start("ray::ServeReplica:a")
    looked = Looked(expected={REPLICA: 1}, failure=lambda: "the reason")
    looked.ready = {process.pid}
    looked.look_at_all()
    end(process)
    for _ in range(3):
        looked.look_at_all()
    assert not [line for line in looked.said if "did not come back" in line], "others answer"
    looked.up = False
    with pytest.raises(ServerLostError, match="a replica did not come back within 0 s; not serving: the reason"):
        looked.look_at_all()


def test_haproxy_is_bridged_until_serves_own_is_there(start: Start, tmp_path: Path) -> None:
    haproxy = tmp_path / "haproxy"
    haproxy.write_text("#!/bin/bash\nexec -a haproxy bash -c \"trap 'exit 0' USR1; while :; do sleep 0.01; done\" -db\n")
    haproxy.chmod(0o700)

    def run() -> psutil.Popen:
        made = psutil.Popen([str(haproxy)])
        while "-db" not in made.cmdline():
            time.sleep(0.005)
        return made

    own, bridge = run(), Bridge(run)
    looked = Looked(expected={HAPROXY: 1}, bridge=bridge)
    looked.look_at_all()
    own.kill()
    own.wait()
    looked.look_at_all()
    assert looked.said == [f"HAProxy (process {own.pid}) ended; a replacement has taken over"]
    bridging = bridge.pid
    assert bridging is not None
    looked.look_at_all()
    assert len(looked.said) == 1, "the bridge is not what is waited for"
    back = run()
    looked.look_at_all()
    looked.look_at_all()
    assert looked.said[1].startswith("HAProxy is back")
    assert bridge.start()
    assert bridge.pid == bridging, "one is enough"
    for process in (psutil.Process(bridging), back):
        process.kill()
        process.wait()
    assert bridge.pid is None


def test_silence_and_its_end_are_told_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNANSWERED_SECONDS", 0.0)
    looked = Looked()
    looked.up = False
    for _ in range(3):
        looked.look_at_all()
    looked.up = True
    for _ in range(3):
        looked.look_at_all()
    assert looked.said[0] == "not answering requests"
    assert looked.said[1].startswith("answering again, after ")
    assert len(looked.said) == 2


def test_nobody_answers_at_a_closed_port_and_files_tell_who_is_ready(tmp_path: Path) -> None:
    assert not answers_at("0.0.0.0", 1)
    (tmp_path / "replica-123-456.json").touch()
    (tmp_path / "replica-9-456.new").touch()
    assert ready_replicas(tmp_path) == {123}
    assert last_failure(tmp_path) == ""
    (tmp_path / "failure").write_text("why")
    assert last_failure(tmp_path) == "why"
