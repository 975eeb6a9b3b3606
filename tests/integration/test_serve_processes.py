"""Every kind of process of a server is killed in turn under load, and another user tries to get in."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from tests.second_user import OTHER, as_user

from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot_envs.autoscale import AutoscaleParams

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="HAProxy and /proc")]

KEY = "k" * 32
START_SECONDS, NOTICE_SECONDS, RETURN_SECONDS, END_SECONDS = 180, 5.0, 90.0, 30.0
# Busy test machines import for long; the docs' table is of a quiet one.
RESTARTED = ["haproxy", "ray::ServeReplica", "ray::ServeController", "ray::ProxyActor", "ray::HAProxyManager"]
ESSENTIAL = ["gcs_server", "raylet", "ray::RuntimeEnvAgent", "ray::DashboardAgent"]


@dataclass
class Load:
    """Twenty requests a second, each on a connection of its own."""

    port: int
    answers: list[tuple[float, int]] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=15)

    def _ask_on(self) -> None:
        while not self._ended.wait(0.2):
            at = time.monotonic()
            self.answers.append((at, ask(self.port)))

    def lost(self, since: float) -> tuple[int, float]:
        """How many requests had no answer since then, and for how long that was so."""
        failed = [at for at, status in self.answers if status != 200 and at > since - 1]
        return len(failed), max(0.0, max(failed, default=since) - since)


def ask(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/v1/policies", headers={"X-API-Key": KEY})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


class NotStartedError(Exception):
    """Ray did not start in time."""


class Server:
    """A server in processes of its own, with what it says."""

    def __init__(self, folder: Path, replicas: int) -> None:
        save_policy(make_rule("static", AutoscaleParams(), {"replicas": 3}, name="shop"), folder / "watched" / "shop")
        self.keys = folder / "keys"
        self.keys.write_text(KEY)
        self.keys.chmod(0o600)
        command = [sys.executable, "-m", "scalepilot.cli", "serve", "--watch", str(folder / "watched"), "--port", "0", "--json"]
        command += ["--api-key-file", str(self.keys), "--replicas", str(replicas)]
        # Its own folder and its own token: those of the tests are no part of what is tested.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_AUTH", "RAY_TMPDIR"))} | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(60)
            raise NotStartedError(self.lines)
        self.port = int(json.loads(line)["url"].rpartition(":")[2])
        self.seen = {process.pid: process for process in self.tree()}

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line.rstrip()))

    def tree(self) -> list[psutil.Process]:
        return [*psutil.Process(self.process.pid).children(recursive=True)] if self.process.poll() is None else []

    def find(self, name: str) -> psutil.Process:
        """The newest of that name: of HAProxy an older one may still be ending, and a bridging one is not Serve's."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                program, *words = process.cmdline() or [""]
                if (
                    program.startswith(name) if name.startswith("ray::") else Path(program).name.removesuffix("-json") == name
                ) and (process.status() != psutil.STATUS_ZOMBIE and not any(word.endswith("bridge.cfg") for word in words)):
                    found.append(process)
        assert found, f"{name}: is not there"
        return max(found, key=lambda process: process.create_time())

    def said(self, pattern: str, since: float, seconds: float) -> float:
        """After how many seconds a line said it."""
        deadline = time.monotonic() + seconds
        while True:
            over = time.monotonic() > deadline
            for at, line in list(self.lines):
                if at >= since and re.search(pattern, line):
                    return at - since
            assert not over, (pattern, self.lines)
            time.sleep(0.05)

    def folder(self) -> Path:
        """Its private folder, which HAProxy's configuration lies in."""
        return Path(self.find("haproxy").cmdline()[3]).parents[2]

    def end(self) -> None:
        self.seen |= {process.pid: process for process in self.tree()}
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        self.process.kill()
        for orphan in psutil.wait_procs(list(self.seen.values()), timeout=2)[1]:
            orphan.kill()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[[int], Server]]:
    """Starts a server of some replicas."""
    servers: list[Server] = []

    def begin(replicas: int = 1) -> Server:
        place = tmp_path / str(len(servers))
        place.mkdir()
        # On a machine that other work fills, Ray gives up on itself after 30 s.
        for tried in range(3):
            with contextlib.suppress(NotStartedError) if tried < 2 else contextlib.nullcontext():
                servers.append(Server(place, replicas))
                return servers[-1]
        raise AssertionError

    yield begin
    for server in servers:
        server.end()


def test_what_is_killed_is_told_and_brought_back_while_there_is_a_cluster_and_nobody_else_gets_in(
    serving: Callable[[int], Server],
) -> None:
    server = serving(1)
    nobody_gets_in(server)
    scripts = {Path(word).name for process in server.tree() for word in process.cmdline() if word.endswith(".py")}
    assert not scripts & {"log_monitor.py", "monitor.py", "dashboard.py"}, "what nothing here needs"
    with Load(server.port) as load:
        time.sleep(1)
        for name in RESTARTED:
            victim = server.find(name)
            killed = time.monotonic()
            victim.kill()
            noticed = server.said(rf"\(process {victim.pid}\) ended", killed, NOTICE_SECONDS)
            back = server.said(r" is back, after ", killed, RETURN_SECONDS)
            wait_for(lambda: ask(server.port) == 200)
            time.sleep(2)
            count, seconds = load.lost(killed)
            print(f"{name:24} said after {noticed:.1f} s, back after {back:.1f} s, {count} lost in {seconds:.1f} s")
        # Without the file, a replica that starts anew knows the keys all the same, and says so.
        server.keys.unlink()
        killed = time.monotonic()
        server.find("ray::ServeReplica").kill()
        server.said(r"a replica is back, after ", killed, RETURN_SECONDS)
        server.said(r"keys_unfit", killed, NOTICE_SECONDS)
        wait_for(lambda: ask(server.port) == 200)
    ends_with_1_and_leaves_nothing(server, ESSENTIAL[0])


def test_without_a_part_of_the_cluster_it_ends_with_1_and_leaves_nothing_behind(serving: Callable[[int], Server]) -> None:
    for name in ESSENTIAL[1:]:
        ends_with_1_and_leaves_nothing(serving(1), name)


def ends_with_1_and_leaves_nothing(server: Server, name: str) -> None:
    folder = server.folder()
    with Load(server.port):
        time.sleep(0.5)
        victim = server.find(name)
        server.seen |= {process.pid: process for process in server.tree()}
        killed = time.monotonic()
        victim.kill()
        noticed = server.said(r"\(process \d+\) ended: the cluster cannot continue", killed, NOTICE_SECONDS)
        assert server.process.wait(END_SECONDS) == 1
        took = time.monotonic() - killed
    print(f"{name:24} said after {noticed:.1f} s, ended with 1 after {took:.1f} s")
    assert not folder.exists(), name
    left = [p for p in server.seen.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not left, (name, left)


def nobody_gets_in(server: Server) -> None:
    """Another user opens, renames and reaches nothing of it."""
    addresses = set()
    for process in [psutil.Process(server.process.pid), *server.tree()]:
        with contextlib.suppress(psutil.NoSuchProcess):
            listening = [one.laddr.ip for one in process.net_connections(kind="inet") if one.status == psutil.CONN_LISTEN]
            addresses |= {(ip, process.name()) for ip in listening}
    assert {one for one in addresses if one[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")} == set()
    folder = server.folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    if os.geteuid() != 0:
        return
    sockets = [str(path) for path in folder.rglob("*") if path.is_socket()]
    assert len(sockets) >= 3

    def attack() -> list[str]:
        done = []
        tries: list[tuple[str, Callable[[], object]]] = [
            ("list", lambda: list(folder.iterdir())),
            ("rename", lambda: folder.rename(f"{folder}.x")),
            ("rename HAProxy's", lambda: (folder / "ha").rename(folder / "x")),
            ("write", lambda: (folder / "r" / "x").write_text("")),
            *((f"connect {path}", lambda path=path: socket.socket(socket.AF_UNIX).connect(path)) for path in sockets),  # type: ignore[misc]
        ]
        for what, action in tries:
            with contextlib.suppress(PermissionError):
                action()
                done.append(what)
        return done

    assert as_user(OTHER, attack) == []


def wait_for(what: Callable[[], bool], seconds: float = RETURN_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)
