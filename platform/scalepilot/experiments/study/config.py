"""StudyConfig: which experiments a study compares, on which seeds, and what counts as success."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter

from scalepilot.config import (
    ALGORITHMS,
    EnvConfig,
    ExperimentConfig,
    checked,
    config_from_mapping,
    put_key,
    read_yaml,
    short_value,
    slug,
)
from scalepilot.config.checks import Between, OneOf, Section
from scalepilot.config.schema import Described
from scalepilot.config.used import unused_key
from scalepilot.errors import ConfigError
from scalepilot.evaluate.baselines import BASELINES, HPA_TUNED, is_rule_name
from scalepilot.files.env_modules import find_in_current_folder
from scalepilot.policy import load_policy

AXES = ("env_steps", "time_seconds")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ =+-]{0,59}")
_MOST_ARMS = 64


@dataclass(frozen=True)
class ArmConfig(Section):
    """One contender: an experiment, and what is changed in it.

    Attributes:
        config: path of an experiment's YAML (relative to the study's), or the experiment itself.
        set: dotted key → value, such as {ppo.lr: 3e-4}.
        grid: dotted key → values; every combination is an arm of its own.
    """

    config: str | dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{key}: is empty; allowed: at least one value")


@dataclass(frozen=True)
class TaskConfig(Section):
    """One environment and who learns on it.

    Attributes:
        arms: name → contender, beside those of the whole study; all on the same environment and test episodes.
        success_return: a test episode that collects this much is a success; null for none.
        map_fields: the two observation fields of the state → action picture; empty for the first two.
        set: dotted key → value, in every arm.
    """

    arms: dict[str, ArmConfig] = field(default_factory=dict)
    success_return: float | None = None
    map_fields: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.success_return is not None and not math.isfinite(self.success_return):
            raise ValueError(f"success_return: {self.success_return} is not allowed; allowed: a finite number")
        if len(self.map_fields) not in (0, 2):
            raise ValueError(f"map_fields: {list(self.map_fields)} is not allowed; allowed: two observation fields")


@dataclass(frozen=True)
class TransferConfig(Section):
    """Every policy of a study run on all of its tasks, beside rules. Only for tasks of Autoscale-v0 with the same service.

    Attributes:
        calibrated: rules found on each task's own training traffic, each then run on all tasks; the first counts as 1.
        fixed: rules that are the same everywhere.
        policies: policies that are the same everywhere: folders, or what is shipped, such as scalepilot://general.
        tuning_evaluations: points a search for a rule's parameters draws.
    """

    calibrated: tuple[str, ...] = ("hpa-tuned",)
    fixed: tuple[str, ...] = ("hpa-default",)
    policies: tuple[str, ...] = ()
    tuning_evaluations: Annotated[int, Between(2, 1_000_000)] = 600

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.calibrated:
            raise ValueError("calibrated: is empty; allowed: at least one rule, such as hpa-tuned")
        for key in ("calibrated", "fixed"):
            for name in getattr(self, key):
                if not is_rule_name(name):
                    raise ValueError(f"{key}: {name!r} is not allowed; allowed: {', '.join((HPA_TUNED, *BASELINES))}")
        for name in self.fixed:
            if "-tuned" in name or name.startswith("forecast_mpc"):
                raise ValueError(f"fixed: {name!r} is found on traffic; allowed here: rules as they come; or under calibrated")
        names = (*self.calibrated, *self.fixed, *self.policies)
        if len({*names}) < len(names):
            raise ValueError(f"calibrated, fixed, policies: {list(names)} is not allowed; allowed: each once")


@dataclass(frozen=True)
class StudyConfig(Section):
    """A study: tasks × arms × seeds.

    Attributes:
        tasks: name → environment with its arms.
        arms: name → contender on every task.
        name: of the study's folder.
        seeds: training seeds, the same for every arm.
        axis: of the learning curves: env_steps or time_seconds (of training).
        set: dotted key → value, in every arm of every task.
        transfer: run every policy on all tasks, beside rules; null for its own task alone.
        output: folder that collects studies.
    """

    tasks: dict[str, TaskConfig]
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    name: str = "study"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    axis: Annotated[str, OneOf(AXES)] = "env_steps"
    set: dict[str, Any] = field(default_factory=dict)
    transfer: TransferConfig | None = None
    output: str = "runs"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("name", [self.name])
        _check_names("tasks", self.tasks)
        for name, task in self.tasks.items():
            twice = [arm for arm in task.arms if arm in self.arms]
            if twice:
                raise ValueError(f"tasks.{name}.arms: {twice[0]!r} is one of the whole study's; allowed: other names")
            _check_names(f"tasks.{name}.arms", [*self.arms, *task.arms])
        check_seeds("seeds", self.seeds)


@dataclass(frozen=True)
class PlannedTask:
    """A task with its experiments built and checked.

    Attributes:
        name: of the task.
        success_return: as `TaskConfig`.
        map_fields: as `TaskConfig`.
        arms: name → experiment; its seed is replaced by each of the study's.
    """

    name: str
    success_return: float | None
    map_fields: tuple[str, ...]
    arms: Mapping[str, ExperimentConfig]

    @property
    def config(self) -> ExperimentConfig:
        """One of the arms; the environment is that of all."""
        return next(iter(self.arms.values()))


_ADAPTER: TypeAdapter[StudyConfig] = TypeAdapter(StudyConfig)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study's YAML."""
    return _ADAPTER.json_schema(schema_generator=Described)


def check_seeds(name: str, seeds: Sequence[int]) -> None:
    """Refuse seeds that are negative, doubled or none at all."""
    if not seeds or len({*seeds}) < len(seeds) or min(seeds) < 0 or max(seeds) > 2**31 - 1:
        raise ValueError(f"{name}: {list(seeds)} is not allowed; allowed: whole numbers from 0, each once")


def load_study(path: Path) -> tuple[StudyConfig, tuple[PlannedTask, ...]]:
    """Read a study's YAML and build every experiment of it.

    Raises:
        ConfigError: a key or value of the study, or of one of its experiments, is not allowed.
    """
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; allowed: keys and values, such as name: study")
    study = checked(StudyConfig, _ADAPTER, dict(values), str(path))
    tasks = tuple(_planned(study, name, task, path) for name, task in study.tasks.items())
    if study.transfer is not None:
        _check_transfer(study.transfer, tasks, path)
    return study, tasks


def _check_transfer(transfer: TransferConfig, tasks: Sequence[PlannedTask], path: Path) -> None:
    """A policy can be run on another task only where that is the same service under other traffic; a table needs every cell."""
    first = tasks[0]
    for task in tasks:
        if [*task.arms] != [*first.arms]:
            raise ConfigError(
                f"{path}: transfer: tasks.{task.name} has other arms than tasks.{first.name}; allowed: those of the whole study"
            )
    # Better now than after an hour of training.
    for name in transfer.policies:
        load_policy(name)
    taken = [name for name in (*transfer.calibrated, *transfer.fixed, *transfer.policies) if name in first.arms]
    if taken:
        raise ConfigError(f"{path}: transfer: an arm is called {taken[0]}, as a rule or policy is; allowed: another name")
    services = []
    for task in tasks:
        env = task.config.env
        if not isinstance(env, EnvConfig):
            raise ConfigError(f"{path}: transfer: is not used, tasks.{task.name} is {env.id}; allowed: tasks of Autoscale-v0")
        services.append(env.params)
        if services[-1] != services[0]:
            raise ConfigError(
                f"{path}: transfer: tasks.{task.name} has another service than tasks.{first.name}; allowed: the same"
                " env.params in every task"
            )


def _planned(study: StudyConfig, name: str, task: TaskConfig, path: Path) -> PlannedTask:
    arms: dict[str, ExperimentConfig] = {}
    for arm_name, arm in {**study.arms, **task.arms}.items():
        for suffix, choice in _combinations(arm.grid):
            source = f"{path}: tasks.{name}.arms.{arm_name}"
            where = path.parent / arm.config if isinstance(arm.config, str) else None
            given = copy.deepcopy(arm.config) if where is None else read_yaml(where)
            merged = given if isinstance(given, dict) else {}
            changes = {**study.set, **task.set, **arm.set, **choice}
            for key, value in changes.items():
                if key in ("seed", "name", "output"):
                    raise ConfigError(f"{source}: {key}: is not used; the study has its own")
                put_key(merged, key, value, source)
            full_name = arm_name + suffix
            merged["name"] = slug(f"{name}-{full_name}")
            find_in_current_folder(merged.get("env"))
            config = config_from_mapping(merged, source=source if where is None else f"{source} ({where.name})")
            config = _with_chance(config, merged)
            kept = merged if "algorithm" not in changes else {}
            problem = unused_key(kept, config)
            if problem:
                raise ConfigError(f"{source}: {problem}")
            arms[full_name] = config
    if len(arms) > _MOST_ARMS:
        raise ConfigError(f"{path}: tasks.{name}: {len(arms)} arms; allowed: up to {_MOST_ARMS}")
    planned = PlannedTask(name, task.success_return, task.map_fields, arms)
    _check_alike(planned, path)
    return planned


def _with_chance(config: ExperimentConfig, given: Mapping[str, Any]) -> ExperimentConfig:
    """Compared with random moves, as every study is; on Autoscale without what a study has no use for, unless asked for."""
    if not config.env.takes_workload:
        return config
    asked = given.get("evaluation") or {}
    baselines = (*(config.evaluation.baselines if "baselines" in asked else ()), "random")
    optimum = config.evaluation.optimum if "optimum" in asked else False
    return replace(config, evaluation=replace(config.evaluation, baselines=tuple(dict.fromkeys(baselines)), optimum=optimum))


def _check_alike(task: PlannedTask, path: Path) -> None:
    """All arms must be evaluated on the same episodes, or the comparison compares those."""
    first, *others = task.arms.items()
    for name, config in others:
        pairs = {key: (getattr(config, key), getattr(first[1], key)) for key in ("env", "workload")}
        pairs |= {
            f"evaluation.{key}": (getattr(config.evaluation, key), getattr(first[1].evaluation, key))
            for key in ("test_episodes", "validation_episodes", "window_steps", "drawn_windows", "test_seeds")
        }
        for key, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise ConfigError(
                    f"{path}: tasks.{task.name}.arms.{name}: {key} differs from {first[0]}'s; allowed: the same in every arm"
                )
    fields = [f.name for f in task.config.env.description.fields]
    for name in task.map_fields:
        if name not in fields:
            raise ConfigError(f"{path}: tasks.{task.name}.map_fields: {name!r} is not allowed; allowed: {', '.join(fields)}")


def with_budget(tasks: Sequence[PlannedTask], share: float) -> tuple[PlannedTask, ...]:
    """The same tasks, each arm with a share of its training budget: a quick look before the whole.

    Raises:
        ConfigError: a share that is not allowed.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"--budget: {share:g} is not allowed; allowed: above 0, up to 1")

    def less(config: ExperimentConfig) -> ExperimentConfig:
        values = config.to_mapping()
        section = values[ALGORITHMS[config.algorithm].section]
        section["total_env_steps"] = max(1, round(section["total_env_steps"] * share))
        return config_from_mapping(values)

    return tuple(replace(task, arms={name: less(arm) for name, arm in task.arms.items()}) for task in tasks)


def with_arms(tasks: Sequence[PlannedTask], names: Sequence[str]) -> tuple[PlannedTask, ...]:
    """The same tasks with some of their arms alone.

    Raises:
        ConfigError: a task without such an arm.
    """
    for task in tasks:
        unknown = [name for name in names if name not in task.arms]
        if unknown:
            raise ConfigError(f"--arms: {unknown[0]!r} is not allowed; allowed on {task.name}: {', '.join(task.arms)}")
    return tuple(replace(task, arms={name: arm for name, arm in task.arms.items() if name in names}) for task in tasks)


def with_seeds(study: StudyConfig, seeds: Sequence[int]) -> StudyConfig:
    """The same study on other training seeds.

    Raises:
        ConfigError: seeds that are not allowed.
    """
    try:
        check_seeds("--seeds", seeds)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return replace(study, seeds=tuple(seeds))


def _combinations(grid: Mapping[str, Sequence[Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(what is added to the arm's name, key → value) of every point of the grid."""
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [("".join(f" {key.rpartition('.')[2]}={short_value(v)}" for key, v in point.items()), point) for point in points]


def _check_names(key: str, names: Any) -> None:
    if not names:
        raise ValueError(f"{key}: is empty; allowed: at least one")
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{key}: {name!r} is not allowed; allowed: 1–60 letters, digits, spaces, '.', '_', '=', '+', '-'")
    slugs = [slug(name) for name in names]
    if len({*slugs}) < len(slugs):
        raise ValueError(f"{key}: {list(names)} give the same folder name; allowed: names that differ in letters or digits")
