"""The clairvoyant optimum of QueueScaling-v0 by dynamic programming over instances and the queue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError

_CHANGES = (-1, 0, 1)


def queue_scaling_optimum(
    influx: NDArray[np.int64],
    *,
    capacity: int = 87,
    min_instances: int = 2,
    max_instances: int = 100,
    start_instances: int = 50,
    bound_penalty: float = 0.1,
    longest_queue: int = 300,
) -> tuple[float, NDArray[np.int64]]:
    """The highest return when the influx is known, and actions that reach it.

    Exact among the actions that never leave more than `longest_queue` waiting: such a step costs nearly 1, so it matters only
    where overload cannot be avoided (a larger value then shows it). The early end of a hopeless episode is no way out either.

    Args:
        influx: (num_steps + 1,) requests a step; the first is shown at reset and never served.
        capacity: requests one instance serves in a step.
        min_instances: fewest instances.
        max_instances: most instances.
        start_instances: instances after the reset.
        bound_penalty: cost of a change that the bounds refuse.
        longest_queue: longest queue a plan may leave.

    Returns:
        The return and (num_steps,) action indices (0, 1, 2 = −1, 0, +1 instance).

    Raises:
        InputError: influx of another shape, or every plan leaves more waiting.

    Source:
        Rewards and their order: shared specification `golden/queue_scaling.py`.
    """
    influx = np.asarray(influx)
    if influx.ndim != 1 or len(influx) < 2 or influx.dtype.kind not in "iu" or (influx < 0).any():
        raise InputError(f"influx: {influx.dtype} {influx.shape} is not allowed; allowed: whole numbers from 0, (num_steps + 1,)")
    if not min_instances <= start_instances <= max_instances:
        raise InputError(f"start_instances: {start_instances} is not allowed; allowed: from {min_instances} to {max_instances}")
    steps = len(influx) - 1
    instances = np.arange(min_instances, max_instances + 1)
    served = (instances * capacity)[:, None]
    queue = np.arange(longest_queue + 1)
    row = np.arange(len(instances))
    landing = {change: np.clip(row + change, 0, len(row) - 1) for change in _CHANGES}
    refused = {change: row + change != landing[change] for change in _CHANGES}
    # best[n, q]: return to come when n instances serve next and q wait, the best of the three pending changes not yet drawn.
    value = {change: np.zeros((len(instances), len(queue))) for change in _CHANGES}
    choice = np.empty((steps, len(instances), len(queue)), dtype=np.int8)
    for s in range(steps, 0, -1):
        # A tie holds: no change that brings nothing is ever made.
        stacked = np.stack([value[0], value[1], value[-1]])
        choice[s - 1] = np.array([1, 2, 0], dtype=np.int8)[stacked.argmax(axis=0)]
        best = stacked.max(axis=0)
        work = influx[s] + queue
        processed = np.minimum(work, served)
        left = work - processed
        # Whole percentages as the environment rounds them: ⌈processed / capacity · 100⌉ in float64, in this order.
        idle = 1.0 - np.ceil(processed / served * 100.0) / 100.0
        waiting = left / (1.0 + left)
        kept = left <= longest_queue
        left = np.minimum(left, longest_queue)
        value = {}
        for change in _CHANGES:
            after = landing[change]
            reward = -idle * (instances[after] / max_instances)[:, None] - waiting - bound_penalty * refused[change][:, None]
            value[change] = np.where(kept, reward + best[after[:, None], left], -np.inf)
    start = start_instances - min_instances
    optimum = float(value[0][start, 0])
    if not np.isfinite(optimum):
        raise InputError(f"longest_queue: {longest_queue} is not allowed; every plan leaves more waiting at some step")
    actions, n, q, pending = np.empty(steps, dtype=np.int64), start, 0, 0
    for s in range(1, steps + 1):
        q = max(0, int(influx[s]) + q - int(served[n, 0]))
        n = int(landing[pending][n])
        actions[s - 1] = choice[s - 1, n, q]
        pending = _CHANGES[actions[s - 1]]
    return optimum, actions
