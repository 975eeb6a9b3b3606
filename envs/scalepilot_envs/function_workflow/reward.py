"""The reward of FunctionWorkflow-v0, from what a step has brought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.function_workflow.params import FunctionWorkflowParams

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
GOOD_QOS = 0.95
_FULL_QUEUE, _SHORT_QUEUE, _AMPLE_WORKERS, _MOST_PENDING = 30.0, 8, 14, 30


@dataclass(frozen=True)
class WorkflowStep:
    """What a step has brought, each (n,).

    Attributes:
        qos: share of the step's completed tasks that met their deadline.
        queue: tasks that wait for a worker.
        workers: serving and ordered.
        change: in workers, by this step's action.
        pending: tasks that have arrived and are not complete.
        late: tasks completed in the step after their deadline.
        terminated, truncated: the episode is over.
    """

    qos: Array
    queue: Counts
    workers: Counts
    change: Counts
    pending: Counts
    late: Counts
    terminated: Flags
    truncated: Flags


def reward_of(params: FunctionWorkflowParams, step: WorkflowStep) -> Array:
    """(n,) the reward that the parameters choose."""
    reward: Array = np.zeros(len(step.qos))
    reward -= params.worker_price * step.workers
    if params.reward == "late_tasks":
        reward -= step.late + step.pending * step.truncated
    else:
        reward += _source_reward(step)
    return reward


def _source_reward(step: WorkflowStep) -> Array:
    change, load = step.change, step.queue / _FULL_QUEUE
    good = step.qos >= GOOD_QOS
    overloaded = (load > 1) | ~good
    excess = np.maximum(0.0, load - 1)
    idle = np.maximum(0, step.workers - _AMPLE_WORKERS) * ((step.queue <= _SHORT_QUEUE) & good)
    reward: Array = 36 * (step.qos - GOOD_QOS) - 2.5 * excess * excess - 0.05 * idle - 0.08 * np.abs(change)
    reward += 5.5 * ((change > 0) & overloaded) + 0.1 * ((change < 0) & ~overloaded) + 3.6 * (good & (load <= 0.5))
    reward += 8 * step.terminated - 2 * np.minimum(step.pending, _MOST_PENDING) * step.truncated
    return reward
