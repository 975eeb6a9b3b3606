"""Writes golden_function_workflow.npz: trajectories of the shared specification's executable reference, for tests to replay.

usage: python tests/data/make_golden_function_workflow.py [../shared/golden]

Arrivals are drawn here by thinning, not with the environment's own generator. Rows behind an episode's end are NaN.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NUM_SCENARIOS, NUM_STEPS = 20, 30
LESS, HOLD, MORE = range(3)
PARAMS = (
    {},
    {"initial_workers": 15},
    {"initial_workers": 30},
    {"initial_workers": 4, "min_workers": 3, "max_workers": 6},
    {"step_seconds": 3.7, "initial_workers": 10},
)


def drawn_tasks(golden, rng: np.random.Generator) -> np.ndarray:
    """(tasks, 2) arrival and service seconds; single precision, so that they take little room."""
    highest = 1.7 * golden.BASE_PER_MINUTE / 60
    length = len(golden.PHASES) * golden.PHASE_SECONDS
    candidates = np.sort(rng.uniform(0, length, rng.poisson(highest * length)))
    kept = [a for a in candidates.tolist() if rng.random() * highest < golden.rate_per_second(a)]
    services = np.clip(rng.gamma(4.0, 1.5 / 4, len(kept)), 0.05, 15.0)
    return np.column_stack([kept, services]).astype(np.float32).astype(np.float64)


def scenario(golden, seed: int) -> dict:
    """Parameters, tasks and actions: usual workloads, bursts, ties on the edges of steps, early ends, both bounds."""
    rng = np.random.default_rng(seed)
    tasks, params = drawn_tasks(golden, rng), PARAMS[seed % len(PARAMS)]
    actions = rng.choice([LESS, HOLD, MORE], NUM_STEPS, p=(0.3, 0.35, 0.35))
    if seed == 5:
        actions[:] = MORE
    elif seed == 6:
        actions[:] = LESS
    elif seed == 7:
        tasks = tasks[tasks[:, 0] < 40.0]  # done early
    elif seed == 8:
        # Half seconds: tasks that arrive, begin and complete on the very edges of steps.
        tasks, params = np.round(tasks * 2) / 2 + np.array([0.0, 0.5]), {}
    elif seed == 9:
        tasks, params = np.array([[0.0, 0.05], [8.0, 2.0], [8.0, 8.0], [100.0, 300.0]]), {}
    elif seed == 10:
        tasks[100:300, 0] = tasks[100, 0]  # all at once
    elif seed == 11:
        tasks[:, 1] *= 8
    elif seed == 12:
        tasks = np.array([[3.0, 1.0]])
    elif seed == 13:
        actions[::2], actions[1::2] = MORE, LESS
    return {"params": params, "tasks": tasks, "actions": actions}


def fly(golden, inputs: dict) -> dict[str, np.ndarray]:
    """One scenario through the reference: observation (1 + steps, 9), reward, final_qos and terminated (steps,)."""
    service = golden.FunctionWorkflow(max_steps=NUM_STEPS, **inputs["params"])
    out = {
        "observation": np.full((NUM_STEPS + 1, 9), np.nan),
        "reward": np.full(NUM_STEPS, np.nan),
        "final_qos": np.full(NUM_STEPS, np.nan),
        "terminated": np.zeros(NUM_STEPS, dtype=bool),
    }
    out["observation"][0] = list(service.reset([(a, s) for a, s in inputs["tasks"].tolist()]).values())
    for t, action in enumerate(inputs["actions"].tolist()):
        observation, reward, terminated, truncated = service.step(action)
        out["observation"][t + 1] = list(observation.values())
        out["reward"][t], out["terminated"][t], out["final_qos"][t] = reward, terminated, service.final_qos()
        if terminated or truncated:
            break
    return out


def main(folder: Path) -> None:
    """Fly all scenarios."""
    sys.path.insert(0, str(folder))
    import function_workflow

    arrays: dict[str, np.ndarray] = {}
    scenarios = [scenario(function_workflow, seed) for seed in range(NUM_SCENARIOS)]
    for seed, inputs in enumerate(scenarios):
        # A worker's times are halves and the like or single precision: nothing is lost.
        kept = {"tasks": inputs["tasks"].astype(np.float32), "actions": inputs["actions"].astype(np.int8)}
        inputs["tasks"] = kept["tasks"].astype(np.float64)
        arrays |= {f"{seed}/{name}": values for name, values in (kept | fly(function_workflow, inputs)).items()}
    params = json.dumps([s["params"] for s in scenarios])
    np.savez_compressed(HERE / "golden_function_workflow.npz", params=np.array(params), **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "golden")
