"""Columns of experience: what an env runner hands to a learner instead of episode objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot.learn.rllib.counterfactuals import Tried

_STEPS = ("observation", "action", "action_logp", "action_dist_inputs", "reward", "terminated", "truncated", "valid")
# Of the behaviour policy; an off-policy learner does without.
_BEHAVIOUR = ("action_logp", "action_dist_inputs")
_FINAL = ("final_index", "final_observation")
# Of the moments at which every action was tried.
_TRIED = ("tried_at", "tried_reward", "tried_discount", "tried_observation")
_COLUMNS = (*_STEPS, *_FINAL, *_TRIED)
# Whose second axis is the environments'.
_BY_ENV = (*_STEPS, *_TRIED[1:])


class Rollout:
    """T steps of num_envs environments. A plain class: RLlib's `tree.flatten` would take a mapping or a dataclass apart.

    `observation[t + 1]` is the true successor of step t. Where an episode ended, that holds with NEXT_STEP autoreset: the step
    after an end only resets and is not `valid`. With SAME_STEP autoreset every step is valid and `observation[t + 1]` begins the
    next episode: the true successors stand in `final_observation`.

    Attributes:
        observation: (T + 1, num_envs, *shape), dtype of the space.
        action: (T, num_envs) int64, or (T, num_envs, k) float32 as drawn, in the network's units (see `DiagonalGaussian`).
        action_logp: (T, num_envs) float32, of the behaviour policy; absent (None) for off-policy learners.
        action_dist_inputs: (T, num_envs, num_inputs) float32, what the behaviour policy's distribution is made from, such as
            logits; absent likewise.
        reward: (T, num_envs) float32.
        terminated: (T, num_envs) bool.
        truncated: (T, num_envs) bool.
        valid: (T, num_envs) bool; false where the step was a reset.
        final_index: (m, 2) int64, step and environment of each end; m = 0 with NEXT_STEP autoreset.
        final_observation: (m, *shape) the observations after them.
        tried_at: (F,) int64, steps before which every action was tried (see `counterfactuals`); all four absent where none was.
        tried_reward: (F, num_envs, num_actions) float32, discounted sums.
        tried_discount: (F, num_envs, num_actions) float32, of the value of the last observation.
        tried_observation: (F, num_envs, num_actions, *shape) the last observations.
    """

    __slots__ = _COLUMNS

    observation: NDArray[Any]
    action: NDArray[Any]
    action_logp: NDArray[np.float32] | None
    action_dist_inputs: NDArray[np.float32] | None
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    final_index: NDArray[np.int64]
    final_observation: NDArray[Any]
    tried_at: NDArray[np.int64] | None
    tried_reward: NDArray[np.float32] | None
    tried_discount: NDArray[np.float32] | None
    tried_observation: NDArray[Any] | None

    def __init__(self, **columns: NDArray[Any]) -> None:
        if set(columns) - set(_FINAL) - set(_TRIED) not in (set(_STEPS), set(_STEPS) - set(_BEHAVIOUR)):
            raise ValueError(f"rollout: columns {sorted(columns)}; allowed: {sorted(_STEPS)}, with or without {_BEHAVIOUR}")
        for name in (*_STEPS, *_TRIED):
            setattr(self, name, columns.get(name))
        observation = columns["observation"]
        self.final_index = columns.get("final_index", np.empty((0, 2), np.int64))
        self.final_observation = columns.get("final_observation", np.empty((0, *observation.shape[2:]), observation.dtype))

    @classmethod
    def empty(
        cls, num_steps: int, observation: NDArray[Any], action_space: gym.Space[Any], num_inputs: int | None = None
    ) -> Rollout:
        """Uninitialised columns.

        Args:
            num_steps: T.
            observation: (num_envs, *shape) an example.
            action_space: of one environment, Discrete or Box.
            num_inputs: of the behaviour policy's distribution; None leaves its columns out.
        """
        shape = (num_steps, len(observation))
        box = isinstance(action_space, gym.spaces.Box)
        behaviour: dict[str, NDArray[Any]] = {}
        if num_inputs is not None:
            behaviour["action_logp"] = np.empty(shape, np.float32)
            behaviour["action_dist_inputs"] = np.empty((*shape, num_inputs), np.float32)
        return cls(
            observation=np.empty((num_steps + 1, *observation.shape), observation.dtype),
            action=np.empty((*shape, *(action_space.shape or ())), np.float32) if box else np.empty(shape, np.int64),
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
        present = [name for name in _BY_ENV if getattr(rollouts[0], name) is not None]
        columns = {name: np.concatenate([getattr(r, name) for r in rollouts], axis=1) for name in present}
        if rollouts[0].tried_at is not None:
            # Runners try at the same steps.
            columns["tried_at"] = rollouts[0].tried_at.copy()
        first_envs = np.cumsum([0, *(r.num_envs for r in rollouts[:-1])])
        shifted = [r.final_index + np.array([0, first]) for r, first in zip(rollouts, first_envs, strict=True)]
        return cls(
            **columns,
            final_index=np.concatenate(shifted),
            final_observation=np.concatenate([r.final_observation for r in rollouts]),
        )

    def add_finals(self, finals: Sequence[tuple[int, NDArray[np.intp], NDArray[Any]]]) -> None:
        """Fill the final columns of SAME_STEP autoreset.

        Args:
            finals: step, the environments (k,) that ended in it, and their last observations (k,), gymnasium's array of arrays
                or a plain one.
        """
        self.final_index = np.array([(t, env) for t, envs, _ in finals for env in envs], np.int64)
        last = [row for _, _, observations in finals for row in observations]
        self.final_observation = np.stack(last).astype(self.observation.dtype, copy=False)

    def add_tried(self, tried: Mapping[int, Tried]) -> None:
        """Fill the columns of the actions tried: what came of them before each of some steps."""
        self.tried_at = np.array([*tried], np.int64)
        self.tried_reward = np.stack([t.reward for t in tried.values()])
        self.tried_discount = np.stack([t.discount for t in tried.values()])
        self.tried_observation = np.stack([t.last_observation for t in tried.values()])

    def split(self, num_pieces: int) -> list[Rollout]:
        """Equal pieces of the environment axis, neighbours together; `num_envs` must be a multiple of `num_pieces`."""
        present = {name: np.split(column, num_pieces, axis=1) for name in _BY_ENV if (column := getattr(self, name)) is not None}
        width, pieces = self.num_envs // num_pieces, []
        for i in range(num_pieces):
            inside = self.final_index[:, 1] // width == i
            # Copied where several: a view would take the whole rollout along into the object store.
            columns = {name: np.ascontiguousarray(parts[i]) for name, parts in present.items()}
            final = {
                "final_index": self.final_index[inside] - [0, i * width],
                "final_observation": self.final_observation[inside],
            }
            tried = {} if self.tried_at is None else {"tried_at": self.tried_at}
            pieces.append(Rollout(**columns, **final, **tried))
        return pieces

    def copy(self) -> Rollout:
        """Columns of its own."""
        return Rollout(**{name: column.copy() for name in _COLUMNS if (column := getattr(self, name)) is not None})

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
