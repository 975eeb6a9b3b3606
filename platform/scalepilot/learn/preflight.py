"""A look at an environment in the driver, before workers are started that would fail on it one after the other."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from scalepilot.errors import InputError
from scalepilot_envs.entry import EnvEntry
from scalepilot_envs.flat_env import FlatSpaces, valid_actions
from scalepilot_envs.foreign import ForeignEntry
from scalepilot_envs.registration import find_env

CHECKED_STEPS = 20
TIME_LIMIT_SECONDS = 60.0
_LOOKS = 5


def check_environment(env_id: str, arguments: Mapping[str, Any], *, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> None:
    """Reset an environment and step it a few times with random actions.

    Args:
        env_id: of the environment.
        arguments: what it is made with.
        time_limit_seconds: a step that hangs is given up after so long.

    Raises:
        InputError: naming the environment and what is wrong: too few values, another shape or dtype, NaN, an exception, a hang.
    """
    entry = find_env(env_id)
    if entry.is_live:
        _look_at_live(entry, arguments)
        return
    problem: list[str] = []

    def look() -> None:
        # One that raises now and then can be trained on.
        for seed in range(_LOOKS):
            try:
                problem[:] = _problems(env_id, arguments, seed)
                break
            except Exception as error:  # noqa: BLE001 - an environment may raise anything
                problem[:] = [f"raises {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"]

    # A thread, since nothing else can be left behind when an environment never returns.
    thread = threading.Thread(target=look, daemon=True, name=f"preflight {env_id}")
    thread.start()
    thread.join(time_limit_seconds)
    if thread.is_alive():
        raise InputError(f"env {env_id}: hangs: {CHECKED_STEPS} steps take more than {time_limit_seconds:g} s")
    if problem:
        raise InputError(f"env {env_id}: {problem[0]}")


def _problems(env_id: str, arguments: Mapping[str, Any], seed: int) -> list[str]:
    entry = find_env(env_id)
    # What is trained on: with its wrappers, before its spaces are flattened, so that messages name what the environment shows.
    foreign = isinstance(entry, ForeignEntry)
    env: Any = entry.wrapped(**arguments) if isinstance(entry, ForeignEntry) else entry.maker()(**dict(arguments)).unwrapped
    # Random actions through the adapter that policies act by, which knows the valid ones.
    flat: Any = entry.spaces(**arguments) if isinstance(entry, ForeignEntry) else None
    env.action_space.seed(seed)
    rng = np.random.default_rng(seed)
    answer = env.reset(seed=seed)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        return ["reset() must return (observation, info); an environment of the old gym API is not allowed"]
    problem = _observation_problem("reset()", answer[0], env.observation_space)
    if problem:
        return [problem]
    info = answer[1]
    for _ in range(CHECKED_STEPS):
        answer = env.step(_random_action(env, flat, answer[0], info, rng) if foreign else env.action_space.sample())
        if not (isinstance(answer, tuple) and len(answer) == 5):
            count = len(answer) if isinstance(answer, tuple) else 1
            return [
                f"step() returns {count} values; allowed: 5 (observation, reward, terminated, truncated, info), gymnasium's API"
            ]
        observation, reward, terminated, truncated, info = answer
        problem = _observation_problem("step()", observation, env.observation_space)
        if problem:
            return [problem]
        if not np.isscalar(reward) and np.ndim(reward) != 0:
            return [f"step() returns a reward of shape {np.shape(reward)}; allowed: one number"]
        if not np.isfinite(float(reward)):
            return [f"step() returns the reward {reward!r}; allowed: finite numbers"]
        if terminated or truncated:
            answer = env.reset()
            info = answer[1]
    env.close()
    return []


def _look_at_live(entry: EnvEntry, arguments: Mapping[str, Any]) -> None:
    """Only a reset: a random step would act on something real."""
    env: Any = entry.maker()(**arguments)
    try:
        problem = _observation_problem("reset()", env.reset()[0], env.observation_space)
    finally:
        env.close()
    if problem:
        raise InputError(f"env {entry.env_id}: {problem}")


def _random_action(env: Any, flat: FlatSpaces, observation: Any, info: Mapping[str, Any], rng: np.random.Generator) -> Any:
    if flat.actions.components:
        return env.action_space.sample()
    valid = valid_actions(env, flat, observation, info)
    allowed = np.arange(len(flat.actions.actions)) if valid is None else np.flatnonzero(valid)
    return flat.actions.real(rng.choice(allowed))


def _observation_problem(where: str, observation: Any, space: Any, name: str = "") -> str | None:
    """What is wrong with an observation, its first wrong part by name where it has several."""
    if space.contains(observation):
        return None
    what = f"an observation{f' whose {name}' if name else ''}"
    parts = _parts(space, observation, name)
    if parts is None:
        return f"{where} returns {what} {'is' if name else 'that is'} a {type(observation).__name__}; allowed: {space}"
    for path, part, value in parts:
        problem = _observation_problem(where, value, part, path)
        if problem:
            return problem
    wanted = f"{space.dtype} {space.shape}" if isinstance(space, gym.spaces.Box) else str(space)
    try:
        array = np.asarray(observation)
    except ValueError:
        array = np.empty(0, dtype=object)
    has, that = ("has", "is") if name else ("of", "that is")
    if space.shape is None or array.dtype == object:
        return f"{where} returns {what} {that} {str(observation)[:60]!r}; allowed: {wanted}"
    if array.shape != space.shape:
        return f"{where} returns {what} {has} shape {array.shape}; allowed: {wanted}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"{where} returns {what} {that} not finite; allowed: numbers within its space"
    if array.dtype != space.dtype and isinstance(space, gym.spaces.Box):
        return f"{where} returns {what} {has} dtype {array.dtype}; allowed: {wanted}"
    return f"{where} returns {what} {'lies' if name else ''} outside its space; allowed: {wanted} within its bounds".replace(
        "  ", " "
    )


def _parts(space: Any, observation: Any, name: str) -> list[tuple[str, Any, Any]] | None:
    """(path, space, value) of the parts of a Dict or Tuple; none of others; None where the observation is no such thing."""
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(observation, Mapping) or set(observation) != set(space.spaces):
            return None
        return [(f"{name}.{key}" if name else str(key), part, observation[key]) for key, part in space.spaces.items()]
    if isinstance(space, gym.spaces.Tuple):
        if not isinstance(observation, list | tuple) or len(observation) != len(space.spaces):
            return None
        return [(f"{name or 'observation'}_{i}", part, observation[i]) for i, part in enumerate(space.spaces)]
    return []
