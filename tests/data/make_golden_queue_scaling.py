"""Writes golden_queue_scaling.npz: trajectories of the shared specification's executable reference, for tests to replay.

usage: python tests/data/make_golden_queue_scaling.py [../shared/golden]

The reference computes its influx; here it reads one that is given, so that any workload, an overflow and the bounds are replayed.
patterns/NAME holds its own influx of the patterns without chance.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NUM_SCENARIOS, NUM_STEPS, PATTERN_STEPS = 20, 200, 1200
PATTERNS = ("SINE_CURVE", "SINUSOIDAL", "STEADY", "SPIKE")


def scenario(queue_scaling, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(actions, influx): the four patterns, then random counts, an idle service, an overflow and both bounds."""
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, 3, NUM_STEPS)
    if seed < len(PATTERNS):
        influx = np.array([queue_scaling.influx_of(PATTERNS[seed], s) for s in range(NUM_STEPS + 1)])
    else:
        influx = rng.integers(500, 4351, NUM_STEPS + 1)
    if seed in (4, 5):
        actions[:] = 2 * (seed - 4)
    elif seed == 6:
        influx[:] = 0
    elif seed == 7:
        actions[:] = 0
        influx[:] = 4350
    elif seed == 8:
        influx[::7] = 0
        actions[:120], actions[120:] = 0, 2
    elif seed == 9:
        influx[:] = 87 * 50
        actions[:] = 1
    return actions, influx


def main(folder: Path) -> None:
    """Fly all scenarios."""
    sys.path.insert(0, str(folder))
    import queue_scaling

    patterns = {f"patterns/{p}": [queue_scaling.influx_of(p, s) for s in range(PATTERN_STEPS)] for p in PATTERNS}
    scenarios = [scenario(queue_scaling, seed) for seed in range(NUM_SCENARIOS)]
    columns: dict[str, list] = {"observation": [], "reward": [], "terminated": []}
    for actions, influx in scenarios:
        counts = influx.tolist()
        queue_scaling.influx_of = lambda pattern, step, counts=counts: counts[step]
        service = queue_scaling.QueueScaling()
        observation, steps = [service.reset()], []
        for action in actions.tolist():
            steps.append(service.step(action))
            observation.append(steps[-1][0])
        values = (observation, [s[1] for s in steps], [s[2] for s in steps])
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    given = {"actions": [a for a, _ in scenarios], "influx": [i for _, i in scenarios]}
    arrays = {name: np.array(column) for name, column in (patterns | given | columns).items()}
    np.savez_compressed(HERE / "golden_queue_scaling.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "golden")
