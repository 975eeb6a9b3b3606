"""Writes a series as a trace that `read_trace` gives back unchanged."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.traces.rows import TraceError

_ROWS_AT_ONCE = 1 << 16
_MOST_NOTES_BYTES = 20_000
# Of a Parquet file's metadata, what the libraries keep for themselves.
_OTHERS_METADATA = (b"ARROW:schema", b"pandas")


def write_trace(series: RateSeries, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write `timestamp,requests_per_second`, in UTC; Parquet where the name ends in .parquet or .pq, CSV otherwise.

    The file appears whole or not at all.

    Args:
        series: what to write; times are rounded to microseconds.
        path: a new file.
        notes: where it comes from, kept in the file: lines above a CSV's header, metadata of a Parquet file.

    Raises:
        TraceError: the file exists or cannot be written.
    """
    if path.exists():
        raise TraceError(f"{path}: exists already; allowed: a new file")
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            _write_parquet(series, aside, notes or {})
        else:
            _write_csv(series, aside, notes or {})
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        _into_place(aside, path)
    except FileExistsError:
        raise TraceError(f"{path}: exists already; allowed: a new file") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def trace_notes(path: Path) -> dict[str, str]:
    """What `write_trace` has noted in a file; nothing of any other file, or of one that is not there."""
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                from pyarrow import parquet

                found = parquet.read_schema(path).metadata or {}
                return {_text(name): _text(value) for name, value in found.items() if name not in _OTHERS_METADATA}
            file.seek(0)
            lines = [_text(line) for line in file.read(_MOST_NOTES_BYTES).splitlines()]
    except (OSError, ValueError):
        return {}
    notes = lines[: next((i for i, line in enumerate(lines) if not line.startswith("# ")), 0)]
    return {row[0].removeprefix("# "): row[1] for row in csv.reader(notes) if len(row) == 2}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _into_place(aside: Path, path: Path) -> None:
    """Give the file its name, which nobody may have taken meanwhile."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        aside.rename(path)


def _blocks(series: RateSeries) -> Iterator[tuple[NDArray[np.datetime64], NDArray[np.float64]]]:
    for first in range(0, len(series), _ROWS_AT_ONCE):
        rates = series.rates_rps[first : first + _ROWS_AT_ONCE]
        seconds = series.start_unix_seconds + np.arange(first, first + len(rates)) * series.interval_seconds
        yield np.rint(seconds * 1e6).astype("datetime64[us]"), rates


def _write_csv(series: RateSeries, path: Path, notes: Mapping[str, str]) -> None:
    whole = all(float(seconds).is_integer() for seconds in (series.start_unix_seconds, series.interval_seconds))
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        # A note is one line, whatever it says.
        rows.writerows((f"# {name}", " ".join(text.split())) for name, text in notes.items())
        file.write("timestamp,requests_per_second\n")
        for moments, rates in _blocks(series):
            stamps = np.datetime_as_string(moments, unit="s" if whole else "us").tolist()
            # repr is the shortest text that reads back as the same number.
            pairs = zip(stamps, rates.tolist(), strict=True)
            file.writelines(f"{stamp}Z,{int(rate) if rate.is_integer() else repr(rate)}\n" for stamp, rate in pairs)


def _write_parquet(series: RateSeries, path: Path, notes: Mapping[str, str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([("timestamp", pa.timestamp("us", "UTC")), ("requests_per_second", pa.float64())])
    if notes:
        schema = schema.with_metadata(dict(notes))
    with parquet.ParquetWriter(path, schema) as file:
        for moments, rates in _blocks(series):
            columns = [pa.array(moments.astype(np.int64)).cast(schema.field(0).type), pa.array(rates)]
            file.write_batch(pa.record_batch(columns, schema=schema))
