"""Who is let in: what a request says of itself before a byte of its body is read. Cheap, so that a refusal costs nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from scalepilot.serve.config import ServeConfig
from scalepilot.serve.http.body import Headers
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.keys import ApiKeys

METRICS, PAGE, DOCS, OPENAPI = "/metrics", "/page", "/docs", "/openapi.json"
HEALTH = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
# A server that answers on loopback without keys is asked under these names alone: a web page whose own name was made to point
# here (DNS rebinding) sends its own.
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
METHODS = "GET, HEAD, POST"
_PORT = re.compile(rb":\d{0,5}")
_SHOWN_CHARACTERS = 80
_OWN_PAGES = (b"same-origin", b"none")


class Gate:
    """Checks a request's method, host, origin and key.

    Args:
        config: what is open, which hosts and origins are allowed.
        keys: who may ask; None asks for none.
    """

    def __init__(self, config: ServeConfig, keys: ApiKeys | None) -> None:
        self._keys = keys
        self._open = config.open
        self._hosts = frozenset(host.lower().encode() for host in config.allowed_hosts)
        self._origins = frozenset(origin.encode() for origin in config.cors_origins)

    def check(self, method: str, path: str, headers: Headers, http_version: str) -> None:
        """Let a request in.

        Args:
            method: of the request.
            path: without the root path; `*` for OPTIONS * and CONNECT.
            headers: names in lower case.
            http_version: "1.1" and so on.

        Raises:
            RequestError: 400, 401, 403, 405 or 421.
        """
        if path == "*" or method in ("CONNECT", "TRACE"):
            shown = f"{method[:_SHOWN_CHARACTERS]} *" if path == "*" and method != "CONNECT" else method
            raise RequestError(
                405, f"method: {shown} is not allowed here; allowed: {METHODS} of a path", headers=[("allow", METHODS)]
            )
        found: dict[bytes, bytes] = {}
        hosts = 0
        for name, value in headers:
            found[name] = value
            hosts += name == b"host"
        if hosts > 1 or (not hosts and http_version == "1.1"):
            raise RequestError(400, f"host: is given {hosts} times; allowed: once")
        if b"upgrade" in found and b"websocket" in found[b"upgrade"].lower():
            raise RequestError(400, "upgrade: websocket is not allowed; allowed: HTTP/1.1 requests")
        if path in HEALTH:
            return
        if self._hosts:
            self._check_host(found.get(b"host"))
        if method == "POST":
            self._check_origin(found)
        if self._keys is not None and not (self.is_open(path) or self.is_preflight(method, found)):
            self._keys.check(headers)

    def is_open(self, path: str) -> bool:
        """Whether a path needs no key although keys are set."""
        if path in HEALTH:
            return True
        opened = self._open
        if path == "/" or path.startswith(PAGE + "/"):
            return "page" in opened
        if path in (DOCS, OPENAPI) or path.startswith(DOCS + "/"):
            return "docs" in opened
        return path == METRICS and "metrics" in opened

    def is_preflight(self, method: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a browser asks if it may ask; it sends no key with that."""
        return method == "OPTIONS" and bool(self._origins)

    def _check_host(self, host: bytes | None) -> None:
        # A client of HTTP/1.0 may name none; a browser always does.
        if host is None or _without_port(host) in self._hosts:
            return
        allowed = ", ".join(sorted(name.decode() for name in self._hosts))
        raise RequestError(
            421,
            f"host: {_shown(host)} is not one of this server's names; allowed: {allowed}, and those of allowed_hosts in its"
            " configuration",
        )

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what another site's page sends: reading the answer is forbidden to it by its browser, sending is not."""
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin in self._origins or site in _OWN_PAGES:
            return
        if site is None:
            if origin is None:
                return
            _, _, own = origin.partition(b"://")
            if own and (own == headers.get(b"host") or _without_port(own) in self._hosts):
                return
        raise RequestError(
            403,
            f"origin: {_shown(origin or b'another site')} is not allowed; allowed: pages of this server, and the origins of"
            " cors_origins in its configuration",
        )


def own_hosts(host: str, more: Collection[str]) -> tuple[str, ...]:
    """Names under which a server on loopback is asked.

    Args:
        host: the address it listens on.
        more: what the configuration adds.
    """
    return tuple(dict.fromkeys([*LOOPBACK_NAMES, f"[{host}]" if ":" in host else host, *more]))


def _without_port(host: bytes) -> bytes:
    """The name of a host in lower case: `[::1]:8000` is `[::1]`."""
    name, bracket, rest = host.lower().rpartition(b"]")
    if bracket:
        return name + bracket if not rest or _PORT.fullmatch(rest) else host
    name, colon, port = host.lower().partition(b":")
    return name if not colon or _PORT.fullmatch(colon + port) else host


def _shown(value: bytes) -> str:
    return repr(value[:_SHOWN_CHARACTERS].decode("latin-1"))


def path_of(scope: Mapping[str, Any]) -> str:
    """The path below the root path under which the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(root) else path
