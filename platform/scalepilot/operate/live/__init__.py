"""Live environments: a real deployment behind gymnasium's API (docs/live-training.md)."""

import gymnasium as gym

from scalepilot.operate.live.entry import ENV_ID, ENVS, MAKE, LiveEntry, make_env
from scalepilot.operate.live.env import LiveScalingEnv, LiveUnknownError
from scalepilot.operate.live.options import LiveOptions
from scalepilot.operate.live.outcome import judge_of
from scalepilot.operate.live.system import LiveSystem, live_service

# For gymnasium.make("scalepilot.operate.live:LiveScaling-v0", …).
gym.register(id=ENV_ID.partition(":")[2], entry_point=MAKE)

__all__ = [
    "ENVS",
    "ENV_ID",
    "LiveEntry",
    "LiveOptions",
    "LiveScalingEnv",
    "LiveSystem",
    "LiveUnknownError",
    "judge_of",
    "live_service",
    "make_env",
]
