"""95 % waiting time in the steady state: simulated, and what the model says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.queue_simulation import LoadBalancing, lindley, poisson_requests, simulate
from scalepilot_envs.autoscale.latency import waiting

Model = Literal["sakasegawa", "erlang_c"]
LOADS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SERVERS = (1, 2, 5, 10, 50)
BALANCINGS: tuple[LoadBalancing, ...] = ("central", "random")
CAPACITY_RPS = 20.0
BAR_PERCENT = 15.0
# Requests of a run: near saturation waits are alike for about 4 / (1 − ρ)² requests. Runs are added until the error is this.
_FEWEST, _INDEPENDENT = 1_000_000, 4500
_STANDARD_ERROR, _MOST_RUNS = 0.02, 12
_WARM_UP_RELAXATIONS, _CHUNK, _BATCHES = 10, 100_000, 20


@dataclass(frozen=True)
class Cell:
    """One load, number of replicas and balancing."""

    load_balancing: LoadBalancing
    servers: int
    load: float


@dataclass(frozen=True)
class Measured:
    """A cell's 95 % waiting time in seconds.

    Attributes:
        cell: of what.
        simulated: mean of the runs' quantiles, each over all requests after the warm-up.
        standard_error: of `simulated`, from 20 batches a run.
        requests: simulated.
        sakasegawa, erlang_c: the model, with either waiting probability.
    """

    cell: Cell
    simulated: float
    standard_error: float
    sakasegawa: float
    erlang_c: float
    requests: int

    def error_percent(self, model: Model) -> float:
        """Relative to the simulation; 0 where neither waits, 100 where only the model does."""
        said = float(getattr(self, model))
        if self.simulated == 0.0:
            return 0.0 if said == 0.0 else 100.0
        return 100.0 * (said / self.simulated - 1.0)


def cells() -> list[Cell]:
    """All, the longest first."""
    return [Cell(b, c, load) for load in reversed(LOADS) for c in reversed(SERVERS) for b in BALANCINGS]


def measure(cell: Cell) -> Measured:
    """Simulate a cell, seeded by what it is."""
    rng = np.random.default_rng([BALANCINGS.index(cell.load_balancing), cell.servers, round(100 * cell.load)])
    num_requests = max(_FEWEST, round(4.0 * _INDEPENDENT / (1.0 - cell.load) ** 2))
    quantiles: list[float] = []
    batches: list[float] = []
    error = 0.0
    while len(quantiles) < _MOST_RUNS:
        waits = steady_waits(cell, num_requests, rng)
        quantiles.append(float(np.quantile(waits, 0.95)))
        batches += [float(np.quantile(batch, 0.95)) for batch in np.array_split(waits, _BATCHES)]
        error = float(np.std(batches, ddof=1) / np.sqrt(len(batches)))
        if error <= _STANDARD_ERROR * float(np.mean(quantiles)):
            break
    return Measured(
        cell,
        float(np.mean(quantiles)),
        error,
        model_p95_seconds(cell, "sakasegawa"),
        model_p95_seconds(cell, "erlang_c"),
        num_requests * len(quantiles),
    )


def steady_waits(cell: Cell, num_requests: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Waits of `num_requests` less those of the warm-up (ten relaxation times of each queue)."""
    interval = _CHUNK / (cell.load * cell.servers * CAPACITY_RPS)
    num_intervals = -(-num_requests // _CHUNK)
    counts = rng.poisson(np.full(num_intervals, float(_CHUNK)))
    requests = poisson_requests(counts, interval, 1.0 / CAPACITY_RPS, rng)
    warm_up = round(_WARM_UP_RELAXATIONS / (1.0 - np.sqrt(cell.load)) ** 2)
    if cell.load_balancing == "central" and cell.servers > 1:
        ready = np.full(num_intervals, cell.servers)
        return simulate(requests, ready, interval_seconds=interval, load_balancing="central")[warm_up:]
    replica = (requests.route * cell.servers).astype(np.int64)
    waits = []
    for number in range(cell.servers):
        here = np.flatnonzero(replica == number)
        waits.append(lindley(requests.arrival_seconds[here], requests.service_seconds[here])[warm_up:])
    return np.concatenate(waits)


def model_p95_seconds(cell: Cell, waiting_probability: Model) -> float:
    """The model's 95 % wait at a constant load without backlog."""
    served = cell.servers * CAPACITY_RPS
    with np.errstate(all="ignore"):
        wait = waiting(
            np.array([cell.load * served]),
            np.array([served]),
            np.array([float(cell.servers)]),
            np.zeros(1),
            wait_slo_seconds=0.2,
            interval_seconds=15.0,
            load_balancing=cell.load_balancing,
            waiting_probability=waiting_probability,
        )
    return float(wait.wait_p95_seconds[0])


def summary(measured: Iterable[Measured]) -> dict[str, Any]:
    """Worst and mean error of each model, cells beyond the bar, and the simulation's own error."""
    rows = list(measured)
    figures: dict[str, Any] = {"cells": len(rows), "requests": sum(r.requests for r in rows)}
    for name, balancing, model in (
        ("central_sakasegawa", "central", "sakasegawa"),
        ("central_erlang_c", "central", "erlang_c"),
        ("random", "random", "erlang_c"),
    ):
        errors = [abs(r.error_percent(model)) for r in rows if r.cell.load_balancing == balancing]  # type: ignore[arg-type]
        figures[name] = {
            "error_percent_largest": round(max(errors), 2),
            "error_percent_mean": round(float(np.mean(errors)), 2),
            "cells_beyond_15_percent": sum(e > BAR_PERCENT for e in errors),
        }
    waits = [r for r in rows if r.simulated > 0]
    figures["simulation_standard_error_percent_largest"] = round(100 * max(r.standard_error / r.simulated for r in waits), 2)
    return figures
