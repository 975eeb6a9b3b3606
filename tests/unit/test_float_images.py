"""Images of floats are images: scaled by their bounds, exported, and decided on as trained."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from scalepilot.learn.encoder import ScoresNetwork, Unchanged, make_encoder
from scalepilot.learn.export import exported_policy
from scalepilot.learn.task import network_inputs_of
from scalepilot.policy import PolicySpec, env_actions, env_fields
from scalepilot_envs.registration import find_env

SIDE = 40


class Picture(gym.Env):
    """Shows a picture of floats."""

    action_space = spaces.Discrete(2)

    def __init__(self, high=1.0):
        self.observation_space = spaces.Box(0, high, (SIDE, SIDE, 3), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((SIDE, SIDE, 3), np.float32), {}


@pytest.fixture
def described():
    gym.register("PictureForTests-v0", entry_point=Picture)
    yield find_env("PictureForTests-v0").describe
    del gym.registry["PictureForTests-v0"]


def encoder_of(description):
    torch.manual_seed(0)
    return make_encoder({**network_inputs_of(description), "cnn": "small", "hidden": (8,)})


def test_floats_and_bytes_of_the_same_picture_look_the_same(described):
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3))
    ones, bytes_as_floats = described(), described(high=255.0)
    with torch.no_grad():
        features = encoder_of(ones)(torch.from_numpy((pixels / 255).astype(np.float32)))
        torch.testing.assert_close(encoder_of(bytes_as_floats)(torch.from_numpy(pixels.astype(np.float32))), features)
    assert (ones.image.dtype, ones.image.shape, env_fields(ones)[0].scale) == ("float32", (SIDE, SIDE, 3), 1.0)
    assert env_fields(bytes_as_floats)[0].scale == pytest.approx(1 / 255)


def test_a_network_on_floats_is_stored_and_decides_as_trained(described):
    description = described()
    encoder = encoder_of(description)
    network = ScoresNetwork(encoder, Unchanged(), torch.nn.Linear(encoder.num_features, 2))
    spec = PolicySpec(
        name="picture",
        version="1",
        kind="network",
        env_id="PictureForTests-v0",
        env_params={},
        observation_fields=env_fields(description),
        actions=env_actions(description),
        decision_rule="argmax_p",
    )
    pictures = np.random.default_rng(1).random((8, SIDE, SIDE, 3), dtype=np.float32)
    policy = exported_policy(spec, network, pictures)
    with torch.no_grad():
        wanted = network(torch.from_numpy(pictures)).argmax(dim=1)
    assert policy.act(pictures)[0].action.tolist() == wanted.tolist()
