"""The HTTP surface as a plain ASGI application: keys, limits, errors as JSON, metrics; no framework before a decision."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import msgspec

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import PolicyStore
from scalepilot.serve.config import ServeConfig
from scalepilot.serve.decide import oip
from scalepilot.serve.decide.decisions import Outcome, decide_rows
from scalepilot.serve.decide.strict import Decided, answer, decide, parse_request
from scalepilot.serve.http.body import BodyReader, DisconnectedError, Headers, Receive, has_body
from scalepilot.serve.http.docs_page import CONTENT_SECURITY_POLICY
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.gate import HEALTH, METRICS, Gate, path_of
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.http.logs import LOGGER
from scalepilot.serve.http.metrics import CONTENT_TYPE, Metrics
from scalepilot.serve.http.surface import Post, Surface, fixed_pages, to_bytes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_READY = ("/health/ready", "/v2/health/ready")
_RETRY = ("retry-after", "1")
# As proxies count a client that left before it was answered.
_CLIENT_LEFT = 499
_SHOWN_CHARACTERS = 80
_POLL_SECONDS = 0.02
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_JSON_TYPE, _BINARY_TYPE = (b"content-type", b"application/json"), (b"content-type", b"application/octet-stream")
# Most shadow decisions that may wait; what comes beyond is not shadowed, so that a slow shadow slows nobody.
_MAX_SHADOWS = 64
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
        self._config = config or ServeConfig()
        self._store = store
        self._with_keys = keys is not None
        self._gate = Gate(self._config, keys)
        self.metrics = metrics or Metrics()
        self._names_requests = names_requests
        limits = self._config.limits
        self._bodies = BodyReader(limits.body_bytes, limits.request_seconds, limits.body_bytes_per_second)
        self._origins = {origin.encode() for origin in self._config.cors_origins}
        self._fixed = fixed_pages()
        self._surface = self._made_surface()
        self._ready, self._stopping = True, False
        self._in_flight = 0
        self._shadows = 0
        self._prefix, self._numbers = os.urandom(6).hex().encode(), itertools.count(1)
        self._log_second, self._logged = 0, 0
        self.metrics.follow(lambda: (self._ready, self._in_flight))

    def _made_surface(self) -> Surface:
        return Surface(self._store.catalogue, self._config.limits.body_bytes, self._fixed, with_keys=self._with_keys)

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
        self._ready = False
        await asyncio.sleep(self._config.limits.notice_seconds)

    async def drain(self, timeout_seconds: float) -> None:
        """Be not ready, refuse what comes and wait for what has begun.

        Args:
            timeout_seconds: wait no longer for clients that are slow to send their body.
        """
        self._ready, self._stopping = False, True
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self._in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        surface = self._surface
        if surface.catalogue is not self._store.catalogue:
            surface = self._surface = self._made_surface()
        exchange = _Exchange(scope)
        try:
            reply = await self._answer(surface, exchange, receive)
        except DisconnectedError:
            self._account(exchange, _CLIENT_LEFT, time.perf_counter() - began)
            return
        except RequestError as error:
            headers = [(name.encode(), value.encode("latin-1")) for name, value in error.headers]
            reply = error.status, [_JSON_TYPE, *headers], to_bytes(error.to_json())
            exchange.problem = str(error)
        except Exception:  # the last resort: no request may end the replica, and every answer is JSON
            _logger.exception("%s %s failed", scope["method"], scope["path"], extra={"event": "failed"})
            reply = 500, [_JSON_TYPE], to_bytes({"error": "internal error; the server's log has the details"})
        status, headers, body = reply
        headers = [*headers, (b"content-length", str(len(body)).encode()), _NOSNIFF]
        if self._names_requests:
            headers.append((b"x-request-id", self._request_id(exchange.headers)))
        if self._origins:
            headers += self._cors(exchange.headers)
        if not exchange.body_was_read and has_body(exchange.headers) and (b"connection", b"close") not in headers:
            # Whoever was refused need not be listened to any longer.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        self._account(exchange, status, time.perf_counter() - began)

    def _account(self, exchange: _Exchange, status: int, seconds: float) -> None:
        metrics, endpoint = self.metrics, exchange.endpoint
        served = exchange.served
        name, version = ("", "") if served is None else (served.spec.name, served.spec.version)
        metrics.count("requests", (endpoint, name, version, str(status)))
        metrics.observe("request_duration_seconds", endpoint, seconds)
        wanted = self._config.log_requests
        # Probes of a stopping server are answered 503 as they should be.
        if wanted == "all" or (wanted == "errors" and status >= HTTPStatus.BAD_REQUEST and endpoint != "health"):
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
        if self._logged > _MAX_LOGGED_PER_SECOND and self._config.log_requests != "all":
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

    async def _answer(self, surface: Surface, exchange: _Exchange, receive: Receive) -> tuple[int, Headers, bytes]:
        """Route a request to (status, headers, body).

        Raises:
            RequestError: every answer that is no success.
        """
        scope = exchange.scope
        path, method = path_of(scope), scope["method"]
        self._gate.check(method, path, exchange.headers, scope.get("http_version", ""))
        if method == "OPTIONS" and self._origins:
            return 204, [(b"allow", b"GET, HEAD, POST, OPTIONS")], b""
        if self._stopping and path != "/health/live":
            raise RequestError(503, "the server is stopping; try again", headers=[("connection", "close"), _RETRY])
        post = surface.posts.get(path) or surface.post(path)
        if post is not None:
            exchange.endpoint = post.endpoint
            _allow(scope, "POST")
            served = exchange.served = post.draw()
            body = await self._bodies.read(exchange.headers, receive)
            exchange.body_was_read = True
            if post.endpoint == "decide":
                return 200, [_JSON_TYPE], self._decide(post, served, body)
            return self._infer(post, served, exchange, body)
        return self._page(surface, exchange, path)

    def _page(self, surface: Surface, exchange: _Exchange, path: str) -> tuple[int, Headers, bytes]:
        if path in _READY:
            exchange.endpoint = "health"
            _allow(exchange.scope, "GET", "HEAD")
            return self._readiness(surface)
        if path == METRICS:
            exchange.endpoint = "metrics"
            _allow(exchange.scope, "GET", "HEAD")
            text = self.metrics.text(surface.catalogue, ready=self._ready, in_flight=self._in_flight)
            return 200, [(b"content-type", CONTENT_TYPE.encode())], text
        page = surface.page(path)
        if page is None:
            raise surface.unknown(path)
        exchange.endpoint = "health" if path in HEALTH else "page"
        _allow(exchange.scope, "GET", "HEAD")
        kind, body = page
        headers = [(b"content-type", kind.encode())]
        if kind.startswith("text/html"):
            headers.append((b"content-security-policy", CONTENT_SECURITY_POLICY.encode()))
        return 200, headers, body

    def _readiness(self, surface: Surface) -> tuple[int, Headers, bytes]:
        count = len(surface.catalogue)
        if not self._ready or not count:
            why = "stopping" if not self._ready else "no policy is loaded yet"
            raise RequestError(503, f"the server is not ready: {why}", headers=[_RETRY])
        return 200, [_JSON_TYPE], to_bytes({"status": "ready", "ready": True, "policies": count})

    def _decide(self, post: Post, served: ServedPolicy, body: bytes) -> bytes:
        read = served.reader.read(body)
        if read is None:
            decided = decide(served, parse_request(body))
        else:
            rows, many = read
            if not many and post.shadow is None and served.quick is not None:
                one = served.quick.answer(rows[0])
                if one is not None:
                    self.metrics.decided_one(served, one.move, post.endpoint, one.desired_replicas)
                    return msgspec.json.encode(one) + b"\n"
            decided = answer(served, rows, many)
        self._count(post, served, decided)
        return msgspec.json.encode(decided.to_json()) + b"\n"

    def _infer(self, post: Post, served: ServedPolicy, exchange: _Exchange, body: bytes) -> tuple[int, Headers, bytes]:
        length = next((value for name, value in exchange.headers if name == oip.HEADER_LENGTH), None)
        inferred = oip.infer(served, body, length)
        self._count(post, served, inferred)
        if inferred.header_length is None:
            return 200, [_JSON_TYPE], inferred.body
        return 200, [_BINARY_TYPE, (oip.HEADER_LENGTH, str(inferred.header_length).encode())], inferred.body

    def _count(self, post: Post, served: ServedPolicy, decided: Decided | oip.Inferred) -> None:
        self.metrics.decided(served, decided.outcome, len(decided.observation), post.endpoint, decided.clipped)
        if post.shadow is None:
            return
        if self._shadows >= _MAX_SHADOWS:
            self.metrics.count("shadow_decisions", (served.reference, post.shadow.reference, "skipped"), len(decided.observation))
        else:
            self._shadows += 1
            # After the answer has gone out.
            asyncio.get_running_loop().call_soon(self._decide_again, post.shadow, served, decided)

    def _decide_again(self, shadow: ServedPolicy, served: ServedPolicy, decided: Decided | oip.Inferred) -> None:
        self._shadows -= 1
        labels = (served.reference, shadow.reference)
        try:
            again = decide_rows(shadow, decided.observation)
        except Exception:  # a shadow may fail as it likes
            _logger.exception("shadow failed", extra={"event": "shadow_failed", "policy": shadow.reference})
            self.metrics.count("shadow_decisions", (*labels, "failed"), len(decided.observation))
            return
        same, difference = _agreement(decided.outcome, again)
        count = len(decided.observation)
        self.metrics.count("shadow_decisions", (*labels, "same"), same)
        self.metrics.count("shadow_decisions", (*labels, "different"), count - same)
        self.metrics.count("shadow_difference_replicas", labels, difference)

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

    __slots__ = ("body_was_read", "endpoint", "headers", "problem", "scope", "served")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.headers: Headers = scope["headers"]
        self.endpoint = "other"
        self.served: ServedPolicy | None = None
        self.problem = ""
        self.body_was_read = False


def _agreement(outcome: Outcome, again: Outcome) -> tuple[int, float]:
    """How many decisions are the same, and the sum of how far the others are apart in replicas."""
    if outcome.desired_replicas is not None and again.desired_replicas is not None:
        apart = abs(outcome.desired_replicas - again.desired_replicas)
        return int((apart == 0).sum()), float(apart.sum())
    if outcome.action is None or again.action is None or outcome.action.shape != again.action.shape:
        return 0, 0.0
    same = outcome.action == again.action
    return int(same.reshape(len(same), -1).all(axis=1).sum()), 0.0


def _allow(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        allowed = ", ".join(methods)
        shown = str(scope["method"])[:_SHOWN_CHARACTERS]
        raise RequestError(405, f"method: {shown} is not allowed here; allowed: {allowed}", headers=[("allow", allowed)])


async def refuse_websocket(scope: Scope, send: Send) -> None:
    """Answer a websocket's handshake as any other request that is not allowed, where the server in front lets us."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1003})
        return
    body = to_bytes({"error": "upgrade: websocket is not allowed; allowed: HTTP/1.1 requests"})
    headers = [_JSON_TYPE, _NOSNIFF, (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": 400, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


__all__ = ["PolicyApi", "Receive", "Scope", "Send"]
