"""A request's body, as far as it is allowed to go: counted as it arrives, unpacked, and not waited for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.unpack import Unpacker, too_large

_WATCH_SECONDS = 0.5
# The rate of a body is measured over this long, so that a pause of the network is forgiven.
_RATE_SECONDS = 2.0
# Of all bodies that are on their way in one process: many clients together must not fill its memory.
_MAX_BYTES_TOGETHER = 256 << 20
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = list[tuple[bytes, bytes]]


class DisconnectedError(Exception):
    """The client left before its request was complete; nobody waits for an answer."""


class BodyReader:
    """Reads bodies; used from one event loop.

    Args:
        max_bytes: of a body, packed and unpacked.
        seconds: for it to arrive.
        least_rate: bytes a second, measured over two seconds each.
    """

    def __init__(self, max_bytes: int, seconds: float, least_rate: float = 0.0) -> None:
        self._max_bytes, self._seconds, self._least_rate = max_bytes, seconds, least_rate
        self._watched = 0.0
        self._together = 0
        self._readings: set[_Reading] = set()
        self._watching: asyncio.TimerHandle | None = None

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, unpacked, whatever its headers say.

        Raises:
            RequestError: 400 for one that does not unpack, 408 for one that is too slow, 413, or 415 for a foreign compression.
            DisconnectedError: the client left.
        """
        unpack = None
        for name, value in headers:
            if name == b"content-encoding" and value.lower() != b"identity":
                unpack = Unpacker(value, self._max_bytes)
        packed = await self.read_packed(headers, receive)
        return packed if unpack is None else unpack(packed)

    async def read_packed(self, headers: Headers, receive: Receive) -> bytes:
        """The same as it arrives.

        Raises:
            RequestError: 408, 413, or 503 where all bodies together are too large.
            DisconnectedError: the client left.
        """
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self._max_bytes:
                raise too_large(self._max_bytes)
        if self._watching is None:
            self._watch()
        reading = _Reading(asyncio.current_task(), time.monotonic() + self._seconds)
        self._readings.add(reading)
        try:
            return await self._received(receive, reading)
        except asyncio.CancelledError:
            if not reading.late:
                raise
            raise RequestError(408, f"body: {reading.late}; send it faster", headers=[("connection", "close")]) from None
        finally:
            self._readings.discard(reading)
            self._together -= reading.arrived

    def _watch(self) -> None:
        """End what takes too long, twice a second for all of them: a timer for each request would cost more than its decision."""
        now = time.monotonic()
        # After a pause of this process what clients sent meanwhile still waits to be read: theirs is another two seconds.
        paused = now - self._watched > 2 * _WATCH_SECONDS
        self._watched = now
        for reading in self._readings:
            if reading.late or reading.task is None:
                continue
            if now > reading.deadline:
                reading.late = f"did not arrive within {self._seconds:g} s"
            elif paused or now - reading.measured >= _RATE_SECONDS:
                if not paused and reading.arrived - reading.before < self._least_rate * (now - reading.measured):
                    reading.late = f"arrived at less than {self._least_rate:g} bytes a second"
                reading.measured, reading.before = now, reading.arrived
            if reading.late:
                reading.task.cancel()
        self._watching = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._watch)

    async def _received(self, receive: Receive, reading: _Reading) -> bytes:
        chunks: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunk: bytes = message.get("body", b"")
            reading.arrived += len(chunk)
            self._together += len(chunk)
            if reading.arrived > self._max_bytes:
                raise too_large(self._max_bytes)
            if self._together > _MAX_BYTES_TOGETHER:
                raise RequestError(503, "too many request bodies at once; try again", headers=[("retry-after", "1")])
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Reading:
    """A body on its way."""

    __slots__ = ("arrived", "before", "deadline", "late", "measured", "task")

    def __init__(self, task: asyncio.Task[Any] | None, deadline: float) -> None:
        self.task, self.deadline = task, deadline
        # Why it is given up; empty while it is not.
        self.late = ""
        self.arrived = self.before = 0
        self.measured = time.monotonic()


def has_body(headers: Headers) -> bool:
    """Whether a request says that it has a body, or sends one in chunks."""
    return any((name == b"content-length" and value != b"0") or name == b"transfer-encoding" for name, value in headers)
