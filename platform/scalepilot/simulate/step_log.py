"""Everything that happened in a cell's episodes, step by step, as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.simulate.episodes import EpisodeSet
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.dynamics import AutoscaleState, StepOutcome

STEP_COLUMNS = (
    "arrived_requests",
    "desired_replicas",
    "ready_replicas",
    "billed_replicas",
    "backlog_requests",
    "late_requests",
    "dropped_requests",
    "latency_p95_seconds",
    "replica_cost",
    "late_cost",
    "move_cost",
)


class StepLog:
    """Records steps; to be given to `run_episodes` as `on_step`.

    Args:
        num_episodes, num_steps: of the episode set.
    """

    def __init__(self, num_episodes: int, num_steps: int) -> None:
        # Half the memory of float64; requests and replicas of a step are exact in it.
        self.steps = np.zeros((len(STEP_COLUMNS), num_episodes, num_steps), dtype=np.float32)

    def __call__(self, t: int, state: AutoscaleState, outcome: StepOutcome, desired: NDArray[np.float64]) -> None:
        """Keep one step of all episodes."""
        self.steps[:, :, t] = (
            outcome.arrived,
            desired,
            state.ready,
            outcome.billed_replicas,
            state.backlog,
            outcome.late,
            outcome.dropped,
            state.latency_p95_seconds,
            *outcome.cost,
        )


def step_columns(episodes: EpisodeSet, params: AutoscaleParams, steps: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """A row a step: which episode and when, its mean rate, and STEP_COLUMNS.

    Args:
        episodes: what was flown through.
        params: the service.
        steps: (len(STEP_COLUMNS), n, num_steps), as `StepLog` keeps them.
    """
    n, num_steps = len(episodes), episodes.num_steps
    step = np.tile(np.arange(num_steps), n)
    begin = np.repeat(episodes.start_unix_seconds, num_steps) + step * params.interval_seconds
    which = {name: np.repeat(getattr(episodes, name), num_steps) for name in ("window", "seed")}
    when = {"step": step, "unix_seconds": begin, "mean_rate_rps": episodes.rates_rps.reshape(-1).astype(np.float32)}
    return which | when | {name: column.reshape(-1) for name, column in zip(STEP_COLUMNS, steps, strict=True)}
