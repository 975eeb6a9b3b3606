"""Learning curves on one axis as SVG: a line for the mean over seeds, a band from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.report.charts.svg import COLOURS, HEIGHT, WIDTH, Array, Axes, document, with_margin

_POINTS = 200
_REFERENCE = COLOURS[6]
# Of the key, wide enough for some words.
_LETTER_PIXELS, _MARK_PIXELS = 7.2, 44


def band(curves: Sequence[Curve]) -> tuple[Array, Array, Array, Array]:
    """(steps, mean, lowest, highest) over curves, interpolated where all of them have values."""
    low, high = max(float(c.env_steps[0]) for c in curves), min(float(c.env_steps[-1]) for c in curves)
    steps = np.linspace(low, max(low, high), _POINTS)
    values = np.stack([np.interp(steps, c.env_steps, c.value) for c in curves])
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def curves_svg(
    contenders: Mapping[str, Sequence[Curve]],
    *,
    title: str,
    value_label: str,
    x_label: str = "environment steps",
    reference: tuple[str, Interval] | None = None,
    threshold: float | None = None,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> str:
    """The picture.

    Args:
        contenders: name → one curve a seed, each with at least one point; no more than there are colours.
        title: above it.
        value_label: of the vertical axis.
        x_label: of the horizontal one.
        reference: name and value of one that does not learn, a level band.
        threshold: a dashed line.
        width: pixels.
        height: pixels, for a key of one row; every further row adds its own.
    """
    bands = {name: band(curves) for name, curves in contenders.items()}
    right = max(float(steps[-1]) for steps, *_ in bands.values())
    ends = [(float(lowest.min()), float(highest.max())) for _, _, lowest, highest in bands.values()]
    if reference is not None:
        ends.append((reference[1].mean, reference[1].mean))
    if threshold is not None:
        ends.append((threshold, threshold))
    entries = list(zip(bands, COLOURS, strict=False))
    if reference is not None:
        entries.append((reference[0], _REFERENCE))
    step = _MARK_PIXELS + _LETTER_PIXELS * max(len(name) for name, _ in entries)
    per_row = max(1, int((width - 84) // step))
    rows = [entries[i : i + per_row] for i in range(0, len(entries), per_row)]
    top, height = 84 + 18 * (len(rows) - 1), height + 18 * (len(rows) - 1)
    bounds = with_margin(min(low for low, _ in ends), max(high for _, high in ends))
    axes = Axes(84, top, width - 24, height - 56, (0.0, right), bounds)
    axes.y_axis(value_label)
    axes.x_axis(x_label)
    if reference is not None:
        _level_band(axes, reference[1])
    for (steps, mean, lowest, highest), colour in zip(bands.values(), COLOURS, strict=False):
        axes.band(steps, lowest, highest, colour)
        axes.line(steps, mean, colour)
    if threshold is not None:
        y = axes.y(threshold)
        axes.parts.append(
            f'<path class="mark" d="M{axes.left} {y:.1f}H{axes.right}" stroke="{_REFERENCE}" stroke-dasharray="6 4"/>'
        )
    for i, row in enumerate(rows):
        axes.key(row, y=48 + 18 * i, step=step)
    axes.note("line: mean of the seeds · band: all" + (" · dashes: success" if threshold is not None else ""), y=top - 8)
    return document(width, height, title, axes.parts)


def _level_band(axes: Axes, value: Interval) -> None:
    whole = np.array(axes.x_range)
    if value.is_known:
        axes.band(whole, np.full(2, value.low), np.full(2, value.high), _REFERENCE)
    axes.line(whole, np.full(2, value.mean), _REFERENCE, width=1.5)
