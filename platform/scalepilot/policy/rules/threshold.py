"""Step scaling on CPU utilisation with a cooldown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError
from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import SLACK, Array, MoveRule


@dataclass(frozen=True)
class ThresholdParameters:
    """One replica more above a limit, one less below another, then a pause.

    Attributes:
        upper: CPU utilisation above which to add.
        lower: CPU utilisation below which to remove.
        step: replicas a move.
        cooldown_seconds: no move for so long after one; the first decision that is so much later may move again.
        upper_backlog: also add when more requests than this wait; None looks at utilisation alone.
        lower_backlog: remove only while no more than this wait.
    """

    upper: float = 0.8
    lower: float = 0.4
    step: int = 1
    cooldown_seconds: float = 60.0
    upper_backlog: float | None = None
    lower_backlog: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.lower < self.upper <= 1:
            raise ValueError(f"lower, upper: {self.lower!r}, {self.upper!r} are not allowed; allowed: 0 <= lower < upper <= 1")
        if not isinstance(self.step, int) or self.step < 1:
            raise ValueError(f"step: {self.step!r} is not allowed; allowed: whole numbers from 1")
        if not 0 <= self.cooldown_seconds <= 86_400:
            raise ValueError(f"cooldown_seconds: {self.cooldown_seconds!r} is not allowed; allowed: 0 to 86400")
        for name in ("upper_backlog", "lower_backlog"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: from 0, or null")


class Threshold(MoveRule[ThresholdParameters]):
    """Step scaling as cloud providers have it, on utilisation and, where asked, on the backlog.

    State: `cooldown_left_seconds` (n,): of the cooldown after this decision.
    """

    rule_name = "threshold"
    parameters_type = ThresholdParameters
    signals = ("utilisation",)
    revision = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limits = [(p.upper_backlog, p.lower_backlog) for p in self._rows]
        self._upper_backlog = np.array([np.inf if upper is None else upper for upper, _ in limits])
        self._lower_backlog = np.array([np.inf if lower is None else lower for _, lower in limits])
        self._reads_backlog = bool(np.isfinite([self._upper_backlog, self._lower_backlog]).any())
        if self._reads_backlog and "backlog_requests" not in self.env.signals:
            raise ArtifactError(f"rule.parameters: upper_backlog, lower_backlog: {self.env.env_id} shows no backlog")

    def moves(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """One step up or down when out of the band and not cooling down."""
        n = len(observation)
        utilisation = self.view.signal("utilisation", observation)
        left = np.zeros(n) if state is None else self.remembered(state, "cooldown_left_seconds", (n,)) - self.interval_seconds
        more, fewer = utilisation > self.by_row("upper") + SLACK, utilisation < self.by_row("lower") - SLACK
        if self._reads_backlog:
            backlog = self.view.signal("backlog_requests", observation)
            more, fewer = more | (backlog > self._upper_backlog), fewer & (backlog <= self._lower_backlog)
        waiting = left > SLACK * self.interval_seconds
        move = np.where(waiting, 0.0, np.where(more, 1.0, np.where(fewer, -1.0, 0.0)))
        left = np.where(move != 0, self.by_row("cooldown_seconds"), np.maximum(left, 0.0))
        return move * self.by_row("step"), {"cooldown_left_seconds": left}
