"""Samples of a monitoring system's JSON → rows and a series' name: what every dialect of it shares."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from scalepilot_envs.workloads.traces.parsed import Parsed
from scalepilot_envs.workloads.traces.rows import Rows, TraceError
from scalepilot_envs.workloads.traces.times import TimeFormat, number_kind


def rows_of(samples: Iterable[tuple[Any, Any]], name: str, what: str = "sample") -> Rows:
    """One row a sample, in the order of the file.

    Args:
        samples: (time, value): Unix seconds or ISO-8601, a number from 0 or nothing.
        name: of the file.
        what: one is called in messages.

    Raises:
        TraceError: naming the sample.
    """
    stamps, values, missing = [], [], ""
    for i, (stamp, value) in enumerate(samples):
        place = f"{name}: {what} {i + 1}"
        stamps.append(_seconds(stamp, place))
        values.append(_value(value, place))
        if math.isnan(values[-1]) and not missing:
            missing = f"value {value!r}"
    return Rows(np.array(stamps), np.array(values), 1 + np.arange(len(values)), missing)


def _seconds(stamp: Any, place: str) -> float:
    if isinstance(stamp, str) and not re.fullmatch(r"[\d.eE+]+", stamp.strip()):
        try:
            return TimeFormat("text").read(stamp, place)[0]
        except TraceError:
            raise TraceError(f"{place}: time {stamp[:80]!r} is not allowed; allowed: Unix seconds, or ISO-8601") from None
    try:
        number = math.nan if isinstance(stamp, bool) else float(stamp)
    except (TypeError, ValueError):
        number = math.nan
    kind = number_kind(number) if number >= 1e11 else "seconds"
    if not 0 <= number < 1e20 or kind in (None, "excel"):
        raise TraceError(f"{place}: time {stamp!r} is not allowed; allowed: Unix seconds") from None
    return TimeFormat(str(kind)).seconds(number)


def _value(value: Any, place: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.inf
    if number < 0 or math.isinf(number):
        raise TraceError(f"{place}: value {str(value)[:80]!r} is not allowed; allowed: finite numbers from 0")
    return number


def _each(series: list[tuple[str, Rows]]) -> Iterator[tuple[str, Rows]]:
    yield from (pair for pair in series if len(pair[1].stamps))


def parsed_of(dialect: str, name: str, series: list[tuple[str, Rows]], **others: Any) -> Parsed:
    """A dialect's series, those without rows left out.

    Raises:
        TraceError: none holds a row.
    """
    if not any(len(rows.stamps) for _, rows in series):
        raise TraceError(f"{name}: holds no values ({dialect}); allowed: at least two")
    place = others.pop("place", lambda sample: f"{name}: sample {sample}")
    unordered = others.pop("unordered", True)
    return Parsed(dialect, _each(series), place, unordered=unordered, **others)


def unique(series: list[tuple[str, Rows]]) -> list[tuple[str, Rows]]:
    """Series of one name are numbered."""
    seen: dict[str, list[Rows]] = {}
    for label, rows in series:
        seen.setdefault(label, []).append(rows)
    repeated = [label for label, many in seen.items() if len(many) > 1]
    counts: dict[str, int] = {}
    out = []
    for label, rows in series:
        counts[label] = counts.get(label, 0) + 1
        out.append((f"{label} ({counts[label]})" if label in repeated else label, rows))
    return out


def metric_name(metric: Mapping[str, Any]) -> str:
    """A series as Prometheus writes it: name{label="value"}."""
    labels = ",".join(f'{key}="{value}"' for key, value in sorted(metric.items()) if key != "__name__")
    return f"{metric.get('__name__', '')}{{{labels}}}" if labels else str(metric.get("__name__", ""))
