"""Runs and sweeps side by side: what each is, how far, what it was worth; and an experiment over its seeds."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from scalepilot.errors import InputError
from scalepilot.evaluate.files import SUMMARY_FILE
from scalepilot.evaluate.page import render
from scalepilot.evaluate.tables import plain_table
from scalepilot.progress import steps_text
from scalepilot.settings.env import AUTOSCALE, is_autoscale

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
        workload: it was judged on; empty where the environment has its own.
        seed: of training.
        status: as run.json has it; "unreadable" if that is damaged.
        env_steps: trained; None if unknown.
        train_seconds: of training; None if unknown.
        figure: mean J per hour or mean return of the kept policy on the test episodes; None if not judged yet.
        figure_name: "J" (lower is better) or "return".
        rival: the best baseline it was judged against; empty without one.
        rival_figure: its figure.
        advantage: (mean, low, high) of figure − rival's with its 95 % interval, NaN where unknown.
        sameness: equal for runs that differ by training seed only.
        trials: (over, all known) of a sweep; None for a run.
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
    trials: tuple[int, int] | None = None

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
            raise InputError(f"{folder}: is no folder; allowed: run folders, or folders that hold some, such as runs")
    found = {path.resolve(): path for folder in folders for path in _run_folders(folder)}
    if not found:
        raise InputError(f"{', '.join(map(str, folders))}: holds no run; allowed: run folders, or folders that hold some")
    return [read_sweep(path) if (path / SWEEP_FILE).is_file() else read_run(path) for path in sorted(found.values())]


def read_run(path: Path) -> RunEntry:
    """One run; what is damaged or not there yet is unknown, not an error.

    Args:
        path: of a folder with a config.yaml.
    """
    return _entry(path, _mapping(path / "config.yaml", yaml.safe_load), _mapping(path / "run.json", json.loads))


def _entry(path: Path, config: dict[str, Any], status: dict[str, Any]) -> RunEntry:
    summary = _mapping(path / "evaluation" / SUMMARY_FILE, json.loads)
    training = status.get("training") or {}
    env_id = str((config.get("env") or {}).get("id", AUTOSCALE)).rpartition("/")[2]
    engine = str(config.get("engine", "rllib"))
    algorithm = str(config.get("algorithm", "?")) + ("" if engine == "rllib" else f" ({engine})")
    seed = config.get("seed", 0)
    own, rival = _judged(summary)
    name = _COST if is_autoscale(env_id) else _RETURN
    nothing = (math.nan, math.nan, math.nan)
    return RunEntry(
        path=path,
        name=str(config.get("name", "?")),
        algorithm=algorithm,
        environment=env_id,
        workload=", ".join(map(str, summary.get("workloads", []))) if is_autoscale(env_id) else "",
        seed=int(seed) if isinstance(seed, int) else 0,
        status=str(status.get("status", "unreadable" if (path / "run.json").exists() else "not begun")),
        env_steps=training.get("env_steps"),
        train_seconds=training.get("train_seconds"),
        figure=_figure(summary, own, name),
        figure_name=name,
        rival=rival,
        rival_figure=_figure(summary, rival, name),
        advantage=_interval(summary.get("versus", {}).get(own, {}).get(rival)) if rival else nothing,
        sameness=json.dumps({key: value for key, value in config.items() if key not in ("seed", "output")}, sort_keys=True),
    )


def read_sweep(path: Path) -> RunEntry:
    """One sweep, as `read_run`: steps and seconds of all its trials, the figures of its best policy.

    Args:
        path: of a folder with a sweep.yaml.
    """
    sweep = _mapping(path / SWEEP_FILE, yaml.safe_load)
    experiment = sweep.get("experiment")
    trials = [_mapping(p, json.loads) for p in sorted(path.glob("*/*/run.json"))]
    training = [trial.get("training") or {} for trial in trials]
    over = sum(trial.get("status") in ("finished", "stopped", "failed") for trial in trials)
    given = {"algorithm": "ppo", **experiment} if isinstance(experiment, dict) else {}
    entry = _entry(path, given, _mapping(path / "run.json", json.loads))
    return replace(
        entry,
        name=str(sweep.get("name", "?")),
        algorithm=f"{entry.algorithm}, {(sweep.get('search') or {}).get('kind', 'grid')} search",
        env_steps=sum(t.get("env_steps") or 0 for t in training) or None,
        train_seconds=sum(t.get("train_seconds") or 0.0 for t in training) or None,
        trials=(over, len(trials)),
        # A sweep is nobody's other seed.
        sameness=str(path),
    )


def worths(runs: Sequence[RunEntry]) -> list[Worth]:
    """What was judged, training seeds together, in the order in which experiments first come."""
    groups: dict[tuple[str, str], list[RunEntry]] = {}
    for run in runs:
        if run.figure is not None:
            groups.setdefault((run.sameness, run.workload), []).append(run)
    return [_worth(sorted(group, key=lambda run: run.seed)) for group in groups.values()]


def runs_table(runs: Sequence[RunEntry]) -> Table:
    """One row a run."""
    table = plain_table(f"{len(runs)} runs", "* better than its best baseline, 95 % interval without 0; ! worse")
    table.add_column("", overflow="fold")
    for heading in ("algorithm", "environment", "status"):
        table.add_column(heading, overflow="fold")
    for heading in ("steps", "steps/s", "result", "best baseline"):
        table.add_column(heading, justify="right")
    for run in runs:
        mark = {True: "*", False: "!", None: " "}[run.is_better]
        table.add_row(
            Text(f"{run.name}/{run.path.name}"),
            run.algorithm,
            Text(run.environment + (f" · {run.workload}" if run.workload else "")),
            status_text(run),
            _steps(run.env_steps),
            _rate(run),
            "-" if run.figure is None else f"{figure_text(run.figure)} {unit(run)}{mark}",
            Text("-" if run.rival_figure is None else f"{figure_text(run.rival_figure)} {run.rival}"),
        )
    return table


def runs_page(runs: Sequence[RunEntry], page: Path) -> str:
    """One self-contained HTML page: a row a run, with links to its report.

    Args:
        runs: listed.
        page: where it will lie, for the links.
    """
    rows = []
    for run in runs:
        report = run.path / "report.html"
        mean, low, high = run.advantage
        rows.append(
            {
                "name": f"{run.name}/{run.path.name}",
                "link": os.path.relpath(report, page.resolve().parent) if report.is_file() else "",
                "algorithm": run.algorithm,
                "environment": run.environment + (f" · {run.workload}" if run.workload else ""),
                "status": status_text(run),
                "steps": _steps(run.env_steps),
                "rate": _rate(run),
                "figure": "–" if run.figure is None else f"{figure_text(run.figure)} {unit(run)}",
                "rival": "" if run.rival_figure is None else f"{figure_text(run.rival_figure)} {run.rival}",
                "interval": f"{figure_text(low)} to {figure_text(high)}" if math.isfinite(mean) and math.isfinite(low) else "",
                "verdict": {True: "better", False: "worse", None: ""}[run.is_better],
            }
        )
    return render("runs.html.j2", ("report.css", "study.css"), {"title": f"{len(runs)} runs", "rows": rows})


def worth_markdown(found: Sequence[Worth]) -> str:
    """One Markdown table, a row an experiment."""
    lines = [
        "| environment | algorithm | preset | steps | training seeds | mean | lowest to highest | best baseline | verdict |",
        "|---|---|---|---:|---|---:|---|---|---|",
    ]
    for worth in found:
        run = worth.runs[0]
        where = run.environment + (f" · {run.workload}" if run.workload else "")
        rival = "–" if worth.rival_figure is None else f"{figure_text(worth.rival_figure)} ({worth.rival})"
        cells = [
            where,
            run.algorithm,
            run.name,
            _steps(run.env_steps),
            ", ".join(str(r.seed) for r in worth.runs),
            f"{figure_text(worth.mean)} {unit(run)}",
            f"{figure_text(worth.lowest)} to {figure_text(worth.highest)}",
            rival,
            outcome_words(worth),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def outcome_words(worth: Worth) -> str:
    """How many seeds are better or worse than the best baseline beyond chance."""
    if worth.rival_figure is None:
        return "nothing to compare with"
    n = len(worth.runs)
    undecided = n - worth.better - worth.worse
    counted = [(worth.better, "better"), (worth.worse, "worse"), (undecided, "undecided")]
    said = [f"{word} with {'its one seed' if n == 1 else f'{k} of {n} seeds'}" for k, word in counted if k]
    return ", ".join(said)


def figure_text(value: float) -> str:
    """Two decimals, a real minus."""
    return f"{value:,.2f}".replace("-", "−")


def status_text(run: RunEntry) -> str:
    """With the trials of a sweep."""
    return run.status if run.trials is None else f"{run.status}, {run.trials[0]} of {run.trials[1]} trials"


def unit(run: RunEntry) -> str:
    """Of the figure."""
    return "J/h" if run.figure_name == _COST else "return"


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


def _run_folders(folder: Path) -> Iterator[Path]:
    if (folder / "config.yaml").is_file() or (folder / SWEEP_FILE).is_file():
        yield folder
        return
    for child in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        yield from _run_folders(child)


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    """What a file holds; {} if it is missing, damaged or no mapping."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _judged(summary: dict[str, Any]) -> tuple[str, str]:
    """Names of the run's own policy and of the best baseline, empty if not there."""
    roles = summary.get("roles", {})
    own = next((name for name, role in roles.items() if role == "policy"), "")
    metric, sign = (_COST, 1.0) if _COST in summary.get("policies", {}).get(own, {}) else (_RETURN, -1.0)
    baselines = {name: _figure(summary, name, metric) for name, role in roles.items() if role == "baseline"}
    known = {name: sign * value for name, value in baselines.items() if value is not None}
    return own, min(known, key=lambda name: known[name]) if known else ""


def _figure(summary: dict[str, Any], name: str, metric: str) -> float | None:
    value = summary.get("policies", {}).get(name, {}).get(metric, {}).get("mean")
    return float(value) if isinstance(value, int | float) else None


def _interval(stored: dict[str, Any] | None) -> tuple[float, float, float]:
    mean, low, high = (math.nan if (v := (stored or {}).get(key)) is None else float(v) for key in ("mean", "low", "high"))
    return mean, low, high


def _steps(env_steps: int | None) -> str:
    return "-" if env_steps is None else steps_text(env_steps)


def _rate(run: RunEntry) -> str:
    return f"{run.env_steps / run.train_seconds:,.0f}" if run.env_steps and run.train_seconds else "-"
