"""Numbers as people's tools write them: decimal commas, thousands, "40.7 req/s", "1.2 K", and cells that hold nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from scalepilot_envs.workloads.traces.rows import TraceError

MISSING = frozenset(("", "nan", "null", "none", "n/a", "na", "#n/a", "-", "–", "undefined", "nil", "(null)", "nodata", "no data"))
_PREFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "Mil": 1e6, "mil": 1e6, "G": 1e9, "B": 1e9, "Bil": 1e9, "bil": 1e9}
# What a rate is called, and per how many seconds it counts.
_PER = {"s": 1, "sec": 1, "second": 1, "min": 60, "m": 60, "minute": 60, "h": 3600, "hour": 3600}
_COUNTED = (
    r"(?:req(?:uest)?s?|reads?|writes?|ops?|hits?|calls?|quer(?:y|ies)|transactions?|iops|io|c|counts?|events?|invocations?)?"
)
_UNIT = re.compile(
    rf"{_COUNTED}\s*(?:/|per |p)(?P<per>s|sec|second|min|m|minute|h|hour)|(?P<short>[rqtc]p[sm]|ops)", re.IGNORECASE
)
_CELL = re.compile(
    r"(?P<number>[-+]?[\d.,'’\s\u00a0\u2009\u202f]*\d[.,]?(?:[eE][-+]?\d+)?)\s*"
    r"(?P<prefix>Mil|mil|Bil|bil|[kKMGB](?![a-zA-Z]*[bB]$)|m(?=\s*[a-z]+/))?\s*(?P<unit>[^\d\s].*)?"
)
_SPACES = re.compile(r"[\s\u00a0\u2009\u202f'’]")
# Blanks and apostrophes within a number stand between thousands, and nowhere else.
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:[\s\u00a0\u2009\u202f'’]\d{3})+(?:[.,]\d*)?")


@dataclass(frozen=True)
class NumberFormat:
    """How a column's numbers are written.

    Attributes:
        decimal: "." or ",".
        thousands: the mark between thousands, or "".
        per_seconds: of the unit written in the cells; None where none is.
    """

    decimal: str = "."
    thousands: str = ""
    per_seconds: float | None = None

    def read(self, text: str) -> float:
        """The number in the cell's unit; NaN where nothing is there.

        Raises:
            ValueError: no number.
        """
        if self.decimal == "." and not self.thousands and self.per_seconds is None:
            try:
                if "_" not in text:
                    return float(text)
            except ValueError:
                pass
        if is_missing(text):
            return math.nan
        number, per = self._split(text)
        if per != self.per_seconds and not (number == 0 and per is None):
            raise ValueError(text)
        return number

    def _split(self, text: str) -> tuple[float, float | None]:
        parts = _CELL.fullmatch(text.strip())
        if parts is None:
            raise ValueError(text)
        digits = parts["number"]
        if _SPACES.search(digits) and not _GROUPED.fullmatch(digits):
            raise ValueError(text)
        digits = _SPACES.sub("", digits)
        if self.thousands:
            whole, mark, rest = digits.partition(self.decimal)
            groups = whole.split(self.thousands)
            if len(groups) > 1 and (not 1 <= len(groups[0].lstrip("+-")) <= 3 or any(len(g) != 3 for g in groups[1:])):
                raise ValueError(text)
            digits = "".join(groups) + mark + rest
        if self.decimal == ",":
            if "." in digits:
                raise ValueError(text)
            digits = digits.replace(",", ".")
        elif "," in digits:
            raise ValueError(text)
        factor = {"m": 1e-3, None: 1.0}.get(parts["prefix"]) or _PREFIXES[parts["prefix"]]
        unit, per = (parts["unit"] or "").strip(), None
        if unit:
            if unit[0] in "kKMG" and _UNIT.fullmatch(unit[1:]) and parts["prefix"] is None:
                factor, unit = _PREFIXES[unit[0]], unit[1:]
            per = per_seconds(unit)
            if per is None:
                raise ValueError(text)
        # 1.56 K is 1560 and no hair less: whole numbers must be told from fractions.
        return float(digits) if factor == 1.0 else round(float(digits) * factor, 9), per


def is_missing(text: str) -> bool:
    """Whether a cell says that nothing was measured."""
    return text.strip().lower() in MISSING


def per_seconds(unit: str) -> float | None:
    """Per how many seconds a unit such as "req/s" or "rpm" counts; None where it is no rate."""
    found = _UNIT.fullmatch(unit.strip())
    if found is None:
        return None
    if found["short"]:
        return 60.0 if found["short"][-1] in "mM" else 1.0
    return float(_PER[found["per"].lower()])


def learn_numbers(texts: Sequence[str], decimal: str | None, comma_is_free: bool) -> NumberFormat | str | None:
    """How some of a column's first cells are written as numbers.

    Args:
        texts: the cells.
        decimal: "." or "," where it is said.
        comma_is_free: the file's columns are not divided by commas, so that one may stand in a number.

    Returns:
        The format; None where they are no numbers; a question where two formats fit.
    """
    cells = [text.strip() for text in texts if not is_missing(text)]
    numbers = [_SPACES.sub("", parts["number"]) for text in cells if (parts := _CELL.fullmatch(text))]
    if len(numbers) < len(cells) or not numbers:
        return None
    for form in _forms(numbers, decimal, comma_is_free):
        if isinstance(form, str):
            return form
        try:
            units = {per for number, per in map(form._split, cells) if per is not None or number}
        except (ValueError, KeyError):
            continue
        if len(units) > 1:
            return "the cells have several units"
        return NumberFormat(form.decimal, form.thousands, next(iter(units), None))
    return None


def foreign_unit(texts: Sequence[str]) -> str | None:
    """The unit of cells whose numbers are no rates, such as "ms" or "%"; None where there is none."""
    for text in texts:
        parts = _CELL.fullmatch(text.strip())
        if parts and parts["unit"] and per_seconds(parts["unit"].lstrip("kKMG")) is None:
            return f"{parts['prefix'] or ''}{parts['unit']}"[:20]
    return None


def _forms(numbers: Sequence[str], decimal: str | None, comma_is_free: bool) -> Sequence[NumberFormat | str]:
    point, comma = NumberFormat(".", ","), NumberFormat(",", ".")
    if decimal:
        return [point if decimal == "." else comma]
    commas, points = ([n for n in numbers if mark in n] for mark in ",.")
    both = [n for n in commas if "." in n]
    if both:
        return [point if all(n.rfind(".") > n.rfind(",") for n in both) else comma]
    if commas:
        if any(n.count(",") > 1 for n in commas):
            return [point]
        if not all(re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", n) for n in commas):
            return [comma, point]
        # "1,234": thousands where every smaller number has no comma and every larger one does.
        if not comma_is_free:
            return [point]
        others = [float(n) for n in numbers if "," not in n]
        if others and max(others) < 1000:
            return [point]
        return [
            "whether the comma of its numbers divides thousands or decimals is not told; allowed: say --decimal , or --decimal ."
        ]
    if comma_is_free and points and all(re.fullmatch(r"[-+]?[1-9]\d{0,2}(\.\d{3})+", n) for n in points):
        if any(n.count(".") > 1 for n in points):
            return [comma]
        return [
            "whether the point of its numbers divides thousands or decimals is not told; allowed: say --decimal , or --decimal ."
        ]
    return [NumberFormat()]


def read_or_refuse(form: NumberFormat, text: str, place: str, column: str) -> float:
    """The number of a cell, finite and from 0; NaN where nothing is there.

    Raises:
        TraceError: another text or number.
    """
    try:
        value = form.read(text)
    except (ValueError, KeyError):
        value = -1.0
    if value < 0 or math.isinf(value):
        raise TraceError(f"{place}: {column} {text[:80]!r} is not allowed; allowed: finite numbers from 0")
    return value
