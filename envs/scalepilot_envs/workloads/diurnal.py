"""A daily sine with autocorrelated noise, scheduled bursts and flash crowds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from scalepilot_envs.checks import Between
from scalepilot_envs.workloads.checks import NotNegative, Peak, Positive, Seed, Share, check_declared, check_number, parts_of
from scalepilot_envs.workloads.series import RateSeries

_MINUTE_SECONDS, _DAY_MINUTES = 60.0, 1440
# Monday is 0; series begin at the Unix epoch.
_FIRST_WEEKDAY, _SATURDAY = 3, 5

Hour = Annotated[float, Between(0, 24)]


@dataclass(frozen=True)
class LoadEvent:
    """A stretch in which the rate is multiplied, such as a sale or an outage of callers.

    Attributes:
        start_hours: beginning, hours from that of the series.
        hours: length.
        factor: the rate is multiplied by this; where events overlap, by each of theirs.
    """

    start_hours: NotNegative = 0.0
    hours: Positive = 1.0
    factor: NotNegative = 2.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self, "")


@dataclass(frozen=True)
class DiurnalWorkload:
    """A synthetic service with days, noise, bursts and flash crowds; one value a minute, linear in between.

    Attributes:
        days: length.
        low_rps: rate at night (midnight UTC), without noise.
        high_rps: rate at noon, without noise.
        noise_sigma: standard deviation of the logarithm of the noise; its mean factor is 1.
        noise_correlation: correlation of the log-noise of neighbouring minutes (AR(1)).
        flash_crowd_factor: the rate is multiplied by this while one lasts.
        flash_crowd_minutes: how long one lasts.
        flash_crowd_every_hours: mean time between two (a Poisson process); 0 for none.
        burst_every_minutes: time between the beginnings of two scheduled bursts, counted from midnight UTC; 0 for none.
        burst_minutes: how long one lasts.
        burst_factor: the rate is multiplied by this while one lasts.
        burst_hours: (first, end) hours of the day, UTC, in which bursts begin, such as the working hours (8, 18).
        weekend_factor: the rate is multiplied by this on Saturdays and Sundays; the series begins on Thursday 1970-01-01.
        events: stretches in which the rate is multiplied.
        seed: of the noise and the crowds.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["diurnal"] = "diurnal"
    days: Annotated[float, Between(0, 3660)] = 14.0
    low_rps: NotNegative = 40.0
    high_rps: NotNegative = 400.0
    noise_sigma: NotNegative = 0.25
    noise_correlation: Share = 0.9
    flash_crowd_factor: Positive = 2.0
    flash_crowd_minutes: NotNegative = 10.0
    flash_crowd_every_hours: NotNegative = 6.0
    burst_every_minutes: Annotated[int, Between(0, _DAY_MINUTES)] = 0
    burst_minutes: Annotated[int, Between(1, _DAY_MINUTES)] = 5
    burst_factor: Positive = 2.0
    burst_hours: tuple[Hour, Hour] = (0.0, 24.0)
    weekend_factor: NotNegative = 1.0
    events: tuple[LoadEvent, ...] = ()
    seed: Seed = 0
    peak_rps: Peak | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self)
        if self.days * _DAY_MINUTES < 2:
            raise ValueError(f"workload.days: {self.days!r} is not allowed; allowed: two minutes to 3660 days")
        if self.high_rps < self.low_rps or self.high_rps == 0:
            raise ValueError(f"workload.high_rps: {self.high_rps!r} is not allowed; allowed: from low_rps, above 0")
        if self.noise_correlation == 1:
            raise ValueError(f"workload.noise_correlation: {self.noise_correlation!r} is not allowed; allowed: 0 to below 1")
        if self.burst_every_minutes:
            check_number(self, "burst_minutes", 1, self.burst_every_minutes, whole=True)
        if not 0 <= self.burst_hours[0] < self.burst_hours[1] <= 24:
            raise ValueError(f"workload.burst_hours: {self.burst_hours!r} is not allowed; allowed: 0 <= first < end <= 24")
        parts_of(self, "events", LoadEvent)

    def series(self) -> RateSeries:
        """One rate a minute."""
        minutes = int(self.days * _DAY_MINUTES)
        noise_rng, crowd_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(2))
        middle, swing = (self.high_rps + self.low_rps) / 2, (self.high_rps - self.low_rps) / 2
        rates = middle - swing * np.cos(2 * np.pi * np.arange(minutes) / _DAY_MINUTES)
        rates = rates * self._noise(minutes, noise_rng) * self._crowds(minutes, crowd_rng) * self._calendar(minutes)
        rates = rates * self._bursts(minutes)
        series = RateSeries(rates, _MINUTE_SECONDS)
        return series if self.peak_rps is None else series.scaled_to_peak(self.peak_rps)

    def _noise(self, minutes: int, rng: np.random.Generator) -> np.ndarray:
        log_noise = np.empty(minutes)
        shocks = rng.normal(0.0, self.noise_sigma, minutes)
        log_noise[0] = shocks[0]
        fresh = math.sqrt(1 - self.noise_correlation**2)
        for t in range(1, minutes):
            log_noise[t] = self.noise_correlation * log_noise[t - 1] + fresh * shocks[t]
        return np.exp(log_noise - self.noise_sigma**2 / 2)

    def _crowds(self, minutes: int, rng: np.random.Generator) -> np.ndarray:
        factor = np.ones(minutes)
        if self.flash_crowd_every_hours:
            for start in np.flatnonzero(rng.random(minutes) < 1 / (60 * self.flash_crowd_every_hours)):
                factor[start : start + round(self.flash_crowd_minutes)] = self.flash_crowd_factor
        return factor

    def _bursts(self, minutes: int) -> np.ndarray:
        if not self.burst_every_minutes:
            return np.ones(minutes)
        minute_of_day = np.arange(minutes) % _DAY_MINUTES
        since = minute_of_day % self.burst_every_minutes
        began = (minute_of_day - since) / 60
        in_hours = (began >= self.burst_hours[0]) & (began < self.burst_hours[1])
        return np.where(in_hours & (since < self.burst_minutes), self.burst_factor, 1.0)

    def _calendar(self, minutes: int) -> np.ndarray:
        weekdays = (_FIRST_WEEKDAY + np.arange(minutes) // _DAY_MINUTES) % 7
        factor = np.where(weekdays >= _SATURDAY, self.weekend_factor, 1.0)
        for event in self.events:
            factor[round(60 * event.start_hours) : round(60 * (event.start_hours + event.hours))] *= event.factor
        return factor
