"""What FunctionWorkflow-v0 shows, takes and pays, as one description."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.description import Action, Columns, EnvDescription, ObservationField, params_from_mapping
from scalepilot_envs.function_workflow.params import MEAN_SERVICE_SECONDS, FunctionWorkflowParams

ENV_ID = "scalepilot/FunctionWorkflow-v0"
EPISODE_STEPS = 30
ACTIONS = (Action("absolute", -1, "−1"), Action("absolute", 0, "hold"), Action("absolute", 1, "+1"))
# The ranges of the observation belong to this rate.
_USUAL_TASKS_PER_MINUTE = 300.0


def observation_fields(params: FunctionWorkflowParams) -> tuple[ObservationField, ...]:
    """The fields in the order of the observation vector."""
    p = params
    scale = p.base_tasks_per_minute / _USUAL_TASKS_PER_MINUTE
    completed, sojourn = (f"sum(rate(task_sojourn_seconds_{kind}{{$selector}}[$window]))" for kind in ("count", "sum"))
    longest = "histogram_quantile(1, sum by (le) (rate(task_sojourn_seconds_bucket{$selector}[$window])))"
    in_time = 'sum(rate(tasks_completed_total{in_time="true",$selector}[$window]))'
    tasks = "sum(rate(tasks_completed_total{$selector}[$window]))"
    at_rest = f"or 0 * {completed} + {MEAN_SERVICE_SECONDS:g}"
    return (
        ObservationField(
            "input_queue", "tasks", 0.0, 3.0, "tasks between emitter and queue; handed over at once, always 0", _length("input")
        ),
        ObservationField("worker_queue", "tasks", 0.0, 800.0 * scale, "tasks that wait for a worker; clipped", _length("worker")),
        ObservationField(
            "result_queue",
            "tasks",
            0.0,
            10.0,
            "tasks between worker and collector; handed over at once, always 0",
            _length("result"),
        ),
        ObservationField(
            "output_queue", "tasks", 0.0, 1140.0 * scale, "tasks completed since the start; clipped", _length("output")
        ),
        ObservationField(
            "workers",
            "workers",
            float(p.min_workers),
            float(p.max_workers),
            "workers that serve, and one that serves next step",
            "sum(kube_deployment_status_replicas_ready{$deployment})",
        ),
        ObservationField(
            "sojourn_mean_seconds",
            "s",
            0.0,
            150.0,
            f"mean time from arrival to completion of the tasks completed in the step; {MEAN_SERVICE_SECONDS:g} without one",
            f"{sojourn} / ({completed} > 0) {at_rest}",
        ),
        ObservationField(
            "sojourn_max_seconds",
            "s",
            0.0,
            160.0,
            f"longest time from arrival to completion of the tasks completed in the step; {MEAN_SERVICE_SECONDS:g} without one",
            f"{longest} >= 0 {at_rest}",
        ),
        ObservationField(
            "arrival_rate_per_second",
            "tasks/s",
            0.0,
            12.0 * scale,
            "tasks that arrived in the step; clipped",
            "sum(rate(tasks_enqueued_total{$selector}[$window]))",
        ),
        ObservationField(
            "qos",
            "share",
            0.0,
            1.0,
            "share of the tasks completed in the step that met their deadline",
            f"({in_time} or 0 * {tasks}) / ({tasks} > 0) or 0 * {tasks} + 1",
        ),
    )


def _length(queue: str) -> str:
    """Of a Redis list, as redis_exporter shows it."""
    return f'sum(redis_key_size{{key="{queue}_queue",$selector}})'


def _workers(columns: Columns) -> NDArray[np.float64]:
    return np.asarray(np.rint(columns("workers")), dtype=np.float64)


def _backlog(columns: Columns) -> NDArray[np.float64]:
    return np.asarray(np.rint(columns("worker_queue")), dtype=np.float64)


def _demand(p: FunctionWorkflowParams, columns: Columns) -> NDArray[np.float64]:
    return columns("arrival_rate_per_second") * p.step_seconds


def _utilisation(columns: Columns) -> NDArray[np.float64]:
    return columns("arrival_rate_per_second") * MEAN_SERVICE_SECONDS / columns("workers")


_REWARDS = {
    "source": (
        "36 (qos − 0.95), less for a queue above 30 tasks, for workers beyond 14 while all is well and for changes; more for"
        " adding under overload, removing without it and a step with qos from 0.95 and a queue up to 15; at the end +8 when"
        " all is done early, or −2 for each of up to 30 pending tasks. worker_price × workers is taken off."
    ),
    "late_tasks": "−1 for each task that was late, and in the end for each that is pending; worker_price × workers is taken off.",
}


def describe(params: FunctionWorkflowParams | Mapping[str, Any] | None = None) -> EnvDescription:
    """Fields, actions, reward and parameters of FunctionWorkflow-v0.

    Raises:
        ValueError: a parameter is unknown or out of range.
    """
    p: FunctionWorkflowParams = params_from_mapping(FunctionWorkflowParams, params)
    return EnvDescription(
        env_id=ENV_ID,
        params=p,
        fields=observation_fields(p),
        actions=ACTIONS,
        reward=_REWARDS[p.reward],
        end=(
            "Terminates when every task of the episode is complete before its last step; truncated after"
            f" {EPISODE_STEPS} steps of {p.step_seconds:g} s unless episode_steps says otherwise."
        ),
        signals={
            "total_replicas": _workers,
            "backlog_requests": _backlog,
            "demand": partial(_demand, p),
            "utilisation": _utilisation,
        },
        rule_defaults={
            "threshold": {"upper": 0.75, "lower": 0.35, "upper_backlog": 8.0, "lower_backlog": 0.0, "cooldown_seconds": 0.0}
        },
        episode_steps=EPISODE_STEPS,
    )
