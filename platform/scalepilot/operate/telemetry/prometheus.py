"""Telemetry of a Prometheus: raw samples of one moment, asked for in one go, and the fields made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields as keys_of
from functools import partial
from typing import Any

from scalepilot.errors import ConfigError, did_you_mean
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.operate.telemetry import TelemetryContext
from scalepilot.operate.telemetry.asking import Asking, Problem
from scalepilot.operate.telemetry.checking import check
from scalepilot.operate.telemetry.client import Client, PrometheusClient
from scalepilot.operate.telemetry.counters import Samples
from scalepilot.operate.telemetry.fields import FieldPlan, plan_of
from scalepilot.operate.telemetry.measured import Measured
from scalepilot.operate.telemetry.quiet import quiet_series
from scalepilot.operate.telemetry.selectors import selectors
from scalepilot.operate.telemetry.settings import PrometheusSettings, prometheus_settings
from scalepilot.operate.telemetry.sources import Source, sources_of

# Of an expression, whose age is that of the oldest of them.
_MOST_SELECTORS = 4


class PrometheusTelemetry:
    """Reads the fields of one policy's observation from a Prometheus.

    Args:
        settings: its sources.
        context: whose fields are wanted.
        client: who is asked; None for the Prometheus of the settings.
    """

    def __init__(self, settings: PrometheusSettings, context: TelemetryContext, client: Client | None = None) -> None:
        self._settings, self._names = settings, [f.name for f in context.fields]
        self._plan = plan_of(context.env)
        _refuse_unused(settings, self._plan, context, self._names)
        self.interval_seconds = _interval(settings, context)
        self._sources = sources_of(settings, self.interval_seconds, self._plan)
        self._labels = {name: source.label for name, source in self._sources.items()}
        self._labels["errors"] = self._labels.get("errors") or self._labels.get("requests", "errors")
        self._memory = self._plan.memory(self.interval_seconds)
        self._client: Client = client or PrometheusClient(settings)
        self._asking = Asking()

    def read(self, now: float, replicas: Replicas) -> Snapshot:
        """What is known at a moment.

        Args:
            now: Unix seconds of the grid moment.
            replicas: what the target said at this moment.
        """
        now = float(now)
        begun = time.monotonic()
        answers = self._asking.ask(self._questions(now), self._settings.timeout_seconds)
        if answers.get("requests") == [] and self._settings.requests is not None:
            left = self._settings.timeout_seconds - (time.monotonic() - begun)
            span = self._sources["requests"].span_seconds
            answers["requests"] = quiet_series(self._client, self._asking, self._settings.requests, now, span, left)
        measured = Measured(
            now,
            self.interval_seconds,
            self._plan.window_steps,
            replicas,
            self._settings,
            {name: answers[name] for name in self._sources},
            self._labels,
            self._memory,
        )
        measured.remember()
        if self._memory.rates is not None and measured.requests is not None:
            left = self._settings.timeout_seconds - (time.monotonic() - begun)
            self._memory.rates.look_back(now, self._past_requests, self._asking, left)
        readings = {name: self._reading(name, measured, answers) for name in self._names}
        return Snapshot(now, readings, replicas, self._extra(measured))

    def check(self, now: float) -> list[str]:
        """What an operator should know before it runs, one line each; see `Telemetry`."""
        return check(self._client, self._asking, self._sources, self._settings, self._plan, self.interval_seconds, now)

    def close(self) -> None:
        """Let connections go."""
        self._asking.close()
        self._client.close()

    def _past_requests(self, moment: float, seconds: float) -> list[Samples]:
        return self._client.ranges(self._sources["requests"].query, moment, seconds)

    def _questions(self, now: float) -> dict[str, Callable[[float], Any]]:
        asked: dict[str, Callable[[float], Any]] = {
            name: partial(_ask_source, self._client, source, now) for name, source in self._sources.items()
        }
        for name, wanted in self._settings.fields.items():
            asked[f"field {name}"] = partial(self._client.vector, wanted.query, now)
            for selector in selectors(wanted.query)[:_MOST_SELECTORS]:
                asked[f"age {selector}"] = partial(self._client.vector, f"max(timestamp({selector}))", now)
        return asked

    def _reading(self, name: str, measured: Measured, answers: Mapping[str, Any]) -> Reading:
        if name in self._settings.fields:
            return self._queried(name, measured.now, answers)
        make = self._plan.makes.get(name)
        return make(measured) if make else Reading(None, "", None, f"nothing measures it: telemetry.fields.{name} is not set")

    def _queried(self, name: str, now: float, answers: Mapping[str, Any]) -> Reading:
        query = self._settings.fields[name].query
        source, answer = f"prometheus {query}", answers[f"field {name}"]
        if isinstance(answer, Problem):
            return Reading(None, source, None, answer.reason)
        if len(answer) != 1:
            told = f"{len(answer)} series; allowed: one number, such as by sum(…)" if answer else "the query gives nothing"
            return Reading(None, source, None, told)
        value = answer[0][1]
        ages = []
        for selector in selectors(query)[:_MOST_SELECTORS]:
            newest = answers[f"age {selector}"]
            # One that has no series has no say in the value.
            if not isinstance(newest, Problem) and newest:
                ages.append(now - newest[0][1])
        if value != value or value in (float("inf"), float("-inf")):
            return Reading(None, source, max(ages, default=None), f"the query gives {value}")
        return Reading(value, source, max(ages, default=None))

    def _extra(self, measured: Measured) -> dict[str, Reading]:
        extra = {}
        if self._settings.requests is not None:
            extra["requests"] = requests = measured.count()
            if self._plan.late_seconds is not None and self._settings.latency is not None:
                share = measured.late_share(self._plan.late_seconds)
                known = share.value is not None and requests.value is not None
                value = share.value * requests.value if known else None  # type: ignore[operator]
                extra["late_requests"] = Reading(value, share.source, share.age_seconds, share.problem or requests.problem)
        return extra


def _ask_source(client: Client, source: Source, now: float, seconds: float) -> Any:
    if source.is_vector:
        return client.vector(source.query, now, seconds)
    return client.ranges(source.query, now, seconds)


def _interval(settings: PrometheusSettings, context: TelemetryContext) -> float:
    own = any(hasattr(context.env.params, name) for name in ("interval_seconds", "step_seconds"))
    if own and settings.interval_seconds not in (None, context.env.interval_seconds):
        raise ConfigError(
            f"telemetry.interval_seconds: {settings.interval_seconds:g} is not allowed;"
            f" allowed: {context.env.interval_seconds:g}, that of the policy, or none"
        )
    return settings.interval_seconds or context.env.interval_seconds


def _refuse_unused(settings: PrometheusSettings, plan: FieldPlan, context: TelemetryContext, names: list[str]) -> None:
    for name in settings.fields:
        if name not in names:
            hint = did_you_mean(name, names)
            raise ConfigError(f"telemetry.fields.{name}: is not a field of the policy; allowed: {', '.join(names)}{hint}")
    measures = ("requests", "errors", "latency", "cpu", "memory", "backlog", "replicas", "starting", "capacity_rps")
    given = [key.name for key in keys_of(settings) if key.name in measures and getattr(settings, key.name) is not None]
    for name in given:
        if name not in plan.sources:
            allowed = ", ".join(sorted(plan.sources)) or "fields"
            raise ConfigError(f"telemetry.{name}: no field of {context.env.env_id} comes from it; allowed: {allowed}")
    if "requests" in plan.sources and settings.requests is None:
        by_requests = [name for name in names if "rate" in name or name in ("influx_requests", "influx_scaled")]
        if any(name not in settings.fields for name in by_requests):
            raise ConfigError(
                f"telemetry.requests: is missing; {by_requests[0]} comes from it; allowed: a counter and a selector"
            )
    if not given and not settings.fields:
        raise ConfigError("telemetry: measures nothing; allowed: a source each of requests, latency, cpu …, or fields")


def make(settings: Mapping[str, Any], context: TelemetryContext) -> PrometheusTelemetry:
    """The telemetry of these settings.

    Raises:
        ConfigError: a key or value that is not allowed, or that no field comes from.
    """
    return PrometheusTelemetry(prometheus_settings(settings), context)


__all__ = ["PrometheusTelemetry", "make"]
