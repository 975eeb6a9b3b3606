"""A sweep's results: leaderboard, plots, report.html, summary.json, and the best policy compared with the rules."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalepilot.config import ExperimentConfig, short_value
from scalepilot.errors import RunError
from scalepilot.evaluate.store import interval_json, json_number
from scalepilot.experiments.beside import tuned_baselines
from scalepilot.experiments.run import evaluate_run
from scalepilot.experiments.sweep.board import Standing, TrialEntry, ranked, read_trials
from scalepilot.experiments.sweep.charts import importance_bars, leaders, parallel_coordinates
from scalepilot.experiments.sweep.importance import importance
from scalepilot.experiments.sweep.plan import PlannedSweep, label
from scalepilot.experiments.sweep.run import CONFIRMATION, SWEEP_FILE, TRIALS
from scalepilot.experiments.sweep.verdict import SweepBoard, span_text
from scalepilot.files.atomic import replaced_folder, write_bytes, write_json
from scalepilot.files.stored import read_text
from scalepilot.learn.task import Task
from scalepilot.progress import duration
from scalepilot.report.html.page import image_address, render
from scalepilot.report.words.tables import verdict
from scalepilot.runs.folder import RunFolder, git_sha, hardware, library_versions
from scalepilot_envs.objective import Bounds

PAGE, SUMMARY, PLOTS = "report.html", "summary.json", "plots"
METHOD = (
    "Points are chosen by validation; figures of the test episodes chose nothing. Intervals (95 %) are of the bootstrap over"
    " test episodes, and over training seeds where a point was trained with several: the interval of one seed does not say what"
    " another would bring."
)


def write_sweep(plan: PlannedSweep, folder: Path) -> SweepBoard:
    """Choose, evaluate and write everything, each file in one step.

    Args:
        plan: the sweep.
        folder: its folder, everything trained.

    Raises:
        RunError: no trial used its budget up.
    """
    searched = read_trials(folder / TRIALS)
    trials = [*searched, *read_trials(folder / CONFIRMATION)]
    standings = ranked(trials, _bounds(plan))
    if not standings or not standings[0].is_finished:
        raise RunError(f"{folder}: no trial used its budget up; their run.json and logs/training.log say why")
    finished = [trial for trial in searched if trial.status == "finished" and trial.score is not None]
    scores = [trial.score for trial in finished if trial.score is not None]
    best = standings[0].best_trial
    config = plan.config(standings[0].trials[0].point, best.seed)
    board = SweepBoard(
        plan=plan,
        folder=folder,
        trials=tuple(trials),
        standings=tuple(standings),
        importance=importance(plan.sweep.space, [trial.point for trial in finished], scores),
        objective=config.env.objective,
        versus_rules=_judge(config, folder, best),
    )
    pictures = _pictures(board)
    (folder / PLOTS).mkdir(exist_ok=True)
    for name, (_, svg) in pictures.items():
        write_bytes(folder / PLOTS / f"{name}.svg", svg.encode())
    write_json(folder / SUMMARY, summary(board))
    write_bytes(folder / PAGE, _page(board, list(pictures.values())).encode())
    return board


def _bounds(plan: PlannedSweep) -> Bounds:
    """Of what the figure can be: no interval says that CartPole might give 600."""
    objective = plan.example.env.objective
    return objective.metrics[objective.metric].bounds


def summary(board: SweepBoard) -> dict[str, Any]:
    """The machine-readable result; what is unknown is null."""
    return {
        "name": board.plan.sweep.name,
        "search": board.plan.sweep.search.kind,
        "figure": board.figure,
        "verdict": board.verdict,
        "versus_rules": board.versus_rules,
        "best": _standing(board.best),
        "leaderboard": [_standing(standing) for standing in board.standings],
        "importance": {key: json_number(share) for key, share in board.importance.shares.items()},
        "trials": [_trial(trial) for trial in board.trials],
        "versions": library_versions(),
        "hardware": hardware(),
        "git_sha": git_sha(),
    }


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "point": dict(standing.point),
        "validation": standing.value,
        "test": interval_json(standing.tested),
        "seeds": [trial.seed for trial in standing.trials],
        "finished": standing.is_finished,
        "trials": [trial.folder.name for trial in standing.trials],
    }


def _trial(trial: TrialEntry) -> dict[str, Any]:
    return {
        "folder": f"{trial.folder.parent.name}/{trial.folder.name}",
        "point": dict(trial.point),
        "seed": trial.seed,
        "status": trial.status,
        "attempts": trial.attempts,
        "validation": trial.value,
        "env_steps": trial.env_steps,
        "train_seconds": trial.train_seconds,
        "error": trial.error or None,
        "changes": [{"env_steps": steps, "point": dict(point)} for steps, point in trial.changes],
    }


def _judge(config: ExperimentConfig, folder: Path, best: TrialEntry) -> str:
    """Copy the best trial's policy into the sweep's folder, run it against the rules, say how it did."""
    own = RunFolder(folder)
    with replaced_folder(own.policy) as aside:
        shutil.copytree(best.folder / "policy", aside, dirs_exist_ok=True)
    task = Task(config)
    return verdict(evaluate_run(task, own, tuned_baselines(config, task.scenario, own)))


def _pictures(board: SweepBoard) -> Mapping[str, tuple[str, str]]:
    """File stem → (title, SVG)."""
    space, standings = board.plan.sweep.space, board.standings
    figure = f"validation {board.figure}"
    found = {
        "leaders": ("The best points", leaders(standings, f"test {board.figure}")),
        "parallel_coordinates": (
            "All points",
            parallel_coordinates(space, standings, figure, higher_is_better=not board.objective.lower_is_better),
        ),
    }
    if board.importance.is_known:
        found["importance"] = ("What decides", importance_bars(board.importance))
    return found


def _page(board: SweepBoard, pictures: list[tuple[str, str]]) -> str:
    sweep = board.plan.sweep
    seconds = sum(trial.train_seconds for trial in board.trials)
    return render(
        "sweep.html.j2",
        ("report.css", "study.css"),
        {
            "title": sweep.name,
            "sentences": [board.verdict, board.versus_rules],
            "scope": f"{len(board.trials)} trials of a {sweep.search.kind} search, {duration(seconds)} of training.",
            "method": METHOD,
            "keys": list(sweep.space),
            "figure": board.figure,
            "rows": [_row(standing, list(sweep.space)) for standing in board.standings],
            "failed": [f"{label(t.point)} seed={t.seed}: {t.error} ({t.attempts} attempts)" for t in board.failed],
            "pictures": [{"title": title, "source": image_address(svg)} for title, svg in pictures],
            "unknown_importance": ""
            if board.importance.is_known
            else f"{board.importance.num_trials} trials are too few to tell which key decides.",
            "sweep_yaml": read_text(board.folder / SWEEP_FILE),
            "reproduce": f"scalepilot tune {board.folder / SWEEP_FILE}",
            "provenance": [
                ("git sha", str(git_sha())),
                *((f"version of {name}", version) for name, version in library_versions().items()),
                *((name, str(value)) for name, value in hardware().items()),
            ],
        },
    )


def _row(standing: Standing, keys: list[str]) -> dict[str, Any]:
    tested = standing.tested
    return {
        "cells": [short_value(standing.point[key]) for key in keys],
        "validation": f"{standing.value:,.2f}".replace("-", "−"),
        "test": f"{tested.mean:,.2f}".replace("-", "−") if math.isfinite(tested.mean) else "stopped early",
        "interval": span_text(tested) if tested.is_known else "",
        "seeds": ", ".join(str(trial.seed) for trial in standing.trials),
        "steps": f"{standing.trials[0].env_steps:,}",
        "seconds": f"{sum(trial.train_seconds for trial in standing.trials):,.1f}",
        "trial": f"{standing.best_trial.folder.parent.name}/{standing.best_trial.folder.name}",
    }


__all__ = ["PAGE", "SUMMARY", "summary", "write_sweep"]
