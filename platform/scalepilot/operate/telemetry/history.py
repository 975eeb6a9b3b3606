"""Traffic that a Prometheus has recorded, as a trace to train on: what was not scraped is a gap and not less traffic."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.operate.snapshot import utc
from scalepilot.operate.telemetry.client import PrometheusClient, PrometheusError, TooLargeError
from scalepilot.operate.telemetry.counters import Array, Samples
from scalepilot.operate.telemetry.selectors import selectors
from scalepilot.operate.telemetry.tally import Tally
from scalepilot_envs.workloads.traces.meaning import Meaning, hint_of
from scalepilot_envs.workloads.traces.parsed import Parsed
from scalepilot_envs.workloads.traces.rows import Rows

# Of 11,000 that Prometheus allows.
_MOST_POINTS = 10_000
_MOST_STEPS = 2_000_000
_ANSWER_SECONDS = 60.0
# Raw samples are asked for so much at a time: long enough to be quick, and well below what a server holds in memory.
_FIRST_SPAN, _SHORTEST_SPAN, _LONGEST_SPAN = 6 * 3600.0, 300.0, 4 * 86_400.0
_FEW_SAMPLES, _MANY_SAMPLES = 100_000, 400_000
# What a selector without a range still sees of a series that has ended: Prometheus' lookback.
_LOOKBACK_SECONDS = 300.0
# Fewer pods than expected for a shorter time are new ones that were not scraped yet.
_SHORTEST_LOSS_SECONDS = 120.0
# Of the time: more is no loss, but a service that was scaled.
_MOST_LOST = 0.2
# At the beginning or the end, which are not worth a word.
_FEW_STEPS = 2
_RANGE = re.compile(r"\[\s*((?:\d+(?:ms|[smhdwy]))+)\s*(?::[^\]]*)?\]")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Wanted:
    """What to import.

    Attributes:
        query: a counter with its selector, or an expression that gives a rate.
        start: Unix seconds of the first step.
        end: of the last one.
        step_seconds: of a step.
        coverage: expression for the pods that were scraped; None for what a counter's own samples tell.
        expected: expression for the pods there were; None for the most that were scraped at a time.
        is_counter: the query is a counter; None where its name and Prometheus say so.
        sum: add several series of an expression up.
        fills_gaps: what is not known is filled by whoever assembles the trace; False refuses it.
    """

    query: str
    start: float
    end: float
    step_seconds: float = 60.0
    coverage: str | None = None
    expected: str | None = None
    is_counter: bool | None = None
    sum: bool = False
    fills_gaps: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step_seconds) and self.step_seconds >= 1):
            raise InputError(f"--step: {self.step_seconds:g} is not allowed; allowed: seconds from 1")
        if not self.end - self.start >= 2 * self.step_seconds:
            raise InputError(
                f"--end: {utc(self.end)} is not two steps of {self.step_seconds:g} s after --start {utc(self.start)}"
            )
        if self.num_steps > _MOST_STEPS:
            raise InputError(f"--step: {self.num_steps:,} steps; allowed: up to {_MOST_STEPS:,}, by a longer --step")

    @property
    def num_steps(self) -> int:
        """Whole steps between start and end."""
        return int((self.end - self.start) / self.step_seconds + 1e-6)

    @property
    def ends(self) -> Array:
        """(num_steps,) end of each step."""
        return self.start + self.step_seconds * np.arange(1, self.num_steps + 1, dtype=np.float64)


def read_history(client: PrometheusClient, wanted: Wanted, progress: Progress = lambda share: None) -> Parsed:
    """The rates of each step, NaN where they are not known, for whoever assembles a trace.

    Args:
        client: of the Prometheus.
        wanted: what.
        progress: is told the share that was read.

    Raises:
        InputError: nothing is found, or something that gives no rate.
        PrometheusError: no answer.
    """
    given = selectors(wanted.query)
    is_bare = len(given) == 1 and re.sub(r"\s", "", wanted.query) == re.sub(r"\s", "", given[0])
    is_counter = is_bare and (_is_counter(client, given[0]) if wanted.is_counter is None else wanted.is_counter)
    if wanted.is_counter and not is_bare:
        raise InputError(f"--unit counter: {wanted.query[:80]!r} is an expression; allowed: a counter and its labels alone")
    reads = _of_counter if is_counter else _of_expression
    rates, reasons, told, seen = reads(client, wanted, progress)
    found = _covered(client, wanted, seen, is_counter)
    reasons = [*reasons, *found]
    rates = rates.copy()
    for missing, _ in reasons:
        rates[missing] = np.nan
    known = np.flatnonzero(~np.isnan(rates))
    if len(known) < 2:
        raise InputError(f"--query: {wanted.query[:80]!r} has no data from {utc(wanted.start)} to {utc(wanted.end)}")
    # Before the first and after the last there is nothing to fill.
    first, last = int(known[0]), int(known[-1]) + 1
    if first > _FEW_STEPS or wanted.num_steps - last > _FEW_STEPS:
        told.append(f"recorded from {utc(wanted.start + first * wanted.step_seconds)} to {utc(wanted.ends[last - 1])} only")
    for missing, reason in reasons:
        if number := int(missing[first:last].sum()):
            told.append(f"{number:,} steps: {reason}")
    if not wanted.fills_gaps:
        _refuse_gaps(wanted, np.isnan(rates[first:last]), first, reasons)
    stamps = wanted.start + wanted.step_seconds * np.arange(first, last, dtype=np.float64)
    stated = Meaning("rps", "the counter's rise over each step") if is_counter else None
    return Parsed(
        "a counter of Prometheus" if is_counter else "an expression of Prometheus",
        iter([("", Rows(stamps, rates[first:last], np.arange(first, last), "no samples"))]),
        lambda step: f"{client.url}: {utc(wanted.start + step * wanted.step_seconds)}",
        stated=stated,
        column=wanted.query,
        expression=True,
        period=wanted.step_seconds,
        told=told,
    )


def _refuse_gaps(wanted: Wanted, missing: NDArray[np.bool_], first: int, reasons: list[tuple[NDArray[np.bool_], str]]) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8))).reshape(-1, 2) + first
    if not len(edges):
        return
    begin, end = (utc(wanted.start + wanted.step_seconds * int(at)) for at in edges[0])
    why = next((reason for lost, reason in reasons if lost[edges[0][0]]), "no samples")
    more = f", and {len(edges) - 1:,} more gaps" if len(edges) > 1 else ""
    raise InputError(
        f"{begin} to {end}: {why} ({int(missing.sum()):,} of {len(missing):,} steps are not known{more});"
        " allowed: --gaps linear, previous or zero to fill them, or another --start and --end"
    )


Read = tuple[Array, list[tuple[NDArray[np.bool_], str]], list[str], NDArray[np.int64] | None]


def _is_counter(client: PrometheusClient, selector: str) -> bool:
    name = selector.partition("{")[0]
    if hint_of(name) == "counter":
        return True
    try:
        entries = client.ask("metadata", {"metric": name, "limit": "1"}, _ANSWER_SECONDS).result
        return any(entry.get("type") == "counter" for entry in entries.get(name, ()))
    except (PrometheusError, AttributeError):
        # Not every store that speaks like Prometheus has it.
        return False


def _of_counter(client: PrometheusClient, wanted: Wanted, progress: Progress) -> Read:
    tally = Tally(wanted.start, wanted.step_seconds, wanted.num_steps)
    for samples, share in _raw(client, wanted):
        tally.add(samples)
        progress(share)
    if not tally.num_samples:
        raise InputError(f"--query: no series of {wanted.query[:80]!r} from {utc(wanted.start)} to {utc(wanted.end)}")
    rates = tally.counts / wanted.step_seconds
    first, last = tally.whole()
    rates[:first] = rates[last:] = np.nan
    told = [f"{tally.num_samples:,} samples, each rate is the counter's rise over a step"]
    if tally.num_resets:
        told.append(f"{tally.num_resets:,} restarts of counters, each counted from zero")
    none = (tally.num_seen == 0) & ~tally.in_hole
    reasons = [(tally.in_hole, "a pod was not scraped"), (none, "no samples")]
    return rates, reasons, told, tally.num_seen


def _raw(client: PrometheusClient, wanted: Wanted) -> Iterator[tuple[list[Samples], float]]:
    """All samples, a part at a time, with the share that was read; from a little before to a little after."""
    margin = max(_LOOKBACK_SECONDS, 2 * wanted.step_seconds)
    at, stop, span = wanted.start - margin, wanted.ends[-1] + margin, _FIRST_SPAN
    begun = at
    while at < stop:
        upto = min(stop, at + span)
        try:
            samples = client.ranges(f"{wanted.query}[{1000 * (upto - at):.0f}ms]", upto, _ANSWER_SECONDS)
        except TooLargeError:
            if span <= _SHORTEST_SPAN:
                raise
            span = max(_SHORTEST_SPAN, span / 4)
            continue
        number = sum(len(one.times) for one in samples)
        at = upto
        yield samples, (at - begun) / (stop - begun)
        span *= 2 if number < _FEW_SAMPLES else 0.5 if number > _MANY_SAMPLES else 1
        span = min(max(span, _SHORTEST_SPAN), _LONGEST_SPAN)


def _of_expression(client: PrometheusClient, wanted: Wanted, progress: Progress) -> Read:
    ranges = _ranges(wanted.query)
    name = selectors(wanted.query)[0].partition("{")[0] if selectors(wanted.query) else ""
    if not ranges and hint_of(name) == "counter":
        raise InputError(
            f"--query: {wanted.query[:80]!r} adds counters up, which loses their restarts;"
            f" allowed: the counter alone, {name}{{…}}, or sum(rate({name}{{…}}[5m]))"
        )
    if re.search(r"\bincrease\s*\(", wanted.query) and ranges and abs(max(ranges) - wanted.step_seconds) > 1e-3:
        raise InputError(
            f"--step: {wanted.step_seconds:g} s beside an increase over {max(ranges):g} s counts requests twice or not at all;"
            f" allowed: --step {max(ranges):g}, or rate() in its place"
        )
    found = _on_grid(client, wanted.query, wanted, progress)
    if not found:
        raise InputError(f"--query: {wanted.query[:80]!r} has no data from {utc(wanted.start)} to {utc(wanted.end)}")
    if len(found) > 1 and not wanted.sum:
        shown = ", ".join(key or "without labels" for key in list(found)[:3])
        raise InputError(f"--query: gives {len(found)} series ({shown}, …); allowed: one, such as by sum(…), or --sum")
    if any((values < 0).any() for values in found.values()):
        raise InputError(f"--query: {wanted.query[:80]!r} gives negative numbers; allowed: requests")
    told, hole = [], np.zeros(wanted.num_steps, dtype=np.bool_)
    total, any_known = np.zeros(wanted.num_steps), np.zeros(wanted.num_steps, dtype=np.bool_)
    for values in found.values():
        known = ~np.isnan(values)
        any_known |= known
        total[known] += values[known]
        inside = np.flatnonzero(known)
        hole[inside[0] : inside[-1] + 1] |= ~known[inside[0] : inside[-1] + 1]
    if len(found) > 1:
        told.append(f"the sum of {len(found)} series; each counts as 0 before its first and after its last value")
    if ranges and max(ranges) < 0.99 * wanted.step_seconds:
        told.append(
            f"each rate is of {max(ranges):g} s of a step of {wanted.step_seconds:g} s; better: [{wanted.step_seconds:g}s]"
        )
    total[~any_known] = np.nan
    return total, [(hole | ~any_known, "no value")], told, None


def _on_grid(client: PrometheusClient, query: str, wanted: Wanted, progress: Progress = lambda share: None) -> dict[str, Array]:
    """Series → (num_steps,) its values at the end of each step, NaN where there is none."""
    found: dict[str, Array] = {}
    for labels, numbers, values in _parts(client, query, wanted, progress):
        found.setdefault(labels, np.full(wanted.num_steps, np.nan))[numbers] = values
    return found


def _parts(
    client: PrometheusClient, query: str, wanted: Wanted, progress: Progress = lambda share: None
) -> Iterator[tuple[str, NDArray[np.int64], Array]]:
    """Labels, (n,) numbers of steps and (n,) values of each series, a part of the time after the other."""
    ends, at, points = wanted.ends, 0, _MOST_POINTS
    while at < len(ends):
        upto = min(len(ends), at + points)
        try:
            part = client.range_query(query, ends[at], ends[upto - 1], wanted.step_seconds, _ANSWER_SECONDS)
        except TooLargeError:
            if points <= 100:
                raise
            points //= 4
            continue
        for one in part:
            labels = ", ".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
            yield labels, np.rint((one.times - ends[0]) / wanted.step_seconds).astype(np.int64), one.values
        at = upto
        progress(at / len(ends))


def _holes(client: PrometheusClient, wanted: Wanted) -> NDArray[np.bool_]:
    """(num_steps,) where the counters of a pod were not there for a while, and then went on: it was not scraped."""
    lost = np.zeros(wanted.num_steps, dtype=np.bool_)
    for selector in selectors(wanted.query):
        if hint_of(selector.partition("{")[0]) != "counter":
            continue
        last: dict[str, tuple[int, float]] = {}
        for labels, numbers, values in _parts(client, f"sum by (namespace, pod, instance) ({selector})", wanted):
            at, value = last.get(labels, (int(numbers[0]), float(values[0])))
            numbers, values = np.append(at, numbers), np.append(value, values)
            # Whoever begins again from zero was not there meanwhile.
            for i in np.flatnonzero((np.diff(numbers) > 1) & (np.diff(values) >= 0)):
                lost[numbers[i] + 1 : numbers[i + 1]] = True
            last[labels] = int(numbers[-1]), float(values[-1])
    forward = max(_ranges(wanted.query), default=0.0)
    return _long_enough(lost, wanted.step_seconds, _LOOKBACK_SECONDS, forward)


def _covered(
    client: PrometheusClient, wanted: Wanted, seen: NDArray[np.int64] | None, is_counter: bool
) -> list[tuple[NDArray[np.bool_], str]]:
    """The steps in which fewer pods were scraped than there were."""
    if wanted.coverage is None and wanted.expected is None:
        return [] if is_counter else [(_holes(client, wanted), "a pod was not scraped")]
    if wanted.coverage is None and seen is None:
        raise InputError("--expected: is compared with --coverage; allowed: both, or a counter as --query")
    pods = _one(client, wanted, "--coverage", wanted.coverage) if wanted.coverage else np.asarray(seen, dtype=np.float64)
    most = float(np.nanmax(pods, initial=0.0))
    expected = np.full(wanted.num_steps, most)
    if wanted.expected is not None:
        expected = _held(_one(client, wanted, "--expected", wanted.expected))
    lost = np.nan_to_num(pods, nan=0.0) < expected - 0.5
    back = _LOOKBACK_SECONDS if wanted.coverage and not _ranges(wanted.coverage) else 0.0
    forward = 0.0 if is_counter else max(_ranges(wanted.query), default=0.0)
    lost = _long_enough(lost, wanted.step_seconds, back, forward)
    if wanted.expected is None and lost.mean() > _MOST_LOST:
        raise InputError(
            f"--coverage: fewer pods than the most ({most:g}) were scraped in {lost.mean():.0%} of the time, which looks like"
            " scaling; allowed: --expected with a query for the pods there were"
        )
    return [(lost, "fewer pods were scraped than there were")]


def _one(client: PrometheusClient, wanted: Wanted, option: str, query: str) -> Array:
    found = _on_grid(client, query, wanted)
    if len(found) != 1:
        raise InputError(f"{option}: {query[:80]!r} gives {len(found)} series; allowed: one number, such as by count(…)")
    return next(iter(found.values()))


def _held(values: Array) -> Array:
    """The last known number, where none is known."""
    known = np.where(np.isnan(values), 0, np.arange(len(values)))
    held: Array = values[np.maximum.accumulate(known)]
    return np.where(np.isnan(held), 0.0, held)


def _long_enough(lost: NDArray[np.bool_], step: float, back: float, forward: float) -> NDArray[np.bool_]:
    """Losses that last, with the time before that nobody saw them, and the time after that they are still felt."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(np.int8)))
    found = np.zeros(len(lost), dtype=np.bool_)
    fewest = max(2, math.ceil(_SHORTEST_LOSS_SECONDS / step))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= fewest or (end - start) * step >= _LOOKBACK_SECONDS:
            found[max(0, start - math.ceil(back / step)) : end + math.ceil(forward / step)] = True
    return found


def _ranges(expression: str) -> list[float]:
    """Seconds of the ranges in an expression."""
    return [
        sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))
        for text in _RANGE.findall(expression)
    ]


__all__ = ["Wanted", "read_history"]
