"""Time stamps as people's tools write them: ISO-8601, Unix, Excel, day or month first, with and without a zone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.traces.rows import TraceError

DateOrder = Literal["ymd", "dmy", "mdy"]
_ALLOWED = "ISO-8601, such as 1995-07-01T04:00:00Z"
_MONTHS = {"sept": 9}
for _number_of_month, _month in enumerate(
    ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"), 1
):
    _MONTHS |= {_month: _number_of_month, _month[:3]: _number_of_month}
_CLOCK = r"(?:[T ,:]\s*(?P<h>\d{1,2}):(?P<mi>\d{2})(?::(?P<s>\d{2})(?:[.,](?P<f>\d+))?)?\s*(?P<half>[AaPp])?(?(half)\.?[Mm]\.?))?"
_ZONE = r"\s*(?P<zone>Z|(?:UTC|GMT)?[+-]\d{2}:?\d{2}|UTC|GMT)?"
_FORMS = [
    (order, re.compile(rf"{date}{_CLOCK}{_ZONE}"))
    for order, date in (
        ("ymd", r"(?P<y>\d{4})[-/.](?P<a>\d{1,2})[-/.](?P<b>\d{1,2})"),
        ("?", r"(?P<a>\d{1,2})(?P<mark>[./-])(?P<b>\d{1,2})(?P=mark)(?P<y>\d{4}|\d{2})"),
        ("month", r"(?P<b>\d{1,2})[ /.-](?P<a>[A-Za-z]{3,9})\.?[ /.-](?P<y>\d{4}|\d{2})"),
        ("month", r"(?P<a>[A-Za-z]{3,9})\.? (?P<b>\d{1,2}),? (?P<y>\d{4})"),
    )
]
_WEEKDAY = re.compile(r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,? ", re.IGNORECASE)
_TRAILING = re.compile(r"\s*\([^()]*\)$")
_COMPACT = re.compile(r"(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?")
_NAMED_ZONE = re.compile(r"(.*\d)\s*([A-Za-z][\w/+-]*)")
# 1980 … 2099 in each; Excel counts days from 1899-12-30.
_UNIX = {"seconds": (3.1e8, 4.1e9, 1.0), "milliseconds": (3.1e11, 4.1e12, 1e3), "microseconds": (3.1e14, 4.1e15, 1e6)}
_UNIX |= {"nanoseconds": (3.1e17, 4.1e18, 1e9)}
_EXCEL = (20_000.0, 80_000.0)
_EXCEL_EPOCH = -2_209_161_600.0
_QUARTER_HOUR = 900


@dataclass(frozen=True)
class TimeFormat:
    """How a column's time stamps are written.

    Attributes:
        kind: "text", "excel", or the unit of Unix time.
        order: of day and month where both are numbers.
        decimal_comma: numbers have a decimal comma.
        unsure: day and month could be exchanged.
    """

    kind: str
    order: DateOrder = "ymd"
    decimal_comma: bool = False
    unsure: bool = False

    @property
    def shown(self) -> str:
        """For messages."""
        if self.kind == "excel":
            return "Excel's days"
        if self.kind == "text":
            return {"ymd": "text", "dmy": "day first", "mdy": "month first"}[self.order]
        return f"Unix {self.kind}"

    def read(self, text: str, place: str) -> tuple[float, bool]:
        """Unix seconds and whether a zone was given; seconds of the local clock where none was.

        Raises:
            TraceError: not such a time.
        """
        if self.kind == "text":
            moment = parse_text(text, self.order, place)
            return (moment.timestamp(), True) if moment.tzinfo else (moment.replace(tzinfo=UTC).timestamp(), False)
        try:
            number = float(text.replace(",", ".") if self.decimal_comma else text)
        except ValueError:
            number = math.nan
        seconds = self.seconds(number)
        if not math.isfinite(seconds):
            raise TraceError(f"{place}: timestamp {text[:80]!r} is not a time; allowed: {self.shown}, as in the first rows")
        return seconds, self.kind != "excel"

    def seconds(self, number: float) -> float:
        """Seconds of one number; NaN where it cannot be a time."""
        if self.kind == "excel":
            # Excel's days as text are rounded: a millisecond is the finest that is meant.
            return round((number * 86_400 + _EXCEL_EPOCH) * 1e3) / 1e3 if 0 < number < 1e6 else math.nan
        _, high, per_second = _UNIX[self.kind]
        return number / per_second if 0 <= number < 10 * high else math.nan


def number_kind(number: float) -> str | None:
    """What kind of time a number could be: a unit of Unix time, "excel", or None."""
    for kind, (low, high, _) in _UNIX.items():
        if low <= number < high:
            return kind
    return "excel" if _EXCEL[0] < number < _EXCEL[1] else None


def learn_format(texts: Sequence[str], order: DateOrder | None = None, decimal_comma: bool = False) -> TimeFormat | None:
    """How some of a column's first cells are written as times; None where they are no times.

    Args:
        texts: cells, not empty.
        order: of day and month, where it is said.
        decimal_comma: numbers have a decimal comma.
    """
    if not texts:
        return None
    numbers = [_number(text, decimal_comma) for text in texts]
    if all(number is not None for number in numbers) and not all(_COMPACT.fullmatch(text.strip()) for text in texts):
        kinds = {number_kind(number) for number in numbers if number is not None}
        kind = kinds.pop() if len(kinds) == 1 else None
        return TimeFormat(kind, decimal_comma=decimal_comma) if kind else _compact_dates(texts)
    parts = [_split(text) for text in texts]
    if not all(parts):
        return None
    # Three parts, the day and the month among them, and what else says which is which.
    unclear = [(int(p["a"]), int(p["b"]), p) for form, p in parts if form == "?"]  # type: ignore[misc]
    if not unclear:
        return _if_read(TimeFormat("text"), texts)
    firsts, seconds = {a for a, _, _ in unclear}, {b for _, b, _ in unclear}
    if order in ("dmy", "mdy"):
        return _if_read(TimeFormat("text", order), texts)
    if max(firsts) > 12 or max(seconds) > 12:
        return _if_read(TimeFormat("text", "dmy" if max(firsts) > 12 else "mdy"), texts)
    # The one that moves while the other rests is the day, as long as days follow one another.
    if len(firsts) != len(seconds):
        return _if_read(TimeFormat("text", "dmy" if len(firsts) > len(seconds) else "mdy"), texts)
    if any(p["mark"] == "." for _, _, p in unclear):
        return _if_read(TimeFormat("text", "dmy"), texts)
    if any(p["half"] for _, _, p in unclear):
        return _if_read(TimeFormat("text", "mdy"), texts)
    return _if_read(TimeFormat("text", "dmy", unsure=firsts != seconds), texts)


def parse_text(text: str, order: DateOrder, place: str) -> datetime:
    """A time written as text.

    Raises:
        TraceError: not a time, or one whose zone cannot be known.
    """
    text = text.strip()
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    moment = _parsed(text, order)
    if moment is None and (named := _NAMED_ZONE.fullmatch(text)) and _parsed(named[1], order):
        raise TraceError(
            f"{place}: timestamp {text[:80]!r} has the zone {named[2]!r};"
            " allowed: Z, UTC, an offset such as +02:00, or none (UTC)"
        )
    if moment is None:
        raise TraceError(f"{place}: timestamp {text[:80]!r} is not a time; allowed: {_ALLOWED}")
    return moment


def zone_of(name: str) -> tzinfo:
    """The zone of a name such as Europe/Berlin, or of an offset such as +02:00.

    Raises:
        TraceError: an unknown one.
    """
    if offset := re.fullmatch(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})", name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        if minutes < 24 * 60:
            return timezone(timedelta(minutes=minutes if offset[1] == "+" else -minutes))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise TraceError(f"--timezone: {name[:80]!r} is not known; allowed: such as Europe/Berlin, UTC or +02:00") from None


class LocalClock:
    """From a local clock without a zone to Unix seconds, row after row: the repeated hour of autumn is told by the order.

    Args:
        zone: of the clock.
        name: of the zone, in messages.
    """

    def __init__(self, zone: tzinfo, name: str) -> None:
        self.zone, self.name = zone, name
        self._last = -math.inf

    def unix_seconds(self, local: NDArray[np.float64], place: Callable[[int], str]) -> NDArray[np.float64]:
        """(n,) Unix seconds of (n,) local seconds.

        Raises:
            TraceError: a time that the clock skipped.
        """
        quarters, inverse = np.unique(np.floor(local / _QUARTER_HOUR), return_inverse=True)
        offsets = np.array([[self._offset(q * _QUARTER_HOUR, fold) for fold in (0, 1)] for q in quarters])
        first, second = (local - offsets[inverse, fold] for fold in (0, 1))
        skipped = np.flatnonzero(first > second)
        if len(skipped):
            i = int(skipped[0])
            shown = datetime.fromtimestamp(float(local[i]), UTC).strftime("%Y-%m-%d %H:%M:%S")
            raise TraceError(
                f"{place(i)}: timestamp {shown!r} does not exist in {self.name}: clocks go forward; allowed: another zone"
            )
        seconds: NDArray[np.float64] = first.copy()
        for i in np.flatnonzero(first != second).tolist():
            before = self._last if i == 0 else seconds[i - 1]
            if first[i] <= before:
                seconds[i] = second[i]
        if len(seconds):
            self._last = float(seconds[-1])
        return seconds

    def _offset(self, local: float, fold: int) -> float:
        moment = datetime.fromtimestamp(local, UTC).replace(tzinfo=self.zone, fold=fold)
        offset = moment.utcoffset()
        assert offset is not None
        return offset.total_seconds()


def _compact_dates(texts: Sequence[str]) -> TimeFormat | None:
    return _if_read(TimeFormat("text"), texts) if all(len(text.strip()) == 8 for text in texts) else None


def _if_read(form: TimeFormat, texts: Sequence[str]) -> TimeFormat | None:
    for text in texts:
        try:
            form.read(text, "")
        except TraceError as error:
            # A time with a zone by name is a time: reading it says what is amiss.
            if "has the zone" not in str(error):
                return None
    return replace(form)


def _number(text: str, decimal_comma: bool) -> float | None:
    try:
        number = float(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _split(text: str) -> tuple[str, dict[str, str]] | None:
    text = _TRAILING.sub("", _WEEKDAY.sub("", text.strip(), count=1))
    for form, pattern in _FORMS:
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            return (form, parts) if form != "month" or parts["a"].lower() in _MONTHS else None
    if _COMPACT.fullmatch(text):
        return ("iso", {})
    try:
        datetime.fromisoformat(text)
    except ValueError:
        named = _NAMED_ZONE.fullmatch(text)
        return _split(named[1]) if named and named[1] != text else None
    return ("iso", {})


def _parsed(text: str, order: DateOrder) -> datetime | None:
    if _COMPACT.fullmatch(text):
        return datetime(*(int(text[i:j]) for i, j in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12))), second=int(text[12:] or 0))  # type: ignore[misc, arg-type]
    text = _TRAILING.sub("", _WEEKDAY.sub("", text, count=1))
    for form, pattern in _FORMS:
        found = pattern.fullmatch(text)
        if found is None:
            continue
        p = found.groupdict()
        year = int(p["y"]) + (0 if len(p["y"]) == 4 else 2000)
        if form == "month":
            month, day = _MONTHS.get(p["a"].lower(), 0), int(p["b"])
        else:
            a, b = int(p["a"]), int(p["b"])
            month, day = (b, a) if form == "?" and order != "mdy" else (a, b)
        hour = int(p["h"] or 0)
        if p["half"]:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + (12 if p["half"] in "Pp" else 0)
        micro = int((p["f"] or "0")[:6].ljust(6, "0"))
        try:
            moment = datetime(year, month, day, hour, int(p["mi"] or 0), int(p["s"] or 0), micro)
        except ValueError:
            return None
        return moment.replace(tzinfo=_offset_zone(p["zone"])) if p["zone"] else moment
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _offset_zone(text: str) -> tzinfo:
    return UTC if text in ("Z", "UTC", "GMT") else zone_of(text)
