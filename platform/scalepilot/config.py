"""ExperimentConfig: one typed YAML door. Frozen dataclasses, unknown keys refused with a suggestion.

Every key is documented here; `scalepilot train --schema` prints the JSON Schema generated from it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from scalepilot.errors import ConfigError
from scalepilot.yaml_text import MAX_YAML_CHARACTERS, parse_yaml
from scalepilot_envs.autoscale import AutoscaleParams, Randomisation
from scalepilot_envs.registration import MODULE_PREFIX, NAMESPACE
from scalepilot_envs.workloads import WORKLOADS, AnyWorkload, DiurnalWorkload, TraceWorkload

_STRICT: dict[str, Any] = {"extra": "forbid"}
MAX_CONFIG_BYTES = MAX_YAML_CHARACTERS
# Protocol v1 scales every trace so that its 99.5 % quantile is this.
PROTOCOL_PEAK_RPS = 500.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ALGORITHMS = ("ppo",)
# The other environments are there for rules, baselines and your own training loop; `params` here are Autoscale's.
TRAINED_ENVS = ("Autoscale-v0",)
ENGINES = ("rllib", "rllib-stock")


def _allowed(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {', '.join(choices)}{hint}")


def _between(owner: object, name: str, low: float, high: float, *, above: bool = False) -> None:
    value = getattr(owner, name)
    if not (math.isfinite(value) and low <= value <= high) or (above and value == low):
        bound = f"above {low:g}" if above else f"from {low:g}"
        limit = "" if math.isinf(high) else f" to {high:g}"
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {bound}{limit}")


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and its physical constants.

    Attributes:
        id: of a registered environment.
        params: see `AutoscaleParams`.
        randomisation: drawn anew each training episode, off in evaluation.
        episode_steps: steps of a training episode.
    """

    id: str = "Autoscale-v0"
    params: AutoscaleParams = field(default_factory=AutoscaleParams)
    randomisation: Randomisation = field(default_factory=Randomisation)
    episode_steps: int = 1920

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        name = self.id.removeprefix(MODULE_PREFIX).removeprefix(f"{NAMESPACE}/")
        _allowed("id", name, TRAINED_ENVS)
        _between(self, "episode_steps", 1, 10_000_000)


@dataclass(frozen=True)
class PPOConfig:
    """Proximal Policy Optimisation (Schulman et al. 2017) on batch-native rollouts.

    Attributes:
        total_env_steps: training budget.
        num_envs: environments stepped together, over all env runners.
        rollout_steps: steps of each environment between two updates.
        num_epochs: passes over each rollout.
        minibatch_size: transitions of one gradient step; at most num_envs × rollout_steps.
        lr: Adam's learning rate at the start.
        lr_final_share: learning rate at the end as a share of `lr`, linear in between.
        gamma: discount.
        gae_lambda: λ of generalised advantage estimation.
        clip: of the probability ratio.
        entropy_coefficient: weight of the entropy bonus, decayed linearly to 0.
        value_coefficient: weight of the value loss.
        value_clip: the squared value error is cut here.
        grad_clip: global norm of the gradient.
        reward_clip: rewards are cut at ± this before learning (never in results).
        envs_per_input: environments that meet the same traffic, so that luck with it cancels in their advantages; 1 is plain PPO.
        hidden: units of the hidden layers, policy and value apart.
    """

    total_env_steps: int = 4_000_000
    num_envs: int = 128
    rollout_steps: int = 64
    num_epochs: int = 4
    minibatch_size: int = 1024
    lr: float = 1e-3
    lr_final_share: float = 0.0
    gamma: float = 0.98
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_coefficient: float = 0.005
    value_coefficient: float = 0.5
    value_clip: float = 1e6
    grad_clip: float = 0.5
    reward_clip: float = 100.0
    envs_per_input: int = 8
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (64, 64)

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        for name in ("total_env_steps", "num_envs", "rollout_steps", "num_epochs", "minibatch_size"):
            _between(self, name, 1, 1e12)
        _between(self, "lr", 0, 1, above=True)
        _between(self, "lr_final_share", 0, 1)
        _between(self, "gamma", 0, 1)
        _between(self, "gae_lambda", 0, 1)
        _between(self, "clip", 0, 10, above=True)
        _between(self, "entropy_coefficient", 0, 10)
        _between(self, "value_coefficient", 0, 1000)
        for name in ("value_clip", "grad_clip", "reward_clip"):
            _between(self, name, 0, 1e12, above=True)
        if self.minibatch_size > self.batch_size:
            raise ValueError(
                f"minibatch_size: {self.minibatch_size} is larger than the batch, num_envs × rollout_steps ="
                f" {self.batch_size}; allowed: 1 to {self.batch_size}"
            )
        if self.envs_per_input < 1 or self.num_envs % self.envs_per_input:
            raise ValueError(
                f"envs_per_input: {self.envs_per_input} does not divide num_envs {self.num_envs}; allowed: its divisors"
            )
        if not self.hidden:
            raise ValueError("hidden: is empty; allowed: at least one layer, such as [64, 64]")

    @property
    def batch_size(self) -> int:
        """Transitions of one iteration."""
        return self.num_envs * self.rollout_steps

    @property
    def num_iterations(self) -> int:
        """Iterations that use up the budget, the last one whole."""
        return math.ceil(self.total_env_steps / self.batch_size)


@dataclass(frozen=True)
class ResourcesConfig:
    """Where training runs.

    Attributes:
        num_env_runners: parallel env-runner processes; 0 steps the environments in the trainer's own process.
        address: of a Ray cluster ("ray://…", "auto"); null starts a local one.
        num_gpus_per_learner: GPUs the learner gets; asked for and missing is an error.
        torch_threads: of the learner; null for the number of cores.
    """

    num_env_runners: int = 0
    address: str | None = None
    num_gpus_per_learner: float = 0
    torch_threads: int | None = None

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        _between(self, "num_env_runners", 0, 100_000)
        _between(self, "num_gpus_per_learner", 0, 64)
        if self.torch_threads is not None:
            _between(self, "torch_threads", 1, 1024)


@dataclass(frozen=True)
class EvaluationConfig:
    """Protocol v1 and what is compared under it.

    Attributes:
        window_steps: steps of a validation or test window (1,920 of 15 s are 8 hours).
        drawn_windows: training and validation windows drawn.
        test_seeds: arrival seeds of the test windows.
        tuning_evaluations: random-search evaluations of the tuned rules, shared equally by the metrics.
        validate_every_share: of the budget, between two validations (0.02 = 50 validations a run).
        bootstrap_samples: resamples behind the intervals.
        optimum: judge against the clairvoyant optimum too (a second or two an episode).
    """

    window_steps: int = 1920
    drawn_windows: int = 24
    test_seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    tuning_evaluations: int = 400
    validate_every_share: float = 0.02
    bootstrap_samples: int = 2000
    optimum: bool = True

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        _between(self, "window_steps", 2, 1_000_000)
        _between(self, "drawn_windows", 1, 10_000)
        _between(self, "tuning_evaluations", 2, 1_000_000)
        _between(self, "validate_every_share", 0, 1, above=True)
        _between(self, "bootstrap_samples", 10, 1_000_000)
        if not self.test_seeds:
            raise ValueError("test_seeds: is empty; allowed: at least one seed")


@dataclass(frozen=True)
class ExperimentConfig:
    """Train, evaluate, report.

    Attributes:
        name: of the run's folder and of the policy.
        algorithm: what trains.
        engine: rllib (batch-native) or rllib-stock (RLlib's own sampling, for comparison).
        seed: of everything random in training.
        env: the environment.
        workload: what it serves: one of the kinds of `scalepilot_envs.workloads.WORKLOADS`.
        ppo: hyperparameters of `algorithm: ppo`.
        resources: where it runs.
        evaluation: how it is judged.
        output: folder that collects runs.
        checkpoint_every_share: of the budget, between two checkpoints.
    """

    name: str = "experiment"
    algorithm: str = "ppo"
    engine: str = "rllib"
    seed: int = 0
    env: EnvConfig = field(default_factory=EnvConfig)
    workload: Annotated[AnyWorkload, Field(discriminator="kind")] = field(default_factory=DiurnalWorkload)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    output: str = "runs"
    checkpoint_every_share: float = 0.1

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r} is not allowed; allowed: 1–64 letters, digits, '.', '_', '-'")
        _allowed("algorithm", self.algorithm, ALGORITHMS)
        _allowed("engine", self.engine, ENGINES)
        _between(self, "seed", 0, 2**31 - 1)
        _between(self, "checkpoint_every_share", 0, 1, above=True)
        runners, group = self.resources.num_env_runners, self.ppo.envs_per_input
        if runners and self.ppo.num_envs % (runners * group):
            raise ValueError(
                f"ppo.num_envs: {self.ppo.num_envs} cannot be shared by {runners} env runners in groups of {group};"
                f" allowed: multiples of resources.num_env_runners × ppo.envs_per_input = {runners * group}"
            )

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, as `config.yaml` in a run folder holds it."""
        mapping: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return mapping

    def to_yaml(self) -> str:
        """The whole configuration, defaults included."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


_ADAPTER: TypeAdapter[ExperimentConfig] = TypeAdapter(ExperimentConfig)


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment's YAML.

    Args:
        path: the file.
        overrides: "a.b=c" settings, values in YAML.

    Raises:
        ConfigError: the file or a key or value in it is not allowed.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes; allowed: up to {MAX_CONFIG_BYTES}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    return config_from_mapping(parse_yaml(text, str(path)), overrides, source=str(path))


def config_from_mapping(values: Any, overrides: Sequence[str] = (), source: str = "config") -> ExperimentConfig:
    """Check plain data and build the configuration.

    Raises:
        ConfigError: naming the first key that is not allowed, its value and what is.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: holds a {type(values).__name__}; allowed: keys and values, such as name: demo")
    merged = _with_overrides(dict(values), overrides)
    workload = merged.get("workload")
    if isinstance(workload, Mapping) and "kind" not in workload:
        raise ConfigError(f"{source}: workload.kind: is missing; allowed: {', '.join(WORKLOADS)}")
    try:
        config = _ADAPTER.validate_python(merged)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error)}") from None
    _refuse_bools(merged, config, "", source)
    return config


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


def _with_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
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


def _first_problem(error: ValidationError) -> str:
    """The most telling of pydantic's errors, in one line."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    where = ".".join(str(part) for part in _without_kinds(problem["loc"]))
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        names = _keys_at(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{where}: unknown key; allowed: {', '.join(names)}{hint}"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = [kind for kind in WORKLOADS if where == "workload" or kind != "mixture"]
        kind = problem["input"].get("kind") if isinstance(problem["input"], Mapping) else problem["input"]
        near = difflib.get_close_matches(str(kind), kinds, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{where}.kind: {_shown(kind)} is not allowed; allowed: {', '.join(kinds)}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        # Raised by a __post_init__: a workload's message begins with "workload.", any other with its own field's name.
        outer = where.removesuffix("workload") if message.startswith("workload.") else f"{where}."
        return f"{outer}{message}" if where else message
    return f"{where}: {_shown(problem['input'])} is not allowed; {message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "…"


def _without_kinds(path: Sequence[Any]) -> list[Any]:
    """A place as it is written in YAML: without the workload's kind, which pydantic adds behind its key."""
    return [part for i, part in enumerate(path) if not (i and path[i - 1] == "workload" and part in WORKLOADS)]


def _keys_at(path: Sequence[Any]) -> list[str]:
    """Names of the keys a section allows."""
    at: Any = ExperimentConfig
    for i, part in enumerate(path):
        if i and path[i - 1] == "workload" and part in WORKLOADS:
            at = WORKLOADS[part]
        elif isinstance(part, int):
            at = get_args(at)[0]
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
        ConfigError: the peak is not allowed.
    """
    scale = PROTOCOL_PEAK_RPS if peak_rps is None else peak_rps or None
    try:
        return replace(config, workload=TraceWorkload(path=str(path), peak_rps=scale))
    except ValueError as error:
        raise ConfigError(f"--peak-rps: {error}") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment's YAML."""
    return _ADAPTER.json_schema()


__all__ = [
    "ALGORITHMS",
    "ENGINES",
    "EnvConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "PPOConfig",
    "ResourcesConfig",
    "config_from_mapping",
    "json_schema",
    "load_config",
    "with_trace",
]
