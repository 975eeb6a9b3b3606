"""Two optima of ResourceManager-v0: with the rates known in advance, and with only their law known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError

Array = NDArray[np.float64]

# The specification's constants, golden/resource_manager.py.
_CPU, _MEMORY = 1.0, 0.8
_GOOD, _BAD = (30.0, 70.0), (10.0, 90.0)
_LOWEST_RATE, _HIGHEST_RATE, _START_RATE = 20.0, 300.0, 100.0
_SLOWEST, _FASTEST = 0.8, 1.2
_INSTANCES = np.arange(1, 6)
_START = 1
# Row of the instances after action 0, 1, 2 (nothing, add, remove); a change that the bounds swallow costs as much.
_AFTER = np.clip(np.arange(5) + np.array([[0], [1], [-1]]), 0, 4)
_ACTION_COST = np.array([0.0, 1.0, 1.0])
# Every rate at which the reward jumps is a multiple of this, so it jumps between cells and never inside one.
_CELL = 0.125
_EDGES = np.arange(_LOWEST_RATE, _HIGHEST_RATE + _CELL / 2, _CELL)


def resource_manager_optimum(rates: Array) -> tuple[Array, NDArray[np.int64]]:
    """The highest return when the rates are known: exact dynamic programming over the instances.

    Args:
        rates: (n, num_steps + 1) requests as observed; the rate of a step is the one before it moves, so the last earns nothing.

    Returns:
        (n,) returns and (n, num_steps) actions (0 nothing, 1 add, 2 remove) that reach them.

    Raises:
        InputError: rates of another shape.
    """
    rates = np.asarray(rates, dtype=np.float64)
    if rates.ndim != 2 or rates.shape[1] < 2 or not np.isfinite(rates).all():
        raise InputError(f"rates: shape {rates.shape} is not allowed; allowed: (n, num_steps + 1) finite numbers")
    count, steps = len(rates), rates.shape[1] - 1
    value = np.zeros((count, len(_INSTANCES)))
    choice = np.empty((steps, count, len(_INSTANCES)), dtype=np.int64)
    for t in range(steps - 1, -1, -1):
        there = _rewards(rates[:, t : t + 1], _INSTANCES) + value
        by_action = there[:, _AFTER] - _ACTION_COST[:, None]
        choice[t] = by_action.argmax(axis=1)
        value = by_action.max(axis=1)
    actions, at, rows = np.empty((count, steps), dtype=np.int64), np.full(count, _START), np.arange(count)
    for t in range(steps):
        actions[:, t] = choice[t, rows, at]
        at = _AFTER[actions[:, t], at]
    return value[:, _START], actions


@dataclass(frozen=True)
class CausalOptimum:
    """What a policy can hope for: the rate ahead is unknown, but its law is not.

    Attributes:
        expected_return: from the start (rate 100, 2 instances).
        continuation: (num_steps, 5, num_rates) expected return of k more steps once the rate has moved, by k, instances
            (1 … 5) and the rate before it moves (`_EDGES`).
    """

    expected_return: float
    continuation: Array

    def action(self, rate: Array, instances: NDArray[np.int64], steps_left: int) -> NDArray[np.int64]:
        """The best actions with what is known.

        Args:
            rate: (n,) current request rates.
            instances: (n,) from 1 to 5.
            steps_left: steps to go, the coming one included.

        Returns:
            (n,) actions (0 nothing, 1 add, 2 remove).

        Raises:
            InputError: more steps than were planned for, or instances out of range.
        """
        rate, at = np.asarray(rate, dtype=np.float64), np.asarray(instances) - 1
        if not 1 <= steps_left <= len(self.continuation):
            raise InputError(f"steps_left: {steps_left} is not allowed; allowed: 1 to {len(self.continuation)}")
        if ((at < 0) | (at >= len(_INSTANCES))).any():
            raise InputError(f"instances: {instances} is not allowed; allowed: 1 to {len(_INSTANCES)}")
        ahead = np.stack([np.interp(rate, _EDGES, curve) for curve in self.continuation[steps_left - 1]], axis=-1)
        there = _rewards(rate[:, None], _INSTANCES) + ahead
        by_action = np.take_along_axis(there, _AFTER[:, at].T, axis=1) - _ACTION_COST
        best: NDArray[np.int64] = by_action.argmax(axis=1)
        return best


def resource_manager_causal_optimum(num_steps: int = 100) -> CausalOptimum:
    """Finite-horizon dynamic programming over rate and instances, the rate's factor uniform in 0.8 … 1.2.

    The value is taken at the middle of cells of 1/8 request and integrated over the rates that may follow; rates beyond
    20 … 300 land on these bounds. The expected return is good to 0.01.

    Args:
        num_steps: steps of an episode.

    Raises:
        InputError: no steps.
    """
    if num_steps < 1:
        raise InputError(f"num_steps: {num_steps} is not allowed; allowed: whole numbers from 1")
    middles = (_EDGES[1:] + _EDGES[:-1]) / 2
    inside, at_bounds = _rewards(middles, _INSTANCES[:, None]), _rewards(_EDGES[[0, -1]], _INSTANCES[:, None])
    low, high = _EDGES * _SLOWEST, _EDGES * _FASTEST
    below, above = np.maximum(_LOWEST_RATE - low, 0.0), np.maximum(high - _HIGHEST_RATE, 0.0)
    continuation = np.zeros((num_steps, len(_INSTANCES), len(_EDGES)))
    for k in range(1, num_steps):
        ahead = continuation[k - 1]
        value = _best(inside + (ahead[:, 1:] + ahead[:, :-1]) / 2)
        at_lowest, at_highest = _best(at_bounds + ahead[:, [0, -1]]).T
        for i in range(len(_INSTANCES)):
            integral = np.concatenate([[0.0], np.cumsum(value[i]) * _CELL])
            # Beyond the bounds `interp` repeats the end, so only what lies inside is counted.
            mass = np.interp(high, _EDGES, integral) - np.interp(low, _EDGES, integral)
            continuation[k, i] = (mass + below * at_lowest[i] + above * at_highest[i]) / (high - low)
    first = np.array([np.interp(_START_RATE, _EDGES, curve) for curve in continuation[-1]])
    start = _best(_rewards(np.array([_START_RATE]), _INSTANCES[:, None]) + first[:, None])
    return CausalOptimum(float(start[_START, 0]), continuation)


def _best(there: Array) -> Array:
    """Highest value over the actions: (5, …) by instances before the action, from (5, …) by instances after it."""
    best: Array = (there[_AFTER] - _ACTION_COST[:, None, None]).max(axis=0)
    return best


def _rewards(rate: Array, instances: NDArray[np.int64]) -> Array:
    """Reward of an interval but for the action's cost; arguments broadcast."""
    cpu, memory = rate / instances * _CPU, rate / instances * _MEMORY
    highest, lowest = np.maximum(cpu, memory), np.minimum(cpu, memory)
    good, bad = (lowest >= _GOOD[0]) & (highest <= _GOOD[1]), (highest > _BAD[1]) | (lowest < _BAD[0])
    rewards: Array = np.where(good, 10.0, np.where(bad, -5.0, 0.0))
    return rewards
