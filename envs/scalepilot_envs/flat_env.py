"""A gymnasium environment of any spaces as one of flat fields and numbered actions, with its valid actions in the observation."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.adapters.flat_actions import FlatActions
from scalepilot_envs.adapters.flat_observation import FlatObservation
from scalepilot_envs.description import MASK_KEY

_METHOD = "action_masks"
_WRAPPER_SHAPE = "module:Class, or {module:Class: {argument: value}}"


@dataclass(frozen=True)
class FlatSpaces:
    """An environment's spaces, flat.

    Attributes:
        observation: what it shows, as fields.
        actions: what it takes, as a table or numbers.
    """

    observation: FlatObservation
    actions: FlatActions

    @property
    def plain(self) -> bool:
        """Whether the environment needs no adapter."""
        return self.observation.plain and self.actions.plain

    def around(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        """The environment as policies see it."""
        return env if self.plain else FlatEnv(env, self)


class FlatEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Observations flattened, actions looked up, valid actions as the last fields.

    Args:
        env: of any spaces.
        spaces: of that environment.

    Raises:
        ValueError: in `reset` and `step`: an observation that is not of its space's shape, or a mask of another length or
            without a valid action before the episode's end.
    """

    def __init__(self, env: gym.Env[Any, Any], spaces: FlatSpaces) -> None:
        super().__init__(env)
        self.spaces = spaces
        self.observation_space, self.action_space = spaces.observation.space, spaces.actions.space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._flat(observation, info, ended=False), _without_mask(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take the action that an index, or numbers, stand for."""
        observation, reward, terminated, truncated, info = self.env.step(self.spaces.actions.real(action))
        flat = self._flat(observation, info, ended=bool(terminated or truncated))
        return flat, reward, terminated, truncated, _without_mask(info)

    def _flat(self, observation: Any, info: Mapping[str, Any], *, ended: bool) -> Any:
        flat = self.spaces.observation
        return flat(observation, valid_actions(self.env, self.spaces, observation, info, ended=ended))


def valid_actions(
    env: gym.Env[Any, Any], spaces: FlatSpaces, observation: Any, info: Mapping[str, Any], *, ended: bool = False
) -> NDArray[np.bool_] | None:
    """(num_actions,) which actions an environment says are valid: in its observation, in `info`, or by its method.

    Args:
        env: in the state that the observation shows.
        spaces: of that environment.
        observation: of its own space.
        info: that came with it.
        ended: nothing is to be chosen any more.

    Returns:
        None where it says nothing, or where its episode is over and no action is valid: then what bootstraps from this
        observation must not take its value for that of no action.

    Raises:
        ValueError: a mask of another length, or no valid action before the end.
    """
    if not spaces.observation.mask_size:
        return None
    if spaces.observation.keeps_mask:
        given, where = observation[MASK_KEY], f"observation.{MASK_KEY}"
    elif MASK_KEY in info:
        given, where = info[MASK_KEY], f'info["{MASK_KEY}"]'
    elif env.has_wrapper_attr(_METHOD):
        given, where = env.get_wrapper_attr(_METHOD)(), f"{_METHOD}()"
    else:
        return None
    valid = spaces.actions.mask(given, where)
    if valid.any():
        return valid
    if ended:
        return None
    raise ValueError(f"{where}: no action is valid; allowed: at least one until the episode ends")


def _without_mask(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name != MASK_KEY} if MASK_KEY in info else info


def gives_mask(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment says which of its actions are valid; resets it where only `info` can tell.

    What `reset` raises is for the environment's first user to see: here it gives no mask.
    """
    if env.has_wrapper_attr(_METHOD) and callable(env.get_wrapper_attr(_METHOD)):
        return True
    try:
        answer: Any = env.reset(seed=0)
        return MASK_KEY in answer[1]
    except Exception:  # noqa: BLE001 - an environment may raise anything
        return False


def with_wrappers(env: gym.Env[Any, Any], wrappers: Sequence[Any]) -> gym.Env[Any, Any]:
    """Wrap an environment, the first wrapper innermost.

    Args:
        env: the environment.
        wrappers: "module:Class" each, or {"module:Class": {argument: value}}.

    Raises:
        ValueError: one that cannot be imported, is no gymnasium wrapper, or does not take its arguments.
    """
    for i, given in enumerate(wrappers):
        name, arguments = _named(given, f"wrappers.{i}")
        kind = _wrapper(name, f"wrappers.{i}")
        try:
            env = kind(env, **arguments)
        except Exception as error:  # noqa: BLE001 - a wrapper may raise anything
            raise ValueError(f"wrappers.{i}: {name}: {type(error).__name__}: {str(error)[:200]}") from None
    return env


def wrapper_names(wrappers: Sequence[Any]) -> list[str]:
    """The "module:Class" of each.

    Raises:
        ValueError: something else is given.
    """
    return [_named(given, f"wrappers.{i}")[0] for i, given in enumerate(wrappers)]


def _named(given: Any, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping) and len(given) == 1:
        (name, arguments), *_ = given.items()
        arguments = {} if arguments is None else arguments
        if isinstance(name, str) and isinstance(arguments, Mapping):
            return name, dict(arguments)
    if isinstance(given, Mapping) and set(given) <= {"class", "kwargs"} and isinstance(given.get("class"), str):
        arguments = given.get("kwargs") or {}
        if isinstance(arguments, Mapping):
            return given["class"], dict(arguments)
    raise ValueError(f"{where}: {str(given)[:80]!r} is not allowed; allowed: {_WRAPPER_SHAPE}")


def _wrapper(name: str, where: str) -> type[gym.Wrapper[Any, Any, Any, Any]]:
    module, separator, attribute = name.partition(":")
    if not separator or not module or not attribute.isidentifier():
        raise ValueError(f"{where}: {name[:80]!r} is not allowed; allowed: {_WRAPPER_SHAPE}")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ValueError(f"{where}: {module!r} cannot be imported ({error}); is its package installed?") from None
    if not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
        raise ValueError(f"{where}: {name[:80]!r} is no gymnasium.Wrapper; allowed: {_WRAPPER_SHAPE}")
    return found
