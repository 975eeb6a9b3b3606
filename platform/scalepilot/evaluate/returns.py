"""Returns of policies and rules on the same episodes: the verdict for environments that have no price in money."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from scalepilot.errors import InputError
from scalepilot.evaluate.files import (
    EPISODES_FILE,
    SUMMARY_FILE,
    interval_json,
    json_number,
    replace_file,
)
from scalepilot.evaluate.statistics import Interval, PairedDifference, block_bootstrap, paired_difference
from scalepilot.evaluate.tables import plain_table
from scalepilot.policy import Policy
from scalepilot.simulate import EpisodeReturns, run_returns

_ROLES = ("policy", "baseline")


@dataclass(frozen=True)
class Collected:
    """One policy or rule and what it collected.

    Attributes:
        name: row label.
        role: policy or baseline.
        detail: what it is.
        results: one row an episode.
        figures: return, length and what the environment reports, with 95 % intervals over episodes.
    """

    name: str
    role: Literal["policy", "baseline"]
    detail: str
    results: EpisodeReturns
    figures: Mapping[str, Interval]


@dataclass(frozen=True)
class ReturnComparison:
    """All of them on the same episodes.

    Attributes:
        env_id: of the environment.
        rows: in the order given.
        versus: policy → baseline → difference of the return.
    """

    env_id: str
    rows: tuple[Collected, ...]
    versus: Mapping[str, Mapping[str, PairedDifference]]

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
) -> ReturnComparison:
    """Fly everybody through the same episodes.

    Args:
        env_id: of the environment.
        entries: (row label, role, detail, policy).
        arguments: what the environment is made with.
        num_episodes: episodes each.
        first_seed: of the first; the others follow.
        bootstrap_samples: resamples behind the intervals.
    """
    rows, episodes = [], np.arange(num_episodes)
    for name, role, detail, policy in entries:
        results = run_returns(policy, env_id, num_episodes, arguments=arguments, first_seed=first_seed)
        columns = {"return": results.episode_return, "length": results.length.astype(np.float64), **results.info}
        figures = {key: block_bootstrap(values, episodes, samples=bootstrap_samples) for key, values in columns.items()}
        rows.append(Collected(name, role, detail, results, figures))
    versus = {
        p.name: {
            b.name: paired_difference(p.results.episode_return, b.results.episode_return, episodes, samples=bootstrap_samples)
            for b in rows
            if b.role == "baseline"
        }
        for p in rows
        if p.role == "policy"
    }
    return ReturnComparison(env_id, tuple(rows), versus)


def returns_summary(comparison: ReturnComparison) -> dict[str, Any]:
    """The machine-readable result."""
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
    }


def write_returns(comparison: ReturnComparison, folder: Path) -> None:
    """summary.json and episodes.parquet, each written aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for row in comparison.rows:
        n = len(row.results.episode_return)
        columns = {"policy": [row.name] * n, "role": [row.role] * n, "seed": row.results.seed}
        columns |= {"episode_return": row.results.episode_return, "length": row.results.length, **row.results.info}
        parts.append(pa.table(columns))
    table = pa.concat_tables(parts, promote_options="default")
    replace_file(folder / EPISODES_FILE, lambda aside: pq.write_table(table, aside))
    text = json.dumps(returns_summary(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(folder / SUMMARY_FILE, lambda aside: aside.write_text(text, encoding="utf-8"))


def is_returns(folder: Path) -> bool:
    """Whether a folder holds what `write_returns` wrote, and not a comparison by money."""
    try:
        return "episode_return" in pq.read_schema(folder / EPISODES_FILE).names
    except (OSError, pa.ArrowException):
        return False


def read_returns(folder: Path) -> ReturnComparison:
    """Read what `write_returns` wrote.

    Raises:
        InputError: a file is missing, damaged or not of this form.
    """
    try:
        stored = json.loads((folder / SUMMARY_FILE).read_bytes())
        table = pq.read_table(folder / EPISODES_FILE)
        owner = np.array(table["policy"].to_pylist(), dtype=object)
        columns = {name: table[name].to_numpy() for name in table.column_names if name not in ("policy", "role")}
        rows = []
        for name, role in stored["roles"].items():
            if role not in _ROLES:
                raise ValueError(f"roles.{name}: {role!r} is not allowed; allowed: {', '.join(_ROLES)}")
            mine = {key: column[owner == name] for key, column in columns.items()}
            results = EpisodeReturns(mine.pop("seed"), mine.pop("episode_return"), mine.pop("length"), mine)
            figures = {key: _interval(values) for key, values in stored["policies"][name].items()}
            rows.append(Collected(name, role, stored["details"][name], results, figures))
        versus = {
            name: {b: PairedDifference(_interval(d), math.nan, _float(d["probability_lower"])) for b, d in against.items()}
            for name, against in stored["versus"].items()
        }
        return ReturnComparison(stored["workloads"][0], tuple(rows), versus)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, pa.ArrowException) as error:
        raise InputError(
            f"{folder}: not a stored evaluation ({type(error).__name__}: {str(error).splitlines()[0][:100]})"
        ) from None


def _interval(values: Mapping[str, float | None]) -> Interval:
    return Interval(*(_float(values[name]) for name in ("mean", "low", "high")))


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def returns_table(comparison: ReturnComparison) -> Table:
    """One row each, highest return first."""
    episodes = len(comparison.rows[0].results.episode_return)
    table = plain_table(f"{comparison.env_id}: {episodes} test episodes", "95 % intervals: bootstrap over episodes.")
    table.add_column("", overflow="fold")
    for heading in ("return", "95 % interval", "length"):
        table.add_column(heading, justify="right", no_wrap=True)
    best = comparison.best("policy")
    for row in sorted(comparison.rows, key=lambda row: -row.figures["return"].mean):
        mark, figure = "*" if best is row else " ", row.figures["return"]
        interval = f"{figure.low:,.2f} to {figure.high:,.2f}" if figure.is_known else "-"
        style = "bold" if best is row else None
        table.add_row(
            Text(f"{mark} {row.name}"), f"{figure.mean:,.2f}", interval, f"{row.figures['length'].mean:,.1f}", style=style
        )
    return table


def returns_verdict(comparison: ReturnComparison) -> str:
    """One sentence: what the best policy collects, against the best rule, and whether chance could explain it."""
    policy, baseline = comparison.best("policy"), comparison.best("baseline")
    if policy is None or baseline is None:
        alone = policy or baseline or comparison.rows[0]
        return f"{alone.name} collects {alone.figures['return'].mean:,.2f} an episode; there is nothing to compare it with."
    difference = comparison.versus[policy.name][baseline.name].difference
    ours, theirs = policy.figures["return"].mean, baseline.figures["return"].mean
    undecided = not difference.is_known or difference.low <= 0 <= difference.high
    word = "not distinguishable from" if undecided else "more than" if difference.low > 0 else "less than"
    interval = (
        f"; 95 % interval of the difference {difference.low:+,.2f} to {difference.high:+,.2f}" if difference.is_known else ""
    )
    return f"{policy.name} collects {ours:,.2f} an episode, {word} {baseline.name} ({theirs:,.2f}{interval})."
