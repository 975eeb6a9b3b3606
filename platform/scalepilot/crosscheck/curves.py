"""Learning curves of engines as one SVG: a line for the mean over seeds, a band from the lowest to the highest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Okabe and Ito's blue and vermilion: told apart with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_WIDTH, _HEIGHT = 860, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 24, 66, 56
_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """One run: env_steps (n,) rising, value (n,)."""

    env_steps: Array
    value: Array


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, some `about` of them."""
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / about))
    step *= next((m for m in (1, 2, 5, 10) if span / (step * m) <= about), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


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
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def x(steps: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * steps / right

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    def path(steps: Array, values: Array) -> str:
        return " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, values, strict=True))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
        ' font-family="system-ui, sans-serif" font-size="13" fill="#333">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="16" font-weight="600" fill="#111">{escape(title)}</text>',
    ]
    for tick in nice_ticks(low, high):
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for tick in nice_ticks(0.0, right):
        parts.append(f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{_count(tick)}</text>')
    for (name, (steps, mean, lowest, highest)), colour in zip(bands.items(), COLOURS, strict=False):
        edge = f"{path(steps, highest)} {path(steps[::-1], lowest[::-1])}"
        parts.append(f'<polygon points="{edge}" fill="{colour}" fill-opacity="0.16"/>')
        parts.append(f'<polyline points="{path(steps, mean)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = _LEFT + 150 * list(bands).index(name)
        parts.append(
            f'<path d="M{at} 46h22" stroke="{colour}" stroke-width="3"/><text x="{at + 28}" y="50">{escape(name)}</text>'
        )
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="50" text-anchor="end" fill="#666">line: mean of the seeds · band: all</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">environment steps</text>')
    upright = f'transform="translate(18 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)"'
    parts.append(f'<text {upright} text-anchor="middle">{escape(value_label)}</text></svg>')
    return "\n".join(parts) + "\n"


def _count(steps: float) -> str:
    for size, suffix in ((1e6, " M"), (1e3, " k")):
        if steps >= size:
            return f"{steps / size:g}{suffix}"
    return f"{steps:g}"
