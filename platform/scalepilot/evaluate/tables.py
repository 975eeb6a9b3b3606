"""A comparison for the terminal: one table and one sentence."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from scalepilot.evaluate.comparison import ROLES, Comparison
from scalepilot.evaluate.statistics import Interval, PairedDifference


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
    few = " (few: the intervals are widened for it)" if t.num_blocks < 10 else ""
    return f"95 % intervals: block bootstrap over {t.num_blocks} days{few}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "-"


def money(value: float) -> str:
    """Two decimals; more where the sums are small."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


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
