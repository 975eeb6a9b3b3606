"""FunctionWorkflow-v0 in plain Python, task by task: what `env_step` is measured against where the specification is absent.

Written from the prose of the environment; the product never imports it.
"""

from __future__ import annotations

import bisect
import heapq

STEP_SECONDS, MAX_STEPS, START, FEWEST, MOST = 8.0, 30, 12, 1, 32

Observation = dict[str, float]


class FunctionWorkflow:
    """A single queue of tasks and its workers."""

    def reset(self, tasks: list[tuple[float, float]]) -> Observation:
        """Start with (arrival seconds, service seconds) of every task, in order of arrival."""
        self.tasks, self.arrivals = tasks, [arrival for arrival, _ in tasks]
        self.next = self.step_index = self.ordered = 0
        self.free_at = [0.0] * START
        self.done: list[tuple[float, float, bool]] = []
        return self.observation()

    def step(self, action: int) -> tuple[Observation, float, bool, bool]:
        """Move a worker, dispatch what starts in the step; (observation, reward, terminated, truncated)."""
        start, end = self.step_index * STEP_SECONDS, (self.step_index + 1) * STEP_SECONDS
        self.free_at += [start] * self.ordered
        workers = len(self.free_at)
        change = action - 1 if FEWEST <= workers + action - 1 <= MOST else 0
        self.ordered = max(0, change)
        heapq.heapify(self.free_at)
        if change < 0:
            heapq.heappop(self.free_at)
        while self.next < len(self.tasks):
            arrival, service = self.tasks[self.next]
            begin = max(arrival, self.free_at[0], start)
            if begin >= end:
                break
            heapq.heapreplace(self.free_at, begin + service)
            on_time = begin + service - arrival <= min(30.0, max(0.1, 2 * service))
            self.done.append((begin + service, arrival, on_time))
            self.next += 1
        self.step_index += 1
        seen = self.observation()
        return seen, *self.judge(seen, workers + change, change)

    def judge(self, seen: Observation, workers: int, change: int) -> tuple[float, bool, bool]:
        """(reward, terminated, truncated)."""
        qos, queue, load = seen["qos"], seen["worker_queue"], seen["worker_queue"] / 30
        overloaded, calm = load > 1 or qos < 0.95, qos >= 0.95
        reward = 36 * (qos - 0.95) - 2.5 * max(0.0, load - 1) ** 2 - 0.08 * abs(change)
        reward += 5.5 * (change > 0 and overloaded) + 0.1 * (change < 0 and not overloaded) + 3.6 * (calm and load <= 0.5)
        reward -= 0.05 * max(0, workers - 14) * (queue <= 8 and calm)
        truncated = self.step_index >= MAX_STEPS
        terminated = not truncated and seen["output_queue"] == len(self.tasks)
        arrived = bisect.bisect_right(self.arrivals, self.step_index * STEP_SECONDS)
        return reward + 8 * terminated - 2 * min(arrived - seen["output_queue"], 30) * truncated, terminated, truncated

    def observation(self) -> Observation:
        """The named fields."""
        now = self.step_index * STEP_SECONDS
        recent = [(end - arrival, on_time) for end, arrival, on_time in self.done if now - STEP_SECONDS < end <= now]
        sojourns = [sojourn for sojourn, _ in recent]
        arrived = bisect.bisect_right(self.arrivals, now)
        before = bisect.bisect_right(self.arrivals, now - STEP_SECONDS)
        return {
            "input_queue": 0,
            "worker_queue": max(0, arrived - self.next),
            "result_queue": 0,
            "output_queue": sum(end <= now for end, _, _ in self.done),
            "workers": len(self.free_at) + self.ordered,
            "sojourn_mean_seconds": sum(sojourns) / len(sojourns) if sojourns else 1.5,
            "sojourn_max_seconds": max(sojourns, default=1.5),
            "arrival_rate_per_second": (arrived - before) / STEP_SECONDS if now else 0.0,
            "qos": sum(on_time for _, on_time in recent) / len(recent) if recent else 1.0,
        }
