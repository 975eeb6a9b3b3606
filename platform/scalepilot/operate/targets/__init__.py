"""What is scaled. One line a kind: its module in this folder, whose `make(settings, context)` returns a `Target`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from scalepilot.errors import RunError
from scalepilot.operate.kinds import made
from scalepilot.operate.snapshot import Replicas

# kind → module; heavy clients are imported there, when a target of the kind is made.
KINDS = {
    "none": "scalepilot.operate.targets.none",
    "file": "scalepilot.operate.targets.file",
    "kubernetes": "scalepilot.operate.targets.kubernetes",
    "ray_serve": "scalepilot.operate.targets.ray_serve",
    "openfaas": "scalepilot.operate.targets.openfaas",
    "redis_farm": "scalepilot.operate.targets.redis_farm",
}
# written; refused: another wrote first, nothing was changed; forbidden: a right is missing; throttled: asked to come later;
# unknown: no answer, it may or may not have been done, so that it is read again before anything else is written.
Outcome = Literal["written", "refused", "forbidden", "throttled", "unknown"]


# Begins a line of `Target.check` that people should know, but that does not stand in the way.
WARNING = "warning: "


class TargetError(RunError):
    """A target that does not answer, or not as it should."""


@dataclass(frozen=True)
class Written:
    """What became of a write.

    Attributes:
        outcome: as in `Outcome`.
        replicas: what the target has now, where it says so: a gateway may take 12 and keep 5.
        detail: one line, such as "HTTP 422: /spec/replicas is 7".
        retry_after_seconds: how long not to write, where it is throttled.
    """

    outcome: Outcome
    replicas: int | None = None
    detail: str = ""
    retry_after_seconds: float = 0.0


class Target(Protocol):
    """What is scaled. Every call returns within a few seconds; none retries."""

    @property
    def name(self) -> str:
        """For lines a person reads: "deployment shop/web"."""
        ...

    def read(self, now: float) -> Replicas:
        """What it has; what is unknown is None with a `problem`, no exception.

        Args:
            now: Unix seconds.
        """
        ...

    def write(self, replicas: int, expected: int) -> Written:
        """Ask for so many replicas, if `expected` are asked for now.

        Args:
            replicas: wanted.
            expected: `Replicas.spec` of the snapshot that was decided on.
        """
        ...

    def tell(self, reason: str, message: str) -> None:
        """Leave a note where the target's people look (an Event): reason "ScaledUp", message one sentence. May do nothing."""
        ...

    def check(self, *, dry_run: bool) -> list[str]:
        """What stands in the way of running, one line each: missing rights, other owners. Reads only.

        A line that begins with `WARNING` does not stand in the way.

        Args:
            dry_run: whether rights to write are not needed.
        """
        ...

    def close(self) -> None:
        """Let go: leadership, connections."""
        ...


@runtime_checkable
class Shares(Protocol):
    """A target of which one of several processes leads, and tells the others a line."""

    def share(self, text: str) -> None:
        """Tell the others from now on, while this process leads."""
        ...

    def shared(self) -> str:
        """What the leader tells, some seconds old; "" for nothing."""
        ...


@dataclass(frozen=True)
class TargetContext:
    """What a target may need beside its own settings.

    Attributes:
        identity: of this process among others that run the same target.
        dry_run: it must never write, and asks for no leadership.
        interval_seconds: between two decisions.
        feeds: it must never write, either, but others scale it by what they are told here; one of several processes leads.
    """

    identity: str
    dry_run: bool
    interval_seconds: float
    feeds: bool = False


def make_target(settings: Mapping[str, Any], context: TargetContext) -> Target:
    """The target a configuration names.

    Args:
        settings: its `target` section: `kind`, and what that kind takes.
        context: of this process.

    Raises:
        ConfigError: an unknown kind, or a key or value the kind does not take.
        TargetError: it cannot be reached.
    """
    found: Target = made(KINDS, "target", settings, context)
    return found


__all__ = ["KINDS", "WARNING", "Outcome", "Shares", "Target", "TargetContext", "TargetError", "Written", "make_target"]
