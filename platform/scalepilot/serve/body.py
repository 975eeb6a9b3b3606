"""A request's body, as far as it is allowed to go: counted as it arrives, unpacked, and not waited for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from scalepilot.serve.errors import RequestError
from scalepilot.serve.unpack import Unpacker, too_large

_WATCH_SECONDS = 0.5
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = list[tuple[bytes, bytes]]


class DisconnectedError(Exception):
    """The client left before its request was complete; nobody waits for an answer."""


class BodyReader:
    """Reads bodies; used from one event loop.

    Args:
        max_bytes: of a body, packed and unpacked.
        seconds: for it to arrive.
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._max_bytes, self._seconds = max_bytes, seconds
        self._readings: set[_Reading] = set()
        self._watching: asyncio.TimerHandle | None = None

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, whatever its headers say.

        Raises:
            RequestError: 400 for one that does not unpack, 408 for one that is too slow, 413, or 415 for a foreign compression.
            DisconnectedError: the client left.
        """
        unpack = None
        for name, value in headers:
            if name == b"content-encoding" and value.lower() != b"identity":
                unpack = Unpacker(value, self._max_bytes)
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self._max_bytes:
                raise too_large(self._max_bytes)
        if self._watching is None:
            self._watch()
        reading = _Reading(asyncio.current_task(), time.monotonic() + self._seconds)
        self._readings.add(reading)
        try:
            packed = await self._received(receive)
            return packed if unpack is None else unpack(packed)
        except asyncio.CancelledError:
            if not reading.late:
                raise
            raise RequestError(
                408, f"body: did not arrive within {self._seconds:g} s; send it faster", headers=[("connection", "close")]
            ) from None
        finally:
            self._readings.discard(reading)

    def _watch(self) -> None:
        """End what takes too long, twice a second for all of them: a timer for each request would cost more than its decision."""
        now = time.monotonic()
        for reading in self._readings:
            if now > reading.deadline and not reading.late and reading.task is not None:
                reading.late = True
                reading.task.cancel()
        self._watching = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._watch)

    async def _received(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunk: bytes = message.get("body", b"")
            length += len(chunk)
            if length > self._max_bytes:
                raise too_large(self._max_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Reading:
    """A body on its way."""

    __slots__ = ("deadline", "late", "task")

    def __init__(self, task: asyncio.Task[Any] | None, deadline: float) -> None:
        self.task, self.deadline, self.late = task, deadline, False
