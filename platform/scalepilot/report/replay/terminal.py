"""A replay as a terminal shows it: bars over time, the decision and why; pictures in half blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table
from rich.text import Text

from scalepilot.report.charts.policy_map import field_label
from scalepilot.report.replay.autoscale_replay import AutoscaleReplay, Lane
from scalepilot.report.replay.env_replay import EnvReplay

_BLOCKS = " ▁▂▃▄▅▆▇█"
# The terminal's own colours: they suit its background, whichever that is.
_LANE_COLOURS = ("cyan", "yellow", "magenta", "green", "blue")
_LABEL, _FIGURE = 9, 11
# A lane narrower than this says nothing: they are stacked instead.
_LEAST_LANE = 56
_PICTURE_COLUMNS, _PICTURE_ROWS = 44, 16
_HEADER_ROWS, _LANE_ROWS, _BORDER_ROWS = 4, 3, 2
_MANY_LATE = 0.01


def bars(values: Sequence[float], width: int, rows: int, high: float, num_steps: int, *, worst: bool = False) -> list[str]:
    """Bars over a whole replay, as far as it has come, from the top row down.

    Args:
        values: one a step so far.
        width: columns for all steps.
        rows: of text, eight levels each.
        high: value of a full bar.
        num_steps: of the whole replay.
        worst: the highest value of a column's steps instead of their mean.
    """
    per_column = max(1.0, num_steps / width)
    cells = np.zeros(width)
    for column in range(width):
        part = values[int(column * per_column) : max(int(column * per_column) + 1, int((column + 1) * per_column))]
        if part:
            cells[column] = max(part) if worst else sum(part) / len(part)
    levels = np.ceil(np.clip(cells / (high or 1.0), 0, 1) * 8 * rows - 1e-9).astype(int)
    return ["".join(_BLOCKS[min(8, max(0, level - 8 * row))] for level in levels) for row in reversed(range(rows))]


def autoscale_screen(replay: AutoscaleReplay, width: int, height: int) -> RenderableType:
    """The whole screen of an Autoscale replay.

    Args:
        replay: so far.
        width: columns of the terminal.
        height: rows of the terminal.
    """
    per_row = max(1, min(len(replay.lanes), width // _LEAST_LANE))
    lane_rows = -(-len(replay.lanes) // per_row)
    spare = height - 1 - _HEADER_ROWS - lane_rows * (_LANE_ROWS + _BORDER_ROWS + 1)
    tall = 1 + min(3, max(0, spare // lane_rows))
    most = {
        name: max((max(lane.columns[name], default=0.0) for lane in replay.lanes), default=0.0) for name in ("replicas", "cost")
    }
    most["late_share"] = max(0.02, *(max(lane.columns["late_share"], default=0.0) for lane in replay.lanes))
    rival = next((lane for lane in replay.lanes if lane.name.startswith("hpa")), replay.lanes[-1])
    panels: list[RenderableType] = []
    for i, lane in enumerate(replay.lanes):
        wide = width // per_row - 4
        panels.append(_autoscale_lane(replay, lane, rival, most, wide, tall, _LANE_COLOURS[i % len(_LANE_COLOURS)]))
    return Group(_header(replay, width), _grid(panels, per_row))


def _header(replay: AutoscaleReplay, width: int) -> RenderableType:
    rates, step = replay.rates_rps, replay.step_index
    hours = step * replay.params.interval_seconds / 3600
    newest = rates[-1] if rates else 0.0
    title = Text.assemble((replay.title, "bold"), f"   step {step} of {replay.num_steps} ({hours:.1f} h)")
    lines = bars(rates, width - _LABEL - _FIGURE - 4, 2, max(rates, default=1.0), replay.num_steps)
    return Group(title, *_charted("requests", lines, f"{newest:,.0f}/s", "blue", indent=2))


def _autoscale_lane(
    replay: AutoscaleReplay, lane: Lane, rival: Lane, most: dict[str, float], width: int, tall: int, colour: str
) -> Panel:
    chart = width - _LABEL - _FIGURE
    steps, columns = replay.num_steps, lane.columns
    late, starting = lane.newest("late_share"), lane.newest("replicas") - lane.newest("ready_replicas")
    replicas = f"{lane.newest('ready_replicas'):.0f}" + (f" +{starting:.0f}" if starting else "")
    lines = [
        *_charted("replicas", bars(columns["replicas"], chart, tall, most["replicas"], steps), replicas, colour),
        *_charted(
            "late",
            bars(columns["late_share"], chart, 1, most["late_share"], steps, worst=True),
            f"{late:.2%}",
            "red" if late > _MANY_LATE else "yellow",
        ),
        *_charted("cost", [_gauge(lane.newest("cost"), most["cost"], chart)], f"{lane.newest('cost'):.2f}", colour),
        _decision(lane, width, colour),
    ]
    hours = max(replay.step_index, 1) / replay.params.steps_per_hour
    figure = f"J {lane.newest('cost') / hours:.2f}/h"
    if lane is not rival and rival.newest("cost"):
        change = lane.newest("cost") / rival.newest("cost") - 1
        figure += f"  {f'{change:+.0%}'.replace('-', '−')} on {rival.name}"
    return _panel(lane, figure, Group(*lines), width, colour)


def env_screen(replay: EnvReplay, width: int, height: int) -> RenderableType:
    """The whole screen of any other replay.

    Args:
        replay: so far.
        width: columns of the terminal.
        height: rows of the terminal.
    """
    per_row = max(
        1, min(len(replay.lanes), width // _LEAST_LANE if replay.render_mode == "ansi" else width // (_PICTURE_COLUMNS + 4))
    )
    lane_rows = -(-len(replay.lanes) // per_row)
    wide = width // per_row - 4
    tall = max(4, min(_PICTURE_ROWS, (height - 2) // lane_rows - _BORDER_ROWS - 2))
    lowest, highest = (f((f(lane.columns["return"], default=0.0) for lane in replay.lanes), default=0.0) for f in (min, max))
    panels: list[RenderableType] = []
    for i, (lane, view) in enumerate(zip(replay.lanes, replay.views(), strict=True)):
        colour = _LANE_COLOURS[i % len(_LANE_COLOURS)]
        shown: RenderableType
        if isinstance(view, str):
            # One long line of quantities, two blanks between them, is read better as a list.
            shown = Text(re.sub(r" {2,}(?=\S)", "\n", view) if "\n" not in view else view)
        elif view.ndim == 3:
            shown = picture(view.astype(np.uint8), min(wide, _PICTURE_COLUMNS), tall)
        else:
            shown = Text(
                "\n".join(f"{field_label(f):<26.26} {v:>10.4g} {f.unit}" for f, v in zip(replay.fields, view, strict=False))
            )
        chart = wide - _LABEL - _FIGURE
        collected = [r - min(lowest, 0.0) for r in lane.columns["return"]]
        steps_shown = max(replay.step_index, _LEAST_LANE)
        course = bars(collected, chart, 1, max(highest, 0.0) - min(lowest, 0.0), steps_shown)
        lines = [shown, *_charted("return", course, f"{lane.newest('return'):,.4g}", colour), _decision(lane, wide, colour)]
        figure = f"{len(lane.decisions)} steps" + (", over" if lane.ended else "")
        panels.append(_panel(lane, figure, Group(*lines), wide, colour))
    title = Text.assemble((replay.title, "bold"), f"   step {replay.step_index}")
    return Group(title, _grid(panels, per_row))


def picture(frame: NDArray[np.uint8], columns: int, rows: int) -> Segments:
    """A picture in half blocks: two pixels a character, above each other.

    Args:
        frame: (height, width, 3).
        columns: most characters across.
        rows: most lines.
    """
    height, width = frame.shape[:2]
    scale = min(columns / width, 2 * rows / height)
    wide, tall = max(1, round(width * scale)), max(2, 2 * round(height * scale / 2))
    rows_at, columns_at = (np.linspace(0, n, k + 1).astype(int) for n, k in ((height, tall), (width, wide)))
    # The mean of each block: thin lines, such as a pole, must not fall between the samples.
    block = np.add.reduceat(np.add.reduceat(frame.astype(np.float64), rows_at[:-1], axis=0), columns_at[:-1], axis=1)
    area = np.maximum(1, np.diff(rows_at))[:, None, None] * np.maximum(1, np.diff(columns_at))[None, :, None]
    pixels = np.clip(block / area, 0, 255).astype(int)
    segments = []
    for y in range(0, tall, 2):
        for x in range(wide):
            upper, lower = ("#{:02x}{:02x}{:02x}".format(*pixels[y + k, x]) for k in (0, 1))
            segments.append(Segment("▀", Style(color=upper, bgcolor=lower)))
        segments.append(Segment.line())
    return Segments(segments)


def _charted(label: str, lines: Sequence[str], figure: str, colour: str, indent: int = 0) -> list[Text]:
    """Bars with their name at the left and the newest number at the right, both in the last row."""
    texts = []
    for i, line in enumerate(lines):
        last = i == len(lines) - 1
        texts.append(
            Text.assemble(
                " " * indent,
                (f"{label if last else '':<{_LABEL}}", "dim"),
                (line, colour),
                (f"{figure if last else '':>{_FIGURE}}", "bold"),
                no_wrap=True,
            )
        )
    return texts


def _gauge(value: float, most: float, width: int) -> str:
    filled = round(width * value / most) if most else 0
    return "━" * filled + " " * (width - filled)


def _decision(lane: Lane, width: int, colour: str) -> Text:
    did, why = (texts[-1] if texts else "" for texts in (lane.decisions, lane.reasons))
    text = Text.assemble((f"{did:<{_LABEL + 3}}", f"bold {colour}"), (why, "dim"), no_wrap=True, overflow="ellipsis")
    text.truncate(width, overflow="ellipsis")
    return text


def _panel(lane: Lane, figure: str, content: RenderableType, width: int, colour: str) -> Panel:
    room = width - len(figure) - 6
    name = lane.name if len(lane.name) <= room else f"{lane.name[: room - 1]}…"
    title = Text.assemble((name, f"bold {colour}"))
    if len(name) + len(lane.detail) + 3 <= room:
        title.append(f" · {lane.detail}", "dim")
    title.append(" " + "─" * max(1, width - len(title) - len(figure) - 4) + " ", colour)
    title.append(figure, "bold")
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style=colour, padding=(0, 1))


def _grid(panels: Sequence[RenderableType], per_row: int) -> RenderableType:
    if per_row == 1:
        return Group(*panels)
    grid = Table.grid(expand=True)
    for _ in range(per_row):
        grid.add_column(ratio=1)
    for first in range(0, len(panels), per_row):
        grid.add_row(*panels[first : first + per_row])
    return grid
