"""Targets on their way to the service: what is decided takes effect some steps later."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class DelayedTargets:
    """The newest targets of `num_envs` services, of which each takes effect at the end of a later step.

    Args:
        num_envs: services.
        lag_steps: 1 or more: with 1 a target takes effect at the end of its own step.
    """

    def __init__(self, num_envs: int, lag_steps: int) -> None:
        # Ring: the row that is written next holds the oldest target.
        self._targets = np.zeros((lag_steps, num_envs))
        self._next = 0

    def fill(self, mask: NDArray[np.bool_], total: Array) -> None:
        """Begin episodes where `mask` is true: nothing is on its way.

        Args:
            mask: (num_envs,).
            total: (num_envs,) replicas there are.
        """
        self._targets[:, mask] = total[mask]

    def due(self, target: Array) -> Array:
        """Take this step's targets, and return those that take effect at its end, (num_envs,)."""
        self._targets[self._next] = target
        self._next = (self._next + 1) % len(self._targets)
        due: Array = self._targets[self._next]
        return due
