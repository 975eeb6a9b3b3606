"""What every action would have cost: each tried once in a copy of the environment, before the same traffic.

What comes to a service does not depend on what is done, so a simulator can be asked about the actions that were not taken. The
copies then follow the policy for some steps, all with the same noise: what they differ by is the action's doing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchEnv


@dataclass(frozen=True)
class Tried:
    """What came of every action of num_envs environments.

    Attributes:
        reward: (num_envs, num_actions) float32, discounted sum until the copies were left.
        discount: (num_envs, num_actions) float32, of the value of where they were left; 0 where the episode terminated.
        last_observation: (num_envs, num_actions, *shape) where they were left.
    """

    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    last_observation: NDArray[Any]


def try_every_action(
    batch: BatchEnv,
    num_actions: int,
    follow: Callable[[NDArray[Any], int], NDArray[Any]],
    *,
    num_steps: int,
    gamma: float,
    reward_clip: float = np.inf,
) -> Tried:
    """Copy each environment as often as there are actions, take one in each, and follow the policy.

    Args:
        batch: the environments, which do not notice.
        num_actions: discrete actions.
        follow: (observations (num_envs × num_actions, *shape), step from 1) → actions; neighbours are copies of one environment.
        num_steps: steps of each copy, the first included.
        gamma: discount.
        reward_clip: rewards are cut at ± this.
    """
    num_envs = batch.num_envs
    fork, actions = batch.fork(np.repeat(np.arange(num_envs), num_actions)), np.tile(np.arange(num_actions), num_envs)
    reward, discount = np.zeros(fork.num_envs), np.ones(fork.num_envs)
    going = np.ones(fork.num_envs, np.bool_)
    last: NDArray[Any] | None = None
    for h in range(num_steps):
        if last is not None:
            actions = follow(last, h)
        step = fork.step_batch(actions)
        reward += np.where(going, discount * np.clip(step.reward, -reward_clip, reward_clip), 0.0)
        discount = np.where(going, np.where(step.terminated, 0.0, gamma * discount), discount)
        rows = going.reshape(-1, *(1,) * (step.observation.ndim - 1))
        last = step.observation if last is None else np.where(rows, step.observation, last)
        going &= ~(step.terminated | step.truncated)
        if not going.any():
            break
    assert last is not None
    shape = (num_envs, num_actions)
    return Tried(
        reward.astype(np.float32).reshape(shape),
        discount.astype(np.float32).reshape(shape),
        last.reshape(*shape, *last.shape[1:]),
    )


def advantages_of_all(log_probability: torch.Tensor, action_value: torch.Tensor) -> torch.Tensor:
    """(n, num_actions): by how much each action is better than the policy's own mean, from (n, num_actions) each."""
    return action_value - (log_probability.exp() * action_value).sum(dim=-1, keepdim=True)
