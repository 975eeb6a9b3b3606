"""Who is let in: what a request says of itself before a byte of its body is read. Cheap, so that a refusal costs nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from starlette.routing import compile_path

from scalepilot.serve.config import ServeConfig
from scalepilot.serve.http import endpoints
from scalepilot.serve.http.body import Headers
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.keys import ApiKeys

# A server that answers on loopback without keys is asked under these names alone: a web page whose own name was made to point
# here (DNS rebinding) sends its own.
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_METHODS = "GET, HEAD, POST"
_PORT = re.compile(rb":\d{0,5}")
_SHOWN_CHARACTERS = 80
_OWN_PAGES = (b"same-origin", b"none")


class Gate:
    """Checks a request's method, host, origin and key.

    Args:
        config: what is open, which hosts and origins are allowed.
        keys: who may ask; None asks for none.

    Attributes:
        open_to_all: paths that need no key and are answered under every name: health.
    """

    def __init__(self, config: ServeConfig, keys: ApiKeys | None) -> None:
        self._keys = keys
        self.open_to_all = frozenset(endpoint.path for endpoint in endpoints.ENDPOINTS if endpoint.key == "never")
        self._opened = [compile_path(endpoint.path)[0] for endpoint in endpoints.ENDPOINTS if endpoint.key in config.open]
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
                405, f"method: {shown} is not allowed here; allowed: {_METHODS} of a path", headers=[("allow", _METHODS)]
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
        if path in self.open_to_all:
            return
        if self._hosts:
            self._check_host(found.get(b"host"))
        if method == "POST":
            self._check_origin(found)
        # A browser that asks whether it may ask sends no key.
        if self._keys is None or (method == "OPTIONS" and self._origins):
            return
        if not (self._opened and any(path_regex.fullmatch(path) for path_regex in self._opened)):
            self._keys.check(headers)

    def _check_host(self, host: bytes | None) -> None:
        # A client of HTTP/1.0 may name none; a browser always does.
        if host is None or _without_port(host) in self._hosts:
            return
        allowed = ", ".join(sorted(name.decode() for name in self._hosts))
        raise RequestError(
            421,
            f"host: {_shown(host)} is not a name of this server; allowed: {allowed}, and those of allowed_hosts in its"
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
