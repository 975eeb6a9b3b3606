"""Looks after the processes of a server: whatever ends is said in a line within seconds, brought back, or ends the server.

Ray brings back its actors (replicas, proxies, the controller), slowly and without a word. It does not bring back what the
cluster itself consists of: without that nothing is served sooner or later, so that the server ends and says why, for whatever
started it to start it again. HAProxy is bridged here, as Serve takes many seconds to notice that it is gone.
"""

from __future__ import annotations

import ctypes
import http.client
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scalepilot.errors import RunError

# What the cluster consists of: program → what a person is told. Without any of them the cluster ends.
_CLUSTER = {
    "gcs_server": "Ray's control service (gcs_server)",
    "raylet": "Ray's node service (raylet)",
    "ray::RuntimeEnvAgent": "Ray's runtime environment agent",
    "ray::DashboardAgent": "Ray's node agent",
}
# What is brought back.
REPLICA, CONTROLLER, MANAGER, PROXY, HAPROXY = "a replica", "Serve's controller", "HAProxy's manager", "Serve's proxy", "HAProxy"
_RESTARTED = {
    "ray::ServeReplica": REPLICA,
    "ray::ServeController": CONTROLLER,
    "ray::HAProxyManager": MANAGER,
    "ray::ProxyActor": PROXY,
}
_LOOK_SECONDS, _RESCAN_SECONDS, _PROBE_SECONDS, _PROBE_TIMEOUT_SECONDS = 0.25, 1.0, 1.0, 2.0
# A process that is started anew imports for long on a busy machine.
_GIVE_UP_SECONDS = 90.0
_UNANSWERED_SECONDS = 3.0
# Linux: <sys/prctl.h>.
_PR_SET_CHILD_SUBREAPER = 36
FAILURE_FILE = "failure"


class ServerLostError(RunError):
    """The server cannot go on; nothing of its cluster may be asked any more."""


def adopt_orphans() -> None:
    """Have this process be the parent of what its descendants leave behind, so that the end finds all of it. Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def role_of(command: list[str]) -> str | None:
    """What a process is, by its command line; None for what may come and go."""
    program = Path(command[0]).name if command and not command[0].startswith("ray::") else "".join(command[:1])
    # Also our private copy, which is called haproxy-json.
    if program.startswith("haproxy") and "-db" in command:
        return HAPROXY
    for name, role in {**_CLUSTER, **_RESTARTED}.items():
        if program == name or (name.startswith("ray::") and program.startswith(name)):
            return role
    return None


@dataclass
class Supervisor:
    """Watches the descendants of this process, and whether the server answers.

    Attributes:
        answers: whether a request is answered now.
        expected: role → processes that there should be.
        replicas_ready: process ids of the replicas that are done with their start.
        say: tells a person a line.
        bridge: starts a HAProxy in place of the one that ended, until Serve's own is there; None where there is none.
        failure: why a replica could not start last; empty where none failed.
    """

    answers: Callable[[], bool]
    expected: dict[str, int]
    replicas_ready: Callable[[], set[int]]
    say: Callable[[str], None] = lambda line: print(f"scalepilot serve: {line}", file=sys.stderr, flush=True)
    bridge: Bridge | None = None
    failure: Callable[[], str] = lambda: ""
    _known: dict[int, tuple[psutil.Process, str | None]] = field(default_factory=dict)
    _lost: dict[str, float] = field(default_factory=dict)
    _silent_since: float | None = None
    _told_silent: bool = False
    _told_failure: str = ""
    _next_scan: float = 0.0
    _next_probe: float = 0.0

    def watch(self) -> None:
        """Look again and again.

        Raises:
            ServerLostError: the server cannot go on.
        """
        while True:
            self.look()
            time.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Look once.

        Raises:
            ServerLostError: the server cannot go on.
        """
        now = time.monotonic()
        ended = [(pid, role) for pid, (process, role) in self._known.items() if not _alive(process)]
        for pid, _ in ended:
            del self._known[pid]
        if ended or now >= self._next_scan:
            self._scan()
            self._next_scan = now + _RESCAN_SECONDS
        # When Ray's node service ends, what it started ends with it, and the other way round: all of it may be the cause.
        if parts := [f"{role} (process {pid})" for pid, role in ended if role in _CLUSTER.values()]:
            raise ServerLostError(
                f"{', '.join(parts)} ended: the cluster cannot continue without it; restart the server, as a service manager does"
            )
        for pid, role in ended:
            self._tell_end(pid, role, now)
        if now >= self._next_probe:
            self._probe(now)
            self._next_probe = time.monotonic() + _PROBE_SECONDS
        self._tell_returns(now)

    def _scan(self) -> None:
        for process in psutil.Process().children(recursive=True):
            if process.pid in self._known and self._known[process.pid][1] is not None:
                continue
            # A worker of Ray's gets its name once it knows what it is.
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    self._known[process.pid] = process, role_of(process.cmdline())

    def _here(self, role: str) -> int:
        pids = {pid for pid, (process, its) in self._known.items() if its == role}
        if role == REPLICA:
            pids &= self.replicas_ready()
        if role == HAPROXY and self.bridge is not None:
            pids.discard(self.bridge.pid)
        return len(pids)

    def _tell_end(self, pid: int, role: str | None, now: float) -> None:
        if role is not None and self._here(role) < self.expected.get(role, 0):
            self._lost.setdefault(role, now)
            what = "is being restarted"
            if role == HAPROXY and self.bridge is not None and self.bridge.start():
                what = "a replacement has taken over"
            self.say(f"{role} (process {pid}) ended; {what}")

    def _probe(self, now: float) -> None:
        if self.answers():
            if self._told_silent and self._silent_since is not None:
                self.say(f"answering again, after {now - self._silent_since:.1f} s")
            self._silent_since, self._told_silent = None, False
            return
        self._silent_since = self._silent_since or now
        if not self._told_silent and now - self._silent_since >= _UNANSWERED_SECONDS:
            self._told_silent = True
            self.say("not answering requests")

    def _tell_returns(self, now: float) -> None:
        for role, since in list(self._lost.items()):
            if self._here(role) >= self.expected[role]:
                del self._lost[role]
                self._told_failure = "" if role == REPLICA else self._told_failure
                self.say(f"{role} is back, after {now - since:.1f} s")
            elif now - since > _GIVE_UP_SECONDS and self._silent_since is not None:
                because = f": {reason}" if role == REPLICA and (reason := self.failure()) else ""
                raise ServerLostError(f"{role} did not come back within {_GIVE_UP_SECONDS:g} s; not serving{because}")
            elif role == REPLICA and (reason := self.failure()) and reason != self._told_failure:
                self._told_failure = reason
                self.say(f"a replica cannot start: {reason}")


@dataclass
class Bridge:
    """A HAProxy of this process's own, for the seconds until Serve has noticed that its own is gone.

    The new one ends it (`haproxy_config.py`).

    Attributes:
        run: starts one and gives it; None where it cannot.
    """

    run: Callable[[], psutil.Popen | None]
    _process: psutil.Popen | None = None

    @property
    def pid(self) -> int | None:
        """Of the one that runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self) -> bool:
        """Start one, if none runs; whether one runs then."""
        if self.pid is None:
            self._process = self.run()
        return self.pid is not None


def answers_at(host: str, port: int) -> bool:
    """Whether a replica answers at an address: health needs no key."""
    where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(where, port, timeout=_PROBE_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ready_replicas(metrics: Path) -> set[int]:
    """Process ids of the replicas that began to write their counts, which they do once they are ready."""
    return {int(file.name.split("-")[1]) for file in metrics.glob("replica-*-*.json")}


def last_failure(metrics: Path) -> str:
    """Why a replica could not start last."""
    try:
        return (metrics / FAILURE_FILE).read_text(encoding="utf-8")
    except OSError:
        return ""


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """End processes at once, and wait for them."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
