"""The report's part for environments that are judged by their return."""

from __future__ import annotations

import math
from typing import Any

from scalepilot.evaluate.returns import Collected, ReturnComparison
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.report.html.chart_data import interval_bar
from scalepilot.report.html.report_figures import DASH, Figure, cell, chance
from scalepilot.report.words.returns_text import returns_notes, returns_verdict
from scalepilot_envs.episode_metrics import MEANINGS

_WORDS = {
    "better": "Better than the best rule",
    "worse": "Worse than the best rule",
    "undecided": "Not distinguishable from the best rule",
    "alone": "Nothing to compare with",
}
# The page's colours are named after costs.
_COLOURS = {"better": "cheaper", "worse": "dearer"}


def returns_view(comparison: ReturnComparison) -> dict[str, Any]:
    """What the template shows."""
    judged = _outcome(comparison)
    columns = ["length", *(name for name in MEANINGS if name in comparison.rows[0].figures)]
    rows = sorted(comparison.rows, key=lambda row: -row.figures["return"].mean)
    intervals = [row.figures["return"] for row in rows]
    best = comparison.best("policy")
    episodes = len(comparison.rows[0].results.episode_return)
    return {
        "verdict": returns_verdict(comparison),
        "outcome": _COLOURS.get(judged, judged),
        "outcome_words": _WORDS[judged],
        "scope": f"{comparison.env_id}, {episodes} test episode{'' if episodes == 1 else 's'}, the same for all",
        "figures": _figures(comparison, _COLOURS.get(judged, judged)),
        "columns": [_heading(name) for name in columns],
        "rows": [
            {
                "name": row.name,
                "role": row.role,
                "detail": row.detail,
                "best": row is best,
                "bar": interval_bar(row.figures["return"], intervals),
                "cells": [cell("Return", row.figures["return"], number)]
                + [cell(_heading(name), row.figures.get(name, _NONE), number) for name in columns],
            }
            for row in rows
        ],
        "versus": _versus_rows(comparison, best),
        "notes": returns_notes(comparison),
    }


_NONE = Interval(math.nan, math.nan, math.nan)


def number(value: float) -> str:
    """Four digits and a real minus."""
    if not math.isfinite(value):
        return DASH
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{value:,.{digits}f}".replace("-", "−")


def _signed(value: float) -> str:
    return number(value) if value < 0 else f"+{number(value)}"


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _outcome(comparison: ReturnComparison) -> str:
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    if policy is None or baseline is None:
        return "alone"
    difference = comparison.versus[policy.name][baseline.name].difference
    if not difference.is_known or difference.low <= 0 <= difference.high:
        return "undecided"
    return "better" if difference.low > 0 else "worse"


def _figures(comparison: ReturnComparison, outcome: str) -> list[Figure]:
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    if policy is None:
        return []
    ours, length = policy.figures["return"], policy.figures["length"]
    figures = [Figure("Return of an episode", number(ours.mean), _spread(ours))]
    if baseline is not None:
        difference = comparison.versus[policy.name][baseline.name].difference
        detail = f"{_spread(difference)} {baseline.name} collects {number(baseline.figures['return'].mean)}."
        figures.append(Figure("Against the best rule", _signed(difference.mean), detail.strip(), outcome))
    figures.append(Figure("Steps of an episode", number(length.mean), _spread(length)))
    return figures


def _spread(interval: Interval) -> str:
    # Episodes without chance have none to show.
    return f"95 %: {number(interval.low)} … {number(interval.high)}." if interval.low < interval.high else ""


def _versus_rows(comparison: ReturnComparison, policy: Collected | None) -> list[dict[str, Any]]:
    if policy is None:
        return []
    against = comparison.versus[policy.name]
    return [
        {
            "policy": policy.name,
            "baseline": name,
            "outcome": "cheaper" if v.difference.low > 0 else "dearer" if v.difference.high < 0 else "undecided",
            "difference": _signed(v.difference.mean),
            "interval": f"{_signed(v.difference.low)} … {_signed(v.difference.high)}" if v.difference.is_known else "",
            "bar": interval_bar(v.difference, [other.difference for other in against.values()], zero=0.0),
            "probability": chance(1.0 - v.probability_lower),
        }
        for name, v in sorted(against.items(), key=lambda item: item[1].difference.mean)
    ]
