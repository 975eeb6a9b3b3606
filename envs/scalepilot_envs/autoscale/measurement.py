"""What monitoring has recorded of a service: late, out of phase, blurred or with gaps, as asked for."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.long_windows import LongWindows
from scalepilot_envs.autoscale.params import AutoscaleParams

Array = NDArray[np.float64]
# Kinds of noise, in the order of the factors: one on the rate, one on the utilisation, one on the latency.
NOISE_KINDS = 3
# Fields that not every service can show, in the order of a record behind its utilisation.
_OPTIONAL = ("latency_p95_seconds", "late_share", "error_share", "backlog_requests")
OPTIONAL_FIELDS = len(_OPTIONAL)


class Record(NamedTuple):
    """One interval beside its rate, each (num_envs,)."""

    cpu: Array
    latency_p95_seconds: Array
    late_share: Array
    error_share: Array
    backlog: Array


class Blur(NamedTuple):
    """What keeps one interval from being shown as it is; None where nothing does.

    Attributes:
        noise: (NOISE_KINDS, num_envs) factors.
        missing: (OPTIONAL_FIELDS, num_envs) whether a field is shown as of a service at rest.
        repeated: (num_envs,) whether the rate before is shown again.
    """

    noise: Array | None = None
    missing: NDArray[np.bool_] | None = None
    repeated: NDArray[np.bool_] | None = None


def values_at_rest(params: AutoscaleParams) -> dict[str, float]:
    """Field → what a service without waiting or errors shows; of the fields that not every service can show."""
    return dict(zip(_OPTIONAL, (params.service_time_seconds, 0.0, 0.0, 0.0), strict=True))


class Measurements:
    """The newest rates and records of `num_envs` services, seen `metric_lag_steps` late.

    Args:
        params: history, window and lag.
        num_envs: services.
        phase: (num_envs,) share of an interval by which the measured window is behind, read again in each step; None for none.
    """

    def __init__(self, params: AutoscaleParams, num_envs: int, phase: Array | None = None) -> None:
        self._params, self._num_envs, self._phase = params, num_envs, phase
        lag = params.metric_lag_steps
        # Ring of the newest rates, its newest row shared by all. Two columns at least: numpy sums a single column
        # pairwise and several row by row, and a batch of one must round like any other.
        self._rates = np.zeros((params.window_steps + lag, max(num_envs, 2)))
        self._newest = 0
        self._long = LongWindows(params.long_window_steps, num_envs) if params.long_window_steps else None
        # Records are never written to again: they hold the arrays of their step.
        empty = Record(*(np.zeros(num_envs) for _ in Record._fields))
        self._records: deque[Record] = deque([empty] * (lag + 1), maxlen=lag + 1)
        # The newest interval as it was, of which the next window may show a part.
        self._before = np.zeros(num_envs), empty

    def of(self, columns: NDArray[np.intp], phase: Array | None) -> Measurements:
        """Copies of those of services `columns` (n,), with their phases (n,)."""
        copies = Measurements(self._params, len(columns), phase)
        copies._rates[:, : len(columns)], copies._newest = self._rates[:, columns], self._newest
        copies._records.extend(_of(record, columns) for record in self._records)
        copies._long = None if self._long is None else self._long.of(columns)
        rate, record = self._before
        copies._before = rate[columns], _of(record, columns)
        return copies

    def fill(
        self, mask: NDArray[np.bool_], rate_rps: Array, record: Record, blur: Blur | None = None, past_rps: Array | None = None
    ) -> None:
        """Forget what was before, where `mask` is true: everything is as at the first interval, but for rates that are known.

        Args:
            mask: (num_envs,).
            rate_rps: (num_envs,).
            record: of the first interval.
            blur: of the same.
            past_rps: (num_past, num_envs) rates before it, the newest last.
        """
        if self._phase is not None:
            rate_before, record_before = self._before
            self._before = np.where(mask, rate_rps, rate_before), _where(mask, record, record_before)
        rate_rps, record = self._blurred(rate_rps, record, blur)
        self._rates[:, : self._num_envs][:, mask] = rate_rps[mask]
        if past_rps is not None:
            for back, rates in enumerate(past_rps[: -len(self._rates) : -1], start=1):
                self._rates[self._newest - back, : self._num_envs][mask] = rates[mask]
        if self._long is not None:
            known = rate_rps[None] if past_rps is None else np.concatenate([past_rps, rate_rps[None]])
            self._long.fill(mask, known[: len(known) - min(self._params.metric_lag_steps, len(known) - 1), mask])
        for i, old in enumerate(self._records):
            self._records[i] = _where(mask, record, old)

    def add(self, rate_rps: Array, record: Record, blur: Blur | None = None) -> None:
        """Record an interval; arguments as of `fill`."""
        if self._phase is not None:
            before, self._before = self._before, (rate_rps, record)
            rate_rps, record = _straddling(self._phase, before, self._before)
        rate_rps, record = self._blurred(rate_rps, record, blur)
        self._newest = (self._newest + 1) % len(self._rates)
        self._rates[self._newest, : self._num_envs] = rate_rps
        self._records.append(record)
        if self._long is not None:
            self._long.add(self._rates[self._newest - self._params.metric_lag_steps, : self._num_envs])

    def _blurred(self, rate_rps: Array, record: Record, blur: Blur | None) -> tuple[Array, Record]:
        if blur is None:
            return rate_rps, record
        if blur.noise is not None:
            rate_rps = rate_rps * blur.noise[0]
            record = record._replace(
                cpu=np.minimum(record.cpu * blur.noise[1], 1.0), latency_p95_seconds=record.latency_p95_seconds * blur.noise[2]
            )
        if blur.repeated is not None:
            rate_rps = np.where(blur.repeated, self.newest_rate_rps, rate_rps)
        if blur.missing is not None:
            at_rest = values_at_rest(self._params).values()
            shown = (np.where(no, rest, value) for no, rest, value in zip(blur.missing, at_rest, record[1:], strict=True))
            record = Record(record.cpu, *shown)
        return rate_rps, record

    @property
    def newest_rate_rps(self) -> Array:
        """(num_envs,) measured rate of the newest interval, whether it is seen yet or not."""
        return self._rates[self._newest, : self._num_envs]

    @property
    def long_windows(self) -> Array:
        """(fields, num_envs) of the long windows; none without."""
        return np.empty((0, self._num_envs)) if self._long is None else self._long.values

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


def _where(mask: NDArray[np.bool_], record: Record, other: Record) -> Record:
    return Record(*(np.where(mask, new, kept) for new, kept in zip(record, other, strict=True)))


def _of(record: Record, columns: NDArray[np.intp]) -> Record:
    return Record(*(values[columns] for values in record))


def _straddling(phase: Array, before: tuple[Array, Record], newest: tuple[Array, Record]) -> tuple[Array, Record]:
    """What a window shows that began `phase` of an interval before the newest one.

    Utilisation and backlog by time; latency and shares by requests. A quantile of two intervals is not the mean of theirs: this
    is near it.
    """
    (old_rate, old), (new_rate, new) = before, newest
    old_requests = phase * old_rate
    rate_rps = (1.0 - phase) * new_rate + old_requests
    by_requests = np.where(rate_rps > 0, old_requests / np.where(rate_rps > 0, rate_rps, 1.0), phase)
    shares = Record(phase, by_requests, by_requests, by_requests, phase)
    return rate_rps, Record(*((1.0 - share) * a + share * b for share, a, b in zip(shares, new, old, strict=True)))


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
