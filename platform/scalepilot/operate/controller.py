"""The thin shell around `tick`: reads the deployment at every moment of a grid, writes what was decided, and leaves a record."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from scalepilot.errors import printable
from scalepilot.operate.config import Service
from scalepilot.operate.feeds.offer import offer_of
from scalepilot.operate.guard import moved
from scalepilot.operate.ledger import Entry, Given, Ledger, sentence
from scalepilot.operate.metrics import Metrics
from scalepilot.operate.snapshot import Replicas, Snapshot
from scalepilot.operate.targets import Shares, Target, Written
from scalepilot.operate.telemetry import Telemetry
from scalepilot.operate.tick import Mode, Record, TickState, situation, tick

_LOG = logging.getLogger("scalepilot.operate")
# How long a memory is worth going on from: older, everything it says of the deployment may have changed.
RESUME_SECONDS = 300.0
_SHOWN_DECISIONS = 1000
# Which note a mode leaves at the target when it begins.
_NOTES: Mapping[Mode, str] = {
    "degraded": "TelemetryDegraded",
    "holding": "TelemetryLost",
    "fallback": "FallbackActivated",
    "safe": "SafeLevelActivated",
    "paused": "Paused",
    "contested": "Contested",
}


@dataclass
class Controller:
    """Decides once an interval.

    Args:
        service: who decides, within which limits.
        telemetry: where the fields come from.
        target: what is scaled.
        ledger: where decisions are written down; None for nowhere.
        dry_run: nothing is written to the target; others may scale it meanwhile.
        clock: Unix seconds.
        pace: the clock's seconds in a second of the wall; 1 but in a trial.
    """

    service: Service
    telemetry: Telemetry
    target: Target
    ledger: Ledger | None = None
    dry_run: bool = False
    clock: Callable[[], float] = time.time
    pace: float = 1.0
    metrics: Metrics = field(default_factory=Metrics)
    state: TickState = field(default_factory=TickState)
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=_SHOWN_DECISIONS))

    def __post_init__(self) -> None:
        self.interval = self.service.interval_seconds
        self.limits = self.service.limits_of(dry_run=self.dry_run)
        self._asked_state = threading.Lock()
        self._not_before = 0.0
        # Of the newest decision, by a clock that nobody sets.
        self.decided_at = time.monotonic()
        if self.ledger is not None and not self.dry_run:
            self._resume(self.ledger)

    def _resume(self, ledger: Ledger) -> None:
        last = ledger.last(self.clock() - RESUME_SECONDS)
        if last is not None and not last.dry_run and last.policy == self.service.policy:
            # Whether the last write was carried out before the end nobody knows: the target's own word is taken.
            self.state = replace(last.state, asked=None, also_asked=None)
            _LOG.info("resumed from the decision of %s", last.to_json()["at"])

    def pause(self, paused: bool) -> None:
        """Stop scaling, or go on, from the next decision on."""
        with self._asked_state:
            self.state = replace(self.state, pause=paused)

    def change_pause(self) -> bool:
        """Stop scaling, or go on where it is paused; returns whether it is paused now."""
        with self._asked_state:
            self.state = replace(self.state, pause=not self.state.pause)
            return self.state.pause

    def acknowledge(self) -> None:
        """Take the replicas as they are, whoever changed them, and go on."""
        with self._asked_state:
            self.state = replace(self.state, asked=None, also_asked=None, contested_by="")

    def step(self) -> Entry:
        """Read, decide, write, and write it down. Whatever fails outside is in the record, and raises nothing."""
        began = time.perf_counter()
        return self.decide(self.look(), time.perf_counter() - began)

    def decide(self, snapshot: Snapshot, read_seconds: float = 0.0) -> Entry:
        """Decide on a snapshot, write, and write it down; see `step`."""
        read = time.perf_counter()
        with self._asked_state:
            given = Given.of(self.state)
            record, state = tick(snapshot, self.state, self.service.deciders, self.limits, self.interval)
            decided = time.perf_counter()
            record, self.state = self._carried_out(record, state)
        done = time.perf_counter()
        phases = {"read": read_seconds, "decide": decided - read, "write": done - decided}
        record = replace(record, milliseconds={name: round(1000 * seconds, 2) for name, seconds in phases.items()})
        entry = Entry(record, self.state, self.service.policy, self.dry_run, self.interval, given)
        self._note(record)
        self._put_down(entry)
        if self.service.feeds and record.snapshot.replicas.leading and isinstance(self.target, Shares):
            self.target.share(offer_of(record).line())
        return entry

    def look(self) -> Snapshot:
        """What is known now; nothing is written."""
        now = self.clock()
        try:
            replicas = self.target.read(now)
        except Exception as error:  # noqa: BLE001 - what fails outside must not end the loop
            replicas = Replicas(None, problem=_said(error))
        try:
            return self.telemetry.read(now, replicas)
        except Exception as error:  # noqa: BLE001 - likewise; every field is then unknown
            _LOG.warning("telemetry: %s", _said(error))
            return Snapshot(now, {}, replicas)

    def _carried_out(self, record: Record, state: TickState) -> tuple[Record, TickState]:
        target, spec = record.target, record.snapshot.replicas.spec
        if target is None or spec is None:
            return record, state
        outcome = "same" if target == spec else "dry run" if self.dry_run else "feed" if self.service.feeds else ""
        if self.service.feeds and not self.dry_run and record.wanted is not None:
            told = situation(record)
            state = replace(state, offered=(told.time, told.late_share, told.error_share))
        if outcome:
            return replace(record, outcome=outcome), state
        now = record.snapshot.time
        if now < self._not_before <= now + 3600.0:
            return replace(record, outcome="throttled", detail=f"for {self._not_before - now:.0f} s more"), state
        try:
            written = self.target.write(target, spec)
        except Exception as error:  # noqa: BLE001 - it may have been done
            written = Written("unknown", detail=_said(error))
        record = replace(record, outcome=written.outcome, detail=printable(written.detail))
        if written.outcome == "written":
            kept = target if written.replicas is None else written.replicas
            if kept != target:
                record = replace(record, detail=f"the target keeps {kept}" + (f"; {record.detail}" if record.detail else ""))
            return record, replace(state, asked=kept, guard=moved(state.guard, situation(record), kept))
        if written.outcome == "unknown":
            # Either is ours when it is read again.
            return record, replace(state, also_asked=target, guard=moved(state.guard, situation(record), target))
        if written.outcome == "throttled":
            self._not_before = now + written.retry_after_seconds
        return record, state

    def _note(self, record: Record) -> None:
        last = self.entries[-1].record if self.entries else None
        before, replicas = last.mode if last else "starting", record.snapshot.replicas
        if (
            replicas.problem
            and replicas.spec is not None
            and (last is None or last.snapshot.replicas.problem != replicas.problem)
        ):
            # What does not stand in the way has no other line.
            _LOG.warning("%s: %s", printable(self.target.name), printable(replicas.problem))
        reason = ""
        if record.outcome == "written":
            spec = record.snapshot.replicas.spec or 0
            reason = "ScaledUp" if (record.target or 0) > spec else "ScaledDown"
        elif record.mode != before:
            reason = _NOTES.get(record.mode, "Recovered" if before in _NOTES else "")
        if reason and not self.dry_run and record.snapshot.replicas.leading:
            try:
                self.target.tell(reason, sentence(record))
            except Exception as error:  # noqa: BLE001 - a note that is lost changes nothing
                _LOG.warning("note %s: %s", reason, _said(error))

    def _put_down(self, entry: Entry) -> None:
        self.decided_at = time.monotonic()
        self.entries.append(entry)
        self.metrics.tell(entry)
        if self.ledger is None:
            return
        try:
            self.ledger.write(entry)
        except (OSError, ValueError) as error:
            # Not to scale at the busiest hour because a disk is full would be the greater harm.
            self.metrics.lost_records.inc()
            _LOG.error("records: the decision is not written down (%s)", _said(error))

    def run(self, stop: Callable[[], bool], on_entry: Callable[[Entry], None] = lambda entry: None) -> None:
        """Decide at every moment of the grid until `stop` says so. A moment that was missed is counted, never made up for."""
        previous = None
        while not stop():
            entry = self.step()
            on_entry(entry)
            moment = int(entry.record.snapshot.time // self.interval)
            if previous is not None and 1 < moment - previous < 1000:
                self.metrics.missed.inc(moment - previous - 1)
            previous = moment
            self._wait(stop)

    def _wait(self, stop: Callable[[], bool]) -> None:
        """Until the next moment of the grid. Measured by a clock that nobody sets: a jump costs one interval at most."""
        left = self.interval - self.clock() % self.interval
        # Just before a moment: that one was decided on a little early.
        end = time.monotonic() + (left if left > 0.02 * self.interval else left + self.interval) / self.pace
        while not stop() and (rest := end - time.monotonic()) > 0:
            time.sleep(min(rest, 0.2))


def _said(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}"[:300])
