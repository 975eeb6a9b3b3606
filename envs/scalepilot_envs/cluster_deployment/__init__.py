"""ClusterDeployment-v0, pods of a deployment on nodes: see `scalepilot_envs.cluster_deployment.env`."""

from scalepilot_envs.cluster_deployment.description import ENV_ID, describe, observation_fields
from scalepilot_envs.cluster_deployment.env import (
    ClusterDeploymentBatch,
    ClusterDeploymentEnv,
    ClusterDeploymentVectorEnv,
    make_env,
    make_vector_env,
)
from scalepilot_envs.cluster_deployment.exogenous import Event
from scalepilot_envs.cluster_deployment.params import ClusterDeploymentParams

__all__ = [
    "ENV_ID",
    "ClusterDeploymentBatch",
    "ClusterDeploymentEnv",
    "ClusterDeploymentParams",
    "ClusterDeploymentVectorEnv",
    "Event",
    "describe",
    "make_env",
    "make_vector_env",
    "observation_fields",
]
