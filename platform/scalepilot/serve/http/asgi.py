"""The HTTP surface as a plain ASGI application: keys, limits, errors as JSON, metrics; no framework before a decision."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from http import HTTPStatus
from typing import Any

from scalepilot.policy.artifact import refused_in_a_line
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue, PolicyStore
from scalepilot.serve.config import ServeConfig
from scalepilot.serve.http.body import BodyReader, DisconnectedError, Headers, Receive
from scalepilot.serve.http.deciding import Shadows
from scalepilot.serve.http.endpoint import Call, Endpoint
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.gate import Gate, path_of
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.http.logs import LOGGER
from scalepilot.serve.http.metrics import Metrics
from scalepilot.serve.http.replies import JSON_TYPE, Reply, Scope, Send, refusal, refuse_websocket, send_reply, to_bytes
from scalepilot.serve.http.surface import Surface, Target
from scalepilot.serve.page import page_files

_LIVE = ("/health/live", "/v2/health/live")
_RETRY = ("retry-after", "1")
# As proxies count a client that left before it was answered.
_CLIENT_LEFT = 499
_SHOWN_CHARACTERS = 80
_POLL_SECONDS = 0.02
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_MAX_LOGGED_PER_SECOND = 50
_logger = logging.getLogger(LOGGER)


class PolicyApi:
    """Answers HTTP for a store of policies; keeps nothing between requests but counts.

    Args:
        store: what is served; its catalogue may be replaced at any time.
        config: limits, what is open, what is logged.
        keys: who may ask; None asks for none.
        metrics: where requests are counted.
        names_requests: answers carry `x-request-id`; false where a proxy in front says it.
    """

    def __init__(
        self,
        store: PolicyStore,
        config: ServeConfig | None = None,
        *,
        keys: ApiKeys | None = None,
        metrics: Metrics | None = None,
        names_requests: bool = True,
    ) -> None:
        self.config = config or ServeConfig()
        self.with_keys = keys is not None
        self.metrics = metrics or Metrics()
        self.shadows = Shadows(self.metrics)
        self.ready, self._stopping = True, False
        self._store = store
        self._gate = Gate(self.config, keys)
        self._names_requests = names_requests
        limits = self.config.limits
        self._bodies = BodyReader(limits.body_bytes, limits.request_seconds, limits.body_bytes_per_second)
        self._origins = {origin.encode() for origin in self.config.cors_origins}
        self._surface = Surface(store.catalogue)
        # Read now, as a package that is not installed is better missed now than by a person who opens a page.
        page_files()
        self._in_flight = 0
        self._prefix, self._numbers = os.urandom(6).hex().encode(), itertools.count(1)
        self._log_second, self._logged = 0, 0
        self.metrics.follow(lambda: (self.ready, self._in_flight))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await refuse_websocket(scope, send)
            return
        self._in_flight += 1
        try:
            await self._exchange(scope, receive, send)
        finally:
            self._in_flight -= 1

    async def notice(self) -> None:
        """Be not ready, and still answer: load balancers turn away before anything is refused."""
        self.ready = False
        await asyncio.sleep(self.config.limits.notice_seconds)

    async def drain(self, timeout_seconds: float) -> None:
        """Be not ready, refuse what comes and wait for what has begun.

        Args:
            timeout_seconds: wait no longer for clients that are slow to send their body.
        """
        self.ready, self._stopping = False, True
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self._in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        surface = self._surface
        if surface.catalogue is not self._store.catalogue:
            surface = self._surface = Surface(self._store.catalogue)
        exchange = _Exchange(scope)
        try:
            reply = await self._answer(surface, exchange, receive)
        except DisconnectedError:
            self._account(exchange, _CLIENT_LEFT, time.perf_counter() - began)
            return
        except RequestError as error:
            reply = refusal(error)
            exchange.problem = str(error)
        except Exception:  # the last resort: no request may end the replica, and every answer is JSON
            _logger.exception("%s %s failed", scope["method"], scope["path"], extra={"event": "failed"})
            reply = refusal(RequestError(500, "internal error; the server's log has the details"))
        more: Headers = []
        if self._names_requests:
            more.append((b"x-request-id", self._request_id(exchange.headers)))
        if self._origins:
            more += self._cors(exchange.headers)
        await send_reply(scope, send, reply, more, body_was_read=exchange.body_was_read)
        self._account(exchange, reply[0], time.perf_counter() - began)

    def _account(self, exchange: _Exchange, status: int, seconds: float) -> None:
        metrics, label = self.metrics, exchange.label
        served = exchange.served
        name, version = ("", "") if served is None else (served.spec.name, served.spec.version)
        metrics.count("requests", (label, name, version, str(status)))
        metrics.observe("request_duration_seconds", label, seconds)
        wanted = self.config.log_requests
        # Probes of a stopping server are answered 503 as they should be.
        if wanted == "all" or (wanted == "errors" and status >= HTTPStatus.BAD_REQUEST and label != "health"):
            self._log(exchange, status, seconds)

    def _log(self, exchange: _Exchange, status: int, seconds: float) -> None:
        """A line for a request, at most so many a second: a flood must fill neither the disk nor the replica's time."""
        second = int(time.monotonic())
        if second != self._log_second:
            if self._logged > _MAX_LOGGED_PER_SECOND:
                dropped = self._logged - _MAX_LOGGED_PER_SECOND
                _logger.warning("requests not logged", extra={"event": "requests_not_logged", "count": dropped})
            self._log_second, self._logged = second, 0
        self._logged += 1
        if self._logged > _MAX_LOGGED_PER_SECOND and self.config.log_requests != "all":
            return
        scope = exchange.scope
        extra = {
            "event": "request",
            "request_id": self._request_id(exchange.headers).decode("latin-1"),
            "method": scope["method"],
            "path": scope["path"][:_SHOWN_CHARACTERS],
            "status": status,
            "milliseconds": round(1000 * seconds, 3),
        }
        if exchange.problem:
            extra["error"] = exchange.problem[:200]
        _logger.info("request", extra=extra)

    def _request_id(self, headers: Headers) -> bytes:
        for name, value in headers:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                return value
        return b"%s-%x" % (self._prefix, next(self._numbers))

    async def _answer(self, surface: Surface, exchange: _Exchange, receive: Receive) -> Reply:
        """Answer a request.

        Raises:
            RequestError: every answer that is no success.
        """
        scope = exchange.scope
        path, method = path_of(scope), scope["method"]
        self._gate.check(method, path, exchange.headers, scope.get("http_version", ""))
        if method == "OPTIONS" and self._origins:
            # Asked without a key: it must not tell which policies there are.
            allowed = ", ".join([*surface.match(path)[0], "OPTIONS"])
            return 204, [(b"allow", allowed.encode())], b""
        if self._stopping and path not in _LIVE:
            raise RequestError(503, "the server is stopping; try again", headers=[("connection", "close"), _RETRY])
        target = surface.targets.get(path) or surface.find(path)
        endpoint = target.methods.get(method)
        exchange.label = (endpoint or next(iter(target.methods.values()))).label
        if endpoint is None:
            raise target.not_allowed(method)
        if endpoint.method == "POST":
            served = exchange.served = target.draw()
            body = await self._bodies.read(exchange.headers, receive)
            exchange.body_was_read = True
            call = Call(self, surface.catalogue, endpoint, path, target.named, served, target.shadow, exchange.headers, body)
            answer = endpoint.answer(call)
            # The usual answer, without a further call.
            return (200, [JSON_TYPE], answer) if type(answer) is bytes else _reply(answer)
        return self._page(surface, target, endpoint, path, exchange.headers)

    def _page(self, surface: Surface, target: Target, endpoint: Endpoint, path: str, headers: Headers) -> Reply:
        kept = surface.kept.get(path)
        if kept is not None:
            return kept
        call = Call(self, surface.catalogue, endpoint, path, target.named, target.served, headers=headers)
        reply = _reply(endpoint.answer(call))
        if endpoint.kept:
            surface.kept[path] = reply
        return reply

    def metrics_text(self, catalogue: Catalogue) -> bytes:
        """What Prometheus is told."""
        return self.metrics.text(catalogue, ready=self.ready, in_flight=self._in_flight)

    def _cors(self, headers: Headers) -> Headers:
        origin = next((value for name, value in headers if name == b"origin"), b"")
        if origin not in self._origins:
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-headers", b"authorization, content-type, x-api-key, x-request-id"),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"vary", b"Origin"),
        ]


class _Exchange:
    """A request on its way: what the metrics and the log say of it."""

    __slots__ = ("body_was_read", "headers", "label", "problem", "scope", "served")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.headers: Headers = scope["headers"]
        self.label = "other"
        self.served: ServedPolicy | None = None
        self.problem = ""
        self.body_was_read = False


def check_pages(served: ServedPolicy) -> None:
    """Make every page that tells of a policy, before anybody asks for one.

    Raises:
        ArtifactError: one of them cannot be made of it.
    """
    api = PolicyApi(PolicyStore([served]))
    with refused_in_a_line(str(served.folder)):
        for path, target in api._surface.targets.items():
            endpoint = target.methods.get("GET")
            if endpoint is not None and (endpoint.kept or target.served is not None):
                api._page(api._surface, target, endpoint, path, [])


def _reply(answer: Any) -> Reply:
    """What a handler gave, as status, headers and body."""
    if isinstance(answer, tuple):
        return answer
    return 200, [JSON_TYPE], answer if isinstance(answer, bytes) else to_bytes(answer)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


__all__ = ["PolicyApi", "Receive", "Scope", "Send"]
