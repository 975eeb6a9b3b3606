"""Environment ids. One dictionary, id → entry points; a duplicate raises, an unknown raises with the nearest id."""

from __future__ import annotations

import importlib
import os
import sys

import gymnasium as gym

from scalepilot_envs.checks import did_you_mean
from scalepilot_envs.entry import EnvEntry, split_id

NAMESPACE = "scalepilot"
MODULE_PREFIX = "scalepilot_envs:"
ATARI = "ALE/"
# Modules (comma-separated) that register environments of a user's own; inherited by worker processes.
MODULES_VARIABLE = "SCALEPILOT_ENV_MODULES"


ENVS: dict[str, EnvEntry] = {}
# Id that gymnasium knows → which module of the variable above registered it.
_registered_by: dict[str, str] = {}


def add_env(entry: EnvEntry) -> None:
    """Add an environment to the registry.

    Raises:
        ValueError: the id is taken.
    """
    if entry.env_id in ENVS:
        raise ValueError(f"env: {entry.env_id!r} is registered already")
    ENVS[entry.env_id] = entry


def find_env(name: str) -> EnvEntry:
    """Look an id up, with or without namespace and module prefix; what gymnasium knows is found, too.

    The modules that SCALEPILOT_ENV_MODULES names are imported first where the id is not one of ours; of "module:Id" that module.
    An id that one of them registers is found as "module:Id": what is stored then says itself what it needs. A module may say more
    of its environments than gymnasium asks for: `ENVS` there, "module:Id" → `EnvEntry`.

    Raises:
        ValueError: unknown, with the nearest known id; or a module cannot be imported.
    """
    wanted = name.removeprefix(MODULE_PREFIX)
    if f"{NAMESPACE}/{wanted}" not in ENVS:
        import_modules()
    for candidate in (wanted, f"{NAMESPACE}/{wanted}"):
        if candidate in ENVS:
            return ENVS[candidate]
    game = wanted.removeprefix("ale_py:")
    if game.startswith(ATARI):
        from scalepilot_envs.atari import AtariEntry, register_atari

        register_atari()
        if game in gym.registry and gym.spec(game).vector_entry_point is not None:
            return AtariEntry(game, "", "", f"{game}, an Atari game")
    elif (described := _described(wanted)) is not None:
        return described
    elif _registered(wanted):
        from scalepilot_envs.foreign import ForeignEntry

        return ForeignEntry(_with_module(wanted), "", "", f"{wanted}, registered with gymnasium")
    short = {env_id.removeprefix(f"{NAMESPACE}/"): env_id for env_id in ENVS}
    known = [*short, *gym.registry]
    hint = did_you_mean(wanted.removeprefix(f"{NAMESPACE}/"), known, cutoff=0.4)
    raise ValueError(f"env: {name!r} is not allowed; allowed: {', '.join(sorted(short))}{hint}")


def same_id(one: str, other: str) -> bool:
    """Whether two ids mean one environment: a module in front of one alone says only where it is from."""
    (module, name), (theirs, other_name) = split_id(one), split_id(other)
    return name == other_name and (module == theirs or not (module and theirs))


def is_own(env_id: str) -> bool:
    """Whether an id is of one of ours, or claims to be; nothing is imported to find out."""
    wanted = env_id.removeprefix(MODULE_PREFIX)
    return env_id != wanted or wanted.startswith(f"{NAMESPACE}/") or f"{NAMESPACE}/{wanted}" in ENVS


def _described(name: str) -> EnvEntry | None:
    """What the module in front of an id says of it; None where it says nothing, or there is none."""
    module, _ = split_id(name)
    if not module:
        return None
    _import(module, name)
    entry = getattr(sys.modules[module], "ENVS", {}).get(name)
    return entry if isinstance(entry, EnvEntry) else None


def _import(module: str, name: str) -> None:
    """Import what an id needs."""
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"env: {name!r} is not allowed: {module!r} cannot be imported ({error}); is it installed, or its folder in"
                " PYTHONPATH?"
            ) from None
        except Exception as error:  # noqa: BLE001 - a module may raise anything
            raise ValueError(
                f"env: {name!r} is not allowed: {module!r} raises {type(error).__name__} when imported: {error}"
            ) from None


def _registered(name: str) -> bool:
    """Whether gymnasium knows an id, once the module in front of it is imported."""
    module, env_id = split_id(name)
    _import(module, name)
    if env_id in gym.registry:
        return True
    try:
        # An id without its version is that of the newest one.
        return bool(gym.spec(env_id))
    except gym.error.Error:
        return False


def listed_modules() -> list[str]:
    """What SCALEPILOT_ENV_MODULES names."""
    return [name for part in os.environ.get(MODULES_VARIABLE, "").split(",") if (name := part.strip())]


def import_modules() -> None:
    """Import what registers a user's own environments, once a process."""
    for module in listed_modules():
        known = set(gym.registry)
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"{MODULES_VARIABLE}: {module!r} cannot be imported ({error}); is its folder in PYTHONPATH?"
            ) from None
        for env_id in set(gym.registry) - known:
            _registered_by.setdefault(env_id, module)


def _with_module(name: str) -> str:
    """An id with the listed module that registers it in front, where there is one."""
    if ":" in name or not listed_modules():
        return name
    spec = gym.spec(name)
    made_by = spec.entry_point if isinstance(spec.entry_point, str) else getattr(spec.entry_point, "__module__", "")
    package = str(made_by or "").partition(":")[0].partition(".")[0]
    # Imported by somebody else before: then it is the one that the environment's class is in.
    near = next((module for module in listed_modules() if module.partition(".")[0] == package), "")
    module = _registered_by.get(spec.id, near)
    return f"{module}:{name}" if module else name


def register_envs() -> None:
    """Register every environment with gymnasium; calling it again changes nothing."""
    for entry in ENVS.values():
        if entry.env_id not in gym.registry:
            gym.register(id=entry.env_id, entry_point=entry.entry_point, vector_entry_point=entry.vector_entry_point)


__all__ = [
    "ENVS",
    "MODULES_VARIABLE",
    "MODULE_PREFIX",
    "NAMESPACE",
    "EnvEntry",
    "add_env",
    "find_env",
    "import_modules",
    "is_own",
    "listed_modules",
    "register_envs",
    "same_id",
    "split_id",
]


def _add(name: str, module: str, summary: str, described_in: str | None = None, *, can_fork: bool = False) -> None:
    path = f"scalepilot_envs.{module}"
    description = f"scalepilot_envs.{described_in or module}:describe"
    add_env(EnvEntry(f"{NAMESPACE}/{name}", f"{path}:make_env", f"{path}:make_vector_env", summary, description, can_fork))


_add(
    "Autoscale-v0",
    "autoscale.env",
    "a replicated HTTP service behind a load balancer: replicas, late requests and moves priced in money",
    "autoscale.description",
    can_fork=True,
)
_add("QueueScaling-v0", "queue_scaling", "instances that work off a queue, five minutes a step (gym-scaling's dynamics)")
_add("ResourceManager-v0", "resource_manager", "one to five instances whose CPU and memory are to be kept in a band")
_add("FunctionWorkflow-v0", "function_workflow", "workers of a function queue: tasks one by one, deadlines, phases of load")
_add("ClusterDeployment-v0", "cluster_deployment", "pods on nodes: CPU, memory, swap, start-up and scaling requests that fail")
_add("GridWorld-v0", "grid_world", "3 by 3 cells with an obstacle: the teaching example of tabular methods")
