"""What a Prometheus range query answers, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scalepilot_envs.workloads.traces.grid import Rows, TraceError

# Prometheus itself answers at most 11,000 samples a series: about 350 kB.
MAX_JSON_BYTES = 50_000_000


def samples_of(text: bytes, name: str) -> tuple[Rows, bool]:
    """The samples of the answer's one series, and whether they are a raw counter.

    Args:
        text: {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {…}, "values": [[unix, "1.5"], …]}]}}.
        name: of the file, in messages.

    Raises:
        TraceError: another answer, no series or several, a sample that is no finite number from 0.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{name}: is not JSON ({str(error)[:120]})") from None
    if not isinstance(answer, Mapping) or answer.get("status") != "success":
        said = answer.get("error", answer.get("status")) if isinstance(answer, Mapping) else type(answer).__name__
        raise TraceError(f"{name}: is no successful answer of Prometheus ({str(said)[:120]!r}); allowed: status success")
    data = answer.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, Mapping) else (None, None)
    if kind != "matrix" or not isinstance(result, list) or not all(isinstance(series, Mapping) for series in result):
        raise TraceError(f"{name}: resultType {kind!r} is not allowed; allowed: matrix, as /api/v1/query_range answers")
    if not result:
        raise TraceError(f"{name}: holds no series (an empty matrix); allowed: one; check the query's selector and time range")
    if len(result) > 1:
        raise TraceError(f"{name}: holds {len(result)} series{_differing(result)}; allowed: one, such as that of sum(…)")
    values = result[0].get("values")
    if not isinstance(values, list) or not values:
        raise TraceError(f"{name}: the series has no values; allowed: at least two")
    stamps, rates = np.empty(len(values)), np.empty(len(values))
    for i, sample in enumerate(values):
        stamps[i], rates[i] = _sample(sample, f"{name}: sample {i + 1}")
    metric = result[0].get("metric")
    counter = isinstance(metric, Mapping) and str(metric.get("__name__", "")).endswith("_total")
    return Rows(stamps, rates, 1 + np.arange(len(values))), counter


def _sample(sample: Any, place: str) -> tuple[float, float]:
    try:
        stamp, value = (float(part) for part in sample)
    except (TypeError, ValueError):
        raise TraceError(f'{place}: {str(sample)[:80]} is not allowed; allowed: [unix seconds, "value"]') from None
    if not (0 <= stamp < 1e11):
        raise TraceError(f"{place}: time {sample[0]!r} is not allowed; allowed: Unix seconds")
    if not (math.isfinite(value) and value >= 0):
        raise TraceError(f"{place}: value {sample[1]!r} is not allowed; allowed: finite numbers from 0")
    return stamp, value


def _differing(result: list[Any]) -> str:
    """The labels in which the series differ, with two of their values."""
    metrics = [series["metric"] for series in result if isinstance(series.get("metric"), Mapping)]
    labels = sorted({label for metric in metrics for label in metric})
    told = []
    for label in labels:
        values = sorted({str(metric.get(label, "")) for metric in metrics})
        if len(values) > 1:
            told.append(f"{label} ({', '.join(values[:2])}{', …' if len(values) > 2 else ''})")
    return f", which differ in {', '.join(told)}"[:200] if told else ""
