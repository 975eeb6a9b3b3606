"""Columns of experience: what an env runner hands to a learner instead of episode objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLUMNS = ("observation", "action", "action_logp", "action_dist_inputs", "reward", "terminated", "truncated", "valid")
# Of the behaviour policy; an off-policy learner does without.
_BEHAVIOUR = ("action_logp", "action_dist_inputs")


class Rollout:
    """T steps of num_envs environments. A plain class: RLlib's `tree.flatten` would take a mapping or a dataclass apart.

    With NEXT_STEP autoreset `observation[t + 1]` is the true successor of step t, also where the episode ended there;
    the step after an end only resets and is not `valid`.

    Attributes:
        observation: (T + 1, num_envs, *shape), dtype of the space.
        action: (T, num_envs) int64.
        action_logp: (T, num_envs) float32, of the behaviour policy; absent (None) for off-policy learners.
        action_dist_inputs: (T, num_envs, num_actions) float32 logits of the behaviour policy; absent likewise.
        reward: (T, num_envs) float32.
        terminated: (T, num_envs) bool.
        truncated: (T, num_envs) bool.
        valid: (T, num_envs) bool; false where the step was a reset.
    """

    __slots__ = _COLUMNS

    observation: NDArray[Any]
    action: NDArray[np.int64]
    action_logp: NDArray[np.float32] | None
    action_dist_inputs: NDArray[np.float32] | None
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    valid: NDArray[np.bool_]

    def __init__(self, **columns: NDArray[Any]) -> None:
        if set(columns) not in (set(_COLUMNS), set(_COLUMNS) - set(_BEHAVIOUR)):
            raise ValueError(f"rollout: columns {sorted(columns)}; allowed: {sorted(_COLUMNS)}, with or without {_BEHAVIOUR}")
        for name in _COLUMNS:
            setattr(self, name, columns.get(name))

    @classmethod
    def empty(cls, num_steps: int, num_envs: int, observation: NDArray[Any], num_actions: int | None) -> Rollout:
        """Uninitialised columns for observations like `observation` (num_envs, *shape).

        Args:
            num_steps: T.
            num_envs: environments.
            observation: an example.
            num_actions: of the behaviour policy's columns; None leaves them out.
        """
        shape = (num_steps, num_envs)
        behaviour: dict[str, NDArray[Any]] = {}
        if num_actions is not None:
            behaviour["action_logp"] = np.empty(shape, np.float32)
            behaviour["action_dist_inputs"] = np.empty((*shape, num_actions), np.float32)
        return cls(
            observation=np.empty((num_steps + 1, *observation.shape), observation.dtype),
            action=np.empty(shape, np.int64),
            reward=np.empty(shape, np.float32),
            terminated=np.empty(shape, np.bool_),
            truncated=np.empty(shape, np.bool_),
            valid=np.empty(shape, np.bool_),
            **behaviour,
        )

    @classmethod
    def concatenate(cls, rollouts: Sequence[Rollout]) -> Rollout:
        """Rollouts of equal length side by side on the environment axis."""
        if len(rollouts) == 1:
            return rollouts[0]
        present = [name for name in _COLUMNS if getattr(rollouts[0], name) is not None]
        return cls(**{name: np.concatenate([getattr(r, name) for r in rollouts], axis=1) for name in present})

    @property
    def num_steps(self) -> int:
        """T."""
        return int(self.reward.shape[0])

    @property
    def num_envs(self) -> int:
        """Environments side by side."""
        return int(self.reward.shape[1])

    def __getstate__(self) -> dict[str, NDArray[Any] | None]:
        return {name: getattr(self, name) for name in _COLUMNS}

    def __setstate__(self, state: dict[str, NDArray[Any] | None]) -> None:
        for name, column in state.items():
            setattr(self, name, column)
