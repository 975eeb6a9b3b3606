"""A live run as SVG, decision by decision: latency, CPU, throughput, replicas, values and rewards, where each is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scalepilot.report.charts.day_chart import pieces
from scalepilot.report.charts.svg import COLOURS, WIDTH, Axes, document, with_margin

Row = Mapping[str, float]
_LEFT, _TOP, _HEIGHT, _GAP = 84.0, 66.0, 84.0, 46.0
# Label → the lines in it: (name in a row, name in the key).
_PANES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "latency, ms": (("metrics/latency_ms", "latency"),),
    "CPU, %": (("metrics/cpu_usage_percent", "CPU"),),
    "requests/s": (("metrics/throughput_req_per_sec", "throughput"),),
    "replicas": (("decision/wanted", "wanted"), ("metrics/pod_count", "asked for"), ("metrics/ready_pods", "ready")),
    "Q-values": (
        ("train/q_value_max", "largest"),
        ("train/q_value_mean", "mean"),
        ("decision/q_value_max", "largest"),
        ("decision/q_value_mean", "mean"),
    ),
    "probability": (("decision/probability", "of the action"),),
    "reward": (("train/reward", "reward"),),
}


def live_chart(rows: Sequence[Row], title: str) -> str:
    """The picture; what no row knows has no pane, and a decision that does not know it leaves a gap.

    Args:
        rows: numbers by name, a decision each.
        title: above everything.
    """
    at = np.arange(1.0, len(rows) + 1)
    span = (1.0, max(2.0, float(len(rows))))
    parts: list[str] = []
    top = _TOP
    for label, lines in _PANES.items():
        known = [(key, np.array([row.get(name, np.nan) for row in rows], np.float64)) for name, key in lines]
        known = [(key, values) for key, values in known if np.isfinite(values).any()]
        if not known:
            continue
        together = np.concatenate([values[np.isfinite(values)] for _, values in known])
        axes = Axes(_LEFT, top, WIDTH - 24, top + _HEIGHT, span, with_margin(float(together.min()), float(together.max())))
        axes.y_ticks(3)
        axes.y_label(label)
        for (_, values), colour in zip(known, COLOURS, strict=False):
            for piece in pieces(values):
                axes.line(at[piece], values[piece], colour, width=1.6)
        if len(known) > 1:
            axes.key([(key, COLOURS[i]) for i, (key, _) in enumerate(known)], y=top - 10, step=130)
        top += _HEIGHT + _GAP
        parts += axes.parts
    axis = Axes(_LEFT, top - _GAP - 1, WIDTH - 24, top - _GAP, span, (0.0, 1.0))
    axis.x_axis("decisions")
    return document(WIDTH, int(top + 30), title, [*parts, *axis.parts])
