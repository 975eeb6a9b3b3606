"""Tightens the HAProxy configuration that Ray Serve writes, then becomes HAProxy.

Serve knows no setting for what is changed here, but runs whatever `RAY_SERVE_HAPROXY_BINARY_PATH` names: `ingress.py` names a
two-line script that calls this file. It imports the standard library alone and no Ray, so that a reload costs milliseconds.

- It listens where it was told to; the replicas behind it listen on loopback alone, so that nobody can go past it.
- Serve's statistics and metrics pages, which listen on all interfaces without a key, are left out.
- The admin socket is this user's alone.
- Nothing is sent to syslog (UDP port 514 of this machine, for every request).
- A replica gets as many requests at once as it can answer soon; the rest wait a moment, then are answered 503 with Retry-After.
- Errors that HAProxy answers itself are JSON of the same form as the service's own, and never 500, 502 or 504.
- A client that sends its request slowly holds a connection, but no replica.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

_SECTION = re.compile(r"(global|defaults|frontend|backend|listen)\b")
# Pages of Serve's own that would be open to everyone who reaches this machine.
_LEFT_OUT = ("frontend prometheus", "listen stats")
_DROPPED_LINES = ("log ", "option httplog", "option log-health-checks", "errorfile ")
# Linux: <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1
# The configuration that knew the replicas last; what answers with it while Serve's own HAProxy is gone, and its process.
_SERVING, _BRIDGE, _BRIDGE_PID = "serving.cfg", "bridge.cfg", "bridge.pid"
_BUSY = "no replica is free; try again"
# What HAProxy says itself → what a client is told.
_ERRORS = {
    400: (400, "the request is not HTTP"),
    408: (408, "the request did not arrive in time"),
    500: (503, _BUSY),
    502: (503, _BUSY),
    503: (503, _BUSY),
    504: (503, _BUSY),
}


def tighten(text: str, settings: Mapping[str, int | str], errors: Path) -> str:
    """The configuration as we want it.

    Args:
        text: as Serve wrote it.
        settings: `listen` (HOST:PORT), `requests_per_replica`, `queue_milliseconds` and `request_seconds`.
        errors: folder of the error files.

    Raises:
        ValueError: a section or line that is to be changed is not there: another release of Ray, whose configuration must
            be looked at before it is trusted.
    """
    sections = _sections(text)
    for name in ("global", "defaults", "frontend http_frontend", "backend default_backend", *_LEFT_OUT):
        if name not in sections:
            raise ValueError(f"haproxy.cfg: section {name!r} is missing")
    for name in _LEFT_OUT:
        del sections[name]
    if not any("stats socket " in line for line in sections["global"]):
        raise ValueError("haproxy.cfg: the admin socket is missing")
    kept = {name: [line for line in lines if not line.strip().startswith(_DROPPED_LINES)] for name, lines in sections.items()}
    kept["global"] = [line.replace(" mode 666 ", " mode 600 ") for line in kept["global"]]
    kept["frontend http_frontend"] = [
        f"    bind {settings['listen']}" if line.strip().startswith("bind ") else line for line in kept["frontend http_frontend"]
    ]
    kept["defaults"] += [
        "    option http-buffer-request",
        f"    timeout http-request {settings['request_seconds']}s",
        f"    timeout queue {settings['queue_milliseconds']}ms",
        *(f"    errorfile {status} {errors / f'{status}.http'}" for status in _ERRORS),
    ]
    # Before the first replica is there, and after the last.
    kept["backend default_backend"] = ["    http-request return status 503 default-errorfiles"]
    for name in kept:
        if name.startswith("backend "):
            bound = f" maxconn {settings['requests_per_replica']}"
            kept[name] = [line + bound if line.strip().startswith("server ") else line for line in kept[name]]
    return "".join(f"{line}\n" for name, lines in kept.items() for line in (name, *lines))


def error_files() -> dict[str, bytes]:
    """Name → content of what HAProxy answers itself."""
    files = {}
    for status, (told, words) in _ERRORS.items():
        body = json.dumps({"error": words}) + "\n"
        retry = "Retry-After: 1\r\n" if told == HTTPStatus.SERVICE_UNAVAILABLE else ""
        files[f"{status}.http"] = (
            f"HTTP/1.1 {told} {HTTPStatus(told).phrase}\r\nContent-Type: application/json\r\n{retry}"
            f"Cache-Control: no-cache\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
    return files


def _sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    at: list[str] = []
    for line in text.splitlines():
        if _SECTION.match(line):
            at = found[line.rstrip()] = []
        elif line.strip() and not line.strip().startswith("#"):
            at.append(line.rstrip())
    return found


def _end_with_parent() -> None:
    """Have the kernel end HAProxy when Serve's process dies, however it does: an orphan would keep the port for ever."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _check_own(config: Path, binary: Path) -> None:
    """End where another user could change what is about to be run: long after the start, as often as Serve reloads it."""
    # This runs isolated from everything that is installed.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from scalepilot.errors import InputError
    from scalepilot.files.ownership import check_own

    try:
        check_own(config, "HAProxy's configuration")
        check_own(binary, "HAProxy")
    except InputError as error:
        sys.exit(str(error))


def bridged(text: str) -> str:
    """A tightened configuration for a HAProxy beside Serve's own: it listens at the same address and has no admin socket."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith("stats socket "))


def knows_replicas(text: str) -> bool:
    """Whether a configuration has replicas: Serve's proxy, which is asked where there are none, is a backup."""
    servers = [line.split() for line in text.splitlines() if line.strip().startswith("server ")]
    return any("backup" not in words for words in servers)


def waiting(text: str, socket: Path) -> str:
    """A tightened configuration that nobody reaches yet: it listens on a socket of its own."""
    bind = re.compile(r"^ +bind .*$", re.MULTILINE)
    return bind.sub(f"    bind unix@{socket} mode 600", text)


def _bridge(folder: Path) -> int | None:
    """The process that answers meanwhile; None where none does."""
    with contextlib.suppress(OSError, ValueError):
        found = int((folder / _BRIDGE_PID).read_text())
        if str(folder / _BRIDGE) in Path(f"/proc/{found}/cmdline").read_text():
            return found
    return None


def main(arguments: list[str]) -> None:
    """Run HAProxy in place of this process.

    Args:
        arguments: `SETTINGS_AS_JSON HAPROXY …` as Serve calls it: tighten the file behind `-f` first. With `bridge FOLDER` in
            place of Serve's: answer with what was tightened last, until a HAProxy of Serve's that knows the replicas takes over.
    """
    settings, binary, *rest = arguments
    if rest[0] == "bridge":
        folder = Path(rest[1])
        (folder / _BRIDGE).write_text(bridged((folder / _SERVING).read_text(encoding="utf-8")), encoding="utf-8")
        (folder / _BRIDGE_PID).write_text(str(os.getpid()), encoding="utf-8")
        _check_own(folder / _BRIDGE, Path(binary))
        _end_with_parent()
        os.execv(binary, [binary, "-db", "-f", str(folder / _BRIDGE)])  # noqa: S606 - as below
    path = Path(rest[rest.index("-f") + 1])
    folder = path.parent
    _check_own(path, Path(binary))
    for name, content in error_files().items():
        (folder / name).write_bytes(content)
    text = tighten(path.read_text(encoding="utf-8"), json.loads(settings), folder)
    bridge = _bridge(folder)
    if knows_replicas(text):
        (folder / _SERVING).write_text(text, encoding="utf-8")
        if bridge is not None:
            # It gives its port to the new one, and ends when it has answered what it has begun.
            at = rest.index("-sf") + 1 if "-sf" in rest else len(rest)
            rest[at:at] = [str(bridge)] if "-sf" in rest else ["-sf", str(bridge)]
    elif bridge is not None:
        text = waiting(text, folder / "waiting.sock")
    path.write_text(text, encoding="utf-8")
    _end_with_parent()
    os.execv(binary, [binary, *rest])  # noqa: S606 - the very binary that Serve would run


if __name__ == "__main__":
    main(sys.argv[1:])
