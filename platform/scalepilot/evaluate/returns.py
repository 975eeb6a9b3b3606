"""Returns of policies and rules on the same episodes: the verdict for environments that have no price in money."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.statistics.intervals import (
    SHARE,
    UNBOUNDED,
    Bounds,
    Interval,
    PairedDifference,
    block_bootstrap,
    paired_difference,
)
from scalepilot.evaluate.store import (
    EPISODES_FILE,
    SUMMARY_FILE,
    interval_json,
    json_number,
    not_an_evaluation,
    read_summary,
    replace_file,
)
from scalepilot.files.stored import read_mapping, read_table, table_schema
from scalepilot.policy import Policy
from scalepilot.simulate import EpisodeReturns, run_returns
from scalepilot.simulate.env_notes import EnvNotes
from scalepilot.simulate.episode_runner import LAST_PREFIX, EpisodeLimits
from scalepilot_envs.episode_metrics import SHARE_COLUMNS
from scalepilot_envs.registration import find_env

_ROLES = ("policy", "baseline")


@dataclass(frozen=True)
class ReturnMember:
    """One of several policies that differ only in their training seed, and what it collected."""

    name: str
    training_seed: int
    results: EpisodeReturns


@dataclass(frozen=True)
class Collected:
    """One policy or rule and what it collected.

    Attributes:
        name: row label.
        role: policy or baseline.
        detail: what it is.
        results: one row an episode; with members, their mean.
        figures: return, length and what the environment reports, with 95 % intervals over episodes (and training seeds).
        members: the policies behind one that was trained with several seeds; empty for all others.
    """

    name: str
    role: Literal["policy", "baseline"]
    detail: str
    results: EpisodeReturns
    figures: Mapping[str, Interval]
    members: tuple[ReturnMember, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What was odd about the environment, a line each."""
        return list(self.results.notes.lines().values())

    def column(self, name: str) -> NDArray[np.float64]:
        """(n,) one of the figures by episode; (num_members, n) with members."""
        return np.stack([_column(m.results, name) for m in self.members]) if self.members else _column(self.results, name)


@dataclass(frozen=True)
class ReturnComparison:
    """All of them on the same episodes.

    Attributes:
        env_id: of the environment.
        rows: in the order given.
        versus: policy → baseline → difference of the return.
        failed: policy → why it was left out.
    """

    env_id: str
    rows: tuple[Collected, ...]
    versus: Mapping[str, Mapping[str, PairedDifference]]
    failed: Mapping[str, str] = field(default_factory=dict)

    def best(self, role: str) -> Collected | None:
        """The one of a role with the highest return."""
        found = [row for row in self.rows if row.role == role]
        return max(found, key=lambda row: row.figures["return"].mean) if found else None


def compare_returns(
    env_id: str,
    entries: Sequence[tuple[str, Literal["policy", "baseline"], str, Policy]],
    *,
    arguments: Mapping[str, Any],
    num_episodes: int,
    first_seed: int,
    bootstrap_samples: int = 2000,
    limits: EpisodeLimits | None = None,
) -> ReturnComparison:
    """Run everybody through the same episodes.

    Args:
        env_id: of the environment.
        entries: (row label, role, detail, policy).
        arguments: what the environment is made with.
        num_episodes: episodes each.
        first_seed: of the first; the others follow.
        bootstrap_samples: resamples behind the intervals.
        limits: what is given up; the defaults if None.

    Raises:
        EnvironmentFailedError: the environment fails again and again, hangs or does not end.
    """
    rows = []
    for name, role, detail, policy in entries:
        results = run_returns(policy, env_id, num_episodes, arguments=arguments, first_seed=first_seed, limits=limits)
        rows.append(Collected(name, role, detail, results, {}))
    return compare_collected(env_id, rows, arguments=arguments, bootstrap_samples=bootstrap_samples)


def compare_collected(
    env_id: str, flown: Sequence[Collected], *, arguments: Mapping[str, Any], bootstrap_samples: int = 2000
) -> ReturnComparison:
    """Judge what was flown already.

    Args:
        env_id: of the environment.
        flown: rows on the same episodes, their figures still to be found.
        arguments: what the environment was made with.
        bootstrap_samples: resamples behind the intervals.
    """
    options = {name: value for name, value in arguments.items() if name != "params"}
    env = find_env(env_id).describe(arguments.get("params"), **options)
    bounds = {"return": env.return_bounds(arguments), "length": (1.0, env.most_steps(arguments))}
    rows = []
    episodes = np.arange(len(flown[0].results.seed))
    for row in flown:
        figures = {
            name: block_bootstrap(
                row.column(name), episodes, samples=bootstrap_samples, bounds=bounds.get(name) or _bounds_of_info(name)
            )
            for name in ("return", "length", *row.results.info)
        }
        rows.append(replace(row, figures=figures))
    versus = {
        p.name: {
            b.name: paired_difference(p.column("return"), b.results.episode_return, episodes, samples=bootstrap_samples)
            for b in rows
            if b.role == "baseline"
        }
        for p in rows
        if p.role == "policy"
    }
    return ReturnComparison(env_id, tuple(rows), versus)


def _bounds_of_info(name: str) -> Bounds:
    return SHARE if name.removeprefix(LAST_PREFIX) in SHARE_COLUMNS else UNBOUNDED


def _column(results: EpisodeReturns, name: str) -> NDArray[np.float64]:
    known = {"return": results.episode_return, "length": results.length.astype(np.float64)}
    return known[name] if name in known else results.info[name]


def returns_summary(comparison: ReturnComparison) -> dict[str, Any]:
    """The machine-readable result."""
    noted = {row.name: row.results.notes.to_mapping() for row in comparison.rows if row.results.notes.lines()}
    return {
        "workloads": [comparison.env_id],
        "episodes": len(comparison.rows[0].results.episode_return),
        "policies": {row.name: {key: interval_json(i) for key, i in row.figures.items()} for row in comparison.rows},
        "versus": {
            name: {
                b: interval_json(d.difference) | {"probability_lower": json_number(d.probability_lower)}
                for b, d in against.items()
            }
            for name, against in comparison.versus.items()
        },
        "roles": {row.name: row.role for row in comparison.rows},
        "details": {row.name: row.detail for row in comparison.rows},
        "members": {
            row.name: [{"name": m.name, "training_seed": m.training_seed} for m in row.members]
            for row in comparison.rows
            if row.members
        },
        "failed": dict(comparison.failed),
        **({"notes": noted} if noted else {}),
    }


def write_returns(comparison: ReturnComparison, folder: Path) -> None:
    """summary.json and episodes.parquet, each written aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for row in comparison.rows:
        for member in row.members or (None,):
            results = member.results if member else row.results
            n = len(results.episode_return)
            columns: dict[str, Any] = {"policy": [row.name] * n, "role": [row.role] * n, "seed": results.seed}
            columns |= {"episode_return": results.episode_return, "length": results.length, **results.info}
            columns["member"] = pa.array([member.name if member else None] * n, pa.string())
            parts.append(pa.table(columns))
    table = pa.concat_tables(parts, promote_options="default")
    replace_file(folder / EPISODES_FILE, lambda aside: pq.write_table(table, aside))
    text = json.dumps(returns_summary(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(folder / SUMMARY_FILE, lambda aside: aside.write_text(text, encoding="utf-8"))


def _results(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.bool_]) -> EpisodeReturns:
    mine = {key: column[rows] for key, column in columns.items()}
    return EpisodeReturns(mine.pop("seed"), mine.pop("episode_return"), mine.pop("length"), mine)


def is_returns(folder: Path) -> bool:
    """Whether a folder holds what `write_returns` wrote, and not a comparison by money."""
    try:
        return "episode_return" in table_schema(folder / EPISODES_FILE).names
    except InputError:
        return False


def read_returns(folder: Path) -> ReturnComparison:
    """Read what `write_returns` wrote.

    Raises:
        InputError: a file is missing, damaged or not of this form.
    """
    stored = read_mapping(folder / SUMMARY_FILE)
    read_summary(folder)
    table = read_table(folder / EPISODES_FILE)
    try:
        owner = np.array(table["policy"].to_pylist(), dtype=object)
        labels = ("policy", "role", "member")
        columns = {name: table[name].to_numpy() for name in table.column_names if name not in labels}
        rows = []
        for name, role in stored["roles"].items():
            if role not in _ROLES:
                raise ValueError(f"roles.{name}: {role!r} is not allowed; allowed: {', '.join(_ROLES)}")
            members = []
            for m in stored.get("members", {}).get(name, ()):
                of_member = (owner == name) & (np.array(table["member"].to_pylist(), dtype=object) == m["name"])
                members.append(ReturnMember(m["name"], int(m["training_seed"]), _results(columns, of_member)))
            results = EpisodeReturns.mean_of([m.results for m in members]) if members else _results(columns, owner == name)
            results = replace(results, notes=EnvNotes.from_mapping(stored.get("notes", {}).get(name)))
            figures = {key: _interval(values) for key, values in stored["policies"][name].items()}
            rows.append(Collected(name, role, stored["details"][name], results, figures, tuple(members)))
        versus = {
            name: {b: PairedDifference(_interval(d), math.nan, _float(d["probability_lower"])) for b, d in against.items()}
            for name, against in stored["versus"].items()
        }
        return ReturnComparison(stored["workloads"][0], tuple(rows), versus, stored.get("failed", {}))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise InputError(not_an_evaluation(folder, error)) from None


def _interval(values: Mapping[str, float | None]) -> Interval:
    return Interval(*(_float(values[name]) for name in ("mean", "low", "high")))


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
