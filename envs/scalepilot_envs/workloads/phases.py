"""A programme of phases: steady ones and oscillations, as FunctionWorkflow-v0 plays them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.checks import Between
from scalepilot_envs.workloads.checks import (
    MAX_STEPS,
    GridSeconds,
    Peak,
    Seed,
    check_choice,
    check_declared,
    check_number,
    parts_of,
)
from scalepilot_envs.workloads.patterns import sine
from scalepilot_envs.workloads.series import RateSeries

Multiple = Annotated[float, Between(0, 1e9)]


@dataclass(frozen=True)
class Phase:
    """A stretch of the programme; `low` and `high` are multiples of the base rate.

    Attributes:
        kind: "steady", or "oscillation": a sine between low and high that begins in the middle.
        low: factor at the trough.
        high: factor at the crest; equal to `low` where steady.
        cycles: periods of the oscillation within the phase; 0 where steady.
        seconds: length.
    """

    kind: Literal["steady", "oscillation"] = "steady"
    low: Multiple = 1.0
    high: Multiple = 1.0
    cycles: Annotated[float, Between(0, 1e6)] = 0.0
    seconds: GridSeconds = 60.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_choice(self, "kind", ("steady", "oscillation"), prefix="")
        check_declared(self, "")
        check_number(self, "high", self.low, self.low if self.kind == "steady" else 1e9, prefix="")
        steady = self.kind == "steady"
        check_number(self, "cycles", 0, 0 if steady else 1e6, above=not steady, prefix="")


DEFAULT_PHASES = (
    Phase("steady", 0.3, 0.3),
    Phase("steady", 1.5, 1.5),
    Phase("oscillation", 0.5, 1.5, 1),
    Phase("oscillation", 0.3, 1.7, 4),
)


@dataclass(frozen=True)
class PhasesWorkload:
    """Phases one after the other, `rounds` times, in the given or in a drawn order.

    Attributes:
        base_requests_per_minute: what the factors of the phases multiply.
        phases: the programme of one round; the default is FunctionWorkflow-v0's.
        rounds: how often it is played.
        oscillation: false makes oscillations flat at their middle, as the source did by mistake.
        shuffle_seed: of the order of the phases, drawn again for each round; None keeps them as given.
        interval_seconds: grid of `series`, which takes the rate at the beginning of each interval.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["phases"] = "phases"
    base_requests_per_minute: Annotated[float, Between(0, 1e12, above=True)] = 300.0
    phases: tuple[Phase, ...] = DEFAULT_PHASES
    rounds: Annotated[int, Between(1, 1_000_000)] = 1
    oscillation: bool = True
    shuffle_seed: Seed | None = None
    interval_seconds: GridSeconds = 1.0
    peak_rps: Peak | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self)
        parts_of(self, "phases", Phase)
        if not 1 <= len(self.phases) <= 10_000:
            raise ValueError(f"workload.phases: {len(self.phases)} phases are not allowed; allowed: 1 to 10000")
        if not isinstance(self.oscillation, bool):
            raise ValueError(f"workload.oscillation: {self.oscillation!r} is not allowed; allowed: true, false")
        if not 2 <= self.num_steps <= MAX_STEPS:
            raise ValueError(
                f"workload.interval_seconds: {self.interval_seconds!r} makes {self.num_steps} steps of"
                f" {self.duration_seconds:g} s; allowed: 2 to {MAX_STEPS} steps"
            )

    @property
    def duration_seconds(self) -> float:
        """Length of all rounds."""
        return self.rounds * sum(phase.seconds for phase in self.phases)

    @property
    def num_steps(self) -> int:
        """Intervals that begin before the end."""
        return math.ceil(self.duration_seconds / self.interval_seconds)

    def order(self) -> NDArray[np.int64]:
        """(rounds × phases,) indices into `phases`, in the order they are played."""
        count = len(self.phases)
        if self.shuffle_seed is None:
            return np.tile(np.arange(count), self.rounds)
        rng = np.random.default_rng(self.shuffle_seed)
        return np.concatenate([rng.permutation(count) for _ in range(self.rounds)])

    def rate_at(
        self, seconds: NDArray[np.floating], order: Sequence[int] | NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """The rate in requests/s at moments of the programme; 0 before its beginning and after its end.

        Args:
            seconds: moments since the beginning, any shape.
            order: indices into `phases` in the order they are played; None for the workload's own.

        Returns:
            Rates of the shape of `seconds`, not scaled to `peak_rps`.

        Raises:
            ValueError: an index that is no phase.
        """
        played = np.asarray(self.order() if order is None else order, dtype=np.int64)
        if played.ndim != 1 or not len(played) or played.min() < 0 or played.max() >= len(self.phases):
            raise ValueError(f"order: {order!r} is not allowed; allowed: a list of indices from 0 to {len(self.phases) - 1}")
        at = np.asarray(seconds, dtype=np.float64)
        ends = np.cumsum([self.phases[i].seconds for i in played])
        place = np.searchsorted(ends, at, side="right")
        inside = (at >= 0) & (place < len(played))
        place = np.minimum(place, len(played) - 1)
        low, high, cycles, length = (
            np.array([getattr(self.phases[i], name) for i in played])[place] for name in ("low", "high", "cycles", "seconds")
        )
        offset = at - np.concatenate([[0.0], ends[:-1]])[place]
        wave = np.zeros(at.shape)
        if self.oscillation:
            waving = inside & (cycles > 0)
            wave[waving] = sine((2 * math.pi * cycles * offset / length)[waving])
        factor = (low + high) / 2 + (high - low) / 2 * wave
        return np.where(inside, self.base_requests_per_minute / 60 * factor, 0.0)

    def series(self) -> RateSeries:
        """The rate at the beginning of each interval."""
        rates = self.rate_at(np.arange(self.num_steps) * self.interval_seconds)
        series = RateSeries(rates, self.interval_seconds)
        return series if self.peak_rps is None else series.scaled_to_peak(self.peak_rps)
