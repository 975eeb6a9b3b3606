"""Request patterns without chance, counted in whole requests an interval: steady, sine_curve, sinusoidal, spike.

With their defaults they are the patterns of QueueScaling-v0: 500 to 4,350 requests in intervals of 5 minutes.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.checks import Between
from scalepilot_envs.workloads.checks import (
    FewestRequests,
    GridSeconds,
    NumSteps,
    Peak,
    Requests,
    Share,
    check_declared,
    check_number,
    parts_of,
)
from scalepilot_envs.workloads.series import RateSeries

# Two weeks of 5 minutes.
NUM_STEPS, INTERVAL_SECONDS = 4032, 300.0
OFFSET_REQUESTS, MAX_REQUESTS = 500, 4350
# 2π / this is 0.01 to the last bit: the source's sin(0.01 step).
PERIOD_STEPS = 628.3185307179587
PeriodSteps = Annotated[float, Between(2, 1e12)]
Weight = Annotated[float, Between(0, 1e9, above=True)]
Steps = Annotated[int, Between(1, 10**9)]


class Counted(abc.ABC):
    """A pattern of whole requests an interval; its kinds are dataclasses with a grid and a peak."""

    num_steps: int
    interval_seconds: float
    peak_rps: float | None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @abc.abstractmethod
    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""

    def series(self) -> RateSeries:
        """The counts as rates in requests/s, scaled to the peak where there is one."""
        series = RateSeries(self.request_counts() / self.interval_seconds, self.interval_seconds)
        return series if self.peak_rps is None else series.scaled_to_peak(self.peak_rps)


def check_counts(owner: Any) -> None:
    """Check what is declared, and that `offset_requests` is at most `max_requests`."""
    check_declared(owner)
    check_number(owner, "offset_requests", 0, owner.max_requests, whole=True)


def sine(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """The C library's sine, which the sources used; NumPy's own may differ in the last bit and so in a whole request."""
    flat: Iterable[float] = angles.ravel().tolist()
    return np.fromiter(map(math.sin, flat), np.float64, angles.size).reshape(angles.shape)


@dataclass(frozen=True)
class SteadyWorkload(Counted):
    """The same number of requests in every interval.

    Attributes:
        max_requests: upper end of the range, requests an interval.
        offset_requests: lower end of the range, requests an interval.
        level_share: where in the range the level lies, 0 (offset) to 1 (max).
        num_steps: length in intervals.
        interval_seconds: grid.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["steady"] = "steady"
    max_requests: Requests = MAX_REQUESTS
    offset_requests: FewestRequests = OFFSET_REQUESTS
    level_share: Share = 0.5
    num_steps: NumSteps = NUM_STEPS
    interval_seconds: GridSeconds = INTERVAL_SECONDS
    peak_rps: Peak | None = None

    def __post_init__(self) -> None:
        check_counts(self)

    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""
        level = int(self.offset_requests + self.level_share * (self.max_requests - self.offset_requests))
        return np.full(self.num_steps, level, dtype=np.int64)


@dataclass(frozen=True)
class SineCurveWorkload(Counted):
    """One sine between 0 and `max_requests`, beginning in the middle: ⌈(sin(2π step / period) + 1) · max / 2⌉.

    Attributes:
        max_requests: at the crest, requests an interval.
        period_steps: intervals of one period; the default makes the angle 0.01 a step.
        num_steps: length in intervals.
        interval_seconds: grid.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["sine_curve"] = "sine_curve"
    max_requests: Requests = MAX_REQUESTS
    period_steps: PeriodSteps = PERIOD_STEPS
    num_steps: NumSteps = NUM_STEPS
    interval_seconds: GridSeconds = INTERVAL_SECONDS
    peak_rps: Peak | None = None

    def __post_init__(self) -> None:
        check_declared(self)

    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""
        wave = sine(2 * math.pi / self.period_steps * np.arange(self.num_steps))
        return np.ceil((wave + 1) * self.max_requests / 2).astype(np.int64)


@dataclass(frozen=True)
class Cycle:
    """One of the sines of a `SinusoidalWorkload`.

    Attributes:
        period_steps: intervals of one period.
        share: its weight among the cycles, which are scaled to sum to 1.
        phase_share: how far into its period it begins, 0 to 1.
    """

    period_steps: PeriodSteps = PERIOD_STEPS
    share: Weight = 1.0
    phase_share: Share = 0.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self, "")


@dataclass(frozen=True)
class SinusoidalWorkload(Counted):
    """Overlapping sines between `offset_requests` and `max_requests`: ⌈(wave + 1) · (max − offset) / 2⌉ + offset.

    Attributes:
        max_requests: where all crests meet, requests an interval.
        offset_requests: where all troughs meet, requests an interval.
        cycles: the sines, such as a day and a week; the wave is their weighted mean.
        num_steps: length in intervals.
        interval_seconds: grid.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["sinusoidal"] = "sinusoidal"
    max_requests: Requests = MAX_REQUESTS
    offset_requests: FewestRequests = OFFSET_REQUESTS
    cycles: tuple[Cycle, ...] = (Cycle(),)
    num_steps: NumSteps = NUM_STEPS
    interval_seconds: GridSeconds = INTERVAL_SECONDS
    peak_rps: Peak | None = None

    def __post_init__(self) -> None:
        check_counts(self)
        parts_of(self, "cycles", Cycle)
        if not 1 <= len(self.cycles) <= 100:
            raise ValueError(f"workload.cycles: {len(self.cycles)} cycles are not allowed; allowed: 1 to 100")

    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""
        steps, total = np.arange(self.num_steps), sum(cycle.share for cycle in self.cycles)
        wave = np.zeros(self.num_steps)
        for cycle in self.cycles:
            angles = 2 * math.pi / cycle.period_steps * steps + 2 * math.pi * cycle.phase_share
            wave += cycle.share / total * sine(angles)
        span = self.max_requests - self.offset_requests
        return np.ceil((wave + 1) * span / 2).astype(np.int64) + self.offset_requests


@dataclass(frozen=True)
class SpikeWorkload(Counted):
    """A level with regular spikes, each rising and falling in straight lines.

    Attributes:
        max_requests: upper end of the range, requests an interval.
        offset_requests: lower end of the range, requests an interval.
        base_share: where in the range the level lies, 0 to 1.
        peak_share: where in the range the spikes end, 0 to 1.
        spike_every_steps: intervals from the beginning of one spike to that of the next; the first begins at once.
        rise_steps: intervals a spike rises.
        fall_steps: intervals it falls.
        num_steps: length in intervals.
        interval_seconds: grid.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["spike"] = "spike"
    max_requests: Requests = MAX_REQUESTS
    offset_requests: FewestRequests = OFFSET_REQUESTS
    base_share: Share = 0.3
    peak_share: Share = 0.8
    spike_every_steps: Steps = 500
    rise_steps: Steps = 10
    fall_steps: Steps = 10
    num_steps: NumSteps = NUM_STEPS
    interval_seconds: GridSeconds = INTERVAL_SECONDS
    peak_rps: Peak | None = None

    def __post_init__(self) -> None:
        check_counts(self)
        check_number(self, "peak_share", self.base_share, 1)
        check_number(self, "spike_every_steps", self.rise_steps + self.fall_steps, 10**9, whole=True)

    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""
        span = self.max_requests - self.offset_requests
        base, peak = self.offset_requests + self.base_share * span, self.offset_requests + self.peak_share * span
        phase = np.arange(self.num_steps) % self.spike_every_steps
        rising = base + (peak - base) * phase / self.rise_steps
        falling = peak - (peak - base) * (phase - self.rise_steps) / self.fall_steps
        spiking = np.where(phase < self.rise_steps, rising, falling)
        return np.trunc(np.where(phase < self.rise_steps + self.fall_steps, spiking, base)).astype(np.int64)
