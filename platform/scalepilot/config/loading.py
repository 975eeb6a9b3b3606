"""One typed door for YAML: unknown keys are refused with a suggestion, values with what is allowed."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from scalepilot.config.algorithms import ALGORITHMS
from scalepilot.config.env import AUTOSCALE, ENV_TAGS
from scalepilot.config.experiment import ADAPTER, ExperimentConfig
from scalepilot.config.schema import Described
from scalepilot.config.strict_yaml import MAX_YAML_CHARACTERS, parse_yaml
from scalepilot.config.used import unused_key
from scalepilot.errors import ConfigError, did_you_mean
from scalepilot.files.env_modules import find_in_current_folder
from scalepilot.files.stored import read_text, shown
from scalepilot_envs.workloads import WORKLOADS, TraceWorkload

MAX_CONFIG_BYTES = MAX_YAML_CHARACTERS
_LARGEST_NUMBER = 1e12
# Protocol v1 scales every trace so that its 99.5 % quantile is this.
PROTOCOL_PEAK_RPS = 500.0
Config = TypeVar("Config")


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment's YAML.

    Args:
        path: the file.
        overrides: "a.b=c" settings, values in YAML.

    Raises:
        ConfigError: the file or a key or value in it is not allowed.
    """
    values = read_yaml(path)
    if not values and values != {}:
        # Every key has a default, and nobody means all of them who gives a file.
        raise ConfigError(f"{path}: is empty; allowed: keys and values, such as name: demo")
    changed = with_overrides({}, overrides)
    find_in_current_folder(env_section(values, overrides))
    config = config_from_mapping(values, overrides, source=str(path))
    problem = unused_key(changed, config, strict=True)
    if problem:
        raise ConfigError(f"--set {problem}")
    # Whoever changes the algorithm, the environment or a section means what the file says there to make way.
    kept = {} if {*changed} & {"algorithm", "env"} else {k: v for k, v in values.items() if k not in changed}
    problem = unused_key(kept, config)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    return config


def env_section(values: Any, overrides: Sequence[str] = ()) -> object:
    """The environment's section of a configuration, or of a whole sweep, as plain data, unchecked; None where there is none."""
    if isinstance(values, Mapping) and isinstance(values.get("experiment"), Mapping):
        values = values["experiment"]
    if not isinstance(values, Mapping):
        return None
    return with_overrides({"env": values["env"]} if "env" in values else {}, overrides).get("env")


# What may change in a resumed run, beside the budget; the rest is what its checkpoints and best policy were made with.
_CHANGEABLE = (
    *(f"evaluation.{name}" for name in ("test_episodes", "test_seeds", "bootstrap_samples", "optimum", "tuning_evaluations")),
    *(f"evaluation.{name}" for name in ("validate_every_share", "max_episode_steps", "videos")),
    *(f"checkpoints.{name}" for name in ("every_share", "num_to_keep")),
    *(f"resources.{name}" for name in ("address", "dashboard", "device", "env_timeout_seconds", "torch_threads")),
    *(f"tracking.{name}" for name in ("wandb_project", "mlflow_experiment", "plot_decisions")),
)


def resumed_with(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    """A resumed run's configuration with some keys changed.

    Args:
        config: the run's own.
        overrides: "a.b=c" settings.

    Raises:
        ConfigError: a key that may not change in the middle of a run, or a smaller budget.
    """
    if not overrides:
        return config
    budget = f"{ALGORITHMS[config.algorithm].section}.total_env_steps"
    allowed = (budget, *_CHANGEABLE)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key not in allowed:
            hint = did_you_mean(key, allowed)
            raise ConfigError(
                f"--set {key}: cannot change in a resumed run; allowed: {', '.join(allowed)}{hint}; train CONFIG --init"
                " RUN starts a new run from this one's policy"
            )
    changed = config_from_mapping(config.to_mapping(), overrides, source="--resume")
    if changed.learning.total_env_steps < config.learning.total_env_steps:
        given, had = changed.learning.total_env_steps, config.learning.total_env_steps
        raise ConfigError(f"--set {budget}: {given} is less than the run's own {had}; allowed: from {had}")
    return changed


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, unchecked.

    Raises:
        ConfigError: it cannot be read, is too large, or is no plain YAML.
    """
    return parse_yaml(read_text(path, MAX_CONFIG_BYTES, ConfigError), str(path))


def config_from_mapping(values: Any, overrides: Sequence[str] = (), source: str = "config") -> ExperimentConfig:
    """Check plain data and build the configuration.

    Raises:
        ConfigError: naming the first key that is not allowed, its value and what is.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: holds a {type(values).__name__}; allowed: keys and values, such as name: demo")
    merged = with_overrides(dict(values), overrides)
    workload = merged.get("workload")
    if isinstance(workload, Mapping) and "kind" not in workload:
        raise ConfigError(f"{source}: workload.kind: is missing; allowed: {', '.join(WORKLOADS)}")
    algorithm = merged.get("algorithm")
    if isinstance(algorithm, str) and algorithm not in ALGORITHMS:
        # Before its section is called an unknown key.
        allowed, hint = ", ".join(ALGORITHMS), did_you_mean(algorithm, ALGORITHMS)
        others = "or install the package that brings it"
        raise ConfigError(f"{source}: algorithm: {shown(algorithm)} is not allowed; allowed: {allowed}{hint}, {others}")
    return checked(ExperimentConfig, ADAPTER, merged, source)


def checked(kind: type[Config], adapter: TypeAdapter[Config], values: Any, source: str) -> Config:
    """Plain data as a configuration.

    Args:
        kind: frozen dataclass whose keys are allowed.
        adapter: of that kind.
        values: the data.
        source: where it is from, for an error.

    Raises:
        ConfigError: naming the first key that is not allowed, its value and what is.
    """
    _check_sizes(values, "", source)
    try:
        config = adapter.validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error, kind)}") from None
    _refuse_bools(values, config, "", source)
    return config


def _check_sizes(given: Any, where: str, source: str) -> None:
    """Refuse numbers that are too large for anything there is, before something is computed from them."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            _check_sizes(value, f"{where}.{name}" if where else str(name), source)
    elif isinstance(given, list):
        for value in given:
            _check_sizes(value, where, source)
    elif isinstance(given, int | float) and (isinstance(given, int) or math.isfinite(given)) and abs(given) > _LARGEST_NUMBER:
        raise ConfigError(f"{source}: {where}: {shown(given)} is not allowed; allowed: up to {_LARGEST_NUMBER:g}")


def _refuse_bools(given: Any, read: Any, where: str, source: str) -> None:
    """Python takes true for 1; who writes `lr: true` means something else."""
    if isinstance(given, bool) and not isinstance(read, bool):
        raise ConfigError(f"{source}: {where}: {given!r} is not allowed; allowed: {type(read).__name__}")
    if isinstance(given, Mapping) and is_dataclass(read):
        for name, value in given.items():
            _refuse_bools(value, getattr(read, name), f"{where}.{name}" if where else name, source)
    elif isinstance(given, list) and isinstance(read, tuple):
        for i, (value, kept) in enumerate(zip(given, read, strict=True)):
            _refuse_bools(value, kept, f"{where}.{i}", source)


def with_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set "a.b=c" overrides, values in YAML, in plain data.

    Raises:
        ConfigError: an override is not of that form.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {override}: allowed: key=value, such as ppo.lr=3e-4")
        at = values
        parts = key.strip().split(".")
        for part in parts[:-1]:
            inner = at.get(part, {})
            if not isinstance(inner, Mapping):
                raise ConfigError(f"--set {override}: {part} is a value, not a section")
            at[part] = dict(inner)
            at = at[part]
        at[parts[-1]] = parse_yaml(text, f"--set {key.strip()}")
    return values


def put_key(at: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set a dotted key in plain data; sections that are missing are made.

    Args:
        at: the data, changed.
        key: such as ppo.lr.
        value: copied.
        source: where the key is from, for an error.

    Raises:
        ConfigError: a part of the key before its last is a value.
    """
    *sections, last = key.split(".")
    for section in sections:
        inner = at.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{source}: set.{key}: {section} is a value, not a section")
        at = inner
    at[last] = copy.deepcopy(value)


def short_value(value: Any) -> str:
    """A value of the configuration in few letters, for a name."""
    if isinstance(value, list | tuple):
        return "x".join(map(short_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def slug(name: str) -> str:
    """A name for folders and policies."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:64]


def _first_problem(error: ValidationError, root: type) -> str:
    """The most telling of pydantic's errors, in one line."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    where = ".".join(str(part) for part in _without_kinds(problem["loc"]))
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        names = _keys_at(problem["loc"][:-1], root)
        hint = did_you_mean(problem["loc"][-1], names, cutoff=0.5)
        return f"{where}: unknown key; allowed: {', '.join(names)}{hint}"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = [kind for kind in WORKLOADS if where == "workload" or kind != "mixture"]
        kind = problem["input"].get("kind") if isinstance(problem["input"], Mapping) else problem["input"]
        hint = did_you_mean(kind, kinds)
        return f"{where}.kind: {_shown(kind)} is not allowed; allowed: {', '.join(kinds)}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("missing", "missing_argument"):
        return f"{where}: is missing"
    if problem["type"] == "value_error":
        # Raised by a __post_init__: a workload's message begins with "workload.", any other with its own field's name.
        outer = where.removesuffix("workload") if message.startswith("workload.") else f"{where}."
        return f"{outer}{message}" if where else message
    return f"{where}: {_shown(problem['input'])} is not allowed; {message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "…"


def _without_kinds(path: Sequence[Any]) -> list[Any]:
    """A place as it is written in YAML: without the tags that pydantic adds behind the keys of a union."""
    return [part for i, part in enumerate(path) if not (i and _tagged(path[i - 1], part))]


def _tagged(key: Any, part: Any) -> Any:
    """The section that a tag behind a key stands for; None for no tag."""
    return {"workload": WORKLOADS, "env": ENV_TAGS}.get(key, {}).get(part) if isinstance(key, str) else None


def _keys_at(path: Sequence[Any], root: type) -> list[str]:
    """Names of the keys a section allows."""
    at: Any = root
    for i, part in enumerate(path):
        section = _tagged(path[i - 1], part) if i else None
        if section is not None:
            at = section
        elif isinstance(part, int):
            at = get_args(at)[0]
        elif get_origin(at) is dict:
            at = get_args(at)[1]
        else:
            hint = get_type_hints(at).get(part) if is_dataclass(at) else None
            at = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return [f.name for f in fields(at)] if is_dataclass(at) else []


def with_trace(config: ExperimentConfig, path: Path, peak_rps: float | None = None) -> ExperimentConfig:
    """The same experiment on recorded traffic.

    Args:
        config: the experiment.
        path: CSV of the trace.
        peak_rps: scale its 99.5 % quantile to this; None for protocol v1's 500, 0 to keep the recorded rates.

    Raises:
        ConfigError: the peak is not allowed, or the environment has no requests to serve.
    """
    if not config.env.takes_workload:
        raise ConfigError(
            f"--workload {path}: is not used on {config.env.id}, which has no requests to serve; allowed: {AUTOSCALE}"
        )
    scale = PROTOCOL_PEAK_RPS if peak_rps is None else peak_rps or None
    try:
        return replace(config, workload=TraceWorkload(path=str(path), peak_rps=scale))
    except ValueError as error:
        raise ConfigError(f"--peak-rps: {error}") from None


def with_workload(config: ExperimentConfig, kind: str, peak_rps: float | None = None) -> ExperimentConfig:
    """The same experiment on another kind of workload, its own settings as they come.

    Args:
        config: the experiment.
        kind: key in WORKLOADS.
        peak_rps: as in `with_trace`.

    Raises:
        ConfigError: the peak is not allowed, or the environment knows no workloads.
    """
    if not config.env.takes_workload:
        try:
            return config_from_mapping(config.to_mapping(), [f"env.options.workload={kind}"], source=f"--workload {kind}")
        except ConfigError as error:
            # Whatever the environment says to an argument that it does not have.
            if "workload" in str(error).partition(f"--workload {kind}: ")[2] and "unexpected" in str(error):
                told = f"is not used on {config.env.id}, which takes no workload; allowed: an experiment's YAML"
                raise ConfigError(f"--workload {kind}: {told}") from None
            raise
    scale = PROTOCOL_PEAK_RPS if peak_rps is None else peak_rps or None
    try:
        return replace(config, workload=WORKLOADS[kind](peak_rps=scale))
    except ValueError as error:
        raise ConfigError(f"--peak-rps: {error}") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment's YAML."""
    return ADAPTER.json_schema(schema_generator=Described)
