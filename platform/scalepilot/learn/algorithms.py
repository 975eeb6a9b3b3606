"""What trains an algorithm of the registry, and what the policy is that comes out."""

from __future__ import annotations

import datetime as dt
import importlib
from dataclasses import asdict
from pathlib import Path

from scalepilot.config import ALGORITHMS, ExperimentConfig
from scalepilot.errors import ConfigError
from scalepilot.learn.task import Task
from scalepilot.learn.trainer import Trainer
from scalepilot.policy import PolicySpec, env_actions, env_components, env_fields
from scalepilot.runs.folder import RunFolder, git_sha, library_versions
from scalepilot_envs.workloads import TraceWorkload, trace_notes


def make_trainer(config: ExperimentConfig, task: Task) -> Trainer:
    """The algorithm in training; for Ray's, Ray must be up. What it needs is imported here: Ray and torch take seconds.

    Raises:
        ConfigError: the algorithm does not train on this environment, or what it needs is not installed.
    """
    algorithm = ALGORITHMS[config.algorithm]
    module, _, name = algorithm.trainer.partition(":")
    try:
        make = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        how = f": pip install 'scalepilot[{algorithm.extra}]'" if algorithm.extra else ""
        raise ConfigError(f"algorithm: {config.algorithm} needs {error.name}{how}") from None
    if make is None:
        raise ConfigError(f"algorithm: {config.algorithm} is trained by {algorithm.trainer}, and {module} has no {name}")
    trainer: Trainer = make(config, task)
    return trainer


def _trace_notes(config: ExperimentConfig) -> dict[str, str]:
    return trace_notes(Path(config.workload.path)) if isinstance(config.workload, TraceWorkload) else {}


def policy_spec(config: ExperimentConfig, folder: RunFolder, task: Task) -> PolicySpec:
    """Description of the policy this run will export."""
    env, algorithm = task.description, ALGORITHMS[config.algorithm]
    return PolicySpec(
        name=f"{config.name}-{config.algorithm}"[:64],
        version=folder.run_id,
        kind=algorithm.policy_kind,
        env_id=env.env_id,
        env_params=asdict(env.params),
        env_options=dict(env.options),
        observation_fields=env_fields(env),
        actions=env_actions(env),
        components=env_components(env),
        decision_rule="box" if env.components else algorithm.decision_rule,
        provenance={
            "algorithm": config.algorithm,
            "engine": config.engine,
            "seed": config.seed,
            "config": config.to_mapping(),
            "versions": library_versions(),
            "git_sha": git_sha(),
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            # Where recorded traffic comes from, where its file says so.
            **({"trace": notes} if (notes := _trace_notes(config)) else {}),
            **({"init": init} if (init := folder.read_status().get("init")) else {}),
        },
    )
