"""A workload over time as SVG: its training, validation and test parts, and how they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

import numpy as np

from scalepilot.report.charts.svg import COLOURS, WIDTH, Array, Axes, document
from scalepilot_envs.workloads import RateSeries

_HEIGHT, _LEFT, _TOP, _BOTTOM = 410, 84, 66, 270
# More points than pixels say nothing more: each is a bin's mean, in a band from its lowest to its highest step.
_MAX_POINTS = 400
_SECONDS_PER_DAY = 86400
_ROW_HEIGHT = 18
_COLUMNS = (("mean", 240), ("99 %", 340), ("highest", 440), ("days", 540))


def workload_picture(parts: Mapping[str, RateSeries], title: str) -> str:
    """The picture.

    Args:
        parts: name → part of the workload, in the order of time; each begins where the one before ends.
        title: above it.
    """
    days = [len(s) * s.interval_seconds / _SECONDS_PER_DAY for s in parts.values()]
    peak = max(float(s.rates_rps.max()) for s in parts.values())
    axes = Axes(_LEFT, _TOP, WIDTH - 24, _BOTTOM, (0.0, sum(days)), (0.0, 1.05 * peak or 1.0))
    axes.y_axis("requests/s")
    axes.x_axis("days")
    size = math.ceil(sum(len(s) for s in parts.values()) / _MAX_POINTS)
    for heading, x in _COLUMNS:
        axes.parts.append(f'<text class="muted" x="{x}" y="{_BOTTOM + 70}" text-anchor="end">{heading}</text>')
    begin = 0.0
    for i, ((name, series), length) in enumerate(zip(parts.items(), days, strict=True)):
        mean, low, high = _bins(np.asarray(series.rates_rps, dtype=np.float64), size)
        first = size * np.arange(len(mean))
        at = begin + length * (first + np.minimum(size, len(series) - first) / 2) / len(series)
        colour = COLOURS[i % len(COLOURS)]
        axes.band(at, low, high, colour)
        axes.line(at, mean, colour, width=1.6)
        begin += length
        _row(axes, i, name, colour, series, length)
    axes.key([(name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(parts)], y=50)
    return document(WIDTH, _HEIGHT, title, axes.parts)


def _bins(rates: Array, size: int) -> tuple[Array, Array, Array]:
    starts = np.arange(0, len(rates), size)
    lengths = np.diff([*starts, len(rates)])
    return np.add.reduceat(rates, starts) / lengths, np.minimum.reduceat(rates, starts), np.maximum.reduceat(rates, starts)


def _row(axes: Axes, i: int, name: str, colour: str, series: RateSeries, days: float) -> None:
    """A part's figures below the axis."""
    y = _BOTTOM + 70 + _ROW_HEIGHT * (i + 1)
    rates = series.rates_rps
    values = (rates.mean(), np.quantile(rates, 0.99), rates.max())
    texts = [f"{value:,.0f}" for value in values] + [f"{days:.1f}"]
    axes.parts.append(f'<rect class="mark" x="{_LEFT}" y="{y - 10}" width="10" height="10" fill="{colour}"/>')
    axes.parts.append(f'<text x="{_LEFT + 18}" y="{y}">{escape(name)}</text>')
    for (_, x), text in zip(_COLUMNS, texts, strict=True):
        axes.parts.append(f'<text x="{x}" y="{y}" text-anchor="end">{text}</text>')
