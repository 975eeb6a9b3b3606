"""Environment ids. One dictionary, id → entry points; a duplicate raises, an unknown raises with the nearest id."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

NAMESPACE = "scalepilot"
MODULE_PREFIX = "scalepilot_envs:"


@dataclass(frozen=True)
class EnvEntry:
    """How one environment is made.

    Attributes:
        env_id: versioned, with the namespace; a change of dynamics or reward bumps the version.
        entry_point: "module:function" for one `gymnasium.Env`.
        vector_entry_point: "module:function" for a native `gymnasium.vector.VectorEnv`.
        summary: one line for a list.
    """

    env_id: str
    entry_point: str
    vector_entry_point: str
    summary: str

    def vector_maker(self) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
        """The native vector constructor."""
        module, name = self.vector_entry_point.split(":")
        maker: Callable[..., gym.vector.VectorEnv[Any, Any, Any]] = getattr(importlib.import_module(module), name)
        return maker

    def maker(self) -> Callable[..., gym.Env[Any, Any]]:
        """The single-environment constructor."""
        module, name = self.entry_point.split(":")
        maker: Callable[..., gym.Env[Any, Any]] = getattr(importlib.import_module(module), name)
        return maker


ENVS: dict[str, EnvEntry] = {}


def add_env(entry: EnvEntry) -> None:
    """Add an environment to the registry.

    Raises:
        ValueError: the id is taken.
    """
    if entry.env_id in ENVS:
        raise ValueError(f"env: {entry.env_id!r} is registered already")
    ENVS[entry.env_id] = entry


def find_env(name: str) -> EnvEntry:
    """Look an id up, with or without namespace and module prefix.

    Raises:
        ValueError: unknown, with the nearest known id.
    """
    wanted = name.removeprefix(MODULE_PREFIX)
    for candidate in (wanted, f"{NAMESPACE}/{wanted}"):
        if candidate in ENVS:
            return ENVS[candidate]
    short = {env_id.removeprefix(f"{NAMESPACE}/"): env_id for env_id in ENVS}
    near = difflib.get_close_matches(wanted.removeprefix(f"{NAMESPACE}/"), short, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"env: {name!r} is not allowed; allowed: {', '.join(sorted(short))}{hint}")


def register_envs() -> None:
    """Register every environment with gymnasium; calling it again changes nothing."""
    for entry in ENVS.values():
        if entry.env_id not in gym.registry:
            gym.register(id=entry.env_id, entry_point=entry.entry_point, vector_entry_point=entry.vector_entry_point)


add_env(
    EnvEntry(
        "scalepilot/Autoscale-v0",
        "scalepilot_envs.autoscale.env:make_env",
        "scalepilot_envs.autoscale.env:make_vector_env",
        "a replicated HTTP service behind a load balancer: replicas, late requests and moves priced in money",
    )
)
