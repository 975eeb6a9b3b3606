"""ClusterDeployment-v0 in plain Python, one step at a time: the rival of `env_step` where the specification is absent.

Written from the prose of the environment; the product never imports it.
"""

from __future__ import annotations

import math
from collections import deque

POD_LOAD, MEMORY, SWAP, FEWEST, MOST, START, STARTUP, PATIENCE, LIMIT = 500.0, 500e6, 200e6, 1, 40, 5, 2, 3, 100
# By band of the CPU: no-op, up, down.
CPU_REWARDS = ((0.3, (-0.1, -0.2, 0.2)), (0.7, (0.3, 0.1, 0.1)), (0.85, (0.0, 0.2, -0.2)), (2.0, (-0.4, 0.4, -0.4)))

Observation = tuple[float, ...]


def base_load(step: int, noise: float = 0.0) -> float:
    """Requests of a step on a weekday without spikes."""
    return max(50.0, 500.0 * (1.0 + 0.3 * math.sin(2.0 * math.pi * step / 1440)) + noise)


class ClusterDeployment:
    """A single deployment."""

    def reset(self, load: float) -> Observation:
        """Five pods that serve `load`."""
        self.ready, self.starting, self.step_index, self.overloaded = START, [0] * STARTUP, 0, 0
        self.loads = deque([load] * 10, maxlen=10)
        self.measure(load, 0.0, 0.0)
        return self.observation()

    def measure(self, load: float, cpu_noise: float, memory_noise: float) -> None:
        """What monitoring shows."""
        share = load / (POD_LOAD * self.ready)
        self.cpu = min(1.0, max(0.0, 0.2 + 0.8 * share + cpu_noise))
        wanted = 80e6 + 0.3e6 * load / self.ready + memory_noise
        self.memory, self.swap = min(MEMORY, max(0.0, wanted)) / MEMORY, min(SWAP, max(0.0, wanted - MEMORY)) / SWAP
        self.latency, self.throughput = min(10.0, 0.2 + share * share), min(load, POD_LOAD * self.ready)

    def step(
        self, action: int, load: float, cpu_noise: float = 0.0, memory_noise: float = 0.0, failed: bool = False
    ) -> tuple[Observation, float, bool, bool]:
        """Order or remove a pod, serve; (observation, reward, terminated, truncated)."""
        if not failed:
            self.order((0, 1, -1)[action])
        previous = self.loads[-1]
        self.loads.append(load)
        self.measure(load, cpu_noise, memory_noise)
        reward = self.judge(action, load, (load - previous) / max(previous, 1.0))
        self.overloaded = self.overloaded + 1 if self.cpu > 0.9 or self.memory > 0.9 or self.swap > 0.8 else 0
        terminated = self.overloaded >= PATIENCE
        self.step_index += 1
        self.ready += self.starting[0]
        self.starting = [*self.starting[1:], 0]
        return self.observation(), -5.0 if terminated else reward, terminated, self.step_index >= LIMIT

    def order(self, change: int) -> None:
        """One pod more, or the youngest one less."""
        if not FEWEST <= self.ready + sum(self.starting) + change <= MOST:
            return
        if change > 0:
            self.starting[-1] += 1
        elif change < 0:
            for i in reversed(range(STARTUP)):
                if self.starting[i]:
                    self.starting[i] -= 1
                    return
            self.ready -= 1

    def judge(self, action: int, load: float, gradient: float) -> float:
        """The reward of a step that does not end the episode."""
        reward = -0.1 + next(rewards[action] for limit, rewards in CPU_REWARDS if self.cpu <= limit)
        if self.memory > 0.85:
            reward += (-0.3, 0.3, -0.3)[action]
        if self.ready + sum(self.starting) == min(MOST, max(FEWEST, math.ceil(load / (POD_LOAD * 0.6)))):
            reward += 0.3
        if abs(gradient) > 0.1 and action:
            reward += 0.3 if (action == 1) == (gradient > 0) else -0.3
        reward -= 0.5 * (self.cpu > 0.9) + 0.8 * (self.memory > 0.9) + (0.4 * self.swap if self.swap > 0.1 else 0.0)
        return min(1.0, max(-1.0, reward - (0.0, 0.05, 0.02)[action]))

    def observation(self) -> Observation:
        """The seven fields."""
        nodes, mean_load = math.ceil(self.ready / 8) / 5, sum(self.loads) / len(self.loads) / 5000
        return self.cpu, self.memory, self.latency, self.swap, nodes, mean_load, self.throughput / 1000
