"""The server's log: JSON, one line an event, never a body or a key."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOGGER = "scalepilot.serve"
_FOLLOW_SECONDS = 0.2
# What every record has; everything else was given with `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, message, and what was given with `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        # Ray's own additions begin with a lower-case word of its own; only ours are plain values.
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD and _plain(value)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # A folder's name need not be UTF-8.
        return json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def log_to(file: str | None) -> None:
    """Send this process's server log to a file, or to the standard error stream.

    Args:
        file: appended to, line by line, so that several replicas may share it; None for the stream.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler()
    else:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(JsonLines())
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    # Ray's own handlers would write everything a second time.
    logger.propagate = False


@contextmanager
def muted() -> Iterator[None]:
    """Log nothing meanwhile: a rehearsal says what is wrong by raising."""
    logger = logging.getLogger(LOGGER)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def follow(file: Path, stream: TextIO) -> Callable[[], None]:
    """Copy what is appended to a file to a stream, line by line.

    Args:
        file: need not be there yet; what it holds already is not copied.
        stream: where to.

    Returns:
        Ends it, after a last look.
    """
    stopped = threading.Event()
    position = file.stat().st_size if file.exists() else 0

    def copy() -> None:
        nonlocal position
        while True:
            last = stopped.wait(_FOLLOW_SECONDS)
            with contextlib.suppress(OSError, ValueError), file.open(encoding="utf-8", errors="replace") as log:
                log.seek(position)
                text = log.read()
                position = log.tell()
                if text:
                    stream.write(text)
                    stream.flush()
            if last:
                return

    thread = threading.Thread(target=copy, name="follow-log", daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join(timeout=1)

    return stop
