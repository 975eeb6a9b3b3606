"""The decision process behind the causal optimum, solved backwards over an episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot.simulate.optimum.replica_states import ReplicaStates
from scalepilot_envs.autoscale import AutoscaleParams, MoveTable

Array = NDArray[np.float64]
Choices = NDArray[np.int16]
# The values of two stages that differ by a constant, to this share of it, go on doing so.
_SETTLED = 1e-5


@dataclass(frozen=True)
class Solution:
    """The least expected cost of an episode, and what reaches it.

    Attributes:
        values: (num_phases,) currency, by the phase of the first interval.
        first: (num_phases,) targets of the first step.
        tables: targets (num_phases, num_states, num_points) of later steps; those that do not change are kept once.
        table_of_step: (num_steps,) which table a step has.
    """

    values: Array
    first: Array
    tables: list[Choices]
    table_of_step: NDArray[np.int64]


class Process:
    """States are (phase of the newest interval, replicas, backlog); decisions are targets.

    Args:
        params: prices.
        replicas: states of the replicas, and where targets lead.
        transitions: (num_phases, num_phases) probability of the next phase, by the present one.
        late, left: of an `IntervalModel`.
        moves: only targets that these reach; any if None.
    """

    def __init__(
        self,
        params: AutoscaleParams,
        replicas: ReplicaStates,
        transitions: Array,
        late: Array,
        left: Array,
        moves: MoveTable | None = None,
    ) -> None:
        self._replicas, self._transitions, self._left = replicas, transitions, left
        self._late = params.price_per_late_request * late
        self._low = params.min_replicas
        targets, totals = replicas.targets, replicas.totals
        # What a decision costs by itself: (num_states, num_targets).
        billed = params.price_per_replica_hour / params.steps_per_hour * targets
        self._paid: Array = billed + params.price_per_move * np.abs(targets - totals[:, None])
        if moves is not None:
            asked = [moves.targets(np.full(len(totals), a), totals.astype(np.float64)) for a in range(len(moves))]
            places = np.clip(np.array(asked), targets[0], targets[-1]).astype(np.int64) - self._low
            allowed = np.zeros(self._paid.shape, dtype=np.bool_)
            allowed[np.arange(len(totals)), places] = True
            self._paid = np.where(allowed, self._paid, np.inf)
        # What follows depends on the serving replicas and the state after only: far fewer pairs than decisions.
        pairs, place = np.unique((replicas.serving - self._low) * len(replicas) + replicas.after, return_inverse=True)
        self._pair = place.reshape(self._paid.shape)
        self._after = pairs % len(replicas)
        self._ends = np.searchsorted(pairs // len(replicas), np.arange(len(targets) + 1))

    @property
    def work(self) -> float:
        """Multiplications of a stage."""
        phases, _, points = self._late.shape
        return float(phases * len(self._after) * points**2)

    def solve(self, num_steps: int, ready_at_start: NDArray[np.int64]) -> Solution:
        """Backwards from the end, after which nothing costs anything.

        Args:
            num_steps: of an episode.
            ready_at_start: (num_phases,) replicas after a reset, by the phase of the first interval.
        """
        phases, _, points = self._late.shape
        values = np.zeros((phases, len(self._replicas), points))
        tables: list[Choices] = []
        table_of_step = np.zeros(num_steps, dtype=np.int64)
        gained, t = 0.0, num_steps - 1
        while t > 0:
            before, choices = self._stage(self._ahead(values))
            if not tables or not np.array_equal(choices, tables[-1]):
                tables.append(choices)
            table_of_step[: t + 1] = len(tables) - 1
            gain = before - values
            values, t = before, t - 1
            if t and np.ptp(gain) <= _SETTLED * abs(gain.max()):
                # From here back to the first step each costs the same, and is decided alike.
                gained = t * float(gain.mean())
                t = 0
        ahead = self._ahead(values)
        start = np.zeros((phases, self._replicas.startup_steps), dtype=np.int64)
        start[:, 0] = ready_at_start
        at = self._replicas.index(start)
        cost = self._paid[at] + ahead[np.arange(phases)[:, None], self._pair[at], 0]
        first = self._replicas.targets[cost.argmin(axis=1)].astype(np.float64)
        return Solution(cost.min(axis=1) + gained, first, tables, table_of_step)

    def _ahead(self, values: Array) -> Array:
        """(num_phases, num_pairs, num_points) late requests of an interval of each phase, and what comes after it."""
        phases, _, points = self._late.shape
        ahead = np.empty((phases, len(self._after), points))
        for k, (begin, end) in enumerate(zip(self._ends[:-1], self._ends[1:], strict=True)):
            later = values[:, self._after[begin:end]]
            np.matmul(later, self._left[:, k].transpose(0, 2, 1), out=ahead[:, begin:end])
            ahead[:, begin:end] += self._late[:, k, None]
        return ahead

    def _stage(self, ahead: Array) -> tuple[Array, Choices]:
        """Least cost and the targets that reach it, (num_phases, num_states, num_points), the coming phase unknown."""
        expected = np.tensordot(self._transitions, ahead, axes=1)
        cost = expected[:, self._pair] + self._paid[None, :, :, None]
        choice = cost.argmin(axis=2)
        least: Array = np.take_along_axis(cost, choice[:, :, None], axis=2)[:, :, 0]
        return least, (choice + self._low).astype(np.int16)
