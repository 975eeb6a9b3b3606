"""The table a person watches while a sweep trains, read from the trials' folders: which trial is how far, and the time left."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scalepilot.errors import InputError
from scalepilot.experiments.sweep.plan import label
from scalepilot.progress import duration
from scalepilot.report.words.tables import plain_table
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.status import read_status

_LOOK_SECONDS, _PIPED_SECONDS = 1.0, 10.0
_MOST_ROWS = 24
_OVER = ("finished", "stopped", "failed")


@dataclass
class _Row:
    """One trial at the last look.

    Attributes:
        name: its point.
        status: of its run.json.
        share: of the budget.
        env_steps, rate: done, and a second.
        value: of the last validation.
        error: of the last attempt.
        attempts: begun so often.
    """

    name: str
    status: str
    share: float
    env_steps: int
    rate: float
    value: float | None
    error: str
    attempts: int


class SweepView:
    """Looks into the folders once a second; draws a table on a terminal, prints a line every ten seconds elsewhere.

    Args:
        place: folder of the trials.
        total: trials there will be.
        title: of the table.
        concurrency: trials at once.
        stream: standard error by default.
    """

    def __init__(self, place: Path, total: int, title: str, concurrency: int, stream: TextIO | None = None) -> None:
        self.place, self.total, self.title, self.concurrency = place, total, title, concurrency
        self.stream = stream or sys.stderr
        self._rows: dict[str, _Row] = {}
        self._read: dict[str, tuple[int, int]] = {}
        self._noted: set[tuple[str, int]] = set()
        self._began = time.monotonic()
        self._share_before = 0.0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Show the sweep for the length of a `with` block."""
        ended = threading.Event()
        self.look()
        self._share_before = self._share()
        watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def look(self) -> None:
        """Read what changed."""
        if not self.place.is_dir():
            return
        for path in sorted(p for p in self.place.iterdir() if p.is_dir()):
            stamp = (_changed(path / "run.json"), _changed(path / "progress.csv"))
            if self._read.get(path.name) != stamp and stamp[0]:
                self._read[path.name] = stamp
                with contextlib.suppress(OSError, InputError, KeyError):
                    self._rows[path.name] = _row(path)

    def line(self) -> str:
        """One line: how many are done, the best so far, the time left."""
        over = [row for row in self._rows.values() if row.status in _OVER]
        failed = sum(row.status == "failed" for row in over)
        rate = sum(row.rate for row in self._rows.values() if row.status == "running")
        parts = [f"{self.title}: {len(over)} of {self.total} trials", f"{100 * self._share():.0f} %"]
        parts += [f"{rate:,.0f} steps/s"] if rate else []
        parts += [f"{failed} failed"] if failed else []
        left = self.seconds_left()
        parts += [f"{duration(left)} left"] if left is not None else []
        return " · ".join(parts)

    def seconds_left(self) -> float | None:
        """At the pace since this look began; None before there is one."""
        done = self._share() - self._share_before
        if done <= 0:
            return None
        return (time.monotonic() - self._began) * (1 - self._share()) / done

    def table(self) -> Table:
        """The running trials, then the last that are over."""
        table = plain_table(self.line(), "")
        table.add_column("trial", overflow="ellipsis", no_wrap=True)
        for heading in ("status", "done", "steps/s", "validation"):
            table.add_column(heading, justify="right", no_wrap=True)
        rows = sorted(self._rows.values(), key=lambda row: (row.status in _OVER, -row.share))
        for row in rows[:_MOST_ROWS]:
            again = f" (attempt {row.attempts})" if row.attempts > 1 else ""
            table.add_row(
                Text(row.name),
                row.status + again,
                f"{row.share:.0%}",
                f"{row.rate:,.0f}" if row.rate else "-",
                "-" if row.value is None else f"{row.value:,.2f}",
                style="bold" if row.status == "running" else None,
            )
        hidden = len(rows) - _MOST_ROWS
        if hidden > 0:
            table.add_row(Text(f"and {hidden} more"), "", "", "", "")
        return table

    def _share(self) -> float:
        """Of the whole sweep's budget; what was stopped counts as done."""
        return sum(1.0 if row.status in _OVER else row.share for row in self._rows.values()) / max(1, self.total)

    def _watch(self, ended: threading.Event) -> None:
        if self.stream.isatty():
            console = Console(file=self.stream)
            with Live(self.table(), console=console, auto_refresh=False, transient=False) as live:
                while not ended.wait(_LOOK_SECONDS):
                    self.look()
                    self._say_failures(live.console)
                    live.update(self.table(), refresh=True)
                self.look()
                live.update(self.table(), refresh=True)
            return
        said = time.monotonic()
        plain = Console(file=self.stream, width=200, highlight=False)
        while not ended.wait(_LOOK_SECONDS):
            self.look()
            self._say_failures(plain)
            if time.monotonic() - said >= _PIPED_SECONDS:
                said = time.monotonic()
                plain.print(Text(self.line()))
        self.look()
        self._say_failures(plain)
        plain.print(Text(self.line()))

    def _say_failures(self, console: Console) -> None:
        """A line that stays, for each attempt that failed."""
        for name, row in self._rows.items():
            if row.error and (name, row.attempts) not in self._noted:
                self._noted.add((name, row.attempts))
                console.print(Text(f"{name} failed, attempt {row.attempts}: {row.error}"))


def _row(path: Path) -> _Row:
    status = read_status(path)
    noted = status["sweep"]
    folder = RunFolder(path)
    metrics = folder.read_metrics()
    last = metrics[-1] if metrics else {}
    steps = int(last.get("env_steps") or 0)
    seconds = float(last.get("time_seconds") or 0.0)
    budget = noted.get("total_env_steps") or 0
    value = next(
        (
            v
            for row in reversed(metrics)
            for v in (row.get("validation_J_per_hour"), row.get("validation_return"))
            if v is not None
        ),
        None,
    )
    result = status.get("result") or {}
    over = status["status"] == "finished"
    return _Row(
        name=f"{label(noted['point'])} seed={noted['seed']}",
        status=status["status"],
        share=1.0 if over else min(1.0, steps / budget) if budget else 0.0,
        env_steps=steps,
        rate=steps / seconds if seconds else 0.0,
        value=result.get("value", value) if over else value,
        error=str(status.get("error", "")) if status["status"] == "failed" else "",
        attempts=int(noted.get("attempts", 1)),
    )


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


__all__ = ["SweepView"]
