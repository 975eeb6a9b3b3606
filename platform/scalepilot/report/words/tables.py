"""A comparison for the terminal: one table and one sentence."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from scalepilot.evaluate.comparison import ROLES, Comparison
from scalepilot.evaluate.statistics.intervals import GapClosed, Interval, PairedDifference
from scalepilot.evaluate.suite import Standing, SuiteComparison

# Currency: costs below it are those of fractions of a request.
_NEXT_TO_NOTHING = 1e-4


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
    """One row a contestant, cheapest first within its role; fits 80 columns, so a pipe does not break it.

    The best policy is marked with `*`.
    """
    best = comparison.best("policy")
    table = plain_table(f"{comparison.workload}: {describe_scope(comparison)}", describe_intervals(comparison))
    table.add_column("", overflow="fold")
    for heading in ("J/h", "95 % interval", "replicas", "late %", "p95 ms", "moves"):
        table.add_column(heading, justify="right", no_wrap=True)
    for role in ROLES:
        for c in comparison.of_role(role):
            row = comparison.rows[c.name]
            is_best = best is not None and c.name == best.name
            table.add_row(
                Text(f"{'*' if is_best else ' '} {c.name}"),
                money(row["J"].mean),
                interval_text(row["J"]),
                _fixed(row["replicas"].mean, 2),
                percent(row["late_share"].mean),
                _fixed(1000 * row["latency_p95_seconds"].mean, 0),
                _fixed(row["actions"].mean, 0),
                style="bold" if is_best else "dim" if role == "reference" else None,
            )
    return table


def verdict(comparison: Comparison) -> str:
    """One sentence: what the best policy costs, against the best baseline, and whether chance could explain it."""
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    if policy is None or baseline is None:
        alone = policy or baseline or comparison.contestants[0]
        row = comparison.rows[alone.name]
        others = sum(c.role == alone.role for c in comparison.contestants) - 1
        place = f", the least of {others + 1}," if others else ""
        missing = "no policy was judged" if policy is None else "no baseline was there to compare it with"
        late = percent(row["late_share"].mean)
        return f"{alone.name} costs {money(row['J'].mean)} an hour{place} with {late} % late requests; {missing}."
    ours, theirs = comparison.rows[policy.name], comparison.rows[baseline.name]
    baselines = sum(c.role == "baseline" for c in comparison.contestants)
    rival = f"{baseline.name}, the best of {baselines} baselines" if baselines > 1 else baseline.name
    return (
        f"{policy.name} costs {money(ours['J'].mean)} an hour, "
        f"{_claim(comparison.versus[policy.name][baseline.name], rival, money(theirs['J'].mean), comparison)}, "
        f"with {percent(ours['late_share'].mean)} % late requests against {percent(theirs['late_share'].mean)} %."
    )


def suite_table(suite: SuiteComparison) -> Table:
    """One row a contestant over all workloads, lowest relative cost first within its role; fits 80 columns."""
    best = suite.best("policy")
    table = plain_table(f"{len(suite.workloads)} workloads: {', '.join(suite.workloads)}", describe_suite(suite))
    table.add_column("", overflow="fold")
    for heading in ("cost", "95 % interval", "mean", "J/h", "late %", f"cheaper than {_rival(suite)}", "G"):
        table.add_column(heading, justify="right", no_wrap=heading != f"cheaper than {_rival(suite)}")
    for role in ROLES:
        for s in suite.of_role(role):
            is_best = best is not None and s.name == best.name
            table.add_row(
                Text(f"{'*' if is_best else ' '} {s.name}"),
                _fixed(s.relative_cost_iqm.mean, 3),
                _range(s.relative_cost_iqm, 3),
                _fixed(s.relative_cost_mean.mean, 3),
                money(s.figures["J"].mean),
                percent(s.figures["late_share"].mean),
                _chance(s, _rival(suite)),
                gap_text(s.gap_closed.get(_rival(suite))),
                style="bold" if is_best else "dim" if role == "reference" else None,
            )
    return table


def describe_suite(suite: SuiteComparison) -> str:
    """How to read the table."""
    few = any(c.scope.num_blocks < 10 for c in suite.comparisons)
    seeds = max((len(c.members) for c in suite.comparisons[0].contestants), default=0)
    inner = "days" if all(c.scope.block == "day" for c in suite.comparisons) else "days (windows where there is one day)"
    nested = f"up to {seeds} training seeds and {inner}" if seeds else inner
    wide = " (few: widened for it)" if few or seeds else ""
    return (
        f"cost: interquartile mean of J over runs and workloads, {suite.yardstick} = 1; mean: their mean. 95 % intervals:"
        f" bootstrap over {nested}{wide}. G: gap closed from {_rival(suite)}, 1 is clairvoyant."
    )


def suite_verdict(suite: SuiteComparison) -> str:
    """One sentence: what the best policy costs over all workloads, on how many it is cheaper, and whether chance explains it."""
    policy, rival = suite.best("policy"), suite.best("baseline")
    if policy is None or rival is None:
        alone = policy or rival or suite.standings[0]
        return f"{alone.name} is the only one of its kind judged; there is nothing to compare it with."
    cost = policy.relative_cost_iqm
    share = f"{100 * abs(1 - cost.mean):.1f} % {'less' if cost.mean < 1 else 'more'} than {rival.name}"
    outcomes = [outcome(c.versus[policy.name][rival.name]) for c in suite.comparisons]
    cheaper, dearer = outcomes.count("cheaper"), outcomes.count("dearer")
    counts = f"clearly cheaper on {cheaper} of {len(outcomes)} workloads, clearly more expensive on {dearer}"
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


def outcome(versus: PairedDifference) -> str:
    """Who is cheaper: "cheaper", "dearer", "undecided" (the interval spans 0) or "unknown" (there is no interval)."""
    if not versus.difference.is_known:
        return "unknown"
    if versus.difference.high < 0:
        return "cheaper"
    return "dearer" if versus.difference.low > 0 else "undecided"


def _claim(versus: PairedDifference, rival: str, rival_J: str, comparison: Comparison) -> str:
    result = outcome(versus)
    share = _relative(versus)
    if result == "unknown":
        return f"{share} than {rival} ({rival_J}), but a single test window cannot tell that from chance"
    within = "" if comparison.scope.block == "day" else " between the windows of a single day"
    interval = f"95 % interval of the difference{within} {signed(versus.difference.low)} … {signed(versus.difference.high)}"
    if result == "undecided":
        return f"not distinguishable from {rival} ({rival_J}; {interval})"
    return f"{share} than {rival} ({rival_J}; {interval})"


def _relative(versus: PairedDifference) -> str:
    word = "less" if versus.difference.mean < 0 else "more"
    if not math.isfinite(versus.relative):
        return f"{money(abs(versus.difference.mean))} {word}"
    return f"{100 * abs(versus.relative):.1f} % {word}"


def describe_scope(comparison: Comparison) -> str:
    """Size of the test, such as "6 test windows of 8 h × 3 seeds"."""
    t = comparison.scope
    length = f" of {t.window_hours:g} h" if t.window_hours else f" of {t.window_steps} steps"
    return f"{_count(t.windows, 'test window')}{length} × {_count(t.seeds, 'seed')}"


def describe_intervals(comparison: Comparison) -> str:
    """What the intervals are made of, and what they lack."""
    t = comparison.scope
    if t.num_blocks < 2:
        return "No intervals: there is only one test window."
    if t.block == "window":
        return f"95 % intervals: bootstrap over {t.num_blocks} windows of ONE day; chance between days is not in them."
    few = " (few: the intervals are widened for it, and none is given where they are too few)" if t.num_blocks < 10 else ""
    return f"95 % intervals: block bootstrap over {t.num_blocks} days{few}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "-"


def money(value: float) -> str:
    """Two decimals; more where the sums are small, but none that nobody will ever pay."""
    if not math.isfinite(value):
        return "-"
    if abs(value) < _NEXT_TO_NOTHING:
        return "0.00"
    return f"{value:,.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def signed(value: float) -> str:
    """With + or a real minus."""
    return f"{'−' if value < 0 else '+'}{money(abs(value))}"


def percent(share: float) -> str:
    """A share as a percentage without the sign: three decimals below 0.1, two below 10."""
    value = 100 * share
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if 0 < value < 0.1 else f"{value:.2f}"


def interval_text(interval: Interval) -> str:
    """Plain ASCII, such as "15.21 - 17.30"."""
    return f"{money(interval.low)} - {money(interval.high)}" if interval.is_known else "-"
