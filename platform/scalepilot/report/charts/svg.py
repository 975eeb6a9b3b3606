"""Charts as SVG text: axes with round numbers, lines, bands; readable on white and, where the viewer asks for it, on black."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Okabe and Ito's blue, vermilion, green and so on: told apart with any colour vision, and on black as on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b09000")
WIDTH, HEIGHT = 860, 460
_STYLE = """<style>
text { fill: #333 } .title { fill: #111 } .muted { fill: #666 } .ground { fill: #fff } .grid { stroke: #e3e3e3 }
@media (prefers-color-scheme: dark) {
 text { fill: #ccc } .title { fill: #eee } .muted { fill: #999 } .ground { fill: #10151b } .grid { stroke: #313b46 }
 polyline, .mark { filter: brightness(1.35) }
}
</style>"""


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, some `about` of them."""
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / about))
    step *= next((m for m in (1, 2, 5, 10) if span / (step * m) <= about), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def with_margin(low: float, high: float) -> tuple[float, float]:
    """Bounds of an axis that leave some room around its values."""
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def count(number: float) -> str:
    """A number in few letters: 1,500,000 is 1.5 M."""
    for size, suffix in ((1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:g}{suffix}"
    return f"{number:g}"


def document(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """The whole file.

    Args:
        width: pixels.
        height: pixels.
        title: above everything.
        parts: elements.
    """
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="13">'
    )
    heading = f'<text class="title" x="84" y="24" font-size="16" font-weight="600">{escape(title)}</text>'
    return (
        "\n".join([head, _STYLE, f'<rect class="ground" width="{width}" height="{height}"/>', heading, *parts, "</svg>"]) + "\n"
    )


@dataclass
class Axes:
    """A box with two axes; what is drawn into it is collected in `parts`.

    Attributes:
        left, top, right, bottom: of the box, pixels.
        x_range, y_range: values at its edges.
        parts: elements so far.
    """

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self.x_range
        return self.left + (self.right - self.left) * (value - low) / ((high - low) or 1.0)

    def y(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self.y_range
        return self.bottom - (self.bottom - self.top) * (value - low) / ((high - low) or 1.0)

    def y_axis(self, label: str) -> None:
        """Grid, round numbers and what they are, at the left."""
        self.y_ticks()
        self.y_label(label)

    def y_ticks(self, about: int = 5) -> None:
        """Grid and some `about` round numbers at the left."""
        for tick in nice_ticks(*self.y_range, about):
            self.parts.append(f'<path class="grid" d="M{self.left} {self.y(tick):.1f}H{self.right}"/>')
            self.parts.append(f'<text x="{self.left - 8}" y="{self.y(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>')

    def y_label(self, label: str) -> None:
        """What the vertical axis is."""
        upright = f'transform="translate(18 {(self.top + self.bottom) / 2:.0f}) rotate(-90)"'
        self.parts.append(f'<text {upright} text-anchor="middle">{escape(label)}</text>')

    def x_axis(self, label: str) -> None:
        """Round numbers and what they are, below."""
        for tick in nice_ticks(*self.x_range):
            self.parts.append(f'<text x="{self.x(tick):.1f}" y="{self.bottom + 20:g}" text-anchor="middle">{count(tick)}</text>')
        middle = (self.left + self.right) / 2
        self.parts.append(f'<text x="{middle:.0f}" y="{self.bottom + 44:g}" text-anchor="middle">{escape(label)}</text>')

    def line(self, x: Array, y: Array, colour: str, *, width: float = 2.0, opacity: float = 1.0) -> None:
        """A line through points (n,)."""
        self.parts.append(
            f'<polyline points="{self._points(x, y)}" fill="none" stroke="{colour}" stroke-width="{width:g}"'
            f' stroke-opacity="{opacity:g}" stroke-linejoin="round"/>'
        )

    def band(self, x: Array, low: Array, high: Array, colour: str) -> None:
        """The area between two lines (n,)."""
        edge = f"{self._points(x, high)} {self._points(x[::-1], low[::-1])}"
        self.parts.append(f'<polygon points="{edge}" fill="{colour}" fill-opacity="0.16"/>')

    def key(self, entries: Sequence[tuple[str, str]], *, y: float, step: float = 150.0) -> None:
        """(name, colour) of each line, side by side at height `y`."""
        for i, (name, colour) in enumerate(entries):
            at = self.left + step * i
            self.parts.append(
                f'<path class="mark" d="M{at:.0f} {y - 4:.0f}h22" stroke="{colour}" stroke-width="3"/>'
                f'<text x="{at + 28:.0f}" y="{y:.0f}">{escape(name)}</text>'
            )

    def note(self, text: str, *, y: float) -> None:
        """A word at the right, muted."""
        self.parts.append(f'<text class="muted" x="{self.right}" y="{y:.0f}" text-anchor="end">{escape(text)}</text>')

    def _points(self, x: Array, y: Array) -> str:
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, y, strict=True))


__all__ = ["COLOURS", "HEIGHT", "WIDTH", "Axes", "count", "document", "nice_ticks", "with_margin"]
