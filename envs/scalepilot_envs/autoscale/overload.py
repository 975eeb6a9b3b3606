"""Overload as replicas live through it: readiness probes that fail, and a backlog that stays where it was sent.

Between two moments (a probe is sent, its result comes, the interval ends) everything is linear: those are the steps taken here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.latency import fluid_late_share
from scalepilot_envs.autoscale.own_or_drawn import OwnOrDrawn
from scalepilot_envs.autoscale.params import AutoscaleParams

Array = NDArray[np.float64]
# A share of the replicas below which their own backlog is not in the 95 % latency.
_P95_SHARE = 0.05


class Served(NamedTuple):
    """What one interval did to the queues, each (num_envs,).

    Attributes:
        backlog: requests that wait at its end.
        dropped: requests that met no ready replica, or a full queue.
        fluid_late_share: share of the arrivals that were dropped or met too long a queue.
        draining_seconds: until the queue of the 95 % worst is empty.
    """

    backlog: Array
    dropped: Array
    fluid_late_share: Array
    draining_seconds: Array


class Overload:
    """The queues and the readiness of `num_envs` services.

    A replica whose queue takes longer than the timeout fails its probe; after so many failures in a row it gets no more traffic
    and works off its queue, until a probe succeeds. Replicas of a row are alike.

    Args:
        params: the service.
        num_envs: services.
        timeout_seconds: (num_envs,) of the probe; inf where none is sent. Read again in each step: an episode may draw another.
        period_seconds: (num_envs,) between two probes; read again, too.

    Attributes:
        replicas: (rows, num_envs) that serve or are out. Row 0 holds the backlog; with `backlog_stays`, row 1 are those that
            came later.
        backlog: (rows, num_envs) requests that wait before them.
        out: (rows, num_envs) whether they are not ready.
    """

    def __init__(self, params: AutoscaleParams, num_envs: int, timeout_seconds: Array, period_seconds: Array) -> None:
        rows = 2 if params.backlog_stays else 1
        self._params = params
        self._timeout, self._period = timeout_seconds, period_seconds
        self.replicas = np.zeros((rows, num_envs))
        self.backlog = np.zeros((rows, num_envs))
        self.out = np.zeros((rows, num_envs), dtype=np.bool_)
        self._failures = np.zeros((rows, num_envs), dtype=np.int64)
        self._fails = np.zeros((rows, num_envs), dtype=np.bool_)
        self._under_way = np.zeros(num_envs, dtype=np.bool_)
        self._until = np.zeros(num_envs)
        self._answered = np.zeros(num_envs)

    @classmethod
    def asked_for(cls, params: AutoscaleParams, num_envs: int, service: OwnOrDrawn) -> Overload | None:
        """What the service asks for; None where replicas stay ready and a backlog is everybody's."""
        if not (params.backlog_stays or service.probes):
            return None
        return cls(params, num_envs, service.readiness_timeout_seconds, service.readiness_period_seconds)

    def of(self, columns: NDArray[np.intp], service: OwnOrDrawn) -> Overload:
        """Copies of services `columns` (n,) as they are, with their probes."""
        copies = Overload(self._params, len(columns), service.readiness_timeout_seconds, service.readiness_period_seconds)
        for mine, theirs in zip(copies._per_row, self._per_row, strict=True):
            mine[:] = theirs[:, columns]
        for name in ("_under_way", "_until", "_answered"):
            setattr(copies, name, getattr(self, name)[columns])
        return copies

    def reset(self, mask: NDArray[np.bool_], ready: Array) -> None:
        """Start episodes where `mask` is true: all ready, no queue, the first probe half a period away."""
        for values in self._per_row:
            values[:, mask] = 0
        self.replicas[0, mask] = ready[mask]
        self._under_way[mask] = False
        self._until[mask] = 0.5 * self._period[mask]

    @property
    def _per_row(self) -> tuple[NDArray[Any], ...]:
        return self.replicas, self.backlog, self.out, self._failures, self._fails

    @property
    def out_replicas(self) -> Array:
        """(num_envs,) replicas that have started and are not ready."""
        return np.asarray((self.replicas * self.out).sum(axis=0))

    def serve(
        self, ready: Array, capacity_rps: Array, arrived: Array, wait_slo_seconds: Array | float, interval_seconds: Array | float
    ) -> Served:
        """One interval.

        Args:
            ready: (num_envs,) replicas that have started.
            capacity_rps: (num_envs,) requests/s of one.
            arrived: (num_envs,) requests, evenly over the interval.
            wait_slo_seconds: a longer wait is late.
            interval_seconds: its length.
        """
        self._match(ready)
        speed = self.replicas * capacity_rps
        rate = arrived / interval_seconds
        left = np.full(arrived.shape, 1.0) * interval_seconds
        late, failed = np.zeros_like(arrived), np.zeros_like(arrived)
        with np.errstate(all="ignore"):
            calm = self._calm(speed, rate, interval_seconds)
            while left.any():
                # Where every probe succeeds, none needs a step.
                span = np.where(calm, left, np.minimum(left, self._until))
                taking = np.where(self.out, 0.0, self.replicas)
                total = taking.sum(axis=0)
                coming = np.where(total > 0, rate / total, 0.0) * taking
                slope = coming - speed
                share = fluid_late_share(slope, wait_slo_seconds * speed - self.backlog, np.where(span > 0, span, 1.0))
                late += (share * coming).sum(axis=0) * span
                failed += np.where(total > 0, 0.0, rate) * span
                self.backlog = np.maximum(self.backlog + slope * span, 0.0)
                left = left - span
                self._until = np.where(calm, self._until, self._until - span)
                self._probe(speed, ~calm & (self._until <= 0.0))
            self._skip(calm, interval_seconds)
            backlog = np.minimum(self.backlog, self._params.max_wait_seconds * speed)
            dropped = (self.backlog - backlog).sum(axis=0) + failed
            self.backlog = backlog
            seen = self.replicas > _P95_SHARE * self.replicas.sum(axis=0)
            draining = np.where(seen, backlog / speed, 0.0).max(axis=0)
            none = (arrived > 0) & (ready <= 0)
            draining = np.where(none, self._params.max_wait_seconds, draining)
            fluid = np.where(arrived > 0, np.minimum((late + failed) / arrived, 1.0), 0.0)
        return Served(backlog.sum(axis=0), dropped, fluid, draining)

    @property
    def _limit_seconds(self) -> Array:
        """(num_envs,) wait that fails a probe; none does where the queue is full before."""
        return np.where(self._timeout < self._params.max_wait_seconds, self._timeout, np.inf)

    def _calm(self, speed: Array, rate: Array, interval_seconds: Array | float) -> NDArray[np.bool_]:
        """(num_envs,) where all replicas are ready and stay so for the whole interval."""
        total = self.replicas.sum(axis=0)
        slope = np.where(total > 0, rate / total, 0.0) * self.replicas - speed
        longest = np.maximum(self.backlog, self.backlog + slope * interval_seconds)
        passed = (longest <= self._limit_seconds * speed) & ~self.out & ~self._fails & (self._failures == 0)
        return np.asarray((passed | (self.replicas == 0.0)).all(axis=0))

    def _skip(self, calm: NDArray[np.bool_], interval_seconds: Array | float) -> None:
        """The time until the next probe, after an interval of probes that succeeded."""
        until = self._until + np.where(self._under_way, self._period - self._answered, 0.0)
        self._until = np.where(calm, (until - interval_seconds) % self._period, self._until)
        self._under_way = self._under_way & ~calm

    def _probe(self, speed: Array, due: NDArray[np.bool_]) -> None:
        """Send the probes that are due, and take note of the results that are."""
        if not due.any():
            return
        # What comes back is what was sent: a probe waits as long as a request would.
        sent, back = due & ~self._under_way, due & self._under_way
        self._fails = np.where(sent, self.backlog > self._limit_seconds * speed, self._fails)
        self._failures = np.where(back, np.where(self._fails, self._failures + 1, 0), self._failures)
        self.out = np.where(back, self._failures >= self._params.readiness_failures, self.out)
        worst = np.where(self.replicas > 0, self.backlog / speed, 0.0).max(axis=0)
        answered = np.where(sent, np.minimum(np.minimum(worst, self._timeout), self._period), self._answered)
        self._answered = answered
        self._until = np.where(sent, answered, np.where(back, self._period - answered, self._until))
        self._under_way = np.where(due, sent, self._under_way)

    def _match(self, ready: Array) -> None:
        """Replicas come with an empty queue; those that leave, the newest first, hand theirs to the others."""
        if len(self.replicas) == 1:
            # A replica that comes takes its share of the queue, and of the readiness; the first one finds neither.
            for flags in (self.out, self._failures, self._fails):
                flags[0] = np.where(self.replicas[0] > 0.0, flags[0], 0)
            self.replicas = ready[None].copy()
            return
        added = np.maximum(ready - self.replicas.sum(axis=0), 0.0)
        busy = (self.backlog > 0.0) | (self.out & (self.replicas > 0.0))
        swap = busy[1] & ~busy[0]
        # Those with a queue that are joined by others become the old ones; where nobody has one, all are alike.
        join = ~busy.any(axis=0) | (busy.all(axis=0) & (added > 0.0))
        for values in self._per_row:
            values[:] = np.where(swap, values[::-1], values)
        for values in (self.replicas, self.backlog):
            values[0] += np.where(join, values[1], 0.0)
            values[1] = np.where(join, 0.0, values[1])
        none = self.replicas[1] == 0.0
        for flags in (self.out, self._failures, self._fails):
            flags[1] = np.where(none, 0, flags[1])
        newer = np.where(busy.any(axis=0), added, 0.0)
        self.replicas += np.array([added - newer, newer])
        gone = np.maximum(self.replicas.sum(axis=0) - ready, 0.0)
        newer = np.minimum(gone, self.replicas[1])
        with np.errstate(all="ignore"):
            handed = np.where(newer > 0, self.backlog[1] * newer / self.replicas[1], 0.0)
        self.backlog += np.array([handed, -handed])
        self.replicas -= np.array([gone - newer, newer])
