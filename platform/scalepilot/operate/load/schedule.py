"""When each request of a workload is to be sent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads import RateSeries

Arrivals = Literal["recorded", "poisson"]
ARRIVALS: tuple[Arrivals, ...] = ("recorded", "poisson")
# Drawn at once, whatever grid the workload has.
_BLOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Schedule:
    """Rates in the time of the wall.

    Attributes:
        rates_rps: (num_intervals,) requests/s.
        interval_seconds: of the wall, each.
        seconds: how long it lasts; the last interval may be cut.
    """

    rates_rps: NDArray[np.float64]
    interval_seconds: float
    seconds: float

    @property
    def expected(self) -> float:
        """Requests that the workload asks for."""
        return float(self.cumulated(np.array([self.seconds]))[0])

    def cumulated(self, moments: NDArray[np.float64]) -> NDArray[np.float64]:
        """Requests the workload has asked for up to each moment, in seconds since the beginning."""
        edges, counts = self._edges()
        return np.interp(moments, edges, counts)

    def blocks(self, arrivals: Arrivals, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Moments to send at, in seconds since the beginning, a second's at a time and in order.

        Args:
            arrivals: "recorded" sends in every second as many as the workload says, at random moments within it; "poisson"
                draws their number, too, as independent users make it.
            rng: draws.
        """
        edges, counts = self._edges()
        ends = np.append(np.arange(_BLOCK_SECONDS, self.seconds, _BLOCK_SECONDS), self.seconds)
        asked = 0.0
        for upto in np.interp(ends, edges, counts).tolist():
            # Halves are carried on: no request is lost to rounding.
            many = int(rng.poisson(upto - asked)) if arrivals == "poisson" else math.floor(upto + 0.5) - math.floor(asked + 0.5)
            # Evenly drawn over requests, not over time: within a second the rate may change.
            yield np.interp(np.sort(rng.uniform(asked, upto, many)), counts, edges)
            asked = upto

    def _edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        edges = np.minimum(np.arange(len(self.rates_rps) + 1) * self.interval_seconds, self.seconds)
        return edges, np.concatenate([[0.0], np.cumsum(self.rates_rps * np.diff(edges))])


def schedule_of(series: RateSeries, pace: float, start_seconds: float, seconds: float) -> Schedule:
    """A stretch of a workload in the time of the wall; its rates stay as they are, they only change sooner.

    Args:
        series: the workload.
        pace: its seconds in a second of the wall.
        start_seconds: of the workload, that are left out.
        seconds: of the wall, at most.

    Raises:
        ValueError: nothing is left.
    """
    first = start_seconds / series.interval_seconds
    left = (len(series) - first) * series.interval_seconds / pace
    if left <= 0:
        hours = len(series) * series.interval_seconds / 3600
        raise ValueError(
            f"--start-hours: {start_seconds / 3600:g} is not allowed; allowed: below {hours:g}, where the workload ends"
        )
    seconds, step = min(seconds, left), series.interval_seconds / pace
    begun = math.floor(first)
    rates = series.rates_rps[begun : begun + math.ceil(first - begun + seconds / step)]
    if first > begun:
        # From within an interval: on a grid that begins there, an interval is the mean of its two parts.
        share = first - begun
        rates = (1 - share) * rates + share * np.append(rates[1:], rates[-1])
    return Schedule(rates, step, seconds)
