"""A study's files: study.html, analysis.md, summary.json and the plots as SVG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from scalepilot.evaluate.store import interval_json, json_number
from scalepilot.evaluate.study_metrics import Arm, TaskResult
from scalepilot.evaluate.transfer import transfer_json
from scalepilot.experiments.study.config import StudyConfig
from scalepilot.experiments.study.runs import PLOTS, StudyRuns
from scalepilot.files.atomic import write_bytes, write_json
from scalepilot.files.stored import read_text
from scalepilot.report.charts.study_charts import action_shares, dot_plots, learning_curves
from scalepilot.report.charts.transfer_map import transfer_map
from scalepilot.report.html.study_page import StudyPage, render_markdown, render_page
from scalepilot.report.words.study_text import analysis, conclusion, verdict
from scalepilot.report.words.transfer_text import claims
from scalepilot.runs.folder import git_sha, hardware, library_versions

PAGE, ANALYSIS, SUMMARY = "study.html", "analysis.md", "summary.json"


def write_study(study: StudyConfig, runs: StudyRuns, study_file: Path, command: str) -> None:
    """Write everything, each file in one step.

    Args:
        study: what was studied.
        runs: its measurements.
        study_file: the YAML, shown on the page.
        command: that did it.
    """
    folder = runs.folder
    (folder / PLOTS).mkdir(exist_ok=True)
    plots = {task.name: _plots(task, study.axis) for task in runs.tasks}
    maps = {
        task: {f"{task}: {arm}, state → action": (_file(task, f"map-{arm}"), svg) for arm, svg in pictures.items()}
        for task, pictures in runs.maps.items()
    }
    picture = (f"{PLOTS}/transfer.svg", transfer_map(runs.transfer)) if runs.transfer else None
    for pictures in (*plots.values(), *maps.values()):
        for file, svg in pictures.values():
            write_bytes(folder / file, svg.encode())
    if picture:
        write_bytes(folder / picture[0], picture[1].encode())
    page = StudyPage(
        title=study.name,
        seeds=study.seeds,
        tasks=runs.tasks,
        plots=plots,
        maps=maps,
        transfer=runs.transfer,
        transfer_picture=picture,
        study_yaml=read_text(study_file),
        reproduce=command,
        provenance=[
            ("git sha", str(git_sha())),
            *((f"version of {name}", version) for name, version in library_versions().items()),
            *((name, str(value)) for name, value in hardware().items()),
        ],
    )
    write_bytes(folder / ANALYSIS, render_markdown(page).encode())
    write_bytes(folder / PAGE, render_page(page).encode())
    write_json(folder / SUMMARY, summary(study, runs))


def summary(study: StudyConfig, runs: StudyRuns) -> dict[str, Any]:
    """The machine-readable result; what is unknown is null."""
    return {
        "name": study.name,
        "seeds": list(study.seeds),
        "conclusion": conclusion(runs.tasks),
        "tasks": {task.name: _task(task) for task in runs.tasks},
        "transfer": None if runs.transfer is None else transfer_json(runs.transfer) | {"claims": claims(runs.transfer)},
        "versions": library_versions(),
        "hardware": hardware(),
        "git_sha": git_sha(),
    }


def _task(task: TaskResult) -> dict[str, Any]:
    return {
        "env": task.env_id,
        "episodes": int(task.arms[0].values.shape[1]),
        "success_return": task.success_return,
        "random": interval_json(task.random) | {"success_rate": task.random_success_rate},
        "arms": {arm.name: _arm(arm, task) for arm in task.arms},
        "leader": task.arms[0].name,
        "leader_minus": {
            name: {
                "final": interval_json(difference.final),
                "area": interval_json(difference.area),
                "largest_fall": interval_json(difference.largest_fall),
            }
            for name, difference in task.versus.items()
        },
        "verdict": verdict(task),
        "analysis": {paragraph.heading: paragraph.text for paragraph in analysis(task)},
    }


def _arm(arm: Arm, task: TaskResult) -> dict[str, Any]:
    return {
        "detail": arm.detail,
        "env_steps": arm.budget_env_steps,
        "return_iqm": interval_json(arm.iqm),
        "return_mean": interval_json(arm.mean),
        "success_rate": None if arm.success_rate is None else interval_json(arm.success_rate),
        "steps_to_success": list(arm.steps_to_success),
        "area_under_curve": interval_json(arm.area),
        "largest_fall": interval_json(arm.largest_fall),
        "late_deviation": interval_json(arm.late_deviation),
        "seed_deviation": json_number(arm.seed_deviation),
        "actions": {label: float(share) for label, share in zip(task.actions, arm.action_share, strict=False)},
        "kept_validation": {str(run.seed): run.kept_validation for run in arm.runs},
        "per_seed": {str(run.seed): float(run.test_return.mean()) for run in arm.runs},
        "train_seconds": {str(run.seed): run.train_seconds for run in arm.runs},
        "runs": {str(run.seed): run.run for run in arm.runs},
    }


def _plots(task: TaskResult, axis: str) -> dict[str, tuple[str, str]]:
    """Title → (file, SVG)."""
    found = {"learning_curves": learning_curves(task, axis), **dot_plots(task)}
    shares = action_shares(task)
    if shares is not None:
        found["actions"] = shares
    return {f"{task.name}: {stem.replace('_', ' ')}": (_file(task.name, stem), svg) for stem, svg in found.items()}


def _file(task: str, stem: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{task}-{stem}")
    return f"{PLOTS}/{name}.svg"
