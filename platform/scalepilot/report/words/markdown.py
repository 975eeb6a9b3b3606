"""Comparisons as one Markdown table, for documents."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scalepilot.evaluate.comparison import ROLES, Comparison, Contender
from scalepilot.evaluate.statistics.intervals import GapClosed
from scalepilot.report.words.figures import shown
from scalepilot.report.words.tables import describe_scope, figures_of

# Beside what decides.
_OTHERS = ("replicas", "late_share", "length")


def markdown_table(comparisons: Sequence[Comparison]) -> str:
    """One row a workload and contender, best first within its role, with the gap each one closes.

    The gap is that to the optimum's bound (a line below says where there is none), from the default HPA and from the best tuned
    HPA of that workload; where those do not take part, from the best baseline.
    """
    decides = shown(comparisons[0].objective)
    others = {name: how for name, how in figures_of(comparisons[0]).items() if name in _OTHERS}
    bases = {"G against HPA default": "hpa-default", "G against best tuned HPA": "hpa-tuned"}
    if all(_best(c, prefix) is None for c in comparisons for prefix in bases.values()):
        bases = {"G against best baseline": ""} if any(c.gap_reference for c in comparisons) else {}
    first = "J an hour" if comparisons[0].objective.metric == "J" else decides.heading
    headings = ["workload", "rule", first, "95 % interval", *(how.heading for how in others.values()), *bases]
    lines = [f"| {' | '.join(headings)} |", "|---|---|" + "---:|" * (len(headings) - 2)]
    for comparison in comparisons:
        of_base = [_best(comparison, prefix) for prefix in bases.values()]
        strongest = of_base[-1] if of_base else None
        workload = f"{comparison.workload} ({describe_scope(comparison)})"
        for role in ROLES:
            for c in comparison.of_role(role):
                row, figure = comparison.rows[c.name], comparison.figure(c.name)
                interval = f"{figure.low:.2f} to {figure.high:.2f}" if figure.is_known else ""
                name = f"**{c.name}**" if strongest is not None and c.name == strongest.name else c.name
                digits = 3 if comparison.objective.metric == "J" else 2
                cells = [workload, f"{name} ({c.detail})" if c.detail else name, f"{figure.mean:.{digits}f}", interval]
                cells += [how.show(row[key].mean) if key in row else "" for key, how in others.items()]
                cells += [_gap(comparison, c, base) for base in of_base]
                lines.append(f"| {' | '.join(_escaped(cell) for cell in cells)} |")
                workload = ""
    towards = {c.workload: c.gap_reference.name for c in comparisons if c.gap_reference and not c.gap_reference.is_bound}
    if towards:
        named = ", ".join(f"{reference} ({_escaped(workload)})" for workload, reference in towards.items())
        lines += ["", f"Without the optimum G is the gap closed towards a reference that is no bound: {named}."]
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def _best(comparison: Comparison, prefix: str) -> Contender | None:
    found = [c for c in comparison.of_role("baseline") if c.name.startswith(prefix)]
    return found[0] if found else None


def _gap(comparison: Comparison, contender: Contender, baseline: Contender | None) -> str:
    """The share with its interval, and how many pairs had no gap to close; empty where it does not apply."""
    if baseline is None or contender.role == "reference" or contender.name == baseline.name:
        return ""
    closed: GapClosed | None = comparison.gap_closed.get(contender.name, {}).get(baseline.name)
    if closed is None or not math.isfinite(closed.share.mean):
        return ""
    interval = f" ({closed.share.low:.2f} to {closed.share.high:.2f})" if closed.share.is_known else ""
    left_out = f", {closed.left_out} of {closed.pairs + closed.left_out} pairs left out" if closed.left_out else ""
    return f"{closed.share.mean:.2f}{interval}{left_out}".replace("-", "−")
