"""Comparisons as files: summary.json, episodes.parquet and playback.parquet, written aside and renamed.

One workload's summary is that of its comparison. Several workloads (or one, from `scalepilot compare`) have their means on
top, in the same form, and each workload's own summary under `by_workload`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StrictFloat, TypeAdapter, ValidationError

from scalepilot.errors import InputError
from scalepilot.evaluate.comparison import ROLES, Comparison, Contestant, GapReference, Member, PlayedBack, Role, Scope
from scalepilot.evaluate.statistics.intervals import GapClosed, Interval, PairedDifference
from scalepilot.evaluate.suite import Standing, SuiteComparison
from scalepilot.files.stored import checked_record, first_problem, read_mapping, read_table
from scalepilot.simulate import EpisodeResults, EpisodeSet, Playback

SUMMARY_FILE, EPISODES_FILE, PLAYBACK_FILE = "summary.json", "episodes.parquet", "playback.parquet"
_SCOPE: TypeAdapter[Scope] = TypeAdapter(Scope)
_PLAYED_BACK: TypeAdapter[PlayedBack | None] = TypeAdapter(PlayedBack | None)
_GAP_REFERENCE: TypeAdapter[GapReference | None] = TypeAdapter(GapReference | None)


@dataclass(frozen=True)
class Figure:
    """A stored figure with its 95 % interval; what is unknown is None."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    mean: StrictFloat | None
    low: StrictFloat | None = None
    high: StrictFloat | None = None


@dataclass(frozen=True)
class Summary:
    """What every summary.json of an evaluation holds, by money or by return.

    Attributes:
        workloads: judged on, or the environment's id.
        policies: name → metric → figure.
        roles: name → policy, baseline or bound.
        details: name → a few words.
        versus: name → baseline → difference.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    workloads: Annotated[list[str], Field(min_length=1)]
    policies: dict[str, dict[str, Figure]]
    roles: dict[str, Role] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    versus: dict[str, dict[str, Figure]] = field(default_factory=dict)


_SUMMARY: TypeAdapter[Summary] = TypeAdapter(Summary)


def write_evaluation(comparison: Comparison | SuiteComparison, folder: Path) -> None:
    """Write a comparison for people's scripts and for `read_evaluation`.

    Args:
        comparison: what to store.
        folder: made if missing; files of an earlier evaluation are replaced, each in one step.
    """
    comparisons = comparison.comparisons if isinstance(comparison, SuiteComparison) else (comparison,)
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever finds a summary finds the episodes behind it, never those of another comparison.
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    episodes = pa.concat_tables([_episodes_table(c) for c in comparisons])
    replace_file(folder / EPISODES_FILE, lambda aside: pq.write_table(episodes, aside))
    playbacks = [table for c in comparisons if (table := _playback_table(c)) is not None]
    if playbacks:
        playback = pa.concat_tables(playbacks)
        replace_file(folder / PLAYBACK_FILE, lambda aside: pq.write_table(playback, aside))
    else:
        (folder / PLAYBACK_FILE).unlink(missing_ok=True)
    text = json.dumps(summary(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(folder / SUMMARY_FILE, lambda aside: aside.write_text(text, encoding="utf-8"))


def summary(comparison: Comparison | SuiteComparison) -> dict[str, Any]:
    """The machine-readable result; an unknown number is null."""
    return _suite_summary(comparison) if isinstance(comparison, SuiteComparison) else _workload_summary(comparison)


def _suite_summary(suite: SuiteComparison) -> dict[str, Any]:
    return {
        "workloads": list(suite.workloads),
        "episodes": sum(len(c.episodes) for c in suite.comparisons),
        "policies": {s.name: {m: interval_json(i) for m, i in s.figures.items()} for s in suite.standings},
        "gap_closed": {s.name: _gaps_json(s.gap_closed) for s in suite.standings if s.gap_closed},
        "yardstick": suite.yardstick,
        "relative_cost": {
            s.name: {"iqm": interval_json(s.relative_cost_iqm), "mean": interval_json(s.relative_cost_mean)}
            for s in suite.standings
        },
        "improvement": {s.name: {b: interval_json(i) for b, i in s.improvement.items()} for s in suite.standings},
        "roles": {s.name: s.role for s in suite.standings},
        "details": {s.name: s.detail for s in suite.standings},
        "failed": dict(suite.failed),
        "by_workload": {c.workload: _workload_summary(c) for c in suite.comparisons},
    }


def _workload_summary(comparison: Comparison) -> dict[str, Any]:
    return {
        "workloads": [comparison.workload],
        "episodes": len(comparison.episodes),
        "policies": {
            name: {metric: interval_json(interval) for metric, interval in row.items()} for name, row in comparison.rows.items()
        },
        "gap_closed": {name: _gaps_json(against) for name, against in comparison.gap_closed.items()},
        "gap_reference": asdict(comparison.gap_reference) if comparison.gap_reference else None,
        "versus": {
            name: {
                b: interval_json(d.difference)
                | {"relative": json_number(d.relative), "probability_lower": json_number(d.probability_lower)}
                for b, d in against.items()
            }
            for name, against in comparison.versus.items()
        },
        "roles": {c.name: c.role for c in comparison.contestants},
        "details": {c.name: c.detail for c in comparison.contestants},
        "members": {
            c.name: [{"name": m.name, "training_seed": m.training_seed} for m in c.members]
            for c in comparison.contestants
            if c.members
        },
        "test_set": {key: json_number(value) for key, value in asdict(comparison.scope).items()},
        "played_back": asdict(comparison.played_back) if comparison.played_back else None,
    }


def _gaps_json(gaps: Mapping[str, GapClosed]) -> dict[str, Any]:
    return {b: interval_json(g.share) | {"pairs": g.pairs, "left_out": g.left_out} for b, g in gaps.items()}


def read_evaluation(folder: Path) -> Comparison | SuiteComparison:
    """Read what `write_evaluation` wrote: everything a report needs. The episodes' rates and arrivals are NaN.

    Returns:
        What was written: the comparison of one workload, or of a suite.

    Raises:
        InputError: a file is missing, damaged or not of this form.
    """
    stored = read_mapping(folder / SUMMARY_FILE)
    read_summary(folder)
    table = read_table(folder / EPISODES_FILE)
    playback = read_table(folder / PLAYBACK_FILE) if os.path.lexists(folder / PLAYBACK_FILE) else None
    try:
        return _suite(stored, table, playback) if "by_workload" in stored else _comparison(stored, table, playback)
    except ValidationError as error:
        raise InputError(f"{folder / SUMMARY_FILE}: {first_problem(error)}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise InputError(not_an_evaluation(folder, error)) from None


def not_an_evaluation(folder: Path, error: Exception) -> str:
    """What to say of files that are whole, each for itself, but are not those of one evaluation."""
    return f"{folder}: not a stored evaluation ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]})"


def read_summary(folder: Path) -> Summary:
    """What summary.json of an evaluation says, without the episodes behind it.

    Raises:
        InputError: it is missing, damaged or not of this form.
    """
    return checked_record(read_mapping(folder / SUMMARY_FILE), _SUMMARY, str(folder / SUMMARY_FILE))


def _suite(stored: dict[str, Any], table: Any, playback: Any) -> SuiteComparison:
    """Build from parsed files; whatever does not fit raises."""
    comparisons = []
    for workload in stored["workloads"]:
        parts = [None if t is None else t.filter(pc.equal(t["workload"], workload)) for t in (table, playback)]
        comparisons.append(_comparison(stored["by_workload"][workload], *parts))
    standings = []
    for name, role in stored["roles"].items():
        relative = stored["relative_cost"][name]
        standings.append(
            Standing(
                name,
                _role(name, role),
                stored["details"][name],
                _interval(relative["iqm"]),
                _interval(relative["mean"]),
                {metric: _interval(values) for metric, values in stored["policies"][name].items()},
                {b: _interval(values) for b, values in stored["improvement"][name].items()},
                _gaps(stored["gap_closed"].get(name, {})),
            )
        )
    return SuiteComparison(tuple(comparisons), stored["yardstick"], tuple(standings), dict(stored["failed"]))


def _comparison(stored: dict[str, Any], table: Any, playback: Any) -> Comparison:
    """Build from parsed files; whatever does not fit raises."""
    labels = ("policy", "role", "workload", "member", "training_seed")
    columns = {name: table[name].to_numpy() for name in table.column_names if name not in labels}
    owner = np.array(table["policy"].to_pylist(), dtype=object)
    steps = None
    if playback is not None:
        steps = {name: playback[name].to_numpy() for name in playback.column_names if name not in labels}
        step_owner = np.array(playback["policy"].to_pylist(), dtype=object)
    contestants = []
    for name, role in stored["roles"].items():
        mine = owner == name
        members = []
        for m in stored.get("members", {}).get(name, ()):
            rows = mine & (np.array(table["member"].to_pylist(), dtype=object) == m["name"])
            members.append(Member(m["name"], int(m["training_seed"]), _results(columns, rows)))
        shown = None
        if steps is not None and (step_owner == name).any():
            shown = Playback(**{f.name: steps[f.name][step_owner == name] for f in fields(Playback)})
        row = name, _role(name, role), stored["details"][name]
        contestants.append(
            Contestant.of_members(*row, members, shown) if members else Contestant(*row, _results(columns, mine), shown)
        )
    scope = _SCOPE.validate_python(
        {key: math.nan if value is None and key != "window_hours" else value for key, value in stored["test_set"].items()}
    )
    first = contestants[0]
    mine = np.flatnonzero(owner == first.name)[: len(first.results.seed)]
    towards = columns.get("gap_reference_J_per_hour")
    unknown = np.broadcast_to(np.nan, (len(mine), scope.window_steps))
    episodes = EpisodeSet(
        stored["workloads"][0],
        unknown,
        unknown,
        columns["window"][mine],
        columns["seed"][mine],
        columns["start_unix_seconds"][mine],
    )
    return Comparison(
        workload=stored["workloads"][0],
        episodes=episodes,
        contestants=tuple(contestants),
        rows={name: {m: _interval(values) for m, values in row.items()} for name, row in stored["policies"].items()},
        gap_closed={name: _gaps(against) for name, against in stored["gap_closed"].items()},
        versus={
            name: {
                b: PairedDifference(_interval(d), _float(d["relative"]), _float(d["probability_lower"]))
                for b, d in against.items()
            }
            for name, against in stored["versus"].items()
        },
        scope=scope,
        played_back=_PLAYED_BACK.validate_python(stored["played_back"]),
        gap_reference=_GAP_REFERENCE.validate_python(stored["gap_reference"]),
        gap_reference_J_per_hour=None if towards is None or not stored["gap_reference"] else towards[mine],
    )


def _results(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.bool_]) -> EpisodeResults:
    return EpisodeResults(**{f.name: columns[f.name][rows] for f in fields(EpisodeResults)})


def _role(name: str, role: Any) -> Role:
    for known in ROLES:
        if role == known:
            return known
    raise ValueError(f"roles.{name}: {role!r} is not allowed; allowed: {', '.join(ROLES)}")


def _gaps(stored: Mapping[str, Any]) -> dict[str, GapClosed]:
    return {b: GapClosed(_interval(g), int(g["pairs"]), int(g["left_out"])) for b, g in stored.items()}


def _episodes_table(comparison: Comparison) -> Any:
    """One row an episode and policy; of a contestant with members, one an episode and member."""
    of, towards = comparison.episodes, comparison.gap_reference_J_per_hour
    parts = []
    for c in comparison.contestants:
        for member in c.members or (None,):
            results = member.results if member else c.results
            n = len(results.window)
            label = {"policy": [c.name] * n, "role": [c.role] * n, "workload": [comparison.workload] * n}
            whose = {
                "member": pa.array([member.name if member else None] * n, pa.string()),
                "training_seed": pa.array([member.training_seed if member else None] * n, pa.int64()),
            }
            values = {name: np.asarray(column) for name, column in results.columns().items()}
            begin = {"start_unix_seconds": np.asarray(of.start_unix_seconds, np.float64)}
            bound = {"gap_reference_J_per_hour": np.full(n, np.nan) if towards is None else towards}
            parts.append(
                pa.table(label | {name: values.pop(name) for name in ("window", "seed")} | begin | values | bound | whose)
            )
    return pa.concat_tables(parts)


def _playback_table(comparison: Comparison) -> Any | None:
    parts = []
    for c in comparison.contestants:
        if c.playback is not None:
            labels = (("policy", c.name), ("workload", comparison.workload))
            values = {f.name: np.asarray(getattr(c.playback, f.name), np.float64) for f in fields(Playback)}
            parts.append(pa.table({key: [text] * len(c.playback.replicas) for key, text in labels} | values))
    return pa.concat_tables(parts) if parts else None


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write aside, rename into place: readers see the old file or the new one, never half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def json_number(value: Any) -> Any:
    """JSON has no NaN: an unknown number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def interval_json(interval: Interval) -> dict[str, float | None]:
    """Mean, low and high; what is unknown is null."""
    return {name: json_number(value) for name, value in asdict(interval).items()}


def _interval(values: dict[str, Any]) -> Interval:
    return Interval(*(_float(values[name]) for name in ("mean", "low", "high")))
