"""Environments of others that gymnasium knows, described by their spaces."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from scalepilot_envs.adapters.flat_actions import FlatActions
from scalepilot_envs.adapters.flat_observation import FlatObservation, mask_in
from scalepilot_envs.description import EnvDescription, params_from_mapping
from scalepilot_envs.entry import EnvEntry, split_id
from scalepilot_envs.flat_env import FlatSpaces, gives_mask, with_wrappers
from scalepilot_envs.restarting import RestartingEnv

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
# How an environment is looked at, not what it is.
_LOOKS = ("render_mode",)
_RESET_SECONDS = 60.0
# Spaces are asked for again with every policy that is loaded; the specification tells one registration from a later one.
_known: dict[tuple[str, str], tuple[Any, FlatSpaces]] = {}


@dataclass(frozen=True)
class ForeignParams:
    """None: what such an environment takes are its own arguments."""


class ForeignEntry(EnvEntry):
    """How an environment of somebody else's is made: wrapped as asked, its spaces flat.

    Its arguments are the environment's own, and `wrappers` as `with_wrappers` takes them.
    """

    @property
    def spec(self) -> gym.envs.registration.EnvSpec:
        """How gymnasium knows it."""
        return gym.spec(split_id(self.env_id)[1])

    def maker(self) -> Callable[..., gym.Env[Any, Any]]:
        """The single-environment constructor."""

        def make(**arguments: Any) -> gym.Env[Any, Any]:
            spaces = self.spaces(**arguments)
            return spaces.around(self.wrapped(**arguments))

        return make

    def wrapped(self, **arguments: Any) -> gym.Env[Any, Any]:
        """The environment with its wrappers, its spaces as they are.

        Raises:
            ValueError: a wrapper is not allowed.
        """
        if arguments.get("render_mode") == "rgb_array":
            # Pictures need neither screen nor sound; pygame looks for both, and complains.
            for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
                os.environ.setdefault(name, "dummy")
            os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        wrappers = arguments.pop("wrappers", ())
        return with_wrappers(self.bare(**arguments), wrappers)

    def bare(self, **arguments: Any) -> gym.Env[Any, Any]:
        """The environment as gymnasium makes it."""
        # What gymnasium's checker would warn of, the preflight refuses.
        return gym.make(self.env_id, **{"disable_env_checker": True, **arguments})

    def vector_maker(self) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
        """Its native vector constructor where it has one and its spaces are flat already, else single ones in this process."""

        def make(
            num_envs: int = 1, autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP, **arguments: Any
        ) -> gym.vector.VectorEnv[Any, Any, Any]:
            # gymnasium's native ones reset only a step later.
            if autoreset_mode is AutoresetMode.NEXT_STEP and self.is_batch_of(**arguments):
                native = gym.VectorizeMode.VECTOR_ENTRY_POINT
                return gym.make_vec(self.env_id, num_envs=num_envs, vectorization_mode=native, **arguments)
            single = partial(RestartingEnv, partial(self.maker(), **arguments), self.env_id)
            return gym.vector.SyncVectorEnv([single] * num_envs, autoreset_mode=autoreset_mode)

        return make

    def is_batch_of(self, **arguments: Any) -> bool:
        """Whether it has a native vector constructor, whose environments are one piece, and that is what policies see."""
        native = self.spec.vector_entry_point is not None
        return native and not arguments.get("wrappers") and self.spaces(**arguments).plain

    def spaces(self, **arguments: Any) -> FlatSpaces:
        """Its spaces, flat.

        Raises:
            ValueError: naming the part of a space that policies cannot see or choose.
        """
        made_with = {name: value for name, value in arguments.items() if name not in _LOOKS}
        key, spec = (self.env_id, json.dumps(made_with, sort_keys=True, default=repr)), self.spec
        known = _known.get(key)
        if known is not None and known[0] is spec:
            return known[1]
        env: Any = self.wrapped(**made_with)
        try:
            actions = FlatActions(env.action_space, _words_of(env) or _ACTIONS.get(spec.id))
            masked = mask_in(env.observation_space) is not None or self._gives_mask(env)
            size = len(actions.actions) if masked else 0
            part = mask_in(env.observation_space)
            if masked:
                # Its length is known beforehand only where it is a part of the observation.
                actions.mask(np.ones(size if part is None else part.shape, np.int8), "action_mask")
            observation = FlatObservation(env.observation_space, size, image_axes=self.image_axes)
        except ValueError as error:
            raise ValueError(f"id: {self.env_id}: {error}") from None
        finally:
            with contextlib.suppress(Exception):
                env.close()
        found = FlatSpaces(observation, actions)
        _known[key] = (spec, found)
        return found

    def _gives_mask(self, env: gym.Env[Any, Any]) -> bool:
        """Whether it says which actions are valid; looked at in a thread, as nothing else can be left behind when it hangs."""
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(gives_mask(env)), daemon=True, name=f"reset {self.env_id}")
        thread.start()
        thread.join(_RESET_SECONDS)
        if not found:
            raise ValueError(f"hangs: reset() takes more than {_RESET_SECONDS:g} s")
        return found[0]

    def describe(self, params: Mapping[str, Any] | None = None, **options: Any) -> EnvDescription:
        """Fields and actions from the spaces of the environment.

        Raises:
            ValueError: spaces that nothing here learns on, a wrapper, or a parameter.
        """
        known = params_from_mapping(ForeignParams, params)
        spaces, spec = self.spaces(**options), self.spec
        fields = spaces.observation.fields
        # Options may add numbers of their own, and wrappers change what each is.
        told = () if options.get("wrappers") else _NUMBERS.get(spec.id, ())
        if len(told) == len(fields):
            fields = tuple(replace(f, unit=unit, description=meaning) for f, (unit, meaning) in zip(fields, told, strict=True))
        end = f"truncated after {spec.max_episode_steps} steps" if spec.max_episode_steps else "as it says itself"
        return EnvDescription(
            self.env_id,
            known,
            fields,
            spaces.actions.actions,
            "as the environment gives it",
            end,
            components=spaces.actions.components,
            options={name: value for name, value in options.items() if name not in _HARMLESS and _is_plain(value)},
            reward_bounds=_REWARDS.get(spec.id, _UNKNOWN) if set(options) <= _HARMLESS else _UNKNOWN,
            episode_steps=spec.max_episode_steps,
            num_states=spaces.observation.numbered,
        )

    def image_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """What the axes of its images are: the shortest of the first and the last is that of the channels."""
        return ("height", "width", "channels") if shape[-1] <= shape[0] else ("channels", "height", "width")


def _words_of(env: Any) -> list[str] | None:
    """What an environment calls its actions, where it says so."""
    if not env.has_wrapper_attr("get_action_meanings"):
        return None
    try:
        return [str(word).lower() for word in env.get_wrapper_attr("get_action_meanings")()]
    except Exception:  # noqa: BLE001 - an environment may raise anything
        return None


def _is_plain(value: Any) -> bool:
    """Whether a policy can be stored with it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
