"""Files and folders that are there in full or not at all, whenever the process is killed or the disk is full.

Written aside, synced, renamed: a reader, also one after a power cut, meets the old version or the new one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS; AT_FDCWD.
_EXCHANGE, _WORKING_FOLDER = 2, -100
_ASIDE, _OLD = ".new", ".old"


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Write a file in one step.

    Args:
        path: its place; what is there already is replaced.

    Yields:
        A path to write to, put into its place when the `with` block ends well and removed when it does not.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{_ASIDE}")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one step.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    with replaced_file(path) as aside:
        aside.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Write a folder in one step.

    Args:
        folder: its place; what is there already is replaced.

    Yields:
        An empty folder to fill, put into its place when the `with` block ends well and removed when it does not.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside, old = (folder.with_name(f".{folder.name}.{os.getpid()}{suffix}") for suffix in (_ASIDE, _OLD))
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        if not folder.exists():
            aside.rename(folder)
        elif not _swapped(aside, folder):
            folder.rename(old)
            aside.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder in one step: half of one is never visible."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}{_OLD}")
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove what killed writers left aside in a folder; no other may be writing there."""
    for path in parent.glob(".*"):
        if path.suffix in (_ASIDE, _OLD):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have nothing to sync in a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _swapped(aside: Path, folder: Path) -> bool:
    """Exchange two folders in one step of the file system; False where this system or file system cannot.

    Two renames would leave a moment without either, and for ever if the process is killed in it.
    """
    names = os.fsencode(aside), os.fsencode(folder)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(*names, ctypes.c_uint(_EXCHANGE))
        else:
            failed = libc.renameat2(_WORKING_FOLDER, names[0], _WORKING_FOLDER, names[1], ctypes.c_uint(_EXCHANGE))
    except AttributeError:
        return False
    return bool(failed == 0)
