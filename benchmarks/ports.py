"""Ports for servers that begin to listen later."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that the system hands out to whoever asks for any (32768 and up), which would take one of these in the
# meantime, and above those that Ray gives its workers (10002 to 19999).
_FIRST, _SLICES, _PORTS_EACH = 20_000, 120, 100
_asked = itertools.count()


def free_port() -> int:
    """A port of loopback that nobody listens on; processes that ask at the same time get different ones.

    Raises:
        RuntimeError: all of this process's are taken.
    """
    first = _FIRST + os.getpid() % _SLICES * _PORTS_EACH
    for _ in range(_PORTS_EACH):
        port = first + next(_asked) % _PORTS_EACH
        with socket.socket() as probe:
            # As servers do it: connections that are still being closed do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {first} to {first + _PORTS_EACH - 1}")
