"""ExperimentConfig: one typed YAML door. Frozen dataclasses, unknown keys refused with a suggestion.

Every key is documented here; `scalepilot train --schema` prints the JSON Schema generated from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

import yaml
from pydantic import Discriminator, Field, Tag, TypeAdapter

from scalepilot.config.algorithms import DQNConfig, PPOConfig, TabularConfig
from scalepilot.config.checks import Between, OneOf, Section
from scalepilot.config.env import EnvConfig, OtherEnvConfig, env_tag
from scalepilot.config.running import CheckpointsConfig, EvaluationConfig, ResourcesConfig, TrackingConfig
from scalepilot.config.trainable import check_trainable
from scalepilot.errors import ConfigError
from scalepilot_envs.workloads import AnyWorkload, DiurnalWorkload

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Algorithm → its section; Stable-Baselines3 takes the same hyperparameters as ours, so that both can be compared.
SECTIONS = {"ppo": "ppo", "dqn": "dqn", "q_learning": "tabular", "sarsa": "tabular", "sb3_ppo": "ppo", "sb3_dqn": "dqn"}
ALGORITHMS = tuple(SECTIONS)
ENGINES = ("rllib", "rllib-stock")


@dataclass(frozen=True)
class ExperimentConfig(Section):
    """Train, evaluate, report.

    Attributes:
        name: of the run's folder and of the policy.
        algorithm: what trains.
        engine: rllib (batch-native) or rllib-stock (RLlib's own sampling, for comparison).
        seed: of everything random in training.
        env: the environment.
        workload: what Autoscale serves: one of the kinds of `scalepilot_envs.workloads.WORKLOADS`.
        ppo: hyperparameters of `algorithm: ppo`.
        dqn: hyperparameters of `algorithm: dqn`.
        tabular: hyperparameters of `algorithm: q_learning` and `sarsa`.
        resources: where it runs.
        evaluation: how it is judged.
        output: folder that collects runs.
        checkpoints: how often, and how many are kept.
        tracking: Weights & Biases and MLflow.
    """

    name: str = "experiment"
    algorithm: Annotated[str, OneOf(ALGORITHMS)] = "ppo"
    engine: Annotated[str, OneOf(ENGINES)] = "rllib"
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    env: Annotated[Annotated[EnvConfig, Tag("autoscale")] | Annotated[OtherEnvConfig, Tag("other")], Discriminator(env_tag)] = (
        field(default_factory=EnvConfig)
    )
    workload: Annotated[AnyWorkload, Field(discriminator="kind")] = field(default_factory=DiurnalWorkload)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    dqn: DQNConfig = field(default_factory=DQNConfig)
    tabular: TabularConfig = field(default_factory=TabularConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    output: str = "runs"
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r} is not allowed; allowed: 1–64 letters, digits, '.', '_', '-'")
        super().__post_init__()
        if self.engine == "rllib-stock" and self.algorithm != "ppo":
            raise ValueError(f"engine: rllib-stock is not allowed for algorithm {self.algorithm}; allowed: rllib")
        if isinstance(self.env, OtherEnvConfig):
            check_trainable(self.algorithm, self.engine, self.env.description, getattr(self.learning, "cnn", None))
        self._check_shares()

    def _check_shares(self) -> None:
        """Refuse what env runners and learners cannot share equally."""
        learning, section = self.learning, SECTIONS[self.algorithm]
        runners, learners = max(1, self.resources.num_env_runners), max(1, self.resources.num_learners)
        group = getattr(learning, "envs_per_input", 1)
        if runners * learners > 1 and learning.num_envs % (runners * learners * group):
            raise ValueError(
                f"{section}.num_envs: {learning.num_envs} cannot be shared by {runners} env runners and {learners} learners in"
                f" groups of {group}; allowed: multiples of resources.num_env_runners × resources.num_learners ×"
                f" {section}.envs_per_input = {runners * learners * group}"
            )
        for name in ("minibatch_size",) if section == "ppo" else ("batch_size", "buffer_size") if section == "dqn" else ():
            size = getattr(learning, name)
            if size % learners:
                raise ValueError(f"{section}.{name}: {size} cannot be shared by {learners} learners; allowed: its multiples")

    @property
    def learning(self) -> PPOConfig | DQNConfig | TabularConfig:
        """The section of the algorithm that trains."""
        section: PPOConfig | DQNConfig | TabularConfig = getattr(self, SECTIONS[self.algorithm])
        return section

    @property
    def autoscale(self) -> EnvConfig:
        """The environment's section where it is Autoscale-v0.

        Raises:
            ConfigError: it is another one.
        """
        if not isinstance(self.env, EnvConfig):
            raise ConfigError(f"env.id: {self.env.id!r} is not allowed; allowed: Autoscale-v0")
        return self.env

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, as `config.yaml` in a run folder holds it."""
        mapping: dict[str, Any] = ADAPTER.dump_python(self, mode="json")
        return mapping

    def to_yaml(self) -> str:
        """The whole configuration, defaults included."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


ADAPTER: TypeAdapter[ExperimentConfig] = TypeAdapter(ExperimentConfig)
