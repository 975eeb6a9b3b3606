"""One signal ends what runs: in order where something is to be kept, at once where nothing is."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_SECONDS = 0.1


class Stopped(KeyboardInterrupt):
    """A signal asked for the end; not an `Exception`, so that nobody's environment swallows it."""


class StopFlag:
    """The first SIGINT or SIGTERM asks for an orderly end, the second ends at once (KeyboardInterrupt).

    Args:
        said: to the person who stops.
        then: passes the first one on.
    """

    current: StopFlag | None = None

    def __init__(self, said: str = "Stopping", then: Callable[[], object] = lambda: None) -> None:
        self.asked = False
        self._said, self._then = said, then
        self._at_once = 0

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.asked

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM over for the length of a `with` block."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            with contextlib.suppress(OSError, ValueError):
                print(f"\n{self._said}; press Ctrl-C again to stop immediately", file=sys.stderr, flush=True)
            self._then()
            if self._at_once:
                raise Stopped

        previous, before = {s: signal.signal(s, on_signal) for s in _SIGNALS}, StopFlag.current
        StopFlag.current = self
        try:
            yield
        finally:
            StopFlag.current = before
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within, a signal raises `Stopped` right away: what is interrupted is thrown away. Only in the main thread.

    Raises:
        Stopped: a signal came, now or before.
    """
    flag = StopFlag.current
    if flag is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    flag._at_once += 1
    try:
        check_stop()
        yield
    finally:
        flag._at_once -= 1


@contextlib.contextmanager
def in_one_piece() -> Iterator[None]:
    """Within `at_once`, a signal waits for the end of this block: what acts on something real is not interrupted half way.

    Raises:
        Stopped: at the end, where a signal came meanwhile.
    """
    flag = StopFlag.current
    if flag is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    depth, flag._at_once = flag._at_once, 0
    try:
        yield
    finally:
        flag._at_once = depth
    if depth:
        check_stop()


def stop_asked() -> bool:
    """Whether a signal has asked this process for the end."""
    return StopFlag.current is not None and StopFlag.current.asked


def check_stop() -> None:
    """Raise where a signal has asked for the end.

    Raises:
        Stopped: it has.
    """
    if stop_asked():
        raise Stopped


class _Overdue(BaseException):
    """Raised in the main thread; not an `Exception`, so that nobody's environment swallows it."""


class StepLimit:
    """A time limit for calls that may hang in the main thread; elsewhere it limits nothing.

    A thread looks at the clock and signals the main thread, which leaves Python code, sleeps and waits; C code that never
    returns is only ended with its process. SIGUSR2, since SIGALRM is others' (pytest-timeout's).

    Args:
        seconds: from one `step()` to the next.
        error: what to raise.
    """

    def __init__(self, seconds: float, error: Callable[[], Exception]) -> None:
        self.seconds, self.error = seconds, error
        self._deadline = float("inf")
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def step(self) -> None:
        """The clock begins anew."""
        self._deadline = time.monotonic() + self.seconds

    def pause(self) -> None:
        """The clock stands until the next step."""
        self._deadline = float("inf")

    def __enter__(self) -> StepLimit:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGUSR2, self._raise)
            self._thread = threading.Thread(target=self._watch, daemon=True, name="step limit")
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: object) -> None:
        if self._thread is not None:
            # Nothing may be signalled once the handler is gone.
            self._left.set()
            self._thread.join()
            signal.signal(signal.SIGUSR2, self._previous)
        if isinstance(value, _Overdue):
            raise self.error() from None

    def _raise(self, number: int, frame: FrameType | None) -> None:
        # The call may have come back in between.
        if time.monotonic() > self._deadline:
            self.pause()
            raise _Overdue

    def _watch(self) -> None:
        while not self._left.wait(_LOOK_SECONDS):
            if time.monotonic() > self._deadline:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
