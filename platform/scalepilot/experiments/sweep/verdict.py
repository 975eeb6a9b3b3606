"""What a sweep found, in words and as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from scalepilot.evaluate.statistics.intervals import Interval, paired_difference
from scalepilot.evaluate.statistics.nested import nested_difference
from scalepilot.experiments.sweep.board import Standing, TrialEntry
from scalepilot.experiments.sweep.importance import Importance
from scalepilot.experiments.sweep.plan import PlannedSweep, label
from scalepilot.progress import duration
from scalepilot.report.words.tables import plain_table
from scalepilot_envs.objective import Objective

_MOST_ROWS = 20


@dataclass(frozen=True)
class SweepBoard:
    """Everything a sweep's report shows.

    Attributes:
        plan: the sweep.
        folder: its folder.
        trials: all of them, other seeds included.
        standings: the leaderboard.
        importance: of the keys, over the trials of the search that used their budgets up.
        objective: what its figures are.
        versus_rules: a sentence on the best policy against the rules.
    """

    plan: PlannedSweep
    folder: Path
    trials: tuple[TrialEntry, ...]
    standings: tuple[Standing, ...]
    importance: Importance
    objective: Objective
    versus_rules: str

    @property
    def best(self) -> Standing:
        """The chosen point."""
        return self.standings[0]

    @property
    def figure(self) -> str:
        """What validation and tests measure."""
        return self.objective.short_label

    @property
    def failed(self) -> tuple[TrialEntry, ...]:
        """Trials that came to nothing."""
        return tuple(trial for trial in self.trials if trial.status == "failed")

    @property
    def verdict(self) -> str:
        """Who is best, how good on the test episodes, and whether chance could explain that it is ahead."""
        best, count = self.best, len(self.standings)
        seeds, episodes = len(best.trials), _episodes(best)
        over = f"{episodes} test episodes" + (f" and {seeds} training seeds" if seeds > 1 else " of its one training seed")
        said = f"{label(best.point)} is best of {count} points by validation; {self.figure} on test {interval_text(best.tested)}"
        return f"{said}, over {over}.{self._ahead()}"

    def _ahead(self) -> str:
        if len(self.standings) < 2:
            return ""
        first, second = self.standings[:2]
        difference = _difference(first, second)
        if difference is None:
            return ""
        told = difference.is_known and (difference.low > 0 or difference.high < 0)
        if not told:
            return f" On test it is not distinguishable from the second, {label(second.point)}."
        better = self.objective.sign * difference.mean < 0
        span = f"95 % interval of the difference {difference.low:+,.2f} to {difference.high:+,.2f}"
        return f" On test it is {'better' if better else 'worse'} than the second, {label(second.point)} ({span})."


def _difference(first: Standing, second: Standing) -> Interval | None:
    ours, theirs = ([t.tested for t in s.trials if t.tested is not None] for s in (first, second))
    if not ours or not theirs or len({len(t.values) for t in (*ours, *theirs)}) > 1:
        return None
    blocks = ours[0].blocks
    if len(ours) == 1 and len(theirs) == 1:
        return paired_difference(ours[0].values, theirs[0].values, blocks).difference
    return nested_difference(np.stack([t.values for t in ours]), np.stack([t.values for t in theirs]), blocks)


def interval_text(interval: Interval) -> str:
    """Mean and interval."""
    if not math.isfinite(interval.mean):
        return "unknown"
    span = f" (95 % interval {span_text(interval)})" if interval.is_known else ""
    return f"{interval.mean:,.2f}".replace("-", "−") + span


def span_text(interval: Interval) -> str:
    """From where to where."""
    return f"{interval.low:,.2f} to {interval.high:,.2f}".replace("-", "−")


def leaderboard(board: SweepBoard) -> Table:
    """One row a point, best first."""
    seeds = max(len(s.trials) for s in board.standings)
    behind = "bootstrap over seeds and episodes" if seeds > 1 else "bootstrap over episodes, one training seed"
    table = plain_table(
        f"{board.plan.sweep.name}: {len(board.standings)} points", f"Chosen by validation; test with 95 % intervals: {behind}."
    )
    table.add_column("", overflow="fold")
    for heading in ("validation", f"test {board.figure}", "95 % interval", "seeds", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for rank, standing in enumerate(board.standings[:_MOST_ROWS]):
        table.add_row(
            Text(f"{'*' if rank == 0 else ' '} {label(standing.point)}"), *_cells(standing), style="bold" if rank == 0 else None
        )
    hidden = len(board.standings) - _MOST_ROWS
    if hidden > 0:
        table.add_row(Text(f"  and {hidden} more in the report"))
    for trial in board.failed:
        table.add_row(Text(f"! {label(trial.point)} seed={trial.seed} failed: {trial.error}"), style="red")
    return table


def _cells(standing: Standing) -> Sequence[str]:
    tested = standing.tested
    seconds = sum(trial.train_seconds for trial in standing.trials)
    return (
        f"{standing.value:,.2f}",
        f"{tested.mean:,.2f}" if math.isfinite(tested.mean) else "stopped" if not standing.is_finished else "-",
        f"{tested.low:,.2f} to {tested.high:,.2f}" if tested.is_known else "-",
        str(len(standing.trials)),
        duration(seconds),
    )


def _episodes(standing: Standing) -> int:
    return next((len(trial.tested.values) for trial in standing.trials if trial.tested is not None), 0)


__all__ = ["SweepBoard", "interval_text", "leaderboard", "span_text"]
