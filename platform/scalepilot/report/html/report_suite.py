"""The report's part over all workloads: the verdict, the standings and a table workload by workload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scalepilot.evaluate.comparison import ROLES
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.suite import Standing, SuiteComparison
from scalepilot.report.html.chart_data import interval_bar
from scalepilot.report.html.report_figures import Figure, cell, whole
from scalepilot.report.words.tables import money, percent

_WORDS = {
    "cheaper": "Cheaper than the best baseline",
    "dearer": "More expensive than the best baseline",
    "undecided": "Not distinguishable from the best baseline",
    "alone": "Nothing to compare with",
}
# Further baselines are in the tables of the workloads.
_MOST_BASELINES = 2


def suite_view(suite: SuiteComparison) -> dict[str, Any]:
    """What the template shows."""
    policy, baseline = suite.best("policy"), suite.best("baseline")
    judged = _outcome(suite, policy, baseline)
    against = [b.name for b in _baselines(suite)]
    standings = [standing for role in ROLES for standing in suite.of_role(role)]
    bars = [standing.relative_cost_iqm for standing in standings]
    return {
        "verdict": _verdict(suite, policy, baseline, judged),
        "outcome": judged,
        "outcome_words": _WORDS[judged],
        "scope": _scope(suite),
        "figures": _figures(suite, policy, baseline, judged),
        "columns": [
            "Relative cost",
            "Late requests",
            "Replicas",
            *(f"Cheaper than {name}, probability" for name in against),
            *(f"Gap closed from {name}" for name in against if any(s.gap_closed for s in standings)),
        ],
        "rows": [
            {
                "name": s.name,
                "role": s.role,
                "detail": s.detail,
                "best": s is policy,
                "bar": interval_bar(s.relative_cost_iqm, [*bars, Interval(1.0, 1.0, 1.0)], zero=1.0),
                "cells": _cells(s, against, any(other.gap_closed for other in standings)),
            }
            for s in standings
        ],
        "note": (
            f"Relative cost: J as a multiple of the mean J of {suite.yardstick} on the same workload, so that every workload"
            " weighs the same; the interquartile mean (of the middle half) of all runs. The probability is that of one run being"
            " cheaper than one of the baseline's in the same window. Below: 95 % intervals, days and training seeds resampled."
        ),
        "workloads": list(suite.workloads),
        "matrix": _matrix(suite, standings, policy),
        "yardstick": suite.yardstick,
        "failed": list(suite.failed.items()),
    }


def _baselines(suite: SuiteComparison) -> Sequence[Standing]:
    """The best one, and the default (the one given first) where that is another."""
    ranked = suite.of_role("baseline")
    given = [s for s in suite.standings if s.role == "baseline"]
    return list({s.name: s for s in (*ranked[:1], *given[:1])}.values())[:_MOST_BASELINES]


def _outcome(suite: SuiteComparison, policy: Standing | None, baseline: Standing | None) -> str:
    """By the probability that a run of the policy is cheaper than one of the best baseline: one half is no difference."""
    if policy is None or baseline is None:
        return "alone"
    chance = policy.improvement[baseline.name]
    if not chance.is_known or chance.low <= 0.5 <= chance.high:
        return "undecided"
    return "cheaper" if chance.low > 0.5 else "dearer"


def _verdict(suite: SuiteComparison, policy: Standing | None, baseline: Standing | None, judged: str) -> str:
    """One sentence."""
    number = len(suite.workloads)
    where = f"over {number} workload{'' if number == 1 else 's'}"
    if policy is None or baseline is None:
        alone = policy or baseline or suite.standings[0]
        return f"{alone.name} has the lowest cost {where}; there is nothing to compare it with."
    ours, theirs = policy.relative_cost_iqm, baseline.relative_cost_iqm
    difference = 100 * (ours.mean / theirs.mean - 1)
    amount = f"{abs(difference):.1f} % {'less' if difference < 0 else 'more'}"
    won = sum(
        c.rows[policy.name]["J"].mean < min(c.rows[b.name]["J"].mean for b in c.of_role("baseline")) for c in suite.comparisons
    )
    chance = policy.improvement[baseline.name]
    spread = f" (95 % interval {whole(100 * chance.low)} … {whole(100 * chance.high)} %)" if chance.is_known else ""
    claim = f"costs {amount} than {baseline.name}, the best baseline, {where}"
    if judged == "undecided":
        claim = f"is not distinguishable from {baseline.name}, the best baseline, {where} (it costs {amount})"
    return (
        f"{policy.name} {claim}; a run of it is cheaper with probability {whole(100 * chance.mean)} %{spread},"
        f" and its mean is below every baseline's on {won} of {number}."
    )


def _figures(suite: SuiteComparison, policy: Standing | None, baseline: Standing | None, judged: str) -> list[Figure]:
    if policy is None or baseline is None:
        return []
    ours, theirs = policy.relative_cost_iqm, baseline.relative_cost_iqm
    spread = f"95 %: {ours.low:.2f} … {ours.high:.2f}. " if ours.is_known else ""
    detail = f"{spread}{theirs.mean:.2f} for {baseline.name}."
    figures = [Figure(f"Cost relative to {suite.yardstick}", f"{ours.mean:.2f}", detail, judged)]
    late, rival = policy.figures["late_share"], baseline.figures["late_share"]
    figures.append(
        Figure("Late requests in a million", whole(1e6 * late.mean), f"{whole(1e6 * rival.mean)} with {baseline.name}.")
    )
    gap = policy.gap_closed.get(baseline.name)
    if gap is not None and gap.pairs:
        share = gap.share
        spread = f"95 %: {whole(100 * share.low)} … {whole(100 * share.high)} %. " if share.is_known else ""
        reference = suite.comparisons[0].gap_reference
        towards = "the clairvoyant optimum" if reference is None or reference.is_bound else reference.name
        detail = f"{spread}The way from {baseline.name} to {towards}, which knows the future."
        figures.append(Figure("Of the possible saving", f"{whole(100 * share.mean)} %", detail))
    return figures


def _scope(suite: SuiteComparison) -> str:
    windows = sum(c.scope.windows for c in suite.comparisons)
    seeds = {len(c.members) for c in suite.comparisons[0].contestants if c.members}
    trained = f", policies with up to {max(seeds)} training seeds" if seeds else ""
    return (
        f"{len(suite.workloads)} workloads, {windows} test windows × {suite.comparisons[0].scope.seeds} arrival seeds{trained}."
    )


def _cells(standing: Standing, against: Sequence[str], with_gap: bool) -> list[dict[str, Any]]:
    unknown = Interval(math.nan, math.nan, math.nan)

    def ratio(value: float) -> str:
        return f"{value:.3f}"

    def hundredths(value: float) -> str:
        return whole(100 * value)

    cells = [
        cell("Relative cost", standing.relative_cost_iqm, ratio),
        cell("Late requests", standing.figures["late_share"], percent, " %"),
        cell("Replicas", standing.figures["replicas"], lambda x: f"{x:.2f}"),
    ]
    cells += [
        cell(f"Cheaper than {name}, probability", standing.improvement.get(name, unknown), hundredths, " %") for name in against
    ]
    if with_gap:
        for name in against:
            gap = standing.gap_closed.get(name)
            share = gap.share if gap is not None and gap.pairs else unknown
            cells.append(cell(f"Gap closed from {name}", share, hundredths, " %"))
    return cells


def _matrix(suite: SuiteComparison, standings: Sequence[Standing], best: Standing | None) -> list[dict[str, Any]]:
    """A row a contestant, a column a workload: J relative to the yardstick's."""
    lowest = [min(c.rows[s.name]["J"].mean for s in standings if s.role != "reference") for c in suite.comparisons]
    rows = []
    for standing in standings:
        cells = []
        for comparison, least in zip(suite.comparisons, lowest, strict=True):
            J, base = comparison.rows[standing.name]["J"].mean, comparison.rows[suite.yardstick]["J"].mean
            share = J / base if base else math.nan
            cells.append(
                {
                    "label": comparison.workload,
                    "mean": f"{share:.3f}" if math.isfinite(share) else "–",
                    "interval": money(J),
                    "sort": share if math.isfinite(share) else "",
                    "lowest": least == J and standing.role != "reference",
                }
            )
        rows.append({"name": standing.name, "role": standing.role, "detail": "", "best": standing is best, "cells": cells})
    return rows
