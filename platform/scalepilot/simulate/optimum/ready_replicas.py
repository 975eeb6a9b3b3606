"""Dynamic programming over the ready replicas y and the backlog q of one Autoscale episode with known arrivals.

Start-up is the same for all and removal is instant, so the pipeline needs no state of its own: a replica that is ready
from step s was billed in s − D … s − 1, and one that would be ready after the end is never ordered. What is left is

    V_t(y', q) = min_y [ (D·c_r + c_s)·(y − y')⁺ + c_s·(y' − y)⁺ + c_r·y + c_v·late_t(y, q) + V_{t+1}(y, q'_t(y, q)) ]

with y <= y' for t < D. The minimum over y is a lower envelope of two slopes, so two running minima find it: O(M·Q) a step.

A target below the total cancels what is starting before it stops what is ready, so nothing can become ready in the D steps
after a removal. Leaving that out matters in a corner only: keeping a replica for up to D steps is no dearer than starting it
anew, and a ready replica makes no request late. But the room to wait shrinks with the replicas and drops what does not fit,
so it may pay to be without them for a moment. Where the bounds differ, a second pass counts those steps as part of the state;
where they still do (a service at its most replicas for hours, with a queue that hardly moves), a third has a finer grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.latency import waiting_for

Array = NDArray[np.float64]

BACKLOG_POINTS = 200
_EVEN_SHARE = 1 / 3
_UNITS_A_STEP, _MOST_UNITS = 256.0, 2**21
_KEPT_BYTES = 128_000_000
# Gaps between the bounds, as shares, beyond which the second and the third pass are worth their time.
_CLOSE_ENOUGH, _ACCEPTABLE = 0.002, 0.02
_FINER = 8


@dataclass(frozen=True)
class ReadyPlan:
    """Bounds of J over an episode, in currency, and the plan that costs the upper one.

    Attributes:
        lower_J: no sequence of targets costs less.
        upper_J: what `ready` costs.
        ready: (num_steps,) ready replicas that targets can command.
    """

    lower_J: float
    upper_J: float
    ready: Array


class BacklogGrid:
    """Backlogs from 0 to the most that can wait: evenly spaced at first, geometrically beyond.

    Args:
        most: largest backlog, requests.
        capacity: requests one replica serves in a step; the fine spacing is a small power of two relative to it.
        num_points: about as many, or fewer where that is all there are.
    """

    def __init__(self, most: float, capacity: float, num_points: int = BACKLOG_POINTS) -> None:
        unit = 2.0 ** np.floor(np.log2(capacity / _UNITS_A_STEP))
        while most / unit > _MOST_UNITS:
            unit *= 2.0
        units = int(most / unit)
        places = np.arange(units + 1)
        if units >= num_points:
            even = int(_EVEN_SHARE * num_points)
            beyond = np.geomspace(even, units, num_points - even + 1).astype(np.int64)
            places = np.unique(np.concatenate([np.arange(even), beyond]))
        self.points: Array = places * unit
        # Multiplying by a power of two is exact, so truncation never rounds a backlog up.
        self._per_unit = 1.0 / unit
        self._place = np.searchsorted(places, np.arange(units + 2), side="right") - 1

    def below(self, backlog: Array) -> NDArray[np.intp]:
        """Index of the largest grid point that is not above, any shape."""
        below: NDArray[np.intp] = self._place.take((backlog * self._per_unit).astype(np.int64))
        return below


@dataclass(frozen=True)
class Service:
    """What the recursion needs to know of a service; arrays (num_choices,) over the possible ready replicas."""

    params: AutoscaleParams
    num_points: int = BACKLOG_POINTS

    @cached_property
    def ready(self) -> Array:
        """Every number of replicas that may be ready."""
        return np.arange(self.params.min_replicas, self.params.max_replicas + 1.0)

    @cached_property
    def served_rps(self) -> Array:
        """Requests/s."""
        return self.ready * self.params.replica_capacity_rps

    @cached_property
    def grid(self) -> BacklogGrid:
        """Of the backlog."""
        p = self.params
        most = float(p.max_wait_seconds * self.served_rps[-1])
        return BacklogGrid(most, p.replica_capacity_rps * p.interval_seconds, self.num_points)

    @property
    def replica_price(self) -> float:
        """Currency for a replica and step."""
        return self.params.price_per_replica_hour * self.params.interval_seconds / 3600.0

    @property
    def order_price(self) -> float:
        """Currency until an ordered replica is ready."""
        return self.params.startup_steps * self.replica_price + self.params.price_per_move


def late_and_left(
    params: AutoscaleParams, arrived: Array, ready: Array, served_rps: Array, backlog: Array
) -> tuple[Array, Array]:
    """One interval of the simulator: late requests and the backlog it leaves; arguments broadcast.

    Both grow with the backlog, whatever the parameters: that is what makes rounding it down a lower bound.
    """
    with np.errstate(all="ignore"):
        late = arrived * waiting_for(params, arrived / params.interval_seconds, served_rps, ready, backlog).late_share
    left = np.maximum(backlog + arrived - served_rps * params.interval_seconds, 0.0)
    return late, np.minimum(left, params.max_wait_seconds * served_rps)


def plan_ready_replicas(
    params: AutoscaleParams, arrived: Array, ready_at_start: float, *, kept_bytes: int = _KEPT_BYTES
) -> ReadyPlan:
    """Bound and plan one episode.

    Args:
        params: the service.
        arrived: (num_steps,) requests.
        ready_at_start: replicas after the reset.
        kept_bytes: for the values of a segment; with less, more is computed twice.
    """
    coarse, fine = Service(params), Service(params, BACKLOG_POINTS * _FINER)
    best = _plan(coarse, arrived, ready_at_start, 0, kept_bytes)
    for service, lock, tolerance in ((coarse, params.startup_steps, _CLOSE_ENOUGH), (fine, 0, _ACCEPTABLE)):
        if best.upper_J <= best.lower_J * (1.0 + tolerance):
            break
        other = _plan(service, arrived, ready_at_start, lock, kept_bytes)
        cheaper = min(best, other, key=lambda plan: plan.upper_J)
        best = ReadyPlan(max(best.lower_J, other.lower_J), cheaper.upper_J, cheaper.ready)
    return best


def plan_J(params: AutoscaleParams, arrived: Array, ready_at_start: float, ready: Array) -> float:
    """What the simulator charges for a plan, with exact backlogs; currency.

    Args:
        params: the service.
        arrived: (num_steps,) requests.
        ready_at_start: replicas after the reset.
        ready: (num_steps,) ready replicas.
    """
    backlogs, backlog = np.empty(len(ready)), 0.0
    served_rps = ready * params.replica_capacity_rps
    capacity, room = served_rps * params.interval_seconds, params.max_wait_seconds * served_rps
    for t in range(len(ready)):
        backlogs[t] = backlog
        backlog = min(max(backlog + arrived[t] - capacity[t], 0.0), room[t])
    late, _ = late_and_left(params, arrived, ready, served_rps, backlogs)
    change, service = np.diff(ready, prepend=ready_at_start), Service(params)
    return float(
        service.replica_price * ready.sum()
        + service.order_price * np.maximum(change, 0.0).sum()
        + params.price_per_move * np.maximum(-change, 0.0).sum()
        + params.price_per_late_request * late.sum()
    )


def _plan(service: Service, arrived: Array, ready_at_start: float, lock: int, kept_bytes: int) -> ReadyPlan:
    """Bound and plan with `lock` steps after a removal in which nothing becomes ready; the plan always keeps D."""
    params, steps = service.params, len(arrived)
    # Values are kept for one segment at a time and computed again when the plan reaches the next: memory stays bounded.
    shape = (lock + 1, len(service.ready), len(service.grid.points))
    length = max(1, min(steps, kept_bytes // (4 * shape[0] * shape[1] * shape[2])))
    begins = range(0, steps, length)
    kept = np.empty((length, *shape), dtype=np.float32)
    values_after = {}
    values = np.zeros(shape)
    for begin in reversed(begins):
        values_after[begin] = values
        values = _backward(service, arrived, begin, min(begin + length, steps), values, kept)
    lower = float(values[lock, int(ready_at_start) - params.min_replicas, 0])
    walk = _Walk(service, ready_at_start, steps)
    for begin in begins:
        end = min(begin + length, steps)
        if begin > 0:
            _backward(service, arrived, begin, end, values_after[begin], kept)
        for t in range(begin, end):
            walk.step(t, arrived[t], kept[t - begin])
    # Thousands of roundings to the last bit may add up to more than the bound is below the optimum.
    return ReadyPlan(lower * (1.0 - 1e-11), plan_J(params, arrived, ready_at_start, walk.ready), walk.ready)


def _backward(service: Service, arrived: Array, begin: int, end: int, values: Array, kept: NDArray[np.float32]) -> Array:
    """From the values after step end − 1 to those before step `begin`, backlogs rounded down.

    Args:
        service: prices and capacities.
        arrived: (num_steps,) requests.
        begin: first step of the segment.
        end: one past its last.
        values: (lock + 1, num_choices, num_points) least cost from step `end` on, by the steps in which nothing may become
            ready yet, the ready replicas and the backlog.
        kept: (length, lock + 1, num_choices, num_points), filled: row t − begin has the values after step t, up to a constant.
    """
    p, points = service.params, service.grid.points
    ready, served = service.ready[:, None], service.served_rps[:, None]
    row = np.arange(len(ready))[:, None] * len(points)
    rising, falling = ready * service.order_price, ready * p.price_per_move
    staying = ready * service.replica_price
    for t in range(end - 1, begin - 1, -1):
        # The plan depends on differences only, and these survive float32 better without the bulk.
        np.subtract(values, values.min(), out=kept[t - begin], casting="same_kind")
        now, left = late_and_left(p, np.asarray(arrived[t]), ready, served, points)
        now *= p.price_per_late_request
        now += staying
        ahead = values.reshape(len(values), -1).take(row + service.grid.below(left), axis=1)
        ahead += now
        fallen = np.minimum.accumulate(ahead[-1] - falling, axis=0) + falling
        values = np.empty_like(ahead)
        np.minimum(ahead[:-1], fallen, out=values[1:])
        risen = ahead[0]
        if t >= p.startup_steps:
            risen = np.minimum.accumulate((risen + rising)[::-1], axis=0)[::-1] - rising
        np.minimum(risen, fallen, out=values[0])
    return values


class _Walk:
    """Follows the least cost with the exact backlog, by plans that targets can command.

    Args:
        service: prices and capacities.
        ready_at_start: replicas after the reset.
        num_steps: of the episode.

    Attributes:
        ready: (num_steps,) the plan, filled step by step.
    """

    def __init__(self, service: Service, ready_at_start: float, num_steps: int) -> None:
        self.ready = np.empty(num_steps)
        self._service = service
        self._rows = np.arange(len(service.ready))
        self._backlog = 0.0
        self._now = int(ready_at_start) - service.params.min_replicas
        self._locked = service.params.startup_steps

    def step(self, t: int, arrived: float, values_after: NDArray[np.float32]) -> None:
        """Choose the ready replicas of step t; a tie keeps what is ready.

        Args:
            t: the step.
            arrived: requests.
            values_after: (lock + 1, num_choices, num_points).
        """
        service, now = self._service, self._now
        p, points = service.params, service.grid.points
        late, left = late_and_left(p, np.asarray(arrived), service.ready, service.served_rps, np.asarray(self._backlog))
        locked = np.where(self._rows < now, p.startup_steps, max(self._locked - 1, 0))
        lock = np.minimum(locked, len(values_after) - 1)
        below = service.grid.below(left)
        above = np.minimum(below + 1, len(points) - 1)
        share = (left - points[below]) / np.maximum(points[above] - points[below], 1e-300)
        rest = values_after[lock, self._rows, below] * (1.0 - share) + values_after[lock, self._rows, above] * share
        change = service.ready - service.ready[now]
        moving = service.order_price * np.maximum(change, 0.0) + p.price_per_move * np.maximum(-change, 0.0)
        cost = moving + service.replica_price * service.ready + p.price_per_late_request * late + rest
        if self._locked:
            cost[now + 1 :] = np.inf
        best = int(np.argmin(cost))
        best = now if cost[now] <= cost[best] else best
        self._now, self._backlog, self._locked = best, float(left[best]), int(locked[best])
        self.ready[t] = service.ready[best]
