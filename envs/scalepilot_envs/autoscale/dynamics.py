"""The transition of Autoscale-v0 over a leading num_envs axis: one function, everything else wraps it.

Order of a step: apply the target → requests arrive → serve → late and dropped → bill → measure → start-up advances → apply the
target that is due, where targets take effect late.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.actuation import DelayedTargets
from scalepilot_envs.autoscale.disturbances import UNDISTURBED, Disturbances, Interval
from scalepilot_envs.autoscale.latency import waiting_for
from scalepilot_envs.autoscale.measurement import Measurements, Record
from scalepilot_envs.autoscale.objective import StepCost, step_cost
from scalepilot_envs.autoscale.observation import NUM_STARTING_QUARTERS, clock_columns, clock_fields, service_columns
from scalepilot_envs.autoscale.overload import Overload
from scalepilot_envs.autoscale.params import AutoscaleParams, Randomisation
from scalepilot_envs.autoscale.services import Services

Array = NDArray[np.float64]
_INITIAL_UTILISATION = 0.7
# Of a state, one number a service.
_COLUMNS = ("ready", "backlog", "cpu", "late_share", "error_share", "latency_p95_seconds", "capacity_rps", "startup_steps")


class StepOutcome(NamedTuple):
    """What one interval brought, each (num_envs,)."""

    cost: StepCost
    arrived: Array
    late: Array
    dropped: Array
    billed_replicas: Array
    change: Array


class AutoscaleState:
    """The state of `num_envs` services, as arrays.

    Attributes (all float64):
        ready: (num_envs,) replicas that serve.
        starting: (longest start-up, num_envs) replicas by steps still to go; row 0 serves from the next step,
            but for those that are stuck, which stay in it.
        stuck: (the same) how many of them never serve; None where every one does.
        backlog: (num_envs,) requests waiting.
        cpu, late_share, error_share, latency_p95_seconds: (num_envs,) of the newest interval, as they are.
        services: constants in which they may differ.
        measurements: the same and the rates as monitoring shows them: late, noisy or with gaps, if asked for.
        capacity_rps: (num_envs,) requests/s of one replica.
        startup_steps: (num_envs,) integers.
        delayed: targets that are yet to take effect; None where each does at once.
        overload: queues and readiness of the replicas; None where one queue says it all and replicas stay ready.
    """

    def __init__(
        self,
        params: AutoscaleParams,
        num_envs: int,
        longest_startup_steps: int | None = None,
        disturbances: Disturbances | None = None,
        services: Services | None = None,
    ) -> None:
        self.params = params
        self.services = params if services is None else services
        self.num_envs = num_envs
        longest = longest_startup_steps or params.startup_steps
        self.ready = np.zeros(num_envs)
        self.starting = np.zeros((longest, num_envs))
        self.backlog = np.zeros(num_envs)
        self.cpu = np.zeros(num_envs)
        self.late_share = np.zeros(num_envs)
        self.error_share = np.zeros(num_envs)
        self.latency_p95_seconds = np.zeros(num_envs)
        self.capacity_rps = np.full(num_envs, params.replica_capacity_rps)
        self.startup_steps = np.full(num_envs, params.startup_steps)
        d = disturbances or Disturbances(params, Randomisation(), num_envs, 0)
        self.measurements = Measurements(params, num_envs, d.phase)
        self.delayed = DelayedTargets(num_envs, d.longest_lag_steps, d.lag_steps) if d.longest_lag_steps else None
        self.overload = Overload.asked_for(params, num_envs, d.service)
        self._dispersion = d.service.arrival_dispersion if d.service.ranges[0] else None
        self._stuck_share = d.stuck_share
        self.stuck = None if d.stuck_share is None else np.zeros((longest, num_envs))
        self._columns = np.arange(num_envs)
        self._share_startup()

    def of(self, columns: NDArray[np.intp], disturbances: Disturbances, services: Services | None) -> AutoscaleState:
        """Copies of services `columns` (n,) as they are, with what disturbs them and their constants."""
        copies = AutoscaleState(self.params, len(columns), len(self.starting), disturbances, services)
        for name in (
            "ready",
            "backlog",
            "cpu",
            "late_share",
            "error_share",
            "latency_p95_seconds",
            "capacity_rps",
            "startup_steps",
        ):
            setattr(copies, name, getattr(self, name)[columns])
        copies.starting = self.starting[:, columns]
        copies.stuck = None if self.stuck is None else self.stuck[:, columns]
        copies.measurements = self.measurements.of(columns, disturbances.phase)
        copies.delayed = None if self.delayed is None else self.delayed.of(columns, disturbances.lag_steps)
        copies.overload = None if self.overload is None else self.overload.of(columns, disturbances.service)
        copies._share_startup()
        return copies

    def _share_startup(self) -> None:
        steps = np.arange(len(self.starting))[:, None]
        self._quarter = np.minimum(NUM_STARTING_QUARTERS - 1, NUM_STARTING_QUARTERS * steps // self.startup_steps)
        self._same_startup = bool((self.startup_steps == self.startup_steps[0]).all())
        self._quarter_of_row = [int(q) for q in self._quarter[:, 0]]

    def reset(
        self,
        mask: NDArray[np.bool_],
        first_rate_rps: Array,
        capacity_rps: Array | None = None,
        startup_steps: NDArray[np.int64] | None = None,
        first: Interval = UNDISTURBED,
        past_rps: Array | None = None,
    ) -> None:
        """Start episodes where `mask` is true: idle pipeline, no backlog, replicas for 70 % utilisation.

        Args:
            mask: (num_envs,).
            first_rate_rps: (num_envs,) rate of the first interval; it also fills the history.
            capacity_rps: (num_envs,) drawn capacities; unchanged if None.
            startup_steps: (num_envs,) drawn start-up times, at most the pipeline's length; unchanged if None.
            first: what disturbs the interval before the first step.
            past_rps: (num_past, num_envs) rates before the first interval that were measured, the newest last.
        """
        p = self.services
        if capacity_rps is not None:
            self.capacity_rps = np.where(mask, capacity_rps, self.capacity_rps)
        if startup_steps is not None:
            self.startup_steps = np.where(mask, startup_steps, self.startup_steps)
            self._share_startup()
        ready = np.clip(np.ceil(first_rate_rps / (_INITIAL_UTILISATION * self.capacity_rps)), p.min_replicas, p.max_replicas)
        self.ready = np.where(mask, ready, self.ready)
        self.starting[:, mask] = 0.0
        self.backlog = np.where(mask, 0.0, self.backlog)
        self.cpu = np.where(mask, self._utilisation(first_rate_rps, ready * self.capacity_rps), self.cpu)
        self.late_share = np.where(mask, 0.0, self.late_share)
        self.error_share = np.where(mask, 0.0, self.error_share)
        self.latency_p95_seconds = np.where(mask, p.service_time_seconds, self.latency_p95_seconds)
        self.measurements.fill(mask, first_rate_rps, self._record(), first.blur, past_rps)
        if self.delayed is not None:
            self.delayed.fill(mask, ready)
        if self.stuck is not None:
            self.stuck[:, mask] = 0.0
        if self.overload is not None:
            self.overload.reset(mask, self.ready)

    @property
    def total(self) -> Array:
        """(num_envs,) ready + starting."""
        total = self.ready.copy()
        for row in self.starting:
            total += row
        return total

    @property
    def serving(self) -> Array:
        """(num_envs,) ready replicas as a cluster counts them: without those that fail their probe."""
        return self.ready if self.overload is None else self.ready - self.overload.out_replicas

    def _record(self) -> Record:
        return Record(self.cpu, self.latency_p95_seconds, self.late_share, self.error_share, self.backlog)

    def step(self, target: Array, arrived: Array, now: Interval = UNDISTURBED) -> StepOutcome:
        """Advance one interval.

        Args:
            target: (num_envs,) desired replicas; clipped to [min_replicas, max_replicas].
            arrived: (num_envs,) requests that arrive in the interval.
            now: what disturbs the interval.

        Source:
            shared specification `golden/autoscale.py`, replayed by the tests to 1e-9.
        """
        p = self.services
        billed = np.clip(target, p.min_replicas, p.max_replicas)
        before = self.total
        if self.delayed is not None:
            billed = self.delayed.at_once(billed, before)
        change = billed - before
        self._apply(change, now.stuck_chance)

        served_rps = self.ready * self.capacity_rps
        arrival_rps = arrived / p.interval_seconds
        capacity = served_rps * p.interval_seconds
        work = self.backlog + arrived
        fluid_late, draining = None, None
        if self.overload is None:
            left = np.maximum(work - capacity, 0.0)
            backlog = np.minimum(left, p.max_wait_seconds * served_rps)
            dropped = left - backlog
        else:
            backlog, dropped, fluid_late, draining = self.overload.serve(
                self.ready, self.capacity_rps, arrived, p.wait_slo_seconds, p.interval_seconds
            )
            # Of the capacity of all replicas, those that were idle beside a queue included.
            work = np.where(capacity > 0, work - dropped - backlog, work)
        with np.errstate(all="ignore"):
            wait = waiting_for(
                p, arrival_rps, served_rps, self.ready, self.backlog, arrival_dispersion=self._dispersion, fluid_late=fluid_late
            )
            error_share = np.where(arrived > 0, dropped / arrived, 0.0)
        late = arrived * wait.late_share

        self.cpu = self._utilisation(work, capacity)
        self.late_share = np.where(arrived > 0, wait.late_share, 0.0)
        self.error_share = error_share
        if draining is None:
            draining = self._draining(backlog, served_rps, arrived)
        self.latency_p95_seconds = p.service_time_seconds + wait.wait_p95_seconds + draining
        self.backlog = backlog
        self.measurements.add(arrival_rps, self._record(), now.blur)
        self._advance_startup()
        if self.delayed is not None:
            late_change = self.delayed.at_the_end(billed) - billed
            self._apply(late_change, now.stuck_chance)
            change = change + late_change
        return StepOutcome(step_cost(p, billed, late, change), arrived, late, dropped, billed, change)

    def _utilisation(self, work: Array, capacity: Array) -> Array:
        """Share of the capacity in use; without any, 1 where there is work and 0 where there is none."""
        if not self.params.may_be_empty:
            return np.minimum(work / capacity, 1.0)
        return np.where(capacity > 0, np.minimum(work / np.where(capacity > 0, capacity, 1.0), 1.0), work > 0)

    def _draining(self, backlog: Array, served_rps: Array, arrived: Array) -> Array:
        """Seconds until the backlog is served; the longest wait there is where requests come and nothing serves."""
        if not self.params.may_be_empty:
            return backlog / served_rps
        longest = np.where(arrived > 0, self.params.max_wait_seconds, 0.0)
        return np.where(served_rps > 0, backlog / np.where(served_rps > 0, served_rps, 1.0), longest)

    def _apply(self, change: Array, stuck_chance: Array | None) -> None:
        """Order new replicas, or cancel stuck ones first, then the newest orders, and then ready ones."""
        ordered = np.maximum(change, 0.0)
        self._order(self.starting, ordered)
        if self.stuck is not None and stuck_chance is not None:
            # The share of an order, rounded up or down by chance: each replica of it is stuck with that probability.
            self._order(self.stuck, np.minimum(np.floor(ordered * self._stuck_share + stuck_chance), ordered))
        surplus = np.maximum(-change, 0.0)
        if not surplus.any():
            return
        if self.stuck is not None:
            for row, stuck in zip(self.starting[::-1], self.stuck[::-1], strict=True):
                cancelled = np.minimum(surplus, stuck)
                stuck -= cancelled
                row -= cancelled
                surplus -= cancelled
        for row in self.starting[::-1]:
            cancelled = np.minimum(surplus, row)
            row -= cancelled
            surplus -= cancelled
        self.ready = self.ready - surplus

    def _order(self, rows: Array, count: Array) -> None:
        if self._same_startup:
            rows[self.startup_steps[0] - 1] += count
        else:
            rows[self.startup_steps - 1, self._columns] += count

    def _advance_startup(self) -> None:
        """Those in row 0 serve from now on; stuck ones stay there."""
        if self.stuck is None:
            self.ready = self.ready + self.starting[0]
            _shift(self.starting)
            return
        never = self.stuck[0].copy()
        self.ready = self.ready + (self.starting[0] - never)
        for rows in (self.starting, self.stuck):
            _shift(rows)
            rows[0] += never

    @property
    def newest_rate_rps(self) -> Array:
        """(num_envs,) measured arrival rate of the newest interval."""
        return self.measurements.newest_rate_rps

    def observe(self, unix_seconds: Array | None = None) -> NDArray[np.float64]:
        """The named fields, in the order of `observation_fields`.

        Args:
            unix_seconds: (num_envs,) end of the newest interval; needed with a clock.

        Returns:
            (num_fields, num_envs) float64.
        """
        p, n = self.params, self.num_envs
        num_fields = p.history_steps + 9 + NUM_STARTING_QUARTERS
        clock, long_windows = clock_fields(p), self.measurements.long_windows
        service = service_columns(self.services, n) if p.observe_service else []
        before_long = num_fields + len(clock)
        before_service = before_long + len(long_windows)
        out = np.empty((before_service + len(service), n))
        at = p.history_steps
        self.measurements.write(out[: at + 7])
        out[at + 7] = self.serving
        quarters = out[at + 8 : at + 8 + NUM_STARTING_QUARTERS]
        quarters[:] = 0.0
        if self._same_startup:
            for quarter, row in zip(self._quarter_of_row, self.starting, strict=True):
                quarters[quarter] += row
        else:
            for quarter in range(NUM_STARTING_QUARTERS):
                quarters[quarter] = np.where(self._quarter == quarter, self.starting, 0.0).sum(axis=0)
        if self.overload is not None:
            # A pod that fails its probe is not ready, and may be at any moment.
            quarters[0] += self.overload.out_replicas
        out[num_fields - 1] = self.capacity_rps
        if clock:
            if unix_seconds is None:
                raise ValueError("observe_clock: the episode has no clock; give unix_seconds")
            out[num_fields:before_long] = clock_columns(p, unix_seconds)
        out[before_long:before_service] = long_windows
        for at, values in enumerate(service, start=before_service):
            out[at] = values
        return out


def _shift(rows: Array) -> None:
    rows[:-1] = rows[1:]
    rows[-1] = 0.0
