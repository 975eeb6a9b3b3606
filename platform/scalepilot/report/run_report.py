"""Reports from what is stored: of a run, or of a comparison in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from scalepilot.config import ExperimentConfig
from scalepilot.errors import ArtifactError, InputError, ScalepilotError
from scalepilot.evaluate.comparison import Comparison
from scalepilot.evaluate.store import read_evaluation
from scalepilot.evaluate.suite import SuiteComparison
from scalepilot.files.atomic import write_json
from scalepilot.files.stored import first_problem, read_bytes, read_mapping, read_text
from scalepilot.policy import read_spec
from scalepilot.report.html.report import LearningCurve, Picture, ReportData, write_report
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate.env_notes import EnvNotes

REPORT_FILE, ABOUT_FILE = "report.html", "report.json"
_MOST_ABOUT_BYTES, _MOST_PICTURE_BYTES = 50_000_000, 20_000_000
# A longer film would be most of the page; it lies beside it in videos/.
_MOST_FILM_BYTES = 400_000
_CURVES: TypeAdapter[list[LearningCurve]] = TypeAdapter(list[LearningCurve])


def write_run_report(folder: RunFolder, config: ExperimentConfig, path: Path | None = None) -> Path:
    """Write the report of a run from its files: no policy is run for it.

    Args:
        folder: of the run.
        config: its configuration.
        path: of the page; the run's report.html if None.

    Returns:
        Where it is.

    Raises:
        InputError: the run was not evaluated, or its evaluation is damaged.
    """
    if not folder.evaluation.is_dir():
        raise InputError(
            f"{folder.path}: has not been evaluated yet; allowed: a finished run (scalepilot train --resume finishes one)"
        )
    comparison = read_evaluation(folder.evaluation)
    path = path or folder.report
    spec = _spec_of(folder)
    workload = ", ".join(_workloads(comparison))
    status = folder.read_status()
    provenance: dict[str, Any] = {
        "run": folder.run_id,
        "algorithm": config.algorithm,
        "engine": config.engine,
        "seed": config.seed,
        "env steps of the policy": spec.get("env_steps"),
        **_noted(status),
        "git sha": status.get("git_sha"),
        **{f"version of {name}": version for name, version in status.get("versions", {}).items()},
        **status.get("hardware", {}),
        **{f"sha256 of {name}": digest for name, digest in spec.get("files", {}).items()},
    }
    reproduce = [f"scalepilot train {folder.config_file}", f"scalepilot report {folder.path}"]
    deploy = status.get("deploy", {}).get("reason", "") if config.env.takes_workload else ""
    if config.env.takes_workload:
        reproduce.append(f"scalepilot serve {folder.deploy if deploy else folder.path}")
    write_report(
        ReportData(
            title=f"{config.name} · {config.algorithm} on {workload.rpartition('/')[2]}",
            comparison=comparison,
            learning_curves=[LearningCurve(f"{config.name}-{config.algorithm}", config.seed, folder.read_metrics())],
            reference_lines=_reference_lines(folder, status),
            pictures=[*_pictures(folder, _PLOTS), *_film(folder), *_pictures(folder, _WORKLOAD)],
            stills=_pictures(folder, _STILLS),
            config_yaml=config.to_yaml(),
            provenance=provenance,
            reproduce=reproduce,
            deploy=deploy,
        ),
        path,
    )
    return path


def write_comparison_report(folder: Path, path: Path | None = None) -> Path:
    """Write the report of a comparison from its folder: the evaluation and, where there is one, report.json.

    Args:
        folder: that holds summary.json.
        path: of the page; report.html in the folder if None.

    Returns:
        Where it is.

    Raises:
        InputError: a file is missing or damaged.
    """
    comparison = read_evaluation(folder)
    about = _read_about(folder)
    title = " · ".join(_workloads(comparison))
    path = path or folder / REPORT_FILE
    write_report(ReportData(**{"title": title, **about}, comparison=comparison), path)
    return path


def store_about(data: ReportData, folder: Path) -> None:
    """Keep beside a stored evaluation what else its report shows, pictures apart, so that it can be written anew.

    Args:
        data: the report.
        folder: of the evaluation.
    """
    known = {
        "title": data.title,
        "learning_curves": [asdict(curve) for curve in data.learning_curves],
        "reference_lines": dict(data.reference_lines),
        "config_yaml": data.config_yaml,
        "provenance": dict(data.provenance),
        "reproduce": list(data.reproduce),
    }
    write_json(folder / ABOUT_FILE, known)


def learning_curve_of(policy_folder: Path, name: str) -> LearningCurve | None:
    """How the policy of a run was trained; None for a policy that lies in no run.

    Args:
        policy_folder: the policy's, or the run's.
        name: row label of the policy in the comparison.
    """
    for path in (policy_folder, policy_folder.parent):
        if (path / "config.yaml").is_file() and (path / "progress.csv").is_file():
            try:
                folder, config = RunFolder.open(path)
            except ScalepilotError:
                # A run of another version can be compared, though not told about.
                return None
            return LearningCurve(name, config.seed, folder.read_metrics())
    return None


def _workloads(comparison: Comparison | SuiteComparison) -> tuple[str, ...]:
    return comparison.workloads if isinstance(comparison, SuiteComparison) else (comparison.workload,)


def _spec_of(folder: RunFolder) -> dict[str, Any]:
    """Steps and hashes of the run's policy; a report can be written without one."""
    try:
        spec = read_spec(folder.policy)
    except ArtifactError:
        return {}
    return {"env_steps": spec.provenance.get("env_steps"), "files": spec.files}


def _noted(status: Mapping[str, Any]) -> dict[str, str]:
    """What training noted about its environment."""
    training = status.get("training")
    notes = EnvNotes.from_mapping(training.get("notes") if isinstance(training, Mapping) else None)
    return {f"in training: {kind}": line for kind, line in notes.lines().items()}


def _reference_lines(folder: RunFolder, status: Mapping[str, Any]) -> dict[str, float]:
    """Validation J per hour of the rules: the default HPA's from the run's status, the tuned ones' from their artifacts."""
    lines = {name: float(value) for name, value in status.get("validation_J_per_hour", {}).items()}
    for path in sorted(folder.baselines.iterdir()) if folder.baselines.is_dir() else ():
        try:
            found = read_spec(path).provenance.get("validation_J_per_hour")
        except ArtifactError:
            continue
        if isinstance(found, int | float):
            lines[path.name] = float(found)
    return lines


_PLOTS = {
    "policy_map.svg": ("State and action", "What the policy does in which state; the other fields as in a typical moment."),
    "action_shares.svg": ("Actions", "How often the policy takes each action along a greedy episode."),
    "q_table.svg": ("Q-table", "The greedy action and its value in each state; blank states were never learnt."),
    "action_probabilities.svg": ("Along an episode", "What the policy thinks of each action, and which one it takes."),
}
_WORKLOAD = {
    "workload.svg": (
        "Traffic",
        "Training, validation and test: means, in bands from the lowest to the highest.",
    )
}
# What the page's script draws better itself.
_STILLS = {
    "learning_curve.svg": ("Learning curve", "Training and validation over environment steps, and the test of the kept policy."),
    "playback.svg": ("One window played back", "Requests, replicas and late requests over time."),
}


def _pictures(folder: RunFolder, named: Mapping[str, tuple[str, str]]) -> list[Picture]:
    """Those that `plots/` holds."""
    return [
        Picture(title, caption, read_text(folder.plots / name, _MOST_PICTURE_BYTES))
        for name, (title, caption) in named.items()
        if os.path.lexists(folder.plots / name)
    ]


def _film(folder: RunFolder) -> list[Picture]:
    film = folder.videos / "policy.gif"
    if not film.is_file() or film.stat().st_size > _MOST_FILM_BYTES:
        return []
    return [Picture("Film", "One greedy episode.", read_bytes(film, _MOST_FILM_BYTES))]


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT_FILE
    if not os.path.lexists(path):
        return {}
    stored = read_mapping(path, _MOST_ABOUT_BYTES)
    try:
        return {
            "title": str(stored["title"]),
            "learning_curves": _CURVES.validate_python(stored["learning_curves"]),
            "reference_lines": {str(name): float(value) for name, value in stored["reference_lines"].items()},
            "config_yaml": str(stored["config_yaml"]),
            "provenance": dict(stored["provenance"]),
            "reproduce": [str(command) for command in stored["reproduce"]],
        }
    except ValidationError as error:
        raise InputError(f"{path}: learning_curves.{first_problem(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a stored report ({type(error).__name__}: {str(error).splitlines()[0][:100]})") from None
