"""Where an observation's fields come from. One line a kind: its module here, whose `make` returns a `Telemetry`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from scalepilot.operate.kinds import made
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.policy import FieldEntry
from scalepilot_envs.description import EnvDescription

KINDS = {
    "prometheus": "scalepilot.operate.telemetry.prometheus",
    "scrape": "scalepilot.operate.telemetry.scrape",
    "redis": "scalepilot.operate.telemetry.redis",
}


@dataclass(frozen=True)
class TelemetryContext:
    """Whose fields are wanted.

    Attributes:
        env: the environment the policy was made for: parameters such as the interval, the service time and the SLO.
        fields: of the policy's observation, in order.
    """

    env: EnvDescription
    fields: Sequence[FieldEntry]


class Telemetry(Protocol):
    """Reads every field of one policy's observation."""

    def read(self, now: float, replicas: Replicas) -> Snapshot:
        """What is known at a moment; what is unknown has a `problem`, no exception, and nothing waits for more than 2 s.

        Args:
            now: Unix seconds of the grid moment.
            replicas: what the target said at this moment: ready and starting replicas are the target's to tell.
        """
        ...

    def check(self, now: float) -> list[str]:
        """What an operator should know before it runs, one line each: scrape interval against the interval, missing metrics."""
        ...

    def close(self) -> None:
        """Let connections go."""
        ...


def make_telemetry(settings: Mapping[str, Any], context: TelemetryContext) -> Telemetry:
    """The telemetry a configuration names.

    Args:
        settings: its `telemetry` section: `kind`, and what that kind takes.
        context: whose fields are wanted.

    Raises:
        ConfigError: an unknown kind, a key or value it does not take or has no use for, or nothing that counts the requests. Any
            other field that nothing measures has a `problem` in every snapshot.
    """
    found: Telemetry = made(KINDS, "telemetry", settings, context)
    return found


__all__ = ["KINDS", "Reading", "Telemetry", "TelemetryContext", "make_telemetry"]
