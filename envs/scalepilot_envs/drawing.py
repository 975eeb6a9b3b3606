"""Pictures of environments: a canvas over Pillow, a chart over time, and the past that a picture shows.

Coordinates are pixels from the top left corner. Colours are those of Okabe and Ito (2008), which people with any colour vision
tell apart; what matters is never shown by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

BACKGROUND: Colour = (255, 255, 255)
INK: Colour = (34, 34, 34)
MUTED: Colour = (110, 110, 110)
GRID: Colour = (225, 225, 225)
BAND: Colour = (224, 242, 234)
BLUE: Colour = (0, 114, 178)
ORANGE: Colour = (230, 159, 0)
GREEN: Colour = (0, 158, 115)
VERMILION: Colour = (213, 94, 0)
SKY: Colour = (86, 180, 233)
PURPLE: Colour = (204, 121, 167)
SERIES_COLOURS: tuple[Colour, ...] = (BLUE, VERMILION, GREEN)
WIDTH, HEIGHT = 640, 400

# Pillow's own font has few signs beyond Latin letters.
_ASCII = str.maketrans({"−": "-", "–": "-", "→": "->", "≤": "<=", "≥": ">=", "…": "...", "×": "x", "²": "2", "Δ": "change "})
# Drawn larger and scaled down: Pillow's lines have jagged edges otherwise.
_SCALE = 2
_TEXT_SIZE = 13


def _pillow() -> Any:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError("render_mode 'rgb_array' needs Pillow; install it with: pip install pillow") from error
    return Image, ImageDraw, ImageFont


class Canvas:
    """A picture to draw on.

    Args:
        width: pixels.
        height: pixels.

    Raises:
        ImportError: Pillow is missing; the message says how to install it.
    """

    def __init__(self, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.width, self.height = width, height
        image, draw, self._fonts = _pillow()
        # The mean of the pixels: sharper filters ring beside edges.
        self._mean = image.Resampling.BOX
        self._image = image.new("RGB", (width * _SCALE, height * _SCALE), BACKGROUND)
        self._draw = draw.Draw(self._image)

    def bar(self, box: Box, colour: Colour, *, outline: Colour | None = None, radius: float = 0.0) -> None:
        """A filled rectangle.

        Args:
            box: left, top, right, bottom.
            colour: of the area.
            outline: of its edge; None for none.
            radius: of its corners.
        """
        left, top, right, bottom = (value * _SCALE for value in box)
        # Pillow draws the right and bottom edges inclusively, and refuses a box that is empty.
        corners = (left, top, max(left, right - 1), max(top, bottom - 1))
        self._draw.rounded_rectangle(corners, radius * _SCALE, fill=colour, outline=outline, width=_SCALE)

    def level(self, box: Box, share: float, colour: Colour, *, back: Colour = GRID) -> None:
        """A horizontal gauge: `share` in [0, 1] of the box is filled from the left."""
        left, top, right, bottom = box
        self.bar(box, back)
        filled = left + (right - left) * min(1.0, max(0.0, share))
        if filled > left:
            self.bar((left, top, filled, bottom), colour)

    def circle(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        x, y = (value * _SCALE for value in centre)
        r = radius * _SCALE
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def line(self, points: Sequence[Point], colour: Colour = INK, width: float = 1.0) -> None:
        """Straight lines from point to point; one point is a dot."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        if len(scaled) == 1:
            self.circle(points[0], max(1.5, width), colour)
        elif scaled:
            self._draw.line(scaled, fill=colour, width=max(1, round(width * _SCALE)), joint="curve")

    def text(
        self,
        at: Point,
        text: str,
        colour: Colour = INK,
        *,
        size: float = _TEXT_SIZE,
        align: Literal["left", "centre", "right"] = "left",
    ) -> float:
        """Write one line.

        Args:
            at: its left, middle or right end, as `align` says; vertically its middle.
            text: what to write.
            colour: of the letters.
            size: height of the letters in pixels.
            align: which end `at` is.

        Returns:
            Width in pixels.
        """
        text = text.translate(_ASCII)
        font = self._fonts.load_default(size * _SCALE)
        anchor = {"left": "lm", "centre": "mm", "right": "rm"}[align]
        self._draw.text((at[0] * _SCALE, at[1] * _SCALE), text, fill=colour, font=font, anchor=anchor)
        return float(self._draw.textlength(text, font=font)) / _SCALE

    def array(self) -> NDArray[np.uint8]:
        """(height, width, 3) uint8."""
        return np.array(self._image.resize((self.width, self.height), self._mean), dtype=np.uint8)


@dataclass(frozen=True)
class Series:
    """A named quantity over time.

    Attributes:
        label: what it is.
        values: one a step, the newest last.
    """

    label: str
    values: Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Chart:
    """Up to three quantities of one unit over time.

    Attributes:
        series: drawn in blue, vermilion and green; their newest values stand in the heading.
        unit: of all of them.
        low: bottom of the axis.
        high: top of the axis; None for the largest value there is.
        band: a range to stay in, shaded.
    """

    series: Sequence[Series]
    unit: str
    low: float = 0.0
    high: float | None = None
    band: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.series) <= len(SERIES_COLOURS):
            raise ValueError(f"series: {len(self.series)} are not allowed; allowed: 1 to {len(SERIES_COLOURS)} in a chart")


def draw_charts(
    canvas: Canvas,
    charts: Sequence[Chart],
    *,
    num_steps: int,
    step: int | None = None,
    first_step: int = 0,
    top: float = 40.0,
) -> None:
    """Draw charts below each other, over one axis of steps.

    Args:
        canvas: to draw on; the charts fill it from `top` down.
        charts: what to show.
        num_steps: right end of the axis.
        step: of the newest values; None where the first values are at the left end.
        first_step: what the left end is called.
        top: room above, for a heading.
    """
    left, right, bottom = 54.0, canvas.width - 16.0, canvas.height - 34.0
    height = (bottom - top) / len(charts)
    for i, chart in enumerate(charts):
        _draw_chart(canvas, chart, (left, top + i * height, right, top + (i + 1) * height - 14), num_steps, step)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.text(
            (left + share * (right - left), bottom), f"{first_step + round(share * num_steps)}", MUTED, size=11, align="centre"
        )
    canvas.text(((left + right) / 2, bottom + 18), "step", MUTED, size=11, align="centre")


def _draw_chart(canvas: Canvas, chart: Chart, box: Box, num_steps: int, step: int | None) -> None:
    left, top, right, bottom = box
    x = left
    for series, colour in zip(chart.series, SERIES_COLOURS, strict=False):
        canvas.bar((x, top + 4, x + 12, top + 8), colour)
        newest = f"{series.values[-1]:,.4g}" if len(series.values) else "–"
        x += 18 + canvas.text((x + 18, top + 6), f"{series.label} {_plain(newest)} {chart.unit}".rstrip(), size=12) + 18
    top += 18
    highest = max((float(max(s.values)) for s in chart.series if len(s.values)), default=0.0)
    high = _round_up(highest) if chart.high is None else chart.high
    high = high if high > chart.low else chart.low + 1.0

    def height_of(value: float) -> float:
        return bottom - (min(high, max(chart.low, value)) - chart.low) / (high - chart.low) * (bottom - top)

    if chart.band is not None:
        canvas.bar((left, height_of(chart.band[1]), right, height_of(chart.band[0])), BAND)
    for value in (chart.low, (chart.low + high) / 2, high):
        canvas.line([(left, height_of(value)), (right, height_of(value))], GRID)
        canvas.text((left - 6, height_of(value)), _plain(f"{value:,.4g}"), MUTED, size=11, align="right")
    for limit in chart.band or ():
        canvas.line([(left, height_of(limit)), (right, height_of(limit))], GREEN, 0.5)
    for series, colour in zip(chart.series, SERIES_COLOURS, strict=False):
        first = 0 if step is None else step + 1 - len(series.values)
        width = (right - left) / num_steps
        points = [(left + (first + i) * width, height_of(float(v))) for i, v in enumerate(series.values)]
        canvas.line(points, colour, 2)
        if points:
            canvas.circle(points[-1], 3, colour)


def _plain(number: str) -> str:
    """Without an exponent: people read 43,500, not 4.35e+04."""
    return f"{float(number.replace(',', '')):,.0f}" if "e" in number else number


def _round_up(value: float) -> float:
    """The next readable end of an axis."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(
        next(
            (power * step for step in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0) if value <= power * step * (1 + 1e-9)), value
        )
    )


class History:
    """What has happened to those environments of a batch that somebody draws.

    A batch of one is recorded from the start, an environment of a larger batch from its first picture on: recording all of
    them would cost every step.

    Args:
        num_envs: environments of the batch.
    """

    def __init__(self, num_envs: int) -> None:
        self._rows: dict[int, list[tuple[float, ...]]] = {0: []} if num_envs == 1 else {}

    def clear(self, mask: NDArray[np.bool_] | None) -> None:
        """Forget the past of the environments of `mask`, of all if None; they stay recorded."""
        for index, rows in self._rows.items():
            if mask is None or mask[index]:
                rows.clear()

    def add(self, *columns: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Append a step: (num_envs,) a quantity, always the same ones; only where `mask` is true."""
        for index, rows in self._rows.items():
            if mask is None or mask[index]:
                rows.append(tuple(float(column[index]) for column in columns))

    def of(self, index: int, *columns: NDArray[Any]) -> NDArray[np.float64]:
        """What is recorded of environment `index`; recording begins with this call if it has not yet.

        Args:
            index: of the environment.
            columns: (num_envs,) a quantity, as of now.

        Returns:
            (quantities, steps), the newest step last.
        """
        rows = self._rows.setdefault(index, [])
        if not rows:
            rows.append(tuple(float(column[index]) for column in columns))
        return np.array(rows).T

    def __bool__(self) -> bool:
        return bool(self._rows)
