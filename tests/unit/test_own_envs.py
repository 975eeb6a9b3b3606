"""Environments of a user's own are found through SCALEPILOT_ENV_MODULES."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scalepilot_envs.registration import MODULES_VARIABLE, find_env

MODULE = """
import gymnasium as gym, numpy as np
class Coin(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
gym.register("{env_id}", entry_point=Coin)
"""


def test_a_module_named_in_the_variable_brings_its_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "coin_module.py").write_text(MODULE.format(env_id="OwnCoin-v0"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ValueError, match="'OwnCoin-v0' is not allowed"):
        find_env("OwnCoin-v0")
    monkeypatch.setenv(MODULES_VARIABLE, "coin_module")
    assert len(find_env("OwnCoin-v0").describe().fields) == 2


def test_a_module_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(MODULES_VARIABLE, "no_such_module_here")
    with pytest.raises(ValueError, match="SCALEPILOT_ENV_MODULES: 'no_such_module_here' cannot be imported"):
        find_env("CartPole-v1")
    assert find_env("GridWorld-v0"), "ours need no module"
