"""One door for traces: recognises what a file is, reads it, and says what it took it for."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.traces.assemble import Imported, assemble
from scalepilot_envs.workloads.traces.csv_text import parse_csv
from scalepilot_envs.workloads.traces.json_text import json_of, parse_json
from scalepilot_envs.workloads.traces.logs import parse_log, parse_samples
from scalepilot_envs.workloads.traces.parsed import Parsed, Said
from scalepilot_envs.workloads.traces.records import json_lines, parse_parquet, parse_wide, table_of
from scalepilot_envs.workloads.traces.rows import CounterResets, Gaps, TraceError
from scalepilot_envs.workloads.traces.source import Source, begins_json, looks_like, opened


def import_trace(path: Path, said: Said | None = None) -> Imported:
    """Read a trace of any kind that is known, whatever the file is called.

    Args:
        path: the file.
        said: what the user says of it.

    Raises:
        TraceError: missing file, not recognised, something that only the user can say, unreadable, negative or non-finite value,
            disorder, duplicate, gap or reset. One line with file, place, value and what is allowed.
    """
    said = said or Said()
    with opened(path) as file:
        start = file.read(4)
        file.seek(0)
        if start == b"PAR1" or path.suffix.lower() in (".parquet", ".pq"):
            return assemble(str(path), parse_parquet(path, said), said)
        source = Source(str(path), path.stat().st_size, file)
        parsed = _recognise(source, said)
        if source.packed:
            parsed.told.insert(0, f"packed with {source.packed}")
        return assemble(str(path), parsed, said)


def read_trace(
    path: Path, gaps: Gaps = "error", interval_seconds: float | None = None, counter_resets: CounterResets = "error"
) -> RateSeries:
    """The series of a trace that says itself what it is; see `import_trace` for one that does not.

    Args:
        path: the file.
        gaps: what to do where rows are missing on the grid: "error", "linear" (interpolate), "previous" (repeat) or "zero".
        interval_seconds: average into intervals of this length while reading, a multiple of the recorded grid; the last
            interval is left out where it is not complete. None keeps the recorded grid.
        counter_resets: where a counter falls: "error", or "restart" to take it as counted from zero.

    Raises:
        TraceError: see `import_trace`.
    """
    return import_trace(path, Said(gaps=gaps, interval_seconds=interval_seconds, counter_resets=counter_resets)).series


read_csv = read_trace


def _recognise(source: Source, said: Said) -> Parsed:
    """The dialect that knows the file.

    Raises:
        TraceError: none does; the message says what it looks like.
    """
    text = source.head.lstrip()
    binary = "\x00" in source.head[:4000] or source.raw_head.startswith((b"%PDF", b"\x89PNG", b"\xff\xd8\xff"))
    # A log may hold any byte that somebody sent.
    parsed = parse_log(source)
    if parsed is None and text and not binary and not text.startswith("<"):
        parsed = parse_samples(source)
        if parsed is None:
            parsed = _parse_json(source, said) if begins_json(text) else parse_wide(source) or parse_csv(source, said)
    if parsed is None:
        raise TraceError(
            f"{source.name}: looks like {looks_like(source)}, not like a trace;"
            " allowed: CSV such as timestamp,requests_per_second, Parquet, a metric's JSON or an access log (docs/traffic.md)"
        )
    return parsed


def _parse_json(source: Source, said: Said) -> Parsed | None:
    """A dialect's JSON, or records that are a table."""
    values = json_lines(source)
    value = json_of(source) if values is None else values
    if (parsed := parse_json(value, source.name)) is not None:
        return parsed
    table = table_of(value)
    inner = parse_csv(Source(source.name, len(table), io.BytesIO(table)), said) if table else None
    dialect = "JSON records" if values is None else "JSON lines"
    return replace(inner, dialect=dialect, place=lambda line: f"{source.name}: record {line - 1}") if inner else None
