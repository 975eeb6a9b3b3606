"""A sweep's plan: its points, each built and checked as an experiment before anything is trained."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot.config import (
    ALGORITHMS,
    ExperimentConfig,
    config_from_mapping,
    put_key,
    read_yaml,
    short_value,
    slug,
    with_overrides,
)
from scalepilot.config.used import unused_key
from scalepilot.errors import ConfigError
from scalepilot.experiments.sweep.config import MOST_TRIALS, RangeConfig, SweepConfig, checked_sweep
from scalepilot.files.env_modules import find_in_current_folder

# Keys that every trial has from its sweep.
_OF_SWEEP = {"seed": "seeds", "name": "name", "output": "output"}
# Draws in vain before a space is taken for one without an allowed point.
_TRIES = 200
# With number and digest no longer than a policy's version may be.
_LONGEST_LABEL = 48

# In Tune's configuration of a trial, beside its point: its seed, and its place where all were planned.
SEED, PLAN = "seed", "plan"

Point = Mapping[str, Any]


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep whose experiment was read, and whose points, where they are known beforehand, were built and checked.

    Attributes:
        sweep: the configuration.
        base: the experiment as plain data, without the searched keys.
        points: key → value of each point; empty where they are found while searching (pbt, optuna).
    """

    sweep: SweepConfig
    base: Mapping[str, Any]
    points: tuple[Point, ...]

    def config(self, point: Point, seed: int) -> ExperimentConfig:
        """The experiment at a point.

        Raises:
            ConfigError: it is not allowed.
        """
        return _experiment(self.base, point, seed, f"{self.sweep.name} at {label(point)}")

    @property
    def example(self) -> ExperimentConfig:
        """The experiment at some point, for what all have in common."""
        if self.points:
            return self.config(self.points[0], self.sweep.seeds[0])
        lowest = {key: c[0] if isinstance(c, list) else c.low for key, c in self.sweep.space.items()}
        whole = {key: int(value) if _is_whole(self.sweep.space[key]) else value for key, value in lowest.items()}
        return self.config(whole, self.sweep.seeds[0])

    @property
    def num_trials(self) -> int:
        """Trials of the search."""
        return len(self.points or range(self.sweep.search.num_samples or 0)) * len(self.sweep.seeds_of_search)


def load_sweep(path: Path, overrides: Sequence[str] = (), concurrency: int | None = None) -> PlannedSweep:
    """Read a sweep's YAML and check every experiment of it that is known beforehand.

    Args:
        path: the file.
        overrides: "a.b=c" settings of the experiment.
        concurrency: trials at once; the file's if None.

    Raises:
        ConfigError: a key or value of the sweep, or of one of its experiments, is not allowed.
    """
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; allowed: keys and values, such as name: sweep")
    if "space" not in values:
        raise ConfigError(f"{path}: space: is missing; allowed: keys of the experiment, such as ppo.lr: [1e-4, 1e-3]")
    given = dict(values) if concurrency is None else {**values, "concurrency": concurrency}
    sweep = checked_sweep(given, str(path))
    base: Any = sweep.experiment
    if isinstance(base, str):
        base = read_yaml(path.parent / base)
        if not isinstance(base, dict):
            raise ConfigError(f"{path.parent / str(sweep.experiment)}: holds a {type(base).__name__}; allowed: keys and values")
    for key, value in sweep.set.items():
        put_key(base, key, value, str(path))
    base = {**with_overrides(base, overrides), "name": sweep.name}
    for key in with_overrides({}, overrides):
        if key in _OF_SWEEP:
            raise ConfigError(f"--set {key}: is not used; the sweep has its own {_OF_SWEEP[key]}")
    find_in_current_folder(base.get("env"))
    # A film of every trial is more than anyone watches.
    base["evaluation"] = {"videos": 0, **(base.get("evaluation") or {})}
    plan = planned(sweep, base, str(path))
    _check_used(plan, path)
    return plan


def _check_used(plan: PlannedSweep, path: Path) -> None:
    """Refuse keys of the experiment and of the space that decide nothing in any trial."""
    if "algorithm" in plan.sweep.space:
        return
    searched: dict[str, Any] = {}
    for key, choices in plan.sweep.space.items():
        put_key(searched, key, choices, str(path))
    for given, where in ((searched, "space"), (plan.base, "experiment")):
        # Ray Tune itself uses the resources, whatever trains.
        problem = unused_key(given, plan.example, ignored=("resources",))
        if problem:
            raise ConfigError(f"{path}: {where}: {problem}")


def whole_mapping(plan: PlannedSweep) -> dict[str, Any]:
    """The sweep as plain data with its experiment inside: no other file is needed to run it, nor a variable for its modules."""
    base, env = dict(plan.base), plan.example.env
    if isinstance(base.get("env"), Mapping) and not {"env", "env.id"} & {*plan.sweep.space}:
        base["env"] = {**base["env"], "id": env.id}
    return replace(plan.sweep, experiment=base, set={}).to_mapping()


def envs_of(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every environment's section of an experiment or a whole sweep as plain data, with what the space changes in it."""
    space = values.get("space") or {}
    base = (values.get("experiment") if space else values) or {}
    found = [base.get("env") or {}, *(env for env in _listed(space.get("env")) if isinstance(env, Mapping))]
    found += [{"id": env_id} for env_id in _listed(space.get("env.id")) if isinstance(env_id, str)]
    return found + [{"wrappers": wrappers} for wrappers in _listed(space.get("env.wrappers"))]


def _listed(choices: Any) -> list[Any]:
    return choices if isinstance(choices, list) else []


def planned(sweep: SweepConfig, base: Mapping[str, Any], source: str) -> PlannedSweep:
    """The sweep with its points.

    Raises:
        ConfigError: a point is not allowed, or none of many draws is.
    """
    kind = sweep.search.kind
    if kind == "pbt":
        _check_changeable(sweep, base, source)
    on_grid = not any(isinstance(choices, RangeConfig) for choices in sweep.space.values()) and sweep.search.num_samples is None
    if on_grid:
        points = _grid(sweep, base, source)
    elif sweep.search.num_samples is None:
        raise ConfigError(f"{source}: search.num_samples: is missing; allowed with a range: 1 to {MOST_TRIALS}")
    else:
        points = _drawn(sweep, base, source)
    return PlannedSweep(sweep, base, () if kind in ("pbt", "optuna") else tuple(points))


def label(point: Point) -> str:
    """A point in few letters: lr=0.001 batch=64."""
    return " ".join(f"{key.rpartition('.')[2]}={short_value(value)}" for key, value in point.items())


def trial_folder(index: int, point: Point, seed: int) -> str:
    """Name of a trial's folder, and version of its policy: the same for the same place in the search, point and seed."""
    digest = hashlib.sha256(json.dumps([dict(point), seed], sort_keys=True).encode()).hexdigest()[:6]
    words = slug(label(point).replace("=", "-"))[:_LONGEST_LABEL].rstrip("-.")
    return f"{index:04d}-{words}-{digest}"


def _experiment(base: Mapping[str, Any], point: Point, seed: int, source: str) -> ExperimentConfig:
    # The checked configuration goes into YAML later: plain data, not the sweep's own.
    values: dict[str, Any] = _copied(base)
    for key, value in point.items():
        put_key(values, key, value, source)
    return config_from_mapping({**values, "seed": seed}, source=source)


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _is_whole(choices: list[Any] | RangeConfig) -> bool:
    return isinstance(choices, RangeConfig) and choices.integer


def _grid(sweep: SweepConfig, base: Mapping[str, Any], source: str) -> list[Point]:
    choices = {key: values for key, values in sweep.space.items() if isinstance(values, list)}
    size = math.prod(len(values) for values in choices.values())
    if size > MOST_TRIALS:
        raise ConfigError(f"{source}: space: {size} combinations; allowed: up to {MOST_TRIALS}")
    points = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    for point in points:
        _experiment(base, point, sweep.seeds[0], f"{source} at {label(point)}")
    return list(points)


def _drawn(sweep: SweepConfig, base: Mapping[str, Any], source: str) -> list[Point]:
    """Allowed points, the same for the same seed; a draw that is not allowed is drawn anew."""
    rng, found, refused = np.random.default_rng(sweep.search.seed), list[Point](), 0
    wanted = sweep.search.num_samples or 0
    while len(found) < wanted:
        point = {
            key: c.draw(rng) if isinstance(c, RangeConfig) else c[int(rng.integers(len(c)))] for key, c in sweep.space.items()
        }
        try:
            _experiment(base, point, sweep.seeds[0], f"{source} at {label(point)}")
        except ConfigError:
            refused += 1
            if refused > _TRIES * (len(found) + 1):
                raise
            continue
        found.append(point)
    return found


def _check_changeable(sweep: SweepConfig, base: Mapping[str, Any], source: str) -> None:
    """Refuse what a population cannot change while it trains: it would need other networks, rollouts or budgets."""
    name = str(base.get("algorithm", ExperimentConfig.algorithm))
    changeable = {a.name: [f"{a.section}.{key}" for key in a.changeable] for a in ALGORITHMS.values() if a.changeable}
    if name not in changeable:
        raise ConfigError(f"{source}: search.kind: pbt trains {' and '.join(changeable)} only, not {name}")
    for key in sweep.space:
        if key not in changeable[name]:
            allowed = ", ".join(changeable[name])
            raise ConfigError(f"{source}: space.{key}: cannot change while training; allowed with kind pbt: {allowed}")


__all__ = ["PlannedSweep", "Point", "label", "load_sweep", "planned", "trial_folder", "whole_mapping"]
