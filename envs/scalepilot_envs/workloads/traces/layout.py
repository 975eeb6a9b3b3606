"""How a CSV is laid out: what divides its columns, where its header is, which columns it has and how they are written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from scalepilot_envs.workloads.traces.columns import Chosen, Content, choose, is_time_name, labels
from scalepilot_envs.workloads.traces.meaning import Meaning
from scalepilot_envs.workloads.traces.numbers import NumberFormat, foreign_unit, is_missing, learn_numbers
from scalepilot_envs.workloads.traces.parsed import Said
from scalepilot_envs.workloads.traces.rows import TraceError
from scalepilot_envs.workloads.traces.source import Source
from scalepilot_envs.workloads.traces.times import TimeFormat, learn_format, number_kind

_SAMPLE_ROWS = 2000
_HEADER_WITHIN = 40
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(\s*[AaPp][Mm])?")


@dataclass(frozen=True)
class Known:
    """A tool whose table is known by its header.

    Attributes:
        name: of the dialect.
        header: names that are all there, in lower case.
        time: column of times.
        value: column of values; None for events that count one each.
        only: column and the text in it of the rows that are taken.
        events: each row is a request, or so many as `value` says, at its own time.
        meaning: of the values.
    """

    name: str
    header: frozenset[str]
    time: str
    value: str | None = None
    only: tuple[str, str] | None = None
    events: bool = False
    meaning: Meaning | None = None


KNOWN = (
    Known(
        "Locust's stats_history.csv",
        frozenset(("timestamp", "user count", "name", "requests/s")),
        "Timestamp",
        "Requests/s",
        only=("Name", "Aggregated"),
        meaning=Meaning("rps", "as its name 'Requests/s' says; exact counts: --value-column 'Total Request Count'"),
    ),
    Known(
        "k6's CSV",
        frozenset(("metric_name", "timestamp", "metric_value")),
        "timestamp",
        "metric_value",
        only=("metric_name", "http_reqs"),
        events=True,
    ),
    Known("JMeter's results", frozenset(("timestamp", "elapsed", "label")), "timeStamp", events=True),
)


@dataclass(frozen=True)
class Layout:
    """How a CSV is laid out.

    Attributes:
        delimiter: between columns.
        names: of the columns.
        num_lines: physical lines before the first row.
        known: the tool that wrote it, where its header says so.
        chosen: columns of times and values.
        time: how times are written.
        numbers: how the values are written, one for each of `chosen.values`.
        labels: columns that name a row's series.
        interleaved: the labels name each row's series; False where a series begins when times go back.
        zoned: the header says that times are UTC.
        preamble: key → value of the lines above the header.
    """

    delimiter: str
    names: tuple[str, ...]
    num_lines: int
    known: Known | None
    chosen: Chosen
    time: TimeFormat
    numbers: tuple[NumberFormat, ...]
    labels: tuple[int, ...]
    interleaved: bool
    zoned: bool
    preamble: dict[str, str]


@dataclass(frozen=True)
class Head:
    """The beginning of a CSV.

    Attributes:
        delimiter: between columns.
        rows: its first records.
        lines: the physical line that each ends on.
        first: number of the first row among the records.
        header: number of the header; None without one, and as `first` where no row follows it.
    """

    delimiter: str
    rows: list[list[str]]
    lines: list[int]
    first: int
    header: int | None


def find_head(source: Source, said: Said) -> Head | None:
    """Where the header and the first row are, by what divides the columns best; None where this is no table of times.

    Raises:
        TraceError: a header with something else than rows below it.
    """
    text = source.head
    said_line = re.match(r"sep=(.)\r?\n", text)
    given = said.delimiter or (said_line[1] if said_line else None)
    best: tuple[int, Head] | None = None
    for delimiter in (given,) if given else (",", ";", "\t", "|", " "):
        rows, lines, fault = _records(text, delimiter, len(source.raw_head) >= 250_000)
        found = _find_header(rows, said)
        if fault and found is not None and found[0] == found[1]:
            raise TraceError(f"{source.name}:{fault}")
        if found is None or not (given or len(rows[found[1]]) > 1):
            continue
        # A header, or no line above the first row; else the mark may only stand within numbers.
        rank = 2 if found[0] is not None else 1 if found[1] == 0 else 0
        if best is None or rank > best[0]:
            best = rank, Head(delimiter, rows, lines, found[1], found[0])
    return best[1] if best else None


def _records(text: str, delimiter: str, cut: bool) -> tuple[list[list[str]], list[int], str]:
    """The first records, the lines after each, and the place and kind of a fault; without the last where the text is cut off."""
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter == " ")
    try:
        for row in reader:
            rows.append([cell.strip() for cell in row])
            lines.append(reader.line_num)
            if len(rows) > _SAMPLE_ROWS:
                return rows, lines, ""
    except csv.Error as error:
        return rows, lines, f"{reader.line_num}: is not CSV ({error})"
    return (rows[:-1], lines[:-1], "") if cut else (rows, lines, "")


def _find_header(rows: list[list[str]], said: Said) -> tuple[int | None, int] | None:
    """The numbers of the header's record (None without one) and of the first row's; None where this is no table of times."""
    for r, row in enumerate(rows[:_HEADER_WITHIN]):
        if len(row) < 2 or (row[0].startswith("#") and not is_time_name(row[0].lstrip("# "))):
            continue
        named = [i for i, cell in enumerate(row) if is_time_name(cell) or (said.time_column and cell == said.time_column)]
        below = next((k for k in range(r + 1, len(rows)) if any(rows[k])), None)
        if named and below is not None and not any(_is_time(cell) for cell in row):
            if any(i < len(rows[below]) and (_is_time(rows[below][i]) or _CLOCK.fullmatch(rows[below][i])) for i in named):
                return r, below
            if is_time_name(row[0]) >= 5 and len(rows[below]) == len(row):
                return r, below
        if named and below is None and is_time_name(row[0]) >= 4:
            return r, r
    for r in range(min(len(rows) - 1, _HEADER_WITHIN)):
        row, nxt = rows[r], rows[r + 1]
        alike = len(row) == len(nxt) > 1
        if alike and any(_is_time(a) and _is_time(b) for a, b in zip(row, nxt, strict=True)) and not _is_key(row, nxt):
            header = r - 1 if r and len(rows[r - 1]) == len(row) and not any(map(_is_time, rows[r - 1])) else None
            return header, r
    return None


def _is_key(row: list[str], after: list[str]) -> bool:
    """Whether two lines are keys and values, such as "Start time,2024-03-04"."""
    return len(row) == 2 and not _is_time(row[0]) and row[0] != after[0] and learn_numbers([row[0]], None, False) is None


def _is_time(cell: str) -> bool:
    return bool(cell) and (learn_format([cell]) is not None or learn_format([cell], decimal_comma=True) is not None)


def layout_of(source: Source, head: Head, said: Said) -> Layout:
    """What is in which column, and how it is written.

    Raises:
        TraceError: it cannot be told; the message names the option that says it.
    """
    rows = head.rows
    width = len(rows[head.first])
    names = tuple(rows[head.header]) if head.header is not None else tuple(f"column {i + 1}" for i in range(width))
    if len(names) > 1 and len(names) == width + 1 and not names[-1]:
        names = names[:-1]
    line = head.lines[head.header] if head.header is not None else 1
    place = f"{source.name}:{line}"
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    lowered = {name.strip().lower() for name in names}
    known = next((known for known in KNOWN if known.header <= lowered), None)
    sample = [row for row in rows[head.first :] if any(row) and len(row) >= len(names)]
    if head.header is not None and head.first == head.header:
        sample = []
    if known and known.only:
        only, text = index_of(names, known.only[0]), known.only[1]
        sample = [row for row in sample if row[only] == text]
        if not sample:
            raise TraceError(
                f"{source.name}: {known.name} without a row of {text!r} in its first {len(rows):,}; allowed: the whole file"
            )
    if not sample:
        raise TraceError(f"{source.name}: 0 rows; allowed: at least two")
    columns = [[row[i] for row in sample if row[i]] for i in range(len(names))]
    free = head.delimiter != ","
    contents = [_content(cells, said, free) for cells in columns]
    if known and not said.value_columns:
        times = (index_of(names, known.time),)
        values = (index_of(names, known.value),) if known.value else ()
        rest = tuple(i for i, kind in enumerate(contents) if kind == "number" and i not in times + values)
        chosen = Chosen(times, values, () if known.events else rest)
    else:
        chosen = choose(names, contents, said, place, events=bool(known and known.events))
        if repeated and not said.value_columns and any(names[i] == repeated for i in chosen.values) and len(chosen.values) == 1:
            raise TraceError(f"{place}: column {repeated!r} is there twice; allowed: --value-column with its number")
    time = _time_format(sample, chosen, said, free, place)
    numbers = tuple(_number_format(names[i], columns[i], said, free, place) for i in chosen.values)
    if len({form.per_seconds for form in numbers}) > 1:
        raise TraceError(f"{place}: the columns have different units; allowed: one unit, or one --value-column")
    which, interleaved = labels(names, contents, sample, chosen)
    if known or said.unit == "events":
        which, interleaved = (), False
    before = head.header if head.header is not None else head.first
    preamble = {row[0].lstrip("# "): ",".join(row[1:]) for row in rows[:before] if len(row) > 1 and row[0] != "sep="}
    num_lines = head.lines[head.first - 1] if head.first else 0
    zoned = bool(re.search(r"\butc\b|\bgmt\b", " ".join(names[i] for i in chosen.times).lower()))
    return Layout(head.delimiter, names, num_lines, known, chosen, time, numbers, which, interleaved, zoned, preamble)


def index_of(names: Sequence[str], name: str) -> int:
    """The number of a column that is known to be there, whatever the case of its name."""
    return [n.strip().lower() for n in names].index(name.lower())


def _content(cells: Sequence[str], said: Said, free: bool) -> Content:
    there = [cell for cell in cells if not is_missing(cell)]
    if not there:
        return "empty"
    if all(_CLOCK.fullmatch(cell) for cell in there):
        return "clock"
    form = learn_format(there, said.date_order, decimal_comma=free and any("," in cell for cell in there))
    if form is not None and form.kind == "text":
        return "date" if all(":" not in cell and len(cell) <= 12 for cell in there) else "time"
    if form is not None:
        return "stamp"
    numbers = learn_numbers(there, said.decimal, free)
    if numbers is not None:
        return "number"
    # Most cells are times or numbers: a column of them with a fault in it, which reading names.
    times = [cell for cell in there if _is_time(cell)]
    if len(times) >= 0.5 * len(there):
        return "stamp" if any(number_kind(_float(cell)) for cell in times) else "time"
    share = sum(learn_numbers([cell], said.decimal, free) is not None for cell in there) / len(there)
    if share >= 0.5 or foreign_unit(there):
        return "number"
    return "text"


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return -1.0


def _time_format(sample: list[list[str]], chosen: Chosen, said: Said, free: bool, place: str) -> TimeFormat:
    texts = [" ".join(row[i] for i in chosen.times) for row in sample]
    texts = [text for text in texts if text.strip()]
    comma = free and any("," in text and re.fullmatch(r"[\d.,]+", text) for text in texts)
    form = learn_format(texts, said.date_order, comma)
    if form is None:
        readable = [text for text in texts if learn_format([text], said.date_order, comma) is not None]
        form = learn_format(readable, said.date_order, comma)
    if form is None:
        form = TimeFormat("text")
    if said.date_order and form.order == "ymd":
        raise TraceError(
            f"{place}: --date-order {said.date_order}: {texts[0][:40]!r} says it itself; allowed: without --date-order"
        )
    if form.unsure:
        raise TraceError(
            f"{place}: {texts[0][:40]!r}: day or month first is not told; allowed: --date-order dmy or --date-order mdy"
        )
    return form


def _number_format(name: str, cells: Sequence[str], said: Said, free: bool, place: str) -> NumberFormat:
    form = learn_numbers(cells, said.decimal, free)
    if isinstance(form, str):
        raise TraceError(f"{place}: column {name!r}: {form}")
    if form is None:
        unit = foreign_unit(cells)
        if unit and sum(foreign_unit([cell]) is not None for cell in cells) > 0.5 * len(cells):
            raise TraceError(
                f"{place}: column {name!r} is in {unit!r}, no rate of requests; allowed: req/s, rps, req/min or none"
            )
        good = [cell for cell in cells if isinstance(learn_numbers([cell], said.decimal, free), NumberFormat)]
        again = learn_numbers(good, said.decimal, free)
        form = again if isinstance(again, NumberFormat) else NumberFormat(said.decimal or ".", "")
    return form
