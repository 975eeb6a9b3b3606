"""A real Redis on a free port of the loopback; skips visibly where it is not installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks.ports import free_port

HOST = "127.0.0.1"


@contextmanager
def running(folder: Path, *options: str, port: int | None = None) -> Iterator[int]:
    """A server of its own, without a file; its port.

    Args:
        folder: for its log.
        options: further ones of redis-server.
        port: where it listens; None for a free one.
    """
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on the path (Debian: apt-get install redis-server)")
    chosen = free_port() if port is None else port
    command = [program, "--bind", HOST, "--port", str(chosen), "--save", "", "--appendonly", "no", "--dir", str(folder), *options]
    with (folder / "redis.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while not _listens(chosen):
            assert process.poll() is None, (folder / "redis.log").read_text()
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)
        yield chosen
    finally:
        process.terminate()
        process.wait(timeout=20)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
