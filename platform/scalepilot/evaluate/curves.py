"""Learning curves on one axis as SVG: a line for the mean over seeds, a band from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scalepilot.evaluate.svg import COLOURS, HEIGHT, WIDTH, Array, Axes, document, with_margin

_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """One run: env_steps (n,) rising, value (n,)."""

    env_steps: Array
    value: Array


def band(curves: Sequence[Curve]) -> tuple[Array, Array, Array, Array]:
    """(steps, mean, lowest, highest) over curves, interpolated where all of them have values."""
    low, high = max(float(c.env_steps[0]) for c in curves), min(float(c.env_steps[-1]) for c in curves)
    steps = np.linspace(low, max(low, high), _POINTS)
    values = np.stack([np.interp(steps, c.env_steps, c.value) for c in curves])
    return steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def curves_svg(engines: Mapping[str, Sequence[Curve]], *, title: str, value_label: str) -> str:
    """The picture.

    Args:
        engines: name → one curve a seed, each with at least one point.
        title: above it.
        value_label: of the vertical axis.
    """
    bands = {name: band(curves) for name, curves in engines.items()}
    right = max(float(steps[-1]) for steps, *_ in bands.values())
    low = min(float(lowest.min()) for _, _, lowest, _ in bands.values())
    high = max(float(highest.max()) for _, _, _, highest in bands.values())
    axes = Axes(84, 66, WIDTH - 24, HEIGHT - 56, (0.0, right), with_margin(low, high))
    axes.y_axis(value_label)
    axes.x_axis("environment steps")
    for (steps, mean, lowest, highest), colour in zip(bands.values(), COLOURS, strict=False):
        axes.band(steps, lowest, highest, colour)
        axes.line(steps, mean, colour)
    axes.key(list(zip(bands, COLOURS, strict=False)), y=50)
    axes.note("line: mean of the seeds · band: all", y=50)
    return document(WIDTH, HEIGHT, title, axes.parts)
