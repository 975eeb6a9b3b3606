"""What Autoscale-v0 shows, takes and pays, as one description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.action import DEFAULT_MOVES, Move
from scalepilot_envs.autoscale.observation import NUM_STARTING_QUARTERS, observation_fields
from scalepilot_envs.autoscale.params import AutoscaleParams
from scalepilot_envs.description import Action, Columns, EnvDescription, params_from_mapping
from scalepilot_envs.objective import ABOVE_ZERO, SHARE, Metric, Objective

ENV_ID = "scalepilot/Autoscale-v0"
# J: what an hour of service costs in money, and its parts.
COST = Objective(
    metric="J",
    lower_is_better=True,
    label="J per hour (lower is better)",
    short_label="J/h",
    training_metric="train_J_per_hour",
    validation_metric="validation_J_per_hour",
    metrics={
        "J": Metric("J_per_hour", ABOVE_ZERO),
        "cost": Metric("replica_cost", ABOVE_ZERO),
        "penalty": Metric("late_cost"),
        "move_cost": Metric("move_cost"),
        "replicas": Metric("replicas_mean", ABOVE_ZERO),
        # Per request, not per window: a quiet window's late requests are few.
        "late_share": Metric("late_requests", SHARE, weight="arrived_requests", is_total=True),
        "latency_p95_seconds": Metric("latency_p95_seconds", ABOVE_ZERO, weight="arrived_requests"),
        "actions": Metric("actions"),
    },
)


def _total_replicas(column: Columns) -> NDArray[np.float64]:
    total = np.rint(column("ready_replicas"))
    for quarter in range(NUM_STARTING_QUARTERS):
        total = total + np.rint(column(f"starting_replicas_{quarter}"))
    return total


def describe(params: AutoscaleParams | Mapping[str, Any] | None = None, moves: Iterable[Move] = DEFAULT_MOVES) -> EnvDescription:
    """Autoscale-v0 with given parameters.

    Raises:
        ValueError: a parameter is unknown or out of range.
    """
    p: AutoscaleParams = params_from_mapping(AutoscaleParams, params)

    def J_per_hour(episode_return: float, steps: int) -> float:
        return -episode_return / p.reward_per_currency / (steps / p.steps_per_hour)

    return EnvDescription(
        env_id=ENV_ID,
        params=p,
        fields=observation_fields(p),
        actions=tuple(Action(move.kind, move.size, move.label) for move in moves),
        reward="−J of the step (replicas, late requests and moves, in currency) times reward_per_currency",
        end="truncated after episode_steps (1,920: 8 hours of 15 s)",
        commands_targets=True,
        judged_by=replace(COST, from_return=J_per_hour),
        signals={
            "total_replicas": _total_replicas,
            "ready_replicas": lambda column: np.rint(column("ready_replicas")),
            "utilisation": lambda column: column("cpu_utilisation"),
            "backlog_requests": lambda column: column("backlog_requests"),
            "demand": lambda column: column("request_rate_rps_0") * p.interval_seconds,
            "replica_capacity": lambda column: column("replica_capacity_rps") * p.interval_seconds,
        },
    )
