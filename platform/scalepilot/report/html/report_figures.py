"""The report's numbers as words: cells with intervals, the big figures below the verdict, captions."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalepilot.evaluate.comparison import Comparison, Contender
from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.report.words.figures import DASH, money, shown, signed

# 365 days in twelve months.
HOURS_PER_MONTH = 730


@dataclass(frozen=True)
class Figure:
    """One of the few big numbers that a hurried reader takes away.

    Attributes:
        label: what it is.
        value: large.
        detail: against what, how sure.
        outcome: better, worse or anything else: its colour.
    """

    label: str
    value: str
    detail: str
    outcome: str = ""


def visible(text: str) -> str:
    """With characters shown that would turn the direction of the text around them, or are not seen at all."""
    if text.isprintable():
        return text
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t"}
    return text.translate({ord(c): f"⟨U+{ord(c):04X}⟩" for c in hidden})


def cell(label: str, interval: Interval, show: Callable[[float], str], unit: str = "", *, spread: bool = True) -> dict[str, Any]:
    """What a table shows of an interval and what it sorts by.

    Args:
        label: of the column, repeated beside the value where the table is a stack of cards.
        interval: the value.
        show: a number as text.
        unit: behind it.
        spread: whether to show the interval.
    """
    known = math.isfinite(interval.mean)
    return {
        "label": label,
        "mean": show(interval.mean) + unit if known else DASH,
        "interval": f"{show(interval.low)} … {show(interval.high)}{unit}" if spread and interval.is_known else "",
        "sort": interval.mean if known else "",
    }


def whole(value: float) -> str:
    """Without decimals, with thousands and a real minus."""
    return f"{value:,.0f}".replace("-", "−")


def chance(value: float) -> str:
    """A probability; never 0 or 1, since resamples cannot show that."""
    if not math.isfinite(value):
        return DASH
    return "> 99 %" if value > 0.99 else "< 1 %" if value < 0.01 else f"{100 * value:.0f} %"


def relative_text(share: float) -> str:
    """A difference as a share of what it is compared with."""
    return f"{'−' if share < 0 else '+'}{100 * abs(share):.1f} %" if math.isfinite(share) else DASH


def with_minus(text: str) -> str:
    """With a real minus."""
    return text.replace("-", "−")


def big_figures(comparison: Comparison) -> list[Figure]:
    """What decides against the best baseline, what explains it, and how far it is to the optimum; empty without a policy."""
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    if policy is None:
        return []
    if comparison.objective.metric != "J":
        figures = _plain_figures(comparison, policy, baseline)
    elif baseline is None:
        return []
    else:
        figures = [_money_figure(comparison, policy, baseline), _late_figure(comparison, policy, baseline)]
    if baseline is None:
        return figures
    gap = comparison.gap_closed.get(policy.name, {}).get(baseline.name)
    if gap is not None and comparison.gap_reference is not None and gap.pairs:
        share, gain = gap.share, "saving" if comparison.objective.lower_is_better else "gain"
        spread = f"95 %: {whole(100 * share.low)} … {whole(100 * share.high)} %. " if share.is_known else ""
        towards = "the clairvoyant optimum" if comparison.gap_reference.is_bound else comparison.gap_reference.name
        told = f"{spread}The way from {baseline.name} to {towards}, which knows the future."
        if gap.left_out > gap.pairs:
            # A share of next to nothing is no figure to take away.
            few = f"In {gap.left_out} of {gap.pairs + gap.left_out} episodes {baseline.name} comes within 5 % of {towards}."
            figures.append(Figure(f"Of the possible {gain}", f"little to {'save' if gain == 'saving' else 'gain'}", few))
        else:
            figures.append(Figure(f"Of the possible {gain}", f"{whole(100 * share.mean)} %", told))
    return figures


def _plain_figures(comparison: Comparison, policy: Contender, baseline: Contender | None) -> list[Figure]:
    how, ours = shown(comparison.objective), comparison.figure(policy.name)
    figures = [Figure(how.label, with_minus(how.show(ours.mean)), _spread(ours, how.show))]
    if baseline is not None:
        difference = comparison.versus[policy.name][baseline.name].difference
        theirs = with_minus(how.show(comparison.figure(baseline.name).mean))
        detail = f"{_spread(difference, how.show)} {theirs} with {baseline.name}."
        judged = comparison.outcome(policy.name, baseline.name)
        figures.append(Figure("Against the best baseline", signed(difference.mean, how.show), detail.strip(), judged))
    length = comparison.rows[policy.name].get("length")
    if length is not None:
        figures.append(Figure("Steps of an episode", f"{length.mean:,.1f}", _spread(length, lambda x: f"{x:,.1f}")))
    return figures


def _spread(interval: Interval, show: Callable[[float], str]) -> str:
    # Episodes without chance have none to show.
    return f"95 %: {with_minus(show(interval.low))} … {with_minus(show(interval.high))}." if interval.low < interval.high else ""


def _money_figure(comparison: Comparison, policy: Contender, baseline: Contender) -> Figure:
    versus = comparison.versus[policy.name][baseline.name]
    difference, judged = versus.difference, comparison.outcome(policy.name, baseline.name)
    less = difference.mean < 0
    word = {"undecided": "could be chance", "unknown": "one window cannot tell"}.get(judged, "")
    value = f"{_month(abs(difference.mean))} {'less' if less else 'more'}"
    spread = f"95 %: {_signed_month(difference.low)} … {_signed_month(difference.high)}. " if difference.is_known else ""
    ours, theirs = comparison.rows[policy.name]["J"].mean, comparison.rows[baseline.name]["J"].mean
    detail = f"{spread}{_month(ours)} a month instead of {_month(theirs)} with {baseline.name}."
    return Figure(f"A month{f' ({word})' if word else ''}", value, detail, judged)


def _late_figure(comparison: Comparison, policy: Contender, baseline: Contender) -> Figure:
    ours, theirs = (comparison.rows[c.name]["late_share"] for c in (policy, baseline))
    spread = f"95 %: {whole(1e6 * ours.low)} … {whole(1e6 * ours.high)}. " if ours.is_known else ""
    return Figure(
        "Late requests in a million",
        whole(1e6 * ours.mean),
        f"{spread}{whole(1e6 * theirs.mean)} with {baseline.name}.",
    )


def _month(per_hour: float) -> str:
    value = per_hour * HOURS_PER_MONTH
    return f"{value:,.0f}" if abs(value) >= 100 else money(value)


def _signed_month(per_hour: float) -> str:
    return f"{'−' if per_hour < 0 else '+'}{_month(abs(per_hour))}"


def learning_caption(curves: Sequence[Sequence[Mapping[str, float | None]]]) -> str:
    """How long training took; empty where nobody knows."""
    ends = [(rows[-1].get("env_steps"), rows[-1].get("time_seconds")) for rows in curves if rows]
    known = [(steps, seconds) for steps, seconds in ends if steps and seconds]
    if not known:
        return ""
    steps, seconds = max(s for s, _ in known), sum(t for _, t in known)
    minutes = f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
    each = f" each, {minutes} in all" if len(known) > 1 else f" in {minutes}"
    rate = sum(s for s, _ in known) / seconds
    return f"{steps:,.0f} environment steps{each}: {rate:,.0f} steps/s, validation included."
