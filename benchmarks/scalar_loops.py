"""One environment at a time in a Python loop: the rival of every environment, and the actions both sides take.

A loop starts an episode anew where one ends. Actions and, unless its function says otherwise, inputs are drawn beforehand.
"""

from __future__ import annotations

import importlib
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"

Loop = Callable[[Any, np.random.Generator, int], float]
Actions = Callable[[np.random.Generator, int, int], NDArray[np.int64]]


def _uniform(num_actions: int) -> Actions:
    def draw(rng: np.random.Generator, steps: int, num_envs: int) -> NDArray[np.int64]:
        return rng.integers(0, num_actions, (steps, num_envs))

    return draw


def _near_the_start(rng: np.random.Generator, steps: int, num_envs: int) -> NDArray[np.int64]:
    """A random walk within three instances of the start.

    Under uniform actions every third queue overflows, and how long episodes last decides more than what a step costs.
    """
    free = rng.integers(-1, 2, (steps, num_envs)).cumsum(axis=0)
    folded = 3 - np.abs(free % 6 - 3)
    return np.diff(folded, axis=0, prepend=np.zeros((1, num_envs), dtype=np.int64)) + 1


def _autoscale(scalar: Any, rng: np.random.Generator, steps: int) -> float:
    rates = rng.uniform(50, 500, steps)
    arrived = rng.poisson(rates * 15.0).astype(float).tolist()
    actions = rng.integers(0, 8, steps).tolist()
    service = scalar()
    service.reset(float(rates[0]))
    begin = time.perf_counter()
    for action, rate, count in zip(actions, rates.tolist(), arrived, strict=True):
        service.step(service.target_of(action), rate, count)
    return time.perf_counter() - begin


def _grid_world(scalar: Any, rng: np.random.Generator, steps: int) -> float:
    actions = rng.integers(0, 4, steps).tolist()
    walker = scalar()
    walker.reset()
    begin = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = walker.step(action)
        if terminated or truncated:
            walker.reset()
    return time.perf_counter() - begin


def _resource_manager(scalar: Any, rng: np.random.Generator, steps: int) -> float:
    actions, factors = rng.integers(0, 3, steps).tolist(), rng.uniform(0.8, 1.2, steps).tolist()
    service = scalar()
    service.reset()
    begin = time.perf_counter()
    for action, factor in zip(actions, factors, strict=True):
        if service.step(action, factor)[2]:
            service.reset()
    return time.perf_counter() - begin


def _queue_scaling(scalar: Any, rng: np.random.Generator, steps: int) -> float:
    actions = _near_the_start(rng, steps, 1)[:, 0].tolist()
    queue = scalar()
    queue.reset()
    begin = time.perf_counter()
    for action in actions:
        if queue.step(action)[2] or queue.step_index >= 200:
            queue.reset()
    return time.perf_counter() - begin


def _function_workflow(scalar: Any, rng: np.random.Generator, steps: int) -> float:
    actions = rng.integers(0, 3, steps).tolist()
    seconds = np.arange(0.0, 240.0, 0.05)
    swing = np.sin(2 * math.pi * (seconds % 60) / 60)
    fast = np.sin(2 * math.pi * 4 * (seconds % 60) / 60)
    rate = 5.0 * np.select([seconds < 60, seconds < 120, seconds < 180], [0.3, 1.5, 1 + 0.5 * swing], 1 + 0.7 * fast)
    episodes = []
    for _ in range(steps // 30 + 1):
        arrivals = np.repeat(seconds, rng.poisson(rate * 0.05))
        services = np.clip(rng.gamma(4.0, 1.5 / 4, len(arrivals)), 0.05, 15.0)
        episodes.append(list(zip(arrivals.tolist(), services.tolist(), strict=True)))
    queue = scalar()
    queue.reset(episodes.pop())
    begin = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated = queue.step(action)
        if terminated or truncated:
            queue.reset(episodes.pop() if len(episodes) > 1 else episodes[0])
    return time.perf_counter() - begin


def _cluster_deployment(scalar: Any, rng: np.random.Generator, steps: int) -> float:
    """Load, noise and failures belong to this world and change every step: the loop draws them, as the batch does."""
    base_load = getattr(sys.modules[scalar.__module__], "base_load")  # noqa: B009 - of whichever module the class is from
    actions = rng.integers(0, 3, steps).tolist()
    draw = random.Random(0)
    deployment = scalar()
    deployment.reset(500.0)
    begin = time.perf_counter()
    for action in actions:
        load = base_load(deployment.step_index + 1, noise=draw.gauss(0.0, 25.0))
        noise = draw.uniform(-0.05, 0.05), draw.uniform(-10e6, 10e6)
        _, _, terminated, truncated = deployment.step(action, load, *noise, draw.random() < 0.05)
        if terminated or truncated:
            deployment.reset(base_load(0, noise=draw.gauss(0.0, 25.0)))
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Rival:
    """How an environment is measured.

    Attributes:
        module: of the specification's reference in ../shared/golden; "" where it has none.
        own_module: of the same in benchmarks/.
        name: of the class in both.
        loop: (class, generator, steps) → seconds.
        actions: (generator, steps, num_envs) → (steps, num_envs) for the batch.
        batch_steps: steps of the batch; whole episodes and more.
        loop_steps: steps of the loop.
    """

    module: str
    own_module: str
    name: str
    loop: Loop
    actions: Actions
    batch_steps: int
    loop_steps: int

    def scalar(self) -> tuple[Any, str]:
        """The class, and where it stands."""
        if self.module and (GOLDEN / f"{self.module}.py").is_file():
            sys.path.insert(0, str(GOLDEN))
            try:
                return getattr(importlib.import_module(self.module), self.name), f"shared specification, golden/{self.module}.py"
            finally:
                sys.path.remove(str(GOLDEN))
        return getattr(importlib.import_module(f"benchmarks.{self.own_module}"), self.name), f"benchmarks/{self.own_module}.py"


RIVALS = {
    "Autoscale-v0": Rival("autoscale", "scalar_service", "Autoscale", _autoscale, _uniform(8), 200, 2000),
    "QueueScaling-v0": Rival(
        "queue_scaling", "scalar_queue_scaling", "QueueScaling", _queue_scaling, _near_the_start, 1000, 20_000
    ),
    "ResourceManager-v0": Rival(
        "resource_manager", "scalar_resource_manager", "ResourceManager", _resource_manager, _uniform(3), 1000, 20_000
    ),
    "FunctionWorkflow-v0": Rival(
        "function_workflow", "scalar_function_workflow", "FunctionWorkflow", _function_workflow, _uniform(3), 62, 300
    ),
    "ClusterDeployment-v0": Rival(
        "cluster_deployment", "scalar_cluster_deployment", "ClusterDeployment", _cluster_deployment, _uniform(3), 500, 10_000
    ),
    "GridWorld-v0": Rival("", "scalar_grid_world", "GridWorld", _grid_world, _uniform(4), 1000, 20_000),
}
