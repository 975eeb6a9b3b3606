"""Late requests and waiting time of one interval: a fluid backlog and, for the rest, the tail of M/M/c or M/M/1.

docs/latency.md compares it with a simulation of every request.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale import erlang
from scalepilot_envs.autoscale.arrivals import EXPONENTIAL, POISSON, variability
from scalepilot_envs.autoscale.params import AutoscaleParams, LoadBalancing, WaitingProbability
from scalepilot_envs.autoscale.services import Services

Array = NDArray[np.float64]

_MAX_LOAD = 0.999
_LOG_TAIL = math.log(0.05)
_MIN_DRAIN_SHARE = 0.05


class Waiting(NamedTuple):
    """Both (num_envs,)."""

    late_share: Array
    wait_p95_seconds: Array


def longest_wait_p95_seconds(slowest_served_rps: float, service_variation: float = EXPONENTIAL) -> float:
    """The largest 95 % waiting time that `waiting` can return, with `slowest_served_rps` as the least capacity."""
    return -_LOG_TAIL / (_MIN_DRAIN_SHARE * slowest_served_rps) * max(1.0, (POISSON + service_variation) / 2.0)


def fluid_late_share(slope_rps: Array, room_requests: Array, interval_seconds: float | Array) -> Array:
    """Share of the interval's arrivals that find more than the allowed wait in front of them.

    The backlog moves by `slope_rps` for the whole interval; a request is late while the backlog exceeds the room.

    Args:
        slope_rps: (num_envs,) arrivals minus service, requests/s.
        room_requests: (num_envs,) requests that may still queue before an arrival becomes late; negative: late already.
        interval_seconds: length of the interval.

    Returns:
        (num_envs,) in [0, 1].
    """
    crossing = np.clip(room_requests / (slope_rps * interval_seconds), 0.0, 1.0)
    return np.where(slope_rps < 0, crossing, np.where(slope_rps > 0, 1.0 - crossing, room_requests < 0))


def waiting(
    arrival_rps: Array,
    served_rps: Array,
    ready_replicas: Array,
    backlog_requests: Array,
    *,
    wait_slo_seconds: float | Array,
    interval_seconds: float | Array,
    load_balancing: LoadBalancing = "central",
    waiting_probability: WaitingProbability = "sakasegawa",
    arrival_dispersion: Array | float = POISSON,
    service_variation: float = EXPONENTIAL,
    fluid_late: Array | None = None,
) -> Waiting:
    """Late share and 95 % waiting time of one interval behind a load balancer.

    Divisions by zero and log(0) are meant (an idle service never waits): call under `np.errstate(all="ignore")`.

    Args:
        arrival_rps: (num_envs,) requests/s that arrive.
        served_rps: (num_envs,) requests/s that ready replicas can serve.
        ready_replicas: (num_envs,) servers.
        backlog_requests: (num_envs,) requests waiting when the interval begins.
        wait_slo_seconds: a longer wait is late.
        interval_seconds: length of the interval.
        load_balancing: "central": one queue before all replicas, M/M/c; "random": a queue before each, M/M/1 with its share
            of the arrivals and of the backlog.
        waiting_probability: of the central queue, approximate or exact.
        arrival_dispersion: (num_envs,) of the arrivals, 1 for Poisson.
        service_variation: squared coefficient of variation of the service time, 1 for exponential.
        fluid_late: (num_envs,) share that is late by the backlog, where it is known already.

    Returns:
        Late share in [0, 1] and waiting time in seconds.

    Source:
        Waiting probability ρ^(√(2(c+1)) − 1): H. Sakasegawa, "An approximation formula L_q ≅ α ρ^β / (1 − ρ)",
        Annals of the Institute of Statistical Mathematics 29 (1977). Erlang C: see `erlang`. The tail of M/M/c is
        exponential in μc − λ.
    """
    slope = arrival_rps - served_rps
    fluid = fluid_late
    if fluid is None:
        fluid = fluid_late_share(slope, wait_slo_seconds * served_rps - backlog_requests, interval_seconds)
    load = np.minimum(arrival_rps / served_rps, _MAX_LOAD)
    drain = np.maximum(-slope, 0.0)
    least_drain = _MIN_DRAIN_SHARE * served_rps
    if load_balancing == "random":
        log_wait_probability = np.log(load)
        drain, least_drain = drain / ready_replicas, least_drain / ready_replicas
    elif waiting_probability == "erlang_c":
        log_wait_probability = np.log(erlang.waiting_probability(ready_replicas, load))
    else:
        log_wait_probability = (np.sqrt(2.0 * (ready_replicas + 1.0)) - 1.0) * np.log(load)
    wait_p95 = np.maximum(log_wait_probability - _LOG_TAIL, 0.0) / np.maximum(drain, least_drain)
    if isinstance(arrival_dispersion, float) and arrival_dispersion == POISSON and service_variation == EXPONENTIAL:
        tail = np.exp(log_wait_probability - drain * wait_slo_seconds)
    else:
        factor = variability(arrival_dispersion, service_variation, ready_replicas if load_balancing == "random" else None)
        # What hardly varies does not wait at full load either, until the backlog has grown: that is in the fluid part.
        drain = np.maximum(drain, least_drain * np.maximum(1.0 - factor, 0.0))
        tail = np.exp(log_wait_probability - drain * wait_slo_seconds / factor)
        wait_p95 = wait_p95 * factor
    return Waiting(fluid + (1.0 - fluid) * tail, wait_p95)


def waiting_for(
    params: AutoscaleParams | Services,
    arrival_rps: Array,
    served_rps: Array,
    ready_replicas: Array,
    backlog_requests: Array,
    *,
    arrival_dispersion: Array | None = None,
    fluid_late: Array | None = None,
) -> Waiting:
    """`waiting` with all that `params` say: what the environment and every planner that predicts it call.

    Where nothing serves, whatever arrives is late, and nobody is seen waiting. A dispersion drawn for each service replaces
    that of `params`; `fluid_late` is that of `waiting`.
    """
    none_serves = served_rps <= 0.0 if params.may_be_empty else None
    found = waiting(
        arrival_rps,
        served_rps if none_serves is None else np.where(none_serves, 1.0, served_rps),
        ready_replicas if none_serves is None else np.maximum(ready_replicas, 1.0),
        backlog_requests,
        wait_slo_seconds=params.wait_slo_seconds,
        interval_seconds=params.interval_seconds,
        load_balancing=params.load_balancing,
        waiting_probability=params.waiting_probability,
        arrival_dispersion=params.arrival_dispersion if arrival_dispersion is None else arrival_dispersion,
        service_variation=params.service_variation,
        fluid_late=fluid_late,
    )
    if none_serves is None:
        return found
    return Waiting(np.where(none_serves, 1.0, found.late_share), np.where(none_serves, 0.0, found.wait_p95_seconds))
