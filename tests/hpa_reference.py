"""Kubernetes' HorizontalPodAutoscaler, one object at a time, in plain Python: what the vectorised rule must equal.

Written from `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go` and `metrics/utilization.go`, branch by branch
and pod by pod; slow, and knows nothing of numpy or of the rule. Integers are integers: CPU is in thousandths of a core, of
which every pod requests `REQUEST`; rates are in thousandths of a request a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

REQUEST = 1000
SYNC_SECONDS = 15


class UnknownMetricError(Exception):
    """A metric that cannot be computed."""


@dataclass
class Event:
    """One change of the count."""

    change: int
    seconds: float
    outdated: bool = False


@dataclass
class Rules:
    """One direction of `behavior`: policies are (kind, value, period in seconds)."""

    policies: list[tuple[str, int, int]]
    select: str = "Max"
    window_seconds: float = 0.0
    tolerance: float = 0.1


@dataclass
class Spec:
    """An HPA's `spec`: targets in whole percent of CPU, and in thousandths of a request a second and pod; None without one."""

    minimum: int
    maximum: int
    up: Rules
    down: Rules
    cpu_percent: int | None = None
    rate_milli: float | None = None


@dataclass
class Cluster:
    """What one sync sees: the count asked for, ready pods, all of their CPU, and the rate."""

    current: int
    ready: int
    cpu_milli: int
    rate_milli: float


@dataclass
class Controller:
    """The controller's memory of one HPA."""

    spec: Spec
    recommendations: list[tuple[int, float]] = field(default_factory=list)
    ups: list[Event] = field(default_factory=list)
    downs: list[Event] = field(default_factory=list)

    def sync(self, cluster: Cluster, now: float) -> int:
        """`reconcileAutoscaler`: the count asked for from now on."""
        spec, current = self.spec, cluster.current
        if not self.recommendations:
            self.recommendations.append((current, now))
        if current == 0 and spec.minimum != 0:
            return current
        if current > spec.maximum:
            desired = spec.maximum
        elif current < spec.minimum:
            desired = spec.minimum
        else:
            try:
                proposed = self._for_metrics(cluster)
            except UnknownMetricError:
                return current
            desired = self._within_rate(current, self._stabilised(current, proposed, now), now)
        if desired != current:
            self._store(current, desired, now)
        return desired

    def _for_metrics(self, cluster: Cluster) -> int:
        known, unknown = [], 0
        for target, replicas in ((self.spec.cpu_percent, self._for_cpu), (self.spec.rate_milli, self._for_rate)):
            if target is None:
                continue
            try:
                known.append(replicas(cluster))
            except UnknownMetricError:
                unknown += 1
        if not known or (unknown and max(known) < cluster.current):
            raise UnknownMetricError
        return max(known)

    def _within(self, ratio: float) -> bool:
        return 1.0 - self.spec.down.tolerance <= ratio <= 1.0 + self.spec.up.tolerance

    def _for_cpu(self, cluster: Cluster) -> int:
        if cluster.ready == 0:
            raise UnknownMetricError
        target, current = self.spec.cpu_percent, cluster.current
        assert target is not None
        each, rest = divmod(cluster.cpu_milli, cluster.ready)
        used = [each + (pod < rest) for pod in range(cluster.ready)]
        starting = current - cluster.ready
        ratio = (sum(used) * 100 // (len(used) * REQUEST)) / target
        if not (starting > 0 and ratio > 1.0):
            return current if self._within(ratio) else math.ceil(ratio * len(used))
        used += [0] * starting
        again = (sum(used) * 100 // (len(used) * REQUEST)) / target
        if self._within(again) or again < 1.0:
            return current
        wanted = math.ceil(again * len(used))
        return current if again > 1.0 and wanted < current else wanted

    def _for_rate(self, cluster: Cluster) -> int:
        target, current = self.spec.rate_milli, cluster.current
        assert target is not None
        if current > 0 and self._within(cluster.rate_milli / (target * current)):
            return current
        return math.ceil(cluster.rate_milli / target)

    def _stabilised(self, current: int, proposed: int, now: float) -> int:
        lowest = highest = proposed
        replaced = None
        for i, (count, seconds) in enumerate(self.recommendations):
            in_up = seconds > now - self.spec.up.window_seconds
            in_down = seconds > now - self.spec.down.window_seconds
            if in_up:
                lowest = min(count, lowest)
            if in_down:
                highest = max(count, highest)
            if seconds < now - self.spec.up.window_seconds and seconds < now - self.spec.down.window_seconds:
                replaced = i
        if replaced is None:
            self.recommendations.append((proposed, now))
        else:
            self.recommendations[replaced] = (proposed, now)
        return min(max(current, lowest), highest)

    def _within_rate(self, current: int, desired: int, now: float) -> int:
        if desired > current:
            most = max(self._limit(self.spec.up, 1, current, now), current)
            return min(desired, most, self.spec.maximum)
        if desired < current:
            fewest = min(self._limit(self.spec.down, -1, current, now), current)
            return max(desired, fewest, self.spec.minimum)
        return desired

    def _limit(self, rules: Rules, sign: int, current: int, now: float) -> int:
        if rules.select == "Disabled":
            return current
        proposals = []
        for kind, value, period in rules.policies:
            added = sum(event.change for event in self.ups if event.seconds > now - period)
            deleted = sum(event.change for event in self.downs if event.seconds > now - period)
            start = current - added + deleted
            if kind == "Pods":
                proposals.append(start + sign * value)
            elif sign > 0:
                proposals.append(math.ceil(start * (1 + value / 100)))
            else:
                proposals.append(int(start * (1 - value / 100)))
        largest_change = rules.select == "Max"
        return max(proposals) if largest_change == (sign > 0) else min(proposals)

    def _store(self, before: int, after: int, now: float) -> None:
        events, rules = (self.ups, self.spec.up) if after > before else (self.downs, self.spec.down)
        longest = max(period for _, _, period in rules.policies)
        replaced = None
        for i, event in enumerate(events):
            event.outdated = event.outdated or event.seconds < now - longest
            if event.outdated:
                replaced = i
        event = Event(abs(after - before), now)
        if replaced is None:
            events.append(event)
        else:
            events[replaced] = event


@dataclass
class Decider:
    """The controller behind an environment that asks every `interval_seconds`: it syncs at 0, 15, 30 … s all the same.

    Syncs that came due since the last decision run one after the other on the metrics of this one. Between them the load stays
    as it is, on the pods that are left, and what was just ordered is not ready.
    """

    controller: Controller
    interval_seconds: int
    decisions: int = 0

    def decide(self, seen: Cluster) -> int:
        """The target of this decision."""
        now = self.decisions * self.interval_seconds
        before = now - self.interval_seconds if self.decisions else -1
        self.decisions += 1
        current = seen.current
        for seconds in range(0, now + 1, SYNC_SECONDS):
            if seconds > before:
                ready = min(seen.ready, current)
                current = self.controller.sync(Cluster(current, ready, seen.cpu_milli, seen.rate_milli), seconds)
        return current
