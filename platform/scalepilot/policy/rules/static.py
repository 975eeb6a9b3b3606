"""A fixed number of replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import Rule


@dataclass(frozen=True)
class StaticParameters:
    """`replicas`: how many, always."""

    replicas: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.replicas, int) or self.replicas < 1:
            raise ValueError(f"replicas: {self.replicas!r} is not allowed; allowed: whole numbers from 1")


class Static(Rule[StaticParameters]):
    """Always the same number of replicas."""

    rule_name = "static"
    parameters_type = StaticParameters
    signals = ("total_replicas",)

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[NDArray[np.float64], State | None]:
        """The constant."""
        return np.broadcast_to(self.by_row("replicas").astype(np.float64), (len(observation),)).copy(), None
