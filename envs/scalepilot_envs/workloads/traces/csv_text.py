"""CSV traces, a few megabytes at a time: NumPy reads what is plainly written, the csv module the rest, line by line."""

from __future__ import annotations

import csv
import io
import math
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.traces.grid import Rows, TraceError

COUNTER_COLUMN = "requests_total"
VALUE_COLUMNS = ("requests_per_second", "value", COUNTER_COLUMN)
_CHUNK_BYTES = 2_000_000
# "YYYY-MM-DDTHH:MM:SS": its digits in pairs, and what stands between them.
_CLOCK_CHARACTERS = 19
_DIGITS = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
_MARKS, _MARK_CHARACTERS = [4, 7, 13, 16], np.frombuffer(b"--::", dtype=np.uint8)
_EPOCH = date(1970, 1, 1).toordinal()
_COMMA, _NEWLINE, _RETURN, _SPACE = b",\n\r "
_NAMED_ZONE = re.compile(r"(.*\d)\s*([A-Za-z][\w/+-]*)")


class CsvRows:
    """The rows of a CSV file.

    Args:
        file: open for reading bytes, at its beginning.
        name: of the file, in messages.

    Raises:
        TraceError: the header is not one of a trace.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._chunks = _chunks(file)
        self._line = 1
        first = next(self._chunks, b"").removeprefix(b"\xef\xbb\xbf")
        # A lone carriage return ends a line too.
        head = io.StringIO(self._decode(first[:10_000].split(b"\n")[0] + b"\n"), newline="").readline()
        self.header = [column.strip() for column in next(csv.reader([head]), [])]
        if len(self.header) < 2 or self.header[0] != "timestamp" or self.header[1] not in VALUE_COLUMNS:
            raise TraceError(
                f"{name}:1: header {','.join(self.header)[:80]!r} is not allowed;"
                f" allowed: timestamp,requests_per_second (or timestamp,value; timestamp,{COUNTER_COLUMN} for a counter)"
            )
        self.column = self.header[1]
        self._first = first[len(head.encode()) :]
        self._line = 2
        self._has_zone: bool | None = None

    def __iter__(self) -> Iterator[Rows]:
        yield from self._rows_of(self._first)
        for chunk in self._chunks:
            yield from self._rows_of(chunk)

    def _rows_of(self, chunk: bytes) -> Iterator[Rows]:
        if not chunk:
            return
        rows = self._plain(chunk) if len(self.header) == 2 else None
        if rows is None:
            rows = self._careful(chunk)
        else:
            self._line += len(rows.lines)
        yield rows

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

    def _careful(self, chunk: bytes) -> Rows:
        rows = csv.reader(io.StringIO(self._decode(chunk), newline=""))
        stamps: list[float] = []
        values: list[float] = []
        lines: list[int] = []
        before = self._line - 1
        try:
            for row in rows:
                if not row:
                    continue
                place = f"{self.name}:{before + rows.line_num}"
                if len(row) != len(self.header):
                    allowed = ",".join(self.header)[:80]
                    raise TraceError(f"{place}: {len(row)} columns, the header has {len(self.header)}; allowed: {allowed}")
                stamps.append(self._unix_seconds(row[0], place))
                values.append(self._value(row[1], place))
                lines.append(before + rows.line_num)
        except csv.Error as error:
            raise TraceError(f"{self.name}:{before + rows.line_num}: is not CSV ({error})") from None
        self._line += rows.line_num
        return Rows(np.array(stamps), np.array(values), np.array(lines, dtype=np.int64))

    def _decode(self, chunk: bytes) -> str:
        try:
            return chunk.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self._line + chunk.count(b"\n", 0, error.start)
            raise TraceError(
                f"{self.name}:{line}: cannot be read as UTF-8 text (byte 0x{chunk[error.start]:02x}); allowed: UTF-8"
            ) from None

    def _unix_seconds(self, text: str, place: str) -> float:
        moment = _moment(text.strip(), place)
        has_zone = moment.tzinfo is not None
        if self._has_zone is not None and has_zone != self._has_zone:
            here, before = ("has a zone", "have none") if has_zone else ("has no zone", "have one")
            raise TraceError(f"{place}: timestamp {text!r} {here}, those before it {before}; allowed: one way for all rows")
        self._has_zone = has_zone
        return (moment if has_zone else moment.replace(tzinfo=UTC)).timestamp()

    def _value(self, text: str, place: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise TraceError(f"{place}: {self.column} {text[:80]!r} is not allowed; allowed: finite numbers from 0")
        return value


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, about 2 MB at a time, never cut within quotes."""
    rest = b""
    while data := file.read(_CHUNK_BYTES):
        data = rest + data
        cut = data.rfind(b"\n") + 1
        while data.count(b'"', 0, cut) % 2:
            cut = data.rfind(b"\n", 0, data.rfind(b'"', 0, cut)) + 1
        if not cut:
            if len(data) <= _CHUNK_BYTES:
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
    fits = len(values) == len(starts) and values.min() >= 0 and math.isfinite(values.max())
    return values if fits else None


def _moment(text: str, place: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    zone = ""
    if named := _NAMED_ZONE.fullmatch(text):
        try:
            moment = datetime.fromisoformat(named[1])
        except ValueError:
            pass
        else:
            zone = named[2]
            if zone in ("UTC", "GMT"):
                return moment.replace(tzinfo=UTC)
    if zone:
        raise TraceError(
            f"{place}: timestamp {text[:80]!r} has the zone {zone!r}; allowed: Z, UTC, an offset such as +02:00, or none (UTC)"
        )
    raise TraceError(f"{place}: timestamp {text[:80]!r} is not a time; allowed: ISO-8601, such as 1995-07-01T04:00:00Z")
