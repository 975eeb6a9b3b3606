"""From what a dialect recognised to one series on a grid, and the words for what was done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.traces.events import EventBins
from scalepilot_envs.workloads.traces.grid import ROWS_TO_LEARN_GRID, GridBuilder, learn_grid
from scalepilot_envs.workloads.traces.meaning import Meaning, decide, shape_of
from scalepilot_envs.workloads.traces.means import Grid
from scalepilot_envs.workloads.traces.parsed import Parsed, Said
from scalepilot_envs.workloads.traces.rows import Rows, TraceError, joined

# Several series are held in memory: 24 bytes a row.
_MOST_ROWS = 20_000_000
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class Imported:
    """A trace, and what it was taken for.

    Attributes:
        series: mean request rates on a regular grid.
        dialect: what the file is.
        unit: of its values, in words, with what says so.
        told: what else was recognised and done, in lines.
        sure: the file says itself what it is; training takes it as it is.
    """

    series: RateSeries
    dialect: str
    unit: str
    told: tuple[str, ...]
    sure: bool = True


def assemble(name: str, parsed: Parsed, said: Said) -> Imported:
    """The series that was asked for, or the only one.

    Args:
        name: of the file.
        parsed: what a dialect recognised.
        said: what the user says of it.

    Raises:
        TraceError: see `import_trace`.
    """
    _refuse_unused(name, parsed, said)
    blocks = _chosen_series(name, parsed, said)
    if parsed.events:
        return _of_events(name, parsed, blocks, said)
    if said.sum or parsed.unordered:
        return _of_many(name, parsed, _gathered(name, blocks), said)
    first, key = [], None
    for series, rows in blocks:
        key = series if key is None else key
        if series != key:
            _refuse_several(name, [key, series, *(other for other, _ in blocks)])
        first.append(rows)
        if sum(len(rows.stamps) for rows in first) >= ROWS_TO_LEARN_GRID:
            break
    if not first or not any(len(rows.stamps) for rows in first):
        raise TraceError(f"{name}: 0 rows; allowed: at least two")
    head = joined(first)
    if len(head.stamps) > 1 and (np.diff(head.stamps) < 0).all():
        # Newest first: turned round, which needs it whole.
        every = _gathered(name, _chain((key or "", head), blocks))
        parsed.told.append("rows are newest first: turned round")
        return _of_many(name, parsed, every, said)
    return _of_stream(name, parsed, key or "", head, blocks, said)


def _refuse_unused(name: str, parsed: Parsed, said: Said) -> None:
    for option in ("time_column", "value_columns", "delimiter", "decimal", "date_order", "timezone"):
        if getattr(said, option) and option not in parsed.used:
            flag = option.removesuffix("s").replace("_", "-")
            raise TraceError(f"{name}: --{flag} is not used: {parsed.dialect} says it itself; allowed: without --{flag}")
    if parsed.events and said.unit not in (None, "events"):
        raise TraceError(f"{name}: --unit {said.unit}: {parsed.dialect} holds one request a row; allowed: without --unit")
    if said.unit == "events" and not parsed.events:
        raise TraceError(
            f"{name}: --unit events: {parsed.dialect} holds numbers over time; allowed: rps, rpm, rph, count, counter"
        )
    if parsed.events and said.gaps != "error":
        raise TraceError(
            f"{name}: --gaps {said.gaps} is not used: where there is no request the rate is 0; allowed: without --gaps"
        )


def _chosen_series(name: str, parsed: Parsed, said: Said) -> Iterator[tuple[str, Rows]]:
    if said.series is None:
        yield from parsed.blocks
        return
    seen: dict[str, bool] = {}
    exact = False
    kept = []
    for key, rows in parsed.blocks:
        if key not in seen:
            seen[key] = said.series in key
            exact = exact or key == said.series
        if seen[key]:
            kept.append((key, rows))
    kept = [(key, rows) for key, rows in kept if key == said.series] if exact else kept
    if not kept:
        names = _names([key for key in seen if key]) or "without --series: it holds one, which has no name"
        raise TraceError(f"{name}: --series {said.series!r} is none of its series; allowed: {names}")
    parsed.told.append(f"only series {_names(list(dict.fromkeys(key for key, _ in kept)))}")
    yield from kept


def _chain(first: tuple[str, Rows], rest: Iterator[tuple[str, Rows]]) -> Iterator[tuple[str, Rows]]:
    yield first
    yield from rest


def _gathered(name: str, blocks: Iterator[tuple[str, Rows]]) -> dict[str, Rows]:
    """All rows of each series, in memory."""
    parts: dict[str, list[Rows]] = {}
    total = 0
    for key, rows in blocks:
        parts.setdefault(key, []).append(rows)
        total += len(rows.stamps)
        if total > _MOST_ROWS:
            raise TraceError(f"{name}: more than {_MOST_ROWS:,} rows to be held at once; allowed: one series in rising order")
    return {key: joined(rows) for key, rows in parts.items()}


def _in_order(rows: Rows) -> Rows:
    return rows.where(np.argsort(rows.stamps, kind="stable"))


def _of_events(name: str, parsed: Parsed, blocks: Iterator[tuple[str, Rows]], said: Said) -> Imported:
    bins = EventBins(name, parsed.place, said.interval_seconds)
    for _, rows in blocks:
        bins.add(rows)
    series = bins.finish()
    told = [
        *parsed.told,
        f"{bins.total:,.15g} requests counted in intervals of {bins.seconds:g} s, the first and last may be cut",
    ]
    busy = np.flatnonzero(series.rates_rps)
    quiet = float(np.diff(busy).max(initial=1) - 1) * series.interval_seconds
    if quiet >= 3600:
        told.append(f"no request for up to {quiet / 3600:,.1f} hours at a time")
    return Imported(series, parsed.dialect, "requests at their own times", (*told, *_zone_told(parsed, said)))


def _meaning(name: str, parsed: Parsed, series: dict[str, Rows], said: Said) -> Meaning:
    """What the series are; those that rest tell nothing, and one that falls is no counter."""
    meanings: dict[str, Meaning] = {}
    groups: dict[str, list[Rows]] = {}
    for key, rows in series.items():
        groups.setdefault(parsed.names.get(key, parsed.column or key), []).append(rows)
    for group, members in groups.items():
        falling = [rows for rows in members if shape_of(rows.values) == "falls"]
        known = falling or [max(members, key=lambda rows: float(np.nanmax(rows.values, initial=0.0)))]
        meanings[group] = decide(
            group,
            known[0].values,
            name,
            said=said.unit,
            stated=parsed.stated,
            per_seconds=parsed.per_seconds,
            raw_metric=parsed.raw_metric,
            expression=parsed.expression,
            scale_free=said.scale_free,
        )
    units = {meaning.unit for meaning in meanings.values()}
    if len(units) > 1:
        shown = ", ".join(f"{group}: {meaning.unit}" for group, meaning in list(meanings.items())[:_NAMES_SHOWN])
        raise TraceError(f"{name}: its series have different units ({shown}); allowed: one unit, or --unit")
    meaning = next(iter(meanings.values()))
    needs_look = meaning.unit == "counter" or (meaning.unit == "count" and not said.scale_free)
    if not said.asked and not meaning.sure and needs_look:
        raise TraceError(
            f"{name}: looks like {meaning.words} ({meaning.why}), which is not said;"
            f" allowed: scalepilot workload import {name} --unit … --out trace.csv first, and then that file"
        )
    return meaning


def _builder(name: str, parsed: Parsed, meaning: Meaning, said: Said, grid: Grid | None = None) -> GridBuilder:
    return GridBuilder(
        name,
        parsed.place,
        gaps=said.gaps,
        interval_seconds=said.interval_seconds,
        kind=meaning.kind,
        counter_resets=said.counter_resets,
        expected_rows=parsed.expected_rows,
        grid=grid,
        period=parsed.period if meaning.kind == "count" else None,
        local=parsed.local,
    )


def _of_stream(name: str, parsed: Parsed, key: str, head: Rows, blocks: Iterator[tuple[str, Rows]], said: Said) -> Imported:
    meaning = _meaning(name, parsed, {key: head}, said)
    builder = _builder(name, parsed, meaning, said)
    builder.add(_per_second(head, meaning))
    for series, rows in blocks:
        if series != key:
            _refuse_several(name, [key, series, *(other for other, _ in blocks)])
        builder.add(_per_second(rows, meaning))
    return _told(parsed, meaning, said, builder.finish(), [builder])


def _of_many(name: str, parsed: Parsed, gathered: dict[str, Rows], said: Said) -> Imported:
    if len(gathered) > 1 and not said.sum:
        _refuse_several(name, list(gathered))
    descending = all(len(rows.stamps) < 2 or (np.diff(rows.stamps) < 0).all() for rows in gathered.values())
    ordered = {key: _in_order(rows) if parsed.unordered or descending else rows for key, rows in gathered.items()}
    meaning = _meaning(name, parsed, ordered, said)
    if len(ordered) == 1:
        builder = _builder(name, parsed, meaning, said)
        builder.add(_per_second(next(iter(ordered.values())), meaning))
        return _told(parsed, meaning, said, builder.finish(), [builder])
    return _added(name, parsed, meaning, ordered, said)


def _added(name: str, parsed: Parsed, meaning: Meaning, ordered: dict[str, Rows], said: Said) -> Imported:
    """The sum of several series on one grid; outside its own time a series counts as 0."""
    grids = {}
    for key, rows in ordered.items():
        stamps = rows.stamps[~np.isnan(rows.values)]
        if len(stamps) > 1 and (np.diff(stamps) > 0).all():
            grids[key] = learn_grid(stamps, meaning.kind, parsed.period if meaning.kind == "count" else None)
    if not grids:
        raise TraceError(f"{name}: its {len(ordered)} series have one row each; allowed: at least two")
    seconds = max(grid.seconds for grid in grids.values())
    if meaning.kind == "count" and any(grid.seconds != seconds for grid in grids.values()):
        raise TraceError(f"{name}: its series are counted in different intervals; allowed: one, or one --series")
    origin = min(grid.start for grid in grids.values())
    phases = [(grid.start - origin) / seconds for grid in grids.values()]
    if any(abs(phase - round(phase)) > 0.01 for phase in phases):
        origin = float(np.floor(origin / seconds) * seconds)
    if said.interval_seconds:
        origin = float(np.floor(origin / seconds) * seconds)
    total, builders, lengths = np.zeros(0), [], []
    first = last = 0
    for key, rows in ordered.items():
        known = rows.stamps[~np.isnan(rows.values)]
        if not len(known):
            raise TraceError(f"{name}: series {key[:60]!r} has no values; allowed: --series without it")
        number = int(np.floor((known[0] - origin) / seconds + 0.2))
        one = replace(parsed, place=lambda line, key=key, place=parsed.place: f"{place(line)} of {key[:60]}")  # type: ignore[misc]
        builder = _builder(name, one, meaning, replace(said, interval_seconds=None), Grid(origin + number * seconds, seconds))
        builder.add(_per_second(rows, meaning))
        rates = builder.finish().rates_rps
        builders.append(builder)
        lengths.append(len(rates))
        if not len(total):
            first, total = number, np.zeros(len(rates))
            last = number + len(rates)
        low, high = min(first, number), max(last, number + len(rates))
        if (low, high) != (first, last):
            grown = np.zeros(high - low)
            grown[first - low : last - low] = total
            total, first, last = grown, low, high
        total[number - first : number - first + len(rates)] += rates
    partial = sum(length < len(total) for length in lengths)
    told = [f"the sum of {len(ordered)} series: {_names(list(ordered))}"]
    if partial:
        told.append(f"{partial} of them do not span the whole time: counted as 0 before their first and after their last row")
    series = RateSeries(total, seconds, origin + first * seconds)
    if said.interval_seconds:
        series = _coarser(name, series, said.interval_seconds)
    return _told(replace(parsed, told=[*parsed.told, *told]), meaning, said, series, builders)


def _coarser(name: str, series: RateSeries, interval_seconds: float) -> RateSeries:
    builder = GridBuilder(
        name, str, interval_seconds=interval_seconds, grid=Grid(series.start_unix_seconds, series.interval_seconds)
    )
    stamps = (series.start_unix_seconds + np.arange(len(series)) * series.interval_seconds).astype(np.float64)
    builder.add(Rows(stamps, series.rates_rps, np.arange(len(series))))
    return builder.finish()


def _per_second(rows: Rows, meaning: Meaning) -> Rows:
    return rows if meaning.per_seconds == 1.0 else replace(rows, values=rows.values / meaning.per_seconds)


def _refuse_several(name: str, keys: list[str]) -> None:
    keys = list(dict.fromkeys(keys))
    raise TraceError(
        f"{name}: holds {len(keys)} series ({_names(keys)}); allowed: one, --sum to add them up, or --series with part of a name"
    )


def _names(keys: list[str]) -> str:
    shown = ", ".join(key[:60] for key in keys[:_NAMES_SHOWN])
    return shown if len(keys) <= _NAMES_SHOWN else f"{shown} and {len(keys) - _NAMES_SHOWN} more"


def _zone_told(parsed: Parsed, said: Said) -> list[str]:
    if said.timezone:
        return [f"times without a zone, taken as {said.timezone}"]
    return ["times without a zone, taken as UTC (else: --timezone)"] if parsed.local else []


def _told(parsed: Parsed, meaning: Meaning, said: Said, series: RateSeries, builders: list[GridBuilder]) -> Imported:
    """What was recognised and done, in lines."""
    told = [*parsed.told, *_zone_told(parsed, said)]
    jitter = max(builder.largest_jitter for builder in builders)
    between, gaps, missing, resets = (
        sum(getattr(builder, name) for builder in builders) for name in ("num_between", "num_gaps", "num_missing", "num_resets")
    )
    if jitter > 1e-3:
        told.append(f"rows up to {jitter:.3g} s beside the grid of {series.interval_seconds:g} s, put onto it")
    if between:
        told.append(f"{between:,} rows between the points of the grid: averaged over time, each rate until the next row")
    if missing:
        told.append(f"{missing:,} rows without a number")
    if gaps:
        told.append(f"{gaps:,} gaps " + ("that the counter bridges" if meaning.kind == "counter" else f"filled: {said.gaps}"))
    if resets:
        told.append(f"{resets:,} restarts of the counter, each counted from zero")
    left_out = max(builder.left_out_seconds for builder in builders)
    if left_out:
        told.append(f"the last {left_out:g} s are left out: not a whole interval")
    if meaning.kind == "counter":
        told.append("each rate is the counter's rise over an interval")
    return Imported(
        series, parsed.dialect, f"{meaning.words}, {meaning.why}", tuple(told), meaning.sure or meaning.kind == "rate"
    )
