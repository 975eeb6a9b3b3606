"""Policies side by side, wherever they lie: what each is, where it came from, what it was worth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalepilot.errors import InputError
from scalepilot.evaluate.store import read_summary
from scalepilot.files.stored import read_mapping
from scalepilot.policy import PolicySpec, read_spec
from scalepilot.policy.artifact import SPEC_FILE

_COST, _RETURN = "J", "return"
_EVALUATION_KEYS = ("workloads", "episodes", "roles", "policies", "gap_closed")


@dataclass(frozen=True)
class PolicyEntry:
    """One policy folder.

    Attributes:
        path: of the folder.
        spec: its description; None where that cannot be read.
        evaluation: what it was worth, see `stored_evaluation`.
        problem: why it cannot be read; empty where it can.
    """

    path: Path
    spec: PolicySpec | None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def figure(self) -> tuple[str, float] | None:
        """("J", mean per hour) or ("return", mean) of its evaluation; None if it has none."""
        own = {} if self.spec is None else figures(self.evaluation, self.spec.name)
        for name in (_COST, _RETURN):
            mean = own.get(name, {}).get("mean")
            if isinstance(mean, int | float):
                return name, float(mean)
        return None


def find_policies(folders: Sequence[Path]) -> list[PolicyEntry]:
    """Every policy in or below some folders, in order of their paths; damaged ones are listed, too.

    Args:
        folders: policy folders, run folders, or folders that hold some at any depth.

    Raises:
        InputError: a folder does not exist, or none holds a policy.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"{folder}: is not a directory; allowed: run or policy folders, or folders that hold some, such as runs"
            )
    found = {path.resolve(): path for folder in folders for path in _policy_folders(folder)}
    if not found:
        raise InputError(f"{', '.join(map(str, folders))}: holds no policy; allowed: run or policy folders, or folders of them")
    return [_entry(path) for path in sorted(found.values())]


def stored_evaluation(folder: Path, spec: PolicySpec) -> dict[str, Any]:
    """What a policy was worth: as its artifact says, or as the run it lies in was evaluated.

    Args:
        folder: of the policy.
        spec: as read from there.

    Returns:
        The parts of a run's summary.json that concern a reader: workloads, episodes, and for the policy and those it was compared
        with their roles, figures with intervals and gaps closed. {} where nobody evaluated it.
    """
    if spec.evaluation:
        return dict(spec.evaluation)
    run = _run_judged(folder)
    if run is None:
        return {}
    path = run / "evaluation" / "summary.json"
    if not os.path.lexists(path):
        return {}
    read_summary(run / "evaluation")
    summary = read_mapping(path)
    if not figures(summary, spec.name):
        return {}
    return {key: summary[key] for key in _EVALUATION_KEYS if key in summary}


def figures(evaluation: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Figures of one policy of an evaluation: metric → {"mean", "low", "high"}; {} if it has none."""
    of_all = evaluation.get("policies")
    own = of_all.get(name) if isinstance(of_all, dict) else None
    return {metric: value for metric, value in own.items() if isinstance(value, dict)} if isinstance(own, dict) else {}


def renamed(evaluation: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """The same evaluation with another name for one of its policies."""
    changed = dict(evaluation)
    for key in ("roles", "policies", "gap_closed"):
        part = evaluation.get(key)
        if isinstance(part, dict):
            changed[key] = {new if name == old else name: value for name, value in part.items()}
    return changed


def _entry(path: Path) -> PolicyEntry:
    try:
        spec = read_spec(path)
        return PolicyEntry(path, spec, stored_evaluation(path, spec))
    except InputError as error:
        return PolicyEntry(path, None, problem=str(error).removeprefix(f"{path / SPEC_FILE}: "))


def _policy_folders(folder: Path) -> Iterator[Path]:
    for place, children, files in os.walk(folder):
        if SPEC_FILE in files:
            children.clear()
            yield Path(place)
        # Hidden folders are what a writer has aside.
        children[:] = [child for child in children if not child.startswith(".")]


def _run_judged(folder: Path) -> Path | None:
    """The run whose evaluation speaks of the policy in a folder: its best one or one of its baselines, not its last one."""
    place = folder.resolve()
    run = place.parent if place.name == "policy" else place.parents[1] if place.parent.name == "baselines" else None
    return run if run is not None and (run / "config.yaml").is_file() else None
