"""Everything that happened in episodes, step by step, as columns: a row a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy import Decision
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
            state.serving,
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
        episodes: what was run through.
        params: the service.
        steps: (len(STEP_COLUMNS), n, num_steps), as `StepLog` keeps them.
    """
    n, num_steps = len(episodes), episodes.num_steps
    step = np.tile(np.arange(num_steps), n)
    begin = np.repeat(episodes.start_unix_seconds, num_steps) + step * params.interval_seconds
    which = {name: np.repeat(getattr(episodes, name), num_steps) for name in ("window", "seed")}
    when = {"step": step, "unix_seconds": begin, "mean_rate_rps": episodes.rates_rps.reshape(-1).astype(np.float32)}
    return which | when | {name: column.reshape(-1) for name, column in zip(STEP_COLUMNS, steps, strict=True)}


class StepRecorder:
    """Records the steps of any other environment, in float32; to be given to `run_returns` as `log`."""

    def __init__(self) -> None:
        self._attempt: list[dict[str, NDArray[Any]]] = []
        self._kept: list[dict[str, NDArray[Any]]] = []

    def add(
        self, decision: Decision, reward: NDArray[np.float64], info: Mapping[str, NDArray[Any]], running: NDArray[np.bool_]
    ) -> None:
        """Keep one step of the episodes that are `running` (n,)."""
        decided = decision.action if decision.desired_replicas is None else decision.desired_replicas
        parts = np.asarray(decided).reshape(len(running), -1)
        name = "action" if decision.desired_replicas is None else "desired_replicas"
        names = [name] if parts.shape[1] == 1 else [f"{name}_{i}" for i in range(parts.shape[1])]
        columns = dict(zip(names, parts.T, strict=True)) | {"reward": reward} | dict(info)
        rows = np.flatnonzero(running)
        which = {"row": rows, "step": np.full(len(rows), len(self._attempt))}
        self._attempt.append(which | {key: np.asarray(column, np.float32)[rows] for key, column in columns.items()})

    def keep(self, done: NDArray[np.bool_], window: NDArray[np.int64], seed: NDArray[np.int64]) -> None:
        """Keep what was added since the last call, of the episodes that were completed.

        Args:
            done: (n,) those of the attempt.
            window: of those that are done, in their order.
            seed: the same.
        """
        at = np.cumsum(done) - 1
        for step in self._attempt:
            counts = done[step["row"]]
            of = at[step["row"][counts]]
            self._kept.append({"window": window[of], "seed": seed[of]} | {k: v[counts] for k, v in step.items() if k != "row"})
        self._attempt = []

    def columns(self) -> dict[str, NDArray[Any]]:
        """A row a step, episode by episode; NaN where a step did not report a number."""
        names = dict.fromkeys(name for step in self._kept for name in step)
        table = {}
        for name in names:
            parts = [step.get(name, np.full(len(step["seed"]), np.nan, np.float32)) for step in self._kept]
            table[name] = np.concatenate(parts)
        order = np.lexsort((table["step"], table["window"])) if table else np.zeros(0, dtype=np.int64)
        return {name: column[order] for name, column in table.items()}
