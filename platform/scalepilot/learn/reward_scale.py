"""Rewards of any size, in a size that a network can learn: what is cut is counted, what is scaled is scaled by one number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Rewards of this root mean square are learnt as they are.
UNSCALED_SIZE = 100.0


class RewardScale:
    """A power of two by which rewards are divided before learning; 1 while their root mean square is at most 100.

    It only rises, so that values learnt before stay comparable, and it is no part of a policy: logits do not depend on it, and
    Q-values are exported in units of reward.

    Args:
        fixed: the scale, whatever the rewards are; None follows them.
    """

    def __init__(self, fixed: float | None = None) -> None:
        self.fixed = fixed
        self.scale = 1.0 if fixed is None else float(fixed)
        self._count = self._squares = 0.0

    def update(self, count: float, squares: float) -> float:
        """Follow `count` rewards whose squares add up to `squares`; returns the scale."""
        self._count, self._squares = self._count + count, self._squares + squares
        if self.fixed is None and self._count > 0:
            size = math.sqrt(self._squares / self._count)
            if size > max(UNSCALED_SIZE, 2.0 * self.scale):
                self.scale = 2.0 ** math.ceil(math.log2(size))
        return self.scale

    def stay(self) -> None:
        """Keep the scale from now on: what was learnt before there was one is in units of reward."""
        self.fixed = self.scale

    def get_state(self) -> dict[str, float]:
        """As numbers."""
        return {"scale": self.scale, "count": self._count, "squares": self._squares}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """What `get_state` gave; a fixed scale stays."""
        self._count, self._squares = float(state["count"]), float(state["squares"])
        if self.fixed is None:
            self.scale = float(state["scale"])
