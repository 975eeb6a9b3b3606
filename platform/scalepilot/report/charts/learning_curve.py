"""A run's learning curve as SVG: training and validation over environment steps, and what the test says of the kept policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.report.charts.svg import COLOURS, HEIGHT, WIDTH, Array, Axes, document, with_margin

# More points than pixels say nothing more: longer curves are averaged.
_MAX_POINTS = 300
_TRAINING, _VALIDATION, _TEST = COLOURS[5], COLOURS[0], COLOURS[1]


def learning_curve(
    rows: Sequence[Mapping[str, float | None]],
    *,
    training: str,
    validation: str,
    value_label: str,
    title: str,
    test: Interval | None = None,
) -> str:
    """The picture.

    Args:
        rows: of progress.csv.
        training: metric of the training episodes.
        validation: metric of the validations.
        value_label: of the vertical axis.
        title: above it.
        test: of the kept policy, a band; None where it was not tested.
    """
    trained, validated = _points(rows, training), _points(rows, validation)
    known = [y for _, y in (trained, validated) if len(y)]
    if test is not None:
        known.append(np.array([x for x in (test.mean, test.low, test.high) if np.isfinite(x)]))
    values = np.concatenate(known) if known else np.zeros(1)
    # A few wild episodes in the beginning must not flatten all that follows.
    low, high = np.quantile(values, (0.01, 1.0) if len(values) > 100 else (0.0, 1.0))
    right = max((float(row["env_steps"] or 0) for row in rows), default=1.0)
    axes = Axes(84, 66, WIDTH - 24, HEIGHT - 56, (0.0, right), with_margin(float(low), float(high)))
    axes.y_axis(value_label)
    axes.x_axis("environment steps")
    entries = []
    if test is not None and np.isfinite(test.mean):
        whole = np.array([0.0, right])
        if test.is_known:
            axes.band(whole, np.full(2, test.low), np.full(2, test.high), _TEST)
        axes.line(whole, np.full(2, test.mean), _TEST, width=1.5)
        entries.append(("test, 95 % interval", _TEST))
    if len(trained[0]):
        steps, mean = _averaged(*trained)
        axes.line(steps, np.clip(mean, *axes.y_range), _TRAINING, width=1.5, opacity=0.9)
        entries.insert(0, ("training", _TRAINING))
    if len(validated[0]):
        axes.line(validated[0], np.clip(validated[1], *axes.y_range), _VALIDATION, width=2.2)
        entries.insert(1, ("validation", _VALIDATION))
    axes.key(entries, y=50)
    return document(WIDTH, HEIGHT, title, axes.parts)


def _points(rows: Sequence[Mapping[str, float | None]], metric: str) -> tuple[Array, Array]:
    found = [(row["env_steps"], row[metric]) for row in rows if row.get(metric) is not None]
    return np.array([x for x, _ in found], dtype=np.float64), np.array([y for _, y in found], dtype=np.float64)


def _averaged(x: Array, y: Array) -> tuple[Array, Array]:
    """Means over groups of neighbours, few enough to draw."""
    size = -(-len(x) // _MAX_POINTS)
    starts = np.arange(0, len(x), size)
    lengths = np.diff([*starts, len(x)])
    return np.add.reduceat(x, starts) / lengths, np.add.reduceat(y, starts) / lengths
