"""Clients that hold a server up: each opens a connection, does one of the slow things below, and stays until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

SECOND = 1.0


@dataclass
class Watched:
    """What others were answered meanwhile: path → status → how often, and the longest wait in seconds."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    slowest_seconds: float = 0.0

    def note(self, name: str, status: int, seconds: float) -> None:
        self.statuses.setdefault(name, Counter())[status] += 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)

    def failed(self) -> dict[str, dict[int, int]]:
        """Everything that was not a 200."""
        found = {name: {s: n for s, n in counts.items() if s != 200} for name, counts in self.statuses.items()}
        return {name: counts for name, counts in found.items() if counts}


def request_bytes(method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """A request as it goes over the wire; Host and Content-Length are added where they are not given."""
    given = {"Host": "127.0.0.1", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def slow_parts(kind: str, path: str, headers: dict[str, str]) -> Iterator[bytes]:
    """What such a client sends, a second between two parts.

    Args:
        kind: stalled, small, trickle, expect, headers, silent, idle, pipeline, unread.
        path: of a POST.
        headers: beside Host.
    """
    if kind == "stalled":
        yield request_bytes("POST", path, headers | {"Content-Length": "100000"}) + b" " * 70_000
    elif kind == "small":
        yield request_bytes("POST", path, headers | {"Content-Length": "1000"}) + b" " * 10
    elif kind == "trickle":
        yield request_bytes("POST", path, headers | {"Transfer-Encoding": "chunked"})
        while True:
            yield b"1\r\n \r\n"
    elif kind == "late_trickle":
        yield request_bytes("POST", path, headers | {"Transfer-Encoding": "chunked"}) + b"11170\r\n" + b" " * 70_000 + b"\r\n"
        while True:
            yield b"1\r\n \r\n"
    elif kind == "expect":
        yield request_bytes("POST", path, headers | {"Content-Length": "1000", "Expect": "100-continue"})
    elif kind == "headers":
        yield b"POST " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        for i in range(1000):
            yield b"X-%d: 1\r\n" % i
    elif kind == "silent":
        yield b""
    elif kind == "idle":
        yield request_bytes("GET", "/health/live")
    elif kind == "pipeline":
        yield request_bytes("GET", "/v1/policies", headers) * 200
    elif kind == "unread":
        yield request_bytes("GET", "/docs/swagger-ui-bundle.js", headers)
    else:
        raise ValueError(kind)


@asynccontextmanager
async def slow_clients(port: int, count: int, kind: str, path: str, headers: dict[str, str]) -> AsyncIterator[list[float]]:
    """So many of them, until the block is left; gives the seconds after which the server closed each of those it did."""
    closed: list[float] = []

    async def hold() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**14)
        begin = time.monotonic()
        try:
            sending = asyncio.create_task(_send(writer, kind, path, headers))
            if kind == "unread":
                await asyncio.sleep(3600)
            with contextlib.suppress(OSError):
                while await reader.read(65536):
                    pass
            closed.append(time.monotonic() - begin)
            sending.cancel()
        finally:
            writer.transport.abort()

    tasks = [asyncio.create_task(hold()) for _ in range(count)]
    await asyncio.sleep(SECOND)
    try:
        yield closed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, kind: str, path: str, headers: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        for part in slow_parts(kind, path, headers):
            writer.write(part)
            await asyncio.sleep(SECOND)


async def exchange(port: int, data: bytes, timeout: float = 15.0) -> bytes:
    """What is answered to some bytes until the server closes or falls silent; asks on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(data)
        async with asyncio.timeout(timeout):
            while chunk := await reader.read(65536):
                answer += chunk
    except (TimeoutError, OSError):
        pass
    finally:
        writer.transport.abort()
    return answer


async def watch(port: int, seconds: float, requests: dict[str, bytes]) -> Watched:
    """Ask each of some requests about ten times a second, each on a new connection, and note the statuses.

    In a thread of its own: a thousand slow clients keep this one's loop busy, and what it sends late is answered 408.

    Args:
        port: of the server.
        seconds: how long.
        requests: name → bytes; `Connection: close` in their headers.
    """
    return await asyncio.to_thread(asyncio.run, _watch(port, seconds, requests))


async def _watch(port: int, seconds: float, requests: dict[str, bytes]) -> Watched:
    watched = Watched()

    async def ask(name: str, data: bytes) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            answer = await exchange(port, data, timeout=5)
            status = int(answer[9:12]) if answer[:5] == b"HTTP/" else 0
            watched.note(name, status, time.monotonic() - begin)
            await asyncio.sleep(0.1)

    await asyncio.gather(*(ask(name, data) for name, data in requests.items()))
    return watched
