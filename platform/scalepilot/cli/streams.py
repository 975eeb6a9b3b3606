"""Standard output and standard error of a command: open, willing to take any text, and never the reason for a traceback."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from scalepilot.errors import printable

_HANDLER = "scalepilot-escape"


def note(command: str, text: object) -> None:
    """A line on standard error, with nothing in it that commands a terminal."""
    print(f"scalepilot {command}: {printable(str(text))}", file=sys.stderr)


def note_deploy(command: str, paths: Iterable[str | Path]) -> None:
    """Say where a run stands for its trained policy although it recommends to deploy another one."""
    from scalepilot.errors import InputError
    from scalepilot.runs.status import read_run_status

    for path in map(Path, paths):
        with contextlib.suppress(InputError, OSError):
            status = read_run_status(path)
            deploy = None if status is None else status.deploy
            if deploy is not None and deploy.origin != "trained" and (path / "deploy").is_dir():
                note(command, f"{path} stands for its policy/; the run recommends {path / 'deploy'}: {deploy.name}")


def prepare() -> None:
    r"""Make this process's streams fit for whatever a command prints; for the program itself, not for a caller in Python.

    A closed stream is replaced by the null device: otherwise the next file that is opened would get its number, and what is
    printed would go into that file. Characters that the encoding lacks become \uXXXX, which JSON reads as the same character.
    What standard error cannot take (a full disk, a reader that left) is left out: no training ends for a progress line.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
    codecs.register_error(_HANDLER, _escaped)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - a descriptor
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors=_HANDLER)  # noqa: SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_HANDLER)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = io.TextIOWrapper(_Forgiving(2), encoding, errors=_HANDLER, line_buffering=True, write_through=True)


def flush() -> None:
    """Write what standard output still holds.

    Raises:
        OSError: it cannot take it.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def abandon() -> None:
    """Send the rest of standard output nowhere: Python would try again at exit, and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


def system_error(error: OSError) -> tuple[str, int]:
    """What to say of an error of the system that no command expected, and the exit code."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{error.filename or 'output'}: cannot be written ({reason}); make room", 1
    if error.filename is None:
        return reason, 1
    names = f"{os.fsdecode(error.filename)}" + (f" → {os.fsdecode(error.filename2)}" if error.filename2 else "")
    return f"{names}: cannot be used ({reason})", 2


def unexpected(error: Exception) -> str:
    """What to say of a bug: the error in a line, and where its traceback is."""
    import tempfile
    import traceback

    said = (str(error).splitlines() or [""])[0][:200]
    line = f"internal error: {type(error).__name__}: {said}"
    try:
        descriptor, path = tempfile.mkstemp(prefix="scalepilot-error-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(" ".join(sys.argv) + "\n\n" + "".join(traceback.format_exception(error)))
    except OSError:
        return line
    return f"{line}; what led to it: {path}"


class _Forgiving(io.RawIOBase):
    """Writes to a descriptor what it takes."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a person may be watching."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Write; what cannot be written is left out."""
        view = memoryview(data)  # type: ignore[arg-type]
        with contextlib.suppress(OSError):
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
        return len(view)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    # UTF-16 units, as JSON writes a character beyond them.
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end
