"""What is wrong with an environment is said once, in one line, before any worker starts."""

from __future__ import annotations

import time

import gymnasium as gym
import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.learn.preflight import check_environment
from scalepilot_envs import ENVS


class Faulty(gym.Env):
    """Breaks one promise."""

    def __init__(self, fault="none"):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.fault = fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.fault == "reset raises":
            raise RuntimeError("no database\nat all")
        observation = np.zeros(3 if self.fault == "shape" else 2, np.float64 if self.fault == "dtype" else np.float32)
        return observation if self.fault == "old reset" else (observation, {})

    def step(self, action):
        if self.fault == "hang":
            time.sleep(2.0)
        if self.fault == "raises":
            raise KeyError("pods")
        observation = np.full(2, {"nan": np.nan, "outside": 7.0}.get(self.fault, 0.5), np.float32)
        reward = {"nan reward": float("nan"), "array reward": np.ones(3)}.get(self.fault, 1.0)
        if self.fault == "old step":
            return observation, reward, False, {}
        return observation, reward, False, False, {}


@pytest.fixture
def faulty():
    gym.register("FaultyForTests-v0", entry_point=Faulty)
    yield "FaultyForTests-v0"
    del gym.registry["FaultyForTests-v0"]


def test_a_sound_environment_passes(faulty):
    check_environment(faulty, {})


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_of_ours_passes(env_id):
    check_environment(env_id, {})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"reset\(\) returns an observation of shape \(3,\); allowed: float32 \(2,\)"),
        ("dtype", r"reset\(\) returns an observation of dtype float64; allowed: float32"),
        ("nan", r"step\(\) returns an observation that is not finite"),
        ("outside", r"step\(\) returns an observation outside its space"),
        ("nan reward", r"step\(\) returns the reward nan; allowed: finite numbers"),
        ("array reward", r"step\(\) returns a reward of shape \(3,\); allowed: one number"),
        ("old step", r"step\(\) returns 4 values; allowed: 5"),
        ("old reset", r"reset\(\) must return \(observation, info\)"),
        ("raises", r"raises KeyError: 'pods'"),
        ("reset raises", r"raises RuntimeError: no database$"),
    ],
)
def test_a_broken_promise_is_named(faulty, fault, message):
    with pytest.raises(InputError, match=f"^env FaultyForTests-v0: {message}"):
        check_environment(faulty, {"fault": fault})


def test_an_environment_that_hangs_is_given_up_and_named(faulty):
    with pytest.raises(InputError, match=r"^env FaultyForTests-v0: hangs: 20 steps take more than 0\.2 s"):
        check_environment(faulty, {"fault": "hang"}, time_limit_seconds=0.2)
