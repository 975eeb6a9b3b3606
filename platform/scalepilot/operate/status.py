"""A controller's own door: /status, /v1/decisions and /metrics for whoever looks, and on loopback pause, resume, acknowledge."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from scalepilot.errors import InputError
from scalepilot.operate.answering import Handler, answering, host_and_port
from scalepilot.operate.controller import Controller
from scalepilot.operate.feeds import Offers
from scalepilot.operate.page import history, page
from scalepilot.operate.snapshot import utc

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_MOST_DECISIONS = 1000
_ALLOWED = "/, /status, /v1/decisions, /v1/history, /metrics, /healthz"
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}


@contextlib.contextmanager
def status_server(controller: Controller, listen: str | None, offers: Offers | None = None) -> Iterator[str]:
    """Answer for the length of a `with` block.

    Args:
        controller: whose.
        listen: HOST:PORT, port 0 for any; None for nothing.
        offers: what /v1/replicas tells; None for nothing.

    Yields:
        The address, "" for None.

    Raises:
        InputError: not an address, or one that cannot be had.
    """
    if listen is None:
        yield ""
        return
    host, port = host_and_port(listen, "listen")

    class Door(_Handler):
        """With the controller it speaks for."""

        shown = controller
        offered = offers

    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(answering(Door, host, port, "status"))
        except OSError as error:
            told = f"is not available ({error.strerror}); allowed: a free port, or 0 for any"
            raise InputError(f"listen: {listen} {told}") from None
        yield url


class _Handler(Handler):
    """With what this door answers."""

    shown: Controller
    offered: Offers | None

    def do_GET(self) -> None:
        """Read-only."""
        parts = urlsplit(self.path)
        if not self._own_name():
            return
        if parts.path == "/":
            body, policy = page()
            self._answer(200, body, "text/html; charset=utf-8", policy)
        elif parts.path == "/v1/history":
            since = _moment(parse_qs(parts.query).get("since", ["0"])[0])
            if since is None:
                self._json(422, {"error": "since: is not allowed; allowed: Unix seconds"})
                return
            self._json(200, history(self.shown, since))
        elif parts.path == "/metrics":
            self._answer(200, self.shown.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
        elif parts.path == "/status":
            self._json(200, status(self.shown))
        elif parts.path == "/v1/decisions":
            last = parse_qs(parts.query).get("last", ["20"])[0]
            if not last.isdecimal() or len(last) > 6 or not 1 <= int(last) <= _MOST_DECISIONS:
                self._json(422, {"error": f"last: {last[:20]!r} is not allowed; allowed: 1 to {_MOST_DECISIONS}"})
                return
            self._json(200, [entry.to_json() for entry in list(self.shown.entries)[-int(last) :]])
        elif parts.path == "/v1/replicas" and self.offered is not None:
            offer = self.offered.newest()
            # Nothing that could be taken for a number where there is none.
            told = {"replicas": offer.replicas} if offer.replicas is not None else {"error": offer.problem}
            at = {} if offer.decided is None else {"at": utc(offer.decided)}
            self._json(200 if offer.replicas is not None else 503, {**told, **at})
        elif parts.path == "/healthz":
            self._answer(200, b"ok\n", "text/plain")
        else:
            self._json(404, {"error": f"{parts.path[:80]}: not found; allowed: {_ALLOWED}"})

    def do_POST(self) -> None:
        """What changes something: from this machine alone, and from no web page."""
        actions = {
            "/v1/pause": lambda: self.shown.pause(True),
            "/v1/resume": lambda: self.shown.pause(False),
            "/v1/acknowledge": self.shown.acknowledge,
        }
        path = urlsplit(self.path).path
        if not self._own_name():
            return
        if path not in actions:
            self._json(404, {"error": f"{path[:80]}: not found; allowed: {', '.join(actions)}"})
        elif not ipaddress.ip_address(self.client_address[0]).is_loopback or "Origin" in self.headers:
            self._json(403, {"error": "allowed: from this machine, not from a web page"})
        else:
            actions[path]()
            self._json(200, {"done": path.rpartition("/")[2]})

    def _own_name(self) -> bool:
        """On loopback a web page whose name was made to point here (DNS rebinding) is refused."""
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if ipaddress.ip_address(self.client_address[0]).is_loopback and name.lower() not in _LOOPBACK_NAMES:
            self._json(421, {"error": f"host: {name[:80]!r} is not allowed; allowed: {', '.join(_LOOPBACK_NAMES)}"})
            return False
        return True

    def _json(self, code: int, value: Any) -> None:
        self._answer(code, json.dumps(value, ensure_ascii=False).encode() + b"\n", "application/json")

    def _answer(self, code: int, body: bytes, kind: str, policy: str = "default-src 'none'; frame-ancestors 'none'") -> None:
        self.answer(code, body, kind, {**_HEADERS, "content-security-policy": policy})


def _moment(text: str) -> float | None:
    """Unix seconds; None where it is not a time."""
    try:
        value = float(text[:40])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def status(controller: Controller) -> dict[str, Any]:
    """Where a controller stands, as plain data."""
    newest = controller.entries[-1].to_json() if controller.entries else None
    shown = ("at", "mode", "reason", "spec", "wanted", "target", "outcome", "sentence")
    return {
        "policy": controller.service.policy,
        "target": controller.target.name,
        "dry_run": controller.dry_run,
        "interval_seconds": controller.interval,
        "paused": controller.state.pause,
        "newest": None if newest is None else {name: newest[name] for name in shown},
        "fields": {} if newest is None else newest["fields"],
    }
