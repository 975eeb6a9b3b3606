"""The Kubernetes HorizontalPodAutoscaler (autoscaling/v2), on CPU utilisation or on request rate per replica."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import SLACK, Rule, ceil

Array = NDArray[np.float64]
METRICS = ("cpu", "rps")
# Per 15 s period: doubling or four more replicas, whichever is more (Kubernetes' default scale-up policy).
_MAX_GROWTH_FACTOR, _MAX_GROWTH_REPLICAS = 2.0, 4.0
_ABSENT = -1.0


@dataclass(frozen=True)
class HpaParameters:
    """What an operator sets.

    Attributes:
        metric: "cpu" (utilisation of ready replicas) or "rps" (request rate a replica, as a share of its capacity).
        target: of the metric, as a share.
        tolerance: the count is kept while the metric is within this share of the target.
        stabilisation_down_seconds: a fall follows the highest recommendation of so long.
        stabilisation_up_seconds: a rise follows the lowest recommendation of so long.
    """

    metric: Literal["cpu", "rps"] = "cpu"
    target: float = 0.7
    tolerance: float = 0.1
    stabilisation_down_seconds: float = 300.0
    stabilisation_up_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric: {self.metric!r} is not allowed; allowed: {', '.join(METRICS)}")
        if not (math.isfinite(self.target) and 0 < self.target <= 10):
            raise ValueError(f"target: {self.target!r} is not allowed; allowed: above 0 to 10")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance: {self.tolerance!r} is not allowed; allowed: 0 to below 1")
        for name in ("stabilisation_down_seconds", "stabilisation_up_seconds"):
            if not 0 <= getattr(self, name) <= 3600:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not allowed; allowed: 0 to 3600")


def cpu_recommendation(
    cpu: Array, ready: Array, total: Array, target: Array, tolerance: Array, missing: Array | None = None
) -> Array:
    """Desired replicas from CPU utilisation, unready replicas counted as idle when growing and left out when shrinking.

    Args:
        cpu: (n,) mean utilisation of the ready replicas that are measured; NaN where none is.
        ready: (n,) replicas that serve.
        total: (n,) ready + starting.
        target: (1,) or (n,) utilisation aimed at.
        tolerance: (1,) or (n,).
        missing: (n,) ready replicas without a measurement: idle when growing, fully used (or on a target above 1) when
            shrinking; where none is measured the count is kept. None where all are, as in the simulator.

    Source:
        Kubernetes documentation, "Horizontal Pod Autoscaling", algorithm details; `replica_calculator.go`.
    """
    if missing is not None:
        return _with_missing(cpu, ready, total, target, tolerance, missing)
    ratio = cpu / target
    shrunk = np.minimum(ceil(ratio * ready), total)
    ratio_with_unready = cpu * ready / total / target
    grown = np.where(ratio_with_unready > 1 + tolerance + SLACK, ceil(ratio_with_unready * total), total)
    desired = np.where(ratio > 1, np.maximum(grown, total), shrunk)
    # Without a ready replica there is no utilisation to go by, and what starts is left alone.
    return np.where((np.abs(1 - ratio) <= tolerance + SLACK) | (ready == 0), total, desired)


def _with_missing(cpu: Array, ready: Array, total: Array, target: Array, tolerance: Array, missing: Array) -> Array:
    measured = ready - missing
    grown = cpu_recommendation(cpu, measured, total, target, tolerance)
    ratio = (cpu * measured + np.maximum(1.0, target) * missing) / np.maximum(ready, 1.0) / target
    shrunk = np.where((ratio < 1 - tolerance - SLACK) & (ready > 0), ceil(ratio * ready), total)
    # NaN, where none is measured, is neither above the target nor below it.
    return np.where(cpu > target, grown, shrunk)


def rate_recommendation(rate_rps: Array, capacity_rps: Array, total: Array, target: Array, tolerance: Array) -> Array:
    """Desired replicas from the request rate (an external or object metric with an average value).

    Args:
        rate_rps: (n,) newest arrival rate.
        capacity_rps: (n,) requests/s of one replica.
        total: (n,) ready + starting.
        target: (1,) or (n,) share of a replica's capacity aimed at.
        tolerance: (1,) or (n,).
    """
    wanted_per_replica = target * capacity_rps
    ratio = rate_rps / (wanted_per_replica * total)
    return np.where(np.abs(1 - ratio) <= tolerance + SLACK, total, ceil(rate_rps / wanted_per_replica))


class Hpa(Rule[HpaParameters]):
    """The HPA's control loop, one sync a decision interval.

    State: `recommendations` (n, longest window): newest last, −1 where there is none yet.
    """

    rule_name = "hpa"
    parameters_type = HpaParameters
    signals = ("total_replicas", "ready_replicas", "utilisation")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._target, self._tolerance = self.by_row("target"), self.by_row("tolerance")
        self._on_cpu = self.by_row("metric") == "cpu"
        down = self.steps_by_row("stabilisation_down_seconds")
        up = self.steps_by_row("stabilisation_up_seconds")
        self._window = int(max(down.max(), up.max()))
        age = np.arange(self._window)[::-1]
        self._in_down, self._in_up = age < down[:, None], age < up[:, None]

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[NDArray[np.float64], State | None]:
        """Recommend, stabilise both ways, limit the growth."""
        view = self.view
        ready, total = view.ready(observation), view.total(observation)
        recommendation = np.zeros(len(observation))
        if self._on_cpu.any():
            cpu = view.column(observation, "cpu_utilisation")
            recommendation = cpu_recommendation(cpu, ready, total, self._target, self._tolerance)
        if not self._on_cpu.all():
            rate = view.column(observation, "request_rate_rps_0")
            capacity = view.column(observation, "replica_capacity_rps")
            by_rate = rate_recommendation(rate, capacity, total, self._target, self._tolerance)
            recommendation = np.where(self._on_cpu, recommendation, by_rate)
        shape = (len(observation), self._window)
        past = np.full(shape, _ABSENT) if state is None else self.remembered(state, "recommendations", shape)
        past = np.concatenate([past[:, 1:], recommendation[:, None]], axis=1)
        known = past >= 0
        lowest = np.where(known & self._in_up, past, np.inf).min(axis=1)
        highest = np.where(known & self._in_down, past, -np.inf).max(axis=1)
        stabilised = np.minimum(np.maximum(total, lowest), highest)
        limit = np.maximum(_MAX_GROWTH_FACTOR * total, total + _MAX_GROWTH_REPLICAS)
        return np.minimum(stabilised, limit), {"recommendations": past}
