"""Episodes of any environment: what a policy collects, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy import Policy
from scalepilot_envs.registration import find_env

Array = NDArray[np.float64]
# Far beyond any episode: an environment that never ends must not hold an evaluation for ever.
_MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class EpisodeReturns:
    """One row an episode, each column (n,).

    Attributes:
        seed: of the environment.
        episode_return: sum of its rewards.
        length: its steps.
        info: mean over the episode of each column the environment reports, and `last_…` its value in the end.
    """

    seed: NDArray[np.int64]
    episode_return: Array
    length: NDArray[np.int64]
    info: dict[str, Array] = field(default_factory=dict)


def as_rows(observation: NDArray[Any]) -> NDArray[Any]:
    """(n, num_fields): numbered states (n,) become one column, more than two dimensions are kept."""
    return observation[:, None] if observation.ndim == 1 else observation


def run_returns(
    policy: Policy, env_id: str, num_episodes: int, *, arguments: Mapping[str, Any] | None = None, first_seed: int = 0
) -> EpisodeReturns:
    """Fly a policy, greedily, through the first episode of `num_episodes` environments side by side.

    Args:
        policy: chooses actions; one that commands targets has them taken where the environment takes targets.
        env_id: of the environment.
        num_episodes: how many.
        arguments: what the environment is made with.
        first_seed: environment i has seed first_seed + i.
    """
    envs = find_env(env_id).vector_maker()(num_envs=num_episodes, **dict(arguments or {}))
    observation, _ = envs.reset(seed=first_seed)
    running = np.ones(num_episodes, dtype=np.bool_)
    returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, dtype=np.int64)
    sums: dict[str, Array] = {}
    last: dict[str, Array] = {}
    state, rng = None, np.random.default_rng(first_seed)
    for _ in range(_MOST_STEPS):
        decision, state = policy.act(as_rows(observation), state, rng=rng)
        takes: Any = envs
        step = takes.step(decision.action) if decision.action is not None else takes.step_targets(decision.desired_replicas)
        observation, reward, terminated, truncated, info = step
        returns += np.where(running, reward, 0.0)
        lengths += running
        for name, column in info.items():
            if not name.startswith("_") and isinstance(column, np.ndarray) and column.dtype.kind in "fiub" and column.ndim == 1:
                sums[name] = sums.get(name, np.zeros(num_episodes)) + np.where(running, column, 0.0)
                last[name] = np.where(running, column, last.get(name, 0.0))
        running &= ~(terminated | truncated)
        if not running.any():
            break
    envs.close()
    info_columns = {name: total / np.maximum(lengths, 1) for name, total in sums.items()}
    info_columns |= {f"last_{name}": values for name, values in last.items()}
    return EpisodeReturns(first_seed + np.arange(num_episodes), returns, lengths, info_columns)
