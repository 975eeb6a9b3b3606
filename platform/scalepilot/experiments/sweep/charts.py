"""A sweep's pictures as SVG: every trial as a line over the keys, and how much each key decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from scalepilot.config import short_value
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.experiments.sweep.board import Standing
from scalepilot.experiments.sweep.config import RangeConfig
from scalepilot.experiments.sweep.importance import Importance
from scalepilot.experiments.sweep.plan import label
from scalepilot.report.charts.study_charts import WIDTH, Dots, dot_plot
from scalepilot.report.charts.svg import COLOURS, document, nice_ticks

_TOP, _HEIGHT = 92, 280
_MOST_DOTS = 12
# Worst to best: pale to strong blue, the best in vermilion.
_PALE, _STRONG = (190, 205, 222), (0, 84, 150)
_BEST = COLOURS[1]


def parallel_coordinates(
    space: Mapping[str, list[Any] | RangeConfig], standings: Sequence[Standing], value_label: str, *, higher_is_better: bool
) -> str:
    """One axis a key and one for what validation said; one line a point, the best on top.

    Args:
        space: the searched keys.
        standings: best first.
        value_label: what the last axis is.
        higher_is_better: whether its best is up.
    """
    values = [s.value for s in standings]
    low, high = min(values), max(values)
    keys, step = list(space), (WIDTH - 130) / len(space)
    at = [62 + step * i for i in range(len(keys) + 1)]
    parts: list[str] = []
    for rank in range(len(standings) - 1, -1, -1):
        standing = standings[rank]
        heights = [_height(space[key], standing.point[key]) for key in keys]
        share = (standing.value - low) / (high - low) if high > low else 0.5
        heights.append(share if higher_is_better else 1 - share)
        points = " ".join(f"{x:.1f},{_TOP + _HEIGHT * (1 - y):.1f}" for x, y in zip(at, heights, strict=True))
        colour, width = (_BEST, 4.0) if rank == 0 else (_mixed(1 - rank / max(1, len(standings) - 1)), 1.8)
        title = f"<title>{escape(label(standing.point))}: {standing.value:,.2f}</title>"
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="0.9"'
            f' stroke-linejoin="round">{title}</polyline>'
        )
    bottom = _TOP + _HEIGHT
    for x, key in zip(at, keys, strict=False):
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}" stroke-width="2"/>')
        parts.append(
            f'<text class="title" x="{x:.1f}" y="{_TOP - 24}" text-anchor="middle" font-weight="600">{escape(key)}</text>'
        )
        parts += _ticks(space[key], x)
    x = at[-1]
    parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}" stroke-width="2"/>')
    parts.append(
        f'<text class="title" x="{x:.1f}" y="{_TOP - 24}" text-anchor="middle" font-weight="600">{escape(value_label)}</text>'
    )
    for tick in nice_ticks(low, high) if high > low else [low]:
        share = (tick - low) / (high - low) if high > low else 0.5
        y = _TOP + _HEIGHT * (1 - (share if higher_is_better else 1 - share))
        parts.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">{tick:,g}</text>')
    return document(WIDTH, bottom + 30, f"{len(standings)} points; the thick line is the best", parts)


def importance_bars(found: Importance) -> str:
    """A bar a key, longest first, and one for what none explains."""
    rows = [*sorted(found.shares.items(), key=lambda item: -item[1]), ("together, and luck", found.rest)]
    left, row, top, right = 170, 34, 44, WIDTH - 60
    parts = []
    for i, (name, share) in enumerate(rows):
        y = top + row * i
        colour = COLOURS[6] if i == len(rows) - 1 else COLOURS[0]
        parts.append(f'<text x="{left - 10}" y="{y + 19}" text-anchor="end">{escape(name)}</text>')
        width = max(1.0, (right - left) * share)
        parts.append(f'<rect class="mark" x="{left}" y="{y + 4}" width="{width:.1f}" height="20" fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 8:.1f}" y="{y + 19}">{share:.0%}</text>')
    return document(WIDTH, top + row * len(rows) + 20, "Share of the variance between trials (ranks)", parts)


def leaders(standings: Sequence[Standing], value_label: str) -> str:
    """The best points with their intervals on the test episodes, and each seed's mean."""
    keys = " · ".join(key.rpartition(".")[2] for key in standings[0].point)
    rows = [
        Dots(
            " · ".join(map(short_value, s.point.values())),
            s.tested,
            [float(t.tested.values.mean()) for t in s.trials if t.tested] if len(s.trials) > 1 else [],
        )
        for s in standings[:_MOST_DOTS]
        if _finite(s.tested)
    ]
    return dot_plot(rows, f"The best {len(rows)} points on test ({keys})", value_label)


def _finite(interval: Interval) -> bool:
    return math.isfinite(interval.mean)


def _height(choices: list[Any] | RangeConfig, value: Any) -> float:
    """Share of the axis, from below."""
    if isinstance(choices, list):
        places = _order(choices)
        return places.index(value) / (len(places) - 1) if len(places) > 1 else 0.5
    if choices.log:
        return math.log(value / choices.low) / math.log(choices.high / choices.low)
    return float((value - choices.low) / (choices.high - choices.low))


def _order(choices: list[Any]) -> list[Any]:
    """Numbers by size; anything else as it was given."""
    numbers = all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices)
    return sorted(choices) if numbers else list(choices)


def _ticks(choices: list[Any] | RangeConfig, x: float) -> list[str]:
    values = _order(choices) if isinstance(choices, list) else [choices.low, choices.high]
    return [
        f'<text x="{x + 8:.1f}" y="{_TOP + _HEIGHT * (1 - _height(choices, value)) + 4:.1f}" stroke-width="3"'
        f' paint-order="stroke">{escape(short_value(value))}</text>'
        for value in values
    ]


def _mixed(share: float) -> str:
    red, green, blue = (round(p + (s - p) * share) for p, s in zip(_PALE, _STRONG, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


__all__ = ["importance_bars", "leaders", "parallel_coordinates"]
