"""Policies over windows and seeds: whole batches of Autoscale episodes, and what each one cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy import Planner, Policy, check_shown_fields
from scalepilot.policy.spec import FieldEntry, PolicySpec
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.autoscale.arrivals import drawn_arrivals
from scalepilot_envs.autoscale.description import COST, ENV_ID
from scalepilot_envs.autoscale.dynamics import AutoscaleState, StepOutcome
from scalepilot_envs.objective import Objective
from scalepilot_envs.registration import same_id
from scalepilot_envs.workloads import RateSeries

Array = NDArray[np.float64]
OnStep = Callable[[int, AutoscaleState, StepOutcome, Array], None]
_SECONDS_PER_DAY = 86400


@dataclass(frozen=True)
class EpisodeIndex:
    """Which episodes they are.

    Attributes:
        window: (n,) index of the window; episodes without one are windows of their own.
        seed: (n,) that the episode is drawn from.
        start_unix_seconds: (n,) beginning of the window; NaN for episodes that have no time of day.
    """

    window: NDArray[np.int64]
    seed: NDArray[np.int64]
    start_unix_seconds: Array

    def __len__(self) -> int:
        return len(self.window)

    @property
    def block(self) -> Literal["day", "window", "episode"]:
        """What chance is resampled by: days; on a single day windows, without the chance between days; else episodes."""
        if not np.isfinite(self.start_unix_seconds).all():
            return "episode"
        return "day" if len(np.unique(self._day)) > 1 else "window"

    @property
    def blocks(self) -> NDArray[np.int64]:
        """(n,) the block of each episode."""
        return self._day if self.block == "day" else self.window

    @property
    def days(self) -> int:
        """How many; 0 for episodes that have no time of day."""
        return 0 if self.block == "episode" else len(np.unique(self._day))

    @property
    def repeat(self) -> NDArray[np.int64]:
        """(n,) number of the seed among those of its window: the same for the runs that are drawn alike."""
        order = np.lexsort((self.seed, self.window))
        sorted_windows = self.window[order]
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - np.searchsorted(sorted_windows, sorted_windows)
        return rank

    @property
    def _day(self) -> NDArray[np.int64]:
        return np.floor(self.start_unix_seconds / _SECONDS_PER_DAY).astype(np.int64)


@dataclass(frozen=True)
class EpisodeSet:
    """Episodes of Autoscale: (window, seed) pairs with their arrivals already drawn, so that every policy meets the same.

    Attributes:
        workload: name for tables.
        rates_rps: (n, num_steps) mean rates.
        arrived: (n, num_steps) requests that arrive.
        window: (n,) index of the window.
        seed: (n,) arrival seed.
        start_unix_seconds: (n,) beginning of the window.
    """

    workload: str
    rates_rps: Array
    arrived: Array
    window: NDArray[np.int64]
    seed: NDArray[np.int64]
    start_unix_seconds: Array

    def __len__(self) -> int:
        return len(self.rates_rps)

    @property
    def num_steps(self) -> int:
        """Steps of each episode."""
        return int(self.rates_rps.shape[1])

    @property
    def index(self) -> EpisodeIndex:
        """Which episodes they are."""
        return EpisodeIndex(self.window, self.seed, self.start_unix_seconds)

    @property
    def objective(self) -> Objective:
        """Money an hour."""
        return COST

    @property
    def mean_and_peak_rps(self) -> tuple[float, float]:
        """Of the windows' mean rates."""
        return float(self.rates_rps.mean()), float(self.rates_rps.max())

    def at(self, rows: NDArray[Any]) -> EpisodeSet:
        """Some of the episodes, by index or mask."""
        return EpisodeSet(self.workload, *(getattr(self, f.name)[rows] for f in fields(self)[1:]))

    def joined(self, other: EpisodeSet) -> EpisodeSet:
        """This set and another, its episodes first; the windows of both must be equally long."""
        return EpisodeSet(
            self.workload,
            np.concatenate([self.rates_rps, other.rates_rps]),
            np.concatenate([self.arrived, other.arrived]),
            np.concatenate([self.window, other.window]),
            np.concatenate([self.seed, other.seed]),
            np.concatenate([self.start_unix_seconds, other.start_unix_seconds]),
        )

    def redrawn(self, seed: int, interval_seconds: float) -> EpisodeSet:
        """The same windows with other arrivals, Poisson, from one stream."""
        arrived = np.random.default_rng(seed).poisson(self.rates_rps * interval_seconds).astype(np.float64)
        return replace(self, arrived=arrived, seed=np.full_like(self.seed, seed))

    def repeated(self, times: int) -> EpisodeSet:
        """The whole set `times` times over, for candidates run side by side: all of set 0, then set 1."""
        return EpisodeSet(
            self.workload,
            np.tile(self.rates_rps, (times, 1)),
            np.tile(self.arrived, (times, 1)),
            np.tile(self.window, times),
            np.tile(self.seed, times),
            np.tile(self.start_unix_seconds, times),
        )


@dataclass(frozen=True)
class EpisodeResults:
    """What episodes of any environment came to, one row each.

    Attributes:
        window, seed: (n,) which episode.
        columns: name → (n,) figure of the whole episode. Every environment has those its objective names; Autoscale's are
            J_per_hour and its parts replica_cost, late_cost and move_cost (currency per hour of service), replicas_mean and
            replicas_peak (billed: ready and starting), arrived_requests, late_requests, dropped_requests, late_share,
            latency_p95_seconds (mean of the intervals', weighted by requests), actions (steps that changed the target) and
            moved_replicas; those of others are return, length, and what the environment reports.
        notes: what was odd: failed episodes, which are in none of the rows, and observations outside their bounds.
    """

    window: NDArray[np.int64]
    seed: NDArray[np.int64]
    columns: Mapping[str, Array]
    notes: EnvNotes = field(default_factory=EnvNotes)

    def __len__(self) -> int:
        return len(self.seed)

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def at(self, rows: NDArray[Any]) -> EpisodeResults:
        """Some of the episodes, by index or mask."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return EpisodeResults(self.window[rows], self.seed[rows], columns, self.notes)

    @classmethod
    def mean_of(cls, results: Sequence[EpisodeResults]) -> EpisodeResults:
        """Episode by episode the mean of several policies' results, of what all of them have."""
        shared = [name for name in results[0].columns if all(name in r.columns for r in results)]
        means = {name: np.mean([r[name] for r in results], axis=0) for name in shared}
        return cls(results[0].window, results[0].seed, means, sum((r.notes for r in results), EnvNotes()))


@dataclass(frozen=True)
class Playback:
    """What happened in one episode, step by step; each (num_steps,)."""

    arrival_rate_rps: Array
    replicas: Array
    ready_replicas: Array
    late_share: Array
    latency_p95_seconds: Array


def poisson_episodes(
    workload: str,
    series: RateSeries,
    starts: NDArray[np.int64],
    num_steps: int,
    seeds: Sequence[int],
    arrival_dispersion: float = 1.0,
) -> EpisodeSet:
    """Windows of one series that begin at its steps `starts`; see `poisson_windows`."""
    begin = np.asarray(series.start_unix_seconds + starts * series.interval_seconds, dtype=np.float64)
    windows = series.windows(starts, num_steps)
    return poisson_windows(workload, windows, begin, series.interval_seconds, seeds, arrival_dispersion)


def poisson_windows(
    workload: str,
    windows: Array,
    start_unix_seconds: Array,
    interval_seconds: float,
    seeds: Sequence[int],
    arrival_dispersion: float = 1.0,
) -> EpisodeSet:
    """Windows × seeds with drawn arrivals, Poisson unless told otherwise; one stream a seed over all windows (protocol v1).

    Args:
        workload: name for tables.
        windows: (num_windows, num_steps) mean rates, requests/s.
        start_unix_seconds: (num_windows,) beginning of each.
        interval_seconds: of a step.
        seeds: arrival seeds.
        arrival_dispersion: variance of the arrivals over their mean.
    """
    arrived = [drawn_arrivals(windows * interval_seconds, arrival_dispersion, np.random.default_rng(s)) for s in seeds]
    return EpisodeSet(
        workload,
        np.tile(windows, (len(seeds), 1)),
        np.concatenate(arrived),
        np.tile(np.arange(len(windows)), len(seeds)),
        np.repeat(np.asarray(seeds, dtype=np.int64), len(windows)),
        np.tile(start_unix_seconds, len(seeds)),
    )


def planned_targets(planner: Planner, rates_rps: Array, params: AutoscaleParams) -> Array:
    """(n, num_steps) what a planner commands: each target so early that it takes effect when it is meant to."""
    targets = planner.plan(rates_rps, params.replica_capacity_rps, params.startup_steps)
    if not params.actuation_lag_steps:
        return targets
    last = targets.shape[1] - 1
    return targets[:, np.minimum(np.arange(last + 1) + params.actuation_lag_steps, last)]


def shown_to(spec: PolicySpec, params: AutoscaleParams) -> AutoscaleParams:
    """The service, shown as a policy was made to see it: clock, windows and constants are a matter of the policy."""
    return params.seen_as(spec.env_params) if same_id(spec.env_id, ENV_ID) else params


def run_episodes(
    policy: Policy | Planner,
    episodes: EpisodeSet,
    params: AutoscaleParams,
    *,
    playback_of: int | None = None,
    on_step: OnStep | None = None,
) -> tuple[EpisodeResults, Playback | None]:
    """Run a policy, greedily, or a planner's plan through every episode at once.

    Args:
        policy: decides from observations, or plans from the known rates.
        episodes: what to run through.
        params: the service.
        playback_of: episode whose steps to keep; None for none.
        on_step: called after every step with its number, the service's state, what the step brought, and the (n,) targets.

    Returns:
        The episodes' results, and the playback asked for.

    Raises:
        ArtifactError: the policy was made for other observation fields than the service can show.
    """
    n, steps = len(episodes), episodes.num_steps
    if isinstance(policy, Policy):
        params = shown_to(policy.spec, params)
    env = AutoscaleBatch(
        n, workload=RateSeries(episodes.rates_rps[0], params.interval_seconds), params=params, episode_steps=steps
    )
    if isinstance(policy, Policy):
        check_shown_fields(policy.spec.name, policy.spec, [FieldEntry.of(f) for f in env.fields])
    observation: NDArray[Any] = env.reset_batch(
        None,
        {
            "rates_rps": episodes.rates_rps,
            "arrived": episodes.arrived,
            "start_unix_seconds": episodes.start_unix_seconds,
        },
    )
    decide = plan = None
    if isinstance(policy, Policy):
        decide = policy.act
    else:
        plan = planned_targets(policy, episodes.rates_rps, params)
    sums = {name: np.zeros(n) for name in ("replica_cost", "late_cost", "move_cost", "billed", "arrived", "late", "dropped")}
    sums |= {name: np.zeros(n) for name in ("latency", "actions", "moved")}
    peak = np.zeros(n)
    kept = np.zeros((5, steps)) if playback_of is not None else None
    state = None
    for t in range(steps):
        if plan is not None:
            desired = plan[:, t]
        else:
            assert decide is not None
            decision, state = decide(observation, state)
            assert decision.desired_replicas is not None
            desired = decision.desired_replicas
        outcome = env.advance(desired)
        if on_step is not None:
            on_step(t, env.state, outcome, desired)
        if plan is None:
            observation = env.observe()
        for name, values in outcome.cost._asdict().items():
            sums[name] += values
        sums["billed"] += outcome.billed_replicas
        sums["arrived"] += outcome.arrived
        sums["late"] += outcome.late
        sums["dropped"] += outcome.dropped
        sums["latency"] += env.state.latency_p95_seconds * outcome.arrived
        sums["actions"] += outcome.change != 0
        sums["moved"] += np.abs(outcome.change)
        np.maximum(peak, outcome.billed_replicas, out=peak)
        if kept is not None and playback_of is not None:
            i = playback_of
            kept[:, t] = (
                outcome.arrived[i] / params.interval_seconds,
                outcome.billed_replicas[i],
                env.state.serving[i],
                env.state.late_share[i],
                env.state.latency_p95_seconds[i],
            )
    hours = steps / params.steps_per_hour
    cost = {name: sums[name] / hours for name in ("replica_cost", "late_cost", "move_cost")}
    columns = {
        "J_per_hour": sum(cost.values(), np.zeros(n)),
        **cost,
        "replicas_mean": sums["billed"] / steps,
        "replicas_peak": peak,
        "arrived_requests": sums["arrived"],
        "late_requests": sums["late"],
        "dropped_requests": sums["dropped"],
        "late_share": sums["late"] / np.maximum(sums["arrived"], 1.0),
        "latency_p95_seconds": sums["latency"] / np.maximum(sums["arrived"], 1.0),
        "actions": sums["actions"],
        "moved_replicas": sums["moved"],
    }
    results = EpisodeResults(episodes.window, episodes.seed, columns)
    return results, None if kept is None else Playback(*kept)
