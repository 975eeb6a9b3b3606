"""Environments that scale something: an action index names a move, a target names how many replicas there should be."""

from __future__ import annotations

import abc
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchEnv, BatchStep, BatchVectorEnv, BoolArray, SingleEnv


def check_actions(actions: NDArray[Any], num_envs: int, num_actions: int) -> NDArray[Any]:
    """Action indices of a batch.

    Raises:
        ValueError: another shape or dtype, or an index out of range.
    """
    actions = np.asarray(actions)
    if actions.shape != (num_envs,) or actions.dtype.kind not in "iu":
        raise ValueError(f"actions: {actions.dtype} {actions.shape} is not allowed; allowed: integers ({num_envs},)")
    # As unsigned numbers negative ones are huge: one comparison finds both, and counting is cheaper than a minimum.
    if np.count_nonzero(actions.view(f"u{actions.itemsize}") >= num_actions):
        lowest, highest = actions.min(), actions.max()
        raise ValueError(f"actions: {lowest if lowest < 0 else highest} is not allowed; allowed: 0 to {num_actions - 1}")
    return actions


class ScalingBatch(BatchEnv):
    """A batch that also takes targets."""

    @abc.abstractmethod
    def step_targets(self, desired_replicas: NDArray[Any]) -> BatchStep:
        """Step with (num_envs,) targets in replicas."""

    def check_targets(self, desired_replicas: NDArray[Any]) -> NDArray[np.float64]:
        """Targets as (num_envs,) whole numbers.

        Raises:
            ValueError: another shape, or not a number.
        """
        desired = np.asarray(desired_replicas, dtype=np.float64)
        if desired.shape != (self.num_envs,) or np.isnan(desired).any():
            raise ValueError(
                f"desired_replicas: {desired.tolist() if desired.size < 5 else desired.shape} is not allowed;"
                f" allowed: ({self.num_envs},) numbers"
            )
        return np.rint(desired)


class UnitMoveBatch(ScalingBatch):
    """A batch whose actions add one replica, remove one or do nothing.

    Subclasses set `move_of_action`: (3,) −1, 0 or +1 by action index.
    """

    move_of_action: NDArray[np.int64]

    @property
    @abc.abstractmethod
    def total_replicas(self) -> NDArray[Any]:
        """(num_envs,) replicas there are or were ordered."""

    def step_targets(self, desired_replicas: NDArray[Any]) -> BatchStep:
        """Step one replica towards the targets."""
        direction = np.sign(self.check_targets(desired_replicas) - self.total_replicas).astype(np.int64)
        action_of_move = np.argsort(self.move_of_action)
        return self.step_batch(action_of_move[direction + 1])


ScalingT = TypeVar("ScalingT", bound=ScalingBatch)


class ScalingVectorEnv(BatchVectorEnv[ScalingT]):
    """The native vector environment of a `ScalingBatch`."""

    def step_targets(
        self, desired_replicas: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]:
        """Like `step`, with targets (num_envs,) in replicas instead of action indices."""
        self.require_reset()
        return self._finish(self.batch.step_targets(np.asarray(desired_replicas)))


class ScalingEnv(SingleEnv[ScalingT]):
    """A `ScalingBatch` of one as a `gymnasium.Env`."""

    def step_targets(self, desired_replicas: float) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Like `step`, with a target in replicas instead of an action index."""
        self.require_reset()
        return self._single(self.batch.step_targets(np.asarray([desired_replicas])))
