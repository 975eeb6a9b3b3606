"""A recorded time as SVG: requests, replicas and late requests over the hours, and the mode of whoever decided."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from scalepilot.report.charts.svg import COLOURS, Array, Axes, document

WIDE, NARROW = 1190, 372
_GAP, _TOP = 46.0, 26.0
_LETTER_PIXELS, _MARK_PIXELS, _TICK_PIXELS = 7.4, 44, 66
_REQUESTS = COLOURS[6]
_TICK_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, *(3600 * h for h in (1, 2, 3, 6, 12, 24, 48, 96, 168)))


@dataclass(frozen=True)
class DayLines:
    """What is drawn.

    Attributes:
        time: (n,) Unix seconds, rising.
        interval_seconds: between two of them that follow each other.
        requests: (n,) of each interval.
        replicas: name → (n,).
        late: name → (n,) requests; NaN where it was not measured.
        spells: (mode, colour, begin, end in Unix seconds).
    """

    time: Array
    interval_seconds: float
    requests: Array
    replicas: Mapping[str, Array]
    late: Mapping[str, Array]
    spells: Sequence[tuple[str, str, float, float]]


def day_chart(lines: DayLines, width: int = WIDE) -> str:
    """The picture, for a page as wide or as narrow."""
    narrow = width < 700
    left, right = (40.0, width - 10.0) if narrow else (52.0, width - 12.0)
    begin, end = float(lines.time[0]) - lines.interval_seconds, float(lines.time[-1])
    bins = _Bins(lines, begin, end, int((right - left) / 2))
    requests = bins.sums(lines.requests)
    rate = requests / (bins.sums(np.ones(len(lines.time))) * lines.interval_seconds)
    replicas = {name: bins.means(values) for name, values in lines.replicas.items()}
    late = {name: 100 * bins.shares(values, lines.requests) for name, values in lines.late.items()}
    colours = {name: COLOURS[i] for i, name in enumerate(lines.replicas)}
    heights = (80.0, 170.0, 80.0) if narrow else (110.0, 240.0, 100.0)
    parts: list[str] = []
    top = _TOP
    panes = (("requests a second", {"": rate}), ("replicas", replicas), ("late requests, %", late))
    for height, (label, drawn) in zip(heights, panes, strict=True):
        entries = [(name, colours[name]) for name in drawn if name in colours]
        rows = _key_rows(entries, right - left)
        top += 20 * len(rows) if label == "replicas" else 0
        high = max((float(np.nanmax(values)) for values in drawn.values() if np.isfinite(values).any()), default=0.0) or 1.0
        axes = Axes(left, top, right, top + height, (begin, end), (0.0, 1.05 * high))
        axes.parts.append(f'<text class="title" x="0" y="{top - 10:.0f}">{escape(label)}</text>')
        if label == "replicas":
            for i, row in enumerate(rows):
                axes.key(row, y=top - 10 - 20 * (len(rows) - i), step=_key_step(entries))
        axes.y_ticks(3 if height < 120 else 5)
        for name, values in reversed(drawn.items()):
            for at in pieces(values):
                axes.line(bins.middle[at], values[at], colours.get(name, _REQUESTS), width=1.8 if name else 1.4)
        parts += axes.parts
        top += height + _GAP
    axes = Axes(left, top, right, top + 12, (begin, end), (0.0, 1.0))
    axes.parts.append(f'<text class="title" x="0" y="{top - 10:.0f}">mode</text>')
    _modes(axes, lines.spells)
    _hours(axes)
    used = list(dict.fromkeys((mode, colour) for mode, colour, _, _ in lines.spells))
    rows = _key_rows(used, right - left)
    for i, row in enumerate(rows):
        axes.key(row, y=top + 58 + 20 * i, step=_key_step(used))
    return document(width, int(top + 66 + 20 * len(rows)), "", [*parts, *axes.parts])


class _Bins:
    """Neighbours taken together where there are more intervals than pixels to tell them apart."""

    def __init__(self, lines: DayLines, begin: float, end: float, most: int) -> None:
        count = max(1, min(most, math.ceil((end - begin) / lines.interval_seconds)))
        edges = np.linspace(begin, end, count + 1)
        self.middle: Array = (edges[1:] + edges[:-1]) / 2
        self._bin = np.clip(np.searchsorted(edges, lines.time - lines.interval_seconds / 2) - 1, 0, count - 1)
        self._count = count

    def sums(self, values: Array) -> Array:
        """(bins,) of values (n,); NaN where there are none."""
        known = np.isfinite(values)
        total = np.bincount(self._bin[known], values[known], self._count)
        return np.where(np.bincount(self._bin[known], minlength=self._count) > 0, total, np.nan)

    def means(self, values: Array) -> Array:
        """(bins,) means; NaN where there are none."""
        return self.shares(values, np.ones(len(values)))

    def shares(self, values: Array, weights: Array) -> Array:
        """(bins,) sum of the values over that of the weights where there are values; NaN where there are none."""
        below = self.sums(np.where(np.isfinite(values), weights, np.nan))
        return self.sums(values) / np.where(below > 0, below, np.nan)


def pieces(values: Array) -> list[slice]:
    """Where there are values, one after the other."""
    known = np.isfinite(values)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _modes(axes: Axes, spells: Sequence[tuple[str, str, float, float]]) -> None:
    for _, colour, begin, end in spells:
        a, b = axes.x(begin), axes.x(end)
        wide, high = max(1.5, b - a), axes.bottom - axes.top
        axes.parts.append(
            f'<rect class="mark" x="{a:.1f}" y="{axes.top:.0f}" width="{wide:.1f}" height="{high:.0f}" fill="{colour}"/>'
        )


def _hours(axes: Axes) -> None:
    """Times of day below, UTC; a date at midnight."""
    begin, end = axes.x_range
    wide = (axes.right - axes.left) / (end - begin)
    step = next((s for s in _TICK_SECONDS if s * wide >= _TICK_PIXELS), _TICK_SECONDS[-1])
    hour = "%H:%M" if step >= 60 else "%H:%M:%S"
    for i in range(math.ceil(begin / step), math.floor(end / step) + 1):
        moment = i * step
        at, clock = axes.x(moment), time.gmtime(moment)
        if axes.left + 14 <= at <= axes.right - 18:
            text = f"{clock.tm_mday} {time.strftime('%b', clock)}" if moment % 86_400 == 0 else time.strftime(hour, clock)
            axes.parts.append(f'<text x="{at:.1f}" y="{axes.bottom + 18:.0f}" text-anchor="middle">{text}</text>')
    axes.note("time, UTC", y=axes.top - 10)


def _key_step(entries: Sequence[tuple[str, str]]) -> float:
    return _MARK_PIXELS + _LETTER_PIXELS * max((len(name) for name, _ in entries), default=1)


def _key_rows(entries: Sequence[tuple[str, str]], width: float) -> list[Sequence[tuple[str, str]]]:
    per_row = max(1, int(width // _key_step(entries)))
    return [entries[i : i + per_row] for i in range(0, len(entries), per_row)]
