"""The numbers behind the report's charts, as plain JSON: rounded, without NaN, and never more than a page can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.comparison import ROLES, Comparison, Contestant
from scalepilot.evaluate.statistics import Interval

# More points than this no screen shows; longer windows are averaged over bins, longer curves thinned.
_MAX_STEPS = 4000
_MAX_CURVE_POINTS = 2000


def chart_data(
    comparison: Comparison, learning_curve: Sequence[Mapping[str, Any]], reference_lines: Mapping[str, float]
) -> dict[str, Any]:
    """Everything the page's script draws; a missing part is None.

    Args:
        comparison: for scatter and playback.
        learning_curve: as `ReportData.learning_curve`.
        reference_lines: as `ReportData.reference_lines`.
    """
    return {
        "learning": _learning(learning_curve, reference_lines),
        "scatter": _scatter(comparison),
        "playback": _playback(comparison),
    }


def interval_bar(interval: Interval, among: Sequence[Interval], *, zero: bool = False) -> dict[str, float] | None:
    """Positions in percent of a common axis, for a small bar in a table; None without a mean.

    Args:
        interval: to draw.
        among: all that share the axis.
        zero: whether 0 must be on it.
    """
    ends = [x for i in among for x in (i.mean, i.low, i.high) if math.isfinite(x)] + ([0.0] if zero else [])
    if not math.isfinite(interval.mean):
        return None
    first, last = min(ends), max(ends)
    span = last - first or 1.0

    def at(value: float) -> float:
        return round(4 + 92 * (value - first) / span, 2)

    low, high = (interval.low, interval.high) if interval.is_known else (interval.mean, interval.mean)
    bar = {"mean": at(interval.mean), "low": at(low), "high": at(high)}
    return bar | ({"zero": at(0.0)} if zero else {})


def _learning(curve: Sequence[Mapping[str, Any]], lines: Mapping[str, float]) -> dict[str, Any] | None:
    points = [
        {
            "steps": _round(entry.get("env_steps")),
            "validation": _round(entry.get("validation_J_per_hour")),
            "train": _round(entry.get("train_J_per_hour")),
        }
        for entry in curve
    ]
    drawn = [p for p in points if p["steps"] is not None and (p["validation"] is not None or p["train"] is not None)]
    if not drawn:
        return None
    stride = math.ceil(len(drawn) / _MAX_CURVE_POINTS)
    thinned = [p for i, p in enumerate(drawn) if i % stride == 0 or i == len(drawn) - 1]
    known = [{"name": name, "value": _round(value)} for name, value in lines.items() if _round(value) is not None]
    return {"points": thinned, "lines": known}


def _scatter(comparison: Comparison) -> dict[str, Any] | None:
    points = []
    for role in ROLES:
        for c in comparison.of_role(role):
            row = comparison.rows[c.name]
            cost, late = _interval(row["cost"]), _interval(row["late_share"], 100.0)
            if cost[0] is not None and late[0] is not None:
                points.append({"name": c.name, "role": role, "cost": cost, "late": late, "J": _round(row["J"].mean)})
    if not points:
        return None
    return {"points": points, "equal": _equal_cost(comparison)}


def _equal_cost(comparison: Comparison) -> dict[str, Any] | None:
    """Where J equals the best baseline's: cost + late percent × price of one percent. All meet the same requests."""
    baseline = comparison.best("baseline")
    dearest = max(comparison.rows.values(), key=lambda row: row["penalty"].mean)
    late_percent = 100 * dearest["late_share"].mean
    if baseline is None or not late_percent > 0 or not dearest["penalty"].mean > 0:
        return None
    row = comparison.rows[baseline.name]
    return {
        "name": baseline.name,
        "total": _round(row["J"].mean - row["move_cost"].mean),
        "price_per_percent": _round(dearest["penalty"].mean / late_percent),
    }


def _playback(comparison: Comparison) -> dict[str, Any] | None:
    """The best policy, the best baseline and the reference over one window."""
    shown: list[Contestant] = []
    for role in ROLES:
        best = comparison.best(role)
        if best is not None and best.playback is not None:
            shown.append(best)
    where = comparison.played_back
    if not shown or where is None:
        return None
    rate = shown[0].playback.arrival_rate_rps  # type: ignore[union-attr]
    per_bin = math.ceil(len(rate) / _MAX_STEPS)
    series = []
    for c in shown:
        assert c.playback is not None
        p = c.playback
        series.append(
            {
                "name": c.name,
                "role": c.role,
                "replicas": _binned(p.replicas, per_bin),
                "ready": _binned(p.ready_replicas, per_bin),
                "late": _binned(100 * p.late_share, per_bin, weights=rate),
                "p95": _binned(1000 * p.latency_p95_seconds, per_bin, weights=rate),
            }
        )
    return {
        "start": where.start_unix_seconds,
        "interval_seconds": where.interval_seconds * per_bin,
        "window": where.window,
        "seed": where.seed,
        "rate": _binned(rate, per_bin),
        "series": series,
    }


def _binned(values: NDArray[np.float64], per_bin: int, weights: NDArray[np.float64] | None = None) -> list[float | None]:
    """Means over bins of `per_bin` steps, the last one maybe shorter; weighted by requests where given."""
    if per_bin == 1:
        return [_round(x) for x in values]
    starts = np.arange(0, len(values), per_bin)
    # A tiny weight keeps bins without requests at their plain mean.
    weight = np.ones(len(values)) if weights is None else weights + 1e-9
    return [_round(x) for x in np.add.reduceat(values * weight, starts) / np.add.reduceat(weight, starts)]


def _interval(interval: Interval, factor: float = 1.0) -> list[float | None]:
    return [_round(factor * x) for x in (interval.mean, interval.low, interval.high)]


def _round(value: Any) -> float | None:
    """Five significant digits; None for what is not a finite number."""
    if value is None or not math.isfinite(value):
        return None
    number = float(f"{float(value):.5g}") if abs(value) < 1e5 else float(round(value))
    return int(number) if number == int(number) else number
