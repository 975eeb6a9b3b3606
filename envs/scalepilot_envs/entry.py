"""How an environment is made and described, by the names of what makes it: nothing is imported before it is wanted."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym

from scalepilot_envs.description import EnvDescription


@dataclass(frozen=True)
class EnvEntry:
    """How one environment is made.

    Attributes:
        env_id: versioned, with the namespace; a change of dynamics or reward bumps the version.
        entry_point: "module:function" for one `gymnasium.Env`.
        vector_entry_point: "module:function" for a native `gymnasium.vector.VectorEnv`.
        summary: one line for a list.
        description: "module:function" for its `EnvDescription`, called with the parameters (a mapping, or None for defaults).
        can_fork: environments can be copied in the middle of an episode (`BatchEnv.fork`), and what comes to them does not
            depend on what is done.
        is_live: there is one of it, in wall time, and every step acts on something real: nothing is tried out on it, no two of it
            are stepped side by side, and none can be drawn. Its description is that of the environment it stands in for.
    """

    is_live: ClassVar[bool] = False

    env_id: str
    entry_point: str
    vector_entry_point: str
    summary: str
    description: str = ""
    can_fork: bool = False

    def vector_maker(self) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
        """The native vector constructor."""
        maker: Callable[..., gym.vector.VectorEnv[Any, Any, Any]] = _imported(self.vector_entry_point)
        return maker

    def is_batch_of(self, **arguments: Any) -> bool:
        """Whether environments made with these arguments are stepped in one piece; else one by one."""
        return True

    def step_seconds(self, **arguments: Any) -> float:
        """Wall time of a step that is live; 0 where it takes as long as its computation."""
        return 0.0

    def follow(self, told: Callable[[Mapping[str, float], Any], None]) -> Callable[[], None]:
        """Have every live step in this process told: numbers by name, and the observation it was decided on.

        Returns:
            What ends it.
        """
        return lambda: None

    def maker(self) -> Callable[..., gym.Env[Any, Any]]:
        """The single-environment constructor."""
        maker: Callable[..., gym.Env[Any, Any]] = _imported(self.entry_point)
        return maker

    def describe(self, params: Mapping[str, Any] | None = None, **options: Any) -> EnvDescription:
        """Fields, actions, reward and parameters.

        Args:
            params: the environment's constants; its defaults if None.
            options: its other arguments; those that change what it shows count.

        Raises:
            ValueError: a parameter is unknown or out of range.
        """
        make = _imported(self.description)
        shown = {name: value for name, value in options.items() if name in inspect.signature(make).parameters}
        description: EnvDescription = make(params, **shown)
        return replace(description, options=shown)


def _imported(entry_point: str) -> Any:
    module, name = entry_point.split(":")
    return getattr(importlib.import_module(module), name)


def split_id(name: str) -> tuple[str, str]:
    """The module (perhaps "") and the id that gymnasium knows, of "module:Id"."""
    module, _, env_id = name.rpartition(":")
    return module, env_id
