"""One greedy episode step by step: what the policy scored, what it chose, what it got, what could be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import EnvironmentFailedError
from scalepilot.files.stop import StepLimit, at_once
from scalepilot.policy import Policy
from scalepilot.simulate import as_rows
from scalepilot.simulate.episode_runner import EpisodeLimits
from scalepilot_envs.registration import find_env
from scalepilot_envs.restarting import CheckedEnv, StepError, derived_seed

# What a person watches: ten seconds of it, of an episode that is cut after so many steps.
MOST_STEPS, MOST_FRAMES = 2000, 150


@dataclass(frozen=True)
class Recording:
    """An episode of n steps.

    Attributes:
        reward: (n,).
        action: (n,) indices, or (n, k) numbers; None for a policy that commands targets.
        scores: (n, num_actions) logits or Q-values; None for a policy without.
        frames: (height, width, 3) uint8 each; none unless filmed.
        frames_per_second: of the film.
        observation: (n, num_fields) what the policy saw; None of images.
    """

    reward: NDArray[np.float64]
    action: NDArray[Any] | None
    scores: NDArray[np.float32] | None
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    frames_per_second: float = MOST_FRAMES / 10.0
    observation: NDArray[Any] | None = None


def record_episode(
    policy: Policy, env_id: str, arguments: Mapping[str, Any], seed: int, *, film: bool = False, most_steps: int = MOST_STEPS
) -> Recording:
    """Run a policy greedily through an episode.

    Args:
        policy: to watch.
        env_id: of the environment.
        arguments: what it is made with.
        seed: of the episode.
        film: draw it; flown once more for that, since only then is it known how long it is.
        most_steps: after so many it is cut.
    """
    recording = _recorded(policy, env_id, arguments, seed, most_steps, None)
    if not film:
        return recording
    return _recorded(policy, env_id, arguments, seed, most_steps, math.ceil(len(recording.reward) / MOST_FRAMES))


def _recorded(
    policy: Policy, env_id: str, arguments: Mapping[str, Any], seed: int, most_steps: int, film_every: int | None
) -> Recording:
    """An episode that did not fail: with its own seed, else with seeds that follow from it.

    Raises:
        EnvironmentFailedError: it fails again and again, or hangs.
    """
    limit = EpisodeLimits()
    hangs = EnvironmentFailedError(f"env {env_id}: hangs: a step takes more than {limit.step_seconds:g} s")
    failure = ""
    for attempt in range(limit.attempts):
        with at_once(), StepLimit(limit.step_seconds, lambda: hangs) as clock:
            try:
                chosen = seed if attempt < 2 else derived_seed(seed, attempt) or 0
                return _flown(policy, env_id, arguments, chosen, most_steps, film_every, clock)
            except StepError as error:
                failure = failure or str(error)
    raise EnvironmentFailedError(f"{failure}; {limit.attempts} failures, no episode completed")


def _flown(
    policy: Policy,
    env_id: str,
    arguments: Mapping[str, Any],
    seed: int,
    most_steps: int,
    film_every: int | None,
    clock: StepLimit,
) -> Recording:
    drawn = {} if film_every is None else {"render_mode": "rgb_array"}
    clock.step()
    env = CheckedEnv(find_env(env_id).maker()(**{**arguments, **drawn}), env_id)
    observation, _ = env.reset(seed=seed)
    state, rng = None, np.random.default_rng(seed)
    rewards, actions, scores, frames = list[float](), list[Any](), list[NDArray[np.float32]](), list[NDArray[np.uint8]]()
    seen: list[NDArray[Any]] = []
    for t in range(most_steps):
        if film_every is not None and t % film_every == 0:
            frames.append(_frame(env))
        row = as_rows(np.asarray(observation)[None])
        if row.ndim == 2:
            seen.append(row[0].copy())
        decision, state = policy.act(row, state, rng=rng)
        clock.step()
        if decision.action is not None:
            action = decision.action[0]
            actions.append(action)
            step = env.step(int(action) if np.ndim(action) == 0 else action)
        else:
            assert decision.desired_replicas is not None
            step = env.step_targets(float(decision.desired_replicas[0]))
        if decision.scores is not None:
            scores.append(decision.scores[0])
        observation, reward, terminated, truncated, _ = step
        rewards.append(float(reward))
        if terminated or truncated:
            break
    if film_every is not None:
        frames.append(_frame(env))
    env.close()  # type: ignore[no-untyped-call]
    return Recording(
        np.array(rewards),
        np.array(actions) if actions else None,
        np.array(scores) if scores else None,
        frames,
        observation=np.array(seen) if seen else None,
    )


def _frame(env: CheckedEnv) -> NDArray[np.uint8]:
    drawn: Any = env.render()
    return np.asarray(drawn, dtype=np.uint8)
