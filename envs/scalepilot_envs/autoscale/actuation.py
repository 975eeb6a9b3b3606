"""Targets on their way to the service: what is decided takes effect some steps later."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class DelayedTargets:
    """The newest targets of `num_envs` services, of which each takes effect at the end of a later step.

    Args:
        num_envs: services.
        longest_steps: most steps of lag, 1 or more.
        lag_steps: (num_envs,) whole steps of each: with 1 a target takes effect at the end of its own step, with 0 at its
            beginning. Read again in each step: an episode may draw another.
    """

    def __init__(self, num_envs: int, longest_steps: int, lag_steps: NDArray[np.int64]) -> None:
        self._targets = np.zeros((longest_steps, num_envs))
        self._newest = 0
        self._columns = np.arange(num_envs)
        self._lag_steps = lag_steps

    def of(self, columns: NDArray[np.intp], lag_steps: NDArray[np.int64]) -> DelayedTargets:
        """Copies of services `columns` (n,), with their lags (n,)."""
        copies = DelayedTargets(len(columns), len(self._targets), lag_steps)
        copies._targets, copies._newest = self._targets[:, columns], self._newest
        return copies

    def fill(self, mask: NDArray[np.bool_], total: Array) -> None:
        """Begin episodes where `mask` is true: nothing is on its way.

        Args:
            mask: (num_envs,).
            total: (num_envs,) replicas there are.
        """
        self._targets[:, mask] = total[mask]

    def at_once(self, target: Array, total: Array) -> Array:
        """(num_envs,) replicas once this step's targets are given: as many as before, but where nothing is late."""
        self._newest = (self._newest + 1) % len(self._targets)
        self._targets[self._newest] = target
        return np.where(self._lag_steps == 0, target, total)

    def at_the_end(self, total: Array) -> Array:
        """(num_envs,) replicas once the targets have taken effect that are due at the end of the step."""
        due = self._targets[(self._newest + 1 - self._lag_steps) % len(self._targets), self._columns]
        return np.where(self._lag_steps == 0, total, due)
