"""Late share of every interval in test windows of protocol v1: simulated request by request, and what the model says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.queue_simulation import LoadBalancing, poisson_requests, simulate
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot.simulate.episodes import EpisodeSet
from scalepilot.simulate.protocol import protocol_v1
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.autoscale.latency import waiting
from scalepilot_envs.workloads import RateSeries, TraceWorkload

Array = NDArray[np.float64]
TRACES = Path("../shared/traces")
TRACE_NAMES = {"nasa_http_1995_07_1min": "NASA July", "worldcup98_group_stage_1min": "WorldCup"}
WINDOWS, SIMULATIONS = 3, 3
BALANCINGS: tuple[LoadBalancing, ...] = ("central", "random")
HPAS = {
    "default": HpaParameters(),
    # The best that a search on NASA July found under protocol v1.
    "tuned": HpaParameters("rps", 0.57, 0.02, 600.0, 60.0),
    # Far denser than anybody would run: where the model is worst.
    "dense": HpaParameters("rps", 0.85, 0.02, 60.0, 0.0),
}


@dataclass(frozen=True)
class Flight:
    """A window under one HPA: what both model and simulation are told, each (num_intervals,)."""

    trace: str
    window: int
    hpa: str
    arrived: Array
    ready: Array
    backlog: Array


@dataclass(frozen=True)
class Compared:
    """One flight under one balancing.

    Attributes:
        trace, window, hpa, load_balancing: which.
        arrived: (num_intervals,) requests.
        simulated: (simulations, num_intervals) late shares.
        sakasegawa, erlang_c: (num_intervals,) the model's.
    """

    trace: str
    window: int
    hpa: str
    load_balancing: LoadBalancing
    arrived: Array
    simulated: Array
    sakasegawa: Array
    erlang_c: Array


def flights() -> list[Flight]:
    """Windows spread over the test part, flown by each HPA with arrival seed 0; none where the traces are absent."""
    folder = Path(__file__).resolve().parents[2] / TRACES
    found = []
    for trace in TRACE_NAMES:
        if not (folder / f"{trace}.csv").is_file():
            return []
        params = AutoscaleParams()
        test = protocol_v1(trace, TraceWorkload(path=str(folder / f"{trace}.csv"), peak_rps=500.0), params).test
        rows = np.linspace(0, int(test.window.max()), WINDOWS).round().astype(np.int64)
        for name, hpa in HPAS.items():
            found += fly(trace, test, rows, name, hpa, params)
    return found


def fly(
    trace: str, episodes: EpisodeSet, rows: NDArray[np.int64], name: str, hpa: HpaParameters, params: AutoscaleParams
) -> list[Flight]:
    """Step the environment and note the replicas that serve during each interval, and the backlog it begins with."""
    rates, arrived = episodes.rates_rps[rows], episodes.arrived[rows]
    env = AutoscaleBatch(
        len(rows), workload=RateSeries(rates[0], params.interval_seconds), params=params, episode_steps=rates.shape[1]
    )
    observation = env.reset_batch(None, {"rates_rps": rates, "arrived": arrived})
    policy, memory = Hpa(hpa, params), None
    ready, backlog = np.empty_like(arrived), np.empty_like(arrived)
    for t in range(rates.shape[1]):
        decision, memory = policy.act(observation, memory)
        before, starting = env.state.ready.copy(), env.state.starting.sum(axis=0)
        backlog[:, t] = env.state.backlog
        assert decision.desired_replicas is not None
        change = env.advance(decision.desired_replicas).change
        # Orders are cancelled before ready replicas leave; new ones are ready from the next interval.
        ready[:, t] = before - np.maximum(-change - starting, 0.0)
        observation = env.observe()
    return [Flight(trace, int(row), name, arrived[i], ready[i], backlog[i]) for i, row in enumerate(rows)]


def compare(flight: Flight) -> list[Compared]:
    """Simulate a flight's requests three times under each balancing."""
    params = AutoscaleParams()
    shares: dict[LoadBalancing, list[Array]] = {balancing: [] for balancing in BALANCINGS}
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng([seed, flight.window])
        requests = poisson_requests(
            flight.arrived.astype(np.int64), params.interval_seconds, 1.0 / params.replica_capacity_rps, rng
        )
        for balancing, simulated in shares.items():
            waits = simulate(
                requests,
                flight.ready.astype(np.int64),
                interval_seconds=params.interval_seconds,
                load_balancing=balancing,
                max_waiting_per_replica=params.max_wait_seconds * params.replica_capacity_rps,
            )
            late = np.concatenate([[0], np.cumsum(waits > params.wait_slo_seconds)])
            ends = np.concatenate([[0], np.cumsum(flight.arrived)]).astype(np.int64)
            simulated.append(np.diff(late[ends]) / np.maximum(flight.arrived, 1.0))
    return [
        Compared(
            flight.trace,
            flight.window,
            flight.hpa,
            balancing,
            flight.arrived,
            np.array(shares[balancing]),
            model_share(flight, params, balancing, "sakasegawa"),
            model_share(flight, params, balancing, "erlang_c"),
        )
        for balancing in BALANCINGS
    ]


def model_share(flight: Flight, params: AutoscaleParams, load_balancing: LoadBalancing, waiting_probability: Any) -> Array:
    """(num_intervals,) late shares of the model."""
    with np.errstate(all="ignore"):
        wait = waiting(
            flight.arrived / params.interval_seconds,
            flight.ready * params.replica_capacity_rps,
            flight.ready,
            flight.backlog,
            wait_slo_seconds=params.wait_slo_seconds,
            interval_seconds=params.interval_seconds,
            load_balancing=load_balancing,
            waiting_probability=waiting_probability,
        )
    return np.where(flight.arrived > 0, wait.late_share, 0.0)


def errors(compared: list[Compared]) -> dict[str, float]:
    """Over all intervals of some flights, in points (per cent of requests).

    Returns:
        The late share in total (simulated, and by the specification's model); mean absolute error an interval against each
        single simulation for both models; of the specification's also against the mean of the simulations, and its mean
        error; and how far two simulations are apart.
    """
    arrived = np.concatenate([c.arrived for c in compared])
    simulated = np.concatenate([c.simulated for c in compared], axis=1)
    sakasegawa, erlang = (np.concatenate([getattr(c, m) for c in compared]) for m in ("sakasegawa", "erlang_c"))
    expected = simulated.mean(axis=0)
    pairs = [np.abs(simulated[i] - simulated[j]).mean() for i in range(len(simulated)) for j in range(i)]
    points = {
        "late_simulated": (expected * arrived).sum() / arrived.sum(),
        "late_model": (sakasegawa * arrived).sum() / arrived.sum(),
        "error_sakasegawa": np.abs(sakasegawa - simulated).mean(),
        "error_erlang_c": np.abs(erlang - simulated).mean(),
        "error_against_mean": np.abs(sakasegawa - expected).mean(),
        "bias": (sakasegawa - expected).mean(),
        "between_simulations": float(np.mean(pairs)),
    }
    return {name: round(100.0 * float(value), 3) for name, value in points.items()}


def grouped(windows: Iterable[list[Compared]]) -> dict[tuple[str, str, LoadBalancing], list[Compared]]:
    """By balancing, trace and HPA, in the order of the table."""
    groups: dict[tuple[str, str, LoadBalancing], list[Compared]] = defaultdict(list)
    for compared in sorted((c for window in windows for c in window), key=lambda c: BALANCINGS.index(c.load_balancing)):
        groups[(compared.trace, compared.hpa, compared.load_balancing)].append(compared)
    return dict(groups)


def summary(windows: Iterable[list[Compared]]) -> dict[str, Any]:
    """The table, flat, for the JSON."""
    return {f"{balancing}/{trace}/{hpa}": errors(group) for (trace, hpa, balancing), group in grouped(windows).items()}
