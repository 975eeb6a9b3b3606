"""QueueScaling-v0 in plain Python, one step at a time: what `env_step` is measured against where the specification is absent.

Written from the prose of the environment; the product never imports it.
"""

from __future__ import annotations

import math

CAPACITY, FEWEST, MOST, START, MAX_INFLUX = 87, 2, 100, 50, 4350

Observation = tuple[float, float, int, int, int]


class QueueScaling:
    """A single queue under the sine curve."""

    def reset(self) -> Observation:
        """50 instances, nothing waits."""
        self.step_index = self.queue = self.load = self.pending = 0
        self.instances, self.capacity = START, CAPACITY * START
        self.influx = self.arrivals()
        return self.observation()

    def arrivals(self) -> int:
        """Requests of this step."""
        return math.ceil((math.sin(0.01 * self.step_index) + 1) * MAX_INFLUX / 2)

    def step(self, action: int) -> tuple[Observation, float, bool]:
        """Serve, then apply the action before; (observation, reward, terminated)."""
        self.step_index += 1
        self.influx = self.arrivals()
        self.capacity = CAPACITY * self.instances
        waiting = self.influx + self.queue
        served = min(waiting, self.capacity)
        self.load, self.queue = math.ceil(served / self.capacity * 100), waiting - served
        wanted = self.instances + self.pending
        fits = FEWEST <= wanted <= MOST
        if fits:
            self.instances = wanted
        self.pending = action - 1
        reward = (self.load / 100 - 1) * self.instances / 100 - self.queue / (1 + self.queue)
        return self.observation(), reward if fits else reward - 0.1, self.queue > 10 * MAX_INFLUX

    def observation(self) -> Observation:
        """Instances and load as shares, capacity, influx, queue."""
        return self.instances / 100, self.load / 100, self.capacity, self.influx, self.queue
