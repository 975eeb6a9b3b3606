"""A look at an environment in the driver, before workers are started that would fail on it one after the other."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from scalepilot.errors import InputError
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
    # What gymnasium's own wrappers would warn of is looked at here.
    env: Any = find_env(env_id).maker()(**dict(arguments)).unwrapped
    env.action_space.seed(seed)
    answer = env.reset(seed=seed)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        return ["reset() must return (observation, info); an environment of the old gym API is not allowed"]
    problem = _observation_problem("reset()", answer[0], env.observation_space)
    if problem:
        return [problem]
    for _ in range(CHECKED_STEPS):
        answer = env.step(env.action_space.sample())
        if not (isinstance(answer, tuple) and len(answer) == 5):
            count = len(answer) if isinstance(answer, tuple) else 1
            return [
                f"step() returns {count} values; allowed: 5 (observation, reward, terminated, truncated, info), gymnasium's API"
            ]
        observation, reward, terminated, truncated, _ = answer
        problem = _observation_problem("step()", observation, env.observation_space)
        if problem:
            return [problem]
        if not np.isscalar(reward) and np.ndim(reward) != 0:
            return [f"step() returns a reward of shape {np.shape(reward)}; allowed: one number"]
        if not np.isfinite(float(reward)):
            return [f"step() returns the reward {reward!r}; allowed: finite numbers"]
        if terminated or truncated:
            env.reset()
    env.close()
    return []


def _observation_problem(where: str, observation: Any, space: Any) -> str | None:
    if space.contains(observation):
        return None
    array = np.asarray(observation)
    wanted = f"{space.dtype} {space.shape}" if hasattr(space, "shape") else str(space)
    if array.shape != space.shape:
        return f"{where} returns an observation of shape {array.shape}; allowed: {wanted}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"{where} returns an observation that is not finite; allowed: numbers within its space"
    if array.dtype != space.dtype:
        return f"{where} returns an observation of dtype {array.dtype}; allowed: {wanted}"
    return f"{where} returns an observation outside its space; allowed: {wanted} within its bounds"
