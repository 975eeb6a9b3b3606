"""First come, first served by w workers, task by task, for many queues at once.

Of the workers only the times matter at which they become free, and not whose they are: the Kiefer-Wolfowitz vector (1955). It is
kept sorted, so the next task goes to row 0, and its completion is sorted in again with two array operations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.function_workflow.tasks import Tasks

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

DEADLINE_SERVICES, DEADLINE_SECONDS = 2.0, (0.1, 30.0)


class WorkerQueues:
    """The queues of `num_envs` episodes.

    Args:
        num_envs: queues.
        max_workers: most workers of one.
        step_seconds: length of a step.
        episode_steps: steps of an episode.

    Attributes:
        next_task: (num_envs,) tasks dispatched.
        completed: (num_envs, episode_steps + 2) tasks by the step at whose end they are complete (1 is the first).
        on_time: those of them within their deadline.
        sojourn_sum_seconds, sojourn_max_seconds: of the tasks of `completed`, arrival to completion.
    """

    def __init__(self, num_envs: int, max_workers: int, step_seconds: float, episode_steps: int) -> None:
        self.step_seconds, self.episode_steps = step_seconds, episode_steps
        self._free_at = np.full((max_workers, num_envs), np.inf)
        self.next_task = np.zeros(num_envs, dtype=np.int64)
        # Column 0 is nobody's; the last one is of all later steps.
        shape = (num_envs, episode_steps + 2)
        self.completed, self.on_time = np.zeros((2, *shape), dtype=np.int64)
        self.sojourn_sum_seconds, self.sojourn_max_seconds = np.zeros((2, *shape))

    def reset(self, rows: NDArray[np.int64], workers: int) -> None:
        """Empty queues `rows`, with idle workers."""
        self._free_at[:workers, rows] = 0.0
        self._free_at[workers:, rows] = np.inf
        self.next_task[rows] = 0
        for booked in (self.completed, self.on_time, self.sojourn_sum_seconds, self.sojourn_max_seconds):
            booked[rows] = 0

    def join(self, joins: NDArray[np.bool_], start: Array) -> None:
        """One worker more where `joins`, free from `start` (num_envs,) on."""
        if joins.any():
            free, joined = self._free_at, np.where(joins, start, np.inf)
            inserted = np.minimum(free, joined)
            np.maximum(inserted[1:], free[:-1], out=inserted[1:])
            self._free_at = inserted

    def leave(self, leaves: NDArray[np.bool_]) -> None:
        """One worker less where `leaves`: the one free first; a busy one has its task finished."""
        if leaves.any():
            columns = np.flatnonzero(leaves)
            self._free_at[:-1, columns] = self._free_at[1:, columns]
            self._free_at[-1, columns] = np.inf

    def dispatch(self, tasks: Tasks, step_index: Counts, most_workers: int) -> None:
        """Give workers every task that can begin within the step, in order of arrival.

        Args:
            tasks: of the episodes.
            step_index: (num_envs,) steps before this one.
            most_workers: of the queue that has most.
        """
        start = step_index * self.step_seconds
        end = (step_index + 1) * self.step_seconds
        arrivals, services = tasks.arrival_seconds.reshape(-1), tasks.service_seconds.reshape(-1)
        first = np.arange(len(start)) * tasks.arrival_seconds.shape[1]
        at = first + self.next_task
        free = self._free_at[:most_workers]
        spare = np.empty_like(free)
        dispatched: list[tuple[Array, Array, Array, NDArray[np.bool_]]] = []
        while True:
            arrival = arrivals.take(at)
            begin = np.maximum(arrival, free[0])
            np.maximum(begin, start, out=begin)
            begins = begin < end
            if not begins.any():
                break
            service = services.take(at)
            completion = begin + service
            dispatched.append((completion, arrival, service, begins))
            # A queue that waits for the next step takes its first worker out and puts it back.
            free_again = np.where(begins, completion, free[0])
            np.minimum(free[1:], free_again, out=spare[:-1])
            spare[-1] = free_again
            np.maximum(spare[1:], free[1:], out=spare[1:])
            free, spare = spare, free
            at += begins
        self._free_at[:most_workers] = free
        self.next_task = at - first
        if dispatched:
            self._book(*(np.stack(column) for column in zip(*dispatched, strict=True)))

    def _book(self, completion: Array, arrival: Array, service: Array, begins: NDArray[np.bool_]) -> None:
        """Enter tasks, (rounds, num_envs) each, in the columns of the steps that complete them, in order of dispatch."""
        chosen = np.flatnonzero(begins)
        queue = chosen % completion.shape[1]
        completion, arrival, service = (column.reshape(-1).take(chosen) for column in (completion, arrival, service))
        step = np.ceil(completion / self.step_seconds)
        # Division rounds: a task belongs to the step with (step − 1) × step_seconds < completion <= step × step_seconds.
        step += completion > step * self.step_seconds
        step -= completion <= (step - 1) * self.step_seconds
        np.minimum(step, self.episode_steps + 1, out=step)
        place = queue * (self.episode_steps + 2) + step.astype(np.int64)
        sojourn = completion - arrival
        deadline = np.minimum(np.maximum(DEADLINE_SERVICES * service, DEADLINE_SECONDS[0]), DEADLINE_SECONDS[1])
        np.add.at(self.completed.reshape(-1), place, 1)
        np.add.at(self.on_time.reshape(-1), place, (sojourn <= deadline).astype(np.int64))
        np.add.at(self.sojourn_sum_seconds.reshape(-1), place, sojourn)
        np.maximum.at(self.sojourn_max_seconds.reshape(-1), place, sojourn)
