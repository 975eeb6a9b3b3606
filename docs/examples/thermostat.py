"""Thermostat-v0: a room to be kept at 20 °C, as an environment of your own. docs/learning.md walks through it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

WANTED_CELSIUS, EPISODE_STEPS = 20.0, 48


class Thermostat(gym.Env[NDArray[np.float32], np.int64]):
    """Heat or not, every half hour of a day whose weather is drawn anew."""

    # A fixed length, so that every episode weighs the same; what the policy sees has a name, a unit and bounds.
    observation_space = gym.spaces.Box(np.array([-20, -20], np.float32), np.array([60, 40], np.float32))
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new day: all chance comes from `self.np_random`, which `seed` decides."""
        super().reset(seed=seed)
        self.room_celsius = float(self.np_random.uniform(10, 25))
        self.outside_celsius = float(self.np_random.uniform(-5, 10))
        self.steps = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Half an hour; the reward is what is wanted itself: degrees off, and a price for heating."""
        heats = int(action)
        self.room_celsius += 0.1 * (self.outside_celsius - self.room_celsius) + 3.0 * heats
        self.outside_celsius = float(np.clip(self.outside_celsius + self.np_random.normal(0, 0.5), -20, 40))
        self.steps += 1
        reward = -abs(self.room_celsius - WANTED_CELSIUS) - 0.2 * heats
        # Cut by the clock, not ended by anything in the room: `truncated`, never `terminated`.
        return self._observation(), reward, False, self.steps >= EPISODE_STEPS, {"heats": float(heats)}

    def get_action_meanings(self) -> list[str]:
        """What tables and pictures call the actions."""
        return ["off", "heat"]

    def _observation(self) -> NDArray[np.float32]:
        return np.array([self.room_celsius, self.outside_celsius], np.float32)


gym.register("Thermostat-v0", entry_point=Thermostat)
