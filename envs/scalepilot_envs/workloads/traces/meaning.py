"""What numbers are: a rate, a count of each interval, or a counter; said by the user or a name, or read from the numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.workloads.traces.rows import Kind, TraceError

Unit = Literal["rps", "rpm", "rph", "rpd", "count", "counter", "events"]
UNITS: tuple[Unit, ...] = get_args(Unit)
Hint = Literal["rps", "rpm", "rph", "rpd", "count", "counter", "request", "other", "unknown"]
_SECONDS: dict[str, float] = {"rps": 1.0, "rpm": 60.0, "rph": 3600.0, "rpd": 86_400.0}
_WORDS = {
    "rps": "requests per second",
    "rpm": "requests per minute",
    "rph": "requests per hour",
    "rpd": "requests per day",
    "count": "requests counted in each interval",
    "counter": "a rising counter of requests",
    "events": "one request a row",
}
_REQUEST = (
    r"(?:requests?|reqs?|rq|hits?|calls?|invocations?|quer(?:y|ies)|transactions?|visits?|arrivals?|throughput|rps|qps|tps|"
    r"page ?views?|anfragen|zugriffe|aufrufe|requ[eê]tes|peticiones|solicitudes|richieste)"
)
_OTHER = re.compile(
    r"latenc|duration|(?:^|[^a-z])(?:ms|msec|millis|µs|p\d\d|q\d\d|id|avg|min|max|stddev|median|percentile|pid|port|status|code|"
    r"success|index|row|load|score|cost|price|temp\w*|table)(?:$|[^a-z])|response.?time|\bcpu|memory|\bmem\b|\bheap|disk|bytes|octets|"
    r"bandwidth|error|fail|reject|dropped|"
    r"timeout|user|session|percent|%|replica|pod(?:s|_count)\b|instances?\b|queue|in.?flight|active|pending|conn(?:ection)?s?\b|"
    r"size|threads?|version|uptime|healthy|ratio|share|utili[sz]ation|weight|seconds?$|workers?\b|\bvus?\b"
)
_PER: list[tuple[Hint, re.Pattern[str]]] = [
    (unit, re.compile(words))  # type: ignore[misc]
    for unit, words in (
        (
            "rps",
            r"(?:/|per|pro|par|por|al) ?_?(?:s|sec|second|sekunde|seconde|segundo|secondo)\b|(?:^|[^a-z])[rqt]ps\b|"
            r"per_?sec(?:ond)?|reqs?ps|:i?rate\d*[smh]?|(?:^|[^a-z])i?rate\(|per_second\(|as_rate\(",
        ),
        ("rpm", r"(?:/|per|pro|par|por|al) ?_?(?:m|min|minute|minuto)\b|(?:^|[^a-z])[rqt]pm\b|per_?min(?:ute)?"),
        ("rph", r"(?:/|per|pro|par|por|al) ?_?(?:h|hour|stunde|heure|hora|ora)\b|(?:^|[^a-z])[rqt]ph\b|per_?hour"),
        ("rpd", r"(?:/|per|pro|par|por|al) ?_?(?:d|day|tag|jour|día|giorno)\b|per_?day"),
    )
]
_COUNTER = re.compile(r"_total$|_count$|cumulative|\btotal requests? count\b|^total requests?$|counter$")
_COUNT = re.compile(
    r"\((?:sum|count|total)\)|(?:^|[^a-z])(?:count|sum|counts|num|number)(?:$|[^a-z])|increase\(|as_count\(|anzahl"
)
# So many whole numbers that never fall are a counter's, where the name speaks of requests; fewer are asked about.
_FEWEST_RISING = 30
_LARGE_COUNTER = 100_000
_MOST_RESETS = 0.1


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a column are.

    Attributes:
        unit: of them.
        why: what says so.
        sure: the user, a name or the format says it; False where it is read from the numbers.
    """

    unit: Unit
    why: str
    sure: bool = True

    @property
    def kind(self) -> Kind:
        """How the grid takes them."""
        return "counter" if self.unit == "counter" else "count" if self.unit == "count" else "rate"

    @property
    def per_seconds(self) -> float:
        """What to divide a rate by to get requests per second."""
        return _SECONDS.get(self.unit, 1.0)

    @property
    def words(self) -> str:
        """For messages."""
        return _WORDS[self.unit]


def hint_of(name: str) -> Hint:
    """What a column's or metric's name says of its numbers."""
    # Labels are no part of the name.
    name = re.sub(r"^(?:avg|sum|min|max|count):|\{.*\}", "", name).strip()
    text, bare = re.sub(r"[\s_]+", " ", name.lower()), re.sub(r"\s+", "_", name.lower())
    speaks = re.search(rf"(?:^|[^a-z]){_REQUEST}(?:$|[^a-z])", text) is not None
    camel = re.search(r"(?:Request|Invocation|Hit|Call|Query|Queries)s?(?:Count|Total|Rate|$|[A-Z])", name) is not None
    speaks = speaks or camel or re.search(r"(?:^|_)reqs?(?:_|ps|$)", bare) is not None
    per: Hint | None = next((unit for unit, pattern in _PER if pattern.search(text) or pattern.search(bare)), None)
    # A histogram's _count is how many were measured, whatever was measured of them.
    if speaks and re.search(r"(?:duration|latency|time|seconds|size|bytes)[a-z_]*_count$", bare):
        return "counter"
    # "requests/min" is no minimum, "requests per second" no seconds.
    bare_of_per = text
    for _, pattern in _PER:
        bare_of_per = pattern.sub(" ", bare_of_per)
    if _OTHER.search(bare_of_per):
        return "other"
    if per:
        return per
    if _COUNTER.search(bare) or _COUNTER.search(text):
        return "counter"
    if _COUNT.search(text) or re.search(r"(?:Count|Sum)$", name):
        return "count"
    return "request" if speaks else "unknown"


def shape_of(values: NDArray[np.float64]) -> Literal["rising", "resets", "flat", "falls"]:
    """Whether numbers rise like a counter: all the way, with restarts, not at all, or they fall as rates do."""
    steps = np.diff(values[~np.isnan(values)])
    falls = np.flatnonzero(steps < 0)
    if not len(falls):
        return "rising" if (steps > 0).any() else "flat"
    numbers = values[~np.isnan(values)]
    rare = len(falls) <= max(1, _MOST_RESETS * len(steps))
    deep = (numbers[falls + 1] <= 0.5 * numbers[falls]).all()
    rises = steps[steps > 0]
    # After a restart a counter has counted what comes in a few intervals.
    few = len(rises) > 0 and (numbers[falls + 1] <= 5 * rises.max()).all()
    return "resets" if rare and deep and few and len(rises) >= 2 * len(falls) else "falls"


def decide(
    name: str,
    values: NDArray[np.float64],
    place: str,
    *,
    said: Unit | None = None,
    stated: Meaning | None = None,
    per_seconds: float | None = None,
    raw_metric: bool = False,
    expression: bool = False,
    scale_free: bool = False,
) -> Meaning:
    """What the numbers of a series are.

    Args:
        name: of the column or metric.
        values: (n,) the first ones, or all.
        place: of the series, in messages.
        said: what the user says.
        stated: what the format says.
        per_seconds: of the unit written beside the numbers.
        raw_metric: a metric as it was scraped: a counter or a gauge, and nothing says which.
        expression: what Prometheus calculated, which is a rate where nothing speaks against it.
        scale_free: the rates will be scaled anyway: rate or count is the same.

    Raises:
        TraceError: nothing says what they are; the message says what they look like and how to say it.
    """
    if said:
        return Meaning(said, "as --unit says")
    if per_seconds:
        unit: Unit = {1.0: "rps", 60.0: "rpm"}.get(per_seconds, "rph")  # type: ignore[assignment]
        return Meaning(unit, "as written beside the numbers")
    if stated:
        return stated
    hint, shape = hint_of(name), shape_of(values)
    known = values[~np.isnan(values)]
    whole = bool(len(known)) and bool((known == np.floor(known)).all())
    ask = "allowed: say --unit rps, rpm, rph, rpd, count (per interval) or counter"
    if hint in ("rps", "rpm", "rph", "rpd"):
        return Meaning(hint, f"as its name {name[:60]!r} says")
    shown = repr(name[:60]) if name else "the series"
    if hint == "other":
        raise TraceError(f"{place}: {shown} does not look like requests; {ask}, or another column")
    if hint == "counter":
        if shape == "falls":
            raise TraceError(f"{place}: {shown} is named like a counter, but its numbers rise and fall; {ask}")
        return Meaning("counter", f"as its name {name[:60]!r} says, and its numbers rise")
    if shape in ("rising", "resets") and len(known) > 2:
        large = len(known) >= _FEWEST_RISING and known.max() >= _LARGE_COUNTER
        if hint == "request" and whole and large and raw_metric:
            return Meaning(
                "counter",
                f"{len(known):,} whole numbers that rise to {known.max():,.0f}, as a counter of requests does",
                sure=False,
            )
        rises = "never falls" if shape == "rising" else "rises and falls back towards 0, as a counter does"
        raise TraceError(
            f"{place}: {shown} {rises} ({known[0]:,.15g} to {known[-1]:,.15g}): a counter, or a rate that grows? {ask}"
        )
    if hint == "count" and not whole:
        raise TraceError(f"{place}: {shown} is named like a count, but its numbers have fractions; {ask}")
    if hint == "count":
        return Meaning("count", f"as its name {name[:60]!r} says")
    if expression:
        return Meaning("rps", "as what Prometheus calculates from rate(); counts: --unit count", sure=False)
    if not whole:
        return Meaning("rps", "its numbers have fractions and rise and fall; else say --unit", sure=False)
    if scale_free:
        return Meaning("rps", "rate or count: it is scaled", sure=False)
    raise TraceError(
        f"{place}: the unit of {shown} is not told (whole numbers, {known.mean() if len(known) else 0:,.6g} on average); {ask}"
    )
