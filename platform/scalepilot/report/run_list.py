"""Runs and sweeps side by side: what each is, how far, what it was worth; and an experiment over its seeds."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter

from scalepilot.config import read_yaml
from scalepilot.config.env import AUTOSCALE
from scalepilot.errors import InputError
from scalepilot.evaluate.store import SUMMARY_FILE, Summary, read_summary
from scalepilot.files.stored import checked_record
from scalepilot.runs.status import STATUS_FILE, RunStatus, TrainingStatus, read_run_status

_COST, _RETURN = "J", "return"
SWEEP_FILE = "sweep.yaml"


@dataclass(frozen=True)
class RunEntry:
    """One run folder, or a sweep's with its best policy's figures.

    Attributes:
        path: of the folder.
        name: of the experiment.
        algorithm: with the engine where it is not the usual one.
        environment: id without the namespace.
        workload: it was evaluated on; empty where the environment has its own.
        seed: of training.
        status: as run.json has it; "unreadable" if that or another file is damaged.
        env_steps: trained; None if unknown.
        train_seconds: of training; None if unknown.
        figure: mean J per hour or mean return of the kept policy on the test episodes; None if not evaluated yet.
        figure_name: "J" (lower is better) or "return".
        rival: the best baseline it was compared against; empty without one.
        rival_figure: its figure.
        advantage: (mean, low, high) of figure − rival's with its 95 % interval, NaN where unknown.
        sameness: equal for runs that differ by training seed only.
        deploy: what the run recommends to deploy, "policy" where that is its own; empty where it does not say.
        trials: (over, all known) of a sweep; None for a run.
        problem: which file is damaged, and how; empty where none is.
    """

    path: Path
    name: str
    algorithm: str
    environment: str
    workload: str
    seed: int
    status: str
    env_steps: int | None
    train_seconds: float | None
    figure: float | None
    figure_name: str
    rival: str
    rival_figure: float | None
    advantage: tuple[float, float, float]
    sameness: str
    deploy: str = ""
    trials: tuple[int, int] | None = None
    problem: str = ""

    @property
    def is_better(self) -> bool | None:
        """Whether the interval says better (True) or worse (False) than the rival; None if it cannot tell."""
        _, low, high = self.advantage
        if not (math.isfinite(low) and math.isfinite(high)) or low <= 0 <= high:
            return None
        return (high < 0) == (self.figure_name == _COST)


@dataclass(frozen=True)
class Worth:
    """Runs that differ by training seed only.

    Attributes:
        runs: judged ones, by seed.
        mean, lowest, highest: figure over the seeds.
        rival, rival_figure: the baseline that is best over all of them, and its mean.
        better, worse: seeds whose 95 % interval says so.
    """

    runs: tuple[RunEntry, ...]
    mean: float
    lowest: float
    highest: float
    rival: str
    rival_figure: float | None
    better: int
    worse: int


def find_runs(folders: Sequence[Path]) -> list[RunEntry]:
    """Every run and sweep in or below some folders, in order of their paths; trials of a sweep only where they are asked for.

    Args:
        folders: of runs or sweeps, or folders that hold some at any depth.

    Raises:
        InputError: a folder does not exist, or none holds a run.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a directory; allowed: run folders, or folders that hold some, such as runs")
    seen: set[tuple[int, int]] = set()
    found = {path.resolve(): path for folder in folders for path in _run_folders(folder, seen)}
    if not found:
        raise InputError(f"{', '.join(map(str, folders))}: holds no run; allowed: run folders, or folders that hold some")
    return [read_sweep(path) if os.path.lexists(path / SWEEP_FILE) else read_run(path) for path in sorted(found.values())]


def read_run(path: Path) -> RunEntry:
    """One run; what is not there yet is unknown, what is damaged is named in its `problem`.

    Args:
        path: of a folder with a config.yaml.
    """
    try:
        head, config = _read_yaml(path / "config.yaml", _HEAD)
    except InputError as error:
        return _unreadable(path, error)
    return _entry(path, head, json.dumps({k: v for k, v in config.items() if k not in ("seed", "output")}, sort_keys=True))


def _entry(path: Path, config: _Head, sameness: str) -> RunEntry:
    env_id = str(config.env.get("id", AUTOSCALE)).rpartition("/")[2]
    nothing = (math.nan, math.nan, math.nan)
    entry = RunEntry(
        path=path,
        name=config.name,
        algorithm=config.algorithm + ("" if config.engine == "rllib" else f" ({config.engine})"),
        environment=env_id,
        workload="",
        seed=config.seed,
        status="not begun",
        env_steps=None,
        train_seconds=None,
        figure=None,
        figure_name=_COST if env_id == AUTOSCALE else _RETURN,
        rival="",
        rival_figure=None,
        advantage=nothing,
        sameness=sameness,
    )
    try:
        status = read_run_status(path)
        if status is not None:
            training = status.training or TrainingStatus()
            entry = replace(entry, status=status.status, env_steps=training.env_steps, train_seconds=training.train_seconds)
            if status.deploy is not None:
                entry = replace(entry, deploy="policy" if status.deploy.origin == "trained" else status.deploy.name)
        if not os.path.lexists(path / "evaluation" / SUMMARY_FILE):
            return entry
        summary = read_summary(path / "evaluation")
    except InputError as error:
        return replace(entry, status="unreadable", problem=str(error))
    own, rival = _judged(summary)
    versus = summary.versus.get(own, {}).get(rival)
    return replace(
        entry,
        workload=", ".join(summary.workloads) if entry.figure_name == _COST else "",
        figure=_figure(summary, own, entry.figure_name),
        rival=rival,
        rival_figure=_figure(summary, rival, entry.figure_name),
        advantage=nothing if versus is None else (_number(versus.mean), _number(versus.low), _number(versus.high)),
    )


def read_sweep(path: Path) -> RunEntry:
    """One sweep, as `read_run`: steps and seconds of all its trials, the figures of its best policy.

    Args:
        path: of a folder with a sweep.yaml.
    """
    try:
        sweep, _ = _read_yaml(path / SWEEP_FILE, _SWEEP)
        given: dict[str, Any] = {"algorithm": "ppo"} | (sweep.experiment if isinstance(sweep.experiment, dict) else {})
        head = checked_record(given, _HEAD, f"{path / SWEEP_FILE}: experiment")
    except InputError as error:
        return _unreadable(path, error)
    # A sweep is nobody's other seed.
    entry = _entry(path, head, str(path))
    trials: list[RunStatus] = []
    problem = entry.problem
    for file in sorted(path.glob(f"*/*/{STATUS_FILE}")):
        try:
            status = read_run_status(file.parent)
        except InputError as error:
            problem = problem or str(error)
            continue
        trials += [] if status is None else [status]
    training = [trial.training for trial in trials if trial.training is not None]
    over = sum(trial.status in ("finished", "stopped", "failed") for trial in trials)
    return replace(
        entry,
        name=sweep.name,
        algorithm=f"{entry.algorithm}, {sweep.search.get('kind', 'grid')} search",
        env_steps=sum(t.env_steps or 0 for t in training) or None,
        train_seconds=sum(t.train_seconds or 0.0 for t in training) or None,
        trials=(over, len(trials)),
        problem=problem,
    )


def _unreadable(path: Path, error: InputError) -> RunEntry:
    """A folder whose configuration is damaged: it has a line, so that nobody looks for it in vain."""
    entry = _entry(path / "?", _Head(name=path.parent.name), str(path))
    return replace(entry, path=path, environment="?", status="unreadable", problem=str(error))


@dataclass(frozen=True)
class _Head:
    """What a list needs of a config.yaml, which may be of another version, or of an environment that is not installed."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    name: str = "?"
    algorithm: str = "?"
    engine: str = "rllib"
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    env: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _SweepHead:
    """The same of a sweep.yaml."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    name: str = "?"
    experiment: dict[str, Any] | str = ""
    search: dict[str, Any] = field(default_factory=dict)


_HEAD: TypeAdapter[_Head] = TypeAdapter(_Head)
_SWEEP: TypeAdapter[_SweepHead] = TypeAdapter(_SweepHead)
_Record = TypeVar("_Record")


def _read_yaml(path: Path, adapter: TypeAdapter[_Record]) -> tuple[_Record, dict[str, Any]]:
    """A YAML file as a record, and all of its keys.

    Raises:
        InputError: it is damaged.
    """
    values = read_yaml(path)
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: {'is empty' if not values else 'holds a ' + type(values).__name__}; allowed: keys and values")
    return checked_record(values, adapter, str(path)), values


def worths(runs: Sequence[RunEntry]) -> list[Worth]:
    """What was evaluated, training seeds together, in the order in which experiments first come."""
    groups: dict[tuple[str, str], list[RunEntry]] = {}
    for run in runs:
        if run.figure is not None:
            groups.setdefault((run.sameness, run.workload), []).append(run)
    return [_worth(sorted(group, key=lambda run: run.seed)) for group in groups.values()]


def _worth(runs: list[RunEntry]) -> Worth:
    figures = [run.figure for run in runs if run.figure is not None]
    rivals = [run for run in runs if run.rival_figure is not None]
    # Each run tunes its own rivals: the name that is best most often stands for them, with its mean.
    name = statistics.mode([run.rival for run in rivals]) if rivals else ""
    of_name = [run.rival_figure for run in rivals if run.rival == name and run.rival_figure is not None]
    return Worth(
        runs=tuple(runs),
        mean=statistics.fmean(figures),
        lowest=min(figures),
        highest=max(figures),
        rival=name,
        rival_figure=statistics.fmean(of_name) if of_name else None,
        better=sum(run.is_better is True for run in runs),
        worse=sum(run.is_better is False for run in runs),
    )


def _run_folders(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Folders of runs and sweeps; each once, whatever links lead back to it."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        # Whatever stands in the file's place: a list that leaves a damaged run out would say that there is none.
        if os.path.lexists(folder / "config.yaml") or os.path.lexists(folder / SWEEP_FILE):
            yield folder
            return
        children = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    for child in children:
        yield from _run_folders(child, seen)


def _judged(summary: Summary) -> tuple[str, str]:
    """Names of the run's own policy and of the best baseline, empty if not there."""
    own = next((name for name, role in summary.roles.items() if role == "policy"), "")
    metric, sign = (_COST, 1.0) if _COST in summary.policies.get(own, {}) else (_RETURN, -1.0)
    baselines = {name: _figure(summary, name, metric) for name, role in summary.roles.items() if role == "baseline"}
    known = {name: sign * value for name, value in baselines.items() if value is not None}
    return own, min(known, key=lambda name: known[name]) if known else ""


def _figure(summary: Summary, name: str, metric: str) -> float | None:
    figure = summary.policies.get(name, {}).get(metric)
    return None if figure is None else figure.mean


def _number(value: float | None) -> float:
    return math.nan if value is None else value
