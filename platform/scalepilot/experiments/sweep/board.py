"""A sweep's trials as their folders tell them, and the leaderboard over them.

Points are chosen by validation; what is shown of them, with intervals, is of test episodes that chose nothing.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ScalepilotError
from scalepilot.evaluate.statistics.intervals import Interval, block_bootstrap
from scalepilot.evaluate.statistics.nested import nested_mean
from scalepilot.evaluate.store import read_evaluation
from scalepilot.evaluate.suite import SuiteComparison
from scalepilot.experiments.sweep.plan import Point
from scalepilot.runs.folder import RunFolder
from scalepilot_envs.objective import UNBOUNDED, Bounds

UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Judged:
    """What a trial's policy came to on the test episodes.

    Attributes:
        values: (n,) J per hour or return.
        blocks: (n,) what is resampled together: the day, the window, or the episode itself.
    """

    values: NDArray[np.float64]
    blocks: NDArray[np.int64]


@dataclass(frozen=True)
class TrialEntry:
    """One trial.

    Attributes:
        folder: its run folder.
        point: key → value; with pbt those it ended with.
        seed: of training.
        status: running, finished, stopped (before its budget, by the search or a person) or failed.
        attempts: how often it was begun.
        score: what is minimised, of the kept policy, or of the last validation where it was stopped; None before one.
        value: the same as a person reads it.
        env_steps: trained.
        train_seconds: of training.
        error: why it failed; empty where it did not.
        changes: (env_steps, point) of each change while it trained (pbt).
        tested: None where it was not evaluated.
    """

    folder: Path
    point: Point
    seed: int
    status: str
    attempts: int
    score: float | None
    value: float | None
    env_steps: int
    train_seconds: float
    error: str
    changes: tuple[tuple[int, Point], ...]
    tested: Judged | None


@dataclass(frozen=True)
class Standing:
    """One point of the space on the leaderboard.

    Attributes:
        point: key → value.
        trials: those that finished, by seed; where none did, those that were stopped.
        score: mean over them of what chose.
        value: the same as a person reads it.
        tested: mean over seeds and test episodes with its 95 % interval, over episodes alone where there is one seed.
    """

    point: Point
    trials: tuple[TrialEntry, ...]
    score: float
    value: float
    tested: Interval

    @property
    def is_finished(self) -> bool:
        """Whether its trials used their budgets up."""
        return self.trials[0].status == "finished"

    @property
    def best_trial(self) -> TrialEntry:
        """The one that validation likes best."""
        return min(self.trials, key=lambda trial: math.inf if trial.score is None else trial.score)


def read_trials(place: Path) -> list[TrialEntry]:
    """Every trial in a folder of trials, in the order of their names."""
    if not place.is_dir():
        return []
    return [entry for path in sorted(place.iterdir()) if path.is_dir() and (entry := read_trial(path)) is not None]


def read_trial(path: Path) -> TrialEntry | None:
    """One trial; None for a folder without one."""
    folder = RunFolder(path)
    status = folder.read_status()
    noted, result, training = status.get("sweep"), status.get("result") or {}, status.get("training") or {}
    if not isinstance(noted, Mapping):
        return None
    changes = tuple((int(change["env_steps"]), change["point"]) for change in status.get("changes", []))
    return TrialEntry(
        folder=path,
        point=changes[-1][1] if changes else noted["point"],
        seed=int(noted["seed"]),
        status=str(status.get("status")),
        attempts=int(noted.get("attempts", 1)),
        score=result.get("score"),
        value=result.get("value"),
        env_steps=int(training.get("env_steps", 0)),
        train_seconds=float(training.get("train_seconds", 0.0)),
        error=str(status.get("error", "")) if status.get("status") == "failed" else "",
        changes=changes,
        tested=tested(folder),
    )


def ranked(trials: Iterable[TrialEntry], bounds: Bounds = UNBOUNDED) -> list[Standing]:
    """The leaderboard: finished points first, those with more seeds before others, then by validation.

    Args:
        trials: all of them.
        bounds: of what the figure can be, for the intervals.
    """
    groups: dict[str, list[TrialEntry]] = {}
    for trial in trials:
        if trial.score is not None and math.isfinite(trial.score) and trial.status in ("finished", "stopped"):
            # Members of a population stay apart, though they may end with equal values.
            key = trial.folder.name if trial.changes else json.dumps(trial.point, sort_keys=True)
            groups.setdefault(key, []).append(trial)
    standings = [_standing(group, bounds) for group in groups.values()]
    return sorted(standings, key=lambda s: (not s.is_finished, -len(s.trials) if s.is_finished else 0, s.score))


def _standing(group: Sequence[TrialEntry], bounds: Bounds) -> Standing:
    finished = [trial for trial in group if trial.status == "finished"]
    chosen = sorted(finished or group, key=lambda trial: trial.seed)
    return Standing(
        point=chosen[0].point,
        trials=tuple(chosen),
        score=statistics.fmean(trial.score for trial in chosen if trial.score is not None),
        value=statistics.fmean(trial.value for trial in chosen if trial.value is not None),
        tested=_interval([trial.tested for trial in chosen if trial.tested is not None], bounds),
    )


def _interval(tested: Sequence[Judged], bounds: Bounds) -> Interval:
    if not tested or len({len(t.values) for t in tested}) > 1:
        return UNKNOWN
    values, blocks = np.stack([t.values for t in tested]), tested[0].blocks
    if len(values) == 1:
        return block_bootstrap(values[0], blocks, bounds=bounds)
    return nested_mean(values, blocks, bounds=bounds)


def tested(folder: RunFolder) -> Judged | None:
    """What a run's policy came to; None where it was not evaluated, or that cannot be read."""
    if not folder.evaluation.is_dir():
        return None
    try:
        judged = read_evaluation(folder.evaluation)
    except ScalepilotError:
        return None
    policy = None if isinstance(judged, SuiteComparison) else judged.own
    if policy is None or isinstance(judged, SuiteComparison):
        return None
    return Judged(np.asarray(policy.results[judged.objective.column], np.float64), judged.episodes.blocks)


__all__ = ["Judged", "Standing", "TrialEntry", "ranked", "read_trial", "read_trials"]
