"""From rollouts to n-step transitions, vectorised, without losing or inventing any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from scalepilot.learn.rllib.learner import clipped_rewards
from scalepilot.learn.rllib.rollout import Rollout


class Transitions(NamedTuple):
    """What a value is learnt from: target = reward + discount · value(next_observation).

    Attributes:
        observation: (n, *shape), dtype of the space.
        action: (n,) int64.
        reward: (n,) float32, of up to n_step steps, discounted to the first.
        discount: (n,) float32, γ^steps; 0 where the episode terminated.
        next_observation: (n, *shape), the true last one where the episode was truncated.
    """

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    discount: torch.Tensor
    next_observation: torch.Tensor


@dataclass
class _Steps:
    """Consecutive steps of all environments; `pending` marks those whose transition is still to come.

    Attributes:
        observation: (T + 1, num_envs, *shape).
        action: (T, num_envs), as are the others up to `pending`.
        final_index: (m, 2), as in `Rollout`.
        final_observation: (m, *shape), likewise.
    """

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    pending: torch.Tensor
    final_index: torch.Tensor
    final_observation: torch.Tensor

    def __len__(self) -> int:
        return len(self.reward)

    def last(self, count: int) -> _Steps:
        """The last `count` steps, copied: a view would keep the whole rollout alive."""
        at = len(self) - count
        columns = (self.observation, self.action, self.reward, self.terminated, self.truncated, self.pending)
        kept = self.final_index[:, 0] >= at
        final_index = self.final_index[kept] - self.final_index.new_tensor([at, 0])
        return _Steps(*[*(column[at:].clone() for column in columns), final_index, self.final_observation[kept]])

    def followed_by(self, after: _Steps) -> _Steps:
        """Both, one after the other; what does not go on in `after` (an env runner was restarted) is given up."""
        if self.reward.shape[1] != after.reward.shape[1]:
            return after
        envs = self.reward.shape[1]
        goes_on = (self.observation[-1] == after.observation[0]).reshape(envs, -1).all(dim=1)
        return _Steps(
            torch.cat([self.observation[:-1], after.observation]),
            torch.cat([self.action, after.action]),
            torch.cat([self.reward, after.reward]),
            torch.cat([self.terminated, after.terminated]),
            torch.cat([self.truncated, after.truncated]),
            torch.cat([self.pending & goes_on, after.pending]),
            torch.cat([self.final_index, after.final_index + after.final_index.new_tensor([len(self), 0])]),
            torch.cat([self.final_observation, after.final_observation]),
        )


class NStepBuilder:
    """Turns each rollout into the transitions it completes; the last n_step − 1 steps wait for the next rollout.

    Args:
        n_step: rewards summed before bootstrapping; fewer where the episode ends before.
        gamma: discount.
        reward_clip: rewards are cut at ± this; None cuts none.
        device: of the transitions.

    Source:
        n-step targets: Sutton and Barto, "Reinforcement Learning", 2nd ed., eq. 7.1; in DQN: Hessel et al. 2018.
    """

    def __init__(self, n_step: int, gamma: float, reward_clip: float | None, device: torch.device) -> None:
        self.n_step, self.gamma, self.device = n_step, gamma, device
        self.reward_clip = float("inf") if reward_clip is None else reward_clip
        # What was cut in the last rollout.
        self.cut: dict[str, float] = {}
        self._tail: _Steps | None = None

    def __call__(self, rollout: Rollout) -> Transitions:
        """The transitions that are complete now, in order of their first step."""

        def tensor(column: Any) -> torch.Tensor:
            return torch.from_numpy(column).to(self.device)

        reward, self.cut = clipped_rewards(tensor(rollout.reward), tensor(rollout.valid), self.reward_clip)
        # Steps after an end only reset: they begin no transition, and an end before them stops every sum.
        steps = _Steps(
            tensor(rollout.observation),
            tensor(rollout.action),
            reward,
            tensor(rollout.terminated),
            tensor(rollout.truncated),
            tensor(rollout.valid),
            tensor(rollout.final_index),
            tensor(rollout.final_observation),
        )
        if self._tail is not None:
            steps = self._tail.followed_by(steps)
        complete, transitions = self._complete(steps)
        steps.pending = steps.pending & ~complete
        self._tail = steps.last(min(self.n_step - 1, len(steps))) if self.n_step > 1 else None
        return transitions

    def _complete(self, steps: _Steps) -> tuple[torch.Tensor, Transitions]:
        num_steps, envs = steps.reward.shape
        ends = steps.terminated | steps.truncated
        going = torch.ones_like(ends)
        reward, length = torch.zeros_like(steps.reward), torch.zeros_like(steps.action)
        terminated = torch.zeros_like(ends)
        for k in range(min(self.n_step, num_steps)):
            starts, alive = slice(0, num_steps - k), going[: num_steps - k]
            reward[starts] += self.gamma**k * steps.reward[k:] * alive
            length[starts] += alive
            terminated[starts] |= alive & steps.terminated[k:]
            going[starts] = alive & ~ends[k:]
        complete = ~going
        complete[: max(0, num_steps - self.n_step + 1)] = True
        complete &= steps.pending
        rows = complete.reshape(-1).nonzero().squeeze(1)
        length, flat = length.reshape(-1)[rows], steps.observation.reshape(-1, *steps.observation.shape[2:])
        discount = torch.pow(self.gamma, length.to(reward.dtype)) * ~terminated.reshape(-1)[rows]
        next_observation = flat[rows + length * envs]
        if len(steps.final_index):
            # Which end, if any, each step is.
            ended = torch.full((num_steps * envs,), -1, device=self.device)
            ended[steps.final_index[:, 0] * envs + steps.final_index[:, 1]] = torch.arange(
                len(steps.final_index), device=self.device
            )
            last = ended[rows + (length - 1) * envs]
            next_observation[last >= 0] = steps.final_observation[last[last >= 0]]
        return complete, Transitions(
            flat[rows], steps.action.reshape(-1)[rows], reward.reshape(-1)[rows], discount, next_observation
        )

    def get_state(self) -> dict[str, Any]:
        """The waiting steps as arrays."""
        return {} if self._tail is None else {name: column.cpu().numpy() for name, column in vars(self._tail).items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What `get_state` gave."""
        columns = {name: torch.from_numpy(column.copy()).to(self.device) for name, column in state.items()}
        self._tail = _Steps(**columns) if columns else None
