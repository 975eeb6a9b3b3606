"""FunctionWorkflow-v0, workers of a function queue: see `scalepilot_envs.function_workflow.env`."""

from scalepilot_envs.function_workflow.description import ENV_ID, describe, observation_fields
from scalepilot_envs.function_workflow.env import (
    FunctionWorkflowBatch,
    FunctionWorkflowEnv,
    FunctionWorkflowVectorEnv,
    make_env,
    make_vector_env,
)
from scalepilot_envs.function_workflow.params import FunctionWorkflowParams

__all__ = [
    "ENV_ID",
    "FunctionWorkflowBatch",
    "FunctionWorkflowEnv",
    "FunctionWorkflowParams",
    "FunctionWorkflowVectorEnv",
    "describe",
    "make_env",
    "make_vector_env",
    "observation_fields",
]
