"""The sections of an experiment's configuration: one frozen dataclass each, every key documented and checked."""

from scalepilot.settings.checks import check_allowed, check_between
from scalepilot.settings.env import AUTOSCALE, ENV_TAGS, EnvConfig, OtherEnvConfig, env_tag, is_autoscale
from scalepilot.settings.learning import DQNConfig, PPOConfig, TabularConfig
from scalepilot.settings.running import EvaluationConfig, ResourcesConfig

__all__ = [
    "AUTOSCALE",
    "ENV_TAGS",
    "DQNConfig",
    "EnvConfig",
    "EvaluationConfig",
    "OtherEnvConfig",
    "PPOConfig",
    "ResourcesConfig",
    "TabularConfig",
    "check_allowed",
    "check_between",
    "env_tag",
    "is_autoscale",
]
