"""An experiment's configuration: one frozen dataclass a section, every key documented and checked."""

from scalepilot.config.algorithms import CNNS, DQNConfig, PPOConfig, TabularConfig
from scalepilot.config.env import AUTOSCALE, ENV_TAGS, EnvConfig, OtherEnvConfig, env_tag, is_autoscale
from scalepilot.config.experiment import ALGORITHMS, ENGINES, SECTIONS, ExperimentConfig
from scalepilot.config.loading import (
    PROTOCOL_PEAK_RPS,
    checked,
    config_from_mapping,
    env_section,
    json_schema,
    load_config,
    put_key,
    read_yaml,
    resumed_with,
    short_value,
    slug,
    with_overrides,
    with_trace,
    with_workload,
)
from scalepilot.config.running import CheckpointsConfig, EvaluationConfig, ResourcesConfig, TrackingConfig
from scalepilot.config.trainable import check_trainable

__all__ = [
    "ALGORITHMS",
    "AUTOSCALE",
    "CNNS",
    "ENGINES",
    "ENV_TAGS",
    "PROTOCOL_PEAK_RPS",
    "SECTIONS",
    "CheckpointsConfig",
    "DQNConfig",
    "EnvConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "OtherEnvConfig",
    "PPOConfig",
    "ResourcesConfig",
    "TabularConfig",
    "TrackingConfig",
    "check_trainable",
    "checked",
    "config_from_mapping",
    "env_section",
    "env_tag",
    "is_autoscale",
    "json_schema",
    "load_config",
    "put_key",
    "read_yaml",
    "resumed_with",
    "short_value",
    "slug",
    "with_overrides",
    "with_trace",
    "with_workload",
]
