"""Is it worth deploying? Recorded decisions as figures: what really ran, what the policy would have made of the same requests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from scalepilot.errors import InputError
from scalepilot.evaluate.statistics.intervals import UNKNOWN, Interval, block_bootstrap
from scalepilot.operate.config import Service
from scalepilot.operate.counterfactual import (
    SHIFTS,
    Array,
    Pieces,
    Ran,
    as_recorded,
    cut,
    replayed_replicas,
    run,
    taken_over,
)
from scalepilot.operate.recorded import Recorded
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot_envs.autoscale import AutoscaleParams

HOURS_A_MONTH = 730.0
_SETTLED_SHARE = 0.25
Role = Literal["ran", "policy", "shadow", "hpa"]
# What an HPA is tried with on this very record: its defaults first.
HPA_SETTINGS = tuple(
    HpaParameters(target=target, stabilisation_down_seconds=down)
    for target in (0.7, 0.4, 0.5, 0.6, 0.8, 0.9)
    for down in (300.0, 60.0)
)


@dataclass(frozen=True)
class Thresholds:
    """What "deploy it" asks for.

    Attributes:
        hours: from the first decision to the last, a whole day at least: nights and peaks differ.
        counted_share: of this time, in which requests and replicas were known.
        block_hours: hours with counted traffic below which no interval is given.
        required_field_share: of the decisions at which every required field is known.
        decided_share: of the decisions that the policy itself took.
        faults: decisions for which the policy gave no sound answer.
        late_share: by which the share of late requests may be higher than that of what ran.
        simulator_share: by which J of what ran may differ between the simulator and the measurements.
    """

    hours: float = 24.0
    counted_share: float = 0.95
    block_hours: int = 6
    required_field_share: float = 0.99
    decided_share: float = 0.99
    faults: int = 0
    late_share: float = 0.001
    simulator_share: float = 0.05


THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Figures:
    """What one contender came to over the counted intervals.

    Attributes:
        name: for tables.
        role: what it is.
        detail: where it comes from.
        J_per_hour: currency; likewise
        replica_cost_per_hour: of it.
        versus: J per hour less that of what ran; UNKNOWN for what ran itself.
        late_versus: share of late requests less that of what ran.
        replicas_mean, replicas_peak: ready and starting ones.
        late_requests: how many.
        late_share: of all requests.
        moved_per_hour: replicas ordered or removed.
    """

    name: str
    role: Role
    detail: str
    J_per_hour: Interval
    replica_cost_per_hour: float
    versus: Interval
    late_versus: Interval
    replicas_mean: float
    replicas_peak: float
    late_requests: float
    late_share: Interval
    moved_per_hour: float

    @property
    def month(self) -> float:
        """J of a month of 730 hours."""
        return self.J_per_hour.mean * HOURS_A_MONTH


@dataclass(frozen=True)
class Agreement:
    """The simulator against what was measured, where late requests were measured.

    Attributes:
        hours: compared: those in which late requests were measured, but for some time behind each gap.
        measured_J, simulated_J: currency per hour of what ran.
        measured_late, simulated_late: requests.
        ready_off: replicas by which simulated and recorded ready replicas differ, mean of the absolute difference.
        startup_seconds: that was simulated; the policy's own is in `policy_startup_seconds`.
        capacity_rps: that was simulated.
        capacity_by_cpu_rps: what the CPU says one replica serves; NaN where that is not known.
    """

    hours: float
    measured_J: float
    simulated_J: float
    measured_late: float
    simulated_late: float
    ready_off: float
    startup_seconds: float
    policy_startup_seconds: float
    capacity_rps: float
    capacity_by_cpu_rps: float

    @property
    def share(self) -> float:
        """By which the simulated J differs, of the measured; NaN where nothing was measured."""
        return self.simulated_J / self.measured_J - 1 if self.measured_J else math.nan


@dataclass(frozen=True)
class DayReport:
    """Everything the page shows.

    Attributes:
        policy: name@version that was simulated.
        recorded: what was written down.
        pieces: the traffic that was simulated.
        service: as it was simulated.
        hours: of counted traffic.
        requests: counted.
        figures: what ran first, then the policy, then the HPAs.
        agreement: of the simulator with what was measured.
        runs: role → per counted interval.
    """

    policy: str
    recorded: Recorded
    pieces: Pieces
    service: AutoscaleParams
    hours: float
    requests: float
    figures: tuple[Figures, ...]
    agreement: Agreement
    runs: Mapping[Role, Ran]

    def of(self, role: Role) -> Figures:
        """The first of a role."""
        return next(f for f in self.figures if f.role == role)

    @property
    def rival(self) -> Figures:
        """What the policy must beat: what ran beside a dry run; the default HPA where the policy itself ran."""
        return self.of("ran" if self.recorded.dry_run else "hpa")


def priced(service: Service, prices: Mapping[str, float]) -> AutoscaleParams:
    """The service's parameters with other prices.

    Raises:
        InputError: a price that is not allowed, or a policy that is not evaluated by cost.
    """
    params = service.env.params
    if not isinstance(params, AutoscaleParams):
        raise InputError(f"report: {service.policy} was made for {service.env.env_id}; allowed: policies for Autoscale-v0")
    try:
        return AutoscaleParams(**{**asdict(params), **prices})
    except ValueError as error:
        raise InputError(f"--{str(error).replace('_', '-', 3)}") from None


def day_report(
    recorded: Recorded,
    service: Service,
    params: AutoscaleParams,
    hpas: Sequence[HpaParameters] = HPA_SETTINGS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DayReport:
    """The figures of recorded decisions.

    Args:
        recorded: what was written down.
        service: the policy and its limits.
        params: prices, SLO and physics, of `priced`.
        hpas: HPAs beside it; the first is shown, and the cheapest.
        progress: called with the steps that are simulated so far, and all that will be.

    Raises:
        InputError: the records know too little to be simulated, or are of another interval.
    """
    if recorded.interval_seconds != service.interval_seconds:
        raise InputError(
            f"records: decisions every {recorded.interval_seconds:g} s, {service.policy} decides every"
            f" {service.interval_seconds:g} s; allowed: records of the same interval (the --config it ran with says so)"
        )
    simulated = as_recorded(recorded, params)
    pieces = cut(recorded, simulated)
    steps = itertools.count(1)
    shadows = service.deciders.shadows
    total = pieces.episodes.num_steps * (SHIFTS + len(shadows) + (2 if hpas else 1))

    def tell() -> None:
        progress(next(steps), total)

    ran, shift = replayed_replicas(recorded, pieces, simulated, tell)
    agreement = _agreement(recorded, pieces, shift, ran, params, simulated)
    if not recorded.dry_run:
        # What was asked for was asked for by the policy: so late everybody's orders would have taken effect.
        simulated = replace(simulated, actuation_lag_steps=shift)
        shift = 0
    looped = [
        run(taken_over(policy, pieces, shift, service.env, limits=service.limits), pieces, simulated, on_step=tell)[0]
        for policy in (service.deciders.policy, *shadows.values())
    ]
    who = "what ran" if recorded.dry_run else f"{service.policy} (ran)"
    told: list[tuple[str, Role, str, Ran]] = [
        (who, "ran", "the recorded replicas, simulated", ran),
        (service.policy, "policy", "in closed loop, within its limits", looped[0]),
        *((name, "shadow", "likewise, a shadow", one) for name, one in zip(shadows, looped[1:], strict=True)),
    ]
    if hpas:
        rule = Hpa([one for one in hpas for _ in range(len(pieces.episodes))], service.env)
        several = taken_over(rule, pieces, shift, service.env, times=len(hpas))
        told += _first_and_cheapest(hpas, run(several, pieces, simulated, len(hpas), tell))
    counted = _Counted(recorded, pieces, simulated)
    figures = tuple(counted.figures(name, role, detail, one, ran) for name, role, detail, one in told)
    runs = {role: one for _, role, _, one in reversed(told)}
    return DayReport(
        service.policy, recorded, pieces, simulated, counted.hours, float(counted.arrived.sum()), figures, agreement, runs
    )


def _first_and_cheapest(settings: Sequence[HpaParameters], found: Sequence[Ran]) -> list[tuple[str, Role, str, Ran]]:
    """Of the HPAs; the cheapest is what nobody could have known beforehand."""
    at = int(np.argmin([one.cost.sum() for one in found]))
    best = f"{_told(settings[at])}: the cheapest of {len(settings)} settings on this very record"
    return [("HPA, defaults", "hpa", _told(settings[0]), found[0]), ("HPA, best", "hpa", best, found[at])]


def _told(settings: HpaParameters) -> str:
    return f"CPU at {100 * settings.target:.0f} %, down after {settings.stabilisation_down_seconds:.0f} s"


class _Counted:
    """The counted intervals, for figures with intervals over whole hours."""

    def __init__(self, recorded: Recorded, pieces: Pieces, params: AutoscaleParams) -> None:
        end = recorded["time"][pieces.rows]
        self._hour = np.floor((end - 1e-6) / 3600.0).astype(np.int64)
        self.weight = np.full(len(end), params.interval_seconds / 3600.0)
        self.hours = float(self.weight.sum())
        self.arrived: Array = pieces.episodes.arrived[pieces.counted]
        self._replica_price = params.price_per_replica_hour
        self._enough = len(np.unique(self._hour)) >= THRESHOLDS.block_hours

    def _of(self, values: Array, weights: Array) -> Interval:
        if not weights.sum():
            return UNKNOWN
        found = block_bootstrap(values, self._hour, weights=weights)
        return found if self._enough else Interval(found.mean, math.nan, math.nan)

    def figures(self, name: str, role: Role, detail: str, one: Ran, ran: Ran) -> Figures:
        """Of one contender."""
        itself = one is ran
        return Figures(
            name,
            role,
            detail,
            self._of(one.cost, self.weight),
            float(one.replicas.mean()) * self._replica_price,
            UNKNOWN if itself else self._of(one.cost - ran.cost, self.weight),
            UNKNOWN if itself else self._of(one.late - ran.late, self.arrived),
            float(one.replicas.mean()),
            float(one.replicas.max()),
            float(one.late.sum()),
            self._of(one.late, self.arrived),
            float(one.moved.sum()) / self.hours,
        )


def _agreement(
    recorded: Recorded, pieces: Pieces, shift: int, ran: Ran, params: AutoscaleParams, simulated: AutoscaleParams
) -> Agreement:
    rows = pieces.rows
    share, ready = recorded["late_share"][rows], recorded["ready"][rows]
    known = np.isfinite(share)
    settled = known & pieces.settled(simulated.startup_steps + math.ceil(simulated.max_wait_seconds / simulated.interval_seconds))
    # Where there are gaps everywhere, everything counts: little that fits says nothing of the rest.
    known = settled if settled.sum() >= _SETTLED_SHARE * known.sum() else known
    arrived = pieces.episodes.arrived[pieces.counted]
    asked = pieces.asked[shift]
    moves = np.abs(np.diff(asked, axis=1, prepend=asked[:, :1]))[pieces.counted]
    late = np.where(known, share, 0.0) * arrived
    hours = float(known.sum()) * simulated.interval_seconds / 3600.0
    replicas = asked[pieces.counted] * simulated.price_per_replica_hour * simulated.interval_seconds / 3600.0
    cost = replicas + late * simulated.price_per_late_request + moves * simulated.price_per_move

    def per_hour(values: Array) -> float:
        return float(values[known].sum()) / hours if hours else math.nan

    seen = np.isfinite(ready)
    return Agreement(
        hours,
        per_hour(cost),
        per_hour(ran.cost),
        float(late[known].sum()),
        float(ran.late[known].sum()),
        float(np.abs(ran.ready - ready)[seen].mean()) if seen.any() else math.nan,
        simulated.startup_seconds,
        params.startup_seconds,
        simulated.replica_capacity_rps,
        _capacity_by_cpu(recorded),
    )


def _capacity_by_cpu(recorded: Recorded) -> float:
    """What a replica serves by its CPU: requests a ready replica over the share of its CPU in use, where that says something."""
    cpu, rate = recorded["cpu_utilisation"][1:], recorded["rate_rps"][1:]
    served = recorded["ready"][:-1] * cpu
    with np.errstate(invalid="ignore", divide="ignore"):
        told = (cpu > 0.2) & (cpu < 0.9) & (served > 0) & np.isfinite(rate) & (np.diff(recorded.moment) == 1)
        return float(np.median((rate / served)[told])) if told.any() else math.nan
