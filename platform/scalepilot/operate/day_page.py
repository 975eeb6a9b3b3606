"""The report of a recorded time for people: one self-contained page."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.operate.day_json import MOST_DISAGREEMENTS
from scalepilot.operate.day_report import HOURS_A_MONTH, DayReport, Figures
from scalepilot.operate.day_verdict import differences, judge, late_text, off_by
from scalepilot.operate.recorded import FieldHealth, Spell
from scalepilot.operate.snapshot import utc
from scalepilot.operate.tick import Mode
from scalepilot.report.charts.day_chart import NARROW, WIDE, DayLines, day_chart
from scalepilot.report.charts.svg import COLOURS
from scalepilot.report.html.page import image_address, render
from scalepilot.report.words.figures import DASH, money, percent

_MOST_SPELLS, _MOST_GAPS = 12, 10
_BLUE, _VERMILION, _GREEN, _PINK, _AMBER, _SKY, _GREY, _OCHRE = COLOURS
_MODES: Mapping[Mode, tuple[str, str]] = {
    "starting": (_SKY, "a required field was unknown before the first decision: the replicas stayed"),
    "active": (_GREEN, "the policy decided"),
    "degraded": (_AMBER, "the policy decided without a field it can do without; nothing was removed"),
    "holding": (_VERMILION, "a required field was unknown: the replicas stayed"),
    "fallback": (_PINK, "that lasted: the fallback rule may have raised them"),
    "safe": (_OCHRE, "it lasted longer: at least limits.safe_replicas"),
    "paused": (_GREY, "people paused it"),
    "contested": (_BLUE, "others scaled it, too, or had changed the replicas"),
    "standby": (_GREY, "another process led"),
}
_LIMITS: Mapping[str, str] = {
    "bounds": "below min_replicas or above max_replicas",
    "step up": "more at once than up_factor and up_replicas allow",
    "step down": "more removed at once than down_share and down_replicas allow",
    "flap budget": "direction changed too often: a move down waited",
    "undo": "late or failed requests grew after a move down: it was undone",
    "lock": "no move down for a while after one was undone",
    "rollout": "no move down while another version was rolled out",
    "telemetry": "no move down while a field was unknown",
    "paused": "people had forbidden this direction",
}


def render_page(report: DayReport, command: str, records: str) -> str:
    """The HTML file as text.

    Args:
        report: what it shows.
        command: that writes it again.
        records: where the decisions are, for `operate explain`.
    """
    recorded, verdict = report.recorded, judge(report)
    ask = "Deploy it?" if recorded.dry_run else "Keep it?"
    chart = _lines(report)
    spells = [s for s in recorded.spells if s.mode != "active"]
    longest = sorted(spells, key=lambda s: s.begin - s.end)[:_MOST_SPELLS]
    values = {
        "title": f"{report.policy} beside what really ran" if recorded.dry_run else f"{report.policy} in operation",
        "eyebrow": f"Scalepilot operate · {_span(recorded.begin, recorded.end)} · {'dry run' if recorded.dry_run else 'live'}",
        "question": f"{ask} {verdict.answer.capitalize()}",
        "outcome": {"yes": "better", "no": "worse", "not yet": "unsure"}[verdict.answer],
        "sentence": verdict.sentence,
        "reasons": verdict.reasons,
        "aside": verdict.aside,
        "figures": _big_figures(report),
        "wide_chart": image_address(day_chart(chart, WIDE)),
        "narrow_chart": image_address(day_chart(chart, NARROW)),
        "chart_note": _chart_note(report),
        "contender_headings": _CONTENDERS,
        "contenders": [_contender(f) for f in report.figures],
        "contenders_note": _contenders_note(report),
        **_agreement(report),
        "mode_headings": ("Mode", "Decisions", "Share", "Meaning"),
        "modes": _modes(report),
        "limit_headings": ("Limit", "Decisions", "What it held back"),
        "limited": [_row(rule, f"{n:,}", _LIMITS.get(rule, "")) for rule, n in recorded.limited.most_common()],
        "spell_headings": ("From", "Lasted", "Why"),
        "spells": [_spell(s, recorded.interval_seconds) for s in sorted(longest, key=lambda s: s.begin)],
        "spells_left_out": _left_out(len(spells), _MOST_SPELLS, "shorter ones"),
        "disagreement_headings": ("When", "Ran → wanted", "Why", "More"),
        "disagreements": _disagreements(report, records),
        "disagreements_title": "Where it differs most" if recorded.dry_run else "Its largest moves",
        "disagreements_note": "The largest of each hour. Wanted is what was recorded at that moment, from the replicas that ran.",
        "field_headings": ("Field", "Known", "Age, median · 99 %", "Source", "What was wrong"),
        "fields": _fields(recorded.fields),
        "fields_note": "Known: measured, and no older than the limits allow. Fields that behave alike stand in one row.",
        "counted": _counted(report),
        "command": command,
        "facts": _facts(report),
    }
    return render("operate.html.j2", ("report.css", "operate.css"), values)


_CONTENDERS = ("", "Cost an hour", "Cost a month", "Difference a month", "Replicas", "Most", "Late requests", "Moves an hour")


def _row(name: str, *values: str, detail: str = "", intervals: Sequence[str] = (), code: int | None = None) -> dict[str, Any]:
    """A row of a table: its cells, what stands small in each, and which one is a command."""
    told = [*intervals, *[""] * (len(values) - len(intervals))]
    cells = [{"value": v, "interval": told[i], "code": i + 1 == code} for i, v in enumerate(values)]
    return {"name": name, "detail": detail, "cells": cells}


def _contender(f: Figures) -> dict[str, Any]:
    late = late_text(f.late_share.mean) if math.isfinite(f.late_share.mean) else DASH
    month = Interval(*(HOURS_A_MONTH * x for x in (f.versus.mean, f.versus.low, f.versus.high)))
    return _row(
        f.name,
        money(f.J_per_hour.mean),
        f"{f.month:,.0f}",
        _signed(month.mean) if math.isfinite(month.mean) else DASH,
        f"{f.replicas_mean:,.1f}",
        f"{f.replicas_peak:,.0f}",
        late,
        f"{f.moved_per_hour:,.1f}",
        detail=f.detail,
        intervals=(
            _between(f.J_per_hour, money),
            "",
            _between(month, _signed),
            "",
            "",
            f"{f.late_requests:,.0f} in all",
        ),
    )


def _between(interval: Interval, show: Any) -> str:
    return f"{show(interval.low)} to {show(interval.high)}" if interval.is_known else ""


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+' if round(value) else ''}{abs(value):,.0f}"


def _contenders_note(report: DayReport) -> str:
    p = report.service
    text = (
        f"All of them met the {report.requests:,.0f} recorded requests in the simulator: {p.price_per_replica_hour:g} a replica"
        f" and hour, {p.price_per_late_request:g} a late request"
        f"{f', {p.price_per_move:g} a replica ordered or removed' if p.price_per_move else ''}; late is what waits longer than"
        f" {p.wait_slo_seconds:g} s. A month has {HOURS_A_MONTH:.0f} hours."
    )
    if not report.of("ran").J_per_hour.is_known:
        return f"{text} Too few hours were recorded for intervals."
    return (
        f"{text} Below each figure its 95 % interval: bootstrap over whole hours of this record. It knows the chance between"
        " these hours, not between weeks."
    )


def _big_figures(report: DayReport) -> list[dict[str, str]]:
    dry, rival = report.recorded.dry_run, report.rival
    ours = report.of("policy" if dry else "ran")
    cost, _ = differences(report)
    month = HOURS_A_MONTH * cost.mean
    outcome = "better" if cost.high < 0 else "worse" if cost.low > 0 else ""
    other = "what ran" if rival.role == "ran" else "HPA, defaults"
    span = _between(Interval(month, HOURS_A_MONTH * cost.low, HOURS_A_MONTH * cost.high), _signed)
    return [
        {
            "label": "Difference a month",
            "value": _signed(month),
            "detail": f"95 %: {span}" if span else "too few hours for an interval",
            "outcome": outcome,
        },
        _against("Cost an hour", money(ours.J_per_hour.mean), money(rival.J_per_hour.mean), other),
        _against("Replicas, mean", f"{ours.replicas_mean:,.1f}", f"{rival.replicas_mean:,.1f}", other),
        _against("Late requests", late_text(ours.late_share.mean), late_text(rival.late_share.mean), other),
    ]


def _against(label: str, value: str, theirs: str, other: str) -> dict[str, str]:
    return {"label": label, "value": value, "detail": f"{other}: {theirs}", "outcome": ""}


def _lines(report: DayReport) -> DayLines:
    recorded, rows = report.recorded, report.pieces.rows
    arrived = report.pieces.episodes.arrived[report.pieces.counted]
    ours, measured = report.runs["policy"], recorded["late_share"][rows] * arrived
    ran, wanted = ("what ran", f"{report.policy}") if recorded.dry_run else (f"{report.policy} (ran)", "HPA, defaults")
    other = ours if recorded.dry_run else report.runs["hpa"]
    return DayLines(
        recorded["time"][rows],
        recorded.interval_seconds,
        arrived,
        {ran: recorded["spec"][rows], wanted: other.replicas},
        {ran: measured, wanted: other.late},
        [(s.mode, _MODES[s.mode][0], s.begin, s.end + recorded.interval_seconds) for s in recorded.spells],
    )


def _chart_note(report: DayReport) -> str:
    other = report.policy if report.recorded.dry_run else "The HPA"
    return (
        f"What ran is as recorded: replicas that were asked for, and late requests as measured. {other} is simulated on the same"
        " requests, from the replicas that ran when the record begins. Where a line is missing nothing was measured."
    )


def _agreement(report: DayReport) -> dict[str, Any]:
    a = report.agreement
    if math.isnan(a.share):
        sentence = "Late requests were never measured, so that nothing says whether it is."
    else:
        sentence = (
            f"Over {a.hours:,.1f} hours in which late requests were measured, what really ran cost {money(a.measured_J)} an"
            f" hour; simulated it costs {money(a.simulated_J)}: {off_by(a.share)} what was measured."
        )
    notes = []
    if a.startup_seconds != a.policy_startup_seconds:
        notes.append(
            f"A replica took {a.startup_seconds:.0f} s to start, so it was simulated; the policy was made for"
            f" {a.policy_startup_seconds:.0f} s."
        )
    cpu = a.capacity_by_cpu_rps
    if math.isfinite(cpu) and abs(cpu / a.capacity_rps - 1) > 0.1:
        notes.append(
            f"By its CPU a replica serves {cpu:.3g} requests a second, {a.capacity_rps:.3g} are configured: look at"
            " replica_capacity_rps."
        )
    rows = [
        _row("Cost an hour", money(a.measured_J), money(a.simulated_J)),
        _row("Late requests", f"{a.measured_late:,.0f}", f"{a.simulated_late:,.0f}"),
    ]
    if math.isfinite(a.ready_off):
        notes.append(f"Ready replicas differ by {a.ready_off:.2f} on average.")
    headings = ("What ran", "Measured", "Simulated")
    return {"agreement_sentence": sentence, "agreement_headings": headings, "agreement": rows, "agreement_notes": notes}


def _modes(report: DayReport) -> list[dict[str, Any]]:
    modes = report.recorded.modes
    total = sum(modes.values())
    return [_row(mode, f"{n:,}", f"{percent(n / total)} %", _MODES[mode][1]) for mode, n in modes.most_common()]


def _spell(spell: Spell, interval: float) -> dict[str, Any]:
    return _row(_moment(spell.begin), _lasted(spell.end - spell.begin + interval), f"{spell.mode}: {spell.reason}".rstrip(": "))


def _disagreements(report: DayReport, records: str) -> list[dict[str, Any]]:
    return [
        _row(
            _moment(d.time),
            f"{d.spec} → {d.target}",
            d.sentence,
            f"scalepilot operate explain {utc(d.time)} --records {records}",
            code=3,
        )
        for d in report.recorded.disagreements[:MOST_DISAGREEMENTS]
    ]


def _fields(fields: Mapping[str, FieldHealth]) -> list[dict[str, Any]]:
    """Those that behave alike in one row."""
    rows: dict[tuple[Any, ...], list[str]] = {}
    for name, h in fields.items():
        ages = tuple(_seconds(h.age_seconds(p)) for p in (50, 99))
        source = next((s for s, _ in h.sources.most_common(1)), DASH)
        more = f" and {len(h.sources) - 1} more" if len(h.sources) > 1 else ""
        wrong = "; ".join(f"{problem} ({n:,}×)" for problem, n in h.problems.most_common(2))
        if h.assumed:
            wrong = "; ".join(filter(None, (f"assumed {h.assumed:,}×", wrong)))
        age = DASH if ages[0] == DASH else f"{ages[0]} · {ages[1]}"
        known = "100 %" if h.known == h.asked else f"{min(99.99, 100 * h.known_share):.2f} %"
        rows.setdefault((h.required, known, age, source + more, wrong), []).append(name)
    return [
        _row(
            names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
            known,
            age,
            source,
            wrong or DASH,
            detail=("required" if required else "optional") + (f": {', '.join(names)}" if len(names) > 1 else ""),
        )
        for (required, known, age, source, wrong), names in rows.items()
    ]


def _counted(report: DayReport) -> list[str]:
    recorded = report.recorded
    counted = len(report.pieces.rows)
    lines = [
        f"{len(recorded):,} decisions every {recorded.interval_seconds:g} s; {counted:,} intervals with known requests and"
        f" replicas are counted ({report.hours:.1f} hours).",
    ]
    if len(recorded) - 1 > counted:
        lines.append(
            f"{len(recorded) - 1 - counted:,} recorded intervals are not counted: their requests or replicas are not known, or"
            " they are the first behind a gap."
        )
    gaps = recorded.gaps(1)
    for begin, end in sorted(gaps, key=lambda gap: gap[0] - gap[1])[:_MOST_GAPS]:
        lines.append(f"No decisions from {_moment(begin)} to {_moment(end)} ({_lasted(end - begin)}).")
    more = _left_out(len(gaps), _MOST_GAPS, "shorter gaps")
    return [*lines, *([more] if more else []), *(f"Left out: {line}." for line in recorded.left_out)]


def _facts(report: DayReport) -> list[tuple[str, str]]:
    p = report.service
    return [
        ("policy", report.policy),
        ("recorded policies", ", ".join(f"{name} ({n:,})" for name, n in report.recorded.policies.items())),
        ("capacity of a replica", f"{p.replica_capacity_rps:.4g} requests/s"),
        ("start-up", f"{p.startup_seconds:g} s"),
        ("interval", f"{p.interval_seconds:g} s"),
        ("orders take effect", f"{p.actuation_lag_steps * p.interval_seconds:g} s late" if p.actuation_lag_steps else "at once"),
        ("late after", f"{p.wait_slo_seconds:g} s of waiting"),
    ]


def _left_out(count: int, most: int, what: str) -> str:
    return f"And {count - most:,} {what}." if count > most else ""


def _span(begin: float, end: float) -> str:
    return f"{_moment(begin)} to {_moment(end)} UTC"


def _moment(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(unix_seconds)).removesuffix(":00")


def _lasted(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if math.isfinite(value) else DASH
