"""A transfer table as a heat map: a row an origin, a column a tested workload; money at the left, late requests at the right."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from scalepilot.evaluate.transfer import Source, Transfer
from scalepilot.report.charts.svg import document
from scalepilot.report.words.figures import percent

_LEFT, _TOP, _ROW, _GAP = 210, 92, 21, 44
# A panel is as wide as its heading needs, a column as its figures.
_NARROWEST_PANEL, _NARROWEST_COLUMN = 440, 74
_LETTERS = 28
# Blue is cheaper, orange dearer, either way light enough for dark figures, and apart for any colour vision.
_CHEAP, _EVEN, _DEAR = (110, 170, 225), (250, 250, 250), (244, 150, 70)
# Colours are full at half and at four times the yardstick, and at 10 % late requests.
_HALF, _FOURFOLD, _MOST_LATE = 0.5, 4.0, 0.1
_LEAST_LATE = 1e-4


def transfer_map(transfer: Transfer) -> str:
    """The picture as SVG text; a frame is round what was learnt on the tested traffic itself."""
    column = max(_NARROWEST_COLUMN, _NARROWEST_PANEL // len(transfer.workloads))
    panel = len(transfer.workloads) * column
    left, right = _LEFT, _LEFT + panel + _GAP
    parts = [
        _text(left, 52, f"J in multiples of {transfer.yardstick} tuned on the tested traffic"),
        _text(right, 52, "late requests, %"),
    ]
    for at in (left, right):
        for i, workload in enumerate(transfer.workloads):
            parts.append(_text(at + column * (i + 0.5), 76, workload, "middle", "muted"))
    y = float(_TOP)
    for label in transfer.labels:
        sources = transfer.of_label(label)
        for source in sources:
            name = label if source.learnt_on is None else f"{label} · {source.learnt_on}"
            parts.append(_text(left - 8, y + 15, name if len(name) <= _LETTERS else f"{name[:_LETTERS]}…", "end"))
            for at, cell in ((left, _money), (right, _late)):
                parts += _cells(transfer, source, (at, y, column), cell)
            y += _ROW
        y += 8
    foot = f"Rows: arm or rule · where it was trained or tuned. Framed: on its own traffic. {_seeds(transfer)}"
    parts.append(_text(84, y + 18, foot, "start", "muted"))
    return document(right + panel + 20, round(y) + 34, "Trained or tuned on one pattern, tested on all", parts)


Cell = Callable[[Transfer, Source, str], tuple[str, str]]


def _cells(transfer: Transfer, source: Source, place: tuple[float, float, int], cell: Cell) -> list[str]:
    """A row of a panel; `place` is its left, its top and the width of a column."""
    (left, y, column), parts = place, list[str]()
    for i, workload in enumerate(transfer.workloads):
        text, colour = cell(transfer, source, workload)
        x = left + column * i
        frame = ' stroke="#333" stroke-width="1.6"' if source.learnt_on == workload else ""
        parts.append(f'<rect x="{x + 1:g}" y="{y + 1:g}" width="{column - 3}" height="{_ROW - 3}" fill="{colour}"{frame}/>')
        parts.append(
            f'<text x="{x + column / 2:g}" y="{y + 15:g}" text-anchor="middle" font-size="12" style="fill:#111">{text}</text>'
        )
    return parts


def _money(transfer: Transfer, source: Source, workload: str) -> tuple[str, str]:
    value = transfer.relative(source, workload)
    if value <= 1:
        share, end = math.log(max(value, _HALF)) / math.log(_HALF), _CHEAP
    else:
        share, end = math.log(min(value, _FOURFOLD)) / math.log(_FOURFOLD), _DEAR
    return f"{value:.2f}" if value < 10 else f"{value:.0f}", _mixed(share, end)


def _late(transfer: Transfer, source: Source, workload: str) -> tuple[str, str]:
    value = transfer.figure(source, workload, "late_share").mean
    share = math.log(max(value, _LEAST_LATE) / _LEAST_LATE) / math.log(_MOST_LATE / _LEAST_LATE)
    return percent(value), _mixed(min(1.0, share), _DEAR)


def _mixed(share: float, end: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_EVEN, end, strict=True))


def _seeds(transfer: Transfer) -> str:
    members = [len(c.members) for c in transfer.comparisons[0].contenders if c.role == "policy"]
    return f"Policies: mean of {max(members)} training seeds." if members and max(members) > 1 else ""


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{marked}>{escape(text)}</text>'
