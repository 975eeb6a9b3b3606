"""What QueueScaling-v0 shows, takes and pays, as one description."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.description import Action, Columns, EnvDescription, ObservationField, Signal, params_from_mapping
from scalepilot_envs.queue_scaling.params import QueueScalingParams

ENV_ID = "scalepilot/QueueScaling-v0"
EPISODE_STEPS = 200
_RATE = "sum(rate(http_requests_total{$selector}[$window]))"
ACTIONS = (Action("absolute", -1, "−1"), Action("absolute", 0, "hold"), Action("absolute", 1, "+1"))


def observation_fields(params: QueueScalingParams, bounded: bool = False) -> tuple[ObservationField, ...]:
    """The fields in the order of the observation vector, scaled to [0, 1] if `bounded`."""
    p = params
    fewest = p.min_instances / p.max_instances
    ready, came = "sum(kube_deployment_status_replicas_ready{$deployment})", f"{p.interval_seconds:g} * {_RATE}"
    there, waiting = f"{p.capacity_requests} * {ready}", "sum(http_requests_queued{$selector})"
    used = f"clamp_max(round(100 * {came} / ({there})) / 100, 1)"
    shares = (
        ObservationField(
            "instances_share", f"share of {p.max_instances}", fewest, 1.0, "instances there are", f"{ready} / {p.max_instances}"
        ),
        ObservationField("load_share", "share", 0.0, 1.0, "used part of the capacity, in whole percents", used),
    )
    capacity, influx, queue = (
        "requests the instances of the step just served can serve in a step",
        "requests that came in the step just served",
        "requests that wait",
    )
    if bounded:
        of_capacity, of_influx = f"share of {p.max_capacity_requests:,}", f"share of {p.max_influx_requests:,}"
        of_queue, log_queue = (
            f"log(1 + q) / log(1 + {p.max_queue_requests:,})",
            f"ln(1 + {waiting}) / ln(1 + {p.max_queue_requests})",
        )
        return (
            *shares,
            ObservationField("capacity_scaled", of_capacity, fewest, 1.0, capacity, f"{there} / {p.max_capacity_requests}"),
            ObservationField("influx_scaled", of_influx, 0.0, 1.0, influx, f"{came} / {p.max_influx_requests}"),
            ObservationField("queue_log_scaled", of_queue, 0.0, 1.0, queue, log_queue),
        )
    lowest, highest = float(p.min_instances * p.capacity_requests), float(p.max_capacity_requests)
    return (
        *shares,
        ObservationField("capacity_requests", "requests/step", lowest, highest, capacity, there),
        ObservationField("influx_requests", "requests/step", 0.0, float(p.max_influx_requests), influx, came),
        ObservationField("queue_requests", "requests", 0.0, float(p.max_queue_requests), queue, waiting),
    )


def _instances(p: QueueScalingParams, columns: Columns) -> NDArray[np.float64]:
    return np.rint(columns("instances_share") * p.max_instances)


def _load(columns: Columns) -> NDArray[np.float64]:
    return np.rint(columns("load_share") * 100) / 100


def _influx(p: QueueScalingParams, bounded: bool, columns: Columns) -> NDArray[np.float64]:
    scaled = columns("influx_scaled") * p.max_influx_requests if bounded else columns("influx_requests")
    return np.asarray(np.rint(scaled), dtype=np.float64)


def _queue(p: QueueScalingParams, bounded: bool, columns: Columns) -> NDArray[np.float64]:
    scaled = np.expm1(columns("queue_log_scaled") * np.log1p(p.max_queue_requests)) if bounded else columns("queue_requests")
    return np.asarray(np.rint(scaled), dtype=np.float64)


def _capacity(p: QueueScalingParams, columns: Columns) -> NDArray[np.float64]:
    return np.full_like(columns("load_share"), float(p.capacity_requests), dtype=np.float64)


def _signals(p: QueueScalingParams, bounded: bool) -> dict[str, Signal]:
    """Physical quantities from either form of the observation; whole numbers where thresholds are compared with them."""
    return {
        "total_replicas": partial(_instances, p),
        "utilisation": _load,
        "backlog_requests": partial(_queue, p, bounded),
        "demand": partial(_influx, p, bounded),
        "replica_capacity": partial(_capacity, p),
    }


def describe(
    params: QueueScalingParams | Mapping[str, Any] | None = None, *, bounded_observation: bool = False
) -> EnvDescription:
    """Fields, actions, reward and parameters of QueueScaling-v0.

    Args:
        params: constants, or their mapping.
        bounded_observation: describe the observation scaled to [0, 1].

    Raises:
        ValueError: a parameter is unknown or not allowed.
    """
    p: QueueScalingParams = params_from_mapping(QueueScalingParams, params)
    return EnvDescription(
        env_id=ENV_ID,
        params=p,
        fields=observation_fields(p, bounded_observation),
        actions=ACTIONS,
        reward=(
            f"−(1 − load) · instances / {p.max_instances} − {p.refused_penalty:g} for a change that would leave"
            f" {p.min_instances} to {p.max_instances} instances − queue / (1 + queue)."
        ),
        end=(
            f"Terminates when the queue exceeds {p.overflow_requests:,} requests; truncated after {EPISODE_STEPS} steps unless"
            " episode_steps says otherwise."
        ),
        signals=_signals(p, bounded_observation),
        rule_defaults={
            "threshold": {"upper": 0.8, "lower": 0.4, "upper_backlog": 100.0, "lower_backlog": 0.0, "cooldown_seconds": 0.0}
        },
        reward_bounds=(-2.0 - p.refused_penalty, 0.0),
        episode_steps=EPISODE_STEPS,
    )
