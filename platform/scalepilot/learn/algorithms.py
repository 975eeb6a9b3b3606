"""The algorithms: what trains each, and what the policy is that comes out."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import TYPE_CHECKING

from scalepilot.config import ExperimentConfig
from scalepilot.errors import ConfigError
from scalepilot.learn.task import Task
from scalepilot.policy import DecisionRule, PolicySpec, env_actions, env_components, env_fields
from scalepilot.runs.folder import RunFolder, git_sha, library_versions
from scalepilot_envs.description import EnvDescription

if TYPE_CHECKING:
    from scalepilot.learn.trainer import Trainer

RAY_ALGORITHMS = ("ppo", "dqn")
TABULAR_ALGORITHMS = ("q_learning", "sarsa")
SB3_ALGORITHMS = ("sb3_ppo", "sb3_dqn")


def make_trainer(config: ExperimentConfig, task: Task) -> Trainer:
    """The algorithm in training; for Ray's, Ray must be up.

    Raises:
        ConfigError: the algorithm does not train on this environment.
    """
    trainer: Trainer
    if config.algorithm in RAY_ALGORITHMS:
        from scalepilot.learn.rllib.trainer import RLlibTrainer

        trainer = RLlibTrainer(config, task)
    elif config.algorithm in SB3_ALGORITHMS:
        try:
            from scalepilot.learn.sb3.trainer import make_sb3_trainer
        except ModuleNotFoundError as error:
            raise ConfigError(f"algorithm: {config.algorithm} needs {error.name}: pip install 'scalepilot[sb3]'") from None
        trainer = make_sb3_trainer(config, task)
    else:
        from scalepilot.learn.tabular import TabularTrainer

        trainer = TabularTrainer(config, task)
    return trainer


def policy_spec(config: ExperimentConfig, folder: RunFolder, task: Task) -> PolicySpec:
    """Description of the policy this run will export."""
    env = task.description
    return PolicySpec(
        name=f"{config.name}-{config.algorithm}"[:64],
        version=folder.run_id,
        kind="table" if config.algorithm in TABULAR_ALGORITHMS else "network",
        env_id=env.env_id,
        env_params=asdict(env.params),
        env_options=dict(env.options),
        observation_fields=env_fields(env),
        actions=env_actions(env),
        components=env_components(env),
        decision_rule=_decision_rule(config, env),
        provenance={
            "algorithm": config.algorithm,
            "engine": config.engine,
            "seed": config.seed,
            "config": config.to_mapping(),
            "versions": library_versions(),
            "git_sha": git_sha(),
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            **({"init": init} if (init := folder.read_status().get("init")) else {}),
        },
    )


def _decision_rule(config: ExperimentConfig, env: EnvDescription) -> DecisionRule:
    if env.components:
        return "box"
    return "argmax_q" if config.algorithm in ("dqn", "sb3_dqn", *TABULAR_ALGORITHMS) else "argmax_p"
