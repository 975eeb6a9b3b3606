"""Writes golden_resource_manager.npz: trajectories of the shared specification's executable reference, for tests to replay.

usage: python tests/data/make_golden_resource_manager.py [../shared/golden]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NUM_SCENARIOS, NUM_STEPS = 20, 100


def scenario(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(actions, rate factors): mostly random; three climb to a bound and stay there, three lean on the instance bounds."""
    rng = np.random.default_rng(seed)
    actions, factors = rng.integers(0, 3, NUM_STEPS), rng.uniform(0.8, 1.2, NUM_STEPS)
    if seed == 1:
        factors[:] = 1.2
    elif seed == 2:
        factors[:] = 0.8
    elif seed == 3:
        factors[:] = 1.0
    elif seed in (4, 5):
        actions[:] = seed - 3
    elif seed == 6:
        actions[:] = 0
    return actions, factors


def main(folder: Path) -> None:
    """Fly all scenarios."""
    sys.path.insert(0, str(folder))
    import resource_manager

    arrays: dict[str, list] = {"actions": [], "rate_factors": [], "observation": [], "reward": [], "ended": [], "instances": []}
    for seed in range(NUM_SCENARIOS):
        actions, factors = scenario(seed)
        service = resource_manager.ResourceManager()
        observation, instances = [service.reset()], []
        steps = []
        for action, factor in zip(actions.tolist(), factors.tolist(), strict=True):
            steps.append(service.step(action, factor))
            observation.append(steps[-1][0])
            instances.append(service.instances)
        values = (actions, factors, observation, [s[1] for s in steps], [s[2] for s in steps], instances)
        for column, value in zip(arrays.values(), values, strict=True):
            column.append(value)
    np.savez_compressed(HERE / "golden_resource_manager.npz", **{name: np.array(column) for name, column in arrays.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "golden")
