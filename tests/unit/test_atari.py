"""One Atari game observes what ale_py's native batch observes."""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
import pytest

from scalepilot.config import config_from_mapping
from scalepilot.errors import ConfigError
from scalepilot_envs.registration import find_env

PONG = "ALE/Pong-v5"
CALM = {"repeat_action_probability": 0.0, "noop_max": 0}


@pytest.fixture(autouse=True)
def _atari() -> None:
    pytest.importorskip("ale_py", reason="Atari games need ale_py: pip install 'scalepilot[atari]'")


@pytest.mark.parametrize("options", [{}, {"frameskip": 3, "stack_num": 2, "img_height": 40, "img_width": 60, "maxpool": False}])
def test_one_game_observes_what_the_batch_observes(options: dict[str, int]):
    entry = find_env(PONG)
    batch = entry.vector_maker()(num_envs=1, num_threads=1, **CALM, **options)
    game = entry.maker()(render_mode="rgb_array", **CALM, **options)
    assert game.observation_space == batch.single_observation_space
    assert game.action_space == batch.single_action_space
    rng = np.random.default_rng(0)
    together, alone = batch.reset(seed=0)[0][0], game.reset(seed=0)[0]
    collected = 0.0
    for _ in range(800 // options.get("frameskip", 4)):
        # Both round areas to whole greys, in their own order.
        assert alone.dtype == together.dtype
        assert int(np.abs(alone.astype(int) - together).max()) <= 1
        action = rng.integers(6)
        observation, reward, terminated, _, _ = batch.step(np.array([action]))
        together = observation[0]
        alone, our_reward, our_terminated, _, _ = game.step(action)
        assert (our_reward, our_terminated) == (reward[0], terminated[0])
        collected += our_reward
    assert collected < 0, "nothing was compared if nothing happened"
    picture = game.render()
    assert picture.shape == (210, 160, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) >= 4
    game.close()
    batch.close()


def test_a_game_of_its_own_begins_after_some_screens_and_repeats_itself_with_its_seed():
    game = find_env(PONG).maker()(repeat_action_probability=0.25)
    games = []
    for seed in (0, 0, 1):
        frames = [game.reset(seed=seed)[0], *(game.step(2)[0] for _ in range(40))]
        games.append(np.stack(frames))
    assert np.array_equal(games[0], games[1])
    assert not np.array_equal(games[0], games[2])
    game.close()


def test_the_description_is_one_image_and_its_meaning():
    (field,) = find_env(PONG).describe().fields
    assert (field.dtype, field.shape, field.axes) == ("uint8", (4, 84, 84), ("frame_stack", "height", "width"))


def test_an_unknown_game_or_option_is_one_line():
    with pytest.raises(ConfigError, match=r"env\.id: 'ALE/Pang-v5' is not allowed.*did you mean ALE/Pong-v5"):
        config_from_mapping({"env": {"id": "ALE/Pang-v5"}})
    with pytest.raises(ConfigError, match=r"env.*unexpected keyword argument 'frameskips'"):
        config_from_mapping({"env": {"id": PONG, "options": {"frameskips": 4}}})


def test_without_ale_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setattr(gym.envs.registration, "registry", {})
    with pytest.raises(ValueError, match=r"id: Atari games need ale_py: pip install 'scalepilot\[atari\]'"):
        find_env(PONG)


def test_actions_have_their_words():
    labels = [action.label for action in find_env("ALE/Pong-v5").describe().actions]
    assert labels == ["noop", "fire", "right", "left", "rightfire", "leftfire"]
