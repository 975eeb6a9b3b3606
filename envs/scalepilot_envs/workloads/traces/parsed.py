"""What a dialect makes of a file: series of times and values, and what it took them for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from scalepilot_envs.workloads.traces.meaning import Meaning, Unit
from scalepilot_envs.workloads.traces.rows import CounterResets, Gaps, Rows
from scalepilot_envs.workloads.traces.times import DateOrder


@dataclass(frozen=True)
class Said:
    """What the user says of a file, where it cannot say it itself.

    Attributes:
        gaps: what to do where rows are missing: "error", "linear", "previous" or "zero".
        interval_seconds: average into intervals of this length; None keeps the recorded grid.
        counter_resets: where a counter falls: "error", or "restart" to take it as counted from zero.
        time_column: name or number (from 1) of the column of times.
        value_columns: names or numbers of the columns of values.
        unit: of the values.
        timezone: of times without a zone: Europe/Berlin, +02:00.
        delimiter: between a CSV's columns.
        decimal: "." or ",".
        date_order: of day and month: "dmy" or "mdy".
        sum: add several series up.
        series: a part of the name of the one series to take.
        scale_free: the rates will be scaled to a peak, so that a constant factor does not matter.
        asked: the user sees what is recognised; False refuses what is only read from the numbers.
    """

    gaps: Gaps = "error"
    interval_seconds: float | None = None
    counter_resets: CounterResets = "error"
    time_column: str | None = None
    value_columns: tuple[str, ...] = ()
    unit: Unit | None = None
    timezone: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    date_order: DateOrder | None = None
    sum: bool = False
    series: str | None = None
    scale_free: bool = False
    asked: bool = True


@dataclass
class Parsed:
    """A file, read by its dialect.

    Attributes:
        dialect: its name.
        blocks: blocks of rows, each with the name of its series; events have the value 1 or their number.
        place: a row's line → where it stands, such as "a.csv:7".
        stated: what the format says the values are.
        per_seconds: of the unit written beside the numbers; None where there is none.
        column: name of the column of values, which tells their meaning.
        names: name of a series → what to read its meaning from, where it is not the column or the series' own name.
        raw_metric: see `meaning.decide`.
        expression: see `meaning.decide`.
        events: the rows are requests at their own times.
        unordered: the format has no order; its rows are sorted.
        period: the interval that the format states, seconds.
        local: times have no zone.
        expected_rows: at most so many.
        told: what was recognised, in lines.
        used: how the user's words were used: options that a dialect has no use for are refused.
    """

    dialect: str
    blocks: Iterator[tuple[str, Rows]]
    place: Callable[[int], str]
    stated: Meaning | None = None
    per_seconds: float | None = None
    column: str = ""
    names: dict[str, str] = field(default_factory=dict)
    raw_metric: bool = False
    expression: bool = False
    events: bool = False
    unordered: bool = False
    period: float | None = None
    local: bool = False
    expected_rows: int = 0
    told: list[str] = field(default_factory=list)
    used: frozenset[str] = frozenset()
