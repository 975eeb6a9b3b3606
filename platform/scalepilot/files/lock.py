"""One writer a folder: who holds it is written in it, and whoever dies lets go of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scalepilot.errors import InputError
from scalepilot.files.stored import read_mapping

LOCK_FILE = ".lock"
# File systems without locks: then what is written in the file is all there is to go by.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for the length of a `with` block; the system lets go of it when the process dies.

    Args:
        folder: to write into.
        what: it is, for an error: a run, a sweep.

    Raises:
        InputError: another process holds it, or nothing can be written there.
    """
    path = folder / LOCK_FILE
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        _take(descriptor, path, what)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now}).encode(), 0)
    except OSError as error:
        _close(descriptor)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    except InputError:
        _close(descriptor)
        raise
    try:
        yield
    finally:
        # An empty file is nobody's, also for a machine that does not see the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        _close(descriptor)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _take(descriptor: int, path: Path, what: str) -> None:
    """The lock, or who has it."""
    holder = _holder(path)
    here = holder.get("host") == platform.node()
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')} since {holder.get('since', '?')}"
    busy = f"{path.parent}: {what} is being written by {who}; allowed: one process at a time"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(busy) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        if here and _lives(holder.get("pid")):
            raise InputError(busy) from None
    if holder and not here:
        # Locks of one host may be invisible to another: its process may live.
        raise InputError(f"{busy}; if that one is gone, remove {path}")


def _holder(path: Path) -> dict[str, Any]:
    """Who wrote the file last and did not let go; {} for nobody, or what nobody wrote."""
    try:
        return read_mapping(path, 10_000)
    except InputError:
        return {}


def _lives(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
