"""A time limit for calls that may never return."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from scalepilot.errors import EnvironmentFailedError
from scalepilot.files.stop import check_stop

_LOOK_SECONDS = 0.1


class Watchdog:
    """Runs calls in one thread of its own, so that a call that hangs can be left behind.

    Python can neither end a thread nor leave C code that keeps the interpreter's lock: an environment that hangs like that is
    only ended with its process, which is what env runners are.

    Torch works with one thread within the calls: every thread that uses more keeps a team of its own, the teams of two threads
    spin side by side, and training takes twice as long.

    Args:
        name: of what may hang, for the error.
        setting: that holds the limit.
    """

    def __init__(self, name: str, setting: str) -> None:
        self.name, self.setting = name, setting
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, call: Callable[[], Any], time_limit_seconds: float) -> Any:
        """What the call returns or raises.

        Raises:
            EnvironmentFailedError: it took longer; it is still running.
            Stopped: a signal asks for the end; likewise.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name=f"watched {self.name}")
            self._thread.start()
        self._calls.put(call)
        deadline = time.monotonic() + time_limit_seconds
        while True:
            check_stop()
            left = deadline - time.monotonic()
            try:
                answer, error = self._answers.get(timeout=min(_LOOK_SECONDS, max(0.0, left)))
                break
            except queue.Empty:
                if left > 0:
                    continue
                raise EnvironmentFailedError(
                    f"{self.name}: hangs: a rollout takes more than {self.setting}, {time_limit_seconds:g} s"
                ) from None
        if error is not None:
            raise error
        return answer

    def end(self) -> None:
        """Let the thread end when it is idle; one that hangs stays."""
        self._calls.put(None)
        self._thread = None

    def _work(self) -> None:
        torch.set_num_threads(1)
        while (call := self._calls.get()) is not None:
            try:
                self._answers.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised where the call was made
                self._answers.put((None, error))
