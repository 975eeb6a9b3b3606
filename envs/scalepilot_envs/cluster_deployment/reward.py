"""The reward of ClusterDeployment-v0, which is a table: everything but the share of swap comes in a few levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.cluster_deployment.measurement import CPU, MEMORY, ONE, SWAP
from scalepilot_envs.cluster_deployment.params import POD_LOAD_REQUESTS, POD_LOAD_TARGET_SHARE, ClusterDeploymentParams

Array = NDArray[np.float64]

NUM_ACTIONS = 3
NOTHING, UP, DOWN = range(NUM_ACTIONS)

# A value's level is how many of these it exceeds; CPU of exactly 0.3 is no longer in the lowest.
CPU_EDGES = tuple(np.array(edge) for edge in (np.nextafter(0.3, 0.0), 0.7, 0.85, 0.9))
MEMORY_EDGES = tuple(np.array(edge) for edge in (0.85, 0.9))
SWAP_EDGE, SWAP_WEIGHT = 0.1, 0.4
END_REWARD = -5.0

# A load that changes by more than this share makes one way to scale right.
_RISE = 0.1
MINUS_ONE = np.array(-1.0)

# By CPU level and action. Levels 3 and 4 differ only in the penalty for more than 0.9.
_CPU = ((-0.1, -0.2, 0.2), (0.3, 0.1, 0.1), (0.0, 0.2, -0.2), (-0.4, 0.4, -0.4), (-0.4, 0.4, -0.4))
_MEMORY_HIGH = (-0.3, 0.3, -0.3)
_COST = (0.0, 0.05, 0.02)

OVERLOADED_CPU, OVERLOADED_MEMORY = len(CPU_EDGES), len(MEMORY_EDGES)
NUM_CPU_LEVELS, NUM_MEMORY_LEVELS = len(CPU_EDGES) + 1, len(MEMORY_EDGES) + 1
_SHAPE = (NUM_CPU_LEVELS, NUM_MEMORY_LEVELS, NUM_ACTIONS, NUM_ACTIONS, 2)
LEVELS_STRIDE, ACTION_STRIDE, RIGHT_STRIDE = (int(np.prod(_SHAPE[i:])) for i in (2, 3, 4))


def reward_table() -> NDArray[np.float64]:
    """Rewards before swap and clipping, flat.

    Returns:
        (CPU levels × memory levels × actions × right actions × 2,): the index is (CPU level × NUM_MEMORY_LEVELS + memory
        level) × LEVELS_STRIDE + action × ACTION_STRIDE + right action (0 where the load hardly moves) × RIGHT_STRIDE + [pods
        are ideal].

    Source:
        shared specification `golden/cluster_deployment.py`; terms in its order, so that sums round as its do.
    """
    table = np.zeros(_SHAPE)
    for index in np.ndindex(_SHAPE):
        cpu, memory, action, right, ideal = index
        reward = -0.1 + _CPU[cpu][action]
        if memory > 0:
            reward += _MEMORY_HIGH[action]
        if ideal:
            reward += 0.3
        if right:
            reward += 0.3 if action == right else -0.3 if action == 3 - right else 0.0
        reward -= 0.5 * (cpu == OVERLOADED_CPU) + 0.8 * (memory == OVERLOADED_MEMORY) + _COST[action]
        table[index] = reward
    return table.reshape(-1)


def level(values: NDArray[np.float64], edges: Sequence[NDArray[np.float64]]) -> NDArray[np.int8]:
    """How many edges each value exceeds; a few comparisons take less time than a search."""
    levels = (values > edges[0]).view(np.int8)
    for edge in edges[1:]:
        levels += (values > edge).view(np.int8)
    return levels


class DeploymentReward:
    """Reward and end of a step, from what was measured in it.

    Args:
        params: bounds of the pods, and the patience.
    """

    def __init__(self, params: ClusterDeploymentParams) -> None:
        self._rewards, self._index_of_action = reward_table(), np.arange(NUM_ACTIONS) * ACTION_STRIDE
        self._least, self._most = np.array(float(params.min_pods)), np.array(float(params.max_pods))
        self._patience = params.patience

    def __call__(
        self, actions: NDArray[Any], load: Array, load_before: Array, pods: Array, fields: Array, overloaded_steps: Array
    ) -> tuple[Array, NDArray[np.bool_], Array]:
        """Judge a step.

        Args:
            actions: (n,) as in the module of the environment.
            load: (n,) requests of the step.
            load_before: (n,) of the step before.
            pods: (n,) ready and starting.
            fields: (NUM_FIELDS, n) measured in the step.
            overloaded_steps: (n,) in a row until then.

        Returns:
            (n,) reward, whether the episode terminates, and the overloaded steps in a row by now.
        """
        # Small numbers as long as possible: numpy works on eight times as many at once.
        cpu_level, memory_level = level(fields[CPU], CPU_EDGES), level(fields[MEMORY], MEMORY_EDGES)
        levels = cpu_level * NUM_MEMORY_LEVELS
        levels += memory_level
        gradient = load - load_before
        gradient /= np.maximum(load_before, ONE)
        falls = (gradient < -_RISE).view(np.int8)
        right = (gradient > _RISE).view(np.int8)
        right += falls * DOWN
        ideal = np.ceil(load / (POD_LOAD_REQUESTS * POD_LOAD_TARGET_SHARE))
        np.minimum(ideal, self._most, out=ideal)
        np.maximum(ideal, self._least, out=ideal)
        right *= RIGHT_STRIDE
        right += (pods == ideal).view(np.int8)
        index = levels.astype(np.int64)
        index *= LEVELS_STRIDE
        index += self._index_of_action.take(actions)
        index += right
        reward = self._rewards.take(index)
        swap = fields[SWAP]
        if swap.any():
            reward -= SWAP_WEIGHT * swap * (swap > SWAP_EDGE)
        np.minimum(reward, ONE, out=reward)
        np.maximum(reward, MINUS_ONE, out=reward)
        # Swap needs no look of its own: a pod swaps only when its memory is full.
        overloaded = cpu_level == OVERLOADED_CPU
        overloaded |= memory_level == OVERLOADED_MEMORY
        overloaded_steps = overloaded_steps + 1.0
        overloaded_steps *= overloaded
        terminated = overloaded_steps >= self._patience
        np.putmask(reward, terminated, END_REWARD)
        return reward, terminated, overloaded_steps
