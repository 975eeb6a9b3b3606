"""Runs, and what experiments were worth, as a table, a page or Markdown."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from scalepilot.progress import steps_text
from scalepilot.report.html.page import render
from scalepilot.report.run_list import RunEntry, Worth
from scalepilot.report.words.tables import plain_table


def runs_table(runs: Sequence[RunEntry]) -> Table:
    """One row a run."""
    table = plain_table(f"{len(runs)} runs", "* better than its best baseline, 95 % interval without 0; ! worse")
    table.add_column("", overflow="fold")
    for heading in ("algorithm", "environment", "status"):
        table.add_column(heading, overflow="fold")
    for heading in ("steps", "steps/s", "result", "best baseline"):
        table.add_column(heading, justify="right")
    table.add_column("deploy", overflow="fold")
    for run in runs:
        mark = {True: "*", False: "!", None: " "}[run.is_better]
        table.add_row(
            Text(f"{run.name}/{run.path.name}"),
            run.algorithm,
            Text(run.environment + (f" · {run.workload}" if run.workload else "")),
            status_text(run),
            _steps(run.env_steps),
            _rate(run),
            "-" if run.figure is None else f"{figure_text(run.figure)} {unit(run)}{mark}",
            Text("-" if run.rival_figure is None else f"{figure_text(run.rival_figure)} {run.rival}"),
            Text(run.deploy or "-"),
        )
    return table


def runs_page(runs: Sequence[RunEntry], page: Path) -> str:
    """One self-contained HTML page: a row a run, with links to its report.

    Args:
        runs: listed.
        page: where it will lie, for the links.
    """
    rows = []
    for run in runs:
        report = run.path / "report.html"
        mean, low, high = run.advantage
        rows.append(
            {
                "name": f"{run.name}/{run.path.name}",
                "link": os.path.relpath(report, page.resolve().parent) if report.is_file() else "",
                "algorithm": run.algorithm,
                "environment": run.environment + (f" · {run.workload}" if run.workload else ""),
                "status": status_text(run),
                "steps": _steps(run.env_steps),
                "rate": _rate(run),
                "figure": "–" if run.figure is None else f"{figure_text(run.figure)} {unit(run)}",
                "rival": "" if run.rival_figure is None else f"{figure_text(run.rival_figure)} {run.rival}",
                "interval": f"{figure_text(low)} to {figure_text(high)}" if math.isfinite(mean) and math.isfinite(low) else "",
                "deploy": run.deploy,
                "verdict": {True: "better", False: "worse", None: ""}[run.is_better],
            }
        )
    return render("runs.html.j2", ("report.css", "study.css"), {"title": f"{len(runs)} runs", "rows": rows})


def worth_markdown(found: Sequence[Worth]) -> str:
    """One Markdown table, a row an experiment."""
    lines = [
        "| environment | algorithm | preset | steps | training seeds | mean | lowest to highest | best baseline | verdict |",
        "|---|---|---|---:|---|---:|---|---|---|",
    ]
    for worth in found:
        run = worth.runs[0]
        where = run.environment + (f" · {run.workload}" if run.workload else "")
        rival = "–" if worth.rival_figure is None else f"{figure_text(worth.rival_figure)} ({worth.rival})"
        cells = [
            where,
            run.algorithm,
            run.name,
            _steps(run.env_steps),
            ", ".join(str(r.seed) for r in worth.runs),
            f"{figure_text(worth.mean)} {unit(run)}",
            f"{figure_text(worth.lowest)} to {figure_text(worth.highest)}",
            rival,
            outcome_words(worth),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def outcome_words(worth: Worth) -> str:
    """How many seeds are better or worse than the best baseline beyond chance."""
    if worth.rival_figure is None:
        return "nothing to compare with"
    n = len(worth.runs)
    undecided = n - worth.better - worth.worse
    counted = [(worth.better, "better"), (worth.worse, "worse"), (undecided, "undecided")]
    said = [f"{word} with {'its one seed' if n == 1 else f'{k} of {n} seeds'}" for k, word in counted if k]
    return ", ".join(said)


def figure_text(value: float) -> str:
    """Two decimals, a real minus."""
    return f"{value:,.2f}".replace("-", "−")


def status_text(run: RunEntry) -> str:
    """With the trials of a sweep."""
    return run.status if run.trials is None else f"{run.status}, {run.trials[0]} of {run.trials[1]} trials"


def unit(run: RunEntry) -> str:
    """Of the figure."""
    return "J/h" if run.figure_name == "J" else "return"


def _steps(env_steps: int | None) -> str:
    return "-" if env_steps is None else steps_text(env_steps)


def _rate(run: RunEntry) -> str:
    return f"{run.env_steps / run.train_seconds:,.0f}" if run.env_steps and run.train_seconds else "-"
