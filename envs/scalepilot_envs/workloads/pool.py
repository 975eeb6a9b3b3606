"""Many workloads, of which each training episode draws one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.checks import Between
from scalepilot_envs.workloads.checks import Peak, check_declared, parts_of
from scalepilot_envs.workloads.diurnal import DiurnalWorkload
from scalepilot_envs.workloads.drawn import DrawnWorkload
from scalepilot_envs.workloads.mixture import ByKind, MixtureWorkload, SimpleWorkload, kinds_of, reseeded, workload_of
from scalepilot_envs.workloads.patterns import Weight
from scalepilot_envs.workloads.series import Part, RateSeries

MemberWorkload = SimpleWorkload | MixtureWorkload
Windows = tuple[NDArray[np.float64], NDArray[np.float64]]
_MOST_MEMBERS, _MINUTE_SECONDS = 10_000, 60.0


@dataclass(frozen=True)
class RatePool:
    """Series on one grid, with the share of episodes that each gets.

    Attributes:
        names: of the members, for messages.
        members: their series.
        weights: positive, of any sum.
    """

    names: tuple[str, ...]
    members: tuple[RateSeries, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, series: RateSeries) -> RatePool:
        """A single series."""
        return cls(("workload",), (series,), (1.0,))

    def part(self, part: Part) -> RatePool:
        """The part of each member's time."""
        return replace(self, members=tuple(member.part(part) for member in self.members))

    def draw(self, rng: np.random.Generator) -> RateSeries:
        """A member by its weight; a single one without a draw."""
        if len(self.members) == 1:
            return self.members[0]
        return self.members[int(np.searchsorted(self._ends(), rng.random(), side="right"))]

    def _ends(self) -> np.ndarray:
        shares = np.asarray(self.weights, dtype=np.float64)
        return np.cumsum(shares / shares.sum())[:-1]

    def drawn_windows(self, num_steps: int, count: int, rng: np.random.Generator) -> Windows:
        """Windows drawn with replacement; of many members each as often as its weight says, the rest by chance.

        Returns:
            (count, num_steps) rates, and the Unix time at which each begins.

        Raises:
            ValueError: a member is not longer than one window.
        """
        if len(self.members) == 1:
            return _cut(self.members[0], self.members[0].drawn_starts(num_steps, count, rng), num_steps)
        # Evenly spaced points instead of drawn ones: no member is left out that is due.
        points = (np.arange(count) + rng.random()) / count
        chosen = np.searchsorted(self._ends(), points, side="right")
        found = [_cut(self.members[i], self.members[i].drawn_starts(num_steps, 1, rng), num_steps) for i in chosen]
        return np.concatenate([windows for windows, _ in found]), np.concatenate([begin for _, begin in found])

    def all_windows(self, num_steps: int) -> Windows:
        """All disjoint windows of every member, as `drawn_windows` gives them."""
        found = [_cut(member, member.window_starts(num_steps), num_steps) for member in self.members]
        return np.concatenate([windows for windows, _ in found]), np.concatenate([begin for _, begin in found])

    def joined(self) -> RateSeries:
        """The members one after the other, as if the first went on."""
        if len(self.members) == 1:
            return self.members[0]
        first = self.members[0]
        rates = np.concatenate([member.rates_rps for member in self.members])
        return RateSeries(rates, first.interval_seconds, first.start_unix_seconds)

    def check_length(self, num_steps: int, what: Callable[[int], str]) -> None:
        """Refuse a member that is too short.

        Args:
            num_steps: fewest steps allowed.
            what: steps of a member → what to say of it, behind its name.

        Raises:
            ValueError: naming the first that is too short.
        """
        for name, member in zip(self.names, self.members, strict=True):
            if len(member) < num_steps:
                raise ValueError(what(len(member)) if len(self.members) == 1 else f"{name}: {what(len(member))}")


def _cut(series: RateSeries, starts: NDArray[np.int64], num_steps: int) -> Windows:
    begin = np.asarray(series.start_unix_seconds + starts * series.interval_seconds, dtype=np.float64)
    return series.windows(starts, num_steps), begin


@dataclass(frozen=True)
class Member:
    """A workload of a pool.

    Attributes:
        weight: its share of the episodes, relative to the others'.
        count: of a workload with a seed, how many are drawn; they share the weight.
        workload: any kind but a pool.
    """

    weight: Weight = 1.0
    count: Annotated[int, Between(1, _MOST_MEMBERS)] = 1
    workload: Annotated[MemberWorkload, ByKind()] = field(default_factory=DiurnalWorkload)

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_declared(self, "")
        if self.weight == 0:
            raise ValueError("weight: 0 is not allowed; allowed: above 0")
        object.__setattr__(self, "workload", workload_of(self.workload, kinds_of(MemberWorkload)))
        if self.count > 1:
            reseeded(self.workload, 0)

    @property
    def workloads(self) -> tuple[MemberWorkload, ...]:
        """The workload, or so many of its kind."""
        if self.count == 1:
            return (self.workload,)
        seeds = np.random.SeedSequence(getattr(self.workload, "seed", 0) or 0).generate_state(self.count)
        return tuple(reseeded(self.workload, int(seed)) for seed in seeds)


@dataclass(frozen=True)
class PoolWorkload:
    """Many workloads: each training episode draws one by its weight, then a window of it.

    A policy trained on many kinds of traffic is one for services that have no history yet. Each member is split by time into
    training, validation and test as a workload of its own is.

    Attributes:
        members: what is drawn from.
        peak_rps: scale each member so that its 99.5 % quantile is this; None keeps their rates.
    """

    kind: Literal["pool"] = "pool"
    members: tuple[Member, ...] = (Member(count=8, workload=DrawnWorkload()),)
    peak_rps: Peak | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        parts_of(self, "members", Member)
        check_declared(self)
        if not 1 <= sum(member.count for member in self.members) <= _MOST_MEMBERS:
            raise ValueError(
                f"workload.members: {len(self.members)} members are not allowed; allowed: 1 to {_MOST_MEMBERS} in all"
            )

    def pool(self, interval_seconds: float) -> RatePool:
        """All members on one grid.

        Raises:
            ValueError: a member that cannot be read or scaled, named by its place.
        """
        names, found, weights = [], [], []
        for i, member in enumerate(self.members):
            workloads = member.workloads
            for j, workload in enumerate(workloads):
                name = f"workload.members.{i}" + (f" (draw {j} of {len(workloads)})" if len(workloads) > 1 else "")
                try:
                    series = workload.series()
                    if self.peak_rps is not None:
                        series = series.scaled_to_peak(self.peak_rps)
                    found.append(series if series.interval_seconds == interval_seconds else series.resampled(interval_seconds))
                except ValueError as error:
                    raise type(error)(f"{name}: {error}") from None
                names.append(name)
                weights.append(member.weight / len(workloads))
        return RatePool(tuple(names), tuple(found), tuple(weights))

    def series(self) -> RateSeries:
        """The members one after the other, on a minute's grid: to look at."""
        return self.pool(_MINUTE_SECONDS).joined()
