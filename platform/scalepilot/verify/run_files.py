"""What a run folder must hold, and whether its status can be believed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from typing import Any

from scalepilot.errors import InputError
from scalepilot.evaluate.store import EPISODES_FILE, SUMMARY_FILE
from scalepilot.progress import duration
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.status import read_status as stored_status
from scalepilot.runs.stored_metrics import LOG_FILE
from scalepilot.verify.finding import Finding, error, warning

UNDER_WAY, STOPPED, FINISHED = ("running", "evaluating"), ("interrupted", "failed"), "finished"
# A run that wrote nothing for so long is taken for dead where its process cannot be asked for.
_SILENT_SECONDS = 1800.0


def read_status(folder: RunFolder) -> tuple[dict[str, Any], list[Finding]]:
    """run.json, and what is wrong with it."""
    path = folder.path / "run.json"
    again = f"scalepilot train --resume {folder.path}"
    try:
        status = stored_status(folder.path)
    except InputError as problem:
        return {}, [error("run.json", str(problem).removeprefix(f"{path}: "), f"remove it, then: {again}")]
    if not status:
        return {}, [error("run.json", "is missing", f"train again: {again}")]
    return dict(status), []


def status_findings(folder: RunFolder, status: dict[str, Any]) -> Iterator[Finding]:
    """A run that is not finished: whether it still goes on, was stopped, failed, or was killed."""
    state, again = status.get("status"), f"scalepilot train --resume {folder.path}"
    if state in UNDER_WAY:
        alive, silent = is_alive(folder, status)
        if alive:
            yield warning(
                "run.json", f"the run is still {state}; what it has so far was checked", "verify again when it has ended"
            )
        else:
            ago = f"nothing was written for {duration(silent)}"
            yield error("run.json", f"says {state}, but the process is gone ({ago}): it was killed", f"resume with: {again}")
    elif state == "interrupted":
        yield warning("run.json", "the run was stopped before its end and not evaluated on the test", f"resume with: {again}")
    elif state == "failed":
        reason = str(status.get("error", "no reason is given"))
        yield error("run.json", f"the run failed: {reason}", f"mend that, then: {again}")


def is_alive(folder: RunFolder, status: dict[str, Any]) -> tuple[bool, float]:
    """Whether the run's process lives, and seconds since the run wrote anything."""
    watched = (folder.progress_csv, folder.path / LOG_FILE, folder.path / "run.json")
    newest = max((p.stat().st_mtime for p in watched if p.exists()), default=0.0)
    silent = max(0.0, time.time() - newest)
    process = status.get("process")
    if isinstance(process, dict) and process.get("host") == platform.node() and isinstance(process.get("pid"), int):
        try:
            os.kill(process["pid"], 0)
        except ProcessLookupError:
            return False, silent
        except PermissionError:
            return True, silent
        return True, silent
    return silent < _SILENT_SECONDS, silent


def missing_files(folder: RunFolder, status: dict[str, Any]) -> Iterator[Finding]:
    """Files that a run of this status must have left."""
    again = f"scalepilot train --resume {folder.path}"
    finished = status.get("status") == FINISHED
    needed = {"progress.csv": folder.progress_csv}
    if finished:
        needed |= {
            "policy": folder.policy,
            "policy-final": folder.policy_final,
            f"evaluation/{SUMMARY_FILE}": folder.evaluation / SUMMARY_FILE,
            f"evaluation/{EPISODES_FILE}": folder.evaluation / EPISODES_FILE,
        }
    for name, path in needed.items():
        if not path.exists() and (finished or status.get("status") in STOPPED):
            yield error(name, "is missing", f"restore it, or make it again: {again}")
    useful = {LOG_FILE: folder.path / LOG_FILE}
    if finished:
        useful |= {"metrics.parquet": folder.metrics_parquet, "plots": folder.plots}
    for name, path in useful.items():
        if not path.exists():
            mend = f"scalepilot report --plots {folder.path}" if name == "plots" else "only needed to look back"
            yield warning(name, "is missing", mend)
