"""The clairvoyant optimum of one 8-hour window of the demo workload: seconds, memory, and how far apart its bounds are.

The rival is the same recursion as plain Python loops over replicas and backlogs (`_looped_bound`), on fewer of both and a few
steps, so that it ends. Its cost is per cell update (steps × replicas before × replicas after × backlogs): a loop tries all
pairs of replicas, which is what two running minima spare, so the ratio grows with the replicas. Both are timed on that
reduced problem, where they must agree, and nothing is extrapolated.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

REDUCED_REPLICAS, REDUCED_STEPS, ROUNDS = 12, 40, 3
_MEASURE = """
import resource, sys, time
from benchmarks.optimum import demo_window
from scalepilot.simulate import autoscale_optimum
from scalepilot_envs.autoscale import AutoscaleParams
window = demo_window()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.perf_counter()
optimum = autoscale_optimum(window, AutoscaleParams())
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, peak / (2**20 if sys.platform == "darwin" else 2**10), optimum.gap[0], optimum.lower_J_per_hour[0])
"""


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """The whole window in processes of their own (peak memory is a process's), the reduced one beside its rival; medians."""
    measured = [[float(word) for word in _measured()] for _ in range(ROUNDS)]
    ratios = [_ratio_on_the_reduced_problem() for _ in range(ROUNDS)]
    figures = {
        "num_steps": 1920,
        "max_replicas": 60,
        "rounds": ROUNDS,
        "seconds": round(statistics.median(row[0] for row in measured), 2),
        "peak_memory_mib": round(max(row[1] for row in measured)),
        "gap_between_bounds": max(row[2] for row in measured),
        "lower_J_per_hour": measured[0][3],
        "ratio_at": f"{REDUCED_STEPS} steps, {REDUCED_REPLICAS} replicas",
        "ratio_lowest": round(min(ratios), 1),
        "ratio_highest": round(max(ratios), 1),
    }
    return figures, {"vs_python_loop": round(statistics.median(ratios), 1)}


def demo_window() -> Any:
    """The first test window of the demo workload, seed 0."""
    from scalepilot.simulate import poisson_episodes
    from scalepilot_envs.workloads import DiurnalWorkload, part_of

    series = part_of(DiurnalWorkload(), "test", 15.0)
    return poisson_episodes("demo", series, series.window_starts(1920)[:1], 1920, (0,))


def _measured() -> list[str]:
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    return done.stdout.split()


def _ratio_on_the_reduced_problem() -> float:
    from scalepilot.simulate.optimum.ready_replicas import Service, plan_ready_replicas
    from scalepilot_envs.autoscale import AutoscaleParams

    params = AutoscaleParams(max_replicas=REDUCED_REPLICAS)
    arrived = np.random.default_rng(0).poisson(150.0 * 15.0, REDUCED_STEPS).astype(float)
    begin = time.perf_counter()
    fast = plan_ready_replicas(params, arrived, 11.0)
    middle = time.perf_counter()
    slow = _looped_bound(params, arrived.tolist(), 11, Service(params).grid.points.tolist())
    end = time.perf_counter()
    if abs(fast.lower_J / slow - 1.0) > 1e-9:
        raise RuntimeError(f"the loop finds {slow}, the product {fast.lower_J}")
    return (end - middle) / (middle - begin)


def _looped_bound(params: Any, arrived: list[float], ready_at_start: int, points: list[float]) -> float:
    """The lower bound as one would write it down; late shares come from the product's own function, step by step for all."""
    import bisect

    from scalepilot.simulate.optimum.ready_replicas import late_and_left

    choices = range(params.min_replicas, params.max_replicas + 1)
    price = params.price_per_replica_hour * params.interval_seconds / 3600.0
    order = params.startup_steps * price + params.price_per_move
    ready = np.array(choices, dtype=float)[:, None]
    values = [[0.0] * len(points) for _ in choices]
    for t in reversed(range(len(arrived))):
        grids = late_and_left(params, np.asarray(arrived[t]), ready, ready * params.replica_capacity_rps, np.array(points))
        late, left = (grid.tolist() for grid in grids)
        stage = [
            [
                price * y + params.price_per_late_request * late[i][j] + values[i][bisect.bisect_right(points, left[i][j]) - 1]
                for j in range(len(points))
            ]
            for i, y in enumerate(choices)
        ]
        values = [
            [
                min(
                    stage[i][j] + (order * (y - before) if y > before else params.price_per_move * (before - y))
                    for i, y in enumerate(choices)
                    if y <= before or t >= params.startup_steps
                )
                for j in range(len(points))
            ]
            for before in choices
        ]
    return values[ready_at_start - params.min_replicas][0]
