"""Waits with arrivals and service that are less or more random than M/M/c takes them to be: simulated, and the model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.queue_simulation import LoadBalancing, Requests, lindley, simulate
from scalepilot_envs.autoscale.latency import waiting

Array = NDArray[np.float64]
CAPACITY_RPS, SLO_SECONDS = 20.0, 0.2
LOADS = (0.5, 0.7, 0.8, 0.9)
SERVICES: tuple[tuple[LoadBalancing, int], ...] = (("central", 1), ("central", 5), ("random", 4))
# Dispersion of the arrivals and squared variation of the service.
KINDS = ((0.0, 0.0), (0.0, 0.25), (0.3, 0.0), (0.5, 0.25), (1.0, 0.0), (1.0, 0.25), (1.0, 1.0), (1.0, 4.0))
_REQUESTS, _WARM_UP = 400_000, 5000


@dataclass(frozen=True)
class Varied:
    """One kind of traffic at one load.

    Attributes:
        load_balancing, servers, dispersion, variation, load: which.
        simulated_p95_seconds, model_p95_seconds: 95 % waits.
        simulated_late, model_late: share that waits longer than the SLO.
    """

    load_balancing: LoadBalancing
    servers: int
    dispersion: float
    variation: float
    load: float
    simulated_p95_seconds: float
    model_p95_seconds: float
    simulated_late: float
    model_late: float


def measure_all() -> list[Varied]:
    """Every service, kind and load."""
    return [_measure(b, c, kind, load) for b, c in SERVICES for kind in KINDS for load in LOADS]


def _measure(balancing: LoadBalancing, servers: int, kind: tuple[float, float], load: float) -> Varied:
    (dispersion, variation), rng = kind, np.random.default_rng([servers, round(100 * load)])
    rate = load * servers * CAPACITY_RPS
    arrival = arrivals(rate, _REQUESTS, dispersion, rng)
    service = services(len(arrival), variation, rng)
    if balancing == "random":
        replica = rng.integers(0, servers, len(arrival))
        waits = np.concatenate([lindley(arrival[replica == i], service[replica == i])[_WARM_UP:] for i in range(servers)])
    elif servers == 1:
        waits = lindley(arrival, service)[_WARM_UP:]
    else:
        requests = Requests(arrival, service, np.zeros(len(arrival)))
        waits = simulate(requests, np.array([servers]), interval_seconds=1e9, load_balancing="central")[_WARM_UP:]
    with np.errstate(all="ignore"):
        said = waiting(
            np.array([rate]),
            np.array([servers * CAPACITY_RPS]),
            np.array([float(servers)]),
            np.zeros(1),
            wait_slo_seconds=SLO_SECONDS,
            interval_seconds=15.0,
            load_balancing=balancing,
            waiting_probability="erlang_c",
            arrival_dispersion=dispersion,
            service_variation=variation,
        )
    p95, late = float(np.quantile(waits, 0.95)), float((waits > SLO_SECONDS).mean())
    return Varied(
        balancing, servers, dispersion, variation, load, p95, float(said.wait_p95_seconds[0]), late, float(said.late_share[0])
    )


def arrivals(rate_rps: float, count: int, dispersion: float, rng: np.random.Generator) -> Array:
    """Times of about `count` requests: a share 1 − dispersion (at most 1) evenly spaced, the others Poisson."""
    even = round(count * (1.0 - dispersion))
    spaced = (np.arange(even) + rng.random()) / max(rate_rps * (1.0 - dispersion), 1e-12)
    random = np.cumsum(rng.exponential(1.0 / max(rate_rps * dispersion, 1e-12), count - even))
    end = min(times[-1] for times in (spaced, random) if len(times))
    both = np.sort(np.concatenate([spaced, random]))
    return both[both <= end]


def services(count: int, variation: float, rng: np.random.Generator) -> Array:
    """Service times: constant, gamma, exponential, or of two exponentials with balanced means, by their squared variation."""
    mean = 1.0 / CAPACITY_RPS
    if variation == 0.0:
        return np.full(count, mean)
    if variation <= 1.0:
        return rng.gamma(1.0 / variation, mean * variation, count)
    fast = 0.5 * (1.0 + np.sqrt((variation - 1.0) / (variation + 1.0)))
    means = np.where(rng.random(count) < fast, mean / (2.0 * fast), mean / (2.0 * (1.0 - fast)))
    return means * rng.exponential(1.0, count)


def table(rows: list[Varied]) -> str:
    """95 % waits and late shares, by service and kind."""
    head = ["balancing", "replicas", "dispersion", "variation"]
    head += [f"load {load:g}: wait ms, late %" for load in LOADS]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for start in range(0, len(rows), len(LOADS)):
        group = rows[start : start + len(LOADS)]
        first = group[0]
        cells = [first.load_balancing, str(first.servers), f"{first.dispersion:g}", f"{first.variation:g}"]
        for r in group:
            waits = f"{1e3 * r.model_p95_seconds:.0f} ({1e3 * r.simulated_p95_seconds:.0f})"
            cells.append(f"{waits}, {100 * r.model_late:.1f} ({100 * r.simulated_late:.1f})")
        lines.append(f"| {' | '.join(cells)} |")
    f = summary(rows)
    late = f"mean error {f['late_error_points_mean']:.1f} points, largest {f['late_error_points_largest']:.1f}"
    lines += [
        "",
        f"- 95 % waits above 50 ms: mean error {f['p95_error_percent_mean']:.0f} %,"
        f" largest {f['p95_error_percent_largest']:.0f} %.",
        f"- Late shares: {late}; with M/M/c on the same traffic, mean {f['mmc_late_error_points_mean']:.1f}.",
    ]
    return "\n".join(lines) + "\n"


def summary(rows: list[Varied]) -> dict[str, Any]:
    """Errors of the model, and of M/M/c on the same traffic."""
    waits = [abs(r.model_p95_seconds / r.simulated_p95_seconds - 1.0) for r in rows if r.simulated_p95_seconds > 0.05]
    late = [abs(r.model_late - r.simulated_late) for r in rows]
    plain = {(r.load_balancing, r.servers, r.load): r.model_late for r in rows if r.dispersion == r.variation == 1.0}
    mmc = [abs(plain[r.load_balancing, r.servers, r.load] - r.simulated_late) for r in rows]
    return {
        "p95_error_percent_mean": round(100 * float(np.mean(waits)), 2),
        "p95_error_percent_largest": round(100 * max(waits), 2),
        "late_error_points_mean": round(100 * float(np.mean(late)), 3),
        "late_error_points_largest": round(100 * max(late), 3),
        "mmc_late_error_points_mean": round(100 * float(np.mean(mmc)), 3),
    }
