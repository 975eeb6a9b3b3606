"""Several questions at once, all answered or given up within one time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from scalepilot.errors import ScalepilotError

# As many as ask at a time; a client keeps a connection for each.
_MOST_AT_ONCE = 8


@dataclass(frozen=True)
class Problem:
    """What stands in place of an answer.

    Attributes:
        reason: one line.
    """

    reason: str


class Asking:
    """Asks in threads of its own; one that never returns costs no more than itself."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="telemetry")
        self._waiting: dict[str, Future[Any]] = {}

    def ask(self, questions: Mapping[str, Callable[[float], Any]], seconds: float) -> dict[str, Any]:
        """The answers, or a `Problem` for what raised, or gave none in time.

        Args:
            questions: name → what is called with the seconds that are left when its turn comes.
            seconds: for all of them.
        """
        deadline = time.monotonic() + seconds
        asked: dict[str, Future[Any]] = {}
        answers: dict[str, Any] = {}
        for name, question in questions.items():
            before = self._waiting.get(name)
            if before is not None and not before.done():
                answers[name] = Problem("the question before this one is still not answered")
                continue
            asked[name] = self._waiting[name] = self._threads.submit(_in_time, question, deadline)
        wait(asked.values(), timeout=max(0.0, deadline - time.monotonic()))
        for name, future in asked.items():
            if not future.done():
                future.cancel()
                answers[name] = Problem(f"no answer within {seconds:.1f} s")
            elif (error := future.exception()) is None:
                answers[name] = future.result()
            elif isinstance(error, ScalepilotError):
                answers[name] = Problem(str(error))
            else:
                # Whatever a server may have answered: its fields are unknown, and the rest goes on.
                answers[name] = Problem(f"cannot be read ({type(error).__name__}: {error})"[:300])
        return answers

    def close(self) -> None:
        """End; what is still waiting is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _in_time(question: Callable[[float], Any], deadline: float) -> Any:
    left = deadline - time.monotonic()
    if left <= 0:
        return Problem("no time was left to ask")
    return question(left)


__all__ = ["Asking", "Problem"]
