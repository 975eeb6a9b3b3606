"""`env show` for environments that are registered with gymnasium alone."""

from __future__ import annotations

import json

import gymnasium as gym
import pytest

from scalepilot.cli import main


def shown(capsys, env_id):
    assert main(["env", "show", env_id, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_any_gymnasium_id_is_shown_with_its_fields_actions_and_length(capsys):
    found = shown(capsys, "CartPole-v1")
    assert (found["episode_steps"], len(found["fields"]), len(found["actions"])) == (500, 4, 2)
    found = shown(capsys, "Pendulum-v1")
    assert found["actions"] == []
    assert [(c["low"], c["high"]) for c in found["components"]] == [(-2.0, 2.0)]
    assert shown(capsys, "Blackjack-v1")["episode_steps"] is None
    for text in ("FrozenLake-v1", "Taxi-v3", "MountainCarContinuous-v0"):
        assert main(["env", "show", text]) == 0
        out = capsys.readouterr().out
        assert out.startswith(text)
        assert "steps an episode" in out
    assert main(["env", "show", "CartPole-v1", "--markdown"]) == 0
    assert "CartPole-v1" in capsys.readouterr().out


class Unmade(gym.Env):
    """Needs what is not installed."""

    def __init__(self, **_):
        raise gym.error.DependencyNotInstalled("Box2D is not installed,\nrun pip install box2d")


@pytest.fixture
def unmade():
    gym.register("Unmade-v0", entry_point=Unmade)
    yield
    del gym.registry["Unmade-v0"]


@pytest.mark.usefixtures("unmade")
def test_an_environment_that_cannot_be_made_says_why_in_one_line(capsys):
    assert main(["env", "show", "Unmade-v0"]) == 2
    told = capsys.readouterr().err.strip()
    assert told.count("\n") == 0
    assert "Unmade-v0" in told
    assert "Box2D is not installed, run pip install box2d" in told
