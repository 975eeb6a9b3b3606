"""Small environments that fail, or give what is no number, in the ways that people report."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

FIELDS = 3


class Target(gym.Env[np.ndarray, int]):
    """40 steps; which of three actions is right is shown one-hot, and worth 1."""

    observation_space = gym.spaces.Box(0.0, 1.0, (FIELDS,), np.float32)
    action_space = gym.spaces.Discrete(3)
    length = 40

    def __init__(self, fault: str = "none", at: int = 0) -> None:
        self.fault, self.at, self.steps = fault, at, 0
        if fault == "constructor":
            raise OSError("no licence")

    def shown(self) -> np.ndarray:
        self.target = int(self.np_random.integers(0, 3))
        return np.eye(FIELDS, dtype=np.float32)[self.target]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.seed = 0, seed
        if self.fault == "reset":
            raise OSError("no licence")
        return self.shown(), {}

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward: Any = 1.0 if int(action) == self.target else 0.0
        observation: Any = self.shown()
        if self.fault == "flaky":
            if self.np_random.random() < 0.02:
                raise ConnectionError("simulator gone")
            reward = 1.0
        if self.fault == "raises" and self.steps > self.at:
            raise OSError("no licence")
        if self.fault == "hangs" and self.steps > self.at:
            time.sleep(600)
        if self.fault == "hangs_in" and self.seed is not None and self.at <= self.seed < self.at + 500_000:
            # In one phase of a run: each has seeds of its own.
            time.sleep(600)
        if self.fault == "big":
            reward = -1e6 + 5e4 * reward
        if self.fault == "outside" and self.steps > 25:
            observation = observation * 3
        return observation, reward, False, self.fault != "endless" and self.steps >= self.length, {}


class Spoilt(Target):
    """One step in `every`, over all environments of a process, gives something else instead of its reward or observation."""

    steps_of_all = ok_for = 0

    def __init__(self, reward: Any = None, observation: Any = None, every: int = 1500) -> None:
        super().__init__()
        self.spoilt_reward, self.every = reward, every
        self.spoilt_observation = np.array(observation, np.float32) if isinstance(observation, list) else observation

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        Spoilt.steps_of_all += 1
        if Spoilt.steps_of_all > Spoilt.ok_for and Spoilt.steps_of_all % self.every == 0:
            reward = reward if self.spoilt_reward is None else self.spoilt_reward
            observation = observation if self.spoilt_observation is None else self.spoilt_observation
        return observation, reward, terminated, truncated, info


def register() -> None:
    """Register both with gymnasium."""
    Spoilt.steps_of_all = Spoilt.ok_for = 0
    gym.registry.pop("FailingTarget-v0", None)
    gym.registry.pop("Spoilt-v0", None)
    gym.register("FailingTarget-v0", entry_point=Target, disable_env_checker=True)
    gym.register("Spoilt-v0", entry_point=Spoilt, disable_env_checker=True)


register()
