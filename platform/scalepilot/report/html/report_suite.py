"""The report's part over all workloads: the verdict, the standings and a table workload by workload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scalepilot.evaluate.comparison import ROLES
from scalepilot.evaluate.statistics.intervals import UNKNOWN, Interval
from scalepilot.evaluate.suite import Standing, SuiteComparison
from scalepilot.report.html.chart_data import interval_bar
from scalepilot.report.html.report_figures import Figure, cell, whole, with_minus
from scalepilot.report.html.report_tables import outcome_words
from scalepilot.report.words.figures import percent, shown

# Further baselines are in the tables of the workloads.
_MOST_BASELINES = 2


def suite_view(suite: SuiteComparison) -> dict[str, Any]:
    """What the template shows."""
    policy, baseline = suite.best("policy"), suite.best("baseline")
    judged = _outcome(suite, policy, baseline)
    against = [b.name for b in _baselines(suite)]
    standings = [standing for role in ROLES for standing in suite.of_role(role)]
    bars = [_bar_of(suite, standing) for standing in standings]
    even = 1.0 if suite.objective.lower_is_better else 0.5
    is_cost, columns = suite.objective.lower_is_better, _columns(suite)
    better = "cheaper" if is_cost else "better"
    return {
        "verdict": _verdict(suite, policy, baseline, judged),
        "outcome": judged,
        "outcome_words": outcome_words(judged, lower_is_better=is_cost),
        "scope": _scope(suite),
        "figures": _figures(suite, policy, baseline, judged),
        "columns": [
            *([_RELATIVE] if is_cost else []),
            *(f"{better.capitalize()} than {name}, probability" for name in against if not is_cost),
            *columns,
            *(f"{better.capitalize()} than {name}, probability" for name in against if is_cost),
            *(f"Gap closed from {name}" for name in against if any(s.gap_closed for s in standings)),
        ],
        "rows": [
            {
                "name": s.name,
                "role": s.role,
                "detail": s.detail,
                "best": s is policy,
                "bar": interval_bar(_bar_of(suite, s), [*bars, Interval(even, even, even)], zero=even),
                "cells": _cells(suite, s, against, any(other.gap_closed for other in standings)),
            }
            for s in standings
        ],
        "note": _note(suite, better),
        "mark": "1" if is_cost else "50 %",
        "matrix_note": (
            f"J as a multiple of that of {suite.yardstick}, below it J per hour"
            if is_cost
            else suite.objective.label.capitalize()
        )
        + "; bold: the best that can be deployed.",
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
    return "better" if chance.low > 0.5 else "worse"


_RELATIVE = "Relative cost"


def _bar_of(suite: SuiteComparison, standing: Standing) -> Interval:
    """What the table draws: the relative cost, or how probably a run is better than one of the best baseline."""
    if suite.objective.lower_is_better:
        return standing.relative_cost_iqm
    best = suite.best("baseline")
    return UNKNOWN if best is None else standing.improvement.get(best.name, UNKNOWN)


def _note(suite: SuiteComparison, better: str) -> str:
    relative = (
        f"Relative cost: J as a multiple of the mean J of {suite.yardstick} on the same workload, so that every workload"
        " weighs the same; the interquartile mean (of the middle half) of all runs. "
        if suite.objective.lower_is_better
        else ""
    )
    return (
        f"{relative}The probability is that of one run being {better} than one of the baseline's in the same window, so every"
        " workload weighs the same. Below: 95 % intervals, days (or episodes) and training seeds resampled."
    )


def _columns(suite: SuiteComparison) -> dict[str, str]:
    """Heading → metric of the columns that explain what decides."""
    named = {"Late requests": "late_share", "Replicas": "replicas", "Return": "return", "Length": "length"}
    return {heading: metric for heading, metric in named.items() if metric in suite.standings[0].figures}


def _verdict(suite: SuiteComparison, policy: Standing | None, baseline: Standing | None, judged: str) -> str:
    """One sentence."""
    number = len(suite.workloads)
    where = f"over {number} workload{'' if number == 1 else 's'}"
    if policy is None or baseline is None:
        alone = policy or baseline or suite.standings[0]
        return f"{alone.name} is the best {where}; there is nothing to compare it with."
    sign, is_cost = suite.objective.sign, suite.objective.lower_is_better
    won = sum(
        sign * c.figure(policy.name).mean < min(sign * c.figure(b.name).mean for b in c.of_role("baseline"))
        for c in suite.comparisons
    )
    chance = policy.improvement[baseline.name]
    spread = f" (95 % interval {whole(100 * chance.low)} … {whole(100 * chance.high)} %)" if chance.is_known else ""
    rival = f"{baseline.name}, the best baseline, {where}"
    if is_cost:
        difference = 100 * (policy.relative_cost_iqm.mean / baseline.relative_cost_iqm.mean - 1)
        amount = f"costs {abs(difference):.1f} % {'less' if difference < 0 else 'more'}"
        claim = f"{amount} than {rival}"
        if judged == "undecided":
            claim = f"is not distinguishable from {rival} (it {amount})"
    else:
        words = {"undecided": "is not distinguishable from", "better": "is better than"}
        claim = f"{words.get(judged, 'is worse than')} {rival}"
    return (
        f"{policy.name} {claim}; a run of it is {'cheaper' if is_cost else 'better'} with probability"
        f" {whole(100 * chance.mean)} %{spread}, and its mean is better than every baseline's on {won} of {number}."
    )


def _figures(suite: SuiteComparison, policy: Standing | None, baseline: Standing | None, judged: str) -> list[Figure]:
    if policy is None or baseline is None:
        return []
    if suite.objective.lower_is_better:
        ours, theirs = policy.relative_cost_iqm, baseline.relative_cost_iqm
        spread = f"95 %: {ours.low:.2f} … {ours.high:.2f}. " if ours.is_known else ""
        detail = f"{spread}{theirs.mean:.2f} for {baseline.name}."
        figures = [Figure(f"Cost relative to {suite.yardstick}", f"{ours.mean:.2f}", detail, judged)]
    else:
        chance = policy.improvement[baseline.name]
        spread = f"95 %: {whole(100 * chance.low)} … {whole(100 * chance.high)} %." if chance.is_known else ""
        figures = [Figure(f"Better than {baseline.name}, probability", f"{whole(100 * chance.mean)} %", spread, judged)]
    late, rival = policy.figures.get("late_share"), baseline.figures.get("late_share")
    if late is not None and rival is not None:
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
        gain = "saving" if suite.objective.lower_is_better else "gain"
        figures.append(Figure(f"Of the possible {gain}", f"{whole(100 * share.mean)} %", detail))
    return figures


def _scope(suite: SuiteComparison) -> str:
    windows = sum(c.scope.windows for c in suite.comparisons)
    seeds = {len(c.members) for c in suite.comparisons[0].contenders if c.members}
    trained = f", policies with up to {max(seeds)} training seeds" if seeds else ""
    first = suite.comparisons[0].scope
    tested = f"{windows} test episodes" if first.block == "episode" else f"{windows} test windows × {first.seeds} arrival seeds"
    return f"{len(suite.workloads)} workloads, {tested}{trained}."


def _cells(suite: SuiteComparison, standing: Standing, against: Sequence[str], with_gap: bool) -> list[dict[str, Any]]:
    def ratio(value: float) -> str:
        return with_minus(f"{value:.3f}")

    def plain(value: float) -> str:
        return with_minus(f"{value:,.2f}")

    def hundredths(value: float) -> str:
        return whole(100 * value)

    is_cost = suite.objective.lower_is_better
    better = "Cheaper" if is_cost else "Better"
    chances = [
        cell(f"{better} than {name}, probability", standing.improvement.get(name, UNKNOWN), hundredths, " %") for name in against
    ]
    cells = [cell(_RELATIVE, standing.relative_cost_iqm, ratio)] if is_cost else chances
    for heading, metric in _columns(suite).items():
        late = metric == "late_share"
        cells.append(cell(heading, standing.figures.get(metric, UNKNOWN), percent if late else plain, " %" if late else ""))
    cells += chances if is_cost else []
    if with_gap:
        for name in against:
            gap = standing.gap_closed.get(name)
            share = gap.share if gap is not None and gap.pairs else UNKNOWN
            cells.append(cell(f"Gap closed from {name}", share, hundredths, " %"))
    return cells


def _matrix(suite: SuiteComparison, standings: Sequence[Standing], best: Standing | None) -> list[dict[str, Any]]:
    """A row a contender, a column a workload: what decides relative to the yardstick's."""
    sign, show = suite.objective.sign, shown(suite.objective).show
    best_of = [min(sign * c.figure(s.name).mean for s in standings if s.role != "reference") for c in suite.comparisons]
    rows = []
    for standing in standings:
        cells = []
        for comparison, least in zip(suite.comparisons, best_of, strict=True):
            mean, base = comparison.figure(standing.name).mean, comparison.figure(suite.yardstick).mean
            share = math.nan if not base else mean / base
            relative = f"{share:.3f}" if math.isfinite(share) else "–"
            cells.append(
                {
                    "label": comparison.workload,
                    "mean": relative if sign > 0 else with_minus(show(mean)),
                    "interval": show(mean) if sign > 0 else "",
                    "sort": mean if sign < 0 else share if math.isfinite(share) else "",
                    "lowest": least == sign * mean and standing.role != "reference",
                }
            )
        rows.append({"name": standing.name, "role": standing.role, "detail": "", "best": standing is best, "cells": cells})
    return rows
