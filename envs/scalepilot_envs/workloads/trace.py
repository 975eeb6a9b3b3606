"""Recorded workloads from CSV files."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.series import RateSeries

MAX_TRACE_BYTES, MAX_POINTS = 200_000_000, 20_000_000
VALUE_COLUMNS = ("requests_per_second", "value")


class TraceError(ValueError):
    """A trace file that cannot be used; the message names file, line, value and what is allowed."""


@dataclass(frozen=True)
class TraceWorkload:
    """Request rates from a CSV file: `timestamp` (ISO-8601, UTC, start of the interval) and `requests_per_second`.

    Attributes:
        path: the file.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the recorded rates.
        gaps: what to do where rows are missing on the grid: refuse ("error"), interpolate ("linear") or repeat the
            last value ("previous").
    """

    kind: Literal["trace"] = "trace"
    path: str = ""
    peak_rps: float | None = None
    gaps: Literal["error", "linear", "previous"] = "error"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("workload.path: is empty; allowed: a CSV file with the columns timestamp,requests_per_second")
        if self.peak_rps is not None and not (math.isfinite(self.peak_rps) and self.peak_rps > 0):
            raise ValueError(f"workload.peak_rps: {self.peak_rps!r} is not allowed; allowed: above 0, or null")
        if self.gaps not in ("error", "linear", "previous"):
            raise ValueError(f"workload.gaps: {self.gaps!r} is not allowed; allowed: error, linear, previous")

    def series(self) -> RateSeries:
        """The recorded series on its own grid.

        Raises:
            TraceError: see `read_csv`.
        """
        series = read_csv(Path(self.path), self.gaps)
        return series if self.peak_rps is None else series.scaled_to_peak(self.peak_rps)


def read_csv(path: Path, gaps: Literal["error", "linear", "previous"] = "error") -> RateSeries:
    """Read a trace.

    Args:
        path: CSV with a header; a byte-order mark and CRLF are fine, time stamps with a zone other than UTC are converted.
        gaps: see `TraceWorkload`.

    Raises:
        TraceError: missing file, wrong header, unreadable, negative or non-finite value, disorder, duplicate or gap.
    """
    try:
        size = path.stat().st_size
        if size > MAX_TRACE_BYTES:
            raise TraceError(f"{path}: {size / 1e6:.0f} MB; allowed: up to {MAX_TRACE_BYTES / 1e6:.0f} MB")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        return _read_rows(path, rows, gaps)
    except csv.Error as error:
        raise TraceError(f"{path}:{rows.line_num}: is not CSV ({error})") from None


def _read_rows(path: Path, rows: Any, gaps: str) -> RateSeries:
    header = [name.strip() for name in next(rows, [])]
    if len(header) < 2 or header[0] != "timestamp" or header[1] not in VALUE_COLUMNS:
        raise TraceError(
            f"{path}:1: header {','.join(header)!r} is not allowed; allowed: timestamp,requests_per_second (or timestamp,value)"
        )
    lines: list[int] = []
    stamps: list[float] = []
    values: list[float] = []
    for row in rows:
        if not row:
            continue
        where = f"{path}:{rows.line_num}"
        if len(row) != len(header):
            raise TraceError(f"{where}: {len(row)} columns, the header has {len(header)}; allowed: {','.join(header)[:80]}")
        lines.append(rows.line_num)
        stamps.append(_unix_seconds(row[0], where))
        values.append(_rate(row[1], header[1], where))
        if len(stamps) > 1 and stamps[-1] <= stamps[-2]:
            fault = "repeats the time stamp before it" if stamps[-1] == stamps[-2] else "is earlier than the row before it"
            raise TraceError(f"{where}: timestamp {row[0]!r} {fault}; allowed: rising time stamps")
    if len(stamps) < 2:
        raise TraceError(f"{path}: {len(stamps)} rows; allowed: at least two")
    return _on_grid(path, lines, np.array(stamps), np.array(values), gaps)


def _unix_seconds(text: str, where: str) -> float:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise TraceError(f"{where}: timestamp {text!r} is not a time; allowed: ISO-8601, such as 1995-07-01T04:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _rate(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise TraceError(f"{where}: {column} {text!r} is not allowed; allowed: finite numbers from 0")
    return value


def _on_grid(path: Path, lines: list[int], stamps: NDArray[np.float64], values: NDArray[np.float64], gaps: str) -> RateSeries:
    steps = np.diff(stamps)
    interval = float(np.median(steps))
    irregular = np.flatnonzero(np.abs(steps - interval) > 1e-6 * interval)
    if len(irregular) and gaps == "error":
        first = int(irregular[0])
        raise TraceError(
            f"{path}:{lines[first + 1]}: {steps[first]:g} s after the row before it, the grid is {interval:g} s"
            f" ({len(irregular)} such places); allowed: a regular grid, or gaps: linear | previous"
        )
    if not len(irregular):
        return RateSeries(values, interval, float(stamps[0]))
    points = (stamps[-1] - stamps[0]) / interval
    if points > MAX_POINTS:
        raise TraceError(f"{path}: spans {points:.0f} intervals of {interval:g} s; allowed: up to {MAX_POINTS}")
    grid = np.arange(stamps[0], stamps[-1] + interval / 2, interval)
    if gaps == "linear":
        filled = np.interp(grid, stamps, values)
    else:
        filled = values[np.searchsorted(stamps, grid + 1e-6 * interval, side="right") - 1]
    return RateSeries(filled, interval, float(stamps[0]))
