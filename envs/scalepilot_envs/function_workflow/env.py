"""FunctionWorkflow-v0: tasks of functions queue for workers, and a worker is added or removed at a time.

Observation (float32), over the step just ended where it looks back; clipped to its range, the state is not:

| field | unit | range |
|---|---|---|
| input_queue | tasks between emitter and queue (handed over at once: 0) | 0 to 3 |
| worker_queue | tasks that wait for a worker | 0 to 800 |
| result_queue | tasks between worker and collector (handed over at once: 0) | 0 to 10 |
| output_queue | tasks completed since the start | 0 to 1,140 |
| workers | workers there are or were ordered | min_workers to max_workers |
| sojourn_mean_seconds | s from arrival to completion, mean of the step's completed tasks (1.5 without one) | 0 to 150 |
| sojourn_max_seconds | s, their longest (1.5 without one) | 0 to 160 |
| arrival_rate_per_second | tasks/s that arrived in the step | 0 to 12 |
| qos | share of the step's completed tasks that met their deadline (1 without one) | 0 to 1 |

The ranges of worker_queue, output_queue and arrival_rate_per_second are those of 300 tasks a minute and grow with
`params.base_tasks_per_minute`.

Actions: Discrete(3): 0 one worker less (the one free first; a busy one finishes its task), 1 hold, 2 one more, which serves from
the next step. A change that would leave [min_workers, max_workers] is not made; as in the reference, a worker that has just
joined counts twice against the upper bound.
Reward: as in the reference: qos against 95 %, a growing queue, workers beyond 14 while all is well, changes, and bonuses for
adding under overload, removing without it, and a good step; at the end tasks still pending cost 2 each, 30 at most.
Start: `initial_workers` idle workers, no tasks. End: terminated when every task of the episode is complete before the time is
over (+8); truncated after `episode_steps` steps of 8 s.
Tasks: Poisson arrivals, 300 a minute × the phases' factors (× 0.3, × 1.5, a slow oscillation 0.5 to 1.5, a fast one 0.3 to 1.7;
60 s each) until the episode's end; service Gamma distributed (shape 4, mean 1.5 s), clipped to 0.05 to 15 s; deadline twice the
task's own service, within 0.1 to 30 s.
Arguments: `params` (`FunctionWorkflowParams` or its mapping), `episode_steps`, `phases` (another programme), `phase_shuffle`
(another order each episode, for training), `oscillation` (false: flat at the middle, as the source has it by mistake).
`reset(options={"tasks": [one list of (arrival_seconds, service_seconds) an environment]})` runs given tasks.
Info: qos, workers, change, completed and on_time (tasks since the start), final_qos (share of ALL tasks of the episode completed
on time by now), queue.
Source: the OpenFaaS SARSA/DQN autoscaling toolkit.
History: v0, the first version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.batch_env import BatchStep, BoolArray, entry_points
from scalepilot_envs.checks import check_count, check_options
from scalepilot_envs.description import params_from_mapping
from scalepilot_envs.drawing import Canvas, Chart, History, Series, draw_charts
from scalepilot_envs.episode_metrics import METADATA_KEY, EpisodeMetric, of_moves
from scalepilot_envs.function_workflow.description import ACTIONS, EPISODE_STEPS, observation_fields
from scalepilot_envs.function_workflow.params import MEAN_SERVICE_SECONDS, FunctionWorkflowParams
from scalepilot_envs.function_workflow.queue import WorkerQueues
from scalepilot_envs.function_workflow.reward import GOOD_QOS, WorkflowStep, reward_of
from scalepilot_envs.function_workflow.tasks import Tasks, checked_tasks
from scalepilot_envs.scaling import ScalingEnv, ScalingVectorEnv, UnitMoveBatch, check_actions
from scalepilot_envs.workloads import Phase, PhasesWorkload
from scalepilot_envs.workloads.phases import DEFAULT_PHASES

_EMPTY_SOJOURN_SECONDS, _EMPTY_QOS = MEAN_SERVICE_SECONDS, 1.0
_EPISODE_METRICS = {
    "on_time_share": EpisodeMetric("final_qos", "last"),
    "queue_requests": EpisodeMetric("queue"),
    "unfinished_requests": EpisodeMetric("unfinished", "last"),
    **of_moves("change", "workers"),
}


class FunctionWorkflowBatch(UnitMoveBatch):
    """`num_envs` queues with their workers.

    Args:
        num_envs: queues stepped together.
        params: workers, step and rate, or their mapping.
        episode_steps: steps until truncation.
        phases: programme of the workload, or mappings of its phases.
        phase_shuffle: draw another order of the phases each episode, from a stream of its own.
        oscillation: false makes oscillating phases flat.

    Attributes (each (num_envs,)):
        serving, ordered: workers that serve, and that serve from the next step.
        completed, on_time: tasks since the start.
        queue, arrival_rate_per_second, sojourn_mean_seconds, sojourn_max_seconds, qos: the observation's, not clipped.

    Raises:
        ValueError: an argument is out of range.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4, METADATA_KEY: _EPISODE_METRICS}  # noqa: RUF012
    move_of_action = np.array([-1, 0, 1])

    def __init__(
        self,
        num_envs: int,
        *,
        params: FunctionWorkflowParams | Mapping[str, Any] | None = None,
        episode_steps: int = EPISODE_STEPS,
        phases: Sequence[Phase | Mapping[str, Any]] = DEFAULT_PHASES,
        phase_shuffle: bool = False,
        oscillation: bool = True,
    ) -> None:
        self.num_envs = check_count("num_envs", num_envs)
        self.episode_steps = check_count("episode_steps", episode_steps)
        self.params: FunctionWorkflowParams = params_from_mapping(FunctionWorkflowParams, params)
        p = self.params
        workload = PhasesWorkload(
            base_requests_per_minute=p.base_tasks_per_minute,
            phases=tuple(Phase(**phase) if isinstance(phase, Mapping) else phase for phase in phases),
            oscillation=oscillation,
        )
        self.tasks = Tasks(num_envs, workload, phase_shuffle, p.step_seconds, episode_steps)
        self.queues = WorkerQueues(num_envs, p.max_workers, p.step_seconds, episode_steps)
        self.fields = observation_fields(p)
        self._highest = np.array([f.high for f in self.fields], dtype=np.float32)
        lowest = np.array([f.low for f in self.fields], dtype=np.float32)
        self.single_observation_space = gym.spaces.Box(lowest, self._highest, dtype=np.float32)
        self.single_action_space: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(len(ACTIONS))
        self._envs = np.arange(num_envs)
        self.step_index, self.serving, self.ordered, self.completed, self.on_time, self.queue = np.zeros(
            (6, num_envs), dtype=np.int64
        )
        self.arrival_rate_per_second, self.sojourn_mean_seconds, self.sojourn_max_seconds, self.qos = np.zeros((4, num_envs))
        self._history = History(num_envs)

    @property
    def workers(self) -> NDArray[np.int64]:
        """(num_envs,) workers, serving and ordered."""
        total: NDArray[np.int64] = self.serving + self.ordered
        return total

    @property
    def total_replicas(self) -> NDArray[Any]:
        """(num_envs,) workers, serving and ordered."""
        return self.workers

    def seed_streams(self, seeds: Sequence[int | None]) -> None:
        """New streams for environment i from `seeds[i]`; None keeps its own."""
        self.tasks.seed(seeds)

    def reset_batch(self, mask: BoolArray | None = None, options: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Start episodes where `mask` is true.

        Args:
            mask: (num_envs,) which to reset; all if None.
            options: {"tasks": one (k, 2) array of arrival and service seconds an environment} replaces the draw.

        Raises:
            ValueError: an option is unknown or its tasks are not allowed.
        """
        given = check_options(options, ("tasks",))
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        if "tasks" in given:
            self.tasks.inject(rows, checked_tasks(given["tasks"], self.num_envs))
        else:
            self.tasks.draw(rows)
        self.queues.reset(rows, self.params.initial_workers)
        started = {
            "step_index": 0,
            "serving": self.params.initial_workers,
            "ordered": 0,
            "completed": 0,
            "on_time": 0,
            "queue": self.tasks.arrived[rows, 0],
            "arrival_rate_per_second": 0.0,
            "sojourn_mean_seconds": _EMPTY_SOJOURN_SECONDS,
            "sojourn_max_seconds": _EMPTY_SOJOURN_SECONDS,
            "qos": _EMPTY_QOS,
        }
        for name, value in started.items():
            # Into a copy: what a step returned belongs to its caller.
            column = getattr(self, name).copy()
            column[rows] = value
            setattr(self, name, column)
        self._history.clear(mask)
        self._history.add(*self._drawn_columns(), mask=mask)
        return self._observation()

    def step_batch(self, actions: NDArray[Any]) -> BatchStep:
        """Change the workers, dispatch what can begin within the step, and look at what was completed.

        Args:
            actions: (num_envs,) 0 one worker less, 1 hold, 2 one more.

        Raises:
            ValueError: another shape or dtype, or an index out of range.

        Source:
            shared specification `golden/function_workflow.py`, replayed by the tests to 1e-9.
        """
        p = self.params
        actions = check_actions(actions, self.num_envs, len(ACTIONS))
        # An ended episode may be stepped once more before its reset (NEXT_STEP): it repeats its last step.
        step_index = np.minimum(self.step_index, self.episode_steps - 1)
        change = self._scale(self.move_of_action[actions], step_index * p.step_seconds)
        self.queues.dispatch(self.tasks, step_index, int(self.serving.max()))
        self.step_index = step_index + 1
        self._look()
        truncated = self.step_index >= self.episode_steps
        terminated = (self.completed == self.tasks.count) & ~truncated
        reward = self._reward(change, terminated, truncated)
        info = {
            "qos": self.qos,
            "workers": self.workers,
            "change": change,
            "completed": self.completed,
            "on_time": self.on_time,
            "final_qos": self.on_time / np.maximum(self.tasks.count, 1),
            "queue": self.queue,
            "unfinished": self.tasks.count - self.completed,
        }
        self._history.add(*self._drawn_columns())
        return BatchStep(self._observation(), reward, terminated, truncated, info)

    def _scale(self, moves: NDArray[np.int64], start: NDArray[np.float64]) -> NDArray[np.int64]:
        """Let ordered workers join, and order or remove one; the change, 0 where a bound stopped it."""
        p = self.params
        self.queues.join(self.ordered > 0, start)
        serving = self.serving + self.ordered
        # The reference counts a worker that joins in this step twice here.
        wanted = serving + self.ordered + moves
        change: NDArray[np.int64] = moves * ((wanted >= p.min_workers) & (wanted <= p.max_workers))
        self.queues.leave(change < 0)
        self.serving = serving + np.minimum(change, 0)
        self.ordered = np.maximum(change, 0)
        return change

    def _look(self) -> None:
        """Measure the step just ended."""
        queues, arrived = self.queues, self.tasks.arrived
        at = (self._envs, self.step_index)
        completed, on_time = queues.completed[at], queues.on_time[at]
        idle = completed == 0
        divisor = np.maximum(completed, 1)
        self.sojourn_mean_seconds = np.where(idle, _EMPTY_SOJOURN_SECONDS, queues.sojourn_sum_seconds[at] / divisor)
        self.sojourn_max_seconds = np.where(idle, _EMPTY_SOJOURN_SECONDS, queues.sojourn_max_seconds[at])
        self.qos = np.where(idle, _EMPTY_QOS, on_time / divisor)
        self.late_in_step = completed - on_time
        self.completed = self.completed + completed
        self.on_time = self.on_time + on_time
        arrived_now = arrived[at]
        self.queue = arrived_now - queues.next_task
        self.arrival_rate_per_second = (arrived_now - arrived[self._envs, self.step_index - 1]) / self.params.step_seconds

    def _reward(self, change: NDArray[np.int64], terminated: BoolArray, truncated: BoolArray) -> NDArray[np.float64]:
        pending = self.tasks.arrived[self._envs, self.step_index] - self.completed
        step = WorkflowStep(self.qos, self.queue, self.workers, change, pending, self.late_in_step, terminated, truncated)
        return reward_of(self.params, step)

    def _observation(self) -> NDArray[np.float32]:
        """(num_envs, 9) float32, clipped to the bounds."""
        observation = np.zeros((self.num_envs, len(self.fields)), dtype=np.float32)
        observation[:, 1] = self.queue
        observation[:, 3] = self.completed
        observation[:, 4] = self.workers
        observation[:, 5] = self.sojourn_mean_seconds
        observation[:, 6] = self.sojourn_max_seconds
        observation[:, 7] = self.arrival_rate_per_second
        observation[:, 8] = self.qos
        return np.minimum(observation, self._highest, out=observation)

    def _drawn_columns(self) -> tuple[NDArray[Any], ...]:
        return self.arrival_rate_per_second, self.queue, self.qos, self.workers

    def render_one(self, index: int, mode: str = "ansi") -> Any:
        """One line of text, or the episode so far: arrivals, queue, quality of service and workers."""
        heading = f"step {self.step_index[index]} of {self.episode_steps}"
        final_qos = self.on_time[index] / max(1, self.tasks.count[index])
        if mode == "ansi":
            return (
                f"{heading}  workers {self.serving[index]} + {self.ordered[index]} ordered  queue {self.queue[index]} tasks"
                f"  arrivals {self.arrival_rate_per_second[index]:.2f}/s  sojourn {self.sojourn_mean_seconds[index]:.2f} s mean,"
                f" {self.sojourn_max_seconds[index]:.2f} s longest  qos {self.qos[index]:.1%}"
                f"  on time {self.on_time[index]} of {self.tasks.count[index]} tasks ({final_qos:.1%})"
            )
        arrivals, queue, qos, workers = self._history.of(index, *self._drawn_columns())
        capacity = workers / MEAN_SERVICE_SECONDS
        canvas = Canvas()
        canvas.text((16, 20), f"FunctionWorkflow-v0 · {heading}", size=15)
        summary = f"on time {self.on_time[index]} of {self.tasks.count[index]} tasks"
        canvas.text((canvas.width - 16, 20), summary, size=15, align="right")
        charts = [
            Chart([Series("arrivals", arrivals), Series("workers' capacity", capacity)], "tasks/s"),
            Chart([Series("workers", workers)], ""),
            Chart([Series("queue", queue)], "tasks"),
            Chart([Series("quality of service", 100 * qos)], "%", high=100.0, band=(100 * GOOD_QOS, 100.0)),
        ]
        draw_charts(canvas, charts, num_steps=self.episode_steps, step=int(self.step_index[index]))
        return canvas.array()


class FunctionWorkflowVectorEnv(ScalingVectorEnv[FunctionWorkflowBatch]):
    """Native vector environment of FunctionWorkflow-v0."""


class FunctionWorkflowEnv(ScalingEnv[FunctionWorkflowBatch]):
    """FunctionWorkflow-v0 as a `gymnasium.Env`."""


make_env, make_vector_env = entry_points(FunctionWorkflowBatch, FunctionWorkflowEnv, FunctionWorkflowVectorEnv)
