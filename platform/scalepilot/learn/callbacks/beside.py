"""A callback in a thread of its own: a service that does not answer must not hold up what acts on a live deployment."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping

from scalepilot.learn.callbacks.base import Callback, Guarded, PolicyNow, Row

# What waits; then the newest is left out.
_MOST_WAITING = 1000


class Beside(Callback):
    """Tells another callback in order, from one thread; it must not use the policy.

    Args:
        inner: the callback.
        note: tells a person, one line.
        end_seconds: how long the end waits for what is still to be told.
    """

    def __init__(self, inner: Callback, note: Callable[[str], None], end_seconds: float = 60.0) -> None:
        self._end_seconds = end_seconds
        self._name, self._note = type(inner).__name__, note
        self._inner = Guarded(inner, note)
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=f"beside {self._name}", daemon=True)
        self._lost = 0

    def on_begin(self, env_steps: int) -> None:
        """As the inner one."""
        self._thread.start()
        self._put(lambda: self._inner.on_begin(env_steps))

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """As the inner one."""
        self._put(lambda: self._inner.on_iteration(row, policy))

    def on_decision(self, env_steps: int, row: Mapping[str, float]) -> None:
        """As the inner one."""
        self._put(lambda: self._inner.on_decision(env_steps, row))

    def on_end(self, finished: bool) -> None:
        """As the inner one; what does not get through in time is given up."""
        if not self._thread.is_alive():
            return
        deadline = time.monotonic() + self._end_seconds
        with contextlib.suppress(queue.Full):
            self._calls.put(lambda: self._inner.on_end(finished), timeout=self._end_seconds)
            self._calls.put(None, timeout=max(0.0, deadline - time.monotonic()))
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._note(f"{self._name} does not answer; what it was not told is lost")

    def _put(self, call: Callable[[], None]) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._lost += 1
            if self._lost == 1:
                self._note(f"{self._name} is too slow; what it is not told is left out")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
