"""Environments of others that gymnasium knows, described by their spaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from scalepilot_envs.description import Action, ActionComponent, EnvDescription, ObservationField, params_from_mapping
from scalepilot_envs.registration import EnvEntry
from scalepilot_envs.restarting import RestartingEnv

_LARGEST = float(np.finfo(np.float32).max)
_UNKNOWN = (-np.inf, np.inf)
# What gymnasium's documentation calls the numbers and the actions of its classic environments; their code names none.
_NUMBERS = {
    "CartPole-v1": (("m", "cart position"), ("m/s", "cart velocity"), ("rad", "pole angle"), ("rad/s", "pole angular velocity")),
    "MountainCar-v0": (("1", "position"), ("1", "velocity")),
    "Acrobot-v1": (
        ("1", "cosine of the first joint"),
        ("1", "sine of the first joint"),
        ("1", "cosine of the second joint"),
        ("1", "sine of the second joint"),
        ("rad/s", "angular velocity of the first joint"),
        ("rad/s", "angular velocity of the second joint"),
    ),
    "Pendulum-v1": (("1", "cosine of the angle"), ("1", "sine of the angle"), ("rad/s", "angular velocity")),
}
_ACTIONS = {
    "CartPole-v1": ["left", "right"],
    "MountainCar-v0": ["left", "none", "right"],
    "Acrobot-v1": ["left", "none", "right"],
}
# What its documentation says of the reward of a step; with arguments of their own it may be another.
_REWARDS = {
    "CartPole-v1": (1.0, 1.0),
    "MountainCar-v0": (-1.0, -1.0),
    "Acrobot-v1": (-1.0, 0.0),
    "Pendulum-v1": (-16.2736044, 0.0),
}
# Arguments that leave the reward as it is.
_HARMLESS = {"render_mode", "max_episode_steps"}


@dataclass(frozen=True)
class ForeignParams:
    """None: what such an environment takes are its own arguments."""


class ForeignEntry(EnvEntry):
    """How an environment of somebody else's is made."""

    def maker(self) -> Callable[..., gym.Env[Any, Any]]:
        """The single-environment constructor."""

        def make(**arguments: Any) -> gym.Env[Any, Any]:
            if arguments.get("render_mode") == "rgb_array":
                # Pictures need neither screen nor sound; pygame looks for both, and complains.
                for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
                    os.environ.setdefault(name, "dummy")
                os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
            return gym.make(self.env_id, **arguments)

        return make

    def vector_maker(self) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
        """Its native vector constructor where it has one, else gymnasium's vectorisation in this process."""
        native = gym.spec(self.env_id).vector_entry_point is not None
        mode = gym.VectorizeMode.VECTOR_ENTRY_POINT if native else gym.VectorizeMode.SYNC

        def make(num_envs: int = 1, **arguments: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
            # gymnasium wraps each environment of its own vectorisation; native ones are one piece.
            wrapped: dict[str, Any] = {} if native else {"wrappers": [RestartingEnv]}
            return gym.make_vec(self.env_id, num_envs=num_envs, vectorization_mode=mode, **wrapped, **arguments)

        return make

    def describe(self, params: Mapping[str, Any] | None = None, **options: Any) -> EnvDescription:
        """Fields and actions from the spaces of the environment.

        Raises:
            ValueError: spaces that nothing here learns on, or a parameter.
        """
        known = params_from_mapping(ForeignParams, params)
        env: Any = self.maker()(**options)
        space, actions = env.observation_space, env.action_space
        named = getattr(env.unwrapped, "get_action_meanings", None)
        words = _ACTIONS.get(self.env_id) if named is None else [str(word).lower() for word in named()]
        env.close()
        if isinstance(space, gym.spaces.Discrete):
            first = int(space.start)
            fields = [ObservationField("observation", "1", float(first), float(first + int(space.n) - 1), "its state")]
        elif isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
            low, high = np.clip(space.low, -_LARGEST, _LARGEST), np.clip(space.high, -_LARGEST, _LARGEST)
            unnamed = [("1", f"number {i} of its observation") for i in range(space.shape[0])]
            known_numbers = _NUMBERS.get(self.env_id, ())
            # Options may add numbers of their own.
            told = known_numbers if len(known_numbers) == len(unnamed) else unnamed
            fields = [
                ObservationField(f"observation_{i}", unit, float(low[i]), float(high[i]), meaning)
                for i, (unit, meaning) in enumerate(told)
            ]
        elif isinstance(space, gym.spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8:
            shape = tuple(int(n) for n in space.shape)
            fields = [ObservationField("image", "1", 0.0, 255.0, "its picture", "", "uint8", shape, self.image_axes(shape))]
        else:
            shown = f"{type(space).__name__} {space.shape} {space.dtype}"
            raise ValueError(f"id: {self.env_id} observes {shown}; allowed: one-dimensional numbers, or uint8 images")
        labels, components = self._actions(actions, words)
        spec = gym.spec(self.env_id)
        end = f"truncated after {spec.max_episode_steps} steps" if spec.max_episode_steps else "as it says itself"
        return EnvDescription(
            self.env_id,
            known,
            tuple(fields),
            labels,
            "as the environment gives it",
            end,
            components=components,
            reward_bounds=_REWARDS.get(self.env_id, _UNKNOWN) if set(options) <= _HARMLESS else _UNKNOWN,
            episode_steps=spec.max_episode_steps,
        )

    def image_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """What the axes of its images are: the shortest of the first and the last is that of the channels."""
        return ("height", "width", "channels") if shape[-1] <= shape[0] else ("channels", "height", "width")

    def _actions(self, space: gym.Space[Any], words: list[str] | None) -> tuple[tuple[Action, ...], tuple[ActionComponent, ...]]:
        if isinstance(space, gym.spaces.Discrete):
            labels = words or [str(int(space.start) + i) for i in range(int(space.n))]
            return tuple(Action("plain", 0.0, label) for label in labels), ()
        allowed = "allowed: Discrete, or a Box of one dimension with finite bounds"
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"id: {self.env_id} takes {type(space).__name__} {space.shape} actions; {allowed}")
        if not (space.is_bounded() and (space.low < space.high).all()):
            raise ValueError(f"id: {self.env_id} takes actions from {space.low.tolist()} to {space.high.tolist()}; {allowed}")
        bounds = zip(space.low.tolist(), space.high.tolist(), strict=True)
        return (), tuple(ActionComponent(f"action_{i}", "1", low, high) for i, (low, high) in enumerate(bounds))
