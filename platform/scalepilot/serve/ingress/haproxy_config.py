"""Tightens the HAProxy configuration that Ray Serve writes, then becomes HAProxy.

Serve knows no setting for what is changed here, but runs whatever `RAY_SERVE_HAPROXY_BINARY_PATH` names: `ingress.py` names a
two-line script that calls this file. It imports the standard library alone and no Ray, so that a reload costs milliseconds.

- It listens where it was told to; the replicas behind it listen on loopback alone, so that nobody can go past it.
- Serve's statistics and metrics pages, which listen on all interfaces without a key, are left out.
- The admin socket is this user's alone.
- Nothing is sent to syslog (UDP port 514 of this machine, for every request).
- A replica gets as many requests at once as it can answer soon; the rest wait a moment, then are answered 503 with Retry-After.
- Errors that HAProxy answers itself are JSON of the same form as the service's own, and never 500, 502 or 504.
- A client that sends its request or reads its answer slowly holds a connection, but no place of a replica. Places are kept apart
  for that (`_CLASSES`): health always finds one; pages, and bodies that do not fit into HAProxy's buffer, have their own; and so
  has whoever shows no key that was known when HAProxy started. Such a body is not waited for: the replica refuses it by its
  headers, or finds that the key is a new one.
- What is no HTTP at all HAProxy answers with pages of its own that no setting reaches; a private copy of it says it in JSON.
- What is not HTTP/1.1 as we speak it (OPTIONS *, CONNECT, TRACE, websockets, long headers) is answered here.
- One address has at most half of the connections.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
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
    400: (400, "the request is not HTTP/1.1, or its headers are longer than 64 KiB"),
    408: (408, "the request did not arrive in time"),
    500: (503, _BUSY),
    502: (503, _BUSY),
    503: (503, _BUSY),
    504: (503, _BUSY),
}
_METHODS = "GET, HEAD, POST"
# Answers of our own, in this order: condition → status, words, header.
_REFUSED: tuple[tuple[str, int, str, tuple[str, str] | None], ...] = (
    ("{ url,length gt 8192 }", 414, "the URL is longer than 8192 bytes", None),
    ("{ req.hdrs,length gt 16384 }", 431, "the headers are longer than 16384 bytes", None),
    (
        "{ method CONNECT TRACE } or { url -m str * }",
        405,
        f"this method is not allowed here; allowed: {_METHODS} of a path",
        ("Allow", _METHODS),
    ),
    (
        "{ req.fhdr(upgrade) -m sub -i websocket }",
        400,
        "upgrade: websocket is not allowed; allowed: HTTP/1.1 requests",
        None,
    ),
    ("!{ req.ver 1.0 1.1 }", 400, "the request is not HTTP/1.1", None),
    ("!{ path_beg / }", 400, "the target is not a path", None),
    ("!{ req.ver 1.0 } !{ req.fhdr(host) -m found }", 400, "host: is missing", None),
)
# HAProxy's buffer is 64 KiB, of which the headers take up to 16: a body of this size fits for certain.
_BUFFERED_BYTES = 32_768
_MAX_CONNECTIONS = 4096
# A client that sends or reads nothing for so long, in the middle of a request or an answer, is left.
_PAUSE_SECONDS = 3
# An answer of this size is taken off a replica although its client does not read it.
_SEND_BUFFER_BYTES = 262_144
# Kind of request → (condition, share of a replica's places; 0 for no bound). The first that holds; all others: decisions.
_CLASSES = {
    "health": ("{ path /health/live /health/ready /v2/health/live /v2/health/ready }", 0.0),
    # The replica has closed its side as soon as it has read their headers.
    "strangers": ("METH_POST !known", 16.0),
    "large": (
        f"METH_POST {{ req.body_len gt {_BUFFERED_BYTES} }} or METH_POST {{ req.hdr_val(content-length) gt {_BUFFERED_BYTES} }}",
        0.25,
    ),
    "pages": ("!METH_POST", 0.25),
}


def tighten(text: str, settings: Mapping[str, int | str], errors: Path) -> str:
    """The configuration as we want it.

    Args:
        text: as Serve wrote it.
        settings: `listen` (HOST:PORT), `requests_per_replica`, `queue_milliseconds`, `request_seconds`, `body_bytes` and, where
            requests need a key, `key_digests`, a file as `write_digests` makes it.
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
    kept["global"].append(f"    tune.sndbuf.client {_SEND_BUFFER_BYTES}")
    seconds = settings["request_seconds"]
    kept["defaults"] += [
        f"    timeout http-request {seconds}s",
        f"    timeout client {min(int(seconds), _PAUSE_SECONDS)}s",
        f"    timeout queue {settings['queue_milliseconds']}ms",
        *(f"    errorfile {status} {errors / f'{status}.http'}" for status in _ERRORS),
    ]
    kept["frontend http_frontend"] = _frontend(kept["frontend http_frontend"], settings)
    # Before the first replica is there, and after the last.
    kept["backend default_backend"] = ["    http-request return status 503 default-errorfiles"]
    made = {}
    for name, lines in kept.items():
        made[name] = lines
        if name.startswith("backend ") and name != "backend default_backend":
            backend, places = name.removeprefix("backend "), int(settings["requests_per_replica"])
            made[name] = [_bounded(line, places) if _is_server(line) else line for line in lines]
            for kind, (_, share) in _CLASSES.items():
                most = max(1, round(places * share)) if share else 0
                made[f"{name}-{kind}"] = [_tracking(line, backend, most) if _is_server(line) else line for line in _plain(lines)]
    return "".join(f"{line}\n" for name, lines in made.items() for line in (name, *lines))


def _frontend(lines: list[str], settings: Mapping[str, int | str]) -> list[str]:
    """Serve's front end, with what is decided before a replica is asked."""
    digests = settings.get("key_digests")
    bind = next((line for line in lines if line.strip().startswith("bind ")), None)
    # Before the first replica is there it leads nowhere.
    if bind is None:
        raise ValueError("haproxy.cfg: the front end binds nothing")
    known = ["    acl known always_true"]
    if digests:
        known = [
            f"    acl known req.hdr(x-api-key),sha2(256),hex -m str -i -f {digests}",
            f"    acl known req.hdr(authorization),word(2,' '),sha2(256),hex -m str -i -f {digests}",
        ]
    first = [
        # Cleartext HTTP/2 would be another door, with a hundred requests a connection.
        f"    bind {settings['listen']} proto h1",
        f"    stick-table type ipv6 size {_MAX_CONNECTIONS} expire 1m store conn_cur",
        "    tcp-request connection track-sc0 src",
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {_MAX_CONNECTIONS // 2} }}",
        *known,
        *(_refusal(*refused) for refused in _REFUSED),
        _refusal(
            f"METH_POST known {{ req.hdr_val(content-length) gt {settings['body_bytes']} }}",
            413,
            f"body: more than {settings['body_bytes']} bytes are not allowed; send fewer observations a request",
            None,
        ),
        f"    http-request wait-for-body time {settings['request_seconds']}s if METH_POST known",
    ]
    made = []
    for line in lines:
        words = line.split()
        if line is bind:
            made += first
            continue
        if words[0] == "use_backend" and words[2:3] == ["if"]:
            for kind, (condition, _) in _CLASSES.items():
                alternatives = (f"{' '.join(words[3:])} {part}" for part in condition.split(" or "))
                made.append(f"    use_backend {words[1]}-{kind} if {' or '.join(alternatives)}")
        made.append(line)
    return made


def _refusal(condition: str, status: int, words: str, header: tuple[str, str] | None) -> str:
    text = json.dumps({"error": words}).replace("\\", "\\\\").replace('"', '\\"')
    more = "" if header is None else f' hdr {header[0]} "{header[1]}"'
    return f'    http-request return status {status} content-type application/json string "{text}\\n"{more} if {condition}'


def _is_server(line: str) -> bool:
    return line.strip().startswith("server ")


def _bounded(line: str, most: int) -> str:
    return f"{line} maxconn {most}" if most else line


def _plain(lines: list[str]) -> list[str]:
    """A backend without health checks of its own: it follows another's."""
    return [line for line in lines if not line.strip().startswith(("option httpchk", "http-check", "default-server"))]


def _tracking(line: str, backend: str, most: int) -> str:
    _, name, address, *rest = line.split()
    backup = " backup" if "backup" in rest else ""
    return _bounded(f"    server {name} {address} track {backend}/{name}{backup}", most)


def write_digests(keys: Path, digests: Path) -> None:
    """Write the SHA-256 of every key of a file, one a line, for HAProxy to compare; empty where it cannot be read.

    A key that comes later is a stranger's until HAProxy is started again: let in by the replica, with fewer places.
    """
    try:
        lines = keys.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    found = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    digests.write_text("".join(f"{hashlib.sha256(key.encode()).hexdigest()}\n" for key in found), encoding="ascii")
    digests.chmod(0o600)


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


# An answer inside HAProxy's executable: status, reason, its other headers, its page.
_BUILT_IN = re.compile(
    rb"HTTP/1\.1 (\d{3}) ([^\r\0]{1,40})\r\n((?:[^\r\0]{1,60}\r\n){1,6})\r\n(<html>[^\0]{1,300}</html>\n)(?=\0)"
)
_NO_HTTP = {400: "the request is not HTTP/1.1", 408: "the request did not arrive in time"}


def speaking_json(executable: bytes) -> bytes:
    """HAProxy's executable with its own answers in JSON, each as long as before; unchanged where it holds none that we know."""
    return _BUILT_IN.sub(_in_json, executable)


def _in_json(found: re.Match[bytes]) -> bytes:
    status, reason = int(found[1]), found[2]
    close = b"Connection: close\r\n" if b"Connection: close" in found[3] else b""
    body = json.dumps({"error": _NO_HTTP.get(status, reason.decode("ascii", "replace").lower())}).encode()
    for length in range(len(found[0])):
        head = b"HTTP/1.1 %d %s\r\nContent-length: %d\r\n%sContent-Type: application/json\r\n\r\n" % (
            status,
            reason,
            length,
            close,
        )
        if len(head) + length == len(found[0]) and length > len(body):
            return head + body.ljust(length - 1) + b"\n"
    return found[0]


def _copy_speaking_json(binary: str, folder: Path) -> str:
    """A private copy of HAProxy that does; HAProxy itself where its answers are others, or the copy cannot be made."""
    try:
        original = Path(binary).read_bytes()
        changed = speaking_json(original)
        if changed == original:
            return binary
        copy, aside = folder / "haproxy-json", folder / f"haproxy-json-{os.getpid()}"
        aside.write_bytes(changed)
        aside.chmod(0o500)
        # An older one that still runs keeps its file.
        aside.replace(copy)
        # It looks for its libraries beside itself.
        libraries = Path(binary).resolve().parent / "lib"
        if libraries.is_dir() and not (folder / "lib").is_symlink():
            (folder / "lib").symlink_to(libraries)
    except OSError:
        return binary
    return str(copy)


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
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
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
        binary = _copy_speaking_json(binary, folder)
        _end_with_parent()
        os.execv(binary, [binary, "-db", "-f", str(folder / _BRIDGE)])  # noqa: S606 - as below
    path = Path(rest[rest.index("-f") + 1])
    folder = path.parent
    _check_own(path, Path(binary))
    for name, content in error_files().items():
        (folder / name).write_bytes(content)
    chosen = json.loads(settings)
    if chosen.get("api_key_file"):
        chosen["key_digests"] = str(folder / "keys.sha256")
        write_digests(Path(chosen["api_key_file"]), Path(chosen["key_digests"]))
    text = tighten(path.read_text(encoding="utf-8"), chosen, folder)
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
    binary = _copy_speaking_json(binary, folder)
    _end_with_parent()
    os.execv(binary, [binary, *rest])  # noqa: S606 - the binary that Serve would run, but for its words


if __name__ == "__main__":
    main(sys.argv[1:])
