"""As many replicas as the demand needs at a utilisation: proportional target tracking."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import SLACK, Array, Rule, ceil


@dataclass(frozen=True)
class TrackingParameters:
    """`utilisation`: share of the replicas' capacity aimed at."""

    utilisation: float = 0.95

    def __post_init__(self) -> None:
        if not (math.isfinite(self.utilisation) and 0 < self.utilisation <= 10):
            raise ValueError(f"utilisation: {self.utilisation!r} is not allowed; allowed: above 0 to 10")


class Tracking(Rule[TrackingParameters]):
    """wanted = (demand + backlog) / (capacity of a replica × utilisation): more above the count, less a whole one below it.

    Source:
        The shared specification, QueueScaling-v0: "tracking 95 % of capacity".
    """

    rule_name = "tracking"
    parameters_type = TrackingParameters
    signals = ("total_replicas", "demand", "backlog_requests", "replica_capacity")

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """⌈wanted⌉ when it exceeds the replicas, ⌊wanted⌋ + 1 when it is below them by more than one."""
        demand, backlog, capacity, total = (
            self.view.signal(name, observation) for name in ("demand", "backlog_requests", "replica_capacity", "total_replicas")
        )
        wanted = (demand + backlog) / (capacity * self.by_row("utilisation"))
        more, fewer = wanted > total * (1 + SLACK), wanted < (total - 1) * (1 - SLACK)
        return np.where(more, ceil(wanted), np.where(fewer, np.floor(wanted * (1 + SLACK)) + 1, total)), None
