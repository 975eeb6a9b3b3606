"""What there is to tell an autoscaler: the target of the newest decision, or why there is none. Never a number in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalepilot.operate.controller import Controller

# What autoscalers call the number.
METRIC = "desired-replicas"
_MAX_AGE_INTERVALS = 3.0


@dataclass(frozen=True)
class Offer:
    """The newest target.

    Attributes:
        replicas: to have; None where nobody has decided, or too long ago: the autoscaler is told of an error and holds.
        problem: why there is none.
        decided: Unix seconds of the decision.
    """

    replicas: int | None
    problem: str = ""
    decided: float | None = None


Newest = Callable[[], Offer]


class Offers:
    """What a controller offers.

    Args:
        controller: whose newest decision it is.
        max_age_seconds: of a decision that is still offered; None for three intervals.
    """

    def __init__(self, controller: Controller, max_age_seconds: float | None) -> None:
        self._controller = controller
        self.max_age_seconds = _MAX_AGE_INTERVALS * controller.interval if max_age_seconds is None else max_age_seconds

    def newest(self) -> Offer:
        """What there is to tell now."""
        offer = self._newest()
        self._controller.metrics.feed_answers.labels("replicas" if offer.problem == "" else "unavailable").inc()
        return offer

    def _newest(self) -> Offer:
        if self._controller.dry_run:
            return Offer(None, "dry run: nothing is offered")
        if not self._controller.entries:
            return Offer(None, "no decision yet")
        record = self._controller.entries[-1].record
        decided = record.snapshot.time
        age = self._controller.clock() - decided
        # A clock that was set back makes no decision newer.
        if abs(age) > self.max_age_seconds:
            return Offer(None, f"no decision for {age:.0f} s (allowed {self.max_age_seconds:.0f} s)", decided)
        if record.target is None or record.wanted is None:
            # What is held is not wanted by anybody: an autoscaler that gets no number holds, too, and shows that it does.
            return Offer(None, f"{record.mode}: {record.reason}" if record.reason else record.mode, decided)
        return Offer(record.target, "", decided)


__all__ = ["METRIC", "Newest", "Offer", "Offers"]
