"""Step scaling on CPU utilisation with a cooldown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import SLACK, Rule


@dataclass(frozen=True)
class ThresholdParameters:
    """One replica more above a limit, one less below another, then a pause.

    Attributes:
        upper: CPU utilisation above which to add.
        lower: CPU utilisation below which to remove.
        step: replicas a move.
        cooldown_seconds: no move for so long after one.
    """

    upper: float = 0.8
    lower: float = 0.4
    step: int = 1
    cooldown_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.lower < self.upper <= 1:
            raise ValueError(f"lower, upper: {self.lower!r}, {self.upper!r} are not allowed; allowed: 0 <= lower < upper <= 1")
        if not isinstance(self.step, int) or self.step < 1:
            raise ValueError(f"step: {self.step!r} is not allowed; allowed: whole numbers from 1")
        if not 0 <= self.cooldown_seconds <= 86_400:
            raise ValueError(f"cooldown_seconds: {self.cooldown_seconds!r} is not allowed; allowed: 0 to 86400")


class Threshold(Rule[ThresholdParameters]):
    """AWS-style step scaling.

    State: `cooldown_steps` (n,): decisions still to skip.
    """

    rule_name = "threshold"
    parameters_type = ThresholdParameters

    def desired(self, observation: NDArray[Any], state: State | None) -> tuple[NDArray[np.float64], State | None]:
        """One step up or down when out of the band and not cooling down."""
        total = self.view.total(observation)
        cpu = self.view.column(observation, "cpu_utilisation")
        waiting = np.zeros(len(observation)) if state is None else self.remembered(state, "cooldown_steps", (len(observation),))
        move = (cpu > self.by_row("upper") + SLACK).astype(np.float64) - (cpu < self.by_row("lower") - SLACK)
        move = np.where(waiting > 0, 0.0, move)
        pause = np.ceil(self.by_row("cooldown_seconds") / self.env_params.interval_seconds)
        waiting = np.where(move != 0, pause, np.maximum(waiting - 1, 0))
        return total + move * self.by_row("step"), {"cooldown_steps": waiting}
