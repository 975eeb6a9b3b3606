"""A rate that jumps between levels as a Markov chain does: traffic whose law is known, so that the best policy is, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.checks import Between, is_number
from scalepilot_envs.workloads.checks import GridSeconds, NotNegative, NumSteps, Peak, Seed, Share, check_declared
from scalepilot_envs.workloads.quantiles import quantiles
from scalepilot_envs.workloads.series import RateSeries

Array = NDArray[np.float64]
_MOST_LEVELS = 32
_ROUNDING = 1e-6
_DRAWN_AT_ONCE = 1 << 18
_PEAK_QUANTILE = 0.995
Sojourn = Annotated[float, Between(above=True)]


@dataclass(frozen=True)
class MarkovWorkload:
    """A Markov-modulated rate: in each interval one of a few levels; which comes next depends on the present one alone.

    Attributes:
        levels_rps: rate of each phase; of phases that are equal, nobody sees which one it is.
        mean_sojourn_seconds: mean time in each phase, at least an interval; from there to each of the others alike. Or give
            `transitions`.
        transitions: instead, row by row the probabilities that the next interval has phase 0, 1, …
        num_steps: length in intervals.
        interval_seconds: grid, one draw of the chain each; with the environment's own decision interval nothing is
            interpolated.
        seed: of the draws.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["markov"] = "markov"
    levels_rps: tuple[NotNegative, ...] = (60.0, 240.0)
    mean_sojourn_seconds: tuple[Sojourn, ...] | None = None
    transitions: tuple[tuple[Share, ...], ...] | None = None
    num_steps: NumSteps = 172_800
    interval_seconds: GridSeconds = 15.0
    seed: Seed = 0
    peak_rps: Peak | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self)
        levels = _numbers("levels_rps", self.levels_rps, "finite numbers from 0", 0.0)
        object.__setattr__(self, "levels_rps", levels)
        count = len(levels)
        if not 2 <= count <= _MOST_LEVELS:
            raise ValueError(f"workload.levels_rps: {count} levels are not allowed; allowed: 2 to {_MOST_LEVELS}")
        if self.transitions is not None and self.mean_sojourn_seconds is not None:
            raise ValueError("workload.transitions: is given beside mean_sojourn_seconds; allowed: one of both")
        if self.transitions is not None:
            object.__setattr__(self, "transitions", _probabilities(self.transitions, count))
        else:
            given = (600.0,) * count if self.mean_sojourn_seconds is None else self.mean_sojourn_seconds
            allowed = f"{count} times from the interval of {self.interval_seconds:g} s"
            sojourns = _numbers("mean_sojourn_seconds", given, allowed, self.interval_seconds, count)
            object.__setattr__(self, "mean_sojourn_seconds", sojourns)
        if not (np.linalg.matrix_power(self.transition_matrix + np.eye(count), count) > 0).all():
            raise ValueError("workload.transitions: some phase is never reached from another; allowed: each from each")

    @property
    def transition_matrix(self) -> Array:
        """(num_levels, num_levels) probability of the next phase (column) after the present one (row)."""
        if self.transitions is not None:
            matrix = np.array(self.transitions, dtype=np.float64)
            return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))
        assert self.mean_sojourn_seconds is not None
        count = len(self.levels_rps)
        leaves = self.interval_seconds / np.array(self.mean_sojourn_seconds, dtype=np.float64)
        matrix = np.repeat(leaves[:, None] / (count - 1), count, axis=1)
        np.fill_diagonal(matrix, 1.0 - leaves)
        return matrix

    @property
    def stationary(self) -> Array:
        """(num_levels,) share of the time in each phase, in the long run."""
        count = len(self.levels_rps)
        equations = np.vstack([self.transition_matrix.T - np.eye(count), np.ones(count)])
        shares: Array = np.linalg.lstsq(equations, np.append(np.zeros(count), 1.0), rcond=None)[0]
        return np.maximum(shares, 0.0)

    def phases(self) -> NDArray[np.int64]:
        """(num_steps,) phase of each interval; the first is drawn from the long run's shares."""
        rng = np.random.default_rng(self.seed)
        cumulated = np.cumsum(self.transition_matrix, axis=1)[:, :-1]
        phase = int(np.searchsorted(np.cumsum(self.stationary)[:-1], rng.random(), side="right"))
        phases = np.empty(self.num_steps, dtype=np.int64)
        phases[0] = phase
        for first in range(1, self.num_steps, _DRAWN_AT_ONCE):
            chances = rng.random(min(_DRAWN_AT_ONCE, self.num_steps - first))
            # Where each phase would go in every interval: the walk then only looks it up.
            after = [np.searchsorted(row, chances, side="right").tolist() for row in cumulated]
            walk = []
            for t in range(len(chances)):
                phase = after[phase][t]
                walk.append(phase)
            phases[first : first + len(walk)] = walk
        return phases

    def scaled_levels_rps(self) -> Array:
        """(num_levels,) rate of each phase in `series`."""
        return np.array(self.levels_rps) if self.peak_rps is None else self._levels_in(self.phases())

    def _levels_in(self, phases: NDArray[np.int64]) -> Array:
        levels = np.array(self.levels_rps, dtype=np.float64)
        if self.peak_rps is None:
            return levels
        at_quantile = quantiles(levels[phases], [_PEAK_QUANTILE])[0]
        if at_quantile <= 0:
            raise ValueError(f"peak_rps: the workload's 99.5% quantile is 0 requests/s; it cannot be scaled to {self.peak_rps:g}")
        scaled: Array = levels * (self.peak_rps / at_quantile)
        return scaled

    def series(self) -> RateSeries:
        """The level of each interval."""
        phases = self.phases()
        return RateSeries(self._levels_in(phases)[phases], self.interval_seconds)


def _numbers(name: str, given: Any, allowed: str, low: float, count: int | None = None) -> tuple[float, ...]:
    """Numbers of a list.

    Raises:
        ValueError: no list, not `count` of them, or one that is no finite number from `low`.
    """
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if not listed or (count is not None and len(given) != count) or not all(is_number(x, low, np.inf) for x in given):
        shown = list(given) if listed else given
        raise ValueError(f"workload.{name}: {shown!r} is not allowed; allowed: {allowed}")
    return tuple(float(x) for x in given)


def _probabilities(given: Any, count: int) -> tuple[tuple[float, ...], ...]:
    """Rows of a transition matrix.

    Raises:
        ValueError: another shape, or a row that is no distribution.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != count:
        raise ValueError(f"workload.transitions: {given!r} is not allowed; allowed: {count} rows, one a level")
    rows = []
    for i, row in enumerate(given):
        allowed = f"{count} probabilities that sum to 1"
        numbers = _numbers(f"transitions.{i}", row, allowed, 0.0, count)
        if abs(sum(numbers) - 1.0) > _ROUNDING:
            raise ValueError(f"workload.transitions.{i}: {list(numbers)!r} sums to {sum(numbers):g}; allowed: {allowed}")
        rows.append(numbers)
    return tuple(rows)
