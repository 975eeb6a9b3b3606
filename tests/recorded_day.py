"""A day of decisions in virtual time: a simulated service that an HPA scales, and a policy in dry run beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scalepilot.operate.config import Service, load_service, operate_config
from scalepilot.operate.controller import Controller
from scalepilot.operate.ledger import Entry
from scalepilot.operate.metrics import Metrics
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.operate.targets import Written
from scalepilot.policy.rules.command_line import rule_from_text
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.dynamics import AutoscaleState

MIDNIGHT = 1_790_000_000 // 86_400 * 86_400
Changed = Callable[[float, Snapshot], Snapshot]


def service_of(policy: str, params: Mapping[str, Any], **limits: Any) -> Service:
    """A rule that is to decide, for a service with these parameters."""
    return load_service(operate_config({"policy": policy, "service": dict(params), "limits": limits}))


@dataclass
class Cluster:
    """The deployment, its telemetry and its target in one, and what it really cost.

    Args:
        params: of the service as it really is.
        real: the rule that scales it; "" for whoever writes.
        seed: of the arrivals.
        changed: what becomes of each snapshot before the controller sees it.
        early: the rule scales before the controller looks, and not after.
    """

    params: AutoscaleParams
    real: str = "hpa"
    seed: int = 0
    changed: Changed | None = None
    early: bool = False
    cost: float = 0.0
    late: float = 0.0
    requests: float = 0.0
    name: str = "cluster"
    replicas: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        from scalepilot_envs.autoscale.description import describe

        self.env = describe(self.params)
        self.state = AutoscaleState(self.params, 1)
        self.arrivals = np.random.default_rng(self.seed)
        self.rule = rule_from_text(self.real, self.params) if self.real else None
        self.memory: Any = None
        self.state.reset(np.ones(1, np.bool_), self.rate(MIDNIGHT))
        self.spec = int(self.state.total[0])
        self.arrived = float(self.rate(MIDNIGHT)[0] * self.params.interval_seconds)

    def rate(self, now: float) -> np.ndarray:
        """Requests a second: a day's wave with a crowd at noon."""
        hour = (now - MIDNIGHT) / 3600
        crowd = 90 * np.exp(-(((hour % 24 - 12.2) / 0.4) ** 2))
        return np.array([110 - 80 * np.cos(2 * np.pi * hour / 24) + crowd])

    def decide(self, now: float) -> None:
        """The rule that really runs."""
        if self.rule is None:
            return
        decision, self.memory = self.rule.act(self.state.observe().T.astype(np.float32), self.memory)
        self.spec = int(decision.desired_replicas[0])

    def advance(self, now: float) -> None:
        """One interval from now on."""
        self.arrived = float(self.arrivals.poisson(self.rate(now)[0] * self.params.interval_seconds))
        outcome = self.state.step(np.array([float(self.spec)]), np.array([self.arrived]))
        self.cost += float(outcome.cost.total[0])
        self.late += float(outcome.late[0])
        self.requests += self.arrived
        self.replicas.append(self.spec)

    def read(self, now: float, replicas: Replicas | None = None) -> Any:
        """What the target says; as telemetry, the snapshot."""
        if replicas is None:
            rows = self.state.starting[:, 0]
            ages = [
                float((len(rows) - 1 - i) * self.params.interval_seconds) for i in range(len(rows)) for _ in range(int(rows[i]))
            ]
            return Replicas(self.spec, int(self.state.ready[0]), tuple(ages))
        values = self.state.observe()[:, 0]
        readings = {
            f.name: Reading(float(v), "simulator", None if "replica" in f.name else 2.0)
            for f, v in zip(self.env.fields, values, strict=True)
        }
        snapshot = Snapshot(now, readings, replicas, {"requests": Reading(self.arrived, "simulator", 2.0)})
        return snapshot if self.changed is None else self.changed(now, snapshot)

    def write(self, replicas: int, expected: int) -> Written:
        """As a target."""
        self.spec = replicas
        return Written("written", replicas)

    def tell(self, reason: str, message: str) -> None:
        """Nothing."""

    def check(self, *args: Any, **options: Any) -> list[str]:
        """Nothing in the way."""
        return []

    def close(self) -> None:
        """Nothing to let go."""


class Silent(Metrics):
    """Tells nothing: a third of a decision's time."""

    def tell(self, entry: Entry) -> None:
        """Nothing."""


def decisions(cluster: Cluster, service: Service, hours: float, *, dry_run: bool = True, **options: Any) -> Iterator[Entry]:
    """Decide every interval for so long, while the cluster goes on."""
    clock = {"now": float(MIDNIGHT)}
    options = {"metrics": Silent(), "clock": lambda: clock["now"], **options}
    controller = Controller(service, cluster, cluster, dry_run=dry_run, **options)
    for left in reversed(range(round(hours * 3600 / cluster.params.interval_seconds) + 1)):
        if cluster.early:
            cluster.decide(clock["now"])
        yield controller.step()
        if not left:
            return
        if not cluster.early:
            cluster.decide(clock["now"])
        cluster.advance(clock["now"])
        clock["now"] += cluster.params.interval_seconds


def without(*names: str) -> Changed:
    """Fields that are always unknown."""

    def changed(_: float, snapshot: Snapshot) -> Snapshot:
        lost = {name: Reading(None, "simulator", None, "not there") for name in names}
        return replace(snapshot, readings={**snapshot.readings, **lost})

    return changed


def dark(begin_hour: float, end_hour: float) -> Changed:
    """An hour, or some, without telemetry."""

    def changed(now: float, snapshot: Snapshot) -> Snapshot:
        if not begin_hour <= (now - MIDNIGHT) / 3600 < end_hour:
            return snapshot
        readings = {name: Reading(None, r.source, None, "Prometheus does not answer") for name, r in snapshot.readings.items()}
        return replace(snapshot, readings=readings, extra={})

    return changed
