"""A run's metrics from whatever is left of them: progress.csv, metrics.parquet, or the lines of logs/training.log."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from scalepilot.config import ExperimentConfig
from scalepilot.errors import InputError
from scalepilot.files.stored import MAX_TEXT_BYTES, read_bytes, read_table, shown
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.metrics import METRICS

Rows = list[dict[str, float | None]]
LOG_FILE = "logs/training.log"
# What the log tells of each validation; all else is in progress.csv only.
LOGGED = ("iteration", "env_steps", "train_J_per_hour", "episode_return_mean", "validation_J_per_hour", "validation_return")
_METRICS_LINE = re.compile(r" metrics (\{.*\})$")
_VALIDATION_LINE = re.compile(r" iteration (\d+): validation (J/h|return) (-?[\d.]+(?:e[+-]?\d+)?)$")
_RESUMED_LINE = re.compile(r" resumed at iteration (\d+)")
_VALUE_METRICS = {"J/h": "validation_J_per_hour", "return": "validation_return"}


def logged_metrics(row: Mapping[str, float | None]) -> str:
    """The line of a validation in the log, as `stored_metrics` reads it again."""
    return "metrics " + json.dumps({name: row[name] for name in LOGGED if row.get(name) is not None})


def stored_metrics(folder: RunFolder, config: ExperimentConfig) -> tuple[Rows, str | None]:
    """The rows, and the file they are from; a damaged file is passed over for the next.

    Args:
        folder: of the run.
        config: says how many steps an iteration has.

    Returns:
        Rows with every documented name; from the log alone a row a validation. None where there is nothing.
    """
    readers: dict[str, Callable[[], Rows]] = {
        "progress.csv": folder.read_metrics,
        "metrics.parquet": partial(_from_parquet, folder.metrics_parquet),
        LOG_FILE: partial(_from_log, folder.path / LOG_FILE, config.learning.rollout_size),
    }
    for name, read in readers.items():
        try:
            rows = read()
        except InputError:
            continue
        # A table that lacks a column, or is cut in the middle of a number, is another file than was written.
        if rows and all("env_steps" in row and row["env_steps"] is not None for row in rows):
            return rows, name
    return [], None


def _from_parquet(path: Path) -> Rows:
    if not os.path.lexists(path):
        return []
    rows: Rows = read_table(path).to_pylist()
    for row in rows:
        for name, value in row.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise InputError(f"{path}: {name}: {shown(value)} is not allowed; allowed: numbers")
    return rows


def _from_log(path: Path, rollout_size: int) -> Rows:
    found: dict[int, dict[str, float | None]] = {}
    for text in read_bytes(path, MAX_TEXT_BYTES).decode("utf-8", errors="replace").splitlines():
        if resumed := _RESUMED_LINE.search(text):
            # These iterations were not in the checkpoint and ran again.
            found = {i: row for i, row in found.items() if i <= int(resumed[1])}
        elif validation := _VALIDATION_LINE.search(text):
            iteration = int(validation[1])
            known: dict[str, float | None] = {"iteration": float(iteration), "env_steps": float(iteration * rollout_size)}
            found[iteration] = known | {_VALUE_METRICS[validation[2]]: float(validation[3])}
        elif metrics := _METRICS_LINE.search(text):
            row = _parsed(metrics[1])
            if row is not None and row.get("iteration") is not None:
                found[int(row["iteration"] or 0)] = row
    return [{name: row.get(name) for name in METRICS} for _, row in sorted(found.items())]


def _parsed(text: str) -> dict[str, float | None] | None:
    """One line's numbers; None for a line that a killed run left short."""
    try:
        values: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    numbers = {str(k): float(v) for k, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
    return {**numbers}
