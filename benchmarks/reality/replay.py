"""The study's orders through Autoscale's dynamics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.reality.study import CONDITIONS, LATENCY_SLO_SECONDS, Study
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.dynamics import AutoscaleState
from scalepilot_envs.autoscale.services import Services

Array = NDArray[np.float64]
SERVICE_SECONDS = 0.015
# As the study's README derives them from its probes, capacity profile and start-up samples.
PLAIN = AutoscaleParams(
    interval_seconds=1.0,
    replica_capacity_rps=33.5,
    service_time_seconds=SERVICE_SECONDS,
    startup_seconds=2.0,
    min_replicas=1,
    max_replicas=4,
    wait_slo_seconds=LATENCY_SLO_SECONDS - SERVICE_SECONDS,
    max_wait_seconds=10.0,
)
_EVEN = replace(PLAIN, load_balancing="random", arrival_dispersion=0.0, service_variation=0.01)
_PROBED = replace(_EVEN, readiness_timeout_seconds=1.0, readiness_period_seconds=1.0, readiness_failures=2)
# Each adds to the one before; the first is what the simulator was.
VARIANTS = {
    "before": PLAIN,
    "evenly spaced arrivals": _EVEN,
    "readiness probes": _PROBED,
    "queues that stay": replace(_PROBED, backlog_stays=True),
}
BEFORE, NOW = "before", "queues that stay"
# The cluster's pods were ready 1 to 3 seconds after the order.
OTHER_STARTUPS = (1.0, 3.0)
# What 1 % of the requests exceed is found between these waits.
_WAITS = np.concatenate([[LATENCY_SLO_SECONDS - SERVICE_SECONDS], np.geomspace(0.001, 10.0, 60)])

_ONE_PERCENT, _ALL = 0.01, 0.999


@dataclass(frozen=True)
class Replayed:
    """One condition in the simulator; (num_seconds,) arrays but for the totals.

    Attributes:
        replica_seconds: ordered.
        late_seconds: seconds in which more than 1 % of the requests took longer than 300 ms or failed.
        p99_ms: what 1 % of all requests took longer than; one that fails is taken to fail at once.
        failed: requests.
        p99_ms_by_second: of those that did not fail; nan where all did.
        failed_by_second: requests.
        ready_by_second: replicas, at the end of the second.
    """

    replica_seconds: float
    late_seconds: int
    p99_ms: float
    failed: float
    p99_ms_by_second: Array
    failed_by_second: Array
    ready_by_second: Array


def replay(study: Study, params: AutoscaleParams) -> list[Replayed]:
    """Every condition, in the order of `CONDITIONS`."""
    out: list[Replayed] = []
    for workload in dict.fromkeys(c.workload for c in CONDITIONS):
        conditions = [c for c in CONDITIONS if c.workload == workload]
        out += _replay(study.rates_rps[workload], np.array([study.orders(c) for c in conditions]), params)
    return out


def _replay(rates_rps: Array, orders: Array, params: AutoscaleParams) -> list[Replayed]:
    """Conditions of one workload at once, each as often as there are waits to compare with: (waits, conditions) services."""
    count, waits = len(orders), np.repeat(_WAITS, len(orders))
    services = Services(params, len(waits))
    services.wait_slo_seconds[:] = waits
    state = AutoscaleState(params, len(waits), services=services)
    state.reset(np.ones(len(waits), dtype=np.bool_), np.zeros(len(waits)))
    steps = len(rates_rps)
    late, failed, ready = np.empty((steps, len(_WAITS), count)), np.empty((steps, count)), np.empty((steps, count))
    for t, rate in enumerate(rates_rps):
        outcome = state.step(np.tile(orders[:, t], len(_WAITS)), np.full(len(waits), rate))
        late[t] = np.maximum(outcome.late - outcome.dropped, 0.0).reshape(len(_WAITS), count)
        failed[t] = outcome.dropped[:count]
        ready[t] = state.serving[:count]
    results = []
    for i in range(count):
        over = late[:, :, i] / rates_rps[:, None]
        lost = failed[:, i] / rates_rps
        with np.errstate(all="ignore"):
            answered = np.where(lost[:, None] < _ALL, over / (1.0 - lost[:, None]), np.nan)
        results.append(
            Replayed(
                float(orders[i].sum()),
                int((over[:, 0] + lost > _ONE_PERCENT).sum()),
                _p99_ms(late[:, 1:, i].sum(axis=0) / rates_rps.sum()),
                float(failed[:, i].sum()),
                np.array([_p99_ms(row) for row in answered[:, 1:]]),
                failed[:, i],
                ready[:, i],
            )
        )
    return results


def _p99_ms(over: Array) -> float:
    """Milliseconds that 1 % take longer than, from the shares that wait longer than each of the waits."""
    if np.isnan(over).any():
        return float("nan")
    below = over <= _ONE_PERCENT
    at = int(below.argmax()) if below.any() else len(below) - 1
    waits = np.log(_WAITS[1:])
    wait = np.interp(-_ONE_PERCENT, (-over[at - 1], -over[at]), waits[at - 1 : at + 1]) if at else waits[0]
    return 1000.0 * (SERVICE_SECONDS + float(np.exp(wait)))
