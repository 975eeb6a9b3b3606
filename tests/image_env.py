"""A tiny environment on images."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SHAPE = (40, 36, 3)


class Blob(gym.Env[np.ndarray, int]):
    """Shows a bright square at the left or the right and pays for naming the side."""

    observation_space = spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.draw(), {}

    def draw(self) -> np.ndarray:
        self.side = int(self.np_random.integers(2))
        image = self.np_random.integers(0, 60, SHAPE).astype(np.uint8)
        column = 4 if self.side == 0 else 22
        image[10:22, column : column + 10] = 200
        return image

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float(action == self.side)
        return self.draw(), reward, False, self.steps >= 10, {}
