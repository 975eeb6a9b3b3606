"""Recorded decisions as columns: read once, a line at a time, whatever happened to the clock or the file meanwhile."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.operate.config import Service
from scalepilot.operate.ledger import Entry, sentence
from scalepilot.operate.snapshot import Reading
from scalepilot.operate.tick import DECIDED, MODES, Mode, problem_of
from scalepilot_envs.description import is_mask

Array = NDArray[np.float64]
NAN = math.nan
# Rates of the intervals before the newest, which tell of moments that were missed.
HISTORY = tuple(f"request_rate_rps_{i}" for i in range(1, 8))
_READ = ("ready_replicas", "late_share", "error_share", "cpu_utilisation", "replica_capacity_rps", "request_rate_mean_rps")
_COLUMNS = ("time", "spec", "ready", "target", "rate_rps", "rate_age_seconds", "oldest_starting_seconds", *_READ, *HISTORY)
# Of the interval that ended when the newest sample was taken.
_MEASURED = ("rate_rps", "late_share", "error_share", "cpu_utilisation")
_HOUR = 3600.0
_TOO_OLD = re.compile(r"^\d+ s old, allowed \d+ s")


@dataclass
class FieldHealth:
    """How often a field could be used.

    Attributes:
        name: of the field.
        required: whether the policy cannot do without.
        known: decisions at which it was measured, and new enough.
        assumed: of these, where something stood in for a measurement.
        asked: decisions in all.
        ages_seconds: of those that age.
        sources: where it came from → decisions.
        problems: why it could not be used → decisions.
    """

    name: str
    required: bool
    known: int = 0
    assumed: int = 0
    asked: int = 0
    ages_seconds: array[float] = field(default_factory=lambda: array("f"))
    sources: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def known_share(self) -> float:
        """Of the decisions."""
        return self.known / self.asked if self.asked else NAN

    def age_seconds(self, percent: float) -> float:
        """A percentile of its age; NaN where it does not age."""
        return float(np.percentile(np.frombuffer(self.ages_seconds, np.float32), percent)) if len(self.ages_seconds) else NAN

    def add(self, reading: Reading | None, problem: str) -> None:
        """One decision's reading."""
        self.asked += 1
        if problem:
            # How old exactly differs from decision to decision.
            self.problems[_TOO_OLD.sub("too old", problem)] += 1
        else:
            self.known += 1
        if reading is None:
            return
        self.assumed += not problem and reading.assumed
        if reading.source:
            self.sources[reading.source] += 1
        if reading.value is not None and reading.age_seconds is not None:
            self.ages_seconds.append(reading.age_seconds)


@dataclass(frozen=True)
class Spell:
    """Decisions in a row in one mode.

    Attributes:
        mode: see `Mode`.
        reason: of the first of them that has one.
        begin, end: Unix seconds of the first and the last.
        decisions: how many.
    """

    mode: Mode
    reason: str
    begin: float
    end: float
    decisions: int = 1


@dataclass(frozen=True)
class Disagreement:
    """A decision that differs much from what really ran.

    Attributes:
        time: Unix seconds.
        spec: replicas that were asked for.
        target: replicas that the policy wanted, within its limits.
        sentence: why.
    """

    time: float
    spec: int
    target: int
    sentence: str

    @property
    def size(self) -> float:
        """Logarithm of the ratio: half and twice as many are equally far away."""
        return abs(math.log((self.target + 1) / (self.spec + 1)))


@dataclass(frozen=True)
class Recorded:
    """Decisions of one kind on one grid of moments.

    Attributes:
        policies: name@version → decisions it was to make; that of the newest decision comes last.
        dry_run: whether nothing was written.
        interval_seconds: of the grid.
        moment: (n,) int64 number of the grid moment, rising; moments without a decision are missing.
        columns: (n,) each, NaN where unknown: `time` (Unix seconds), `spec`, `ready`, `target` (replicas), `rate_rps` (of the
            interval that ends here), `oldest_starting_seconds` (0 where nothing starts), and fields of the observation. What
            was measured stands where it belongs, whatever the age of the samples.
        fields: name → its health.
        modes: mode → decisions.
        spells: all of them in order.
        limited: rule of the guard → decisions it changed.
        faults: decisions for which the policy gave no sound answer.
        disagreements: the largest of each hour, largest first.
        left_out: what else was recorded and is not looked at, a sentence each.
    """

    policies: Counter[str]
    dry_run: bool
    interval_seconds: float
    moment: NDArray[np.int64]
    columns: dict[str, Array]
    fields: dict[str, FieldHealth]
    modes: Counter[Mode]
    spells: list[Spell]
    limited: Counter[str]
    faults: int
    disagreements: list[Disagreement]
    left_out: list[str]

    def __len__(self) -> int:
        return len(self.moment)

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    @property
    def policy(self) -> str:
        """Of the newest decision."""
        return list(self.policies)[-1]

    @property
    def begin(self) -> float:
        """Unix seconds of the first decision."""
        return float(self["time"][0])

    @property
    def end(self) -> float:
        """Unix seconds of the last."""
        return float(self["time"][-1])

    def gaps(self, longer_than: int) -> list[tuple[float, float]]:
        """(from, to) Unix seconds between two decisions that are further apart than so many intervals."""
        at = np.flatnonzero(np.diff(self.moment) > longer_than)
        time = self["time"]
        return [(float(time[i]), float(time[i + 1])) for i in at]


class _Columns:
    """Collects decisions of one kind."""

    def __init__(self, first: Entry, service: Service) -> None:
        self.dry_run, self.interval, self._service = first.dry_run, first.interval_seconds, service
        self._values = {name: array("d") for name in _COLUMNS}
        self._moment = array("q")
        self._policies: Counter[str] = Counter()
        optional = service.deciders.at_rest
        names = [f.name for f in service.deciders.fields if not is_mask(f.name)]
        self._fields = {name: FieldHealth(name, name not in optional) for name in names}
        self._modes: Counter[Mode] = Counter()
        self._spells: list[Spell] = []
        self._limited: Counter[str] = Counter()
        self._faults = 0
        self._hours: dict[int, Disagreement] = {}

    def __len__(self) -> int:
        return len(self._moment)

    def add(self, entry: Entry) -> None:
        """One decision."""
        record = entry.record
        snapshot, replicas = record.snapshot, record.snapshot.replicas
        self._moment.append(round(snapshot.time / self.interval))
        count = self._policies.pop(entry.policy, 0)
        self._policies[entry.policy] = count + 1
        values = {name: self._value(snapshot.readings.get(name)) for name in (*_READ, *HISTORY)}
        counted, newest = snapshot.extra.get("requests"), snapshot.readings.get("request_rate_rps_0")
        requests = self._value(counted)
        rate = requests / self.interval if math.isfinite(requests) else self._value(newest)
        age = newest.age_seconds if newest is not None else None
        ages = replicas.starting_ages_seconds
        ready = values["ready_replicas"] if replicas.ready is None else float(replicas.ready)
        values |= {
            "time": snapshot.time,
            "spec": NAN if replicas.spec is None else float(replicas.spec),
            "ready": ready,
            "target": NAN if record.target is None else float(record.target),
            "rate_rps": rate if rate >= 0 else NAN,
            "rate_age_seconds": NAN if age is None else age,
            "oldest_starting_seconds": NAN if ages is None else max(ages, default=0.0),
        }
        for name, column in self._values.items():
            column.append(values[name])
        self._health(entry)
        self._mode(entry)
        self._limited.update({step.rule for step in record.steps})
        if record.target is not None and replicas.spec is not None and record.target != replicas.spec:
            found = Disagreement(snapshot.time, replicas.spec, record.target, "")
            hour = int(snapshot.time // _HOUR)
            if hour not in self._hours or found.size > self._hours[hour].size:
                self._hours[hour] = Disagreement(found.time, found.spec, found.target, sentence(record))

    def _value(self, reading: Reading | None) -> float:
        """What was measured; NaN where it is unknown, too old, or only assumed."""
        if reading is None or reading.assumed or problem_of(reading, self._service.limits, self.interval, optional=True):
            return NAN
        return float(reading.value or 0.0)

    def _health(self, entry: Entry) -> None:
        limits, readings = self._service.limits, entry.record.snapshot.readings
        for name, health in self._fields.items():
            reading = readings.get(name)
            problem = "nothing measures it"
            if reading is not None:
                problem = problem_of(reading, limits, self.interval, optional=not health.required)
            health.add(reading, problem)

    def _mode(self, entry: Entry) -> None:
        record, time = entry.record, entry.record.snapshot.time
        self._modes[record.mode] += 1
        # The fallback rule has decided, or nobody: the policy's answer was not sound.
        self._faults += record.mode in DECIDED and (record.decider != entry.policy or "gave no number" in record.reason)
        last = self._spells[-1] if self._spells else None
        if last is not None and last.mode == record.mode and 0 <= time - last.end < 1.5 * self.interval:
            self._spells[-1] = Spell(last.mode, last.reason or record.reason, last.begin, time, last.decisions + 1)
        else:
            self._spells.append(Spell(record.mode, record.reason, time, time))

    def recorded(self, left_out: list[str]) -> Recorded:
        """What was collected, in the order of the clock."""
        moment = np.frombuffer(self._moment, np.int64)
        # Where a clock was set back some moments were decided on twice: the later decision counts.
        reversed_first = np.unique(moment[::-1], return_index=True)[1]
        rows = len(moment) - 1 - reversed_first
        twice = len(moment) - len(rows)
        if twice:
            told = "1 moment was" if twice == 1 else f"{twice:,} moments were"
            why = "a restart, or a clock that was set back"
            left_out = [*left_out, f"{told} decided on twice ({why}); the later decision counts"]
        columns = {name: np.frombuffer(values, np.float64)[rows] for name, values in self._values.items()}
        columns = _in_place(columns, moment[rows], self.interval)
        return Recorded(
            self._policies,
            self.dry_run,
            self.interval,
            moment[rows],
            columns,
            self._fields,
            Counter({mode: self._modes[mode] for mode in MODES if self._modes[mode]}),
            self._spells,
            self._limited,
            self._faults,
            sorted(self._hours.values(), key=lambda d: -d.size),
            left_out,
        )


def _in_place(columns: dict[str, Array], moment: NDArray[np.int64], interval: float) -> dict[str, Array]:
    """What was measured of the interval that ended when the newest sample was taken, as of the one that ends at the moment.

    The newest sample is a scrape interval old at most: what it lacks is in the next one.
    """
    late = columns["rate_age_seconds"] / interval
    known = np.isfinite(late) & (late > 0)
    if not known.any():
        return columns
    steps = int(np.median(late[known]) + 0.05)
    part = np.where(known, np.clip(late - steps, 0.0, 1.0), 0.0)
    here, there = ({name: _seen_later(columns[name], moment, by) for name in _MEASURED} for by in (steps, steps + 1))
    rate = (here["rate_rps"], there["rate_rps"])
    # Where the next one is unknown, this one alone.
    part = np.where(np.isfinite(rate[1]), part, 0.0)
    mixed = {"rate_rps": (1 - part) * rate[0] + part * np.where(part > 0, rate[1], 0.0)}
    for name in ("late_share", "error_share"):
        counts = [
            np.where(weight > 0, values[name] * values["rate_rps"] * weight, 0.0)
            for values, weight in ((here, 1 - part), (there, part))
        ]
        mixed[name] = np.where(
            mixed["rate_rps"] > 0, sum(counts) / np.where(mixed["rate_rps"] > 0, mixed["rate_rps"], 1.0), here[name]
        )
    before = {name: _seen_later(columns[name], moment, steps) for name in HISTORY}
    return columns | before | {"cpu_utilisation": here["cpu_utilisation"]} | mixed


def _seen_later(values: Array, moment: NDArray[np.int64], steps: int) -> Array:
    """(n,) what was shown so many moments later; NaN where that is not recorded."""
    at = np.minimum(np.searchsorted(moment, moment + steps), len(moment) - 1)
    return np.where(moment[at] == moment + steps, values[at], NAN)


def read_recorded(entries: Iterable[Entry], service: Service, source: str = "records") -> Recorded:
    """Read decisions; of several kinds those of the kind that was recorded last.

    Args:
        entries: in the order in which they were written.
        service: which fields are needed, and how old they may be.
        source: for messages.

    Raises:
        InputError: there are none.
    """
    kinds: dict[tuple[bool, float], _Columns] = {}
    kind = None
    for entry in entries:
        kind = (entry.dry_run, entry.interval_seconds)
        kinds.setdefault(kind, _Columns(entry, service)).add(entry)
    if kind is None:
        raise InputError(f"{source}: holds no decisions; allowed: records of scalepilot operate")
    left_out = [
        f"{len(other):,} decisions {'of a dry run' if other.dry_run else 'that were carried out'}, every {other.interval:g} s"
        for at, other in kinds.items()
        if at != kind
    ]
    return kinds[kind].recorded(left_out)
