"""One self-contained HTML file: verdict, table, curves, one window played back, provenance.

The page needs no network and runs one script, allowed by its hash in the page's own content security policy. Text goes
through jinja2's autoescape, the charts' data through JSON with `<`, `>` and `&` escaped, so a name can do no harm.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from scalepilot.evaluate.charts import chart_data, interval_bar
from scalepilot.evaluate.comparison import ROLES, Comparison
from scalepilot.evaluate.statistics import Interval
from scalepilot.evaluate.tables import describe_intervals, describe_scope, money, outcome, percent, signed, verdict

_TEMPLATES = Path(__file__).parent / "templates"
_OUTCOME_WORDS = {
    "cheaper": "Cheaper than the best baseline",
    "dearer": "Dearer than the best baseline",
    "undecided": "Not distinguishable from the best baseline",
    "unknown": "No interval",
    "alone": "Nothing to compare with",
}
_DASH = "–"


@dataclass(frozen=True)
class ReportData:
    """What a report shows.

    Attributes:
        title: of the page.
        comparison: verdict, tables, scatter and playback.
        learning_curve: one entry an iteration: env_steps, time_seconds, validation_J_per_hour, train_J_per_hour (None where
            not measured), steps_per_second; empty for a policy that was not trained here.
        config_yaml: the whole configuration; empty if there is none.
        provenance: git sha, versions, hardware, …; mappings may be nested.
        reproduce: commands.
        reference_lines: name → validation J per hour of rules, drawn across the learning curve.
    """

    title: str
    comparison: Comparison
    learning_curve: list[dict[str, Any]]
    config_yaml: str
    provenance: dict[str, Any]
    reproduce: list[str]
    reference_lines: dict[str, float] = field(default_factory=dict)


def write_report(data: ReportData, path: Path) -> None:
    """Write the report; an older one is replaced in one step.

    Args:
        data: what to show.
        path: of the HTML file; its folder is made if missing.
    """
    html = render_report(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        aside.write_text(html, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def render_report(data: ReportData) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    comparison = data.comparison
    charts = chart_data(comparison, data.learning_curve, data.reference_lines)
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    judged = outcome(comparison.versus[policy.name][baseline.name]) if policy and baseline else "alone"
    return environment.get_template("report.html.j2").render(
        title=data.title,
        csp=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 — our own file, not anyone's input
        script=Markup(script),  # noqa: S704
        charts=_embedded_json(charts),
        has_learning=bool(charts["learning"]),
        has_equal=bool((charts["scatter"] or {}).get("equal")),
        has_playback=bool(charts["playback"]),
        learning_caption=_learning_caption(data.learning_curve),
        playback_title=_playback_title(comparison),
        playback_of=_playback_of(comparison),
        verdict=verdict(comparison),
        outcome=judged,
        outcome_words=_OUTCOME_WORDS[judged],
        scope=describe_scope(comparison),
        intervals=describe_intervals(comparison),
        workload=_workload_facts(comparison),
        rows=_rows(comparison),
        versus=_versus_rows(comparison),
        versus_left_out=len(comparison.of_role("policy")) > 1 and len(comparison.of_role("baseline")) > 1,
        reference=comparison.gap_reference.name if comparison.gap_reference else None,
        reference_is_bound=bool(comparison.gap_reference and comparison.gap_reference.is_bound),
        config_yaml=data.config_yaml,
        provenance=list(_flat(data.provenance)),
        reproduce=data.reproduce,
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded_json(value: Any) -> Markup:
    """JSON that cannot end its script element, whatever the names in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 — escaped on the lines above


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The comparison table: per contestant its cells, each with what is shown and what it sorts by."""
    intervals = [row["J"] for row in comparison.rows.values()]
    best = comparison.best("policy")
    rows = []
    for role in ROLES:
        for c in comparison.of_role(role):
            figures = comparison.rows[c.name]
            rows.append(
                {
                    "name": c.name,
                    "role": role,
                    "detail": c.detail,
                    "best": best is not None and c.name == best.name,
                    "bar": interval_bar(figures["J"], intervals),
                    "cells": [
                        _cell("Cost J per hour", figures["J"], money),
                        _cell("Replica cost per hour", figures["cost"], money),
                        _cell("Cost of late requests per hour", figures["penalty"], money),
                        _cell("Replicas", figures["replicas"], lambda x: f"{x:.2f}"),
                        _cell("Late requests", figures["late_share"], percent, " %"),
                        _cell("p95 latency", figures["latency_p95_seconds"], lambda x: f"{1000 * x:,.0f}", " ms"),
                        _cell("Moves per window", figures["actions"], lambda x: f"{x:,.0f}"),
                    ],
                }
            )
    return rows


def _cell(label: str, interval: Interval, show: Callable[[float], str], unit: str = "") -> dict[str, Any]:
    known = math.isfinite(interval.mean)
    return {
        "label": label,
        "mean": show(interval.mean) + unit if known else _DASH,
        "interval": f"{show(interval.low)} … {show(interval.high)}{unit}" if interval.is_known else "",
        "sort": interval.mean if known else "",
    }


def _versus_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The best policy against each baseline, the others against the best: the difference, its chance, the gap closed."""
    rows = []
    baselines = comparison.of_role("baseline")
    for rank, policy in enumerate(comparison.of_role("policy")):
        for baseline in baselines[: 1 if rank else None]:
            versus = comparison.versus[policy.name][baseline.name]
            gap = comparison.gap_closed.get(policy.name, {}).get(baseline.name)
            difference = versus.difference
            rows.append(
                {
                    "policy": policy.name,
                    "baseline": baseline.name,
                    "outcome": outcome(versus),
                    "difference": signed(difference.mean),
                    "interval": f"{signed(difference.low)} … {signed(difference.high)}" if difference.is_known else "",
                    "bar": interval_bar(difference, [v.difference for v in comparison.versus[policy.name].values()], zero=True),
                    "relative": f"{'−' if versus.relative < 0 else '+'}{100 * abs(versus.relative):.1f} %"
                    if math.isfinite(versus.relative)
                    else _DASH,
                    "probability": _probability(versus.probability_lower),
                    "gap": f"{_whole(100 * gap.share.mean)} %" if gap and gap.pairs else _DASH,
                    "gap_interval": f"{_whole(100 * gap.share.low)} … {_whole(100 * gap.share.high)} %"
                    if gap and gap.share.is_known
                    else "",
                    "gap_pairs": f"{gap.left_out} of {gap.pairs + gap.left_out} pairs left out" if gap and gap.left_out else "",
                }
            )
    return rows


def _whole(value: float) -> str:
    return f"{value:.0f}".replace("-", "−")


def _probability(value: float) -> str:
    """Never 0 or 1: resamples cannot show that."""
    if not math.isfinite(value):
        return _DASH
    return "> 99 %" if value > 0.99 else "< 1 %" if value < 0.01 else f"{100 * value:.0f} %"


def _workload_facts(comparison: Comparison) -> list[tuple[str, str]]:
    scope = comparison.scope
    facts = [
        ("Workload", comparison.workload),
        ("Judged on", describe_scope(comparison)),
        ("Days", str(scope.days)),
    ]
    if math.isfinite(scope.mean_rps):
        facts.append(("Mean rate", f"{scope.mean_rps:,.0f} requests/s"))
        facts.append(("Highest mean rate of a step", f"{scope.peak_rps:,.0f} requests/s"))
    if comparison.played_back:
        facts.append(("Decision interval", f"{comparison.played_back.interval_seconds:g} s"))
    facts.append(("Intervals", describe_intervals(comparison)))
    return facts


def _playback_title(comparison: Comparison) -> str:
    hours = comparison.scope.window_hours
    if not hours:
        return "One window played back"
    return "One day played back" if hours == 24 else f"{hours:g} {'hour' if hours == 1 else 'hours'} played back"


def _playback_of(comparison: Comparison) -> str:
    shown = comparison.played_back
    return f"Test window {shown.window + 1} of {comparison.scope.windows}, seed {shown.seed}." if shown else ""


def _learning_caption(curve: list[dict[str, Any]]) -> str:
    if not curve:
        return ""
    last = curve[-1]
    steps, seconds = last.get("env_steps"), last.get("time_seconds")
    if not steps or not seconds:
        return ""
    minutes = f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
    return f"{steps:,.0f} environment steps in {minutes}: {steps / seconds:,.0f} steps/s, validation included."


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{key}", _DASH if value is None else str(value)
