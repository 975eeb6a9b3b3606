"""Sends a workload's requests at their moments, whether or not the earlier ones are answered (open loop).

A latency is counted from the moment that its request *should* have been sent at. So a service that stands still for five seconds
shows five seconds, and not one slow request behind which the others were never sent (coordinated omission).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalepilot.errors import InputError, RunError
from scalepilot.operate.load.connections import Connections, Waiting
from scalepilot.operate.load.schedule import Arrivals, Schedule
from scalepilot.operate.load.tally import NO_TIME, Tally
from scalepilot.operate.load.target import Request

_LOOK_SECONDS = 0.05
# Open requests are waited for so long after a person stops it.
_STOPPED_SECONDS = 2.0
# Beside the connections.
_OTHER_FILES = 64
STOPPED = "no answer when it was stopped"


@dataclass(frozen=True)
class Limits:
    """What a replay may do.

    Attributes:
        max_rps: a workload that asks for more is refused.
        max_open: requests on their way at a time.
        timeout_seconds: after its moment a request is given up.
    """

    max_rps: float = 1000.0
    max_open: int = 1000
    timeout_seconds: float = 10.0


@dataclass(frozen=True)
class Plan:
    """A replay.

    Attributes:
        request: what is sent.
        schedule: when.
        arrivals: how moments are drawn.
        seed: of these draws.
        limits: see there.
    """

    request: Request
    schedule: Schedule
    arrivals: Arrivals = "recorded"
    seed: int = 0
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        most = float(self.schedule.rates_rps.max())
        if most > self.limits.max_rps * (1 + 1e-9):
            raise InputError(
                f"--max-rps: the workload asks for up to {most:g} requests/s; allowed: {self.limits.max_rps:g}, more with"
                " --max-rps, or fewer requests with --peak-rps"
            )


def replay(
    plan: Plan,
    tally: Tally,
    stop: Callable[[], bool] = lambda: False,
    began: Callable[[], None] = lambda: None,
    tell: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """Send it all, and say what came of it.

    Args:
        plan: what and when.
        tally: counts.
        stop: looked at 20 times a second; then nothing more is sent.
        began: called when the service has taken a connection.
        tell: told how far it is, in seconds.

    Returns:
        The tally's figures, with the longest that this process itself was behind.

    Raises:
        RunError: nobody answers at the address; InputError: more files are needed than a process may open.
    """
    addresses = plan.request.addresses()
    _allow_files(plan.limits.max_open + _OTHER_FILES)
    with _no_pauses():
        return asyncio.run(_Replay(plan, tally, stop, tell).run(addresses, began))


class _Replay:
    """One run of the loop."""

    def __init__(self, plan: Plan, tally: Tally, stop: Callable[[], bool], tell: Callable[[float], None]) -> None:
        self.plan, self.tally, self.stop, self.tell = plan, tally, stop, tell
        self.begin = 0.0
        # The longest between a moment and when this process came to it: the machine, or the process, was too slow.
        self.behind = 0.0
        # Every request of a moment before this one has been handed over.
        self.reached = 0.0

    def clock(self) -> float:
        return time.monotonic() - self.begin

    async def run(self, addresses: list[str], began: Callable[[], None]) -> dict[str, Any]:
        self.begin = time.monotonic()
        connections = Connections(
            self.plan.request,
            addresses,
            self.plan.limits.max_open,
            self.clock,
            lambda waiting, now: self.tally.send(waiting.moment, now),
            lambda waiting, now, status: self.tally.answer(waiting.moment, now, status),
            self._failed,
        )
        try:
            if (problem := await connections.probe()) is not None:
                raise RunError(f"{self.plan.request.url}: {problem}")
            began()
            self.begin = time.monotonic()
            watching = asyncio.create_task(self._watch(connections))
            until = await self._send(connections)
            await self._wait(connections)
            watching.cancel()
        finally:
            await connections.close()
        return self.tally.finish(until) | {"behind_seconds": round(self.behind, 4), "stopped": self.stop()}

    async def _send(self, connections: Connections) -> float:
        """Everything at its moment; returns until when it was sent."""
        for block in self.plan.schedule.blocks(self.plan.arrivals, np.random.default_rng(self.plan.seed)):
            for moment in block.tolist():
                while (left := moment - self.clock()) > 0:
                    await self._pause(left)
                    if self.stop():
                        return self.clock()
                self.reached = moment
                self.behind = max(self.behind, -left)
                self.tally.intend(moment)
                connections.send(Waiting(moment))
            # Answers are read also while it is behind.
            await asyncio.sleep(0)
            if self.stop():
                return self.clock()
        while (left := self.plan.schedule.seconds - self.clock()) > 0 and not self.stop():
            await self._pause(left)
        self.reached = self.plan.schedule.seconds
        return min(self.clock(), self.plan.schedule.seconds)

    async def _pause(self, seconds: float) -> None:
        self.reached = self.clock()
        await asyncio.sleep(min(seconds, _LOOK_SECONDS))

    async def _wait(self, connections: Connections) -> None:
        """For what is still to be answered."""
        given_up = self.clock() + (_STOPPED_SECONDS if self.stop() else self.plan.limits.timeout_seconds + 1.0)
        while connections.oldest() is not None and self.clock() < given_up:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.stop():
                given_up = min(given_up, self.clock() + _STOPPED_SECONDS)
        while connections.queue:
            self.tally.fail(connections.queue.popleft().moment, STOPPED)
        for connection in list(connections.busy.values()):
            connection.give_up(STOPPED)

    async def _watch(self, connections: Connections) -> None:
        """Give up what takes too long, and hand over the intervals that are over."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self.clock()
            connections.expire(now - self.plan.limits.timeout_seconds)
            oldest = connections.oldest()
            self.tally.settle(self.reached if oldest is None else min(oldest, self.reached))
            self.tell(min(now, self.plan.schedule.seconds))

    def _failed(self, waiting: Waiting, kind: str) -> None:
        waited = self.clock() - waiting.moment
        self.tally.fail(waiting.moment, kind, waited if kind in (NO_TIME, "timeout") else None)


def _allow_files(many: int) -> None:
    """Let this process open so many files.

    Raises:
        InputError: the system does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < many:
        if hard != resource.RLIM_INFINITY and hard < many:
            raise InputError(f"--max-open: {many - _OTHER_FILES} is not allowed; allowed: {hard - _OTHER_FILES} (ulimit -n)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (many, hard))


@contextlib.contextmanager
def _no_pauses() -> Iterator[None]:
    """What is there already is not looked through for garbage while it runs."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


__all__ = ["STOPPED", "Limits", "Plan", "replay"]
