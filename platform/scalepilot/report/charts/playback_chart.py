"""The window played back as SVG: requests, replicas and late share of the policy, the best rule and the reference."""

from __future__ import annotations

import numpy as np

from scalepilot.evaluate.comparison import Comparison, Contender
from scalepilot.report.charts.svg import COLOURS, WIDTH, Array, Axes, document

_MOST_POINTS = 480
_LEFT, _TOP, _GAP = 84.0, 66.0, 34.0
_HEIGHTS = (90.0, 190.0, 90.0)
_REQUESTS = COLOURS[6]


def playback_chart(comparison: Comparison) -> str | None:
    """The picture; None where nothing was played back."""
    shown = _shown(comparison)
    if not shown or comparison.played_back is None:
        return None
    steps = np.arange(len(shown[0][1]), dtype=np.float64)
    # Neighbours are averaged where there are more steps than pixels to tell them apart.
    size = -(-len(steps) // _MOST_POINTS)
    hours = _averaged(np.asarray(steps + 0.5, np.float64), size) * comparison.played_back.interval_seconds / 3600
    span = (0.0, len(steps) * comparison.played_back.interval_seconds / 3600)
    panes, top = [], _TOP
    for height in _HEIGHTS:
        panes.append((top, top + height))
        top += height + _GAP
    requests = _averaged(shown[0][1], size)
    replicas = [_averaged(c.playback.replicas, size) for c, _ in shown if c.playback is not None]
    late = [100 * _averaged(c.playback.late_share, size) for c, _ in shown if c.playback is not None]
    parts = []
    for (upper, lower), label, lines in zip(
        panes, ("requests/s", "replicas", "late, %"), ([requests], replicas, late), strict=True
    ):
        high = max(float(line.max()) for line in lines) or 1.0
        axes = Axes(_LEFT, upper, WIDTH - 24, lower, span, (0.0, 1.05 * high))
        axes.y_axis(label)
        colours = [_REQUESTS] if label == "requests/s" else COLOURS
        for line, colour in reversed(list(zip(lines, colours, strict=False))):
            axes.line(hours, line, colour, width=1.6)
        if lower == panes[-1][1]:
            axes.x_axis("hours")
        if upper == _TOP:
            axes.key([(c.name[:26], COLOURS[i]) for i, (c, _) in enumerate(shown)], y=50, step=220)
        parts += axes.parts
    title = f"{comparison.workload}: {span[1]:.0f} h of the test played back"
    return document(WIDTH, int(panes[-1][1] + 62), title, parts)


def _shown(comparison: Comparison) -> list[tuple[Contender, Array]]:
    """Best policy, best rule and the first reference, each with the requests it met."""
    chosen = [comparison.best("policy"), comparison.best("baseline"), *comparison.of_role("reference")[:1]]
    return [(c, c.playback.arrival_rate_rps) for c in chosen if c is not None and c.playback is not None]


def _averaged(values: Array, size: int) -> Array:
    starts = np.arange(0, len(values), size)
    means: Array = np.add.reduceat(values.astype(np.float64), starts) / np.diff([*starts, len(values)])
    return means
