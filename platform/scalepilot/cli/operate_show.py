"""What `scalepilot operate --check` and `explain` show: every field with its value, age and source."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalepilot.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from scalepilot.operate.config import Service
    from scalepilot.operate.ledger import Entry
    from scalepilot.operate.snapshot import Replicas, Snapshot

_NUMBERED = re.compile(r"(.+)_(\d+)")
_MOST_VALUES = 4


@dataclass(frozen=True)
class Row:
    """A field of a moment.

    Attributes:
        field, unit: its own.
        value: None where it is unknown.
        age_seconds: of its newest sample.
        source: where it comes from.
        verdict: ok, assumed, stands in (the policy can do without), or missing.
        problem: why.
    """

    field: str
    unit: str
    value: float | None
    age_seconds: float | None
    source: str
    verdict: str
    problem: str

    @property
    def is_like(self) -> tuple[Any, ...]:
        """Fields that differ in nothing but their number and value are shown in one row."""
        found = _NUMBERED.fullmatch(self.field)
        known = self.value is not None
        return (found[1] if found else self.field, self.unit, self.source, self.verdict, self.problem, known)


def rows_of(service: Service, snapshot: Snapshot) -> list[Row]:
    """Every field of the policy's observation."""
    from scalepilot.operate.snapshot import Reading
    from scalepilot.operate.tick import problem_of

    rows = []
    for f in service.deciders.fields:
        reading = snapshot.readings.get(f.name) or Reading(None, "", None, "nothing measures it")
        optional = f.name in service.deciders.at_rest
        problem = problem_of(reading, service.limits, service.interval_seconds, optional=optional)
        verdict = ("stands in" if optional else "missing") if problem else "assumed" if reading.assumed else "ok"
        rows.append(Row(f.name, f.unit, reading.value, reading.age_seconds, reading.source, verdict, problem or reading.problem))
    return rows


def table_of(rows: list[Row]) -> Table:
    """Rows for a person, at any width: what belongs together in one."""
    from rich.table import Table

    table = Table("", "field", "value", "age", "source", box=None, pad_edge=False, header_style="dim")
    for column, fixed in zip(table.columns, (True, False, False, True, False), strict=True):
        column.no_wrap, column.overflow = fixed, "fold"
    for _, grouped in itertools.groupby(rows, key=lambda row: row.is_like):
        group = list(grouped)
        first, last = group[0], group[-1]
        name = first.field if len(group) == 1 else f"{first.field} … {last.field.rpartition('_')[2]}"
        ages = [row.age_seconds for row in group if row.age_seconds is not None]
        mark = {"ok": "[green]✓[/]", "missing": "[red]✗[/]"}.get(first.verdict, "[yellow]![/]")
        source = first.source or "none"
        note = first.problem if first.verdict in ("ok", "assumed") else f"{first.verdict}: {first.problem}"
        told = f"{source}\n[dim]{note}[/]" if note else source
        table.add_row(mark, name, _values(group), f"{max(ages):.1f} s" if ages else "", told)
    return table


def _values(group: list[Row]) -> str:
    if group[0].value is None:
        return "unknown"
    shown = [f"{round(row.value or 0.0, 6):.4g}" for row in group[:_MOST_VALUES]] + ["…"] * (len(group) > _MOST_VALUES)
    unit = group[0].unit
    return f"{', '.join(shown)} {unit}" if unit not in ("1", "share", "") else ", ".join(shown)


def show_check(title: str, rows: list[Row], replicas: Replicas, problems: list[str], advice: list[str], *, as_json: bool) -> bool:
    """Print whether it can run, and why not.

    Returns:
        Whether it can.
    """
    ready = not problems and all(row.verdict != "missing" for row in rows)
    if as_json:
        fields = [
            {"field": r.field, "value": r.value, "unit": r.unit, "age_seconds": r.age_seconds, "source": r.source}
            | {"verdict": r.verdict, "problem": r.problem}
            for r in rows
        ]
        print(json.dumps({"ready": ready, "fields": fields, "problems": problems, "advice": advice}, ensure_ascii=False))
        return ready
    from scalepilot.cli.output import console

    out = console()
    out.print(title, markup=False, highlight=False)
    out.print(table_of(rows))
    asked, serving = ("unknown" if n is None else n for n in (replicas.spec, replicas.ready))
    out.print(f"replicas: {asked} asked for, {serving} ready", highlight=False)
    for line in problems:
        out.print(f"problem: {line}", markup=False, highlight=False)
    for line in advice:
        out.print(f"advice: {line}", markup=False, highlight=False)
    out.print("ready to operate" if ready else "not ready: see ✗ and problems above", highlight=False)
    return ready


def show_decision(entry: Entry) -> None:
    """Print a decision in full."""
    from scalepilot.cli.output import console
    from scalepilot.operate.ledger import sentence
    from scalepilot.operate.snapshot import utc

    record = entry.record
    out = console()
    out.print(f"{utc(record.snapshot.time)}  {entry.policy}{'  (dry run)' if entry.dry_run else ''}", highlight=False)
    out.print(sentence(record), markup=False, highlight=False)
    if record.snapshot.replicas.problem:
        out.print(f"target: {printable(record.snapshot.replicas.problem)}", markup=False, highlight=False)
    rows = []
    for name, reading in record.snapshot.readings.items():
        verdict = "missing" if reading.value is None else "assumed" if reading.assumed else "ok"
        rows.append(Row(name, "", reading.value, reading.age_seconds, reading.source, verdict, reading.problem))
    if rows:
        out.print(table_of(rows))
    for name, wanted in record.shadows.items():
        out.print(f"shadow {name}: {'no decision' if wanted is None else f'{wanted} replicas'}", markup=False, highlight=False)
    if record.milliseconds:
        spent = ", ".join(f"{phase} {ms:g} ms" for phase, ms in record.milliseconds.items())
        out.print(spent, style="dim", highlight=False)


def say(entry: Entry, *, as_json: bool) -> None:
    """Print a decision."""
    from scalepilot.operate.ledger import sentence
    from scalepilot.operate.snapshot import utc

    record = entry.record
    if as_json:
        print(json.dumps(entry.to_json(), ensure_ascii=False), flush=True)
    else:
        print(f"{utc(record.snapshot.time)}  {sentence(record)}", flush=True)
