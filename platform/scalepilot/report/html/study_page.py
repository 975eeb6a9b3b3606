"""A study for people: one self-contained HTML page, and the same as Markdown.

The page needs no network and no script; pictures are images inside it, so that nothing in one can touch the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.study_metrics import Arm, TaskResult
from scalepilot.evaluate.transfer import Transfer
from scalepilot.report.html.page import image_address, render
from scalepilot.report.words.study_text import analysis, conclusion, verdict
from scalepilot.report.words.transfer_text import HOW, claims, tables, transfer_markdown

HEADINGS = (
    "",
    "test return (IQM)",
    "mean",
    "success rate",
    "steps to success",
    "mean over the training",
    "largest fall",
    "sd of seeds",
    "training s",
)
METHOD = (
    "Figures are of the policies kept (of each run the best by validation, measured again) on the same test episodes."
    " IQM: the mean of the middle half. Intervals (95 %): bootstrap over training seeds and episodes, widened for few seeds;"
    " two arms are told apart where the interval of their difference leaves out 0."
)
_DASH = "–"


@dataclass(frozen=True)
class StudyPage:
    """What a study's page shows.

    Attributes:
        title: of the page.
        seeds: training seeds.
        tasks: measured.
        plots: task → title → (file, SVG text) of its figures.
        maps: task → title → (file, SVG text) of its state → action pictures.
        study_yaml: the study's file.
        reproduce: the command.
        provenance: git sha, versions, hardware, as (name, value).
        transfer: every policy on every task; None where the study does not ask for it.
        transfer_picture: (file, SVG text) of its heat map.
    """

    title: str
    seeds: Sequence[int]
    tasks: Sequence[TaskResult]
    plots: Mapping[str, Mapping[str, tuple[str, str]]]
    maps: Mapping[str, Mapping[str, tuple[str, str]]]
    study_yaml: str
    reproduce: str
    provenance: Sequence[tuple[str, str]]
    transfer: Transfer | None = None
    transfer_picture: tuple[str, str] | None = None

    @property
    def scope(self) -> str:
        """How much was trained and tested."""
        episodes = self.tasks[0].arms[0].values.shape[1]
        seeds = ", ".join(map(str, self.seeds))
        return f"Training seeds {seeds}; {episodes} test episodes each."


def render_page(page: StudyPage) -> str:
    """The HTML file as text."""
    return render(
        "study.html.j2",
        ("report.css", "study.css"),
        {
            "title": page.title,
            "conclusion": conclusion(page.tasks),
            "scope": page.scope,
            "method": METHOD,
            "headings": HEADINGS,
            "tasks": [
                {
                    "name": task.name,
                    "verdict": verdict(task),
                    "rows": _rows(task),
                    "pictures": _images(page.plots.get(task.name, {})),
                    "maps": _images(page.maps.get(task.name, {})),
                    "analysis": analysis(task),
                }
                for task in page.tasks
            ],
            "transfer": page.transfer
            and {
                "claims": claims(page.transfer),
                "how": HOW,
                "tables": tables(page.transfer),
                "pictures": _images({"Every origin on every workload": page.transfer_picture} if page.transfer_picture else {}),
            },
            "study_yaml": page.study_yaml,
            "reproduce": page.reproduce,
            "provenance": list(page.provenance),
        },
    )


def render_markdown(page: StudyPage) -> str:
    """analysis.md: verdicts, tables, analysis; pictures by their files beside it."""
    lines = [f"# {page.title}", ""]
    closing = conclusion(page.tasks)
    lines += [f"**{closing}**", ""] if closing else []
    lines += [f"{page.scope} {METHOD}", ""]
    if page.transfer:
        picture = page.transfer_picture
        lines += [*transfer_markdown(page.transfer), "", *([f"![transfer]({picture[0]})", ""] if picture else [])]
    for task in page.tasks:
        lines += [f"## {task.name}", "", verdict(task), "", *_markdown_table(task), ""]
        lines += [f"![{title}]({file})\n" for title, (file, _) in page.plots.get(task.name, {}).items()]
        for paragraph in analysis(task):
            lines += [f"### {paragraph.heading}", "", paragraph.text, ""]
        lines += [f"![{title}]({file})\n" for title, (file, _) in page.maps.get(task.name, {}).items()]
    lines += ["## How to reproduce", "", f"    {page.reproduce}", ""]
    return "\n".join(lines)


def _markdown_table(task: TaskResult) -> list[str]:
    lines = [f"| {' | '.join(HEADINGS)} |", "|---" + "|---:" * (len(HEADINGS) - 1) + "|"]
    for row in _rows(task):
        cells = [f"{c['value']} ({c['interval']})" if c["interval"] else c["value"] for c in row["cells"]]
        name = f"**{row['name']}**" + (f" ({row['detail']})" if row["detail"] else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _rows(task: TaskResult) -> list[dict[str, Any]]:
    """Cells of the table: the arms, best first, and the random agent."""
    rows = [{"name": arm.name, "detail": arm.detail, "cells": _cells(arm)} for arm in task.arms]
    nothing = _cell(None)
    success = nothing if task.random_success_rate is None else {"value": f"{task.random_success_rate:.0%}", "interval": ""}
    cells = [nothing, _cell(task.random), success, *[nothing] * (len(HEADINGS) - 4)]
    return [*rows, {"name": "random", "detail": "any action, as likely as any other", "cells": cells}]


def _cells(arm: Arm) -> list[dict[str, str]]:
    reached, median = sum(s is not None for s in arm.steps_to_success), arm.median_steps_to_success
    steps = _DASH if not reached else "most seeds never" if median is None else f"{median:,.0f}"
    seconds = sorted(run.train_seconds for run in arm.runs)[len(arm.runs) // 2]
    return [
        _cell(arm.iqm),
        _cell(arm.mean),
        _cell(arm.success_rate, percent=True),
        {"value": steps, "interval": f"{reached} of {len(arm.runs)} seeds" if reached else ""},
        _cell(arm.area),
        _cell(arm.largest_fall),
        {"value": figure(arm.seed_deviation), "interval": ""},
        {"value": f"{seconds:,.1f}", "interval": ""},
    ]


def _cell(interval: Interval | None, *, percent: bool = False) -> dict[str, str]:
    if interval is None:
        return {"value": _DASH, "interval": ""}

    def show(value: float) -> str:
        return f"{value:.0%}" if percent else figure(value)

    span = f"{show(interval.low)} to {show(interval.high)}" if interval.is_known else ""
    return {"value": show(interval.mean), "interval": span}


def figure(value: float) -> str:
    """A number for a table."""
    if not math.isfinite(value):
        return _DASH
    return f"{value:,.{1 if abs(value) >= 10 else 2}f}".replace("-", "−")


def _images(pictures: Mapping[str, tuple[str, str]]) -> list[dict[str, str]]:
    return [{"title": title, "source": image_address(svg)} for title, (_, svg) in pictures.items()]
