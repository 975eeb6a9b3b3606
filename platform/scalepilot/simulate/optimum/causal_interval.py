"""What one interval of a Markov-modulated service is expected to bring: late requests, and the backlog that it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot.simulate.optimum.ready_replicas import BacklogGrid, late_and_left
from scalepilot_envs.autoscale import AutoscaleParams

Array = NDArray[np.float64]
# Counts farther from the mean than so many standard deviations are left out; all of them together have less than 1e-14.
_DEVIATIONS, _FEWEST_COUNTS = 8.0, 40


@dataclass(frozen=True)
class IntervalModel:
    """Expectations over the arrivals of an interval.

    Attributes:
        late: (num_phases, num_serving, num_points) late requests.
        left: (num_phases, num_serving, num_points, num_points) share of each backlog afterwards, one between two points counted
            as both, each by its share.
        left_rounded_down: the same, one between two points counted as the lower one, which makes what follows cheaper.
    """

    late: Array
    left: Array
    left_rounded_down: Array


def poisson(mean: float) -> tuple[Array, Array]:
    """The counts that matter, and their probabilities, which sum to 1.

    Args:
        mean: requests, from 0.
    """
    if mean <= 0:
        return np.zeros(1), np.ones(1)
    reach = _DEVIATIONS * math.sqrt(mean) + _FEWEST_COUNTS
    counts = np.arange(max(0, math.floor(mean - reach)), math.ceil(mean + reach) + 1)
    logs = counts * math.log(mean) - mean - np.array([math.lgamma(k + 1.0) for k in counts.tolist()])
    shares = np.exp(logs)
    return counts.astype(np.float64), shares / shares.sum()


def interval_model(
    params: AutoscaleParams, mean_requests: Array, serving: Array, grid: BacklogGrid, *, exact: bool
) -> IntervalModel:
    """Expected late requests and the law of the backlog, by phase, serving replicas and the backlog before.

    Args:
        params: the service.
        mean_requests: (num_phases,) of an interval.
        serving: (num_serving,) replicas.
        grid: of the backlog.
        exact: the mean arrives, and nothing else; otherwise Poisson counts, every one that matters.
    """
    points = grid.points
    size = len(points)
    late = np.empty((len(mean_requests), len(serving), size))
    left, rounded = (np.empty((*late.shape, size)) for _ in range(2))
    rows = np.arange(size)[:, None] * size

    def law(place: NDArray[np.intp], weight: Array) -> Array:
        found = np.bincount((rows + place).ravel(), weight.ravel(), size * size)
        return np.asarray(found.reshape(size, size), dtype=np.float64)

    for phase, mean in enumerate(mean_requests):
        counts, shares = (np.array([mean]), np.ones(1)) if exact else poisson(float(mean))
        for k, replicas in enumerate(serving):
            served_rps = np.array(replicas * params.replica_capacity_rps)
            late_then, after = late_and_left(params, counts[None], np.array(replicas), served_rps, points[:, None])
            late[phase, k] = late_then @ shares
            below = grid.below(after)
            above = np.minimum(below + 1, size - 1)
            part = (after - points[below]) / np.maximum(points[above] - points[below], 1e-300)
            moved = law(above, part * shares) - law(below, part * shares)
            rounded[phase, k] = law(below, np.broadcast_to(shares, after.shape))
            left[phase, k] = rounded[phase, k] + moved
    return IntervalModel(late, left, rounded)
