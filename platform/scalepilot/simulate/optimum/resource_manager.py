"""Two optima of ResourceManager-v0: with the rates known in advance, and with only their law known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot_envs.resource_manager import ResourceManagerParams

Array = NDArray[np.float64]

# Every rate at which the reward jumps, with the default constants, is a multiple of this: it jumps between cells only.
_CELL = 0.125
_DEFAULT = ResourceManagerParams()
_EDGES = np.arange(_DEFAULT.min_rate, _DEFAULT.max_rate + _CELL / 2, _CELL)


def resource_manager_optimum(rates: Array, params: ResourceManagerParams = _DEFAULT) -> tuple[Array, NDArray[np.int64]]:
    """The highest return when the rates are known: exact dynamic programming over the instances.

    Args:
        rates: (n, num_steps + 1) requests as observed; the rate of a step is the one before it moves, so the last earns nothing.
        params: constants of the environment.

    Returns:
        (n,) returns and (n, num_steps) actions (0 nothing, 1 add, 2 remove) that reach them.

    Raises:
        InputError: rates of another shape.
    """
    rates = np.asarray(rates, dtype=np.float64)
    if rates.ndim != 2 or rates.shape[1] < 2 or not np.isfinite(rates).all():
        raise InputError(f"rates: shape {rates.shape} is not allowed; allowed: (n, num_steps + 1) finite numbers")
    count, steps = len(rates), rates.shape[1] - 1
    after, start = _after(params), params.start_instances - params.min_instances
    value = np.zeros((count, after.shape[1]))
    choice = np.empty((steps, count, after.shape[1]), dtype=np.int64)
    for t in range(steps - 1, -1, -1):
        there = _rewards(rates[:, t : t + 1], _instances(params), params) + value
        by_action = there[:, after] - _action_cost(params)[:, None]
        choice[t] = by_action.argmax(axis=1)
        value = by_action.max(axis=1)
    actions, at, rows = np.empty((count, steps), dtype=np.int64), np.full(count, start), np.arange(count)
    for t in range(steps):
        actions[:, t] = choice[t, rows, at]
        at = after[actions[:, t], at]
    return value[:, start], actions


def _instances(p: ResourceManagerParams) -> NDArray[np.int64]:
    return np.arange(p.min_instances, p.max_instances + 1)


def _after(p: ResourceManagerParams) -> NDArray[np.int64]:
    """(3, num_instances) row of the instances after action 0, 1, 2 (nothing, add, remove)."""
    rows = np.arange(p.max_instances - p.min_instances + 1)
    after: NDArray[np.int64] = np.clip(rows + np.array([[0], [1], [-1]]), 0, rows[-1])
    return after


def _action_cost(p: ResourceManagerParams) -> Array:
    # A change that the bounds swallow costs as much.
    return np.array([0.0, p.move_penalty, p.move_penalty])


@dataclass(frozen=True)
class ResourceManagerCausalOptimum:
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
        if ((at < 0) | (at >= _DEFAULT.max_instances)).any():
            raise InputError(f"instances: {instances} is not allowed; allowed: 1 to {_DEFAULT.max_instances}")
        ahead = np.stack([np.interp(rate, _EDGES, curve) for curve in self.continuation[steps_left - 1]], axis=-1)
        there = _rewards(rate[:, None], _instances(_DEFAULT)) + ahead
        by_action = np.take_along_axis(there, _after(_DEFAULT)[:, at].T, axis=1) - _action_cost(_DEFAULT)
        best: NDArray[np.int64] = by_action.argmax(axis=1)
        return best


def resource_manager_causal_optimum(num_steps: int = 100) -> ResourceManagerCausalOptimum:
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
    p, instances = _DEFAULT, _instances(_DEFAULT)
    inside, at_bounds = _rewards(middles, instances[:, None]), _rewards(_EDGES[[0, -1]], instances[:, None])
    low, high = _EDGES * (1 - p.rate_change), _EDGES * (1 + p.rate_change)
    below, above = np.maximum(p.min_rate - low, 0.0), np.maximum(high - p.max_rate, 0.0)
    continuation = np.zeros((num_steps, len(instances), len(_EDGES)))
    for k in range(1, num_steps):
        ahead = continuation[k - 1]
        value = _best(inside + (ahead[:, 1:] + ahead[:, :-1]) / 2)
        at_lowest, at_highest = _best(at_bounds + ahead[:, [0, -1]]).T
        for i in range(len(instances)):
            integral = np.concatenate([[0.0], np.cumsum(value[i]) * _CELL])
            # Beyond the bounds `interp` repeats the end, so only what lies inside is counted.
            mass = np.interp(high, _EDGES, integral) - np.interp(low, _EDGES, integral)
            continuation[k, i] = (mass + below * at_lowest[i] + above * at_highest[i]) / (high - low)
    first = np.array([np.interp(p.start_rate, _EDGES, curve) for curve in continuation[-1]])
    start = _best(_rewards(np.array([p.start_rate]), instances[:, None]) + first[:, None])
    return ResourceManagerCausalOptimum(float(start[p.start_instances - p.min_instances, 0]), continuation)


def _best(there: Array) -> Array:
    """Highest value over the actions: (5, …) by instances before the action, from (5, …) by instances after it."""
    best: Array = (there[_after(_DEFAULT)] - _action_cost(_DEFAULT)[:, None, None]).max(axis=0)
    return best


def _rewards(rate: Array, instances: NDArray[np.int64], p: ResourceManagerParams = _DEFAULT) -> Array:
    """Reward of an interval but for the action's cost; arguments broadcast."""
    usage = np.stack([np.minimum(rate / instances * f, 100.0) for f in (p.cpu_factor, p.memory_factor)])
    highest, lowest = usage.max(axis=0), usage.min(axis=0)
    good = (lowest >= p.band_low_percent) & (highest <= p.band_high_percent)
    bad = (highest > p.overload_percent) | (lowest < p.idle_percent)
    rewards: Array = p.band_reward * good - p.outside_penalty * bad
    return rewards
