"""The contract every scaling environment keeps, checkable on your own: `check_scaling_env(make_env, make_vec)`.

Beyond `gymnasium.utils.env_checker`, which it runs with warnings as errors: the same seed gives the same trajectory,
single or batched, at any batch size and index, across episode ends; every autoreset mode does what gymnasium says;
observations stay inside their space; environments differ; and an environment can be copied and pickled mid-episode.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

Transition = tuple[NDArray[Any], float, bool, bool]
Envs = gym.vector.VectorEnv[Any, Any, Any]
DEFAULT_BATCH_SIZES = (1, 2, 3, 17, 64)


class MakeVec(Protocol):
    """Makes a native vector environment."""

    def __call__(self, num_envs: int, autoreset_mode: AutoresetMode) -> Envs:
        """`num_envs` environments that end and restart as `autoreset_mode` says."""
        ...


class ContractError(AssertionError):
    """An environment broke the contract; the message says where."""


def check_scaling_env(
    make_env: Callable[[], gym.Env[Any, Any]],
    make_vec: MakeVec,
    *,
    num_steps: int = 64,
    seed: int = 7,
    batch_sizes: Sequence[int] = DEFAULT_BATCH_SIZES,
    stochastic: bool = True,
) -> None:
    """Hold an environment to the contract.

    Args:
        make_env: a new single environment, each call.
        make_vec: a new native batch of the same environment.
        num_steps: steps of each check; episodes must be shorter, so that their end is crossed.
        seed: of the environments and the actions.
        batch_sizes: batches held against single environments.
        stochastic: other seeds must give other trajectories under the same actions.

    Raises:
        ContractError: what differs, where.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_env()
        check_env(env.unwrapped, skip_render_check=env.render_mode is None)
    actions = _actions(env, num_steps, max(batch_sizes), seed)
    references = [_single_trajectory(make_env, actions[:, i], seed + i) for i in range(max(batch_sizes))]
    _require(any(t[2] or t[3] for t in references[0]), "no episode ends within num_steps: give shorter episodes or more steps")
    _compare(_single_trajectory(make_env, actions[:, 0], seed), references[0], "the same seed twice")
    if stochastic:
        other = _single_trajectory(make_env, actions[:, 0], seed + 1)
        differs = any(not _equal(a[0], b[0]) for a, b in zip(other, references[0], strict=True))
        _require(differs, "two seeds observe the same under the same actions: draw from streams of the seed")
    for size in batch_sizes:
        _check_batch(make_vec, actions[:, :size], references[:size], seed)
    size = min(3, max(batch_sizes))
    _check_same_step(make_vec, actions[:, :size], references[:size], seed)
    _check_disabled(make_vec, actions[:, :size], references[:size], seed)
    _check_copies(make_env, actions[:, 0], seed)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(a, b)


def _actions(env: gym.Env[Any, Any], num_steps: int, num_envs: int, seed: int) -> NDArray[Any]:
    env.action_space.seed(seed)
    return np.array([[env.action_space.sample() for _ in range(num_envs)] for _ in range(num_steps)])


def _single_trajectory(make_env: Callable[[], gym.Env[Any, Any]], actions: NDArray[Any], seed: int) -> list[Transition]:
    """What a single environment answers, reset where gymnasium's NEXT_STEP would: the reset takes a step of its own."""
    env = make_env()
    observation, _ = env.reset(seed=seed)
    transitions: list[Transition] = [(observation, 0.0, False, False)]
    ended = False
    for action in actions:
        if ended:
            observation, reward, terminated, truncated = env.reset()[0], 0.0, False, False
        else:
            observation, reward, terminated, truncated, _ = env.step(action)  # type: ignore[assignment]
        ended = terminated or truncated
        _require(env.observation_space.contains(observation), f"observation outside its space: {observation!r}")
        _require(bool(np.isfinite(reward)), f"reward {reward!r} is not finite")
        transitions.append((observation, float(reward), terminated, truncated))
    return transitions


def _compare(actual: Sequence[Transition], expected: Sequence[Transition], what: str) -> None:
    for step, (a, b) in enumerate(zip(actual, expected, strict=True)):
        for name, x, y in zip(("observation", "reward", "terminated", "truncated"), a, b, strict=True):
            _require(_equal(x, y), f"{what}: {name} differs at step {step}: {x!r} and {y!r}")


def _check_batch(make_vec: MakeVec, actions: NDArray[Any], references: list[list[Transition]], seed: int) -> None:
    size = len(references)
    envs = make_vec(size, AutoresetMode.NEXT_STEP)
    observation, _ = envs.reset(seed=seed)
    nobody = np.zeros(size, dtype=np.bool_)
    steps = [(observation.copy(), np.zeros(size), nobody, nobody)]
    for action in actions:
        observation, reward, terminated, truncated, info = envs.step(action)
        _require(envs.observation_space.contains(observation), f"batch of {size}: observation outside its space")
        _check_masks(info, size, f"batch of {size}")
        steps.append((observation.copy(), reward.copy(), terminated.copy(), truncated.copy()))
    for i, reference in enumerate(references):
        mine = [(o[i], float(r[i]), bool(e[i]), bool(u[i])) for o, r, e, u in steps]
        _compare(mine, reference, f"environment {i} of {size} against a single one")
    envs.close()


def _check_masks(info: dict[str, Any], num_envs: int, what: str) -> None:
    for name in info:
        if not name.startswith("_"):
            mask = np.asarray(info.get(f"_{name}"))
            _require(mask.shape == (num_envs,) and mask.dtype == np.bool_, f"{what}: info {name} has no bool mask _{name}")


def _check_same_step(make_vec: MakeVec, actions: NDArray[Any], references: list[list[Transition]], seed: int) -> None:
    """SAME_STEP: an end returns the next episode's first observation at once, the last one in `final_obs`."""
    size = len(references)
    envs = make_vec(size, AutoresetMode.SAME_STEP)
    observation, _ = envs.reset(seed=seed)
    at = np.zeros(size, dtype=np.int64)
    for _ in range(len(actions) // 2):
        action = np.array([actions[at[i], i] for i in range(size)])
        observation, reward, terminated, truncated, info = envs.step(action)
        ended = terminated | truncated
        _check_masks(info, size, "SAME_STEP")
        if ended.any():
            _require(_equal(info.get("_final_obs"), ended), "SAME_STEP: mask _final_obs does not say who ended")
            _require(_equal(info.get("_final_info"), ended), "SAME_STEP: mask _final_info does not say who ended")
        for i, reference in enumerate(references):
            expected = reference[at[i] + 1]
            seen = info["final_obs"][i] if ended[i] else observation[i]
            mine = (seen, float(reward[i]), bool(terminated[i]), bool(truncated[i]))
            _compare([mine], [expected], f"SAME_STEP environment {i}")
            at[i] += 1
            if ended[i]:
                first = reference[at[i] + 1][0]
                _require(_equal(observation[i], first), f"SAME_STEP environment {i}: not the next episode's first observation")
                at[i] += 1
    envs.close()


def _check_disabled(make_vec: MakeVec, actions: NDArray[Any], references: list[list[Transition]], seed: int) -> None:
    """DISABLED: nothing resets on its own, stepping on is refused, `reset_mask` resets exactly those it names."""
    envs = make_vec(len(references), AutoresetMode.DISABLED)
    observation, _ = envs.reset(seed=seed)
    for step, action in enumerate(actions):
        observation, _, terminated, truncated, _ = envs.step(action)
        ended = terminated | truncated
        expected = [reference[step + 1] for reference in references]
        _require(all(_equal(observation[i], e[0]) for i, e in enumerate(expected)), f"DISABLED: step {step} differs")
        if ended.any():
            break
    try:
        envs.step(actions[0])
    except (gym.error.ResetNeeded, AssertionError):
        pass
    else:
        raise ContractError("DISABLED: a step after the end was not refused")
    fresh, _ = envs.reset(options={"reset_mask": ended})
    for i, reference in enumerate(references):
        wanted = reference[step + 2][0] if ended[i] else observation[i]
        _require(_equal(fresh[i], wanted), f"DISABLED: reset_mask left environment {i} wrong")
    envs.close()


def _check_copies(make_env: Callable[[], gym.Env[Any, Any]], actions: NDArray[Any], seed: int) -> None:
    env = make_env().unwrapped
    env.reset(seed=seed)
    env.step(actions[0])
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]  # noqa: S301 - our own bytes
    expected = env.step(actions[1])[:4]
    for name, other in zip(("deepcopy", "pickle"), copies, strict=True):
        actual = other.step(actions[1])[:4]
        same = all(_equal(a, b) for a, b in zip(actual, expected, strict=True))
        _require(same, f"{name}: a copy made mid-episode goes on differently")


__all__ = ["DEFAULT_BATCH_SIZES", "ContractError", "MakeVec", "check_scaling_env"]
