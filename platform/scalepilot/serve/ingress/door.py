"""The door of Serve's own proxy (`--ingress plain`): what HAProxy does otherwise, before a request takes a replica's place.

A request that is not allowed is answered here, by its headers. One that is allowed is handed on once its body is there. Only as
many are handed on as the replicas have places, and health always is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from scalepilot.serve.config import ServeConfig
from scalepilot.serve.http.body import BodyReader, DisconnectedError, Receive, has_body
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.gate import Gate, path_of
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.http.replies import Message, Scope, Send, refusal, refuse_websocket, send_reply

_RETRY = [("retry-after", "1")]


class Door:
    """ASGI middleware in front of what hands requests to replicas.

    Args:
        app: that.
        config: limits, and who may ask.
        keys: of those who may; None asks for none.
    """

    def __init__(self, app: Any, config: ServeConfig, keys: ApiKeys | None) -> None:
        self._app = app
        self._gate = Gate(config, keys)
        limits = config.limits
        self._bodies = BodyReader(limits.body_bytes, limits.request_seconds, limits.body_bytes_per_second)
        self._seconds = limits.request_seconds
        self._free = config.replicas * limits.requests_per_replica
        self._most_waiting = limits.queued_requests
        self._waiting: list[asyncio.Future[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "websocket":
            await refuse_websocket(scope, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            path = path_of(scope)
            self._gate.check(scope["method"], path, scope["headers"], scope.get("http_version", ""))
            if path in self._gate.open_to_all:
                await self._app(scope, _whole(b"", receive), send)
                return
            body = await self._bodies.read_packed(scope["headers"], receive) if has_body(scope["headers"]) else b""
            await self._place()
        except DisconnectedError:
            return
        except RequestError as error:
            await send_reply(scope, send, refusal(error))
            return
        held = True

        def leave() -> None:
            nonlocal held
            if held:
                held = False
                self._leave()

        async def passed_on(message: Message) -> None:
            # The replica is done; how fast the client reads is no longer its concern.
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                leave()
            await send(message)

        try:
            await self._app(scope, _whole(body, receive), passed_on)
        finally:
            leave()

    async def _place(self) -> None:
        """Wait for a place.

        Raises:
            RequestError: 503: too many wait, or none became free in time.
        """
        if self._free > 0:
            self._free -= 1
            return
        if len(self._waiting) < self._most_waiting:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await asyncio.wait_for(turn, self._seconds)
            except TimeoutError:
                pass
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
            else:
                return
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        raise RequestError(503, "no replica is free; try again", headers=_RETRY)

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.pop(0)
            if not turn.done():
                # The place goes from hand to hand.
                turn.set_result(None)
                return
        self._free += 1


def _whole(body: bytes, receive: Receive) -> Receive:
    """A body that has arrived, then what the client does."""
    given = False

    async def whole() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return whole
