"""The numbers behind the report's charts, as plain JSON: rounded, without NaN, and never more than a page can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.comparison import ROLES, Comparison, Contender, Role
from scalepilot.evaluate.statistics.intervals import Interval

Array = NDArray[np.float64]

# No screen shows more points than the first; all series of a page together are worth some 700 kB.
_MAX_STEPS, _MAX_VALUES = 4000, 60_000
_MAX_CURVE_POINTS, _MAX_TRAINING_POINTS = 2000, 300
_COSTS = ("train_J_per_hour", "validation_J_per_hour")
_RETURNS = ("episode_return_mean", "validation_return")
Seeded = tuple[str, int, Sequence[Mapping[str, Any]]]


def chart_data(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """What the page's script draws of each workload; a missing part is None."""
    series = sum(c.playback is not None for comparison in comparisons for c in comparison.contenders)
    most_steps = min(_MAX_STEPS, _MAX_VALUES // max(1, series))
    return [{"scatter": _scatter(comparison), "playback": _playback(comparison, most_steps)} for comparison in comparisons]


def interval_bar(interval: Interval, among: Sequence[Interval], *, zero: float | None = None) -> dict[str, float] | None:
    """Positions in percent of a common axis, for a small bar in a table; None without a mean.

    Args:
        interval: to draw.
        among: all that share the axis.
        zero: a value to mark on it, such as that of no difference.
    """
    ends = [x for i in among for x in (i.mean, i.low, i.high) if math.isfinite(x)] + ([] if zero is None else [zero])
    if not math.isfinite(interval.mean):
        return None
    first, last = min(ends), max(ends)
    span = last - first or 1.0

    def at(value: float) -> float:
        return round(4 + 92 * (value - first) / span, 2)

    low, high = (interval.low, interval.high) if interval.is_known else (interval.mean, interval.mean)
    bar = {"mean": at(interval.mean), "low": at(low), "high": at(high)}
    return bar if zero is None else bar | {"zero": at(zero)}


def learning_data(trainings: Sequence[Seeded], lines: Mapping[str, float]) -> dict[str, Any] | None:
    """Learning curves: a line of each name with, for several trainings, a band from the lowest to the highest.

    Args:
        trainings: (name, training seed, rows of metrics).
        lines: name → validation J per hour of rules.

    Returns:
        What the page's script draws; None where nothing was measured.
    """
    costs = any(row.get(name) is not None for _, _, rows in trainings for row in rows for name in _COSTS)
    training, validation = _COSTS if costs else _RETURNS
    curves = []
    for name in dict.fromkeys(name for name, _, _ in trainings):
        mine = [(seed, rows) for other, seed, rows in trainings if other == name]
        validated = [_points(rows, validation) for _, rows in mine]
        trained = [_points(rows, training) for _, rows in mine]
        if not any(len(x) for x, _ in (*validated, *trained)):
            continue
        steps, mean, low, high = _band([points for points in validated if len(points[0])])
        several = sum(len(x) > 0 for x, _ in validated) > 1
        curves.append(
            {
                "name": name,
                "seeds": [seed for seed, _ in mine],
                "steps": _rounded(steps),
                "mean": _rounded(mean),
                "low": _rounded(low) if several else None,
                "high": _rounded(high) if several else None,
                # Of several trainings the wild curves of training would hide what matters.
                "training": None if len(mine) > 1 else [_rounded(x) for x in _averaged(*trained[0])],
            }
        )
    if not curves:
        return None
    known = [{"name": name, "value": _round(value)} for name, value in lines.items() if _round(value) is not None]
    return {"value": "J per hour" if costs else "return", "lower_is_better": costs, "curves": curves, "lines": known}


def _points(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[Array, Array]:
    """Steps (n,) and values (n,) where the metric was measured; the last of two at the same step counts."""
    found = {}
    for row in rows:
        steps, value = row.get("env_steps"), row.get(metric)
        if steps is not None and value is not None and math.isfinite(value):
            found[float(steps)] = float(value)
    ordered = sorted(found.items())
    stride = math.ceil(len(ordered) / _MAX_CURVE_POINTS) or 1
    kept = [pair for i, pair in enumerate(ordered) if i % stride == 0 or i == len(ordered) - 1]
    return np.array([x for x, _ in kept]), np.array([y for _, y in kept])


def _band(curves: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array, Array]:
    """Steps, mean, lowest and highest over curves, read between their points as far as all of them go."""
    if not curves:
        return (np.zeros(0),) * 4
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    steps = np.unique(np.concatenate([x for x, _ in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = np.array([np.interp(steps, x, y) for x, y in curves])
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _averaged(x: Array, y: Array) -> tuple[Array, Array]:
    """Means over groups of neighbours, few enough to draw."""
    if not len(x):
        return x, y
    size = math.ceil(len(x) / _MAX_TRAINING_POINTS)
    starts = np.arange(0, len(x), size)
    lengths = np.diff([*starts, len(x)])
    return np.add.reduceat(x, starts) / lengths, np.add.reduceat(y, starts) / lengths


def _scatter(comparison: Comparison) -> dict[str, Any] | None:
    points, policies = [], comparison.of_role("policy")
    front = _pareto_front(comparison) if comparison.objective.metric == "J" else set()
    for role in ROLES:
        for rank, c in enumerate(comparison.of_role(role)):
            row = comparison.rows[c.name]
            if "late_share" not in row:
                return None
            cost, late = _interval(row["cost"]), _interval(row["late_share"], 100.0)
            if cost[0] is not None and late[0] is not None:
                point = {"name": c.name, "role": role, "cost": cost, "late": late, "J": _round(row["J"].mean)}
                points.append(point | {"front": (c.name, 1.0) in front, "best": rank == 0})
    if not points:
        return None
    fronts = [
        {
            "name": name,
            "best": bool(policies) and name == policies[0].name,
            "points": [
                {"factor": _round(p.factor), "cost": _round(p.cost), "late": _round(100 * p.late_share), "J": _round(p.J)}
                | {"front": (name, p.factor) in front}
                for p in turned
                if _round(p.cost) is not None and _round(p.late_share) is not None
            ],
        }
        for name, turned in comparison.fronts.items()
    ]
    return {"points": points, "equal": _equal_cost(comparison), "fronts": fronts}


def _pareto_front(comparison: Comparison) -> set[tuple[str, float]]:
    """Deployable points, by name and price factor, that no other one dominates in both cost and late share."""
    at = {(c.name, 1.0): (comparison.rows[c.name]["cost"].mean, comparison.rows[c.name]["late_share"].mean)
          for c in comparison.contenders if c.role != "reference"}  # fmt: skip
    at |= {(name, p.factor): (p.cost, p.late_share) for name, turned in comparison.fronts.items() for p in turned}
    # As they are drawn: a rounding makes nobody cheaper.
    at = {name: (float(f"{cost:.5g}"), float(f"{late:.5g}")) for name, (cost, late) in at.items()}

    def dominated(name: tuple[str, float]) -> bool:
        cost, late = at[name]
        return any(c <= cost and n <= late and (c, n) != (cost, late) for c, n in at.values())

    return {name for name in at if not dominated(name)}


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


def _playback(comparison: Comparison, most_steps: int) -> dict[str, Any] | None:
    """Everybody over one window; shown at first are the best policy, the best baseline and the first reference."""
    where = comparison.played_back
    everybody = [(c, rank) for role in ROLES for rank, c in enumerate(_in_order(comparison, role)) if c.playback is not None]
    if not everybody or where is None:
        return None
    assert everybody[0][0].playback is not None
    rate = everybody[0][0].playback.arrival_rate_rps
    per_bin = math.ceil(len(rate) / most_steps)
    series = []
    for c, rank in everybody:
        assert c.playback is not None
        p = c.playback
        series.append(
            {
                "name": c.name,
                "role": c.role,
                "shown": rank == 0,
                "replicas": _binned(p.replicas, per_bin),
                "ready": _binned(p.ready_replicas, per_bin),
                "late": _binned(100 * p.late_share, per_bin, weights=rate),
                "p95": _binned(1000 * p.latency_p95_seconds, per_bin, weights=rate),
            }
        )
    return {
        "start": where.start_unix_seconds,
        "interval_seconds": where.interval_seconds * per_bin,
        "rate": _binned(rate, per_bin),
        "series": series,
    }


def _in_order(comparison: Comparison, role: Role) -> Sequence[Contender]:
    """Cheapest first; of the references as given, which is the one the gap is closed towards first."""
    if role == "reference":
        return [c for c in comparison.contenders if c.role == role]
    return comparison.of_role(role)


def _binned(values: Array, per_bin: int, weights: Array | None = None) -> list[float | None]:
    """Means over bins of `per_bin` steps, the last one maybe shorter; weighted by requests where given."""
    if per_bin == 1:
        return _rounded(values, digits=3)
    starts = np.arange(0, len(values), per_bin)
    # A tiny weight keeps bins without requests at their plain mean.
    weight = np.ones(len(values)) if weights is None else weights + 1e-9
    return _rounded(np.add.reduceat(values * weight, starts) / np.add.reduceat(weight, starts), digits=3)


def _rounded(values: Array, digits: int = 5) -> list[float | None]:
    return [_round(x, digits) for x in values]


def _interval(interval: Interval, factor: float = 1.0) -> list[float | None]:
    return [_round(factor * x) for x in (interval.mean, interval.low, interval.high)]


def _round(value: Any, digits: int = 5) -> float | None:
    """So many significant digits; None for what is not a finite number."""
    if value is None or not math.isfinite(value):
        return None
    number = float(f"{float(value):.{digits}g}") if abs(value) < 1e5 else float(round(value))
    return int(number) if number == int(number) else number
