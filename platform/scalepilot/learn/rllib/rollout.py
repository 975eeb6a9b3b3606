"""Columns of experience: what an env runner hands to a learner instead of episode objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLUMNS = ("observation", "action", "action_logp", "action_dist_inputs", "reward", "terminated", "truncated", "valid")


class Rollout:
    """T steps of num_envs environments. A plain class: RLlib's `tree.flatten` would take a mapping or a dataclass apart.

    With NEXT_STEP autoreset `observation[t + 1]` is the true successor of step t, also where the episode ended there;
    the step after an end only resets and is not `valid`.

    Attributes:
        observation: (T + 1, num_envs, *shape), dtype of the space.
        action: (T, num_envs) int64.
        action_logp: (T, num_envs) float32, of the behaviour policy.
        action_dist_inputs: (T, num_envs, num_actions) float32 logits of the behaviour policy.
        reward: (T, num_envs) float32.
        terminated: (T, num_envs) bool.
        truncated: (T, num_envs) bool.
        valid: (T, num_envs) bool; false where the step was a reset.
    """

    __slots__ = _COLUMNS

    observation: NDArray[Any]
    action: NDArray[np.int64]
    action_logp: NDArray[np.float32]
    action_dist_inputs: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    valid: NDArray[np.bool_]

    def __init__(self, **columns: NDArray[Any]) -> None:
        if set(columns) != set(_COLUMNS):
            raise ValueError(f"rollout: columns {sorted(columns)}; allowed: exactly {sorted(_COLUMNS)}")
        for name, column in columns.items():
            setattr(self, name, column)

    @classmethod
    def empty(cls, num_steps: int, num_envs: int, observation: NDArray[Any], num_actions: int) -> Rollout:
        """Uninitialised columns for observations like `observation` (num_envs, *shape)."""
        shape = (num_steps, num_envs)
        return cls(
            observation=np.empty((num_steps + 1, *observation.shape), observation.dtype),
            action=np.empty(shape, np.int64),
            action_logp=np.empty(shape, np.float32),
            action_dist_inputs=np.empty((*shape, num_actions), np.float32),
            reward=np.empty(shape, np.float32),
            terminated=np.empty(shape, np.bool_),
            truncated=np.empty(shape, np.bool_),
            valid=np.empty(shape, np.bool_),
        )

    @classmethod
    def concatenate(cls, rollouts: Sequence[Rollout]) -> Rollout:
        """Rollouts of equal length side by side on the environment axis."""
        if len(rollouts) == 1:
            return rollouts[0]
        return cls(**{name: np.concatenate([getattr(r, name) for r in rollouts], axis=1) for name in _COLUMNS})

    @property
    def num_steps(self) -> int:
        """T."""
        return int(self.reward.shape[0])

    @property
    def num_envs(self) -> int:
        """Environments side by side."""
        return int(self.reward.shape[1])

    def __getstate__(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in _COLUMNS}

    def __setstate__(self, state: dict[str, NDArray[Any]]) -> None:
        for name, column in state.items():
            setattr(self, name, column)
