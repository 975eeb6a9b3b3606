"""The cheapest plan of replicas for a forecast: a short dynamic programme over the simulator's own costs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.rules.forecast import NODE_WEIGHTS
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.latency import waiting_for

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]
Indices = NDArray[np.int64]
_LOADS, _SIGMAS = 320, 24
_LEAST_SIGMA, _LARGEST_SIGMA = 0.02, 1.5
_LOWEST_LOAD, _HIGHEST_LOAD = 0.05, 2.0
# numpy accumulates down the columns of narrow batches fastest; of wide ones, row by row (measured, 50 and 200 replicas).
_NARROW_BATCH = 128


class LateCosts:
    """What late requests of one interval are expected to cost, by uncertainty, forecast rate and ready replicas.

    Above capacity the interval is taken to begin with the backlog that the same rate left in the one before: an overload
    lasts until what is ordered against it serves.

    Args:
        params: the service.
        nodes: standardised errors of the rate's logarithm, each with its NODE_WEIGHTS.
    """

    def __init__(self, params: AutoscaleParams, nodes: tuple[float, ...]) -> None:
        p = params
        self.replicas = np.arange(p.min_replicas, p.max_replicas + 1, dtype=np.float64)
        capacity = p.replica_capacity_rps
        self._log_loads = np.linspace(
            math.log(_LOWEST_LOAD * capacity), math.log(_HIGHEST_LOAD * capacity * p.max_replicas), _LOADS
        )
        self._log_sigmas = np.linspace(math.log(_LEAST_SIGMA), math.log(_LARGEST_SIGMA), _SIGMAS)
        served = self.replicas * capacity
        late = np.zeros((_SIGMAS, _LOADS, len(served)))
        for node, weight in zip(nodes, NODE_WEIGHTS, strict=True):
            rate = np.exp(self._log_loads[None, :] + np.exp(self._log_sigmas)[:, None] * node)[:, :, None]
            carried = np.clip((rate - served) * p.interval_seconds, 0.0, p.max_wait_seconds * served)
            with np.errstate(all="ignore"):
                share = waiting_for(p, np.broadcast_to(rate, late.shape), served, self.replicas, carried).late_share
            late += share * rate * weight
        self._late: Float32 = (late * (p.interval_seconds * p.price_per_late_request)).astype(np.float32)

    def places(self, rate_rps: Array, sigma: Array) -> tuple[Indices, Indices]:
        """Where forecasts and their standard deviations, of any equal shape, lie in the table: for `expected`."""
        row = _nearest(self._log_sigmas, np.log(np.maximum(sigma, _LEAST_SIGMA)))
        return row, _nearest(self._log_loads, np.log(np.maximum(rate_rps, 1e-6)))

    def expected(self, row: Indices, column: Indices) -> Float32:
        """Currency an interval at places (n,) of the table, by replicas: (n, num_replicas)."""
        costs: Float32 = self._late[row, column]
        return costs


def _nearest(grid: Array, values: Array) -> Indices:
    step = grid[1] - grid[0]
    nearest: Indices = np.clip(np.rint((values - grid[0]) / step), 0, len(grid) - 1).astype(np.int64)
    return nearest


def plan_target(
    params: AutoscaleParams,
    late: LateCosts,
    rate_rps: Array,
    sigma: Array,
    total_replicas: Array,
    horizon_steps: NDArray[np.int64],
    late_weight: Array,
) -> Array:
    """The target that begins the cheapest plan.

    The plan chooses ready replicas for every interval ahead. Fewer take effect when the order does, at once or
    `actuation_lag_steps` later; more serve after the start-up and are paid meanwhile. What is starting counts as ready: it is,
    when what is ordered now serves.

    Args:
        params: the service.
        late: expected cost of late requests.
        rate_rps: (n, num_leads) forecast of the coming intervals.
        sigma: (n, num_leads) standard deviation of its logarithm.
        total_replicas: (n,) ready + starting.
        horizon_steps: (1,) or (n,) intervals looked ahead; later ones cost nothing.
        late_weight: (1,) or (n,) factor on the cost of late requests.

    Returns:
        (n,) targets.
    """
    p, n = params, len(rate_rps)
    # Replicas run along the first axis: in wide batches numpy's running minima are several times faster over whole rows.
    y = late.replicas.astype(np.float32)[:, None]
    replica_cost = np.float32(p.price_per_replica_hour * p.interval_seconds / 3600.0)
    down = np.float32(p.price_per_move)
    up = replica_cost * p.startup_steps + down
    way_down, way_up = down * y, up * y[::-1] * np.float32(-1.0)
    weight = late_weight.astype(np.float32)
    at, each = np.clip(total_replicas - p.min_replicas, 0, len(y) - 1).astype(np.int64), np.arange(n)
    value = np.zeros((len(y), n), dtype=np.float32)
    from_order = from_now = value
    staying = np.zeros(n, dtype=np.float32)
    first, serving = p.actuation_lag_steps, p.order_steps
    shortest, leads = int(horizon_steps.min()), min(rate_rps.shape[1], int(horizon_steps.max()))
    rows, columns = (np.ascontiguousarray(place.T) for place in late.places(rate_rps[:, :leads], sigma[:, :leads]))
    # What there is until the order takes effect costs every plan the same.
    for lead in reversed(range(first, leads)):
        # Cost of holding y replicas from this interval on.
        held = np.multiply(late.expected(rows[lead], columns[lead]).T, weight, order="C")
        held += replica_cost * y
        if lead < serving:
            staying += held[at, each]
        held += value
        if lead >= shortest:
            held *= horizon_steps > lead
        # The cheapest way there from y replicas before: a running minimum each way, less the price of each step of it.
        value = _running_minimum(held, way_down)
        if lead > serving:
            np.minimum(value, _running_minimum(held[::-1], way_up)[::-1], out=value)
        if lead == serving:
            from_order = held
        from_now = held
    # One target cannot do both: who removes replicas now orders the next ones later, and who orders now keeps what there is.
    index = np.arange(len(y))[:, None]
    costs = np.where(index <= at, from_now + down * (at - index), staying + from_order + up * (index - at))
    chosen: Array = costs.argmin(axis=0).astype(np.float64) + p.min_replicas
    return chosen


def _running_minimum(costs: Float32, way: Float32) -> Float32:
    """Minimum of costs[k] + way[j] − way[k] over k up to j, for every j: moves along the first axis at the price of the way."""
    lowest = costs - way
    if lowest.shape[1] <= _NARROW_BATCH:
        np.minimum.accumulate(lowest, axis=0, out=lowest)
    else:
        for j in range(1, len(lowest)):
            np.minimum(lowest[j], lowest[j - 1], out=lowest[j])
    lowest += way
    return lowest
