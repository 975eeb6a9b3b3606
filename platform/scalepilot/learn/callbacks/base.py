"""A callback, the one that writes progress.csv, and the one that keeps others' failures from ending a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scalepilot.policy import Policy

if TYPE_CHECKING:
    from scalepilot.runs.folder import RunFolder

logger = logging.getLogger("scalepilot.training")
# One iteration under the documented names (`scalepilot.runs.metrics`); None and left out mean not measured.
Row = Mapping[str, float | None]
# Makes the greedy policy of this moment: a copy of the network, so only where it is needed.
PolicyNow = Callable[[], Policy]


class Callback:
    """What the training loop tells; each method does nothing unless overridden."""

    def on_begin(self, env_steps: int) -> None:
        """Training begins, or goes on, with so many environment steps done."""

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """An iteration and, where it was due, its validation are done."""

    def on_validation(self, env_steps: int, value: float, kept: bool) -> None:
        """A policy was validated, and is the best so far or not."""

    def on_decision(self, env_steps: int, row: Mapping[str, float]) -> None:
        """A step was taken on a live environment; `row` is what it showed and brought, by name."""

    def on_end(self, finished: bool) -> None:
        """Training ends: the budget is used up, or it was stopped or failed."""


class CsvMetrics(Callback):
    """Writes progress.csv.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """A line.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self.folder.log_metrics(row)
        except OSError as error:
            raise self.folder.cannot_write(self.folder.progress_csv, error) from error


class Guarded(Callback):
    """Another callback, left alone from its first failure on: what watches a run must not end it.

    Args:
        inner: the callback.
        note: tells a person, one line.
    """

    def __init__(self, inner: Callback, note: Callable[[str], None]) -> None:
        self.inner, self.note = inner, note
        self._failed = False

    def on_begin(self, env_steps: int) -> None:
        """As the inner one."""
        self._guard(lambda: self.inner.on_begin(env_steps))

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """As the inner one."""
        self._guard(lambda: self.inner.on_iteration(row, policy))

    def on_validation(self, env_steps: int, value: float, kept: bool) -> None:
        """As the inner one."""
        self._guard(lambda: self.inner.on_validation(env_steps, value, kept))

    def on_decision(self, env_steps: int, row: Mapping[str, float]) -> None:
        """As the inner one."""
        self._guard(lambda: self.inner.on_decision(env_steps, row))

    def on_end(self, finished: bool) -> None:
        """As the inner one."""
        self._guard(lambda: self.inner.on_end(finished))

    def _guard(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - others' code may raise anything
            self._failed = True
            reason = str(error).splitlines()[0][:200] if str(error) else ""
            message = f"{type(self.inner).__name__} has failed and is left out: {type(error).__name__}: {reason}"
            logger.warning(message)
            self.note(message)
