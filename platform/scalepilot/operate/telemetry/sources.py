"""The question behind each source: which raw samples, and how far back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from scalepilot.operate.telemetry.fields import FieldPlan
from scalepilot.operate.telemetry.selectors import joined
from scalepilot.operate.telemetry.settings import CADVISOR, CADVISOR_MEMORY, CONTAINERS_ONLY, PrometheusSettings

# Beyond what is looked back on, so that a sample lies before it at a scrape as long as the interval, and one missed.
_MARGIN_INTERVALS = 3
_MARGIN_SECONDS = 5.0
# So far, in any case, for what tells replicas that are lost from those that are gone.
_FEWEST_STEPS = 20
# Of gauges, whose newest sample counts: as far as Prometheus itself looks back, or four intervals.
_GAUGE_SECONDS = 300.0


@dataclass(frozen=True)
class Source:
    """What is asked for a measure.

    Attributes:
        label: what a person reads.
        selector: of its series.
        query: PromQL.
        is_vector: it is an expression at one moment, and no range of samples.
        metric: name of the metric, for a message that says what is missing.
        is_counter: it must have two samples an interval.
        span_seconds: how far back.
    """

    label: str
    selector: str
    query: str
    metric: str
    is_vector: bool = False
    is_counter: bool = True
    span_seconds: float = 0.0


def sources_of(settings: PrometheusSettings, interval_seconds: float, plan: FieldPlan) -> dict[str, Source]:
    """The question of each source that is set.

    Args:
        settings: which are.
        interval_seconds: of a step.
        plan: what they are asked for.
    """
    found: dict[str, Source] = {}

    def counter(source: str, metric: str, selector: str, steps: int = 1) -> None:
        seconds = (steps + _MARGIN_INTERVALS) * interval_seconds + _MARGIN_SECONDS
        found[source] = _ranged(metric, selector, seconds)

    if settings.requests is not None:
        steps = max(plan.window_steps, _FEWEST_STEPS)
        counter("requests", settings.requests.counter, settings.requests.selector, steps)
        if settings.errors is not None:
            errors = settings.errors
            own = settings.requests.selector if errors.selector is None else errors.selector
            # As far back as the requests, beside which they are counted.
            counter("errors", errors.counter or settings.requests.counter, own, steps)
    if settings.latency is not None:
        counter("latency", f"{settings.latency.histogram}_bucket", settings.latency.selector)
        if plan.needs_mean_latency:
            counter("latency_sum", f"{settings.latency.histogram}_sum", settings.latency.selector)
    if settings.cpu is not None:
        containers = CONTAINERS_ONLY if settings.cpu.counter == CADVISOR else ""
        counter("cpu", settings.cpu.counter, joined(settings.cpu.selector, containers))
        if settings.cpu.requests is not None:
            query = settings.cpu.requests
            found["cpu_requests"] = Source(f"prometheus {query}", query, query, "", is_vector=True, is_counter=False)
    gauges = {"memory": settings.memory, "backlog": settings.backlog, "replicas": settings.replicas}
    seconds = max(_GAUGE_SECONDS, 4 * interval_seconds)
    for name, gauge in gauges.items():
        if gauge is not None:
            containers = CONTAINERS_ONLY if gauge.gauge == CADVISOR_MEMORY else ""
            found[name] = _ranged(gauge.gauge, joined(gauge.selector, containers), seconds, is_counter=False)
    if settings.starting is not None:
        prefix = settings.starting.prefix
        names = f'__name__=~"{prefix}_(created|status_ready|status_phase|deletion_timestamp)"'
        selector = joined(names, settings.starting.selector)
        query = f"{{{selector}}}[{1000 * seconds:.0f}ms]"
        found["starting"] = Source(
            f"prometheus {prefix}_created", f"{{{selector}}}", query, f"{prefix}_created", is_counter=False
        )
    return found


def _ranged(metric: str, selector: str, seconds: float, *, is_counter: bool = True) -> Source:
    # Names of OpenTelemetry, with dots, are only known to Prometheus 3, and only as a label.
    is_plain = re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", metric) is not None
    matched = f"{metric}{{{joined(selector)}}}" if is_plain else f"{{{joined(f'__name__={json.dumps(metric)}', selector)}}}"
    query = f"{matched}[{1000 * seconds:.0f}ms]"
    return Source(f"prometheus {metric}", matched, query, metric, is_counter=is_counter, span_seconds=seconds)
