"""What a comparison is: contenders over the same episodes, their figures with intervals, and who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.statistics.intervals import GapClosed, Interval, PairedDifference
from scalepilot.simulate import EpisodeIndex, EpisodeResults, Playback
from scalepilot_envs.objective import Metric, Objective

Role = Literal["policy", "baseline", "reference"]
ROLES: tuple[Role, ...] = ("policy", "baseline", "reference")
Outcome = Literal["better", "worse", "undecided", "unknown"]


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
class Contender:
    """One policy, baseline or reference and how it fared.

    Attributes:
        name: row label, unique in a comparison.
        role: policy, baseline (to compare against) or reference (knows the future or the law of the traffic).
        detail: what it is, such as "rps 0.57, tolerance 0.02, down 600 s, up 60 s".
        results: one row an episode, in the order of the episode set; with members, their mean, episode by episode.
        playback: one episode step by step, the same one for all contenders (with members, of the first); None if not kept.
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
    ) -> Contender:
        """One row for policies that differ only in their training seed."""
        return cls(name, role, detail, EpisodeResults.mean_of([m.results for m in members]), playback, tuple(members))

    def by_member(self, column: str) -> NDArray[Any]:
        """A column of the results: (num_members, n), or (n,) without members."""
        return np.stack([m.results[column] for m in self.members]) if self.members else self.results[column]

    def sums(self, metric: Metric) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Numerators and denominators of a metric, as `by_member`; no denominators for a plain mean."""
        values = self.by_member(metric.column)
        if metric.weight is None:
            return values, None
        # A window without a request has no share.
        weights = np.maximum(self.by_member(metric.weight), 1.0)
        return (values if metric.is_total else values * weights), weights

    @property
    def notes(self) -> list[str]:
        """What was odd about the environment, a line each."""
        return list(self.results.notes.lines().values())


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
    """What the contenders were run on.

    Attributes:
        windows, seeds, days: how many of each; episodes without a time of day are windows of their own on no day.
        block: what the bootstrap resamples: "day"; "window" where all windows lie on one day; "episode" where there are no days.
        num_blocks: how many of them.
        window_steps: steps of a window; None where episodes differ.
        window_hours: length of a window; None if no playback tells the length of a step.
        mean_rps, peak_rps: of the windows' mean rates; NaN where there are none.
    """

    windows: int
    seeds: int
    days: int
    block: Literal["day", "window", "episode"]
    num_blocks: int
    window_steps: int | None
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
class FrontPoint:
    """What a policy comes to where it is shown another price of a late request than the one that is charged.

    Attributes:
        factor: on the price charged.
        late_request_replica_hours: the price shown.
        cost: of the replicas, currency per hour.
        late_share: of the requests.
        J: currency per hour, at the price charged.
    """

    factor: float
    late_request_replica_hours: float
    cost: float
    late_share: float
    J: float


@dataclass(frozen=True)
class Comparison:
    """The verdict's material.

    Attributes:
        workload: name, or the environment's id.
        objective: which figure decides.
        episodes: which ones all of them ran through.
        contenders: in the order given.
        rows: contender → metric of the objective → interval. Of Autoscale J, cost (replicas), penalty (late requests) and
            move_cost in currency per hour, late_share a share, latency weighted by requests, actions per window.
        gap_closed: policy or baseline → baseline → gap closed towards `gap_reference`; empty without one.
        versus: policy → baseline → difference of what decides, policy minus baseline.
        scope: what the episodes amount to.
        played_back: which episode the playbacks show; None without playbacks.
        gap_reference: the optimum's bound, else the first reference; None without either.
        gap_reference_values: (n,) its figure in each episode; None without one.
        fronts: policy that sees the price of a late request → its points, the lowest price first.
    """

    workload: str
    objective: Objective
    episodes: EpisodeIndex
    contenders: tuple[Contender, ...]
    rows: Mapping[str, Mapping[str, Interval]]
    gap_closed: Mapping[str, Mapping[str, GapClosed]]
    versus: Mapping[str, Mapping[str, PairedDifference]]
    scope: Scope
    played_back: PlayedBack | None
    gap_reference: GapReference | None = None
    gap_reference_values: NDArray[np.float64] | None = None
    fronts: Mapping[str, tuple[FrontPoint, ...]] = field(default_factory=dict)

    def figure(self, name: str) -> Interval:
        """What decides, of one contender."""
        return self.rows[name][self.objective.metric]

    def of_role(self, role: Role) -> tuple[Contender, ...]:
        """Contenders of one role, best first."""
        found = [c for c in self.contenders if c.role == role]
        return tuple(sorted(found, key=lambda c: self.objective.sign * self.figure(c.name).mean))

    @property
    def own(self) -> Contender | None:
        """The first policy given: of a run's evaluation its own; what it began with and what is shipped come behind."""
        return next((c for c in self.contenders if c.role == "policy"), None)

    def best(self, role: Role) -> Contender | None:
        """The best one of a role; chosen on the test set itself, which for a baseline is to its favour."""
        found = self.of_role(role)
        return found[0] if found else None

    def outcome(self, policy: str, baseline: str) -> Outcome:
        """Who is better: "undecided" where the interval of the difference spans 0, "unknown" where there is none."""
        return outcome_of(self.versus[policy][baseline].difference, self.objective)


def outcome_of(difference: Interval, objective: Objective) -> Outcome:
    """Whether the first of two is better, by the interval of their difference."""
    if not difference.is_known:
        return "unknown"
    if difference.low <= 0 <= difference.high:
        return "undecided"
    return "better" if (difference.high < 0) == objective.lower_is_better else "worse"
