"""What there is to tell an autoscaler: the target of the newest decision, or why there is none. Never a number in its place."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scalepilot.operate.targets import Shares

if TYPE_CHECKING:
    from scalepilot.operate.controller import Controller
    from scalepilot.operate.tick import Record

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

    def line(self) -> str:
        """For the other processes of the same target."""
        return json.dumps(asdict(self), ensure_ascii=False)


Newest = Callable[[], Offer]


def offer_of(record: Record) -> Offer:
    """What a decision offers."""
    if record.target is None or record.wanted is None:
        # What is held is not wanted by anybody: an autoscaler that gets no number holds, too, and shows that it does.
        return Offer(None, f"{record.mode}: {record.reason}" if record.reason else record.mode, record.snapshot.time)
    return Offer(record.target, "", record.snapshot.time)


def told_by(line: str) -> Offer | None:
    """What `Offer.line` wrote, if this is it."""
    try:
        values = json.loads(line)
        replicas, decided = values["replicas"], float(values["decided"])
        sound = replicas is None or (type(replicas) is int and replicas >= 0)
        return Offer(replicas, str(values["problem"]), decided) if sound and math.isfinite(decided) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


class Offers:
    """What a controller offers.

    Args:
        controller: whose newest decision it is. Where another process leads, it is that one's, so that all answer alike.
        max_age_seconds: of a decision that is still offered; None for three intervals.
    """

    def __init__(self, controller: Controller, max_age_seconds: float | None) -> None:
        self._controller = controller
        self.max_age_seconds = _MAX_AGE_INTERVALS * controller.interval if max_age_seconds is None else max_age_seconds

        # At 0 from the start, so that an alert sees who is never asked.
        self._answers = [controller.metrics.feed_answers.labels(name) for name in ("unavailable", "replicas")]

    def newest(self) -> Offer:
        """What there is to tell now."""
        offer = self._newest()
        self._answers[offer.replicas is not None].inc()
        return offer

    def _newest(self) -> Offer:
        controller = self._controller
        if controller.dry_run:
            return Offer(None, "dry run: nothing is offered")
        if not controller.entries:
            return Offer(None, "no decision yet")
        record = controller.entries[-1].record
        ours = offer_of(record)
        if record.mode == "standby" and isinstance(controller.target, Shares) and self._fresh(ours) is ours:
            return self._fresh(told_by(controller.target.shared()) or ours)
        return self._fresh(ours, (time.monotonic() - controller.decided_at) * controller.pace)

    def _fresh(self, offer: Offer, least_age: float = 0.0) -> Offer:
        assert offer.decided is not None
        age = self._controller.clock() - offer.decided
        # A clock that was set back makes no decision newer.
        age = age if abs(age) > self.max_age_seconds else max(age, least_age)
        if abs(age) <= self.max_age_seconds:
            return offer
        return Offer(None, f"no decision for {age:.0f} s (allowed {self.max_age_seconds:.0f} s)", offer.decided)


__all__ = ["METRIC", "Newest", "Offer", "Offers", "offer_of", "told_by"]
