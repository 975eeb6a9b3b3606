"""A comparison as files: summary.json, episodes.parquet and playback.parquet, written aside and renamed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from scalepilot.errors import InputError
from scalepilot.evaluate.comparison import ROLES, Comparison, Contestant, GapReference, PlayedBack, Scope
from scalepilot.evaluate.statistics import GapClosed, Interval, PairedDifference
from scalepilot.simulate import EpisodeResults, EpisodeSet, Playback

SUMMARY_FILE, EPISODES_FILE, PLAYBACK_FILE = "summary.json", "episodes.parquet", "playback.parquet"
_SCOPE: TypeAdapter[Scope] = TypeAdapter(Scope)
_PLAYED_BACK: TypeAdapter[PlayedBack | None] = TypeAdapter(PlayedBack | None)
_GAP_REFERENCE: TypeAdapter[GapReference | None] = TypeAdapter(GapReference | None)
_MAX_SUMMARY_BYTES = 10_000_000


def write_evaluation(comparison: Comparison, folder: Path) -> None:
    """Write a comparison for people's scripts and for `read_evaluation`.

    Args:
        comparison: what to store.
        folder: made if missing; files of an earlier evaluation are replaced, each in one step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / EPISODES_FILE, lambda aside: pq.write_table(_episodes_table(comparison), aside))
    playback = _playback_table(comparison)
    if playback is None:
        (folder / PLAYBACK_FILE).unlink(missing_ok=True)
    else:
        replace_file(folder / PLAYBACK_FILE, lambda aside: pq.write_table(playback, aside))
    # Last: whoever finds a summary finds the episodes behind it.
    text = json.dumps(summary(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(folder / SUMMARY_FILE, lambda aside: aside.write_text(text, encoding="utf-8"))


def summary(comparison: Comparison) -> dict[str, Any]:
    """The machine-readable result; an unknown number is null."""
    return {
        "workloads": [comparison.workload],
        "episodes": len(comparison.episodes),
        "policies": {
            name: {metric: interval_json(interval) for metric, interval in row.items()} for name, row in comparison.rows.items()
        },
        "gap_closed": {
            name: {b: interval_json(g.share) | {"pairs": g.pairs, "left_out": g.left_out} for b, g in against.items()}
            for name, against in comparison.gap_closed.items()
        },
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
        "test_set": {key: json_number(value) for key, value in asdict(comparison.scope).items()},
        "played_back": asdict(comparison.played_back) if comparison.played_back else None,
    }


def read_evaluation(folder: Path) -> Comparison:
    """Read what `write_evaluation` wrote: everything a report needs. The episodes' rates and arrivals are NaN.

    Raises:
        InputError: a file is missing, damaged or not of this form.
    """
    path = folder / SUMMARY_FILE
    try:
        if path.stat().st_size > _MAX_SUMMARY_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes; allowed: up to {_MAX_SUMMARY_BYTES}")
        stored = json.loads(path.read_bytes())
        table = pq.read_table(folder / EPISODES_FILE)
        playback = pq.read_table(folder / PLAYBACK_FILE) if (folder / PLAYBACK_FILE).exists() else None
        return _comparison(stored, table, playback)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ValidationError, pa.ArrowException) as error:
        raise InputError(
            f"{folder}: not a stored evaluation ({type(error).__name__}: {str(error).splitlines()[0][:100]})"
        ) from None


def _comparison(stored: dict[str, Any], table: Any, playback: Any) -> Comparison:
    """Build from parsed files; whatever does not fit raises."""
    columns = {name: table[name].to_numpy() for name in table.column_names if name not in ("policy", "role", "workload")}
    owner = np.array(table["policy"].to_pylist(), dtype=object)
    steps = None
    if playback is not None:
        steps = {name: playback[name].to_numpy() for name in playback.column_names if name != "policy"}
        step_owner = np.array(playback["policy"].to_pylist(), dtype=object)
    contestants = []
    for name, role in stored["roles"].items():
        if role not in ROLES:
            raise ValueError(f"roles.{name}: {role!r} is not allowed; allowed: {', '.join(ROLES)}")
        mine = owner == name
        results = EpisodeResults(**{f.name: columns[f.name][mine] for f in fields(EpisodeResults)})
        shown = None
        if steps is not None and (step_owner == name).any():
            shown = Playback(**{f.name: steps[f.name][step_owner == name] for f in fields(Playback)})
        contestants.append(Contestant(name, role, stored["details"][name], results, shown))
    scope = _SCOPE.validate_python(
        {key: math.nan if value is None and key != "window_hours" else value for key, value in stored["test_set"].items()}
    )
    mine = owner == contestants[0].name
    unknown = np.broadcast_to(np.nan, (int(mine.sum()), scope.window_steps))
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
        gap_closed={
            name: {b: GapClosed(_interval(g), int(g["pairs"]), int(g["left_out"])) for b, g in against.items()}
            for name, against in stored["gap_closed"].items()
        },
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
    )


def _episodes_table(comparison: Comparison) -> Any:
    parts = []
    for c in comparison.contestants:
        rows = len(c.results.window)
        label = {"policy": [c.name] * rows, "role": [c.role] * rows, "workload": [comparison.workload] * rows}
        values = {name: np.asarray(column) for name, column in c.results.columns().items()}
        begin = {"start_unix_seconds": np.asarray(comparison.episodes.start_unix_seconds, np.float64)}
        parts.append(pa.table(label | {name: values.pop(name) for name in ("window", "seed")} | begin | values))
    return pa.concat_tables(parts)


def _playback_table(comparison: Comparison) -> Any | None:
    parts = []
    for c in comparison.contestants:
        if c.playback is not None:
            values = {f.name: np.asarray(getattr(c.playback, f.name), np.float64) for f in fields(Playback)}
            parts.append(pa.table({"policy": [c.name] * len(c.playback.replicas)} | values))
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
