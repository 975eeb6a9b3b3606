"""ResourceManager-v0 in plain Python, one step at a time: what `env_step` is measured against where the specification is absent.

Written from the prose of the environment; the product never imports it.
"""

from __future__ import annotations

FEWEST, MOST, START = 1, 5, 2
LOWEST_RATE, HIGHEST_RATE, START_RATE, MEMORY_FACTOR, LIMIT = 20.0, 300.0, 100.0, 0.8, 100

Observation = tuple[float, float, float]


class ResourceManager:
    """A single service."""

    def reset(self) -> Observation:
        """Two instances, 100 requests/s."""
        self.rate, self.instances, self.step_index = START_RATE, START, 0
        return self.observation()

    def step(self, action: int, rate_factor: float) -> tuple[Observation, float, bool]:
        """Act, measure, reward, then the rate moves; (observation, reward, truncated)."""
        self.instances = min(MOST, max(FEWEST, self.instances + (0, 1, -1)[action]))
        cpu, memory = self.usage()
        reward = -1.0 if action else 0.0
        if 30 <= cpu <= 70 and 30 <= memory <= 70:
            reward += 10.0
        elif cpu > 90 or memory > 90 or cpu < 10 or memory < 10:
            reward -= 5.0
        self.rate = min(HIGHEST_RATE, max(LOWEST_RATE, self.rate * rate_factor))
        self.step_index += 1
        return self.observation(), reward, self.step_index >= LIMIT

    def usage(self) -> tuple[float, float]:
        """CPU and memory percent."""
        share = self.rate / self.instances
        return min(100.0, share), min(100.0, share * MEMORY_FACTOR)

    def observation(self) -> Observation:
        """CPU percent, memory percent, request rate."""
        cpu, memory = self.usage()
        return cpu, memory, self.rate
