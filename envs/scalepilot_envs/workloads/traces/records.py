"""Tables that are no CSV: JSON records and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot_envs.workloads.traces.columns import Content, choose, is_time_name
from scalepilot_envs.workloads.traces.csv_text import parse_csv
from scalepilot_envs.workloads.traces.json_text import MAX_JSON_BYTES
from scalepilot_envs.workloads.traces.meaning import Meaning
from scalepilot_envs.workloads.traces.parsed import Parsed, Said
from scalepilot_envs.workloads.traces.rows import Rows, TraceError
from scalepilot_envs.workloads.traces.source import Source
from scalepilot_envs.workloads.traces.times import LocalClock, TimeFormat, learn_format, number_kind, zone_of

_PARQUET_ROWS = 1 << 16
_MOST_LONG_ROWS = 2_000_000


def json_lines(source: Source) -> list[Any] | None:
    """The values of a file with a JSON value a line; None where it is none."""
    lines = [line for line in source.head.splitlines()[:50] if line.strip()]
    if len(lines) < 2 or not lines[0].startswith("{") or not lines[1].startswith("{"):
        return None
    try:
        if not all(isinstance(json.loads(line), Mapping) for line in lines[:2]):
            return None
    except (ValueError, RecursionError):
        return None
    values = []
    for number, line in enumerate(source.whole(MAX_JSON_BYTES).splitlines(), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise TraceError(f"{source.name}:{number}: is no JSON ({str(error)[:80]})") from None
    return values


def table_of(value: Any) -> bytes | None:
    """Records, [{"timestamp": …, "value": …}, …] or {"timestamp": […], "value": […]}, as CSV; None where it is neither."""
    if isinstance(value, Mapping):
        lists = {key: column for key, column in value.items() if isinstance(column, list)}
        if len(lists) == 1 and len(value) <= 4:
            return table_of(next(iter(lists.values())))
        if len(lists) < 2 or len({len(column) for column in lists.values()}) != 1:
            return None
        value = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(row, list) and len(row) >= 2 and all(_is_plain(cell) for cell in row) for row in value):
        return _csv(value)
    if not all(isinstance(row, Mapping) for row in value):
        return None
    names = list(dict.fromkeys(key for row in value for key, cell in row.items() if _is_plain(cell)))
    if len(names) < 2:
        return None
    return _csv([names, *([row.get(name) for name in names] for row in value)])


def parse_wide(source: Source) -> Parsed | None:
    """Azure Functions' public traces: a function a row, a minute of one day a column; None for other files."""
    names = [cell.strip(' "') for cell in (source.head.splitlines() or [""])[0].split(",")]
    minutes = [i for i, name in enumerate(names) if name.isdigit()]
    if len(minutes) < 60 or [int(names[i]) for i in minutes] != list(range(1, len(minutes) + 1)):
        return None
    totals, num_rows = np.zeros(len(minutes)), 0
    for number, line in enumerate(source.lines(), 1):
        cells = source.decode(line).split(",")
        if number == 1 or not line.strip():
            continue
        try:
            counts = np.array([float(cells[i]) for i in minutes])
        except (ValueError, IndexError):
            counts = np.array([-1.0])
        if not (counts.min() >= 0 and np.isfinite(counts.max())) or len(cells) != len(names):
            raise TraceError(
                f"{source.name}:{number}: is no row of {len(names)} columns with counts; allowed: finite numbers from 0"
            )
        totals += counts
        num_rows += 1
    rows = Rows((60.0 * np.arange(len(minutes))).astype(np.float64), totals, 1 + np.arange(len(minutes)))
    return Parsed(
        "Azure Functions' invocations per minute",
        iter([("", rows)]),
        lambda minute: f"{source.name}: minute {minute}",
        stated=Meaning("count", "as its columns 1, 2, 3 … are minutes"),
        unordered=True,
        told=[f"the sum of all {num_rows:,} functions", "the file has no date: its day is called 1970-01-01"],
    )


def _is_plain(cell: Any) -> bool:
    return cell is None or isinstance(cell, str | int | float)


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["" if cell is None else cell for cell in row] for row in rows])
    return text.getvalue().encode()


def parse_parquet(path: Path, said: Said) -> Parsed:
    """A Parquet file, read as a stream.

    Raises:
        TraceError: it cannot be read, or its columns cannot be told.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, pre_buffer=False)
        schema, names = file.schema_arrow, file.schema_arrow.names
        first = next(file.iter_batches(batch_size=1000, use_threads=False), None)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror or str(error).splitlines()[0][:120]})") from None
    except pa.ArrowException as error:
        raise TraceError(f"{path}: is not a Parquet file that can be read ({str(error).splitlines()[0][:120]})") from None
    if first is None:
        raise TraceError(f"{path}: 0 rows; allowed: at least two")
    contents = [_content(names[i], schema.field(i).type, first.column(i)) for i in range(len(names))]
    chosen = choose(names, contents, said, str(path))
    moments = first.column(chosen.times[0]).to_pylist()
    if "text" in contents and len(set(moments)) < len(moments) and said.unit != "events":
        return _long_form(path, file, said)
    time_type = schema.field(chosen.times[0]).type
    time = _stamp_format(time_type, first.column(chosen.times[0]), str(path), names[chosen.times[0]])
    naive = time is None and getattr(time_type, "tz", None) is None
    told = [f"time column {names[chosen.times[0]]!r} ({time_type})"]
    if chosen.values:
        told.append("value column" + ("s " if len(chosen.values) > 1 else " ") + ", ".join(repr(names[i]) for i in chosen.values))
    if chosen.others:
        told.append(f"not used: {', '.join(names[i] or f'column {i + 1}' for i in chosen.others)}"[:200])
    if said.timezone and not naive:
        raise TraceError(f"{path}: --timezone {said.timezone}: its times have a zone ({time_type}); allowed: without --timezone")
    clock = LocalClock(zone_of(said.timezone), said.timezone) if said.timezone else None
    parsed = Parsed(
        "Parquet",
        iter(()),
        lambda row: f"{path}: row {row}",
        raw_metric=True,
        column=names[chosen.values[0]] if len(chosen.values) == 1 else "",
        events=said.unit == "events",
        local=naive and said.timezone is None,
        expected_rows=file.metadata.num_rows,
        told=told,
        used=frozenset(("time_column", "value_columns", "timezone")),
    )
    columns = [names[i] for i in (chosen.times[0], *chosen.values)]
    parsed.blocks = _parquet_rows(path, file, columns, time, clock)
    return parsed


def _long_form(path: Path, file: Any, said: Said) -> Parsed:
    """Several series in rows, told apart by a text: read as the same table in CSV."""
    from pyarrow import csv as arrow_csv

    if file.metadata.num_rows > _MOST_LONG_ROWS:
        raise TraceError(f"{path}: more than {_MOST_LONG_ROWS:,} rows of several series; allowed: one series, or fewer rows")
    out = io.BytesIO()
    arrow_csv.write_csv(file.read(), out)
    parsed = parse_csv(Source(str(path), out.tell(), io.BytesIO(out.getvalue())), said)
    if parsed is None:
        raise TraceError(f"{path}: is a table whose columns are not recognised; allowed: --time-column and --value-column")
    return replace(parsed, dialect="Parquet", place=lambda line: f"{path}: row {line - 1}")


def _content(name: str, kind: Any, column: Any) -> Content:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind):
        numbers = [float(v) for v in column.to_pylist() if v is not None]
        return "stamp" if numbers and all(number_kind(number) for number in numbers) else "number"
    if types.is_string(kind) or types.is_large_string(kind):
        is_time = is_time_name(name) or learn_format([v for v in column.to_pylist() if v])
        return "time" if is_time else "text"
    return "text"


def _stamp_format(kind: Any, column: Any, name: str, named: str) -> TimeFormat | None:
    """How times that have no type of time are written; None where they have one."""
    from pyarrow import types

    if types.is_timestamp(kind) or types.is_date(kind):
        return None
    form = learn_format([str(v) for v in column.to_pylist() if v is not None])
    if form is None:
        raise TraceError(f"{name}: {named} has the type {kind}; allowed: timestamp, with or without a zone")
    return form


def _parquet_rows(
    path: Path, file: Any, columns: list[str], time: TimeFormat | None, clock: LocalClock | None
) -> Iterator[tuple[str, Rows]]:
    import pyarrow as pa

    row = 1
    try:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns, use_threads=False):
            lines = row + np.arange(len(batch))
            stamps = _stamps(path, batch.column(columns[0]), lines, time)
            if clock is not None:
                stamps = clock.unix_seconds(stamps, lambda i, lines=lines: f"{path}: row {lines[i]}")  # type: ignore[misc]
            if len(columns) == 1:
                yield "", Rows(stamps, np.ones(len(stamps)), lines)
            for name in columns[1:]:
                numbers = batch.column(name)
                values = numbers.cast("float64").to_numpy(zero_copy_only=False)
                wrong = np.flatnonzero((values < 0) | np.isinf(values))
                if len(wrong):
                    i = int(wrong[0])
                    raise TraceError(
                        f"{path}: row {lines[i]}: {name} {numbers[i].as_py()!r} is not allowed; allowed: finite numbers from 0"
                    )
                empty = np.flatnonzero(np.isnan(values))
                missing = f"{name} {numbers[int(empty[0])].as_py()!r}" if len(empty) else ""
                yield name if len(columns) > 2 else "", Rows(stamps, values, lines, missing)
            row += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise TraceError(f"{path}: is not a Parquet file that can be read ({str(error).splitlines()[0][:120]})") from None


def _stamps(path: Path, column: Any, lines: Any, time: TimeFormat | None) -> Any:
    from pyarrow import types

    if column.null_count:
        empty = int(lines[column.is_null().to_numpy(zero_copy_only=False)][0])
        raise TraceError(f"{path}: row {empty}: timestamp is empty; allowed: a time in every row")
    if time is not None:
        return np.array([time.read(str(v), f"{path}: row {line}")[0] for v, line in zip(column.to_pylist(), lines, strict=True)])
    if types.is_date(column.type):
        column = column.cast("timestamp[s]")
    ticks = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
    return column.cast("int64").to_numpy() / ticks
