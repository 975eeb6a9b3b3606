"""Reads traces: CSV, Parquet, and the answer of a Prometheus range query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.traces.csv_text import COUNTER_COLUMN, VALUE_COLUMNS, CsvRows
from scalepilot_envs.workloads.traces.grid import CounterResets, Gaps, GridBuilder, Rows, TraceError
from scalepilot_envs.workloads.traces.prometheus import MAX_JSON_BYTES, samples_of

# "2024-01-01T00:00:00,1" and its line's end: no row of a plain CSV is shorter.
_SHORTEST_ROW_BYTES = 22
_PARQUET_ROWS = 1 << 16


def read_trace(
    path: Path, gaps: Gaps = "error", interval_seconds: float | None = None, counter_resets: CounterResets = "error"
) -> RateSeries:
    """Read a trace of any kind: `.parquet` and `.pq` are Parquet, `.json` is Prometheus's, all others CSV.

    Args:
        path: the file.
        gaps: what to do where rows are missing on the grid: "error", "linear" (interpolate) or "previous" (repeat).
        interval_seconds: average into intervals of this length while reading, a multiple of the recorded grid; the last
            interval is left out where it is not complete. None keeps the recorded grid.
        counter_resets: where `requests_total` falls: "error", or "restart" to take it as counted from zero.

    Raises:
        TraceError: missing file, wrong columns, unreadable, negative or non-finite value, disorder, duplicate, gap or reset.
    """
    readers = {".parquet": read_parquet, ".pq": read_parquet, ".json": read_prometheus}
    return readers.get(path.suffix.lower(), read_csv)(path, gaps, interval_seconds, counter_resets)


def read_csv(
    path: Path, gaps: Gaps = "error", interval_seconds: float | None = None, counter_resets: CounterResets = "error"
) -> RateSeries:
    """Read a CSV as a stream; a series takes 8 bytes a point, whatever the size of the file.

    Args:
        path: CSV with the header `timestamp,requests_per_second` (or `value`, or `requests_total` for a rising counter);
            a byte-order mark and CRLF are fine. Time stamps are ISO-8601 and rise; with a zone other than UTC they are
            converted, without one they are UTC. A counter gives the mean rate between a row and the next.
        gaps: see `read_trace`. The grid is the median step of the first rows (all, up to some ten thousand).
        interval_seconds: see `read_trace`.
        counter_resets: see `read_trace`.

    Raises:
        TraceError: see `read_trace`; with the line.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            rows = CsvRows(file, str(path))
            builder = GridBuilder(
                str(path),
                lambda line: f"{path}:{line}",
                gaps=gaps,
                interval_seconds=interval_seconds,
                counter=rows.column == COUNTER_COLUMN,
                counter_resets=counter_resets,
                expected_rows=size // _SHORTEST_ROW_BYTES,
            )
            for block in rows:
                builder.add(block)
    except OSError as error:
        raise _unreadable(path, error) from None
    return builder.finish()


def read_parquet(
    path: Path, gaps: Gaps = "error", interval_seconds: float | None = None, counter_resets: CounterResets = "error"
) -> RateSeries:
    """Read a Parquet file as a stream: `timestamp` (a timestamp type) and `requests_per_second` or its like.

    Args:
        path: the file.
        gaps: see `read_trace`.
        interval_seconds: see `read_trace`.
        counter_resets: see `read_trace`.

    Raises:
        TraceError: see `read_trace`; with the row, counted from 1.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            schema = file.schema_arrow
            column = next((name for name in VALUE_COLUMNS if name in schema.names), None)
            if column is None or "timestamp" not in schema.names:
                raise TraceError(
                    f"{path}: columns {', '.join(schema.names)[:80]!r} are not allowed; allowed: timestamp, requests_per_second"
                )
            _refuse_types(path, column, schema)
            builder = GridBuilder(
                str(path),
                lambda row: f"{path}: row {row}",
                gaps=gaps,
                interval_seconds=interval_seconds,
                counter=column == COUNTER_COLUMN,
                counter_resets=counter_resets,
                expected_rows=file.metadata.num_rows,
            )
            batches = file.iter_batches(batch_size=_PARQUET_ROWS, columns=["timestamp", column], use_threads=False)
            for block in _parquet_rows(path, column, batches):
                builder.add(block)
    except OSError as error:
        raise _unreadable(path, error) from None
    except pa.ArrowException as error:
        raise TraceError(f"{path}: is not a Parquet file that can be read ({str(error).splitlines()[0][:120]})") from None
    return builder.finish()


def _refuse_types(path: Path, column: str, schema: Any) -> None:
    from pyarrow import types

    stamp, value = schema.field("timestamp").type, schema.field(column).type
    if not types.is_timestamp(stamp):
        raise TraceError(f"{path}: timestamp has the type {stamp}; allowed: timestamp, with or without a zone")
    if not (types.is_floating(value) or types.is_integer(value)):
        raise TraceError(f"{path}: {column} has the type {value}; allowed: numbers")


def _parquet_rows(path: Path, column: str, batches: Any) -> Iterator[Rows]:
    row = 1
    for batch in batches:
        stamps, numbers = batch.column("timestamp"), batch.column(column)
        lines = row + np.arange(len(batch))
        if stamps.null_count:
            empty = int(lines[stamps.is_null().to_numpy(zero_copy_only=False)][0])
            raise TraceError(f"{path}: row {empty}: timestamp is empty; allowed: a time in every row")
        values = numbers.cast("float64").to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            i = int(wrong[0])
            shown = numbers[i].as_py()
            raise TraceError(f"{path}: row {lines[i]}: {column} {shown!r} is not allowed; allowed: finite numbers from 0")
        ticks = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[stamps.type.unit]
        yield Rows(stamps.cast("int64").to_numpy() / ticks, values, lines)
        row += len(batch)


def read_prometheus(
    path: Path, gaps: Gaps = "error", interval_seconds: float | None = None, counter_resets: CounterResets = "error"
) -> RateSeries:
    """Read the JSON that Prometheus's `/api/v1/query_range` answers, with exactly one series.

    Its samples are taken as requests/s from their time on; a raw counter (its name ends in `_total`) is converted.

    Args:
        path: the file.
        gaps: see `read_trace`.
        interval_seconds: see `read_trace`.
        counter_resets: see `read_trace`.

    Raises:
        TraceError: see `read_trace`; with the sample, counted from 1.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise TraceError(
                f"{path}: {size / 1e6:.0f} MB; allowed: up to {MAX_JSON_BYTES / 1e6:.0f} MB of a Prometheus answer,"
                " or the same as CSV"
            )
        rows, counter = samples_of(path.read_bytes(), str(path))
    except OSError as error:
        raise _unreadable(path, error) from None
    builder = GridBuilder(
        str(path),
        lambda sample: f"{path}: sample {sample}",
        gaps=gaps,
        interval_seconds=interval_seconds,
        counter=counter,
        counter_resets=counter_resets,
    )
    builder.add(rows)
    return builder.finish()


def _unreadable(path: Path, error: OSError) -> TraceError:
    if isinstance(error, FileNotFoundError):
        return TraceError(f"{path}: no such file")
    return TraceError(f"{path}: cannot be read ({error.strerror or error})")
