"""What is known of a deployment at one moment. What is unknown is None with a reason, never 0."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# A reading's problem where it takes two moments to know it, and this is the first.
PENDING = "is counted from now on"


@dataclass(frozen=True)
class Reading:
    """One field of the observation.

    Attributes:
        value: in the field's unit; None where it is unknown.
        source: where it comes from, as a person would say it: "prometheus http_requests_total", "kubernetes", "config".
        age_seconds: of its newest sample at the snapshot's time; None for what does not age.
        problem: why it is unknown, or what was assumed for it; "" where it was measured.
        assumed: a documented stand-in and not a measurement; the policy is then run as degraded.
    """

    value: float | None
    source: str
    age_seconds: float | None = None
    problem: str = ""
    assumed: bool = False


@dataclass(frozen=True)
class Replicas:
    """What a target says of itself.

    Attributes:
        spec: replicas asked for; None where it does not answer.
        ready: replicas that serve.
        starting_ages_seconds: since each replica that is not ready yet was made; None where nobody says.
        rolling_out: another version is on its way: replicas come and go without us.
        paused: directions in which people have forbidden it to be scaled: "in", "out".
        owners: others that scale it: "HorizontalPodAutoscaler web".
        leading: whether this process may write, of several that run.
        problem: why something is unknown.
    """

    spec: int | None
    ready: int | None = None
    starting_ages_seconds: tuple[float, ...] | None = None
    rolling_out: bool = False
    paused: frozenset[str] = frozenset()
    owners: tuple[str, ...] = ()
    leading: bool = True
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "paused": sorted(self.paused)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Replicas:
        """As `to_json` wrote it."""
        ages = values.get("starting_ages_seconds")
        return cls(
            **{
                **values,
                "starting_ages_seconds": None if ages is None else tuple(ages),
                "paused": frozenset(values.get("paused", ())),
                "owners": tuple(values.get("owners", ())),
            }
        )


@dataclass(frozen=True)
class Snapshot:
    """A deployment at one moment.

    Attributes:
        time: Unix seconds of the grid moment it belongs to.
        readings: observation field → what is known of it.
        replicas: what the target says.
        extra: further measurements that no policy sees but the guard and the report need, such as `requests` of the interval.
    """

    time: float
    readings: Mapping[str, Reading]
    replicas: Replicas
    extra: Mapping[str, Reading] = field(default_factory=dict)


def utc(unix_seconds: float) -> str:
    """A moment as people write it: "2026-11-30T07:45:15Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_seconds))
