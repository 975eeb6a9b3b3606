"""Deploy it? The answer and its reasons, in plain sentences, from the figures of a recorded time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.operate.day_report import HOURS_A_MONTH, THRESHOLDS, DayReport
from scalepilot.report.words.figures import money, percent

Answer = Literal["yes", "not yet", "no"]


@dataclass(frozen=True)
class Reason:
    """One thing that was asked.

    Attributes:
        ok: whether it holds.
        text: what was found, a sentence.
        forbids: whether it speaks against the policy, and not only for looking longer.
    """

    ok: bool
    text: str
    forbids: bool = False


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        answer: yes where everything holds; no where the policy does harm or costs more; else not yet.
        sentence: what it would cost, and what it saves.
        reasons: what was asked, in order of weight.
        aside: how an HPA would have done; "" where none was tried.
    """

    answer: Answer
    sentence: str
    reasons: tuple[Reason, ...]
    aside: str = ""


def judge(report: DayReport) -> Verdict:
    """The answer to "deploy it?"; where the policy ran already, to "keep it?"."""
    reasons = tuple(_reasons(report))
    if all(reason.ok for reason in reasons):
        answer: Answer = "yes"
    else:
        answer = "no" if any(reason.forbids and not reason.ok for reason in reasons) else "not yet"
    return Verdict(answer, _sentence(report), reasons, _aside(report))


def differences(report: DayReport) -> tuple[Interval, Interval]:
    """J per hour and late share of the policy less those of its rival."""
    if report.recorded.dry_run:
        ours = report.of("policy")
        return ours.versus, ours.late_versus
    # What ran is the policy itself: the rival's difference from it, turned round.
    rival = report.rival
    cost, late = (Interval(-d.mean, -d.high, -d.low) for d in (rival.versus, rival.late_versus))
    return cost, late


def _sentence(report: DayReport) -> str:
    dry, rival = report.recorded.dry_run, report.rival
    ours = report.of("policy" if dry else "ran")
    month = HOURS_A_MONTH * (ours.J_per_hour.mean - rival.J_per_hour.mean)
    saves = "as much" if round(abs(month)) == 0 else f"{abs(month):,.0f} a month {'less' if month < 0 else 'more'}"
    late = f"with {late_text(ours.late_share.mean)} of the requests late instead of {late_text(rival.late_share.mean)}"
    if math.isnan(ours.late_share.mean):
        late = "and there were no requests"
    cost, theirs = money(ours.J_per_hour.mean), money(rival.J_per_hour.mean)
    if dry:
        return f"{ours.name} would have cost {cost} an hour instead of {theirs}: {saves}, {late}."
    than = "as much as" if saves == "as much" else f"{saves} than"
    return f"{report.policy} costs {cost} an hour, {than} {rival_text(report)} ({theirs}), {late}."


def rival_text(report: DayReport) -> str:
    """What the policy is compared with, in a sentence."""
    return "what ran" if report.rival.role == "ran" else "an HPA with its defaults"


def _aside(report: DayReport) -> str:
    hpas = [f for f in report.figures if f.role == "hpa"]
    if not hpas:
        return ""
    best, ours = hpas[-1], report.of("policy")
    month = HOURS_A_MONTH * (best.J_per_hour.mean - ours.J_per_hour.mean)
    detail = best.detail.partition(":")[0]
    than = f"{abs(month):,.0f} a month {'less' if month < 0 else 'more'} than {ours.name}" if round(abs(month)) else "as much"
    return (
        f"For comparison: an HPA with the best settings for this very record ({detail}) would have cost"
        f" {money(best.J_per_hour.mean)} an hour, {than}, with {late_text(best.late_share.mean)} late."
    )


def late_text(share: float) -> str:
    """A share of requests with its sign: never 0 where there are some."""
    return "under 0.001 %" if 0 < share < 1e-5 else f"{percent(share)} %"


def _reasons(report: DayReport) -> Iterator[Reason]:
    recorded, t = report.recorded, THRESHOLDS
    cost, late = differences(report)
    rival = rival_text(report)
    hours = (recorded.end - recorded.begin) / 3600.0
    # A clock grid: the last decision of a day may be an interval before its end.
    enough = hours >= t.hours - 1.5 * recorded.interval_seconds / 3600.0
    yield _cost_reason(cost, rival, forbids=enough)
    yield _late_reason(late, rival)
    yield Reason(enough, f"The record is {hours:.1f} hours long; {t.hours:.0f} are asked for.")
    counted = min(1.0, report.hours / hours) if hours else 0.0
    known = f"Requests and replicas were known in {_percent(counted)} % of this time; {100 * t.counted_share:g} % is asked for."
    yield Reason(counted >= t.counted_share, known)
    yield _agreement_reason(report)
    required = [h for h in recorded.fields.values() if h.required]
    worst = min(required, key=lambda h: h.known_share, default=None)
    if worst is not None:
        share = worst.known_share
        ok = share >= t.required_field_share
        least = f"{100 * t.required_field_share:g} % is asked for"
        told = f"Every required field was known at {_percent(share)} % of the decisions; {least}."
        alike = sum(h.known == worst.known for h in required) - 1
        name = f"{worst.name} and {alike} more were" if alike else f"{worst.name} was"
        yield Reason(ok, told if ok else f"{name} known at only {_percent(share)} % of the decisions; {least}.")
    decisions = sum(recorded.modes.values())
    decided = (recorded.modes["active"] + recorded.modes["degraded"]) / decisions
    text = f"The policy decided {_percent(decided)} % of the time; {100 * t.decided_share:g} % is asked for."
    yield Reason(decided >= t.decided_share, text)
    faults = f"{recorded.faults:,} times the policy gave no sound answer." if recorded.faults else "The policy always answered."
    yield Reason(recorded.faults <= t.faults, faults, forbids=recorded.faults > 0.01 * decisions)
    if report.policy != recorded.policy or len(recorded.policies) > 1:
        listed = ", ".join(recorded.policies)
        yield Reason(
            set(recorded.policies) == {report.policy}, f"The records are those of {listed}; what is simulated is {report.policy}."
        )


def _cost_reason(cost: Interval, rival: str, *, forbids: bool) -> Reason:
    month = Interval(*(HOURS_A_MONTH * x for x in (cost.mean, cost.low, cost.high)))
    if not cost.is_known:
        return Reason(False, f"Too few hours were recorded to tell a difference to {rival} from chance.")
    span = f"95 % interval {_signed(month.low)} to {_signed(month.high)} a month"
    if cost.high < 0:
        return Reason(True, f"It costs less than {rival} ({span}).")
    if cost.low > 0:
        return Reason(False, f"It costs more than {rival} ({span}).", forbids=forbids)
    return Reason(False, f"Whether it costs less than {rival} cannot be told from chance ({span}).")


def _late_reason(late: Interval, rival: str) -> Reason:
    allowed = THRESHOLDS.late_share
    more = f"{abs(100 * late.mean):.2f} percentage points {'more' if late.mean > 0 else 'fewer'} late requests than {rival}"
    allows = f"{100 * allowed:.1f} more are allowed"
    if math.isnan(late.mean):
        return Reason(True, "There were no requests that could be late.")
    sure = late.is_known and late.low > allowed
    return Reason(late.mean <= allowed, f"It has {more}; {allows}.", forbids=sure)


def _agreement_reason(report: DayReport) -> Reason:
    found, t = report.agreement, THRESHOLDS
    if math.isnan(found.share):
        return Reason(False, "Late requests were not measured: nothing says whether the simulator is right.")
    off = f"{off_by(found.share)} what was measured"
    text = f"The simulator puts the cost of what really ran {off}; {100 * t.simulator_share:g} % is allowed."
    return Reason(abs(found.share) <= t.simulator_share, text)


def off_by(share: float) -> str:
    """A difference in words: "3.1 % above"."""
    return f"{100 * abs(share):.1f} % {'above' if share > 0 else 'below'}" if abs(share) >= 5e-4 else "within 0.1 % of"


def _percent(share: float) -> str:
    """Never 100 where something is missing."""
    return "100" if share == 1 else f"{min(100 * share, 99.99):.2f}"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):,.0f}"
