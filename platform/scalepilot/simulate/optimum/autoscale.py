"""Lower and upper bound of J for Autoscale episodes whose arrivals are known, and the targets that reach the upper one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.simulate.episodes import EpisodeSet, run_episodes
from scalepilot.simulate.executor import Executor, SerialExecutor
from scalepilot.simulate.optimum.cache import OptimumCache, cache_key
from scalepilot.simulate.optimum.ready_replicas import ReadyPlan, plan_J, plan_ready_replicas
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.dynamics import AutoscaleState

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Job:
    """One episode to plan."""

    params: AutoscaleParams
    arrived: Array
    ready_at_start: float

    def __str__(self) -> str:
        return "the clairvoyant optimum"


@dataclass(frozen=True)
class Optimum:
    """What clairvoyance can reach; the true optimum lies between the bounds.

    Attributes:
        lower_J_per_hour: (n,) no policy costs less, currency per hour of service.
        upper_J_per_hour: (n,) what `targets` cost, exactly.
        targets: (n, num_steps) replicas to ask for in each step.
    """

    lower_J_per_hour: Array
    upper_J_per_hour: Array
    targets: Array

    @property
    def gap(self) -> Array:
        """(n,) upper over lower bound, minus 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            gap: Array = np.where(self.upper_J_per_hour > 0, self.upper_J_per_hour / self.lower_J_per_hour - 1.0, 0.0)
        return gap

    def planner(self, name: str = "clairvoyant") -> PlannedTargets:
        """The plan as `run_episodes` takes it, for the episodes it was made for."""
        return PlannedTargets(name, self.targets)


@dataclass(frozen=True)
class PlannedTargets:
    """A `Planner` whose plan stands already.

    Attributes:
        name: row label in tables.
        targets: (n, num_steps) replicas.
    """

    name: str
    targets: Array

    def plan(self, rates_rps: Array, replica_capacity_rps: float, startup_steps: int) -> Array:
        """The stored targets (n, num_steps).

        Raises:
            InputError: the rates are not those of n episodes of num_steps.
        """
        if rates_rps.shape != self.targets.shape:
            raise InputError(f"{self.name}: planned for episodes {self.targets.shape}; asked for {rates_rps.shape}")
        return self.targets


def autoscale_optimum(
    episodes: EpisodeSet,
    params: AutoscaleParams,
    *,
    replica_capacity_rps: Array | None = None,
    cache: OptimumCache | None = None,
    executor: Executor | None = None,
    progress: Callable[[int], None] | None = None,
) -> Optimum:
    """Bound min Σ_t J_t over all sequences of targets, each episode for itself.

    The lower bound rounds backlogs down in a dynamic program (see `ready_replicas`); without a backlog at a step's end it is
    exact. The upper bound is the cost of the plan drawn from it. Like J itself, neither charges the requests that still wait
    when the episode ends, nor credits replicas still there. Where targets take effect late, the lower bound is the one without
    the lag, which no lag makes cheaper, and the upper one what the same plan costs, commanded so much earlier.

    Args:
        episodes: rates (only the first counts: the simulator starts with replicas for it) and arrivals.
        params: the service, without jitter of the start-up time.
        replica_capacity_rps: (n,) where it differs between episodes; that of `params` if None.
        cache: where optima found before may lie.
        executor: plans the episodes; here, one after the other, if None.
        progress: called with the number of episodes done.

    Raises:
        InputError: a capacity is out of range, or replicas have readiness or queues of their own.
        RunError: the executor cannot go on.

    Source:
        The reduction to ready replicas is that of "right-sizing": M. Lin, A. Wierman et al., IEEE/ACM Transactions on
        Networking 21 (2013); S. Albers and J. Quedenfeld, "Optimal algorithms for right-sizing data centers" (2018).
    """
    check_one_queue(params, "clairvoyant optimum")
    count = len(episodes)
    services = _services(params, count, replica_capacity_rps)
    arrived, first_rates = episodes.arrived, episodes.rates_rps[:, 0]
    at_start = np.array([ready_at_start(p, rate) for p, rate in zip(services, first_rates, strict=True)])
    keys = [cache_key(p, a, rate) for p, a, rate in zip(services, arrived, first_rates, strict=True)] if cache else []
    plans: dict[int, ReadyPlan] = {}
    for i, key in enumerate(keys):
        stored = cache.load(key, episodes.num_steps) if cache else None
        # A stored plan is believed only if it still costs what it did: the simulator may have changed since.
        if stored and np.isclose(plan_J(services[i], arrived[i], at_start[i], stored.ready), stored.upper_J, rtol=1e-9):
            plans[i] = stored
    if progress and plans:
        progress(len(plans))
    missing = [i for i in range(count) if i not in plans]
    jobs = [_Job(services[i], arrived[i], float(at_start[i])) for i in missing]
    for index, plan in (executor or SerialExecutor()).run(_plan_job, jobs):
        i = missing[index]
        plans[i] = plan
        if cache:
            cache.store(keys[i], plan)
        if progress:
            progress(len(plans))
    hours = episodes.num_steps / params.steps_per_hour
    lower, upper = (np.array([getattr(plans[i], name) for i in range(count)]) / hours for name in ("lower_J", "upper_J"))
    targets = np.array([targets_of(plans[i].ready, at_start[i], params.startup_steps) for i in range(count)])
    if params.actuation_lag_steps:
        # Nothing commanded moves the first steps: only running the plan says what they cost.
        for service in set(services):
            rows = np.array([i for i in range(count) if services[i] == service])
            results, _ = run_episodes(PlannedTargets("plan", targets[rows]), episodes.at(rows), service)
            upper[rows] = results["J_per_hour"]
    return Optimum(lower, upper, targets)


def check_one_queue(params: AutoscaleParams, what: str) -> None:
    """Refuse a service whose backlog alone does not say how it goes on.

    Raises:
        InputError: replicas fail readiness probes, or keep their queues.
    """
    for field, allowed in (("readiness_timeout_seconds", "null"), ("backlog_stays", "false")):
        value = getattr(params, field)
        if value:
            raise InputError(f"env.params.{field}: {str(value).lower()} is not allowed for the {what}; allowed: {allowed}")


def targets_of(ready: Array, ready_at_start: float, startup_steps: int) -> Array:
    """The targets that make these replicas ready: each is asked for `startup_steps` before.

    Args:
        ready: (num_steps,) that rise in no step up to `startup_steps` after a fall.
        ready_at_start: replicas after the reset.
        startup_steps: from order to service.
    """
    added = np.maximum(np.diff(ready, prepend=ready_at_start), 0.0)
    # The window of step t is t + 1 … t + startup_steps: ordered, not yet ready.
    starting = sliding_window_view(np.pad(added[1:], (0, startup_steps)), startup_steps).sum(axis=1)
    targets: Array = ready + starting[: len(ready)]
    return targets


def _services(params: AutoscaleParams, count: int, capacities: Array | None) -> list[AutoscaleParams]:
    if capacities is None:
        return [params] * count
    if np.shape(capacities) != (count,):
        raise InputError(f"replica_capacity_rps: shape {np.shape(capacities)} is not allowed; allowed: ({count},)")
    try:
        return [replace(params, replica_capacity_rps=float(capacity)) for capacity in capacities]
    except ValueError as error:
        raise InputError(str(error)) from None


def ready_at_start(params: AutoscaleParams, first_rate_rps: float) -> float:
    """Replicas after a reset, by the first interval's rate."""
    state = AutoscaleState(params, 1)
    state.reset(np.ones(1, dtype=np.bool_), np.array([first_rate_rps]))
    return float(state.ready[0])


def _plan_job(job: _Job) -> ReadyPlan:
    return plan_ready_replicas(job.params, job.arrived, job.ready_at_start)
