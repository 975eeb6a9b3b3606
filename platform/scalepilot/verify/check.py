"""All checks of one folder, in order; one that fails ends nothing but what needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from scalepilot.config import ExperimentConfig
from scalepilot.errors import InputError, ScalepilotError
from scalepilot.policy import Policy
from scalepilot.policy.artifact import SPEC_FILE
from scalepilot.runs.folder import RunFolder
from scalepilot.verify.evaluation_checks import evaluation_findings
from scalepilot.verify.finding import Finding, Verdict, error
from scalepilot.verify.metric_checks import metric_findings
from scalepilot.verify.policy_checks import load_findings, policy_findings
from scalepilot.verify.run_files import FINISHED, missing_files, read_status, status_findings

_RUN_CHECKS = ("config", "status", "files", "metrics", "policy loads", "policy acts", "evaluation")
_POLICY_CHECKS = ("policy loads", "policy acts")


def verify_path(path: Path, *, thorough: bool = False) -> Verdict:
    """Check a run or a policy folder.

    Args:
        path: of it.
        thorough: run every stored test episode again, not a few, and plan the clairvoyant optimum anew; takes minutes.

    Raises:
        InputError: the folder is neither.
    """
    if os.path.lexists(path / SPEC_FILE):
        policy, findings = load_findings(path, path.name)
        if policy is not None:
            findings += policy_findings(policy, path.name)
        return Verdict(path, "policy", _POLICY_CHECKS, tuple(findings))
    if not any(os.path.lexists(path / name) for name in ("config.yaml", "run.json", "progress.csv")):
        raise InputError(f"{path}: is neither a run nor a policy folder; allowed: a folder with config.yaml, or with {SPEC_FILE}")
    return Verdict(path, "run", _RUN_CHECKS, tuple(_run_findings(RunFolder(path), thorough)))


def _run_findings(folder: RunFolder, thorough: bool) -> Iterator[Finding]:
    config, found = _config(folder)
    yield from found
    status, found = read_status(folder)
    yield from found
    yield from status_findings(folder, status)
    yield from missing_files(folder, status)
    yield from metric_findings(folder, finished=status.get("status") == FINISHED)
    policy: Policy | None = None
    for place in (folder.init, folder.deploy, folder.policy_final, folder.policy):
        if place.exists():
            policy, found = load_findings(place, place.name)
            yield from found
            if policy is not None:
                yield from policy_findings(policy, place.name)
    if config is not None:
        trained = status.get("training") or {}
        best = trained.get("best_value") if isinstance(trained, dict) else None
        kept = policy if folder.policy.exists() else None
        best = best if isinstance(best, int | float) else None
        yield from evaluation_findings(config, folder, kept, best, thorough=thorough)


def _config(folder: RunFolder) -> tuple[ExperimentConfig | None, list[Finding]]:
    try:
        return RunFolder.open(folder.path)[1], []
    except ScalepilotError as problem:
        what = str(problem).removeprefix(f"{folder.path}: ").removeprefix(f"{folder.config_file}: ")
        return None, [error("config.yaml", what, "restore it; nothing can be evaluated again without it")]
