"""What was decided, a JSON line a decision, a file a day (UTC). The last line says where a restart resumes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot.errors import InputError, printable
from scalepilot.files.ownership import check_own, private_folder
from scalepilot.files.stored import parse_json
from scalepilot.operate.guard import Step, state_from_json
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot, utc
from scalepilot.operate.tick import MODES, Record, TickState

_LOG = logging.getLogger("scalepilot.operate")
VERSION = 1
_SUFFIX, _LOCK_FILE = ".jsonl", ".lock"
# Of one line: a policy has at most some hundred fields.
_MAX_LINE_BYTES, _BLOCK_BYTES = 1_000_000, 1 << 16


@dataclass(frozen=True)
class Given:
    """What may change between two decisions without either.

    Attributes:
        is_new: nothing was remembered.
        asked, also_asked, contested_by, pause: as in `TickState`.
    """

    is_new: bool
    asked: int | None
    also_asked: int | None
    contested_by: str
    pause: bool

    @classmethod
    def of(cls, state: TickState) -> Given:
        """Of the state that is about to be decided on."""
        return cls(state == TickState(pause=state.pause), state.asked, state.also_asked, state.contested_by, state.pause)

    def applied(self, state: TickState) -> TickState:
        """The state that was decided on, of what the decision before left."""
        changes = {name: value for name, value in asdict(self).items() if name != "is_new"}
        return replace(TickState() if self.is_new else state, **changes)


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        record: the decision.
        state: what it left to the next.
        policy: name@version of the policy that was to decide.
        dry_run: whether nothing was to be written.
        interval_seconds: between two decisions.
        given: of the state that was decided on, what came from outside since the line before: a restart, a person's pause.
    """

    record: Record
    state: TickState
    policy: str
    dry_run: bool
    interval_seconds: float
    given: Given

    def to_json(self) -> dict[str, Any]:
        """As plain data; readings that are unknown keep their reason."""
        record = self.record
        snapshot = record.snapshot
        return {
            "version": VERSION,
            "time": snapshot.time,
            "at": utc(snapshot.time),
            "policy": self.policy,
            "dry_run": self.dry_run,
            "interval_seconds": self.interval_seconds,
            "mode": record.mode,
            "reason": record.reason,
            "decider": record.decider,
            "spec": snapshot.replicas.spec,
            "wanted": record.wanted,
            "target": record.target,
            "outcome": record.outcome,
            "detail": record.detail,
            "sentence": sentence(record),
            "action": record.action,
            "label": record.label,
            "scores": record.scores,
            "probability": record.probability,
            "steps": [asdict(step) for step in record.steps],
            "shadows": dict(record.shadows),
            "milliseconds": dict(record.milliseconds),
            "fields": {name: _reading(reading) for name, reading in snapshot.readings.items()},
            "extra": {name: _reading(reading) for name, reading in snapshot.extra.items()},
            "replicas": snapshot.replicas.to_json(),
            "given": asdict(self.given),
            "state": state_to_json(self.state),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Entry:
        """As `to_json` wrote it.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        if values["version"] != VERSION or values["mode"] not in MODES:
            raise ValueError(f"version {values['version']!r}, mode {values['mode']!r}")
        snapshot = Snapshot(
            float(values["time"]),
            {name: Reading(**reading) for name, reading in values["fields"].items()},
            Replicas.from_json(values["replicas"]),
            {name: Reading(**reading) for name, reading in values["extra"].items()},
        )
        scores = values["scores"]
        record = Record(
            snapshot,
            values["mode"],
            values["reason"],
            values["decider"],
            None if scores is None else tuple(scores),
            values["probability"],
            values["action"],
            values["label"],
            values["wanted"],
            tuple(Step(**step) for step in values["steps"]),
            values["target"],
            values["shadows"],
            values["outcome"],
            values["detail"],
            values["milliseconds"],
        )
        policy, dry_run, interval = values["policy"], bool(values["dry_run"]), float(values["interval_seconds"])
        return cls(record, tick_state_from_json(values["state"]), policy, dry_run, interval, Given(**values["given"]))


def _reading(reading: Reading) -> dict[str, Any]:
    """Without what is as usual."""
    said = asdict(reading)
    if reading.value is not None and not np.isfinite(reading.value):
        said["value"] = None
    return {name: value for name, value in said.items() if name in ("value", "source") or value not in ("", None, False)}


def state_to_json(state: TickState) -> dict[str, Any]:
    """The state as plain data."""
    memories = {name: {key: column.tolist() for key, column in memory.items()} for name, memory in state.policies.items()}
    return {**asdict(replace(state, policies={})), "policies": memories}


def tick_state_from_json(values: Mapping[str, Any]) -> TickState:
    """As `state_to_json` wrote it.

    Raises:
        KeyError, TypeError, ValueError: it did not.
    """
    memories = {
        name: {key: np.asarray(column, np.float64) for key, column in memory.items()}
        for name, memory in values["policies"].items()
    }
    offered = values.get("offered")
    read = {"guard": state_from_json(values["guard"]), "policies": memories}
    return TickState(**{**values, **read, "offered": None if offered is None else tuple(offered)})


def sentence(record: Record) -> str:
    """The decision as one line: "12 → 15: +25 % (p 0.71); 412 rps rising, 88 % CPU, 2 starting; limits: step up 18 → 15"."""
    spec = record.snapshot.replicas.spec
    if record.target is None:
        stays = "replicas unknown" if spec is None else f"{spec} stays"
        return printable(f"{stays}: {record.mode}{f', {record.reason}' if record.reason else ''}")
    move = f"{spec} stays" if record.target == spec else f"{spec} → {record.target}"
    parts = [f"{move}: {_why(record)}", _seen(record)]
    if record.steps:
        parts.append("limits: " + ", ".join(f"{step.rule} {step.before} → {step.after}" for step in record.steps))
    if record.outcome not in ("", "same", "written"):
        parts.append(f"{record.outcome}{f' ({record.detail})' if record.detail else ''}")
    elif record.outcome == "written":
        # Less, or more, than was asked for.
        parts.append(record.detail)
    # Reasons quote servers.
    return printable("; ".join(part for part in parts if part))


def _why(record: Record) -> str:
    if record.wanted is None:
        return f"{record.mode}, {record.reason}"
    sure = "" if record.probability is None else f" (p {record.probability:.2f})"
    why = f"{record.label}{sure}" if record.label else f"{record.decider} wants {record.wanted}"
    return why if record.mode == "active" and not record.reason else f"{why}; {record.mode}, {record.reason}"


def _seen(record: Record) -> str:
    def value(name: str) -> float | None:
        reading = record.snapshot.readings.get(name)
        return None if reading is None else reading.value

    said = []
    rate, mean = value("request_rate_rps_0"), value("request_rate_mean_rps")
    if rate is not None:
        trend = "" if mean is None or abs(rate - mean) <= 0.1 * mean else " rising" if rate > mean else " falling"
        said.append(f"{rate:.3g} rps{trend}")
    for name, text in (("cpu_utilisation", "CPU"), ("late_share", "late"), ("error_share", "failed")):
        share = value(name)
        if share is not None and (share >= 0.005 or text == "CPU"):
            said.append(f"{100 * share:.0f} % {text}")
    for name, text, scale in (
        ("arrival_rate_per_second", "tasks/s", 1),
        ("worker_queue", "tasks wait", 1),
        ("qos", "% in time", 100),
    ):
        if (number := value(name)) is not None:
            said.append(f"{scale * number:.3g} {text}")
    starting = [value(f"starting_replicas_{i}") or 0.0 for i in range(4)]
    if sum(starting) > 0:
        said.append(f"{sum(starting):.0f} starting")
    return ", ".join(said)


class Ledger:
    """Writes decisions.

    Args:
        folder: made if it is not there, readable and writable by its owner alone.

    Raises:
        InputError: the folder is another user's, or others may write in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder, volumes=True)

    def write(self, entry: Entry) -> None:
        """Append a line, on disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        line = json.dumps(entry.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        path = self.folder / f"{utc(entry.record.snapshot.time)[:10]}{_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            # A line that was cut off by a kill or a full disk must not swallow this one.
            end = os.fstat(descriptor).st_size
            torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            data = ("\n" if torn else "").encode() + line.encode()
            if os.write(descriptor, data) < len(data):
                raise OSError(28, "no space left on the device")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for this process alone; the system lets go of it when the process dies, wherever it ran.

        Raises:
            InputError: another process has it.
        """
        descriptor = os.open(self.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"records: {self.folder} is in use by another process; allowed: a folder of its own") from None
            except OSError:
                # A file system without locks.
                _LOG.warning("%s: cannot be locked; see that no other process writes there", self.folder)
            yield
        finally:
            os.close(descriptor)

    def last(self, not_before: float) -> Entry | None:
        """The newest decision, to go on from; None where it is older than that, or there is none."""
        newest = next(newest_first(self.folder), None)
        return newest if newest is not None and newest.record.snapshot.time >= not_before else None


def day_files(place: Path) -> list[Path]:
    """The files of a folder of records in order, or the one file itself.

    Raises:
        InputError: there is none.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place}: not found; allowed: a folder of records, or one of its files")
    return sorted(path for path in place.iterdir() if path.suffix == _SUFFIX)


def read_entries(place: Path) -> Iterator[Entry]:
    """All decisions of a folder or a file, in order; a line that was cut off, or that is not a decision, is left out.

    Raises:
        InputError: no such place, or somebody else's.
    """
    for path in day_files(place):
        with check_own(path, "records", volumes=True).open("rb") as lines:
            yield from _entries(iter(lambda: lines.readline(_MAX_LINE_BYTES), b""), path)


def newest_first(place: Path) -> Iterator[Entry]:
    """The same from the end on: who wants the newest does not read a day, or months, before it.

    Raises:
        InputError: as `read_entries`.
    """
    for path in reversed(day_files(place)):
        yield from _entries(_from_the_end(check_own(path, "records", volumes=True)), path)


def _from_the_end(path: Path) -> Iterator[bytes]:
    """Lines without their ends, the last first."""
    with path.open("rb") as file:
        at, rest = file.seek(0, os.SEEK_END), b""
        while at > 0:
            size = min(_BLOCK_BYTES, at)
            at = file.seek(at - size)
            rest, *whole = (file.read(size) + rest).split(b"\n")
            yield from reversed(whole)
            if len(rest) > _MAX_LINE_BYTES:
                rest = b""
        yield rest


def _entries(lines: Iterable[bytes], path: Path) -> Iterator[Entry]:
    """What of a file's lines is a decision."""
    foreign = 0
    try:
        for line in filter(None, lines):
            try:
                values = parse_json(line.decode(), str(path))
            except (InputError, UnicodeDecodeError):
                # Cut off by a kill or a full disk, maybe behind a brace; whatever wrote next began a new line.
                continue
            try:
                entry = Entry.from_json(values)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError):
                # Nobody is kept from scaling, or from reading the rest, by a line that somebody else wrote.
                foreign += 1
                continue
            yield entry
    finally:
        if foreign:
            lines_are = "1 line is not a decision" if foreign == 1 else f"{foreign:,} lines are not decisions"
            _LOG.warning("%s: %s of this version; left out", path, lines_are)
