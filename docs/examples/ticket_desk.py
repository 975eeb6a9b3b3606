"""TicketDesk-v0: clerks behind a desk, a scaling environment of your own. docs/learning.md walks through it.

Stepped as arrays over `num_envs` desks at once: a batch of one is the single environment, so there is one transition function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchEnv, BatchStep, BatchVectorEnv, BoolArray, SingleEnv, entry_points
from scalepilot_envs.streams import Streams

MAX_CLERKS, MAX_QUEUE, SERVED_PER_CLERK = 10, 200.0, 8.0


class TicketDeskBatch(BatchEnv):
    """`num_envs` independent desks.

    Args:
        num_envs: desks stepped together.
        episode_steps: minutes until truncation.
    """

    def __init__(self, num_envs: int, *, episode_steps: int = 60) -> None:
        self.num_envs, self.episode_steps = num_envs, episode_steps
        high = np.array([MAX_QUEUE, MAX_CLERKS, MAX_QUEUE], np.float32)
        self.single_observation_space = gym.spaces.Box(np.zeros(3, np.float32), high)
        self.single_action_space = gym.spaces.Discrete(3)
        self._streams = Streams(["arrivals"])
        self._arrivals = np.zeros((num_envs, episode_steps + 1))
        self._queue, self._clerks = np.zeros(num_envs), np.ones(num_envs)
        self._step = np.zeros(num_envs, dtype=np.int64)

    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """Desk i has chances of its own."""
        self._streams.seed(seeds)

    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> NDArray[Any]:
        """New episodes where the mask says so, each with its arrivals drawn ahead: no action can shift what comes."""
        for i in range(self.num_envs) if mask is None else np.flatnonzero(mask):
            minutes = np.arange(self.episode_steps + 1)
            rate = 24.0 * (1.0 + np.sin(2 * np.pi * minutes / self.episode_steps))
            self._arrivals[i] = self._streams.of("arrivals", i).poisson(rate)
            self._queue[i], self._clerks[i], self._step[i] = 0.0, 3.0, 0
        return self._observation()

    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """One minute: a clerk fewer, the same, or one more; then customers come and are served."""
        self._clerks = np.clip(self._clerks + actions - 1, 1, MAX_CLERKS)
        waiting = self._queue + self._arrivals[np.arange(self.num_envs), self._step]
        self._queue = np.clip(waiting - SERVED_PER_CLERK * self._clerks, 0, MAX_QUEUE)
        # An environment that has ended is stepped once more before its reset: it stays where it is.
        self._step = np.minimum(self._step + 1, self.episode_steps)
        reward = -0.5 * self._clerks - 0.1 * self._queue
        never = np.zeros(self.num_envs, dtype=np.bool_)
        return BatchStep(
            self._observation(), reward, never, self._step >= self.episode_steps, {"queue": self._queue, "clerks": self._clerks}
        )

    def _observation(self) -> NDArray[np.float32]:
        arriving = np.minimum(self._arrivals[np.arange(self.num_envs), self._step], MAX_QUEUE)
        return np.stack([self._queue, self._clerks, arriving], axis=1).astype(np.float32)


make_env, make_vector_env = entry_points(TicketDeskBatch, SingleEnv, BatchVectorEnv)
gym.register("TicketDesk-v0", entry_point=make_env, vector_entry_point=make_vector_env)
