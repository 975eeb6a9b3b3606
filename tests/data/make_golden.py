"""Writes the trajectories that tests replay, from the shared specification's executable reference.

usage: python tests/data/make_golden.py [../shared/golden]

golden_autoscale.npz   20 scenarios of golden/autoscale.py: inputs and what one environment answered, float64
golden_protocol.npz    J by (window, seed) of golden/protocol.py's rules on a small synthetic series
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NUM_SCENARIOS, NUM_STEPS, NUM_MOVES = 20, 160, 8
WINDOWS, WINDOW_STEPS, SEEDS = 4, 480, (0, 1, 2)

# One a scenario, over and over: the defaults, start-up times off the grid, tight bounds, prices, windows, an idle SLO.
PARAMS = (
    {},
    {"startup_seconds": 15.0, "price_per_move": 0.02},
    {"startup_seconds": 50.0, "replica_capacity_rps": 7.5, "max_replicas": 20},
    {"startup_seconds": 150.0, "max_wait_seconds": 3.0, "price_per_late_request": 0.01},
    {"startup_seconds": 300.0, "min_replicas": 3, "max_replicas": 12, "price_per_move": 0.1},
    {"interval_seconds": 60.0, "startup_seconds": 90.0, "history_steps": 3, "window_steps": 5},
    {"wait_slo_seconds": 0.0, "max_wait_seconds": 0.0, "service_time_seconds": 0.4},
    {"replica_capacity_rps": 130.0, "max_replicas": 500, "price_per_replica_hour": 0.07, "startup_seconds": 110.0},
    {
        "interval_seconds": 7.5,
        "startup_seconds": 31.0,
        "window_steps": 11,
        "history_steps": 11,
        "min_replicas": 5,
        "max_replicas": 5,
    },
    {"wait_slo_seconds": 2.0, "max_wait_seconds": 120.0, "price_per_move": 0.001},
)


def scenario(seed: int) -> dict:
    """Inputs of one scenario: parameters, rates, arrivals and how it is steered."""
    rng = np.random.default_rng(seed)
    values = PARAMS[seed % len(PARAMS)]
    capacity = values.get("replica_capacity_rps", 20.0) * min(60, values.get("max_replicas", 60))
    interval = values.get("interval_seconds", 15.0)
    rates = capacity * rng.uniform(0.0, 0.9, NUM_STEPS)
    rates[40:60] = capacity * rng.uniform(1.0, 2.5, 20)  # overload: the backlog fills and requests are dropped
    rates[90:100] = 0.0
    rates[rng.integers(1, NUM_STEPS, 5)] = 0.0
    if seed == 7:
        rates[0] = 0.0
    exact = seed % 4 == 0
    arrived = rates * interval if exact else rng.poisson(rates * interval).astype(float)
    by_action = seed < NUM_SCENARIOS // 2
    if by_action:
        controls = rng.integers(0, NUM_MOVES, NUM_STEPS)
        controls[100:112], controls[112:124] = NUM_MOVES - 1, 0  # to the upper bound and beyond, and down again
    else:
        controls = rng.integers(0, 70, NUM_STEPS)
        controls[::9] = rng.choice([0, -5, 1, 60, 61, 10**6], len(controls[::9]))
    return {"params": values, "rates": rates, "arrived": arrived, "exact": exact, "by_action": by_action, "controls": controls}


def fly(golden, inputs: dict) -> dict[str, np.ndarray]:
    """One scenario through the reference; fields are (1 + steps, num_fields), the rest (steps,)."""
    service = golden.Autoscale(golden.Params(**inputs["params"]))
    fields = [service.reset(float(inputs["rates"][0]))]
    steps = []
    for rate, arrived, control in zip(inputs["rates"], inputs["arrived"], inputs["controls"], strict=True):
        target = service.target_of(int(control)) if inputs["by_action"] else int(control)
        given = None if inputs["exact"] else float(arrived)
        steps.append(service.step(target, float(rate), given))
        fields.append(steps[-1]["observation"])
    columns = {name: np.array([step[name] for step in steps]) for name in ("J", "late", "dropped", "billed_replicas", "change")}
    return columns | {"fields": np.array([list(f.values()) for f in fields], dtype=np.float64)}


def synthetic_windows() -> np.ndarray:
    """(WINDOWS, WINDOW_STEPS) rates in requests/s: a swing, autocorrelated noise and a flash crowd."""
    rng = np.random.default_rng(99)
    t = np.arange(WINDOWS * WINDOW_STEPS)
    noise = np.convolve(rng.normal(0, 0.2, len(t) + 19), np.ones(20) / np.sqrt(20), mode="valid")
    rates = (200 + 140 * np.sin(2 * np.pi * t / 700)) * np.exp(noise)
    rates[600:640] *= 2.2
    return rates.reshape(WINDOWS, WINDOW_STEPS)


def protocol_rules(protocol) -> dict:
    """Row label → (description for the product's rule, the reference's rule)."""
    hpa = {
        "hpa_default": ("cpu", 0.7, 0.1, 300, 0),
        "hpa_cpu": ("cpu", 0.57, 0.02, 600, 60),
        "hpa_rps": ("rps", 0.57, 0.02, 600, 60),
        "hpa_rps_quick": ("rps", 0.4, 0.0, 60, 0),
    }
    rules = {name: ({"hpa": list(args)}, protocol.hpa(*args)) for name, args in hpa.items()}
    return rules | {"look_ahead": ({"look_ahead": 0.8}, protocol.look_ahead(0.8))}


def main(folder: Path) -> None:
    """Write both files."""
    sys.path.insert(0, str(folder))
    import autoscale
    import protocol

    arrays: dict[str, np.ndarray] = {}
    descriptions = []
    for seed in range(NUM_SCENARIOS):
        inputs = scenario(seed)
        params = dataclasses.asdict(autoscale.Params(**inputs["params"]))
        descriptions.append({"params": params, "exact": inputs["exact"], "by_action": inputs["by_action"]})
        inputs_kept = {name: inputs[name] for name in ("rates", "arrived", "controls")}
        arrays |= {f"{seed}/{name}": values for name, values in {**inputs_kept, **fly(autoscale, inputs)}.items()}
    np.savez_compressed(HERE / "golden_autoscale.npz", scenarios=np.array(json.dumps(descriptions)), **arrays)

    windows = synthetic_windows()
    arrivals = np.stack([np.random.default_rng(s).poisson(windows * protocol.P.interval_seconds) for s in SEEDS])
    rules = protocol_rules(protocol)
    scores = {f"J/{name}": protocol.run(windows, rule, SEEDS)[3] for name, (_, rule) in rules.items()}
    described = json.dumps({name: description for name, (description, _) in rules.items()})
    np.savez_compressed(
        HERE / "golden_protocol.npz", windows=windows, arrived=arrivals.astype(np.int32), rules=np.array(described), **scores
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "golden")
