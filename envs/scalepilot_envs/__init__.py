"""Autoscaling environments for gymnasium: batched, seeded, in physical units. Importing registers them."""

from scalepilot_envs.batch_env import BatchEnv, BatchStep, BatchVectorEnv, SingleEnv
from scalepilot_envs.registration import ENVS, EnvEntry, add_env, find_env, register_envs

__all__ = ["ENVS", "BatchEnv", "BatchStep", "BatchVectorEnv", "EnvEntry", "SingleEnv", "add_env", "find_env", "register_envs"]

register_envs()
