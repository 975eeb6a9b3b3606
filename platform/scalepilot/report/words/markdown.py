"""Comparisons as one Markdown table, for documents."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scalepilot.evaluate.comparison import ROLES, Comparison, Contestant
from scalepilot.evaluate.statistics.intervals import GapClosed
from scalepilot.report.words.tables import describe_scope, percent

_HEADINGS = ("workload", "rule", "J an hour", "95 % interval", "replicas", "late %")


def markdown_table(comparisons: Sequence[Comparison]) -> str:
    """One row a workload and contestant, cheapest first within its role, with the gap each one closes.

    The gap is that to the optimum's lower bound (a line below says where there is none), from the default HPA and from the
    best tuned HPA of that workload.
    """
    lines = [
        f"| {' | '.join((*_HEADINGS, 'G against HPA default', 'G against best tuned HPA'))} |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for comparison in comparisons:
        tuned = _best(comparison, "hpa-tuned")
        default = _best(comparison, "hpa-default")
        workload = f"{comparison.workload} ({describe_scope(comparison)})"
        for role in ROLES:
            for c in comparison.of_role(role):
                row = comparison.rows[c.name]
                interval = f"{row['J'].low:.2f} to {row['J'].high:.2f}" if row["J"].is_known else ""
                name = f"**{c.name}**" if tuned is not None and c.name == tuned.name else c.name
                cells = [workload, f"{name} ({c.detail})" if c.detail else name, f"{row['J'].mean:.3f}", interval]
                cells += [f"{row['replicas'].mean:.2f}", percent(row["late_share"].mean)]
                cells += [_gap(comparison, c, default), _gap(comparison, c, tuned)]
                lines.append(f"| {' | '.join(_escaped(cell) for cell in cells)} |")
                workload = ""
    towards = {c.workload: c.gap_reference.name for c in comparisons if c.gap_reference and not c.gap_reference.is_bound}
    if towards:
        named = ", ".join(f"{reference} ({_escaped(workload)})" for workload, reference in towards.items())
        lines += ["", f"Without the optimum G is the gap closed towards a reference that is no bound: {named}."]
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def _best(comparison: Comparison, prefix: str) -> Contestant | None:
    found = [c for c in comparison.of_role("baseline") if c.name.startswith(prefix)]
    return found[0] if found else None


def _gap(comparison: Comparison, contestant: Contestant, baseline: Contestant | None) -> str:
    """The share with its interval, and how many pairs had no gap to close; empty where it does not apply."""
    if baseline is None or contestant.role == "reference" or contestant.name == baseline.name:
        return ""
    closed: GapClosed | None = comparison.gap_closed.get(contestant.name, {}).get(baseline.name)
    if closed is None or not math.isfinite(closed.share.mean):
        return ""
    interval = f" ({closed.share.low:.2f} to {closed.share.high:.2f})" if closed.share.is_known else ""
    left_out = f", {closed.left_out} of {closed.pairs + closed.left_out} pairs left out" if closed.left_out else ""
    return f"{closed.share.mean:.2f}{interval}{left_out}".replace("-", "−")
