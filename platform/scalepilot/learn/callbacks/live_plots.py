"""Plots of a live run, drawn again while it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scalepilot.files.atomic import write_bytes
from scalepilot.learn.callbacks.base import Callback

_MOST_ROWS = 2000


class LivePlots(Callback):
    """Draws the newest decisions after every so many, and in the end.

    Args:
        path: of the picture.
        every: decisions.
        draw: makes it.
    """

    def __init__(self, path: Path, every: int, draw: Callable[[Sequence[Mapping[str, float]]], str]) -> None:
        self.path, self.every, self.draw = path, every, draw
        self._rows: deque[Mapping[str, float]] = deque(maxlen=_MOST_ROWS)
        self._count = 0

    def on_decision(self, env_steps: int, row: Mapping[str, float]) -> None:
        """Draw where it is due."""
        self._rows.append(row)
        self._count += 1
        if self._count % self.every == 0:
            self._write()

    def on_end(self, finished: bool) -> None:
        """The last ones, too."""
        if self._rows:
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        write_bytes(self.path, self.draw(list(self._rows)).encode())
