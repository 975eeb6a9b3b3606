"""One workload's part of the report: how good everyone is, who beats whom, what the test was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from scalepilot.evaluate.comparison import ROLES, Comparison
from scalepilot.evaluate.statistics.intervals import UNKNOWN, Interval
from scalepilot.report.charts.action_shares import LABELS, action_shares
from scalepilot.report.html.chart_data import interval_bar
from scalepilot.report.html.report_figures import big_figures, cell, chance, relative_text, whole
from scalepilot.report.words.figures import DASH, shown, signed
from scalepilot.report.words.tables import comparison_notes, describe_intervals, describe_scope, figures_of, verdict


def outcome_words(outcome: str, *, lower_is_better: bool) -> str:
    """A verdict in a few words."""
    better, worse = ("Cheaper", "More expensive") if lower_is_better else ("Better", "Worse")
    return {
        "better": f"{better} than the best baseline",
        "worse": f"{worse} than the best baseline",
        "undecided": "Not distinguishable from the best baseline",
        "unknown": "No interval",
        "alone": "Nothing to compare with",
    }[outcome]


def workload_view(comparison: Comparison, chart: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of a workload.

    Args:
        comparison: of the workload.
        chart: its entry of `chart_data`.
    """
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    judged = comparison.outcome(policy.name, baseline.name) if policy and baseline else "alone"
    reference, objective = comparison.gap_reference, comparison.objective
    figures = figures_of(comparison)
    return {
        "name": comparison.workload,
        "verdict": verdict(comparison),
        "outcome": judged,
        "outcome_words": outcome_words(judged, lower_is_better=objective.lower_is_better),
        "scope": describe_scope(comparison),
        "intervals": describe_intervals(comparison),
        "figures": big_figures(comparison),
        "is_money": objective.metric == "J",
        "figure": shown(objective).label,
        "better": "cheaper" if objective.lower_is_better else "better",
        "columns": [how.label for how in figures.values()],
        "rows": _rows(comparison),
        "notes": comparison_notes(comparison),
        "versus": _versus_rows(comparison),
        "versus_left_out": len(comparison.of_role("policy")) > 1 and len(comparison.of_role("baseline")) > 1,
        "reference": reference.name if reference else None,
        "reference_is_bound": bool(reference and reference.is_bound),
        "has_equal": bool(chart["scatter"] and chart["scatter"]["equal"]),
        "has_scatter": bool(chart["scatter"]),
        "has_fronts": bool(comparison.fronts),
        "has_playback": bool(chart["playback"]),
        "playback_title": _playback_title(comparison),
        "playback_of": _playback_of(comparison),
        "moves": _move_rows(comparison),
        "move_labels": LABELS,
        "facts": _facts(comparison),
    }


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The comparison table: per contender its cells."""
    intervals = [comparison.figure(c.name) for c in comparison.contenders]
    best, figures = comparison.best("policy"), figures_of(comparison)
    rows = []
    for role in ROLES:
        for c in comparison.of_role(role):
            row = comparison.rows[c.name]
            rows.append(
                {
                    "name": c.name,
                    "role": role,
                    "detail": c.detail,
                    "best": best is not None and c.name == best.name,
                    "bar": interval_bar(comparison.figure(c.name), intervals),
                    "cells": [cell(how.label, row.get(name, UNKNOWN), how.on_a_page, how.unit) for name, how in figures.items()],
                }
            )
    return rows


def _versus_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The best policy against each baseline, the others against the best: the difference, its chance, the gap closed."""
    rows = []
    baselines = comparison.of_role("baseline")
    for rank, policy in enumerate(comparison.of_role("policy")):
        for baseline in baselines[: 1 if rank else None]:
            versus = comparison.versus[policy.name][baseline.name]
            gap = comparison.gap_closed.get(policy.name, {}).get(baseline.name)
            difference, show = versus.difference, shown(comparison.objective).show
            # The chance that a resample is the better one.
            lower = comparison.objective.lower_is_better
            probability = versus.probability_lower if lower else 1.0 - versus.probability_lower
            rows.append(
                {
                    "policy": policy.name,
                    "baseline": baseline.name,
                    "outcome": comparison.outcome(policy.name, baseline.name),
                    "difference": signed(difference.mean, show),
                    "interval": _span(difference, show),
                    "bar": interval_bar(difference, [v.difference for v in comparison.versus[policy.name].values()], zero=0.0),
                    "relative": relative_text(versus.relative) if lower else "",
                    "probability": chance(probability),
                    "gap": f"{whole(100 * gap.share.mean)} %" if gap and gap.pairs else DASH,
                    "gap_interval": f"{whole(100 * gap.share.low)} … {whole(100 * gap.share.high)} %"
                    if gap and gap.share.is_known
                    else "",
                    "gap_pairs": f"{gap.left_out} of {gap.pairs + gap.left_out} pairs left out" if gap and gap.left_out else "",
                }
            )
    return rows


def _span(difference: Interval, show: Callable[[float], str]) -> str:
    return f"{signed(difference.low, show)} … {signed(difference.high, show)}" if difference.is_known else ""


def _move_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """How often each contender moved by how much in the window played back."""
    rows = []
    for role in ROLES:
        for c in comparison.of_role(role):
            counted = action_shares(c.playback.replicas) if c.playback is not None else None
            if counted is None:
                continue
            at, parts = 0.0, []
            for k, (label, share) in enumerate(zip(LABELS, counted.shares, strict=True)):
                width = round(100 * share, 2)
                parts.append({"index": k, "x": round(at, 2), "width": width, "label": label, "share": _share(share)})
                at += width
            rows.append({"name": c.name, "role": role, "parts": parts})
    return rows


def _share(share: float) -> str:
    if not share:
        return ""
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    scope = comparison.scope
    facts = [
        ("Workload" if scope.days else "Episodes of", comparison.workload),
        ("Test", describe_scope(comparison)),
        *([("Days", str(scope.days))] if scope.days else []),
    ]
    if math.isfinite(scope.mean_rps):
        facts.append(("Mean rate", f"{scope.mean_rps:,.0f} requests/s"))
        facts.append(("Highest mean rate of a step", f"{scope.peak_rps:,.0f} requests/s"))
    if comparison.played_back:
        facts.append(("Decision interval", f"{comparison.played_back.interval_seconds:g} s"))
    facts.append(("Intervals", describe_intervals(comparison)))
    return facts


def _playback_title(comparison: Comparison) -> str:
    shown = next((c.playback for c in comparison.contenders if c.playback is not None), None)
    if shown is None or comparison.played_back is None:
        return "One window played back"
    hours = len(shown.replicas) * comparison.played_back.interval_seconds / 3600
    return "A day played back" if hours == 24 else f"{hours:g} {'hour' if hours == 1 else 'hours'} played back"


def _playback_of(comparison: Comparison) -> str:
    shown = comparison.played_back
    return f"Test window {shown.window + 1} of {comparison.scope.windows}, seed {shown.seed}." if shown else ""
