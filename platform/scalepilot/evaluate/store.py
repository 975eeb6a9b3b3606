"""Comparisons as files: summary.json, episodes.parquet and playback.parquet, written aside and renamed.

One workload's summary is that of its comparison. Several workloads (or one, from `scalepilot compare`) have their means on
top, in the same form, and each workload's own summary under `by_workload`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, StrictFloat, TypeAdapter, ValidationError

from scalepilot.errors import InputError
from scalepilot.evaluate.causal import above_causal
from scalepilot.evaluate.comparison import (
    ROLES,
    Comparison,
    Contender,
    FrontPoint,
    GapReference,
    Member,
    PlayedBack,
    Role,
    Scope,
)
from scalepilot.evaluate.statistics.intervals import GapClosed, Interval, PairedDifference
from scalepilot.evaluate.suite import Standing, SuiteComparison
from scalepilot.files.atomic import write_bytes
from scalepilot.files.stored import checked_record, first_problem, read_mapping, read_table
from scalepilot.simulate import EpisodeIndex, EpisodeResults, Playback
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot_envs.autoscale.description import COST
from scalepilot_envs.objective import Metric, Objective, by_return

SUMMARY_FILE, EPISODES_FILE, PLAYBACK_FILE = "summary.json", "episodes.parquet", "playback.parquet"
_SCOPE: TypeAdapter[Scope] = TypeAdapter(Scope)
_PLAYED_BACK: TypeAdapter[PlayedBack | None] = TypeAdapter(PlayedBack | None)
_FRONTS: TypeAdapter[dict[str, tuple[FrontPoint, ...]]] = TypeAdapter(dict[str, tuple[FrontPoint, ...]])
_GAP_REFERENCE: TypeAdapter[GapReference | None] = TypeAdapter(GapReference | None)
# Columns of episodes.parquet that are no figures of an episode.
_LABELS = ("policy", "role", "workload", "member", "training_seed", "window", "seed", "start_unix_seconds")
# Name of a column of the results → its name in the file.
_RETURN, _STORED_RETURN = "return", "episode_return"
_OF_OBJECTIVE = ("metric", "lower_is_better", "label", "short_label", "training_metric", "validation_metric")


@dataclass(frozen=True)
class Figure:
    """A stored figure with its 95 % interval; what is unknown is None."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    mean: StrictFloat | None
    low: StrictFloat | None = None
    high: StrictFloat | None = None


@dataclass(frozen=True)
class Summary:
    """What every summary.json of an evaluation holds.

    Attributes:
        workloads: evaluated on, or the environment's id.
        policies: name → metric → figure.
        roles: name → policy, baseline or reference.
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


def write_evaluation(comparison: Comparison | SuiteComparison, folder: Path, also: Mapping[str, Any] | None = None) -> None:
    """Write a comparison for people's scripts and for `read_evaluation`.

    Args:
        comparison: what to store.
        folder: made if missing; files of an earlier evaluation are replaced, each in one step.
        also: further keys of summary.json, which `read_evaluation` leaves alone.
    """
    comparisons = comparison.comparisons if isinstance(comparison, SuiteComparison) else (comparison,)
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever finds a summary finds the episodes behind it, never those of another comparison.
    (folder / SUMMARY_FILE).unlink(missing_ok=True)
    write_bytes(folder / EPISODES_FILE, _parquet([_episodes_table(c) for c in comparisons]))
    playbacks = [table for c in comparisons if (table := _playback_table(c)) is not None]
    if playbacks:
        write_bytes(folder / PLAYBACK_FILE, _parquet(playbacks))
    else:
        (folder / PLAYBACK_FILE).unlink(missing_ok=True)
    text = json.dumps({**summary(comparison), **(also or {})}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(folder / SUMMARY_FILE, text.encode())


def _parquet(tables: list[Any]) -> bytes:
    # Imported where they are used: what runs policies live has no Arrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # An environment need not report the same numbers under every policy.
    pq.write_table(pa.concat_tables(tables, promote_options="default"), sink)
    return bytes(sink.getvalue())


def summary(comparison: Comparison | SuiteComparison) -> dict[str, Any]:
    """The machine-readable result; an unknown number is null."""
    return _suite_summary(comparison) if isinstance(comparison, SuiteComparison) else _workload_summary(comparison)


def _suite_summary(suite: SuiteComparison) -> dict[str, Any]:
    # Of a single workload the top tells all there is to tell.
    alone = _workload_summary(suite.comparisons[0]) if len(suite.comparisons) == 1 else {}
    return alone | {
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


def _above_causal(comparison: Comparison) -> dict[str, Any]:
    """Only where the best causal policy takes part."""
    above = above_causal(comparison)
    return {"above_causal_optimum": {name: interval_json(share) for name, share in above.items()}} if above else {}


def _fronts_json(comparison: Comparison) -> dict[str, Any]:
    """Only of policies that can be turned."""
    fronts = {name: [asdict(point) for point in points] for name, points in comparison.fronts.items()}
    return {"fronts": fronts} if fronts else {}


def _workload_summary(comparison: Comparison) -> dict[str, Any]:
    return {
        "workloads": [comparison.workload],
        "episodes": len(comparison.episodes),
        "objective": {key: getattr(comparison.objective, key) for key in _OF_OBJECTIVE} | {"column": comparison.objective.column},
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
        **_above_causal(comparison),
        **_fronts_json(comparison),
        "roles": {c.name: c.role for c in comparison.contenders},
        "details": {c.name: c.detail for c in comparison.contenders},
        "members": {
            c.name: [{"name": m.name, "training_seed": m.training_seed} for m in c.members]
            for c in comparison.contenders
            if c.members
        },
        "test_set": {key: json_number(value) for key, value in asdict(comparison.scope).items()},
        "played_back": asdict(comparison.played_back) if comparison.played_back else None,
        "notes": {c.name: c.results.notes.to_mapping() for c in comparison.contenders if c.notes},
    }


def _gaps_json(gaps: Mapping[str, GapClosed]) -> dict[str, Any]:
    return {b: interval_json(g.share) | {"pairs": g.pairs, "left_out": g.left_out} for b, g in gaps.items()}


def read_evaluation(folder: Path) -> Comparison | SuiteComparison:
    """Read what `write_evaluation` wrote, in this version or an earlier one: everything a report needs.

    Returns:
        What was written: the comparison of one workload, or of a suite.

    Raises:
        InputError: a file is missing, damaged or not of this form.
    """
    import pyarrow as pa

    stored = read_mapping(folder / SUMMARY_FILE)
    read_summary(folder)
    table = read_table(folder / EPISODES_FILE)
    playback = read_table(folder / PLAYBACK_FILE) if os.path.lexists(folder / PLAYBACK_FILE) else None
    try:
        return _suite(stored, table, playback) if "by_workload" in stored else _comparison(stored, table, playback)
    except ValidationError as error:
        raise InputError(f"{folder / SUMMARY_FILE}: {first_problem(error)}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, pa.ArrowException) as error:
        # Files that are whole, each for itself, but are not those of one evaluation.
        told = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
        raise InputError(f"{folder}: not a stored evaluation ({told})") from None


def read_summary(folder: Path) -> Summary:
    """What summary.json of an evaluation says, without the episodes behind it.

    Raises:
        InputError: it is missing, damaged or not of this form.
    """
    return checked_record(read_mapping(folder / SUMMARY_FILE), _SUMMARY, str(folder / SUMMARY_FILE))


def _suite(stored: dict[str, Any], table: Any, playback: Any) -> SuiteComparison:
    """Build from parsed files; whatever does not fit raises."""
    import pyarrow.compute as pc

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
    columns = {name: table[name].to_numpy() for name in table.column_names}
    if _STORED_RETURN in columns:
        columns[_RETURN] = columns.pop(_STORED_RETURN)
    objective = _objective(stored.get("objective"), columns)
    bound = f"gap_reference_{objective.column}"
    owner = np.array(table["policy"].to_pylist(), dtype=object)
    steps = None
    if playback is not None:
        steps = {name: playback[name].to_numpy() for name in playback.column_names if name not in _LABELS}
        step_owner = np.array(playback["policy"].to_pylist(), dtype=object)
    contenders = []
    for name, role in stored["roles"].items():
        mine = owner == name
        notes = EnvNotes.from_mapping(stored.get("notes", {}).get(name))
        members = []
        for m in stored.get("members", {}).get(name, ()):
            rows = mine & (np.array(table["member"].to_pylist(), dtype=object) == m["name"])
            members.append(Member(m["name"], int(m["training_seed"]), _results(columns, rows, bound)))
        shown = None
        if steps is not None and (step_owner == name).any():
            shown = Playback(**{f.name: steps[f.name][step_owner == name] for f in fields(Playback)})
        results = EpisodeResults.mean_of([m.results for m in members]) if members else _results(columns, mine, bound)
        what = _role(name, role), stored["details"][name]
        contenders.append(Contender(name, *what, replace(results, notes=notes), shown, tuple(members)))
        for column in {objective.column, *(m.column for m in objective.metrics.values())}:
            _ = results[column]
    first = contenders[0].results
    mine = np.flatnonzero(owner == contenders[0].name)[: len(first)]
    begin = columns["start_unix_seconds"][mine] if "start_unix_seconds" in columns else np.full(len(mine), np.nan)
    index, towards = EpisodeIndex(first.window, first.seed, begin), columns.get(bound)
    return Comparison(
        workload=stored["workloads"][0],
        objective=objective,
        episodes=index,
        contenders=tuple(contenders),
        rows={name: {m: _interval(values) for m, values in row.items()} for name, row in stored["policies"].items()},
        gap_closed={name: _gaps(against) for name, against in stored.get("gap_closed", {}).items()},
        versus={
            name: {
                b: PairedDifference(_interval(d), _float(d.get("relative")), _float(d["probability_lower"]))
                for b, d in against.items()
            }
            for name, against in stored["versus"].items()
        },
        scope=_scope(stored.get("test_set"), index),
        played_back=_PLAYED_BACK.validate_python(stored.get("played_back")),
        gap_reference=_GAP_REFERENCE.validate_python(stored.get("gap_reference")),
        gap_reference_values=None if towards is None or not stored.get("gap_reference") else towards[mine],
        fronts=_FRONTS.validate_python(stored.get("fronts", {})),
    )


def _objective(stored: Mapping[str, Any] | None, columns: Mapping[str, Any]) -> Objective:
    """What decides; earlier versions wrote the costs of Autoscale, or returns, and did not say which."""
    metric = (_RETURN if _RETURN in columns else COST.metric) if stored is None else stored["metric"]
    if metric in (COST.metric, _RETURN):
        return COST if metric == COST.metric else by_return()
    assert stored is not None
    said = {key: stored[key] for key in _OF_OBJECTIVE}
    return Objective(**said, metrics={metric: Metric(stored["column"])}, takes_all=True)


def _scope(stored: Mapping[str, Any] | None, index: EpisodeIndex) -> Scope:
    if stored is None:
        # Earlier versions did not write it for returns.
        return Scope(len(index), 1, 0, "episode", len(index), None, None, math.nan, math.nan)
    unknown = {"window_hours": None, "window_steps": None}
    return _SCOPE.validate_python({key: unknown.get(key, math.nan) if value is None else value for key, value in stored.items()})


def _results(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.bool_], bound: str) -> EpisodeResults:
    seed = columns["seed"][rows]
    window = columns["window"][rows] if "window" in columns else np.arange(len(seed))
    own = {name: column[rows] for name, column in columns.items() if name not in (*_LABELS, bound)}
    # What another contender's episodes reported is missing here.
    return EpisodeResults(window, seed, {name: c for name, c in own.items() if not (c.dtype.kind == "f" and np.isnan(c).all())})


def _role(name: str, role: Any) -> Role:
    for known in ROLES:
        if role == known:
            return known
    raise ValueError(f"roles.{name}: {role!r} is not allowed; allowed: {', '.join(ROLES)}")


def _gaps(stored: Mapping[str, Any]) -> dict[str, GapClosed]:
    return {b: GapClosed(_interval(g), int(g["pairs"]), int(g["left_out"])) for b, g in stored.items()}


def _episodes_table(comparison: Comparison) -> Any:
    """One row an episode and policy; of a contender with members, one an episode and member."""
    import pyarrow as pa

    index, towards = comparison.episodes, comparison.gap_reference_values
    parts = []
    for c in comparison.contenders:
        for member in c.members or (None,):
            results = member.results if member else c.results
            n = len(results)
            label: dict[str, Any] = {"policy": [c.name] * n, "role": [c.role] * n, "workload": [comparison.workload] * n}
            label |= {"window": results.window, "seed": results.seed}
            label["start_unix_seconds"] = np.asarray(index.start_unix_seconds, np.float64)
            values = {_STORED_RETURN if k == _RETURN else k: np.asarray(v) for k, v in results.columns.items()}
            bound = {f"gap_reference_{comparison.objective.column}": np.full(n, np.nan) if towards is None else towards}
            whose = {
                "member": pa.array([member.name if member else None] * n, pa.string()),
                "training_seed": pa.array([member.training_seed if member else None] * n, pa.int64()),
            }
            parts.append(pa.table(label | values | bound | whose))
    return pa.concat_tables(parts, promote_options="default")


def _playback_table(comparison: Comparison) -> Any | None:
    import pyarrow as pa

    parts = []
    for c in comparison.contenders:
        if c.playback is not None:
            labels = (("policy", c.name), ("workload", comparison.workload))
            values = {f.name: np.asarray(getattr(c.playback, f.name), np.float64) for f in fields(Playback)}
            parts.append(pa.table({key: [text] * len(c.playback.replicas) for key, text in labels} | values))
    return pa.concat_tables(parts) if parts else None


def json_number(value: Any) -> Any:
    """JSON has no NaN: an unknown number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def interval_json(interval: Interval) -> dict[str, float | None]:
    """Mean, low and high; what is unknown is null."""
    return {name: json_number(value) for name, value in asdict(interval).items()}


def _interval(values: Mapping[str, Any]) -> Interval:
    return Interval(*(_float(values[name]) for name in ("mean", "low", "high")))
