"""Which measures the fields of each environment come from. A field that is configured by name comes from its query alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from scalepilot.operate.snapshot import Reading
from scalepilot.operate.telemetry.measured import Measured
from scalepilot.operate.telemetry.memory import Memory
from scalepilot.operate.telemetry.rate_history import RateHistory
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.long_windows import CHANGE_STEPS, long_window_names
from scalepilot_envs.autoscale.observation import (
    NUM_STARTING_QUARTERS,
    SERVICE_FIELDS,
    clock_columns,
    clock_fields,
    service_columns,
)
from scalepilot_envs.cluster_deployment import ClusterDeploymentParams
from scalepilot_envs.cluster_deployment.measurement import LOAD_SCALE, THROUGHPUT_SCALE, node_share
from scalepilot_envs.cluster_deployment.params import MEMORY_LIMIT_BYTES
from scalepilot_envs.description import EnvDescription
from scalepilot_envs.function_workflow import FunctionWorkflowParams
from scalepilot_envs.function_workflow.params import MEAN_SERVICE_SECONDS
from scalepilot_envs.queue_scaling import QueueScalingParams

Make = Callable[[Measured], Reading]
# A replica is made a moment after it was asked for; the simulator counts from the asking. Of an interval.
_MADE_WITHIN = 0.15
_LOAD_STEPS = 10


@dataclass(frozen=True)
class FieldPlan:
    """Where the fields of one environment come from.

    Attributes:
        makes: field → what reads it from the measures.
        sources: measures that some field uses, or that are told beside the fields; others are refused.
        window_steps: intervals that are looked back on.
        long_steps: the same of those whose requests are kept from moment to moment; 0 for none.
        late_seconds: response time beyond which a request is late; None where the environment knows none.
        needs_mean_latency: whether the histogram's sum is needed beside its buckets.
    """

    makes: Mapping[str, Make]
    sources: frozenset[str]
    window_steps: int = 1
    long_steps: int = 0
    late_seconds: float | None = None
    needs_mean_latency: bool = False

    def memory(self, interval_seconds: float) -> Memory:
        """What telemetry remembers for it."""
        return Memory(RateHistory(self.long_steps, self.window_steps, interval_seconds) if self.long_steps else None)


def plan_of(env: EnvDescription) -> FieldPlan:
    """The plan of an environment; of one of others' all fields are configured by name."""
    plan = _PLANS.get(type(env.params))
    return FieldPlan({}, frozenset()) if plan is None else plan(env.params)


def scaled(reading: Reading, change: Callable[[float], float]) -> Reading:
    """A reading in another unit."""
    return reading if reading.value is None else replace(reading, value=float(change(reading.value)))


def starting_quarters(ages_seconds: list[float], startup_seconds: float, interval_seconds: float) -> list[int]:
    """How many replicas have how much of their start-up before them.

    Args:
        ages_seconds: since each was made.
        startup_seconds: until a replica serves.
        interval_seconds: between two decisions.

    Returns:
        Counts by quarter: the first serve soonest. Those that should serve already are in the first, new ones in the last.
    """
    counts = [0] * NUM_STARTING_QUARTERS
    for age in ages_seconds:
        left = startup_seconds - age - _MADE_WITHIN * interval_seconds
        quarter = math.ceil(left * NUM_STARTING_QUARTERS / startup_seconds) - 1
        counts[min(max(quarter, 0), NUM_STARTING_QUARTERS - 1)] += 1
    return counts


def _autoscale(p: AutoscaleParams) -> FieldPlan:
    per, late_seconds = p.interval_seconds, p.wait_slo_seconds + p.service_time_seconds

    def statistic(deviation: bool) -> Make:
        return lambda m: m.count_statistic(p.window_steps, p.history_steps, per, deviation=deviation)

    def rate(back: int) -> Make:
        return lambda m: m.count(back, per)

    makes: dict[str, Make] = {f"request_rate_rps_{i}": rate(i) for i in range(p.history_steps)}
    makes |= {
        "request_rate_mean_rps": statistic(False),
        "request_rate_std_rps": statistic(True),
        "cpu_utilisation": Measured.cpu_share,
        "latency_p95_seconds": lambda m: m.quantile_seconds(0.95, p.service_time_seconds),
        "late_share": lambda m: m.late_share(late_seconds),
        "error_share": Measured.error_share,
        "backlog_requests": lambda m: m.backlog(p.service_time_seconds, p.wait_slo_seconds),
        "ready_replicas": Measured.ready,
        "replica_capacity_rps": lambda m: m.capacity(p.replica_capacity_rps),
    }
    makes |= {f"starting_replicas_{i}": partial(_starting, p, i) for i in range(NUM_STARTING_QUARTERS)}
    makes |= {name: partial(_clock, p, at) for at, name in enumerate(clock_fields(p))}
    long = p.long_window_steps
    makes |= {name: partial(_long_window, p, at) for at, name in enumerate(long_window_names(long))}
    if p.observe_service:
        makes |= {name: partial(_of_service, p, at) for at, name in enumerate(SERVICE_FIELDS)}
    sources = frozenset(
        ("requests", "errors", "latency", "cpu", "backlog", "replicas", "starting", "capacity_rps"),
    )
    return FieldPlan(makes, sources, p.window_steps, long + CHANGE_STEPS if long else 0, late_seconds)


def _long_window(p: AutoscaleParams, at: int, measured: Measured) -> Reading:
    rates = measured.memory.rates
    assert rates is not None
    count, known, steps = rates.window(measured.now, at, p.long_window_steps)
    told = "" if known == steps else f"{known} of {steps} intervals are known, the others are taken to be like those before"
    return measured.counted(None if count is None else count / p.interval_seconds, told, assumed=2 * known < steps)


def _of_service(p: AutoscaleParams, at: int, measured: Measured) -> Reading:
    return Reading(float(service_columns(p, 1)[at][0]), "config service")


def _starting(p: AutoscaleParams, quarter: int, measured: Measured) -> Reading:
    found = measured.starting_ages()
    if isinstance(found, Reading):
        return found
    ages, source, told = found
    count = starting_quarters(ages, p.startup_seconds, p.interval_seconds)[quarter]
    return Reading(float(count), source, 0.0, told, assumed=bool(told))


def _clock(p: AutoscaleParams, at: int, measured: Measured) -> Reading:
    return Reading(float(clock_columns(p, np.array([measured.now]))[at][0]), "clock")


def _queue_scaling(p: QueueScalingParams) -> FieldPlan:
    def capacity(m: Measured, per: float = 1.0) -> Reading:
        return scaled(m.ready(), lambda ready: ready * p.capacity_requests / per)

    def load(m: Measured) -> Reading:
        if m.settings.cpu is not None:
            return scaled(m.cpu_share(), lambda share: round(share, 2))
        ready = m.ready()
        if not ready.value:
            return replace(ready, value=None, problem=ready.problem or "no instance serves")
        served = ready.value * p.capacity_requests
        return scaled(m.count(), lambda requests: round(min(1.0, requests / served), 2))

    makes: dict[str, Make] = {
        "instances_share": lambda m: scaled(m.ready(), lambda ready: ready / p.max_instances),
        "load_share": load,
        "capacity_requests": capacity,
        "influx_requests": Measured.count,
        "queue_requests": lambda m: m.gauge("backlog"),
        "capacity_scaled": lambda m: capacity(m, p.max_capacity_requests),
        "influx_scaled": lambda m: m.count(per=p.max_influx_requests),
        "queue_log_scaled": lambda m: scaled(m.gauge("backlog"), lambda q: math.log1p(q) / math.log1p(p.max_queue_requests)),
    }
    return FieldPlan(makes, frozenset(("requests", "cpu", "backlog", "replicas")))


def _cluster_deployment(p: ClusterDeploymentParams) -> FieldPlan:
    def memory(m: Measured) -> Reading:
        ready = m.ready()
        if not ready.value:
            return replace(ready, value=None, problem=ready.problem or "no pod serves")
        pods = ready.value
        return scaled(m.gauge("memory"), lambda used: min(1.0, used / pods / MEMORY_LIMIT_BYTES))

    def served(m: Measured) -> Reading:
        failed = m.error_share()
        share = failed.value if failed.value is not None else 0.0
        return scaled(m.count(per=THROUGHPUT_SCALE), lambda requests: requests * (1 - share))

    makes: dict[str, Make] = {
        "cpu_share": Measured.cpu_share,
        "memory_share": memory,
        "latency_seconds": lambda m: m.mean_seconds(0.2),
        "node_share": lambda m: scaled(m.ready(), lambda ready: float(node_share(np.array([ready]))[0])),
        "load_mean_5000_requests": lambda m: m.count_statistic(_LOAD_STEPS, 1, LOAD_SCALE),
        "throughput_1000_requests": served,
    }
    sources = ("requests", "errors", "latency", "cpu", "memory", "replicas")
    return FieldPlan(makes, frozenset(sources), _LOAD_STEPS, needs_mean_latency=True)


def _function_workflow(p: FunctionWorkflowParams) -> FieldPlan:
    def handed_over(m: Measured) -> Reading:
        return Reading(0.0, "environment", None, "handed over at once, as in the environment", assumed=True)

    def in_time(m: Measured) -> Reading:
        late = scaled(m.late_share(2 * MEAN_SERVICE_SECONDS), lambda share: 1 - share)
        told = late.problem or f"no query (telemetry.fields.qos): tasks within {2 * MEAN_SERVICE_SECONDS:g} s"
        return replace(late, problem=told, assumed=late.value is not None)

    makes: dict[str, Make] = {
        "input_queue": handed_over,
        "worker_queue": lambda m: m.gauge("backlog"),
        "result_queue": handed_over,
        "workers": Measured.ready,
        "sojourn_mean_seconds": lambda m: m.mean_seconds(MEAN_SERVICE_SECONDS),
        "sojourn_max_seconds": lambda m: m.quantile_seconds(1.0, MEAN_SERVICE_SECONDS),
        "arrival_rate_per_second": lambda m: m.count(per=p.step_seconds),
        "qos": in_time,
    }
    return FieldPlan(makes, frozenset(("requests", "latency", "backlog", "replicas")), needs_mean_latency=True)


_PLANS: dict[type, Callable[[Any], FieldPlan]] = {
    AutoscaleParams: _autoscale,
    QueueScalingParams: _queue_scaling,
    ClusterDeploymentParams: _cluster_deployment,
    FunctionWorkflowParams: _function_workflow,
}

__all__ = ["FieldPlan", "plan_of", "scaled", "starting_quarters"]
