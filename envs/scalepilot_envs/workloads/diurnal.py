"""A daily sine with autocorrelated noise and flash crowds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from scalepilot_envs.workloads.series import RateSeries

_MINUTE_SECONDS, _DAY_MINUTES = 60.0, 1440


@dataclass(frozen=True)
class DiurnalWorkload:
    """A synthetic service with days, noise and flash crowds; one value a minute, linear in between.

    Attributes:
        days: length.
        low_rps: rate at night (midnight UTC), without noise.
        high_rps: rate at noon, without noise.
        noise_sigma: standard deviation of the logarithm of the noise; its mean factor is 1.
        noise_correlation: correlation of the log-noise of neighbouring minutes (AR(1)).
        flash_crowd_factor: the rate is multiplied by this while one lasts.
        flash_crowd_minutes: how long one lasts.
        flash_crowd_every_hours: mean time between two (a Poisson process); 0 for none.
        seed: of the noise and the crowds.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["diurnal"] = "diurnal"
    days: float = 14.0
    low_rps: float = 40.0
    high_rps: float = 400.0
    noise_sigma: float = 0.25
    noise_correlation: float = 0.9
    flash_crowd_factor: float = 2.0
    flash_crowd_minutes: float = 10.0
    flash_crowd_every_hours: float = 6.0
    seed: int = 0
    peak_rps: float | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("days", "low_rps", "high_rps", "noise_sigma", "flash_crowd_minutes", "flash_crowd_every_hours"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"workload.{name}: {value!r} is not allowed; allowed: finite numbers from 0")
        if self.days * _DAY_MINUTES < 2 or self.days > 3660:
            raise ValueError(f"workload.days: {self.days!r} is not allowed; allowed: two minutes to 3660 days")
        if self.high_rps < self.low_rps or self.high_rps == 0:
            raise ValueError(f"workload.high_rps: {self.high_rps!r} is not allowed; allowed: from low_rps, above 0")
        if not 0 <= self.noise_correlation < 1:
            raise ValueError(f"workload.noise_correlation: {self.noise_correlation!r} is not allowed; allowed: 0 to below 1")
        if not (math.isfinite(self.flash_crowd_factor) and self.flash_crowd_factor > 0):
            raise ValueError(f"workload.flash_crowd_factor: {self.flash_crowd_factor!r} is not allowed; allowed: above 0")
        if self.seed < 0:
            raise ValueError(f"workload.seed: {self.seed!r} is not allowed; allowed: integers from 0")
        if self.peak_rps is not None and not (math.isfinite(self.peak_rps) and self.peak_rps > 0):
            raise ValueError(f"workload.peak_rps: {self.peak_rps!r} is not allowed; allowed: above 0, or null")

    def series(self) -> RateSeries:
        """One rate a minute."""
        minutes = int(self.days * _DAY_MINUTES)
        noise_rng, crowd_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(2))
        middle, swing = (self.high_rps + self.low_rps) / 2, (self.high_rps - self.low_rps) / 2
        rates = middle - swing * np.cos(2 * np.pi * np.arange(minutes) / _DAY_MINUTES)
        rates = rates * self._noise(minutes, noise_rng) * self._crowds(minutes, crowd_rng)
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
