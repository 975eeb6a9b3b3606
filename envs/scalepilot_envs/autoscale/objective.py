"""J: what a service costs, in money."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.params import AutoscaleParams
from scalepilot_envs.autoscale.services import Services

Array = NDArray[np.float64]


class StepCost(NamedTuple):
    """The parts of one step's J, each (num_envs,) in currency."""

    replica_cost: Array
    late_cost: Array
    move_cost: Array

    @property
    def total(self) -> Array:
        """J of the step."""
        return self.replica_cost + self.late_cost + self.move_cost


def step_cost(params: AutoscaleParams | Services, billed_replicas: Array, late_requests: Array, change: Array) -> StepCost:
    """Price one interval.

    Args:
        params: prices and interval.
        billed_replicas: (num_envs,) ready + starting.
        late_requests: (num_envs,) late or dropped requests (a dropped one counts once).
        change: (num_envs,) replicas ordered (positive) or removed (negative).
    """
    return StepCost(
        billed_replicas * (params.price_per_replica_hour * params.interval_seconds / 3600.0),
        late_requests * params.price_per_late_request,
        np.abs(change) * params.price_per_move,
    )
