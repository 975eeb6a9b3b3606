"""Constants of a service that training may draw for each episode: how its arrivals are spread, and its readiness probes."""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.params import AutoscaleParams, Randomisation
from scalepilot_envs.streams import Streams

Array = NDArray[np.float64]
# Each is a step of the simulator.
_MOST_PROBES = 1000
DRAWN = ("arrival_dispersion", "readiness_timeout_seconds", "readiness_period_seconds")


class OwnOrDrawn:
    """Those of the running episodes of `num_envs` services.

    Args:
        params: the service's own.
        randomisation: ranges that replace them.
        num_envs: services.

    Attributes:
        arrival_dispersion: (num_envs,).
        readiness_timeout_seconds: (num_envs,); inf where no probe is sent.
        readiness_period_seconds: (num_envs,).

    Raises:
        ValueError: a period is drawn for probes that are never sent, or too short for the interval.
    """

    def __init__(self, params: AutoscaleParams, randomisation: Randomisation, num_envs: int) -> None:
        self.ranges = tuple(getattr(randomisation, name) for name in DRAWN)
        timeout = params.readiness_timeout_seconds
        if timeout is None and self.ranges[1] is None and self.ranges[2] is not None:
            raise ValueError("readiness_period_seconds: is drawn, but nothing is probed; allowed: with readiness_timeout_seconds")
        least = params.readiness_period_seconds if self.ranges[2] is None else self.ranges[2][0]
        probed = timeout is not None or self.ranges[1] is not None
        if probed and params.interval_seconds > _MOST_PROBES * least:
            raise ValueError(
                f"readiness_period_seconds: {least:g} is not allowed; allowed: from {params.interval_seconds / _MOST_PROBES:g},"
                f" {_MOST_PROBES:,} probes an interval"
            )
        self._own = (params.arrival_dispersion, math.inf if timeout is None else timeout, params.readiness_period_seconds)
        self.arrival_dispersion, self.readiness_timeout_seconds, self.readiness_period_seconds = (
            np.full(num_envs, float(value)) for value in self._own
        )
        self._values: tuple[Array, ...] = (self.arrival_dispersion, self.readiness_timeout_seconds, self.readiness_period_seconds)

    @property
    def is_drawn(self) -> bool:
        """Whether any of them is."""
        return any(bounds is not None for bounds in self.ranges)

    @property
    def probes(self) -> bool:
        """Whether any replica may be probed."""
        return self.ranges[1] is not None or math.isfinite(self._own[1])

    def of(self, columns: NDArray[np.intp]) -> OwnOrDrawn:
        """Those of copies of services `columns`, (n,)."""
        copies = copy.copy(self)
        copies._values = tuple(values[columns] for values in self._values)
        copies.arrival_dispersion, copies.readiness_timeout_seconds, copies.readiness_period_seconds = copies._values
        return copies

    def draw(self, index: int, streams: Streams) -> None:
        """Draw those of a new episode of one service."""
        for name, values, bounds in zip(DRAWN, self._values, self.ranges, strict=True):
            if bounds is not None:
                values[index] = streams.of(name, index).uniform(*bounds)

    def clear(self, mask: NDArray[np.bool_]) -> None:
        """The service's own where `mask` is true."""
        for values, own in zip(self._values, self._own, strict=True):
            values[mask] = own
