"""The HTTP surface as a plain ASGI application: routes, the body limit, errors as JSON; no framework before a decision."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from scalepilot.serve.describe import describe_all, describe_one
from scalepilot.serve.docs_page import CONTENT_SECURITY_POLICY, docs_files
from scalepilot.serve.errors import RequestError
from scalepilot.serve.openapi import openapi_document
from scalepilot.serve.schema import decide, parse_request
from scalepilot.serve.store import PolicyStore

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 1 << 20
_JSON = "application/json"
_POLICIES, _DECIDE = "/v1/policies/", ":decide"
_ENDPOINTS = "/v1/policies, /v1/policies/{name}, /v1/policies/{name}:decide, /health/live, /health/ready, /openapi.json, /docs"
_SHOWN_CHARACTERS = 80
_POLL_SECONDS = 0.02
_logger = logging.getLogger(__name__)


class _DisconnectedError(Exception):
    """The client left before its request was complete; nobody waits for an answer."""


class PolicyApi:
    """Answers HTTP for a store of policies; keeps nothing between requests.

    Args:
        store: what is served.
        max_body_bytes: a request's body may be as long, counted as it arrives.
    """

    def __init__(self, store: PolicyStore, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._store = store
        self._max_body_bytes = max_body_bytes
        self._stopping = False
        self._in_flight = 0
        # Everything that is the same for every client is made once.
        self._pages = {
            "/health/live": (_JSON, to_bytes({"status": "live"})),
            "/health/ready": (_JSON, to_bytes({"status": "ready", "policies": len(store)})),
            "/v1/policies": (_JSON, to_bytes(describe_all(store))),
            "/openapi.json": (_JSON, to_bytes(openapi_document(store, max_body_bytes))),
        } | docs_files()
        for served in store:
            self._pages[_POLICIES + served.spec.name] = (_JSON, to_bytes(describe_one(served)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        self._in_flight += 1
        try:
            await self._exchange(scope, receive, send)
        finally:
            self._in_flight -= 1

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[str, str]] = []
        try:
            status, kind, body = 200, *await self._answer(scope, receive)
        except _DisconnectedError:
            return
        except RequestError as error:
            status, kind, body, headers = error.status, _JSON, to_bytes(error.to_json()), error.headers
        except Exception:  # the last resort: no request may end the replica, and every answer is JSON
            _logger.exception("%s %s failed", scope["method"], scope["path"])
            status, kind, body = 500, _JSON, to_bytes({"error": "internal error; the server's log has the details"})
        await _respond(send, status, kind, body, headers, head=scope["method"] == "HEAD")

    async def drain(self, timeout_seconds: float) -> None:
        """Be not ready, refuse what comes and wait for what has begun.

        Args:
            timeout_seconds: wait no longer for clients that are slow to send their body.
        """
        self._stopping = True
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while self._in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, bytes]:
        """Route a request to (content type, body) of its 200.

        Raises:
            RequestError: every other answer.
        """
        if self._stopping and scope["path"] != "/health/live":
            raise RequestError(503, "the server is stopping; try again", headers=[("connection", "close"), ("retry-after", "1")])
        path: str = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
        if path.startswith(_POLICIES) and path.endswith(_DECIDE):
            _allow(scope, "POST")
            served = self._store.get(path[len(_POLICIES) : -len(_DECIDE)])
            request = parse_request(await self._body(scope, receive))
            return _JSON, to_bytes(decide(served, request))
        page = self._pages.get(path)
        if page is not None:
            _allow(scope, "GET", "HEAD")
            return page
        if path.startswith(_POLICIES):
            self._store.get(path[len(_POLICIES) :])
        raise RequestError(404, f"path: {path[:_SHOWN_CHARACTERS]!r} is not served; allowed: {_ENDPOINTS}")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Read a body as far as it is allowed to go, whatever its headers say.

        Raises:
            RequestError: 413, or 415 for a compressed one.
        """
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.lower() != b"identity":
                shown = value.decode("latin-1")[:_SHOWN_CHARACTERS]
                raise RequestError(415, f"content-encoding: {shown!r} is not allowed; allowed: identity, JSON as it is")
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self._max_body_bytes:
                raise self._too_large()
        chunks: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _DisconnectedError
            chunk: bytes = message.get("body", b"")
            length += len(chunk)
            if length > self._max_body_bytes:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> RequestError:
        return RequestError(
            413, f"body: more than {self._max_body_bytes} bytes are not allowed; send fewer observations a request"
        )


def to_bytes(value: Any) -> bytes:
    """JSON in UTF-8 on one line.

    Raises:
        ValueError: a number that JSON does not have.
    """
    # A client's field name may hold half a surrogate pair: it goes back escaped, as it came.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def _allow(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        allowed = ", ".join(methods)
        shown = str(scope["method"])[:_SHOWN_CHARACTERS]
        raise RequestError(405, f"method: {shown} is not allowed here; allowed: {allowed}", headers=[("allow", allowed)])


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _respond(send: Send, status: int, kind: str, body: bytes, headers: list[tuple[str, str]], *, head: bool) -> None:
    sent = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    if kind.startswith("text/html"):
        sent.append((b"content-security-policy", CONTENT_SECURITY_POLICY.encode()))
    sent += [(name.encode(), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": b"" if head else body})
