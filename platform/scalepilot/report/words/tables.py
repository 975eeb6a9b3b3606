"""A comparison for the terminal: one table and one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from scalepilot.evaluate.causal import CAUSAL_OPTIMUM, above_causal
from scalepilot.evaluate.comparison import ROLES, Comparison, Contender, FrontPoint
from scalepilot.evaluate.statistics.intervals import GapClosed, Interval, PairedDifference
from scalepilot.evaluate.suite import Standing, SuiteComparison
from scalepilot.report.words.figures import Shown, amount, fixed, interval_text, percent, shown, shown_figures, signed


def plain_table(title: str, caption: str) -> Table:
    """A table without lines, its title and caption as they are: no name in them is taken for markup."""
    return Table(
        title=Text(title),
        caption=Text(caption),
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        pad_edge=False,
        box=None,
        header_style="bold",
    )


def comparison_table(comparison: Comparison) -> Table:
    """One row a contender, best first within its role; fits 80 columns, so a pipe does not break it.

    The best policy is marked with `*`.
    """
    best = comparison.best("policy")
    said = "\n".join([describe_intervals(comparison), *comparison_notes(comparison)])
    table = plain_table(f"{comparison.workload}: {describe_scope(comparison)}", said)
    decides = comparison.objective.metric
    columns = {name: how for name, how in figures_of(comparison).items() if how.heading}
    table.add_column("", overflow="fold")
    for name, how in columns.items():
        for heading in (how.heading, "95 % interval") if name == decides else (how.heading,):
            table.add_column(heading, justify="right", no_wrap=True)
    for role in ROLES:
        for c in comparison.of_role(role):
            row, cells = comparison.rows[c.name], list[str]()
            is_best = best is not None and c.name == best.name
            for name, how in columns.items():
                cells.append(how.show(row[name].mean) if name in row else "-")
                if name == decides:
                    cells.append(interval_text(row[name], how.show))
            style = "bold" if is_best else "dim" if role == "reference" else None
            table.add_row(Text(f"{'*' if is_best else ' '} {c.name}"), *cells, style=style)
    return table


def figures_of(comparison: Comparison) -> dict[str, Shown]:
    """Metric → how it is shown, of those that the first contender has."""
    return shown_figures(comparison.objective, frozenset(comparison.rows[comparison.contenders[0].name]))


def comparison_notes(comparison: Comparison) -> list[str]:
    """How far above the best causal policy the others are, where it is known; what was odd about the environment in the test."""
    above = [_above_text(name, share) for name, share in above_causal(comparison).items()]
    known = [f"Cost above {CAUSAL_OPTIMUM}: {', '.join(above)}."] if above else []
    known += [_front_text(name, points, comparison) for name, points in comparison.fronts.items()]
    return known + [f"{c.name}: {line}" for c in comparison.contenders for line in c.notes]


def _front_text(name: str, points: Sequence[FrontPoint], comparison: Comparison) -> str:
    """How far a policy can be turned, between the lowest price shown and the highest."""
    low, high = points[0], points[-1]
    show = shown(comparison.objective).show
    least = min(points, key=lambda point: point.J)
    return (
        f"{name} shown the price of a late request ×{low.factor:g} … ×{high.factor:g}: replica cost {show(low.cost)} … "
        f"{show(high.cost)} per hour, late {percent(low.late_share)} … {percent(high.late_share)} %, J least at"
        f" ×{least.factor:g} ({show(least.J)})."
    )


def _above_text(name: str, share: Interval) -> str:
    mean, low, high = (f"{100 * x:.1f}" for x in (share.mean, share.low, share.high))
    return f"{name} {mean} % ({low} to {high})" if share.is_known else f"{name} {mean} %"


def verdict(comparison: Comparison) -> str:
    """One sentence: how good the best policy is, against the best baseline, and whether chance could explain it."""
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    objective = comparison.objective
    if policy is None or baseline is None:
        alone = policy or baseline or comparison.contenders[0]
        others = sum(c.role == alone.role for c in comparison.contenders) - 1
        least = "least" if objective.lower_is_better else "best"
        place = f", the {least} of {others + 1}," if others else ""
        missing = "there is no policy to compare" if policy is None else "there is no baseline to compare it with"
        has = amount(objective, comparison.figure(alone.name).mean)
        return f"{alone.name} {has}{place}{_late(comparison, alone)}; {missing}."
    baselines = sum(c.role == "baseline" for c in comparison.contenders)
    rival = f"{baseline.name}, the best of {baselines} baselines" if baselines > 1 else baseline.name
    has, claim = amount(objective, comparison.figure(policy.name).mean), _claim(comparison, policy, baseline, rival)
    return f"{policy.name} {has}, {claim}{_late(comparison, policy, baseline)}."


def _late(comparison: Comparison, ours: Contender, theirs: Contender | None = None) -> str:
    """Late requests, where there are any requests."""
    shares = [comparison.rows[c.name].get("late_share") for c in (ours, theirs) if c is not None]
    known = [percent(share.mean) for share in shares if share is not None]
    if not known:
        return ""
    return f" with {known[0]} % late requests" if theirs is None else f", with {known[0]} % late requests against {known[1]} %"


def suite_table(suite: SuiteComparison) -> Table:
    """One row a contender over all workloads, best first within its role; fits 80 columns."""
    best, rival, is_cost = suite.best("policy"), _rival(suite), suite.objective.lower_is_better
    table = plain_table(f"{len(suite.workloads)} workloads: {', '.join(suite.workloads)}", describe_suite(suite))
    decides, better = shown(suite.objective), f"{'cheaper' if is_cost else 'better'} than {rival}"
    table.add_column("", overflow="fold")
    relative = ("cost", "95 % interval", "mean") if is_cost else ()
    for heading in (*relative, decides.heading, *(("late %",) if is_cost else ()), better, "G"):
        table.add_column(heading, justify="right", no_wrap=heading != better)
    for role in ROLES:
        for s in suite.of_role(role):
            cells = [decides.show(s.figures[suite.objective.metric].mean)]
            if is_cost:
                cost = s.relative_cost_iqm
                cells = [fixed(cost.mean, 3), _range(cost, 3), fixed(s.relative_cost_mean.mean, 3), *cells]
                cells.append(percent(s.figures["late_share"].mean) if "late_share" in s.figures else "")
            cells += [_chance(s, rival), gap_text(s.gap_closed.get(rival))]
            is_best = best is not None and s.name == best.name
            style = "bold" if is_best else "dim" if role == "reference" else None
            table.add_row(Text(f"{'*' if is_best else ' '} {s.name}"), *cells, style=style)
    return table


def describe_suite(suite: SuiteComparison) -> str:
    """How to read the table."""
    few = any(c.scope.num_blocks < 10 for c in suite.comparisons)
    seeds = max((len(c.members) for c in suite.comparisons[0].contenders), default=0)
    blocks = {c.scope.block for c in suite.comparisons}
    inner = "episodes" if blocks == {"episode"} else "days" if blocks == {"day"} else "days (windows where there is one day)"
    nested = f"up to {seeds} training seeds and {inner}" if seeds else inner
    wide = " (few: widened for it)" if few or seeds else ""
    gap = f"G: gap closed from {_rival(suite)}, 1 is clairvoyant."
    if not suite.objective.lower_is_better:
        return f"{suite.objective.short_label}: mean over the workloads. {gap}"
    return (
        f"cost: interquartile mean of J over runs and workloads, {suite.yardstick} = 1; mean: their mean. 95 % intervals:"
        f" bootstrap over {nested}{wide}. {gap}"
    )


def suite_verdict(suite: SuiteComparison) -> str:
    """One sentence: how good the best policy is over all workloads, on how many it is better, and whether chance explains it."""
    policy, rival = suite.best("policy"), suite.best("baseline")
    if policy is None or rival is None:
        alone = policy or rival or suite.standings[0]
        return f"{alone.name} is the only one of its kind; there is nothing to compare it with."
    is_cost = suite.objective.lower_is_better
    outcomes = [c.outcome(policy.name, rival.name) for c in suite.comparisons]
    good, bad = ("cheaper", "more expensive") if is_cost else ("better", "worse")
    counts = (
        f"clearly {good} on {outcomes.count('better')} of {len(outcomes)} workloads, clearly {bad} on {outcomes.count('worse')}"
    )
    if not is_cost:
        # Of a return, which may be near zero, no share of it says anything.
        chance = policy.improvement[rival.name]
        span = f" (95 % interval {100 * chance.low:.0f} to {100 * chance.high:.0f} %)" if chance.is_known else ""
        told = f"an episode of {policy.name} is better than one of {rival.name}, the best baseline, with probability"
        return f"{told[0].upper()}{told[1:]} {100 * chance.mean:.0f} %{span}; {counts}."
    cost = policy.relative_cost_iqm
    share = f"{100 * abs(1 - cost.mean):.1f} % {'less' if cost.mean < 1 else 'more'} than {rival.name}"
    if not cost.is_known:
        return f"{policy.name} costs {share}, but a single test window cannot tell that from chance; {counts}."
    interval = f"95 % interval {cost.low:.3f} to {cost.high:.3f} of its cost"
    if suite.yardstick == rival.name and cost.low <= 1 <= cost.high:
        return f"{policy.name} is not distinguishable from {rival.name} over all workloads ({interval}); {counts}."
    return f"{policy.name} costs {share}, the best baseline over all workloads ({interval}); {counts}."


def _rival(suite: SuiteComparison) -> str:
    best = suite.best("baseline")
    return best.name if best else suite.yardstick


def _chance(standing: Standing, rival: str) -> str:
    chance = standing.improvement.get(rival)
    return f"{100 * chance.mean:.0f} %" if chance else ""


def gap_text(closed: GapClosed | None) -> str:
    """A share with two decimals; empty where it does not apply."""
    return f"{closed.share.mean:.2f}" if closed and math.isfinite(closed.share.mean) else ""


def _range(interval: Interval, digits: int) -> str:
    return f"{interval.low:.{digits}f} - {interval.high:.{digits}f}" if interval.is_known else "-"


def _claim(comparison: Comparison, policy: Contender, baseline: Contender, rival: str) -> str:
    versus, show = comparison.versus[policy.name][baseline.name], shown(comparison.objective).show
    result, theirs = comparison.outcome(policy.name, baseline.name), show(comparison.figure(baseline.name).mean)
    share = _relative(comparison, versus)
    if result == "unknown":
        single = "test window" if comparison.scope.block != "episode" else "test episode"
        return f"{share} than {rival} ({theirs}), but a single {single} cannot tell that from chance"
    within = " between the windows of a single day" if comparison.scope.block == "window" else ""
    low, high = versus.difference.low, versus.difference.high
    interval = f"95 % interval of the difference{within} {signed(low, show)} … {signed(high, show)}"
    if result == "undecided":
        return f"not distinguishable from {rival} ({theirs}; {interval})"
    return f"{share} than {rival} ({theirs}; {interval})"


def _relative(comparison: Comparison, versus: PairedDifference) -> str:
    """How much less or more, in percent; of figures that may be negative, whose shares mislead, the amount."""
    word = "less" if versus.difference.mean < 0 else "more"
    if not math.isfinite(versus.relative) or not comparison.objective.lower_is_better:
        return f"{shown(comparison.objective).show(abs(versus.difference.mean))} {word}"
    return f"{100 * abs(versus.relative):.1f} % {word}"


def describe_scope(comparison: Comparison) -> str:
    """Size of the test, such as "6 test windows of 8 h × 3 seeds"."""
    t = comparison.scope
    if t.block == "episode":
        return _count(t.windows, "test episode")
    length = f" of {t.window_hours:g} h" if t.window_hours else f" of {t.window_steps} steps"
    return f"{_count(t.windows, 'test window')}{length} × {_count(t.seeds, 'seed')}"


def describe_intervals(comparison: Comparison) -> str:
    """What the intervals are made of, and what they lack."""
    t = comparison.scope
    if t.num_blocks < 2:
        return f"No intervals: there is only one test {'episode' if t.block == 'episode' else 'window'}."
    if t.block == "episode":
        return "95 % intervals: bootstrap over episodes."
    if t.block == "window":
        return f"95 % intervals: bootstrap over {t.num_blocks} windows of ONE day; chance between days is not in them."
    few = " (few: the intervals are widened for it, and none is given where they are too few)" if t.num_blocks < 10 else ""
    return f"95 % intervals: block bootstrap over {t.num_blocks} days{few}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
