"""The emitter: puts an episode's tasks into a workflow's queue, each at its moment, by the messages of the workflow system."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import RunError
from scalepilot.operate.workflow.connection import Command, RedisDoor, RedisError
from scalepilot.operate.workflow.queues import STARTED_KEY, Queues, started_of
from scalepilot_envs.function_workflow.params import MEAN_SERVICE_SECONDS
from scalepilot_envs.function_workflow.queue import DEADLINE_SECONDS, DEADLINE_SERVICES
from scalepilot_envs.function_workflow.tasks import Tasks
from scalepilot_envs.workloads import Phase, PhasesWorkload
from scalepilot_envs.workloads.phases import DEFAULT_PHASES

# At a time; tasks that are due together are put in together.
_MOST_AT_ONCE = 500
_LOOK_SECONDS = 0.02
# What waits was not done, and will not be: it is not counted, either.
_DROP = (
    "local n = redis.call('LLEN', KEYS[1]) redis.call('DEL', KEYS[1]) if n > 0 then redis.call('DECRBY', KEYS[2], n) end return n"
)


def episode_tasks(
    step_seconds: float,
    episode_steps: int,
    *,
    base_tasks_per_minute: float = 300.0,
    phases: tuple[Phase, ...] = DEFAULT_PHASES,
    phase_shuffle: bool = False,
    oscillation: bool = True,
    seed: int | None = None,
) -> NDArray[np.float64]:
    """The tasks of an episode, drawn as FunctionWorkflow-v0 draws them: the same seed gives the same tasks.

    Returns:
        (tasks, 2): when each arrives, seconds since the start, ascending, and the seconds a worker needs for it.
    """
    workload = PhasesWorkload(base_requests_per_minute=base_tasks_per_minute, phases=phases, oscillation=oscillation)
    tasks = Tasks(1, workload, phase_shuffle, step_seconds, episode_steps)
    tasks.seed([seed])
    tasks.draw(np.array([0]))
    count = int(tasks.count[0])
    return np.stack([tasks.arrival_seconds[0, :count], tasks.service_seconds[0, :count]], axis=1)


@dataclass
class TaskFeed:
    """Puts tasks into the queue. An arrival never waits for a worker or for the arrivals before it.

    Args:
        door: of the Redis.
        queues: the lists' names.
        clock: Unix seconds; the times in tasks and results are counted by it.
        pace: the clock's seconds in a second of the wall.
    """

    door: RedisDoor
    queues: Queues = field(default_factory=Queues)
    clock: Callable[[], float] = time.time
    pace: float = 1.0

    def __post_init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._put = 0
        self._problem = ""
        self.total = 0

    @property
    def put(self) -> int:
        """Tasks put in since `start`.

        Raises:
            RunError: Redis has refused them.
        """
        if self._problem:
            raise RunError(self._problem)
        return self._put

    def reset(self, wait_seconds: float) -> int:
        """End the feed, drop the tasks that wait, let workers finish theirs, and empty the four lists and the counter.

        Args:
            wait_seconds: by the wall, for the tasks that workers have.

        Returns:
            Tasks that were not collected by then: whoever had them has died, or they will be counted in the next episode.

        Raises:
            RedisError: no answer.
        """
        self.stop()
        q = self.queues
        self.door.ask(("DEL", q.input), ("EVAL", _DROP, 2, q.worker, q.enqueued))
        deadline = time.monotonic() + wait_seconds
        while (left := self.unfinished()) > 0 and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        self.door.ask(*(("DEL", name) for name in (*q.tasks, q.enqueued)))
        return max(0, left)

    def unfinished(self) -> int:
        """Tasks that were put in and are not collected.

        Raises:
            RedisError: no answer.
        """
        enqueued, collected = self.door.ask(("GET", self.queues.enqueued), ("LLEN", self.queues.output))
        return int(enqueued or 0) - int(collected)

    def start(self, tasks: NDArray[np.float64], at: float | None = None) -> float:
        """Put tasks in from a moment on, in a thread.

        Args:
            tasks: (tasks, 2) seconds since the start, ascending, and seconds of service; see `episode_tasks`.
            at: the clock's moment of the start; None for now.

        Returns:
            That moment.

        Raises:
            RedisError: no answer.
        """
        self.stop()
        begin = self.clock() if at is None else at
        # Kept from episode to episode: workers that run on count from it, too.
        self.door.ask(("SET", STARTED_KEY, repr(begin), "NX"))
        (raw,) = self.door.ask(("GET", STARTED_KEY))
        program = started_of(raw)
        if program is None or program > begin:
            program = begin
            self.door.ask(("SET", STARTED_KEY, repr(begin)))
        self._ended, self._put, self._problem, self.total = threading.Event(), 0, "", len(tasks)
        self._thread = threading.Thread(
            target=self._feed, args=(tasks, begin, program, self._ended), name="task-feed", daemon=True
        )
        self._thread.start()
        return begin

    def stop(self) -> None:
        """Put no more in."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _feed(self, tasks: NDArray[np.float64], begin: float, program: float, ended: threading.Event) -> None:
        episode, at = uuid.uuid4().hex[:8], 0
        while at < len(tasks) and not ended.is_set():
            now = self.clock() - begin
            due = min(int(tasks[:, 0].searchsorted(now, side="right")), at + _MOST_AT_ONCE)
            if due == at:
                ended.wait(max(0.0, min((tasks[at, 0] - now) / self.pace, 0.2)))
                continue
            try:
                self.door.ask(*self._commands(tasks[at:due], f"{episode}-{at}", now, begin - program))
            except RedisError as error:
                # They may be in the queue or not: put in again, they would be there twice.
                self._problem = f"tasks {at} to {due - 1} may not be in the queue: {error}"
                return
            self._put = at = due

    def _commands(self, tasks: NDArray[np.float64], name: str, now: float, since: float) -> list[Command]:
        emitted = since + now
        put = [task_message(f"{name}-{i}", since + at, service, emitted) for i, (at, service) in enumerate(tasks.tolist())]
        return [("LPUSH", self.queues.worker, *put), ("INCRBY", self.queues.enqueued, len(put))]


def task_message(task_id: str, generated: float, service: float, emitted: float) -> str:
    """A task as the workflow system writes it.

    Args:
        task_id: its own.
        generated: seconds since the start of the program.
        service: seconds a worker needs for it.
        emitted: when it is put in.
    """
    low, high = DEADLINE_SECONDS
    return json.dumps(
        {
            "task_id": task_id,
            "task_application": "image_processing",
            "task_priority": "normal",
            "task_gen_timestamp": generated,
            # Of the system's model: an image whose work grows with its area.
            "task_data_size": round(2048 * math.sqrt(service / MEAN_SERVICE_SECONDS)),
            "task_deadline": min(max(DEADLINE_SERVICES * service, low), high),
            "task_processing_time_simulated": service,
            "task_expected_duration": service,
            "task_emit_timestamp": emitted,
            "task_emit_time": emitted - generated,
        }
    )
