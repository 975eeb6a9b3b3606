"""ExperimentConfig: one typed YAML door. Frozen dataclasses, unknown keys refused with a suggestion.

Every key is documented here; `scalepilot train --schema` prints the JSON Schema generated from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

import yaml
from pydantic import Discriminator, Field, Tag, TypeAdapter

from scalepilot.config.algorithms import ALGORITHMS, BUILT_IN_SECTIONS, ENGINES, SECTIONS, names
from scalepilot.config.checks import Between, OneOf, Section
from scalepilot.config.env import EnvConfig, OtherEnvConfig, env_tag
from scalepilot.config.running import CheckpointsConfig, EvaluationConfig, ResourcesConfig, TrackingConfig
from scalepilot.config.sections import LearningConfig
from scalepilot.config.trainable import check_trainable
from scalepilot.errors import ConfigError
from scalepilot_envs.registration import find_env
from scalepilot_envs.workloads import AnyWorkload, DiurnalWorkload

# On a live environment: episodes of a validation or test, and steps that may be waited beside those of a rollout.
_MOST_LIVE_EPISODES, _LIVE_WAITS = 20, 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Config = TypeVar("_Config")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _with_sections(kind: type[_Config]) -> type[_Config]:
    """A frozen dataclass with the sections of all algorithms before `resources`: the registry decides which there are."""
    given, attributes = kind.__annotations__, []
    merged: dict[str, Any] = {}
    for name, hint in given.items():
        if name == "resources":
            for section, settings in SECTIONS.items():
                if section in given:
                    raise ConfigError(
                        f"algorithm: {names(section=section)[0]} has the section {section}, a key of every experiment"
                    )
                merged[section] = settings
                setattr(kind, section, field(default_factory=settings))
                attributes.append(f"        {section}: hyperparameters of `algorithm: {'` and `'.join(names(section=section))}`.")
        merged[name] = hint
    kind.__annotations__ = merged
    kind.__doc__ = "\n".join([(kind.__doc__ or "").rstrip(), *attributes])
    return dataclass(frozen=True)(kind)


@_with_sections
class ExperimentConfig(Section):
    """Train, evaluate, report.

    Attributes:
        name: of the run's folder and of the policy.
        algorithm: what trains.
        engine: rllib (batch-native) or rllib-stock (RLlib's own sampling, for comparison).
        seed: of everything random in training.
        env: the environment.
        workload: what Autoscale serves: one of the kinds of `scalepilot_envs.workloads.WORKLOADS`.
        resources: where it runs.
        evaluation: how it is evaluated.
        output: folder that collects runs.
        checkpoints: how often, and how many are kept.
        tracking: Weights & Biases and MLflow.
    """

    name: str = "experiment"
    algorithm: Annotated[str, OneOf(tuple(ALGORITHMS))] = "ppo"
    engine: Annotated[str, OneOf(ENGINES)] = "rllib"
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    env: Annotated[Annotated[EnvConfig, Tag("autoscale")] | Annotated[OtherEnvConfig, Tag("other")], Discriminator(env_tag)] = (
        field(default_factory=EnvConfig)
    )
    workload: Annotated[AnyWorkload, Field(discriminator="kind")] = field(default_factory=DiurnalWorkload)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    output: str = "runs"
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r} is not allowed; allowed: 1–64 letters, digits, '.', '_', '-'")
        super().__post_init__()
        engines = ALGORITHMS[self.algorithm].engines
        if self.engine not in engines:
            allowed = ", ".join(engines)
            raise ValueError(f"engine: {self.engine} is not allowed for algorithm {self.algorithm}; allowed: {allowed}")
        if not self.env.takes_workload:
            check_trainable(self.algorithm, self.engine, self.env.description, getattr(self.learning, "cnn", None))
        if getattr(self.learning, "counterfactual_every", None) is not None:
            self._check_counterfactual()
        self._check_shares()
        if not self.env.takes_workload and find_env(self.env.id).is_live:
            self._check_live()

    def _check_counterfactual(self) -> None:
        """Refuse to try actions where nothing does."""
        key, allowed = f"{ALGORITHMS[self.algorithm].section}.counterfactual_every", "allowed: null"
        if self.engine != "rllib":
            raise ValueError(f"{key}: is not used by engine {self.engine}; {allowed}")
        if not find_env(self.env.id).can_fork:
            raise ValueError(f"{key}: {self.env.id} cannot be copied in the middle of an episode; {allowed}, or Autoscale-v0")

    def _check_live(self) -> None:
        """Refuse what would step one deployment side by side, or for days on end."""
        section, learning, resources = ALGORITHMS[self.algorithm].section, self.learning, self.resources
        for name, value, allowed in (
            (f"{section}.num_envs", learning.num_envs, 1),
            ("resources.num_env_runners", resources.num_env_runners, 0),
        ):
            if value != allowed:
                raise ValueError(
                    f"{name}: {value} is not allowed on {self.env.id}; allowed: {allowed}, as there is one deployment"
                )
        if self.engine != "rllib":
            raise ValueError(f"engine: {self.engine} is not allowed on {self.env.id}; allowed: rllib")
        for name in ("validation_episodes", "test_episodes"):
            count = getattr(self.evaluation, name)
            if count > _MOST_LIVE_EPISODES:
                raise ValueError(
                    f"evaluation.{name}: {count} is not allowed on {self.env.id}, where each takes its whole time; allowed: up to"
                    f" {_MOST_LIVE_EPISODES}"
                )
        # The first step of an episode may wait for a while until everything is known.
        steps = (learning.rollout_size if ALGORITHMS[self.algorithm].needs_ray else 1) + _LIVE_WAITS
        needed = steps * find_env(self.env.id).step_seconds(**self.env.arguments)
        if needed > resources.env_timeout_seconds:
            raise ValueError(
                f"resources.env_timeout_seconds: {resources.env_timeout_seconds:g} is too short on {self.env.id}, where a rollout"
                f" may take {needed:g} s; allowed: from {needed:g}"
            )

    def _check_shares(self) -> None:
        """Refuse what env runners and learners cannot share equally."""
        learning, section = self.learning, ALGORITHMS[self.algorithm].section
        runners, learners = max(1, self.resources.num_env_runners), max(1, self.resources.num_learners)
        group = getattr(learning, "envs_per_input", 1)
        if runners * learners > 1 and learning.num_envs % (runners * learners * group):
            raise ValueError(
                f"{section}.num_envs: {learning.num_envs} cannot be shared by {runners} env runners and {learners} learners in"
                f" groups of {group}; allowed: multiples of resources.num_env_runners × resources.num_learners ×"
                f" {section}.envs_per_input = {runners * learners * group}"
            )
        for name in learning.shared_by_learners:
            size = getattr(learning, name)
            if size % learners:
                raise ValueError(f"{section}.{name}: {size} cannot be shared by {learners} learners; allowed: its multiples")

    @property
    def learning(self) -> LearningConfig:
        """The section of the algorithm that trains."""
        section: LearningConfig = getattr(self, ALGORITHMS[self.algorithm].section)
        return section

    @property
    def autoscale(self) -> EnvConfig:
        """The environment's section where it is Autoscale-v0.

        Raises:
            ConfigError: it is another one.
        """
        if not self.env.takes_workload:
            raise ConfigError(f"env.id: {self.env.id!r} is not allowed; allowed: Autoscale-v0")
        return cast(EnvConfig, self.env)

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, as `config.yaml` in a run folder holds it."""
        mapping: dict[str, Any] = ADAPTER.dump_python(self, mode="json")
        # A run must be readable without the packages whose algorithms it has not used.
        unneeded = {*SECTIONS} - BUILT_IN_SECTIONS - {ALGORITHMS[self.algorithm].section}
        return {key: value for key, value in mapping.items() if key not in unneeded}

    def to_yaml(self) -> str:
        """The whole configuration, defaults included."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


ADAPTER: TypeAdapter[ExperimentConfig] = TypeAdapter(ExperimentConfig)
