"""The tasks of an episode, put into a live workflow's queue: what FunctionWorkflow-v0 draws for the same seed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between, Section
from scalepilot.errors import ConfigError
from scalepilot_envs.function_workflow import FunctionWorkflowParams
from scalepilot_envs.restarting import derived_seed
from scalepilot_envs.workloads import Phase
from scalepilot_envs.workloads.phases import DEFAULT_PHASES

_LOG = logging.getLogger("scalepilot.operate")


@dataclass(frozen=True)
class TaskOptions(Section):
    """`env.options.tasks` of LiveScaling-v0 in place of FunctionWorkflow-v0.

    Attributes:
        phases: programme of the workload, as FunctionWorkflow-v0 has it.
        phase_shuffle: draw another order of the phases each episode.
        oscillation: false makes oscillating phases flat.
        clear_intervals: at a reset, waiting tasks are dropped; so long are those waited for that workers have.
    """

    phases: tuple[Phase, ...] = DEFAULT_PHASES
    phase_shuffle: bool = False
    oscillation: bool = True
    clear_intervals: Annotated[float, Between(0, 1000)] = 10.0


class Load(Protocol):
    """What an episode brings to the deployment, where that does not come by itself."""

    def clear(self) -> None:
        """Before an episode: nothing of the one before is left."""
        ...

    def begin(self, seed: int | None, at: float) -> None:
        """From a moment on, what is drawn for a seed; None goes on from the last one."""
        ...

    @property
    def put(self) -> int:
        """Tasks of the episode so far."""
        ...

    @property
    def total(self) -> int:
        """Tasks of the whole episode."""
        ...

    def close(self) -> None:
        """Put no more in."""
        ...


class WorkflowLoad:
    """Puts the tasks of episodes into the Redis that telemetry reads.

    Args:
        options: which.
        telemetry: section of an operate.yaml, of `kind: redis`.
        params: step and rate.
        episode_steps: steps of an episode.
        clock: Unix seconds.
        pace: the clock's seconds in a second of the wall.

    Raises:
        ConfigError: telemetry is of another kind, or a key of it is not allowed.
    """

    def __init__(
        self,
        options: TaskOptions,
        telemetry: Mapping[str, Any],
        params: FunctionWorkflowParams,
        episode_steps: int,
        clock: Callable[[], float],
        pace: float,
    ) -> None:
        from scalepilot.operate.telemetry.redis import RedisTelemetrySettings
        from scalepilot.operate.workflow.connection import RedisDoor
        from scalepilot.operate.workflow.feed import TaskFeed

        if telemetry.get("kind") != "redis":
            raise ConfigError(f"options.tasks: telemetry.kind is {telemetry.get('kind')!r}; allowed: redis")
        given = {key: value for key, value in telemetry.items() if key != "kind"}
        settings = checked(RedisTelemetrySettings, TypeAdapter(RedisTelemetrySettings), given, "telemetry")
        self._options, self._params, self._steps = options, params, episode_steps
        self._feed = TaskFeed(RedisDoor(settings, "telemetry"), settings.queues, clock, pace)
        self._wait_seconds = options.clear_intervals * params.step_seconds / pace
        self._seed: int | None = None
        self._episodes = 0

    def clear(self) -> None:
        """As `Load`."""
        left = self._feed.reset(self._wait_seconds)
        if left:
            _LOG.warning("%d tasks of the episode before are not done", left)

    def begin(self, seed: int | None, at: float) -> None:
        """As `Load`."""
        from scalepilot.operate.workflow.feed import episode_tasks

        if seed is not None:
            self._seed, self._episodes = seed, 0
        drawn = derived_seed(self._seed, self._episodes) if self._episodes else self._seed
        self._episodes += 1
        p, options = self._params, self._options
        tasks = episode_tasks(
            p.step_seconds,
            self._steps,
            base_tasks_per_minute=p.base_tasks_per_minute,
            phases=options.phases,
            phase_shuffle=options.phase_shuffle,
            oscillation=options.oscillation,
            seed=int(np.random.SeedSequence().generate_state(1)[0]) if drawn is None else drawn,
        )
        self._feed.start(tasks, at)

    @property
    def put(self) -> int:
        """As `Load`."""
        return self._feed.put

    @property
    def total(self) -> int:
        """As `Load`."""
        return self._feed.total

    def close(self) -> None:
        """As `Load`."""
        self._feed.stop()
        self._feed.door.close()
