"""Which columns of a table hold the times and the requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scalepilot_envs.workloads.traces.meaning import hint_of
from scalepilot_envs.workloads.traces.parsed import Said
from scalepilot_envs.workloads.traces.rows import TraceError

# "stamp" is a number that could be a time as well.
Content = Literal["time", "date", "clock", "number", "stamp", "text", "empty"]
_TIME_NAMES = [
    re.compile(words)
    for words in (
        r"(?:time[ _-]?stamp|zeitstempel)\b.*",
        r"[_@]?(?:time|date[ _-]?time|datum[ /]?(?:und )?(?:uhr)?zeit)\b.*|_time|@timestamp|timegenerated.*|time ?\[.*",
        r"(?:date|datum|fecha|data|zeit|zeitpunkt|uhrzeit|hora|heure|horodatage|day|hour|minute|ts|t|epoch.*|unix.*|.*timestamp)\b.*",
        r"(?:period|interval|bucket|window|start|begin|from)(?:[ _-]?(?:start|begin|time|at|ts))*",
        r".*(?:time|date|_at|_ts)(?:[ _]?\(?utc\)?)?",
    )
]
_LABEL_NAMES = re.compile(r"status|code|port|id$|shard|node|partition|zone|region|table", re.IGNORECASE)


@dataclass(frozen=True)
class Chosen:
    """Columns by their numbers, from 0.

    Attributes:
        times: one column, or that of the date and that of the clock.
        values: of requests; none for events.
        others: of numbers, not used.
    """

    times: tuple[int, ...]
    values: tuple[int, ...]
    others: tuple[int, ...] = ()


def is_time_name(name: str) -> int:
    """How much a column's name speaks of time: 0 not at all, the more the better."""
    text = name.strip().lower()
    return next((len(_TIME_NAMES) - i for i, pattern in enumerate(_TIME_NAMES) if pattern.fullmatch(text)), 0)


def choose(names: Sequence[str], contents: Sequence[Content], said: Said, place: str, *, events: bool = False) -> Chosen:
    """The columns of times and requests.

    Args:
        names: of the columns.
        contents: of the columns.
        said: what the user says.
        place: of the header, in messages.
        events: each row is a request: no column of values is needed.

    Raises:
        TraceError: it cannot be told which they are; the message names the columns and the option.
    """
    times = _times(names, contents, said, place)
    numbers = [i for i, kind in enumerate(contents) if kind in ("number", "stamp") and i not in times]
    if said.value_columns:
        values = tuple(_named(names, text, "--value-column", place) for text in said.value_columns)
        wrong = next((i for i in values if contents[i] not in ("number", "stamp", "empty") or i in times), None)
        if wrong is not None:
            raise TraceError(f"{place}: --value-column {names[wrong]!r} holds no numbers; allowed: {_list(names, numbers)}")
        if len(values) > 1 and not said.sum:
            raise TraceError(f"{place}: --value-column names {len(values)} columns; allowed: one, or --sum to add them up")
        return Chosen(times, values, tuple(i for i in numbers if i not in values))
    if events or said.unit == "events":
        return Chosen(times, ())
    if not numbers:
        raise TraceError(f"{place}: no column of numbers beside {names[times[0]]!r}; columns: {_list(names, range(len(names)))}")
    # An index that a table was written with has no name.
    unnamed = re.compile(r"\s*|unnamed: \d+", re.IGNORECASE)
    hints = {i: "other" if unnamed.fullmatch(names[i]) else hint_of(names[i]) for i in numbers}
    speaking = [i for i in numbers if hints[i] not in ("other", "unknown")]
    silent = [i for i in numbers if hints[i] == "unknown"]
    candidates = speaking + silent if said.sum else speaking or silent or numbers
    candidates.sort()
    if said.sum and not candidates:
        candidates = numbers
    if len(candidates) > 1 and not said.sum:
        raise TraceError(
            f"{place}: {len(candidates)} columns could be the requests ({_list(names, candidates)});"
            " allowed: --value-column NAME, or --sum to add them up"
        )
    return Chosen(times, tuple(candidates), tuple(i for i in numbers if i not in candidates))


def labels(
    names: Sequence[str], contents: Sequence[Content], rows: Sequence[Sequence[str]], chosen: Chosen
) -> tuple[tuple[int, ...], bool]:
    """The columns that name a row's series, and whether they do so in every row.

    Where no time repeats in the first rows, a text that stays the same may still be the name of the first of several series.
    """
    if not chosen.values:
        return (), False
    free = [i for i in range(len(names)) if i not in (*chosen.times, *chosen.values)]
    texts = [i for i in free if contents[i] == "text"]
    texts += [i for i in free if contents[i] in ("number", "stamp") and _LABEL_NAMES.search(names[i])]
    distinct = {i: {row[i] for row in rows if len(row) > i} for i in texts}
    stamps = [tuple(row[i] for i in chosen.times) for row in rows if len(row) > max(chosen.times)]
    if len(set(stamps)) < len(stamps):
        told = tuple(i for i in texts if len(distinct[i]) > 1)
        if told:
            return told, True
    return tuple(i for i in texts if len(distinct[i]) == 1 and contents[i] == "text"), False


def _times(names: Sequence[str], contents: Sequence[Content], said: Said, place: str) -> tuple[int, ...]:
    clocks = [i for i, kind in enumerate(contents) if kind == "clock"]
    if said.time_column is not None:
        i = _named(names, said.time_column, "--time-column", place)
        if contents[i] not in ("time", "date", "stamp"):
            raise TraceError(
                f"{place}: --time-column {names[i]!r} holds no times that are known; allowed: ISO-8601, Unix time, dates"
            )
        return (i, clocks[0]) if contents[i] == "date" and len(clocks) == 1 else (i,)
    texts = [i for i, kind in enumerate(contents) if kind in ("time", "date")]
    ranked = sorted(((is_time_name(names[i]), i) for i in texts), key=lambda pair: (-pair[0], pair[1]))
    if ranked:
        best = [i for rank, i in ranked if rank == ranked[0][0]]
        i = best[0]
        if len(best) > 1:
            raise TraceError(
                f"{place}: {len(best)} columns could be the time ({_list(names, best)}); allowed: --time-column NAME"
            )
        return (i, clocks[0]) if contents[i] == "date" and len(clocks) == 1 else (i,)
    stamps = [i for i, kind in enumerate(contents) if kind == "stamp"]
    named = sorted(((is_time_name(names[i]), i) for i in stamps if is_time_name(names[i])), key=lambda pair: (-pair[0], pair[1]))
    if named:
        return (named[0][1],)
    if len(stamps) == 1 or 0 in stamps:
        return (stamps[0],)
    raise TraceError(
        f"{place}: no column of times is recognised; columns: {_list(names, range(len(names)))};"
        " allowed: a column of ISO-8601, Unix or Excel times, such as timestamp,requests_per_second, or --time-column NAME"
    )


def _named(names: Sequence[str], text: str, option: str, place: str) -> int:
    for same in (str.__eq__, lambda a, b: a.strip().lower() == b.strip().lower()):
        found = [i for i, name in enumerate(names) if same(name, text)]
        if len(found) == 1:
            return found[0]
    if text.isdigit() and 1 <= int(text) <= len(names):
        return int(text) - 1
    raise TraceError(f"{place}: {option} {text!r} is not a column; allowed: {_list(names, range(len(names)))}")


def _list(names: Sequence[str], which: Sequence[int] | range) -> str:
    shown = ", ".join(names[i][:40] or f"column {i + 1}" for i in which)
    return shown if len(shown) <= 160 else f"{shown[:160]} …"
