"""The report of a recorded time as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.operate.day_report import DayReport
from scalepilot.operate.day_verdict import judge
from scalepilot.operate.recorded import FieldHealth
from scalepilot.operate.snapshot import utc

MOST_DISAGREEMENTS = 10


def to_json(report: DayReport) -> dict[str, Any]:
    """The figures as plain data; what is unknown is null."""
    recorded, verdict = report.recorded, judge(report)
    agreement = report.agreement
    return {
        "policy": report.policy,
        "recorded_policies": dict(recorded.policies),
        "dry_run": recorded.dry_run,
        "interval_seconds": recorded.interval_seconds,
        "begin": utc(recorded.begin),
        "end": utc(recorded.end),
        "decisions": len(recorded),
        "hours": round(report.hours, 4),
        "requests": round(report.requests, 1),
        "answer": verdict.answer,
        "sentence": verdict.sentence,
        "reasons": [vars(reason) for reason in verdict.reasons],
        "aside": verdict.aside,
        "contenders": [_plain({**vars(f), "month": f.month}) for f in report.figures],
        "agreement": _plain({**vars(agreement), "share": agreement.share}),
        "fields": {name: _plain(_health(health)) for name, health in recorded.fields.items()},
        "modes": dict(recorded.modes),
        "limited": dict(recorded.limited),
        "faults": recorded.faults,
        "gaps": [{"from": utc(a), "to": utc(b)} for a, b in recorded.gaps(1)],
        "left_out": recorded.left_out,
        "disagreements": [vars(d) for d in recorded.disagreements[:MOST_DISAGREEMENTS]],
    }


def _health(health: FieldHealth) -> dict[str, Any]:
    return {
        "required": health.required,
        "known_share": health.known_share,
        "assumed": health.assumed,
        "age_p50_seconds": health.age_seconds(50),
        "age_p99_seconds": health.age_seconds(99),
        "sources": dict(health.sources),
        "problems": dict(health.problems),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, Interval):
            return {"mean": one(value.mean), "low": one(value.low), "high": one(value.high)}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: one(value) for name, value in values.items()}
