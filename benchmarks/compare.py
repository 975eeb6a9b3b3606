"""Eight policies on five workloads, 20 seeds of one window of 1,440 steps each: seconds to run and to compare them.

Run as `scalepilot compare` runs them, one process a core; the clairvoyant optimum is timed apart, once cold and once from its
cache. The rival is the same service and a rule as plain Python, one episode at a time (`scalar_service.py`), on a share of the
steps; both are per step of one episode.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORKLOADS = ("spike", "sinusoidal", "random_walk", "poisson", "diurnal")
POLICIES = ("static", "threshold", "tracking", "hpa", "kpa", "forecast_mpc", "never", "random")
SEEDS, STEPS, WINDOWS, LOOPED_STEPS = 20, 1440, 1, 20_000


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Run, compare, plan; then the loop."""
    from scalepilot.evaluate.baselines import find_rules
    from scalepilot.evaluate.evaluation import Lineup, LineupRow, OptimumOptions, evaluate_lineups, optimum_of
    from scalepilot.evaluate.lineup import gather
    from scalepilot.evaluate.suite import compare_suite
    from scalepilot.experiments.compare import Extent, scenarios
    from scalepilot.simulate import ProcessExecutor, usable_cores

    on = scenarios(gather([]), WORKLOADS, extent=Extent(windows=WINDOWS, steps=STEPS, arrival_seeds=SEEDS))
    with ProcessExecutor(usable_cores()) as executor:
        rules = find_rules(POLICIES, on, 0, executor)
        lineups = [
            Lineup(scenario, tuple(LineupRow.single(rule.spec.name, "policy", rule) for rule in found))
            for scenario, found in zip(on, rules, strict=True)
        ]
        begin = time.perf_counter()
        comparisons, _ = evaluate_lineups(lineups, executor, bootstrap_samples=2000)
        compare_suite(comparisons)
        seconds = time.perf_counter() - begin
        planning = []
        with tempfile.TemporaryDirectory() as cache:
            for _ in range(2):
                begin = time.perf_counter()
                for scenario in on:
                    optimum_of(scenario.traffic, scenario.env.params, OptimumOptions(Path(cache)), executor)
                planning.append(time.perf_counter() - begin)
    steps = len(POLICIES) * len(WORKLOADS) * SEEDS * WINDOWS * STEPS
    looped = _looped_steps_per_second()
    figures = {
        "policies": len(POLICIES),
        "workloads": len(WORKLOADS),
        "seeds": SEEDS,
        "steps": STEPS,
        "processes": usable_cores(),
        "seconds": round(seconds, 1),
        "steps_per_second": round(steps / seconds),
        "optimum_seconds": round(planning[0], 1),
        "optimum_cached_seconds": round(planning[1], 1),
        "python_loop_steps_per_second": round(looped),
    }
    return figures, {"vs_python_loop": round(steps / seconds / looped, 1)}


def _looped_steps_per_second() -> float:
    """Plain HPA's formula on the scalar service, the rates of the first workload's kind."""
    from benchmarks.scalar_service import Autoscale

    rates = 200 + 100 * np.sin(np.arange(LOOPED_STEPS) / 200)
    arrived = np.random.default_rng(0).poisson(15 * rates).astype(float).tolist()
    service = Autoscale()
    service.reset(float(rates[0]))
    target = 10
    begin = time.perf_counter()
    for rate, requests in zip(rates.tolist(), arrived, strict=True):
        service.step(target, rate, requests)
        ratio = service.cpu / 0.7
        target = math.ceil(ratio * service.ready) if abs(1 - ratio) > 0.1 else target
    return LOOPED_STEPS / (time.perf_counter() - begin)
