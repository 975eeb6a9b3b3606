"""Another user of this machine, for tests that run as root: without one, those are skipped."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Nobody's on Linux; and one that no file of a test belongs to otherwise.
OTHER, THIRD = 65534, 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user as well")


def as_user(user_id: int, work: Callable[[], Any]) -> Any:
    """What a function answers in a process of another user, as JSON; an exception's text, if it raises.

    A fork: the interpreter itself may lie where only root can execute it. What the function needs must be imported already.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user_id)
            os.setuid(user_id)
            try:
                answer = work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                answer = str(error)
            os.write(writer, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user can open, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sp-test-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
