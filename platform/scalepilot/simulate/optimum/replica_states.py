"""Ready and starting replicas of a small service at the moment of a decision, all of them, and where each target leads."""

from __future__ import annotations

import itertools
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class ReplicaStates:
    """Every (ready, starting by steps to go) that targets from `low` to `high` can bring about.

    Args:
        low: fewest replicas of a target.
        high: most.
        startup_steps: from order to service.

    Attributes:
        states: (num_states, startup_steps) ready replicas, then those that serve after the coming interval, after the one
            behind it and so on. When a decision is due, what was ordered last has waited for a step already.
        targets: (num_targets,) replicas.
    """

    def __init__(self, low: int, high: int, startup_steps: int) -> None:
        self.startup_steps, self._base = startup_steps, high + 1
        starting = itertools.product(range(high + 1), repeat=startup_steps - 1)
        rows = [(ready, *rest) for rest in starting for ready in range(low, high + 1 - sum(rest))]
        self.states: Indices = np.array(sorted(rows), dtype=np.int64)
        self.targets: Indices = np.arange(low, high + 1)
        self._place = np.full(self._base**startup_steps, -1, dtype=np.int64)
        self._place[self._code(self.states)] = np.arange(len(self.states))

    @staticmethod
    def count(low: int, high: int, startup_steps: int) -> int:
        """How many states there would be."""
        counts = np.ones(high - low + 1)
        for _ in range(startup_steps - 1):
            counts = np.cumsum(counts)
        return int(counts.sum())

    def __len__(self) -> int:
        return len(self.states)

    @property
    def totals(self) -> Indices:
        """(num_states,) ready + starting."""
        total: Indices = self.states.sum(axis=1)
        return total

    def index(self, states: Indices) -> Indices:
        """(n,) places of states (n, startup_steps)."""
        found: Indices = self._place[self._code(states)]
        return found

    def _code(self, states: Indices) -> Indices:
        powers = self._base ** np.arange(self.startup_steps)
        code: Indices = (states * powers).sum(axis=-1)
        return code

    @cached_property
    def _led(self) -> tuple[Indices, Indices]:
        shape = (len(self.states), len(self.targets))
        change = self.targets[None] - self.totals[:, None]
        rows = np.zeros((*shape, self.startup_steps), dtype=np.int64)
        rows[..., :-1] = self.states[:, None, 1:]
        rows[..., -1] = np.maximum(change, 0)
        surplus = np.maximum(-change, 0)
        # The newest orders are cancelled first.
        for k in reversed(range(self.startup_steps - 1)):
            cancelled = np.minimum(surplus, rows[..., k])
            rows[..., k] -= cancelled
            surplus = surplus - cancelled
        serving = self.states[:, None, 0] - surplus
        after = np.concatenate([(serving + rows[..., 0])[..., None], rows[..., 1:]], axis=-1)
        return serving, self.index(after.reshape(-1, self.startup_steps)).reshape(shape)

    @property
    def serving(self) -> Indices:
        """(num_states, num_targets) replicas that serve in the coming interval."""
        return self._led[0]

    @property
    def after(self) -> Indices:
        """(num_states, num_targets) state when the next decision is due."""
        return self._led[1]
