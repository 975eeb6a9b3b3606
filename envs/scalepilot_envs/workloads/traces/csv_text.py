"""CSV of any kind, a few megabytes at a time: NumPy reads what is plainly written, the csv module the rest, line by line."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.traces.layout import Layout, find_head, index_of, layout_of
from scalepilot_envs.workloads.traces.meaning import Meaning
from scalepilot_envs.workloads.traces.numbers import (
    NumberFormat,
    read_or_refuse,
)
from scalepilot_envs.workloads.traces.parsed import Parsed, Said
from scalepilot_envs.workloads.traces.rows import Rows, TraceError
from scalepilot_envs.workloads.traces.source import CHUNK_BYTES, Source
from scalepilot_envs.workloads.traces.times import LocalClock, TimeFormat, zone_of

# "YYYY-MM-DDTHH:MM:SS": its digits in pairs, and what stands between them.
_CLOCK_CHARACTERS = 19
_DIGITS = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
_MARKS, _MARK_CHARACTERS = [4, 7, 13, 16], np.frombuffer(b"--::", dtype=np.uint8)
_EPOCH = date(1970, 1, 1).toordinal()
_NEWLINE, _RETURN, _SPACE = b"\n\r "
_SHORTEST_ROW_BYTES = 4


def parse_csv(source: Source, said: Said) -> Parsed | None:
    """A table whose columns are divided by commas, semicolons, tabs, bars or blanks; None where it is none.

    Raises:
        TraceError: it is one, but its columns or numbers cannot be told.
    """
    head = find_head(source, said)
    if head is None:
        return None
    layout = layout_of(source, head, said)
    reader = _Reader(source, layout, said)
    chosen, names, known = layout.chosen, layout.names, layout.known
    events = said.unit == "events" or bool(known and known.events)
    zoned = ", with a zone" if reader.first_has_zone else ", UTC by its name" if layout.zoned else ""
    told = [f"time column {' + '.join(repr(names[i]) for i in chosen.times)} ({layout.time.shown}{zoned})"]
    if chosen.values and not events:
        told.append("value column" + ("s " if len(chosen.values) > 1 else " ") + ", ".join(repr(names[i]) for i in chosen.values))
    if known and known.only:
        told.append(f"only rows with {known.only[1]!r} in {known.only[0]!r}")
    if chosen.others:
        told.append(f"not used: {', '.join(names[i] or f'column {i + 1}' for i in chosen.others)}"[:200])
    per = {form.per_seconds for form in layout.numbers}
    period = _period(layout.preamble)
    stated = known.meaning if known and not (said.value_columns or said.unit) else None
    statistic = next(
        (v.strip().lower() for k, v in layout.preamble.items() if k.strip().lower() in ("statistic", "aggregation")), ""
    )
    if statistic in ("average", "avg", "minimum", "min", "maximum", "max") and said.unit is None:
        raise TraceError(
            f"{source.name}: its statistic is {statistic!r}, which is no number of requests; allowed: Sum, or --unit for a rate"
        )
    if stated is None and layout.preamble and "sum" in {v.strip().lower() for v in layout.preamble.values()}:
        stated = Meaning("count", "as the statistic Sum above the header says")
    local = layout.time.kind in ("text", "excel") and not layout.zoned and said.timezone is None
    return Parsed(
        known.name if known else _dialect(layout),
        iter(reader),
        lambda line: f"{source.name}:{line}",
        stated=stated,
        per_seconds=per.pop() if len(per) == 1 else None,
        raw_metric=True,
        column=names[chosen.values[0]] if len(chosen.values) == 1 else "",
        events=events,
        period=period,
        local=local and not reader.first_has_zone,
        expected_rows=0 if source.packed else source.size // _shortest(layout),
        told=told,
        used=frozenset(("time_column", "value_columns", "delimiter", "decimal", "date_order", "timezone")),
    )


def _shortest(layout: Layout) -> int:
    # "2024-01-01T00:00:00,1" and its line's end; other times are shorter.
    return 22 if layout.time.kind == "text" else _SHORTEST_ROW_BYTES


def _dialect(layout: Layout) -> str:
    lowered = [name.lower() for name in layout.names]
    if layout.names[layout.chosen.times[0]] == "Time" and (layout.chosen.times[0] == 0 or "series" in lowered):
        return "Grafana's CSV"
    if "_time" in lowered and "_value" in lowered:
        return "InfluxDB's CSV"
    if layout.preamble:
        keys = " ".join(layout.preamble).lower()
        return "CloudWatch's CSV" if "full label" in keys else "CSV with lines above its header"
    return "CSV"


def _period(preamble: dict[str, str]) -> float | None:
    text = next((value for key, value in preamble.items() if key.strip().lower() == "period"), "").strip()
    return float(text) if text.isdigit() and int(text) > 0 else None


class _Reader:
    """The rows of a CSV, by series."""

    def __init__(self, source: Source, layout: Layout, said: Said) -> None:
        self.source, self.layout, self.name = source, layout, source.name
        self._line = layout.num_lines + 1
        self._has_zone: bool | None = None
        self._zone = (said.timezone, zone_of(said.timezone)) if said.timezone else None
        self._clocks: dict[str, LocalClock] = {}
        self._series, self._stamp = "", -np.inf
        names, chosen = layout.names, layout.chosen
        self._keys = [names[i] for i in chosen.values] if len(chosen.values) > 1 else [""]
        only = layout.known.only if layout.known else None
        self._only = (index_of(names, only[0]), only[1]) if only else None
        self._is_plain = (
            len(names) == 2 and layout.delimiter == "," and chosen.times == (0,) and chosen.values == (1,)
            and layout.time == TimeFormat("text") and layout.numbers == (NumberFormat(),) and self._only is None
        )  # fmt: skip
        self.first_has_zone = False
        head = io.StringIO(source.head, newline="")
        for _ in range(layout.num_lines):
            head.readline()
        first = head.readline()
        if layout.time.kind == "text" and self._is_plain:
            try:
                self.first_has_zone = layout.time.read(first.split(",")[0].strip().strip('"'), "")[1]
            except TraceError:
                self.first_has_zone = False
        elif layout.time.kind == "text":
            row = next(csv.reader([first], delimiter=layout.delimiter), [])
            try:
                self.first_has_zone = layout.time.read(" ".join(row[i] for i in chosen.times), "")[1]
            except (TraceError, IndexError):
                self.first_has_zone = False
        if self._zone and (self.first_has_zone or layout.time.kind not in ("text", "excel")):
            raise TraceError(
                f"{self.name}: --timezone {said.timezone}: its times have a zone ({layout.time.shown}); allowed: without"
            )

    def __iter__(self) -> Iterator[tuple[str, Rows]]:
        first = True
        for chunk in _whole_lines(self.source.chunks()):
            data = chunk
            if first:
                first = False
                text = io.StringIO(self.source.decode(chunk), newline="")
                for _ in range(self.layout.num_lines):
                    text.readline()
                data = text.read().encode()
            if data:
                yield from self._rows_of(data)

    def _rows_of(self, chunk: bytes) -> Iterator[tuple[str, Rows]]:
        if chunk.isspace() or not chunk.strip(b" \t\r\n,;"):
            self._line += chunk.count(b"\n")
            return
        rows = self._plain(chunk) if self._is_plain and not self.layout.labels else None
        if rows is not None:
            self._line += len(rows.lines)
            yield "", Rows(self._zoned("", rows), rows.values, rows.lines)
            return
        for key, found in self._careful(chunk).items():
            yield key, Rows(self._zoned(key, found), found.values, found.lines, found.missing)

    def _zoned(self, key: str, rows: Rows) -> NDArray[np.float64]:
        if self._zone is None:
            return rows.stamps
        if self._has_zone:
            raise TraceError(f"{self.name}: --timezone {self._zone[0]}: its times have a zone; allowed: without --timezone")
        if key not in self._clocks:
            self._clocks[key] = LocalClock(self._zone[1], self._zone[0])
        return self._clocks[key].unix_seconds(rows.stamps, lambda i: f"{self.name}:{rows.lines[i]}")

    def _plain(self, chunk: bytes) -> Rows | None:
        """The rows of a chunk in which every line is like the first and nothing is amiss; None for any other."""
        text = np.frombuffer(chunk, dtype=np.uint8)
        ends = np.flatnonzero(text == _NEWLINE)
        if text[-1] != _NEWLINE:
            ends = np.append(ends, len(text))
        starts = np.concatenate([[0], ends[:-1] + 1])
        width = chunk.find(b",", 0, 40) + 1
        if width <= _CLOCK_CHARACTERS or (ends - starts).min() <= width or chunk.count(b",") != len(ends):
            return None
        stamps = self._plain_stamps(np.lib.stride_tricks.sliding_window_view(text, width)[starts], chunk[: width - 1])
        values = None if stamps is None else _plain_values(text.copy(), starts, ends, width)
        if stamps is None or values is None:
            return None
        return Rows(stamps, values, self._line + np.arange(len(starts)))

    def _plain_stamps(self, stamps: NDArray[np.uint8], first: bytes) -> NDArray[np.float64] | None:
        try:
            moment = datetime.fromisoformat(first.decode("ascii"))
        except ValueError:
            return None
        digits = stamps[:, _DIGITS] - np.uint8(ord("0"))
        alike = np.array_equal(stamps[:, 10], np.broadcast_to(stamps[0, 10], len(stamps)))
        alike = alike and (stamps[:, _CLOCK_CHARACTERS:] == stamps[0, _CLOCK_CHARACTERS:]).all()
        if not alike or (digits > 9).any() or (stamps[:, _MARKS] != _MARK_CHARACTERS).any():
            return None
        pairs = digits[:, 0::2] * np.uint8(10) + digits[:, 1::2]
        hours, minutes, seconds = pairs[:, 4:].T.astype(np.int64)
        if (
            hours.max() > 23
            or minutes.max() > 59
            or seconds.max() > 59
            or self._has_zone not in (None, moment.tzinfo is not None)
        ):
            return None
        self._has_zone = moment.tzinfo is not None
        # Few rows begin a new day: each day is looked up once.
        days = np.ascontiguousarray(pairs[:, :4]).view(np.uint32).ravel()
        firsts = np.concatenate([[0], np.flatnonzero(np.diff(days)) + 1])
        try:
            numbers = [date(int(c) * 100 + int(y), int(m), int(d)).toordinal() - _EPOCH for c, y, m, d in pairs[firsts, :4]]
        except ValueError:
            return None
        repeated = np.repeat(numbers, np.diff(np.append(firsts, len(days))))
        offset = moment.utcoffset()
        shift = moment.microsecond / 1e6 - (offset.total_seconds() if offset else 0.0)
        unix_seconds: NDArray[np.float64] = repeated * 86_400 + hours * 3600 + minutes * 60 + seconds + shift
        return unix_seconds.astype(np.float64)

    def _careful(self, chunk: bytes) -> dict[str, Rows]:
        layout, chosen = self.layout, self.layout.chosen
        text = io.StringIO(self.source.decode(chunk), newline="")
        rows = csv.reader(text, delimiter=layout.delimiter, skipinitialspace=layout.delimiter == " ")
        found: dict[str, _Column] = {}
        width, before = len(layout.names), self._line - 1
        times, values = chosen.times, list(zip(self._keys, chosen.values, layout.numbers, strict=False))
        # Most files have one column of times, one of values and no names of series.
        simple = found.setdefault("", _Column()) if len(times) == len(values) == 1 and not layout.labels else None
        try:
            for row in rows:
                if not any(row):
                    continue
                line = before + rows.line_num
                place = f"{self.name}:{line}"
                if len(row) != width and not (len(row) == width + 1 and not row[-1].strip()):
                    if row[0].startswith("#"):
                        continue
                    allowed = ",".join(layout.names)[:80]
                    raise TraceError(f"{place}: {len(row)} columns, the header has {width}; allowed: {allowed}")
                if self._only and row[self._only[0]].strip() != self._only[1]:
                    continue
                moment = row[times[0]] if len(times) == 1 else " ".join(row[i].strip() for i in times)
                stamp = self._unix_seconds(moment, place)
                series = self._series_of(row, stamp) if layout.labels else ""
                if not values:
                    found.setdefault(series, _Column()).take(stamp, 1.0, line)
                for key, i, form in values:
                    column = simple or found.setdefault(f"{series} {key}".strip(), _Column())
                    value = read_or_refuse(form, row[i], place, layout.names[i])
                    if value != value and not column.missing:
                        column.missing = f"{layout.names[i]} {row[i][:80]!r}"
                    column.take(stamp, value, line)
        except csv.Error as error:
            raise TraceError(f"{self.name}:{before + rows.line_num}: is not CSV ({error})") from None
        self._line += rows.line_num
        return {key: column.rows() for key, column in found.items() if column.stamps}

    def _series_of(self, row: list[str], stamp: float) -> str:
        label = ", ".join(row[i].strip() for i in self.layout.labels)[:120]
        if self.layout.interleaved:
            return label
        # A text that changes while time goes on is a note; where time goes back, another series begins.
        if self._stamp == -np.inf or (stamp <= self._stamp and label != self._series):
            self._series = label
        self._stamp = stamp
        return self._series

    def _unix_seconds(self, text: str, place: str) -> float:
        seconds, has_zone = self.layout.time.read(text.strip(), place)
        if self._has_zone is not None and has_zone != self._has_zone:
            here, before = ("has a zone", "have none") if has_zone else ("has no zone", "have one")
            raise TraceError(f"{place}: timestamp {text!r} {here}, those before it {before}; allowed: one way for all rows")
        self._has_zone = has_zone
        return seconds


class _Column:
    """A growing series."""

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.values: list[float] = []
        self.lines: list[int] = []
        self.missing = ""

    def take(self, stamp: float, value: float, line: int) -> None:
        self.stamps.append(stamp)
        self.values.append(value)
        self.lines.append(line)

    def rows(self) -> Rows:
        return Rows(np.array(self.stamps), np.array(self.values), np.array(self.lines, dtype=np.int64), self.missing)


def _whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time, never cut within quotes."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        cut = data.rfind(b"\n") + 1
        while data.count(b'"', 0, cut) % 2:
            cut = data.rfind(b"\n", 0, data.rfind(b'"', 0, cut)) + 1
        if not cut:
            if len(data) <= CHUNK_BYTES:
                rest = data
                continue
            # A line or a quotation of megabytes: whoever reads the chunk refuses it.
            cut = data.rfind(b"\n") + 1 or len(data)
        yield data[:cut]
        rest = data[cut:]
    if rest:
        yield rest


def _plain_values(
    text: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], width: int
) -> NDArray[np.float64] | None:
    """The numbers after the first `width` characters of each line; None where one is not plainly a number from 0."""
    np.lib.stride_tricks.sliding_window_view(text, width, writeable=True)[starts] = _SPACE
    returns = text[ends - 1] == _RETURN
    blanks = len(starts) * width + int(returns.sum()) + int((text == _NEWLINE).sum())
    # One unbroken run of characters in each line, so that as many numbers as lines means one in each.
    if (text <= _SPACE).sum() != blanks or (ends - returns - starts).min() <= width:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = np.fromstring(text.tobytes(), dtype=np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    fits = len(values) == len(starts) and values.min() >= 0 and np.isfinite(values.max())
    return values if fits else None
