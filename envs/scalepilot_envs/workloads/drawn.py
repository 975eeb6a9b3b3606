"""A service nobody has recorded: traffic of a kind that real services show, with everything about it drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.checks import Between
from scalepilot_envs.workloads.checks import Peak, Seed, check_choice, check_declared
from scalepilot_envs.workloads.series import RateSeries

Array = NDArray[np.float64]
Family = Literal["any", "calm", "diurnal", "bursty", "scheduled", "steps", "clients", "few"]
_DAY_SECONDS, _HOUR_SECONDS, _MINUTE_SECONDS = 86_400.0, 3600.0, 60.0
# Recordings come on grids like these, and are interpolated onto the decision interval.
_GRIDS_SECONDS, _GRID_SHARES = (15.0, 60.0, 300.0, 600.0), (0.3, 0.4, 0.25, 0.05)
_PERIODS_MINUTES = (5, 10, 15, 20, 30, 60, 120, 240, 360)
_LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class DrawnWorkload:
    """Traffic of a family; its daily course, noise, bursts, levels and grid are drawn.

    Attributes:
        family: calm (a day with little noise), diurnal (a day with noise on several scales), bursty (random crowds), scheduled
            (bursts by the clock), steps (levels that hold for a while), clients (a sum of on-off clients with long tails, as in
            front of language models), few (so few users that chance rules from one value to the next), or any of them.
        days: length.
        seed: of everything that is drawn.
        peak_rps: scale so that the 99.5 % quantile is this; None draws it, from 50 to 1,000.
    """

    kind: Literal["drawn"] = "drawn"
    family: Family = "any"
    days: Annotated[float, Between(0.01, 3660)] = 4.0
    seed: Seed = 0
    peak_rps: Peak | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self)
        check_choice(self, "family", get_args(Family))

    def series(self) -> RateSeries:
        """The rates on a grid of 15 seconds to 10 minutes."""
        rng = np.random.default_rng(self.seed)
        grid = float(rng.choice(_GRIDS_SECONDS, p=_GRID_SHARES))
        seconds = grid * np.arange(max(2, round(self.days * _DAY_SECONDS / grid)), dtype=np.float64)
        family = str(rng.choice(list(_FAMILIES))) if self.family == "any" else self.family
        peak = _log_uniform(rng, 50.0, 1000.0) if self.peak_rps is None else self.peak_rps
        rates = _FAMILIES[family](seconds, grid, rng)
        rates[:] = np.maximum(rates, _LEAST_SHARE * rates.mean())
        return RateSeries(rates.astype(np.float64), grid).scaled_to_peak(peak)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _day(seconds: Array, rng: np.random.Generator, most: float = 1.4) -> Array:
    """A daily course with two harmonics, on a logarithmic scale up to e^(2 × most) between night and noon, and a weekend."""
    turn = 2 * np.pi * (seconds / _DAY_SECONDS + rng.random())
    second, amplitude = rng.uniform(0.0, 0.5), rng.uniform(0.0, most)
    course = np.cos(turn) + second * np.cos(2 * turn + rng.uniform(0, 2 * np.pi))
    weekend = rng.uniform(0.4, 1.1) if rng.random() < 0.5 else 1.0
    day = np.floor(seconds / _DAY_SECONDS + rng.integers(7)) % 7
    return np.asarray(np.exp(amplitude * course) * np.where(day >= 5, weekend, 1.0))


def _noise(seconds: Array, grid: float, rng: np.random.Generator, sigma: float, memory_seconds: float) -> Array:
    """Lognormal factors of mean 1 whose logarithm forgets exponentially (an Ornstein-Uhlenbeck process)."""
    keep = float(np.exp(-grid / memory_seconds))
    shocks = rng.normal(0.0, sigma, len(seconds))
    shocks[1:] *= np.sqrt(1.0 - keep * keep)
    log_noise = np.fromiter(accumulate(shocks.tolist(), lambda x, s: keep * x + s), np.float64, len(seconds))
    return np.asarray(np.exp(log_noise - sigma * sigma / 2))


def _restless(seconds: Array, grid: float, rng: np.random.Generator, quiet: float = 0.01, loud: float = 0.45) -> Array:
    """Noise on three scales: from value to value, over minutes and over hours."""
    made = np.exp(rng.normal(0.0, _log_uniform(rng, quiet / 2, loud / 2), len(seconds)))
    made = made * _noise(seconds, grid, rng, _log_uniform(rng, quiet, loud), _log_uniform(rng, 60.0, 1200.0))
    return np.asarray(made * _noise(seconds, grid, rng, _log_uniform(rng, quiet, loud), _log_uniform(rng, 1800.0, 20_000.0)))


def _crowds(seconds: Array, grid: float, rng: np.random.Generator, least_an_hour: float, most_an_hour: float) -> Array:
    """Crowds that come at random, rise within minutes and fade; factors add up."""
    hours = (seconds[-1] + grid) / _HOUR_SECONDS
    count = int(rng.poisson(_log_uniform(rng, least_an_hour, most_an_hour) * hours))
    highest, slowest, longest = _log_uniform(rng, 0.3, 6.0), _log_uniform(rng, 15.0, 600.0), _log_uniform(rng, 120.0, 5400.0)
    added = np.zeros(len(seconds))
    for begin in rng.uniform(0.0, hours * _HOUR_SECONDS, min(count, 2000)):
        since = seconds - begin
        height, rise, fade = highest * rng.exponential(0.6), slowest * rng.uniform(0.1, 1.0), longest * rng.uniform(0.3, 1.5)
        shape = np.clip(since / rise, 0.0, 1.0) * np.exp(-np.maximum(since - rise, 0.0) / fade)
        added += height * shape
    return 1.0 + added


def _schedule(seconds: Array, rng: np.random.Generator) -> Array:
    """Bursts by the clock, in some hours of the day or always: a plateau, or a jump that fades."""
    period = _MINUTE_SECONDS * float(rng.choice(_PERIODS_MINUTES))
    length = min(_log_uniform(rng, 45.0, 1200.0), 0.6 * period)
    since = (seconds - period * rng.random() * (rng.random() < 0.5)) % period
    shape = (since < length).astype(np.float64) if rng.random() < 0.6 else np.exp(-since / (0.5 * length))
    first, hours = rng.uniform(0, 24), rng.choice([8.0, 12.0, 24.0])
    awake = (seconds / _HOUR_SECONDS - first) % 24 < hours
    # No two bursts are equally high.
    burst = (seconds // period).astype(np.int64)
    height = rng.uniform(0.2, 2.5) * np.exp(rng.normal(0.0, rng.uniform(0.0, 0.3), int(burst[-1]) + 1))[burst]
    return np.asarray(1.0 + height * shape * awake)


def _levels(seconds: Array, rng: np.random.Generator) -> Array:
    """Levels that hold for a drawn time and then change at once."""
    mean_seconds, sigma = _log_uniform(rng, 600.0, 30_000.0), rng.uniform(0.15, 0.8)
    count = int(seconds[-1] / mean_seconds * 2) + 10
    ends = np.cumsum(rng.exponential(mean_seconds, count))
    levels = np.exp(rng.normal(0.0, sigma, count + 1))
    return np.asarray(levels[np.minimum(np.searchsorted(ends, seconds, side="right"), count)])


def _clients(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    """Clients of very different size that are busy and idle for Pareto times: bursts on all scales."""
    total = np.zeros(len(seconds))
    tail, busy = rng.uniform(1.2, 2.0), _log_uniform(rng, 30.0, 1800.0)
    idle = busy * _log_uniform(rng, 0.3, 5.0)
    for size in np.exp(rng.normal(0.0, 1.0, int(_log_uniform(rng, 4, 60)))):
        count = min(4000, int(2 * seconds[-1] / (busy + idle)) + 10)
        spans = (rng.pareto(tail, (count, 2)) + 1.0) * (tail - 1.0) / tail * (busy, idle)
        changes = np.cumsum(spans.ravel()) - rng.random() * (busy + idle)
        total += size * (np.searchsorted(changes, seconds, side="right") % 2 == 0)
    steady = rng.uniform(0.05, 0.6) * max(total.mean(), 1e-9)
    # Within an interval the requests of a client are burstier than Poisson's.
    gamma = _log_uniform(rng, 5.0, 500.0)
    return np.asarray((total + steady) * rng.gamma(gamma, 1.0 / gamma, len(seconds)))


def _calm(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    return _day(seconds, rng, 0.6) * _restless(seconds, grid, rng, 0.003, 0.08)


def _diurnal(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    rates = _day(seconds, rng) * _restless(seconds, grid, rng)
    return rates * _crowds(seconds, grid, rng, 0.01, 0.2) if rng.random() < 0.5 else rates


def _bursty(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    return _day(seconds, rng, 1.0) * _restless(seconds, grid, rng, 0.01, 0.3) * _crowds(seconds, grid, rng, 0.1, 4.0)


def _scheduled(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    rates = _day(seconds, rng, 1.0) * _restless(seconds, grid, rng, 0.01, 0.2) * _schedule(seconds, rng)
    return rates * _crowds(seconds, grid, rng, 0.01, 0.1) if rng.random() < 0.3 else rates


def _steps(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    return _day(seconds, rng, 0.5) * _restless(seconds, grid, rng, 0.005, 0.15) * _levels(seconds, rng)


def _of_clients(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    return _day(seconds, rng, 0.8) * _clients(seconds, grid, rng)


def _of_few(seconds: Array, grid: float, rng: np.random.Generator) -> Array:
    rates = _day(seconds, rng) * _restless(seconds, grid, rng, 0.02, 0.5)
    # Visits of many requests each, by a number of visitors that is small and itself uncertain.
    mean, shape = _log_uniform(rng, 3.0, 300.0), _log_uniform(rng, 0.8, 60.0)
    visitors = rng.poisson(mean * rates / rates.mean() * rng.gamma(shape, 1.0 / shape, len(seconds)))
    return np.asarray(visitors + rng.uniform(0.0, 0.2) * mean)


_FAMILIES: dict[str, Callable[[Array, float, np.random.Generator], Array]] = {
    "calm": _calm,
    "diurnal": _diurnal,
    "bursty": _bursty,
    "scheduled": _scheduled,
    "steps": _steps,
    "clients": _of_clients,
    "few": _of_few,
}
