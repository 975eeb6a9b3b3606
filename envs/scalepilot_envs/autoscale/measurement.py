"""What monitoring has recorded of a service: late by a scrape delay, blurred by noise, as asked for."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.params import AutoscaleParams

Array = NDArray[np.float64]
# Kinds of noise, in the order of the factors: one on the rate, one on the utilisation, one on the latency.
NOISE_KINDS = 3


class Record(NamedTuple):
    """One interval beside its rate, each (num_envs,)."""

    cpu: Array
    latency_p95_seconds: Array
    late_share: Array
    error_share: Array
    backlog: Array


class Measurements:
    """The newest rates and records of `num_envs` services, seen `metric_lag_steps` late.

    Args:
        params: history, window and lag.
        num_envs: services.
    """

    def __init__(self, params: AutoscaleParams, num_envs: int) -> None:
        self._params, self._num_envs = params, num_envs
        lag = params.metric_lag_steps
        # Ring of the newest rates, its newest row shared by all. Two columns at least: numpy sums a single column
        # pairwise and several row by row, and a batch of one must round like any other.
        self._rates = np.zeros((params.window_steps + lag, max(num_envs, 2)))
        self._newest = 0
        # Records are never written to again: they hold the arrays of their step.
        empty = Record(*(np.zeros(num_envs) for _ in Record._fields))
        self._records: deque[Record] = deque([empty] * (lag + 1), maxlen=lag + 1)

    def fill(self, mask: NDArray[np.bool_], rate_rps: Array, record: Record, noise: Array | None = None) -> None:
        """Forget what was before, where `mask` is true: everything is as at the first interval.

        Args:
            mask: (num_envs,).
            rate_rps: (num_envs,).
            record: of the first interval.
            noise: (NOISE_KINDS, num_envs) factors; None for none.
        """
        rate_rps, record = _blurred(rate_rps, record, noise)
        self._rates[:, : self._num_envs][:, mask] = rate_rps[mask]
        for i, old in enumerate(self._records):
            self._records[i] = Record(*(np.where(mask, new, kept) for new, kept in zip(record, old, strict=True)))

    def add(self, rate_rps: Array, record: Record, noise: Array | None = None) -> None:
        """Record an interval; arguments as of `fill`."""
        rate_rps, record = _blurred(rate_rps, record, noise)
        self._newest = (self._newest + 1) % len(self._rates)
        self._rates[self._newest, : self._num_envs] = rate_rps
        self._records.append(record)

    @property
    def newest_rate_rps(self) -> Array:
        """(num_envs,) measured rate of the newest interval, whether it is seen yet or not."""
        return self._rates[self._newest, : self._num_envs]

    def write(self, out: Array) -> None:
        """Write the measured fields: rates, their mean and deviation, and the record.

        Args:
            out: (history_steps + 7, num_envs), written to.
        """
        p, n = self._params, self._num_envs
        seen, rates = self._newest - p.metric_lag_steps, self._rates
        for i in range(p.history_steps):
            out[i] = rates[seen - i, :n]
        if p.metric_lag_steps:
            rates = rates[(seen - np.arange(p.window_steps)) % len(rates)]
        mean = rates.sum(axis=0) / p.window_steps
        deviation = rates - mean
        deviation *= deviation
        at = p.history_steps
        out[at] = mean[:n]
        out[at + 1] = np.sqrt(deviation.sum(axis=0) / p.window_steps)[:n]
        for row, values in enumerate(self._records[0], start=at + 2):
            out[row] = values


def _blurred(rate_rps: Array, record: Record, noise: Array | None) -> tuple[Array, Record]:
    if noise is None:
        return rate_rps, record
    return rate_rps * noise[0], record._replace(
        cpu=np.minimum(record.cpu * noise[1], 1.0), latency_p95_seconds=record.latency_p95_seconds * noise[2]
    )


def drawn_noise(num_steps: int, relative_deviation: tuple[float, float], rng: np.random.Generator) -> Array:
    """Factors for an episode: lognormal of mean 1, all of one relative standard deviation drawn uniformly.

    Args:
        num_steps: how many.
        relative_deviation: (low, high) of the range.
        rng: where they are drawn from.

    Returns:
        (num_steps, NOISE_KINDS).
    """
    log_variance = np.log1p(rng.uniform(*relative_deviation) ** 2)
    factors: Array = np.exp(np.sqrt(log_variance) * rng.standard_normal((num_steps, NOISE_KINDS)) - 0.5 * log_variance)
    return factors
