"""What a comparison is: contestants over the same episodes, their figures with intervals, and who beats whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.statistics.intervals import ABOVE_ZERO, FROM_ZERO, SHARE, Bounds, GapClosed, Interval, PairedDifference
from scalepilot.simulate import EpisodeResults, EpisodeSet, Playback

Role = Literal["policy", "baseline", "reference"]
ROLES: tuple[Role, ...] = ("policy", "baseline", "reference")
Column = Callable[[EpisodeResults], NDArray[Any]]


@dataclass(frozen=True)
class Total:
    """A metric as a ratio of sums over episodes: Σ values / Σ weights, or the mean without weights.

    Attributes:
        values, weights: by episode.
        bounds: of what it can be.
    """

    values: Column
    weights: Column | None = None
    bounds: Bounds = FROM_ZERO


def _arrived(results: EpisodeResults) -> NDArray[Any]:
    return np.maximum(results.arrived_requests, 1.0)


TOTALS: dict[str, Total] = {
    "J": Total(lambda r: r.J_per_hour, bounds=ABOVE_ZERO),
    "cost": Total(lambda r: r.replica_cost, bounds=ABOVE_ZERO),
    "penalty": Total(lambda r: r.late_cost),
    "move_cost": Total(lambda r: r.move_cost),
    # Per request, not per window: a quiet window's late requests are few.
    "late_share": Total(lambda r: r.late_requests, _arrived, SHARE),
    "replicas": Total(lambda r: r.replicas_mean, bounds=ABOVE_ZERO),
    "latency_p95_seconds": Total(lambda r: r.latency_p95_seconds * _arrived(r), _arrived, ABOVE_ZERO),
    "actions": Total(lambda r: r.actions),
}
METRICS = tuple(TOTALS)


@dataclass(frozen=True)
class Member:
    """One of several policies that differ only in their training seed.

    Attributes:
        name: of the policy.
        training_seed: what it was trained with.
        results: one row an episode, in the order of the episode set.
    """

    name: str
    training_seed: int
    results: EpisodeResults


@dataclass(frozen=True)
class Contestant:
    """One policy, baseline or reference and how it fared.

    Attributes:
        name: row label, unique in a comparison.
        role: policy (judged), baseline (to be beaten) or reference (knows the future; cannot be deployed).
        detail: what it is, such as "rps 0.57, tolerance 0.02, down 600 s, up 60 s".
        results: one row an episode, in the order of the episode set; with members, their mean, episode by episode.
        playback: one episode step by step, the same one for all contestants (with members, of the first); None if not kept.
        members: the policies behind one that was trained with several seeds; empty for a rule or a single policy.
    """

    name: str
    role: Role
    detail: str
    results: EpisodeResults
    playback: Playback | None = None
    members: tuple[Member, ...] = ()

    @classmethod
    def of_members(
        cls, name: str, role: Role, detail: str, members: Sequence[Member], playback: Playback | None = None
    ) -> Contestant:
        """One row for policies that differ only in their training seed."""
        return cls(name, role, detail, EpisodeResults.mean_of([m.results for m in members]), playback, tuple(members))

    def by_member(self, column: Column) -> NDArray[Any]:
        """A column of the results: (num_members, n), or (n,) without members."""
        return np.stack([column(m.results) for m in self.members]) if self.members else column(self.results)


@dataclass(frozen=True)
class PlayedBack:
    """Which episode the playbacks show.

    Attributes:
        window, seed: of the episode.
        start_unix_seconds: its beginning.
        interval_seconds: time of one step.
    """

    window: int
    seed: int
    start_unix_seconds: float
    interval_seconds: float


@dataclass(frozen=True)
class Scope:
    """What the contestants were judged on.

    Attributes:
        windows, seeds, days: how many of each.
        block: what the bootstrap resamples: "day", or "window" where all windows lie on one day.
        num_blocks: how many of them.
        window_steps: steps of a window.
        window_hours: length of a window; None if no playback tells the length of a step.
        mean_rps, peak_rps: of the windows' mean rates.
    """

    windows: int
    seeds: int
    days: int
    block: Literal["day", "window"]
    num_blocks: int
    window_steps: int
    window_hours: float | None
    mean_rps: float
    peak_rps: float


@dataclass(frozen=True)
class GapReference:
    """What the gap is closed towards.

    Attributes:
        name: of the reference's row.
        is_bound: its figures are a lower bound of what any policy can cost, not what the row itself cost.
    """

    name: str
    is_bound: bool


@dataclass(frozen=True)
class Comparison:
    """The verdict's material.

    Attributes:
        workload: name.
        episodes: what all flew through; read back from files its rates and arrivals are NaN.
        contestants: in the order given.
        rows: contestant → metric (METRICS) → interval. J, cost (replicas), penalty (late requests) and move_cost in
            currency per hour, late_share a share, latency weighted by requests, actions per window.
        gap_closed: policy or baseline → baseline → gap closed towards `gap_reference`; empty without one.
        gap_reference: the optimum's lower bound, else the first reference; None without either.
        gap_reference_J_per_hour: (n,) its figure in each episode; None without one.
        versus: policy → baseline → difference of J per hour.
        scope: what the episodes amount to.
        played_back: which episode the playbacks show; None without playbacks.
    """

    workload: str
    episodes: EpisodeSet
    contestants: tuple[Contestant, ...]
    rows: Mapping[str, Mapping[str, Interval]]
    gap_closed: Mapping[str, Mapping[str, GapClosed]]
    versus: Mapping[str, Mapping[str, PairedDifference]]
    scope: Scope
    played_back: PlayedBack | None
    gap_reference: GapReference | None = None
    gap_reference_J_per_hour: NDArray[np.float64] | None = None

    def of_role(self, role: Role) -> tuple[Contestant, ...]:
        """Contestants of one role, cheapest first."""
        found = [c for c in self.contestants if c.role == role]
        return tuple(sorted(found, key=lambda c: self.rows[c.name]["J"].mean))

    @property
    def blocks(self) -> NDArray[np.int64]:
        """(n,) what the bootstrap resamples each episode with: its day, or its window where all lie on one day."""
        return self.episodes.day if self.scope.block == "day" else self.episodes.window

    def best(self, role: Role) -> Contestant | None:
        """The one of a role with the lowest J; chosen on the test set itself, which for a baseline is to its favour."""
        found = self.of_role(role)
        return found[0] if found else None
