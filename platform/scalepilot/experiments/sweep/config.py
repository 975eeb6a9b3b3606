"""SweepConfig: which keys of an experiment are searched, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter

from scalepilot.config import (
    checked,
    slug,
)
from scalepilot.config.checks import Between, OneOf, PositiveShare, Section, Share, check_between
from scalepilot.config.schema import Described
from scalepilot.errors import ConfigError

SEARCHES = ("grid", "random", "asha", "pbt", "optuna")
MOST_TRIALS = 10_000


@dataclass(frozen=True)
class RangeConfig(Section):
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

    def __post_init__(self) -> None:
        super().__post_init__()
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
class SearchConfig(Section):
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

    kind: Annotated[str, OneOf(SEARCHES)] = "grid"
    num_samples: Annotated[int, Between(1, MOST_TRIALS)] | None = None
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    grace_share: PositiveShare = 0.1
    reduction_factor: Annotated[int, Between(2, 100)] = 3
    perturb_share: PositiveShare = 0.1
    quantile: Annotated[float, Between(0, 0.5)] = 0.25
    resample_probability: Share = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "grid" and self.num_samples is not None:
            raise ValueError(f"num_samples: {self.num_samples} does not go with kind grid, which takes every combination")
        if self.kind in ("random", "pbt", "optuna") and self.num_samples is None:
            raise ValueError(f"num_samples: is missing; allowed with kind {self.kind}: 1 to {MOST_TRIALS}")
        if self.kind == "pbt":
            check_between(self, "num_samples", 2, MOST_TRIALS)


@dataclass(frozen=True)
class SweepConfig(Section):
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
    confirm_top: Annotated[int, Between(1, MOST_TRIALS)] | None = None
    concurrency: Annotated[int, Between(1, MOST_TRIALS)] | None = None
    retries: Annotated[int, Between(0, 100)] = 2
    output: str = "runs"

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, as sweep.yaml holds it."""
        mapping: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return mapping


_ADAPTER: TypeAdapter[SweepConfig] = TypeAdapter(SweepConfig)
_RANGE: TypeAdapter[RangeConfig] = TypeAdapter(RangeConfig)


def checked_sweep(values: Mapping[str, Any], source: str) -> SweepConfig:
    """Check plain data and build the configuration.

    Args:
        values: the data.
        source: where it is from, for an error.

    Raises:
        ConfigError: naming the first key that is not allowed, its value and what is.
    """
    _check_space(values.get("space"), source)
    return checked(SweepConfig, _ADAPTER, dict(values), source)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a sweep's YAML."""
    return _ADAPTER.json_schema(schema_generator=Described)


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


__all__ = ["MOST_TRIALS", "SEARCHES", "RangeConfig", "SearchConfig", "SweepConfig", "checked_sweep", "json_schema"]
