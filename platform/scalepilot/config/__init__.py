"""An experiment's configuration: one frozen dataclass a section, every key documented and checked.

The names are imported when they are asked for: whoever declares an algorithm imports `config.algorithm` and `config.sections`
alone, and must not thereby load the registry that is about to read the declaration.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalepilot.config.algorithms import ALGORITHMS, ENGINES, SECTIONS
    from scalepilot.config.env import AUTOSCALE, ENV_TAGS, EnvConfig, OtherEnvConfig, env_tag
    from scalepilot.config.experiment import ExperimentConfig
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
    from scalepilot.config.sections import CNNS, DQNConfig, PPOConfig, TabularConfig
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
_MODULES = ("sections", "env", "algorithms", "running", "trainable", "experiment", "loading")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in map(importlib.import_module, (f"{__name__}.{module}" for module in _MODULES)):
            if name in vars(module):
                globals()[name] = vars(module)[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
