"""HAProxy's admin socket, as far as /metrics asks it: a listener that answers with a recorded `show stat`."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Columns of HAProxy 2.8 that matter here, in its order; a server's rows must not be counted beside its backend's.
STATS = """\
# pxname,svname,qcur,qmax,scur,smax,stot,wretr,wredis,status,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,
http_frontend,FRONTEND,,,12,40,7000,,,OPEN,0,6800,0,150,50,0,
default_backend,BACKEND,0,0,0,0,0,0,0,UP,0,0,0,0,0,0,
http-scalepilot,SERVE_REPLICA_1,3,9,8,8,3500,2,0,UP,0,3400,0,75,10,0,
http-scalepilot,SERVE_REPLICA_2,4,9,8,8,3500,1,4,UP,0,3400,0,75,10,0,
http-scalepilot,BACKEND,7,18,16,16,7000,3,4,UP,0,6800,0,150,50,0,

"""


@contextmanager
def admin_socket(answer: bytes | None = STATS.encode()) -> Iterator[Path]:
    """A socket that gives this answer to every question; None takes the question and says nothing."""
    # A Unix socket's path is short, pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "admin.sock"
        listener.bind(str(path))
        listener.listen()
        silent: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    if answer is None:
                        silent.append(connection)
                        continue
                    with connection:
                        assert connection.recv(100) == b"show stat\n"
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)
            for connection in silent:
                connection.close()
