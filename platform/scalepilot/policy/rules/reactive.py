"""Workers from Little's law over the newest window: the toolkit's two reactive rules for FunctionWorkflow-v0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import Array, MoveRule

# The planning horizon is never shorter than a step of the source's controller.
_SHORTEST_HORIZON_SECONDS, _SHORTEST_TIME_SECONDS = 8.0, 0.1
_HALF_A_WORKER = 0.5


@dataclass(frozen=True)
class ReactiveParameters:
    """`safety`: factor on the workers that Little's law asks for."""

    safety: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.safety) and self.safety > 0):
            raise ValueError(f"safety: {self.safety!r} is not allowed; allowed: above 0")


class ReactiveAverage(MoveRule[ReactiveParameters]):
    """One worker more or less by the mean sojourn of the newest window.

    The sources take the sojourn (waiting included) for the service time; kept, since it is the published rival.

    Source:
        The shared specification, `golden/function_workflow.py::reactive_target`.
    """

    rule_name = "reactive_average"
    parameters_type = ReactiveParameters
    fields = (
        "sojourn_mean_seconds",
        "arrival_rate_per_second",
        "worker_queue",
        "result_queue",
        "output_queue",
        "workers",
        "sojourn_max_seconds",
    )
    _maximum = False

    def moves(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """−1, 0 or +1 worker."""
        mean, rate, queue, results, output, workers, longest = (self.view.column(observation, name) for name in self.fields)
        time = np.maximum(mean, longest) if self._maximum else mean
        time = np.maximum(time, _SHORTEST_TIME_SECONDS)
        horizon = np.maximum(_SHORTEST_HORIZON_SECONDS, time)
        wanted = np.maximum(1.0, time * (rate + queue / horizon) * self.by_row("safety"))
        enqueued = output + queue + rate * self.interval_seconds
        active = np.maximum(0.0, enqueued - queue - results - output)
        share = 1.0 if self._maximum else 0.5
        busy = np.minimum(workers, np.maximum(0.0, active - (active > 0))) * time / horizon * share
        gap = wanted - (workers - busy)
        return (gap >= _HALF_A_WORKER).astype(np.float64) - (gap <= -_HALF_A_WORKER), None


class ReactiveMaximum(ReactiveAverage):
    """The same by the longest sojourn of the window."""

    rule_name = "reactive_maximum"
    _maximum = True
