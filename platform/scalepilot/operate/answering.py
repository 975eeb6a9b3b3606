"""A small HTTP server in a thread: a controller's door, and the twin's page."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def answering(handler: type[BaseHTTPRequestHandler], host: str, port: int, name: str) -> Iterator[str]:
    """Answer for the length of a `with` block.

    Args:
        handler: of each request.
        host: an IPv4 address.
        port: 0 for any.
        name: of the thread.

    Yields:
        The address, such as http://127.0.0.1:9464.

    Raises:
        OSError: the port cannot be had.
    """
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
