"""A recorded time decided again: by the same policy with the same result, or by another to see what it would have wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scalepilot.errors import InputError
from scalepilot.operate.config import Service
from scalepilot.operate.ledger import Entry, read_entries
from scalepilot.operate.snapshot import Reading, Snapshot
from scalepilot.operate.tick import Record, TickState, tick
from scalepilot.policy import unmasked


def replayed(place: Path, service: Service) -> Iterator[tuple[Entry, Record]]:
    """Every recorded decision, and what the service decides on the same snapshot.

    The recorded policy meets the state that was recorded: then both are the same. Another policy keeps its own memory, and
    meets the replicas that there really were. What the configuration says of the service, such as the price of a late request,
    holds in place of what was recorded.

    Args:
        place: a folder of records, or one file.
        service: who decides.

    Raises:
        InputError: no records, damaged ones, or of an observation this policy does not take.
    """
    state, first = TickState(), True
    for entry in read_entries(place):
        if first:
            _check_fields(place, entry, service)
            first = False
        same_policy = entry.policy == service.policy
        # What another policy wanted was not done: nobody else changed the replicas for it.
        state = (
            entry.given.applied(state) if same_policy else replace(state, asked=None, contested_by="", pause=entry.given.pause)
        )
        limits = service.limits_of(dry_run=entry.dry_run)
        again, after = tick(_as_said(entry.record.snapshot, service), state, service.deciders, limits, entry.interval_seconds)
        state = entry.state if same_policy else after
        yield entry, again


def _as_said(snapshot: Snapshot, service: Service) -> Snapshot:
    said = {
        name: Reading(value, "config service")
        for name, value in service.constants.items()
        if name in service.said or name not in snapshot.readings
    }
    return replace(snapshot, readings={**snapshot.readings, **said}) if said else snapshot


def _check_fields(place: Path, entry: Entry, service: Service) -> None:
    known = {*entry.record.snapshot.readings, *service.constants}
    for f in unmasked(service.deciders.policy.spec.observation_fields):
        if f.name not in known and entry.record.snapshot.readings:
            raise InputError(f"{place}: has no {f.name}, which {service.policy} needs; allowed: policies of the same fields")
