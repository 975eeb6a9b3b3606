"""QueueScaling-v0, instances that work off a queue: see `scalepilot_envs.queue_scaling.env`."""

from scalepilot_envs.queue_scaling.description import ENV_ID, describe
from scalepilot_envs.queue_scaling.env import (
    QueueScalingBatch,
    QueueScalingEnv,
    QueueScalingVectorEnv,
    make_env,
    make_vector_env,
)
from scalepilot_envs.queue_scaling.params import QueueScalingParams

__all__ = [
    "ENV_ID",
    "QueueScalingBatch",
    "QueueScalingEnv",
    "QueueScalingParams",
    "QueueScalingVectorEnv",
    "describe",
    "make_env",
    "make_vector_env",
]
