"""A small HTTP server in a thread: a controller's door, its feeds, and the twin's page."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scalepilot.errors import InputError

Tls = Callable[[], ssl.SSLContext]
_POLL_SECONDS = 0.1


# A connection has a thread, and one of the files that a process may have open. Beyond, the oldest one is ended.
_MOST_CONNECTIONS = 64


class Handler(BaseHTTPRequestHandler):
    """One request. Slow clients are left after some seconds, and nothing is logged."""

    timeout = 5
    server_version = "scalepilot"
    sys_version = ""

    def answer(self, code: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a body.

        Args:
            code: status.
            body: of the answer.
            kind: its content type.
            headers: further ones.
        """
        self.send_response(code)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        # Whoever asked may have given up.
        with contextlib.suppress(OSError):
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: what matters has its line already."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = _MOST_CONNECTIONS
    tls: Tls | None = None

    def __init__(self, *arguments: Any) -> None:
        self._open: dict[Any, None] = {}
        self._open_lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Let a thread answer. Whoever is slow, or opens many, keeps no other away."""
        with self._open_lock:
            if len(self._open) >= _MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(oldest, socket.SHUT_RDWR)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """At the end of a request."""
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def get_request(self) -> tuple[Any, Any]:
        """A connection, with TLS around it where that is asked for."""
        connection, address = super().get_request()
        if self.tls is None:
            return connection, address
        # The handshake waits for its client in that request's own thread, not here where all others come in.
        return self.tls().wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or that speaks no TLS, is no fault of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def answering(handler: type[BaseHTTPRequestHandler], host: str, port: int, name: str, tls: Tls | None = None) -> Iterator[str]:
    """Answer for the length of a `with` block.

    Args:
        handler: of each request. With TLS its `timeout` also bounds the handshake.
        host: an IPv4 address.
        port: 0 for any.
        name: of the thread.
        tls: gives the context for the next connection, with the certificate of now; None for plain HTTP.

    Yields:
        The address, such as http://127.0.0.1:9464.

    Raises:
        OSError: the port cannot be had.
    """
    server = _Server((host, port), handler)
    server.tls = tls
    # Looks so often whether it is to end.
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name=name, daemon=True)
    thread.start()
    try:
        yield f"http{'' if tls is None else 's'}://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def host_and_port(listen: str, key: str) -> tuple[str, int]:
    """Where a server of the configuration answers.

    Args:
        listen: HOST:PORT, port 0 for any.
        key: of the configuration, for messages.

    Raises:
        InputError: not an IPv4 address and a port.
    """
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        if address.version != 4 or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
            raise ValueError
    except ValueError:
        raise InputError(
            f"{key}: {listen[:80]!r} is not allowed; allowed: an IPv4 address and a port, such as 127.0.0.1:9464"
        ) from None
    return str(address), int(port)
