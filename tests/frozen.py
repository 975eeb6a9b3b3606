"""A process that stands still for a while."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Within the block none of a process's threads runs: those that did when it was told to stop have been waited for."""
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 10
        threads = Path(f"/proc/{pid}/task")
        while any(thread.read_text().rpartition(")")[2].split()[0] != "T" for thread in threads.glob("*/stat")):
            assert time.monotonic() < deadline, f"{pid} goes on"
            time.sleep(0.01)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
