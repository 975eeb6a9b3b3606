"""Pausing by a signal, where neither HTTP nor the cluster can be reached."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from scalepilot.operate.controller import Controller


@contextlib.contextmanager
def paused_by_signal(controller: Controller) -> Iterator[None]:
    """SIGUSR1 pauses the controller, and the next one resumes it, for the length of a `with` block. Only in the main thread.

    Args:
        controller: which.
    """

    def change() -> None:
        told = "paused by SIGUSR1; another one resumes" if controller.change_pause() else "resumed by SIGUSR1"
        print(f"scalepilot operate: {told}", file=sys.stderr, flush=True)

    def on_signal(number: int, frame: FrameType | None) -> None:
        # Not here: what the signal interrupts may be a decision, which holds the state.
        threading.Thread(target=change, name="pause", daemon=True).start()

    previous = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)
