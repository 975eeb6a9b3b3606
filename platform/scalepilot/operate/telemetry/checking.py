"""What an operator should know of its Prometheus before a policy decides by it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from scalepilot.errors import did_you_mean
from scalepilot.operate.telemetry.asking import Asking, Problem
from scalepilot.operate.telemetry.client import Client
from scalepilot.operate.telemetry.counters import Samples, scrape_seconds
from scalepilot.operate.telemetry.fields import FieldPlan
from scalepilot.operate.telemetry.histograms import bound_of
from scalepilot.operate.telemetry.measured import STATUS_LABELS
from scalepilot.operate.telemetry.settings import PrometheusSettings
from scalepilot.operate.telemetry.sources import Source

_MOST_SECONDS = 0.9
_MOST_SERIES = 1000
_CLOCK_SECONDS = 5.0
# Scrapes an interval, for rates that are neither late nor coarse.
_SCRAPES = 3
# By which several Prometheus servers that scrape the same are told apart.
_REPLICA_LABELS = ("prometheus_replica", "__replica__", "replica")


def check(
    client: Client,
    asking: Asking,
    sources: Mapping[str, Source],
    settings: PrometheusSettings,
    plan: FieldPlan,
    interval_seconds: float,
    now: float,
) -> list[str]:
    """What is missing, late or coarse, one line each; within 2 s.

    Args:
        client: of the Prometheus.
        asking: in which threads.
        sources: what is asked for.
        settings: that say so.
        plan: what it is asked for.
        interval_seconds: between two decisions.
        now: Unix seconds.
    """
    questions: dict[str, Any] = {
        name: partial(client.vector if source.is_vector else client.ranges, source.query, now) for name, source in sources.items()
    }
    questions |= {f"fields.{name}": partial(client.vector, wanted.query, now) for name, wanted in settings.fields.items()}
    asked_at = time.time()
    questions["clock"] = partial(client.ask, "query", {"query": "1"})
    answers = asking.ask(questions, _MOST_SECONDS)
    clock = answers.pop("clock")
    reasons = {answer.reason if isinstance(answer, Problem) else "" for answer in (clock, *answers.values())}
    if len(reasons) == 1 and "" not in reasons:
        return [f"telemetry: {reasons.pop()}"]
    lines = []
    if not isinstance(clock, Problem) and clock.server_time is not None and abs(clock.server_time - asked_at) > _CLOCK_SECONDS:
        lines.append(f"clock: that of {client.url} differs by {clock.server_time - asked_at:+.0f} s: ages are wrong by as much")
    missing = [name for name, answer in answers.items() if name in sources and answer == []]
    found = _elsewhere(client, asking, {name: sources[name] for name in missing}, now)
    for name, answer in answers.items():
        if isinstance(answer, Problem):
            lines.append(f"{name}: {answer.reason}")
        elif name in missing:
            lines.append(f"{name}: no series of {sources[name].selector}{found[name]}")
        elif name.startswith("fields."):
            if len(answer) != 1:
                lines.append(f"{name}: the query gives {len(answer)} series; allowed: one number")
        elif not sources[name].is_vector:
            lines += [f"{name}: {line}" for line in _of_samples(answer, sources[name], interval_seconds, now)]
    lines += _of_measures(answers, settings, plan)
    return lines


def _elsewhere(client: Client, asking: Asking, missing: Mapping[str, Source], now: float) -> dict[str, str]:
    """Where a metric that was not found may be: with other labels, or under another name."""
    questions: dict[str, Any] = {}
    for name, source in missing.items():
        if source.metric:
            questions[f"count {name}"] = partial(client.vector, f"count({source.metric})", now)
        labels = source.selector.partition("{")[2].rstrip("}")
        if labels and not labels.startswith("__name__"):
            around = {"match[]": f"{{{labels}}}", "start": f"{now - 3600:.0f}", "end": f"{now:.0f}"}
            questions[f"names {name}"] = partial(client.ask, "label/__name__/values", around)
    answers = asking.ask(questions, _MOST_SECONDS)
    told = {}
    for name, source in missing.items():
        count, names = answers.get(f"count {name}"), answers.get(f"names {name}")
        if isinstance(count, list) and count:
            told[name] = f"; {count[0][1]:.0f} series of {source.metric} have other labels"
        elif names is None or isinstance(names, Problem) or not names.result:
            told[name] = f"; there is no {source.metric}" if count == [] else ""
        else:
            told[name] = f"; there is no {source.metric}{did_you_mean(source.metric, map(str, names.result))}"
        if name == "errors":
            told[name] += "; none is counted until there is one"
    return told


def _of_samples(series: list[Samples], source: Source, interval_seconds: float, now: float) -> list[str]:
    lines = []
    scrape = scrape_seconds(series)
    if source.is_counter and scrape is None:
        lines.append("one sample only: rates need two")
    elif source.is_counter and scrape is not None and scrape > 1.05 * interval_seconds:
        lines.append(
            f"scraped every {scrape:g} s, decisions are made every {interval_seconds:g} s;"
            f" allowed: at most {interval_seconds:g} s, better {interval_seconds / _SCRAPES:g} s"
        )
    elif source.is_counter and scrape is not None and scrape > 1.05 * interval_seconds / _SCRAPES:
        lines.append(
            f"scraped every {scrape:g} s: rates are up to {scrape:g} s late;"
            f" better: every {interval_seconds / _SCRAPES:g} s, a third of the interval"
        )
    age = now - max(float(one.times[-1]) for one in series)
    if age > 2 * max(interval_seconds, scrape or 0.0):
        lines.append(f"the newest sample is {age:.0f} s old: it is not scraped any more")
    if len(series) > _MOST_SERIES:
        lines.append(
            f"{len(series):,} series, read whole for every decision; better: a recording rule that sums them by pod,"
            f" up to {_MOST_SERIES:,} series"
        )
    for label in _REPLICA_LABELS:
        if len({one.labels.get(label, "") for one in series}) > 1:
            lines.append(f"its series differ in {label}: what several servers scrape is counted as often; allowed: one of them")
    return lines


def _of_measures(answers: Mapping[str, Any], settings: PrometheusSettings, plan: FieldPlan) -> list[str]:
    lines = []
    requests, latency = answers.get("requests"), answers.get("latency")
    if isinstance(requests, list) and requests and "errors" in plan.sources and settings.errors is None:
        labelled = any(name in one.labels for one in requests for name in STATUS_LABELS)
        if not labelled:
            lines.append("errors: no label of the requests tells which failed; allowed: telemetry.errors with a selector")
    if isinstance(latency, list) and latency and settings.latency is not None and plan.late_seconds is not None:
        unit = 0.001 if settings.latency.unit == "ms" else 1.0
        bounds = sorted({bound_of(one.labels) * unit for one in latency})
        if not any(abs(bound - plan.late_seconds) <= 1e-6 * plan.late_seconds for bound in bounds):
            known = ", ".join(f"{bound:g}" for bound in bounds)
            lines.append(
                f"latency: no bucket at {plan.late_seconds:g} s, beyond which a request is late: its share is estimated"
                f" between those there are ({known})"
            )
    if "capacity_rps" in plan.sources and settings.capacity_rps is None:
        lines.append(
            "capacity_rps: not set: that of the policy is shown until replicas were busy; better: as measured by a load test"
        )
    return lines


__all__ = ["check"]
