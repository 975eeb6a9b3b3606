"""ε-greedy exploration: how random, and the env runner that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scalepilot.learn.rllib.env_runner import VectorEnvRunner
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot_envs.description import valid_at


@dataclass(frozen=True)
class EpsilonSchedule:
    """Share of random actions.

    Attributes:
        start: in the beginning.
        end: never less.
        steps: environment steps over which it falls linearly.
        factor_per_episode: instead, the factor by which each finished episode multiplies it; None for the linear fall.
    """

    start: float
    end: float
    steps: float
    factor_per_episode: float | None = None

    def at(self, env_steps: float, episodes: float) -> float:
        """ε after so many steps and finished episodes of all environments together."""
        if self.factor_per_episode is not None:
            return max(self.end, self.start * math.pow(self.factor_per_episode, episodes))
        share = min(1.0, env_steps / self.steps) if self.steps > 0 else 1.0
        return self.start + share * (self.end - self.start)


class EpsilonGreedyRunner(VectorEnvRunner):
    """Samples with ε-greedy actions; `sample(epsilon=…)` says how random."""

    envs_per_input = 1
    _every = None

    def _prepare_actions(self, num_steps: int, epsilon: float = 0.0, **kwargs: Any) -> Rollout:
        shape = (num_steps, self.num_envs)
        self._random: NDArray[np.bool_] = (torch.rand(shape, generator=self._generator) < epsilon).numpy()
        self._random_actions: NDArray[np.int64] = torch.randint(
            self._distribution.num_inputs, shape, generator=self._generator
        ).numpy()
        if getattr(self.module, "num_masked", 0):
            # To spread each action's share of the range, which others may not be valid in.
            self._shares: NDArray[np.float64] = torch.rand(shape, generator=self._generator, dtype=torch.float64).numpy()
        return Rollout.empty(num_steps, self._observation, self.env.single_action_space)

    def _choose_actions(self, rollout: Rollout, t: int, outputs: torch.Tensor) -> None:
        random = self._random_actions[t]
        num_masked = getattr(self.module, "num_masked", 0)
        if num_masked:
            # A whole number below the number of actions says at which share of the valid ones.
            valid = rollout.observation[t][:, -num_masked:] > 0.5
            random = valid_at((random + self._shares[t]) / self._distribution.num_inputs, valid)
        rollout.action[t] = np.where(self._random[t], random, outputs.argmax(dim=-1).numpy())

    def _describe_actions(self, rollout: Rollout) -> None:
        """Nothing: the learner is off-policy."""
