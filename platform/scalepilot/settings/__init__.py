"""The sections of an experiment's configuration: one frozen dataclass each, every key documented and checked."""

from scalepilot.settings.checks import check_allowed, check_between
from scalepilot.settings.env import AUTOSCALE, ENV_TAGS, EnvConfig, OtherEnvConfig, env_tag, is_autoscale
from scalepilot.settings.learning import CNNS, DQNConfig, PPOConfig, TabularConfig
from scalepilot.settings.running import CheckpointsConfig, EvaluationConfig, ResourcesConfig, TrackingConfig
from scalepilot.settings.trainable import check_trainable

__all__ = [
    "AUTOSCALE",
    "CNNS",
    "ENV_TAGS",
    "CheckpointsConfig",
    "DQNConfig",
    "EnvConfig",
    "EvaluationConfig",
    "OtherEnvConfig",
    "PPOConfig",
    "ResourcesConfig",
    "TabularConfig",
    "TrackingConfig",
    "check_allowed",
    "check_between",
    "check_trainable",
    "env_tag",
    "is_autoscale",
]
