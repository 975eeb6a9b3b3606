"""Writes golden_cluster_deployment.npz: trajectories of the shared specification's executable reference, for tests to replay.

usage: python tests/data/make_golden_cluster_deployment.py [../shared/golden]

A trajectory ends with its episode; rows behind its end are NaN.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NUM_SCENARIOS, NUM_STEPS = 20, 100
NOTHING, UP, DOWN = range(3)
PARAMS = (
    {},
    {"max_pods": 7, "min_pods": 3},
    {"startup_steps": 1, "start_pods": 9},
    {"startup_steps": 5, "patience": 8, "start_pods": 20},
    {"min_pods": 4, "max_pods": 4, "start_pods": 4, "patience": 101},
)


def scenario(seed: int) -> dict:
    """Parameters, actions and what the world does: usual days, spikes, idleness, loads on thresholds, both bounds."""
    rng = np.random.default_rng(seed)
    loads = np.maximum(50.0, 500 + 300 * np.sin(np.arange(NUM_STEPS + 1) / 15) + rng.normal(0, 60, NUM_STEPS + 1))
    for start in rng.integers(1, NUM_STEPS - 10, 3):
        loads[start : start + 10] += rng.uniform(200, 3000)
    actions = rng.choice([NOTHING, UP, DOWN], NUM_STEPS, p=(0.4, 0.4, 0.2))
    cpu_noise, memory_noise = rng.uniform(-0.05, 0.05, NUM_STEPS), rng.uniform(-10e6, 10e6, NUM_STEPS)
    failed = rng.random(NUM_STEPS) < 0.05
    params = PARAMS[seed % len(PARAMS)]
    if seed == 5:
        actions[:60], actions[60:] = UP, DOWN
    elif seed == 6:
        params, actions[:], loads = {}, DOWN, loads / 4
    elif seed == 7:
        loads[::5] = 0.0
    elif seed == 8:
        # Without noise, loads at which CPU, memory and gradient meet their thresholds.
        cpu_noise[:] = memory_noise[:] = 0.0
        actions[:50] = NOTHING
        loads = rng.choice([312.5, 1562.5, 2031.25, 2187.5, 343.75, 300.0, 330.0, 270.0], NUM_STEPS + 1) * 4
    elif seed == 9:
        # Memory and swap: more load a pod than the rest meets.
        loads = rng.uniform(2000, 12000, NUM_STEPS + 1)
    elif seed == 10:
        failed[:] = True
    elif seed == 15:
        params, actions[:] = {"max_pods": 60, "start_pods": 30}, UP
    return {
        "params": params,
        "actions": actions,
        "loads": loads,
        "cpu_noise": cpu_noise,
        "memory_noise": memory_noise,
        "failed": failed,
    }


def fly(golden, inputs: dict) -> dict[str, np.ndarray]:
    """One scenario through the reference: observation (1 + steps, 7), pods, reward and terminated (steps,)."""
    service = golden.ClusterDeployment(max_steps=NUM_STEPS, **inputs["params"])
    out = {
        "observation": np.full((NUM_STEPS + 1, 7), np.nan),
        "pods": np.full(NUM_STEPS, np.nan),
        "reward": np.full(NUM_STEPS, np.nan),
        "terminated": np.zeros(NUM_STEPS, dtype=bool),
    }
    out["observation"][0] = service.reset(float(inputs["loads"][0]))
    for t in range(NUM_STEPS):
        given = (float(inputs["loads"][t + 1]), float(inputs["cpu_noise"][t]), float(inputs["memory_noise"][t]))
        observation, reward, terminated, truncated = service.step(int(inputs["actions"][t]), *given, bool(inputs["failed"][t]))
        out["observation"][t + 1], out["reward"][t], out["terminated"][t] = observation, reward, terminated
        out["pods"][t] = service.pods
        if terminated or truncated:
            break
    return out


def main(folder: Path) -> None:
    """Fly all scenarios."""
    sys.path.insert(0, str(folder))
    import cluster_deployment

    scenarios = [scenario(seed) for seed in range(NUM_SCENARIOS)]
    flown = [inputs | fly(cluster_deployment, inputs) for inputs in scenarios]
    fields = {f.name for f in dataclasses.fields(cluster_deployment.ClusterDeployment)} - {"max_steps"}
    params = [{name: getattr(cluster_deployment.ClusterDeployment, name) for name in fields} | s["params"] for s in scenarios]
    columns = {name: np.array([s[name] for s in flown]) for name in flown[0] if name != "params"}
    np.savez_compressed(HERE / "golden_cluster_deployment.npz", params=np.array(json.dumps(params)), **columns)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "golden")
