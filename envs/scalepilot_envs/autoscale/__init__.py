"""Autoscale-v0, the flagship: see `scalepilot_envs.autoscale.env`."""

from scalepilot_envs.autoscale.action import DEFAULT_MOVES, Move, MoveTable
from scalepilot_envs.autoscale.env import ENV_ID, AutoscaleBatch, AutoscaleEnv, AutoscaleVectorEnv
from scalepilot_envs.autoscale.measurement import values_at_rest
from scalepilot_envs.autoscale.observation import PRICE_FIELD, observation_fields
from scalepilot_envs.autoscale.params import AutoscaleParams, Randomisation
from scalepilot_envs.autoscale.surges import with_surges
from scalepilot_envs.description import ObservationField

__all__ = [
    "DEFAULT_MOVES",
    "ENV_ID",
    "PRICE_FIELD",
    "AutoscaleBatch",
    "AutoscaleEnv",
    "AutoscaleParams",
    "AutoscaleVectorEnv",
    "Move",
    "MoveTable",
    "ObservationField",
    "Randomisation",
    "observation_fields",
    "values_at_rest",
    "with_surges",
]
