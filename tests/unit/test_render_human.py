"""`render_mode="human"`: every reset and step is drawn on standard output, as gymnasium asks."""

from __future__ import annotations

import warnings

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from scalepilot_envs.registration import ENVS
from scalepilot_envs.terminal_frame import TerminalFrame


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_shows_itself_to_a_person_and_decides_nothing_by_it(env_id, capsys):
    shown, quiet = gym.make(env_id, render_mode="human"), gym.make(env_id)
    assert "human" in shown.unwrapped.metadata["render_modes"]
    before = shown.reset(seed=3)[0]
    assert (before == quiet.reset(seed=3)[0]).all()
    first = capsys.readouterr().out
    assert first.strip()
    for env in (shown, quiet):
        env.action_space.seed(0)
    for _ in range(3):
        action = quiet.action_space.sample()
        ours, theirs = shown.step(action), quiet.step(action)
        assert (ours[0] == theirs[0]).all()
        assert ours[1:4] == theirs[1:4]
        assert capsys.readouterr().out.strip()
    assert shown.render() is None
    shown.close()


def test_gymnasiums_checker_passes_with_the_mode(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("scalepilot/GridWorld-v0").unwrapped)
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"allowed:.*human"):
        gym.make("scalepilot/GridWorld-v0", render_mode="huuman")


def test_a_terminal_is_drawn_over_and_a_file_is_not(monkeypatch, capsys):
    frame = TerminalFrame(None)
    frame.show("a\nb\n")
    frame.show("c")
    assert capsys.readouterr().out == "a\nb\nc\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    frame = TerminalFrame(1000)
    frame.show("a\nb\n")
    frame.show("c")
    assert capsys.readouterr().out == "a\nb\n\x1b[2F\x1b[Jc\n"
