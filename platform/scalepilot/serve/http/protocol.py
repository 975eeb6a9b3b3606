"""uvicorn's HTTP protocol with bounds: headers arrive in time and are of bounded size, answers are read, errors are JSON.

uvicorn waits without end for the headers of a request and for a client to read; both would let strangers hold connections for
ever. It takes the protocol that `direct.install_protocol` names.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# The same as with HAProxy in front (`haproxy_config.py`).
_MAX_URL_BYTES, _MAX_HEADER_BYTES = 8192, 16_384
_MAX_UNPARSED_BYTES = 65_536
_MAX_CONNECTIONS = 4096
_VERSIONS = ("1.0", "1.1")


class _WholeAnswers:
    """A transport that sends what is written in one turn of the loop in one piece.

    uvicorn writes the head of an answer and its body apart. HAProxy hands on each as it comes, so that a server that ends in
    between would leave a client with half an answer; and two pieces cost more than one.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Class attributes:
        seconds: for the headers of a request to arrive, and for a client to take more of its answer.
    """

    seconds = 10.0
    _headers_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None
    _in_headers, _began, _refused = True, False, False
    _unparsed_bytes = _header_bytes = 0
    # Why the parser was stopped: status and words.
    _problem: tuple[int, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(_WholeAnswers(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > _MAX_CONNECTIONS:
            transport.close()
            return
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        if self._reading_timer is not None:
            self._reading_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._refused or self.transport.is_closing():
            return
        self._began = True
        if self._in_headers:
            before, self._unparsed_bytes = self._unparsed_bytes, self._unparsed_bytes + len(data)
            # One piece may hold headers and much of a body; a second one means headers without end.
            if before and self._unparsed_bytes > _MAX_UNPARSED_BYTES:
                self._refuse(431, f"the headers are longer than {_MAX_HEADER_BYTES} bytes")
                return
        super().data_received(data)
        if self._in_headers and self._headers_timer is None and self._unparsed_bytes:
            self._wait_for_headers()

    def on_message_begin(self) -> None:
        """Headers come."""
        super().on_message_begin()
        self._in_headers, self._header_bytes, self._unparsed_bytes = True, 0, 1

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        super().on_url(url)
        if len(self.url) > _MAX_URL_BYTES:
            self._stop(414, f"the URL is longer than {_MAX_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > _MAX_HEADER_BYTES:
            self._stop(431, f"the headers are longer than {_MAX_HEADER_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """All headers are there; a target that is no path becomes `*`, which uvicorn itself cannot read."""
        self._in_headers, self._unparsed_bytes = False, 0
        self._stop_waiting()
        if self.parser.get_http_version() not in _VERSIONS:
            self._stop(400, "the request is not HTTP/1.1")
        no_path = self.url == b"*" or self.parser.get_method() == b"CONNECT"
        if no_path:
            self.url = b"/"
        super().on_headers_complete()
        if no_path:
            # Its task begins after this callback.
            self.scope["path"] = "*"
        if self.parser.should_upgrade():
            # What comes behind is no HTTP to the parser any more.
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """The client does not read: give it some time."""
        super().pause_writing()
        if self._reading_timer is None:
            self._reading_timer = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def send_400_response(self, msg: str) -> None:
        """Say why the parser was stopped, or stopped by itself."""
        self._refuse(*(self._problem or (400, "the request is not HTTP/1.1")))

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        return

    def _wait_for_headers(self) -> None:
        self._headers_timer = self.loop.call_later(self.seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _late(self) -> None:
        self._headers_timer = None
        if self._began:
            self._refuse(408, "the request did not arrive in time")
        else:
            self.transport.close()

    def _stop(self, status: int, words: str) -> None:
        """End parsing: what a callback raises, the parser raises."""
        self._problem = (status, words)
        raise ValueError(words)

    def _refuse(self, status: int, words: str) -> None:
        self._stop_waiting()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body or self.pipeline:
                # An earlier request on this connection is still being answered: that comes first, and then the end.
                cycle.keep_alive = False
                return
            # What is wrong is the body that the application waits for.
            cycle.disconnected = True
            cycle.message_event.set()
        body = json.dumps({"error": words}).encode() + b"\n"
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()
