"""SweepConfig: an experiment, the keys that are searched, and how."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, TypeAdapter

from scalepilot.config import (
    SECTIONS,
    ExperimentConfig,
    checked,
    config_from_mapping,
    put_key,
    read_yaml,
    short_value,
    slug,
    with_overrides,
)
from scalepilot.errors import ConfigError
from scalepilot.settings.checks import STRICT, check_allowed, check_between

SEARCHES = ("grid", "random", "asha", "pbt", "optuna")
# Population-based training changes these while it trains; anything else would need other networks, rollouts or budgets.
CHANGEABLE = {
    "ppo": (
        "lr",
        "gamma",
        "gae_lambda",
        "clip",
        "target_kl",
        "entropy_coefficient",
        "value_coefficient",
        "value_clip",
        "grad_clip",
        "reward_clip",
        "num_epochs",
        "minibatch_size",
    ),
    "dqn": ("lr", "gamma", "grad_clip", "reward_clip", "batch_size"),
}
_MOST_TRIALS = 10_000
# Draws in vain before a space is taken for one without an allowed point.
_TRIES = 200
# With number and digest no longer than a policy's version may be.
_LONGEST_LABEL = 48


@dataclass(frozen=True)
class RangeConfig:
    """Numbers from `low` to `high`.

    Attributes:
        low: smallest.
        high: largest, itself included.
        log: even in the logarithm.
        integer: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low, high: {self.low:g}, {self.high:g} is not allowed; allowed: two numbers, low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"low: {self.low:g} does not go with log; allowed: above 0")
        if self.integer and (self.low != round(self.low) or self.high != round(self.high)):
            raise ValueError(f"low, high: {self.low:g}, {self.high:g} does not go with integer; allowed: whole numbers")

    def draw(self, rng: np.random.Generator) -> float | int:
        """One of the numbers."""
        if self.integer and not self.log:
            return int(rng.integers(int(self.low), int(self.high) + 1))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = float(rng.uniform(low, high))
        value = min(self.high, max(self.low, math.exp(drawn) if self.log else drawn))
        return round(value) if self.integer else value


@dataclass(frozen=True)
class SearchConfig:
    """How points of the space are chosen, and which of them train to the end.

    Attributes:
        kind: grid (every combination), random, asha (random or, where there are no ranges and num_samples is null, the grid; the
            worse are stopped early), pbt (a population that copies its best and varies them while training) or optuna (its TPE).
        num_samples: points of random, asha and optuna, members of pbt's population; null for the whole grid (grid, asha).
        seed: of the draws.
        grace_share: asha: share of the budget no trial is stopped before.
        reduction_factor: asha: one in so many goes on at each rung; the rungs are as far apart.
        perturb_share: pbt: share of the budget between two looks at the population.
        quantile: pbt: share of the population that is replaced, and of that which is copied.
        resample_probability: pbt: of a new draw for a key, instead of 0.8 or 1.2 times the copied value.
    """

    kind: str = "grid"
    num_samples: int | None = None
    seed: int = 0
    grace_share: float = 0.1
    reduction_factor: int = 3
    perturb_share: float = 0.1
    quantile: float = 0.25
    resample_probability: float = 0.25

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def __post_init__(self) -> None:
        check_allowed("kind", self.kind, SEARCHES)
        if self.kind == "grid" and self.num_samples is not None:
            raise ValueError(f"num_samples: {self.num_samples} does not go with kind grid, which takes every combination")
        if self.kind in ("random", "pbt", "optuna") and self.num_samples is None:
            raise ValueError(f"num_samples: is missing; allowed with kind {self.kind}: 1 to {_MOST_TRIALS}")
        if self.num_samples is not None:
            check_between(self, "num_samples", 2 if self.kind == "pbt" else 1, _MOST_TRIALS)
        check_between(self, "seed", 0, 2**31 - 1)
        check_between(self, "grace_share", 0, 1, above=True)
        check_between(self, "reduction_factor", 2, 100)
        check_between(self, "perturb_share", 0, 1, above=True)
        check_between(self, "quantile", 0, 0.5)
        check_between(self, "resample_probability", 0, 1)


@dataclass(frozen=True)
class SweepConfig:
    """A sweep over an experiment.

    Attributes:
        space: dotted key of the experiment → values to choose from, or a range {low, high, log, integer}.
        experiment: path of an experiment's YAML (relative to the sweep's), or the experiment itself.
        name: of the sweep's folder and of its best policy.
        set: dotted key → value, in every trial.
        search: which points train.
        seeds: training seeds. With grid and random, and `confirm_top` null, every point trains on all of them; else the search
            trains on the first, and the best points train again on the others, which did not choose them.
        confirm_top: so many of the best points train on the other seeds; null for every point (grid, random) or 3 (asha, optuna).
        concurrency: trials at once; null for as many as the cores hold. Each takes a core for itself, for every env runner and
            for every learner, and the GPUs of its learners.
        retries: a trial that fails goes on from its checkpoint so many times.
        output: folder that collects sweeps.
    """

    space: dict[str, list[Any] | RangeConfig]
    experiment: str | dict[str, Any] = field(default_factory=dict)
    name: str = "sweep"
    set: dict[str, Any] = field(default_factory=dict)
    search: SearchConfig = field(default_factory=SearchConfig)
    seeds: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = (0,)
    confirm_top: int | None = None
    concurrency: int | None = None
    retries: int = 2
    output: str = "runs"

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    def __post_init__(self) -> None:
        if not self.name or slug(self.name) != self.name or not self.name[0].isalnum():
            raise ValueError(f"name: {self.name!r} is not allowed; allowed: 1–64 letters, digits, '.', '_', '-'")
        if not self.space:
            raise ValueError("space: is empty; allowed: at least one key, such as ppo.lr: [1e-4, 1e-3]")
        for key, choices in self.space.items():
            if isinstance(choices, list) and not choices:
                raise ValueError(f"space.{key}: is empty; allowed: at least one value")
            if isinstance(choices, list) and len({repr(c) for c in choices}) < len(choices):
                raise ValueError(f"space.{key}: {choices} is not allowed; allowed: each value once")
            if isinstance(choices, RangeConfig) and self.search.kind == "grid":
                raise ValueError(f"space.{key}: a range does not go with kind grid; allowed: a list of values, or another kind")
            if key in ("seed", "name", "output"):
                raise ValueError(f"space.{key}: is not allowed; {'give seeds' if key == 'seed' else 'the sweep has its own'}")
        if not self.seeds or len({*self.seeds}) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} is not allowed; allowed: at least one, each once")
        if self.search.kind == "pbt" and len(self.seeds) > 1:
            raise ValueError(
                f"seeds: {list(self.seeds)} does not go with kind pbt, whose result is a schedule that no other seed repeats;"
                " allowed: one"
            )
        if self.confirm_top is not None:
            check_between(self, "confirm_top", 1, _MOST_TRIALS)
        if self.concurrency is not None:
            check_between(self, "concurrency", 1, _MOST_TRIALS)
        check_between(self, "retries", 0, 100)

    @property
    def seeds_of_search(self) -> tuple[int, ...]:
        """Seeds that every point trains on."""
        every = self.search.kind in ("grid", "random") and self.confirm_top is None
        return self.seeds if every else self.seeds[:1]

    @property
    def seeds_of_confirmation(self) -> tuple[int, ...]:
        """Seeds that only the best points train on."""
        return self.seeds[len(self.seeds_of_search) :]

    @property
    def num_confirmed(self) -> int:
        """Points that train on those."""
        return self.confirm_top if self.confirm_top is not None else 3


Point = Mapping[str, Any]
_ADAPTER: TypeAdapter[SweepConfig] = TypeAdapter(SweepConfig)
_RANGE: TypeAdapter[RangeConfig] = TypeAdapter(RangeConfig)


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
    _check_space(values["space"], str(path))
    given = dict(values) if concurrency is None else {**values, "concurrency": concurrency}
    sweep = checked(SweepConfig, _ADAPTER, given, str(path))
    base: Any = sweep.experiment
    if isinstance(base, str):
        base = read_yaml(path.parent / base)
        if not isinstance(base, dict):
            raise ConfigError(f"{path.parent / str(sweep.experiment)}: holds a {type(base).__name__}; allowed: keys and values")
    for key, value in sweep.set.items():
        put_key(base, key, value, str(path))
    base = {**with_overrides(base, overrides), "name": sweep.name}
    # A film of every trial is more than anyone watches.
    base["evaluation"] = {"videos": 0, **(base.get("evaluation") or {})}
    return planned(sweep, base, str(path))


def whole_mapping(plan: PlannedSweep) -> dict[str, Any]:
    """The sweep as plain data with its experiment inside: no other file is needed to run it."""
    whole: dict[str, Any] = _ADAPTER.dump_python(replace(plan.sweep, experiment=dict(plan.base), set={}), mode="json")
    return whole


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a sweep's YAML."""
    return _ADAPTER.json_schema()


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
        raise ConfigError(f"{source}: search.num_samples: is missing; allowed with a range: 1 to {_MOST_TRIALS}")
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


def _check_space(space: Any, source: str) -> None:
    """Refuse what is neither a list nor a range in words of its own: of a union pydantic tells the wrong half."""
    if not isinstance(space, Mapping):
        raise ConfigError(f"{source}: space: holds a {type(space).__name__}; allowed: keys, such as ppo.lr: [1e-4, 1e-3]")
    for key, choices in space.items():
        if isinstance(choices, Mapping):
            checked(RangeConfig, _RANGE, dict(choices), f"{source}: space.{key}")
        elif not isinstance(choices, list):
            raise ConfigError(
                f"{source}: space.{key}: {choices!r} is not allowed; allowed: a list of values, or a range such as"
                " {low: 1e-4, high: 1e-2, log: true}"
            )


def _is_whole(choices: list[Any] | RangeConfig) -> bool:
    return isinstance(choices, RangeConfig) and choices.integer


def _grid(sweep: SweepConfig, base: Mapping[str, Any], source: str) -> list[Point]:
    choices = {key: values for key, values in sweep.space.items() if isinstance(values, list)}
    size = math.prod(len(values) for values in choices.values())
    if size > _MOST_TRIALS:
        raise ConfigError(f"{source}: space: {size} combinations; allowed: up to {_MOST_TRIALS}")
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
    section = SECTIONS.get(str(base.get("algorithm", "ppo")), "")
    if str(base.get("algorithm", "ppo")) not in CHANGEABLE:
        raise ConfigError(f"{source}: search.kind: pbt trains {' and '.join(CHANGEABLE)} only, not {base.get('algorithm')}")
    allowed = [f"{section}.{name}" for name in CHANGEABLE[section]]
    for key in sweep.space:
        if key not in allowed:
            raise ConfigError(f"{source}: space.{key}: cannot change while training; allowed with kind pbt: {', '.join(allowed)}")


__all__ = [
    "CHANGEABLE",
    "SEARCHES",
    "PlannedSweep",
    "Point",
    "RangeConfig",
    "SearchConfig",
    "SweepConfig",
    "json_schema",
    "label",
    "load_sweep",
    "planned",
    "trial_folder",
    "whole_mapping",
]
