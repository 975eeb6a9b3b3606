"""A drawing of text that is drawn again over itself on a terminal, at a pace a person can follow."""

from __future__ import annotations

import sys
import time


class TerminalFrame:
    """Where `render_mode="human"` draws: standard output.

    Args:
        frames_per_second: no faster on a terminal; None for no pause. Into a file or pipe frames follow each other at once.
    """

    def __init__(self, frames_per_second: float | None) -> None:
        self._pause_seconds = 1.0 / frames_per_second if frames_per_second else 0.0
        self._lines = 0
        self._next_at = 0.0

    def show(self, text: str) -> None:
        """Draw one frame."""
        lines = text.rstrip("\n").split("\n")
        on_terminal = sys.stdout.isatty()
        if on_terminal:
            time.sleep(max(0.0, self._next_at - time.monotonic()))
            self._next_at = time.monotonic() + self._pause_seconds
        # Up to the frame before, and clear from there.
        over = f"\x1b[{self._lines}F\x1b[J" if on_terminal and self._lines else ""
        sys.stdout.write(over + "\n".join(lines) + "\n")
        sys.stdout.flush()
        self._lines = len(lines)
