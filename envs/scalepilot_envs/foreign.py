"""Environments of others that gymnasium knows, described by their spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from scalepilot_envs.description import Action, EnvDescription, ObservationField, params_from_mapping
from scalepilot_envs.registration import EnvEntry

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ForeignParams:
    """None: what such an environment takes are its own arguments."""


class ForeignEntry(EnvEntry):
    """How an environment of somebody else's is made."""

    def maker(self) -> Callable[..., gym.Env[Any, Any]]:
        """The single-environment constructor."""

        def make(**arguments: Any) -> gym.Env[Any, Any]:
            return gym.make(self.env_id, **arguments)

        return make

    def vector_maker(self) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
        """Its native vector constructor where it has one, else gymnasium's vectorisation in this process."""
        native = gym.spec(self.env_id).vector_entry_point is not None
        mode = gym.VectorizeMode.VECTOR_ENTRY_POINT if native else gym.VectorizeMode.SYNC

        def make(num_envs: int = 1, **arguments: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
            return gym.make_vec(self.env_id, num_envs=num_envs, vectorization_mode=mode, **arguments)

        return make

    def describe(self, params: Mapping[str, Any] | None = None, **options: Any) -> EnvDescription:
        """Fields and actions from the spaces of the environment.

        Raises:
            ValueError: spaces that are not one-dimensional numbers and numbered actions, or a parameter.
        """
        known = params_from_mapping(ForeignParams, params)
        env: Any = gym.make(self.env_id, **options)
        space, actions = env.observation_space, env.action_space
        env.close()
        if not isinstance(actions, gym.spaces.Discrete):
            raise ValueError(f"id: {self.env_id} takes {type(actions).__name__} actions; allowed: Discrete")
        if isinstance(space, gym.spaces.Discrete):
            first = int(space.start)
            fields = [ObservationField("observation", "1", float(first), float(first + int(space.n) - 1), "its state")]
        elif isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
            low, high = np.clip(space.low, -_LARGEST, _LARGEST), np.clip(space.high, -_LARGEST, _LARGEST)
            fields = [
                ObservationField(f"observation_{i}", "1", float(low[i]), float(high[i]), f"number {i} of its observation")
                for i in range(space.shape[0])
            ]
        else:
            raise ValueError(f"id: {self.env_id} observes {type(space).__name__} {space.shape}; allowed: one-dimensional numbers")
        spec = gym.spec(self.env_id)
        end = f"truncated after {spec.max_episode_steps} steps" if spec.max_episode_steps else "as it says itself"
        labels = [Action("plain", 0.0, str(int(actions.start) + i)) for i in range(int(actions.n))]
        return EnvDescription(self.env_id, known, tuple(fields), tuple(labels), "as the environment gives it", end)
