"""Whether a run's metrics are complete, finite and in order."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator
from itertools import pairwise

from scalepilot.errors import InputError
from scalepilot.files.stored import read_table, read_text
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.metrics import METRICS, TABLE
from scalepilot.verify.finding import Finding, error, warning

_SHARES = tuple(metric.name for metric in TABLE if metric.unit == "share")
_COUNTERS = ("iteration", "env_steps")
_MOST_SHOWN = 3


def metric_findings(folder: RunFolder, *, finished: bool) -> Iterator[Finding]:
    """progress.csv row by row, and whether metrics.parquet says the same.

    Args:
        folder: of the run.
        finished: a row cut short is no longer being written.
    """
    if not os.path.lexists(folder.progress_csv):
        return
    again = f"train again, or resume from a checkpoint: scalepilot train --resume {folder.path}"
    try:
        lines = io.StringIO(read_text(folder.progress_csv), newline="").readlines()
        table = list(csv.reader(lines))
    except (InputError, csv.Error) as problem:
        yield error("progress.csv", str(problem).removeprefix(f"{folder.progress_csv}: "), again)
        return
    # An earlier version wrote fewer columns: what is there must be documented, and say which iteration it is.
    columns = table[0] if table else []
    if not {*_COUNTERS} <= {*columns} <= {*METRICS} or len({*columns}) < len(columns):
        yield error("progress.csv", "its columns are not the documented ones", "verify with the version that trained it")
        return
    if lines and not lines[-1].endswith("\n"):
        if finished:
            yield error("progress.csv", "its last row is cut off", again)
        table = table[:-1]
    rows, bad = [], 0
    for number, cells in enumerate(table[1:], start=2):
        problem_text, row = _row(columns, cells)
        if problem_text is None:
            rows.append(row)
        elif (bad := bad + 1) <= _MOST_SHOWN:
            yield error("progress.csv", f"line {number}: {problem_text}", again)
    if bad > _MOST_SHOWN:
        yield error("progress.csv", f"{bad - _MOST_SHOWN} more lines like these", again)
    if not rows and not bad:
        yield warning("progress.csv", "holds no row yet", "verify again later")
    for name in _COUNTERS:
        for before, after in pairwise(rows):
            if (after[name] or 0) <= (before[name] or 0):
                yield error("progress.csv", f"{name} does not rise: {after[name]:g} after {before[name]:g}", again)
                break
    if os.path.lexists(folder.metrics_parquet):
        yield from _parquet_findings(folder, rows if not bad else None, finished=finished)


def _row(columns: list[str], cells: list[str]) -> tuple[str | None, dict[str, float | None]]:
    if len(cells) != len(columns):
        return f"{len(cells)} values, {len(columns)} columns", {}
    row: dict[str, float | None] = {}
    for name, text in zip(columns, cells, strict=True):
        try:
            row[name] = float(text) if text else None
        except ValueError:
            return f"{name} is {text[:30]!r}, no number", {}
        value = row[name]
        if value is not None and not math.isfinite(value):
            return f"{name} is {text}: training has diverged, or divided by zero", {}
        if value is not None and name in _SHARES and not -1e-9 <= value <= 1 + 1e-9:
            return f"{name} is {value:g}; a share lies in [0, 1]", {}
    if row["iteration"] is None or row["env_steps"] is None:
        return "iteration or env_steps is empty", {}
    return None, row


def _parquet_findings(folder: RunFolder, rows: list[dict[str, float | None]] | None, *, finished: bool) -> Iterator[Finding]:
    mend = "remove it; scalepilot report reads progress.csv"
    try:
        stored = read_table(folder.metrics_parquet).to_pylist()
    except InputError as problem:
        yield error("metrics.parquet", str(problem).removeprefix(f"{folder.metrics_parquet}: "), mend)
        return
    if finished and rows is not None and stored != rows:
        yield error("metrics.parquet", f"differs from progress.csv ({len(stored)} rows there, {len(rows)} here)", mend)
