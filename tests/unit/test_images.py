"""Images from the environment's bytes to an exported policy."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tests.image_env import SHAPE, Blob

from scalepilot.config import CNNS, config_from_mapping
from scalepilot.config.trainable import smallest_side
from scalepilot.errors import ArtifactError, ConfigError
from scalepilot.learn.encoder import ScoresNetwork, Unchanged, make_encoder, mlp
from scalepilot.learn.export import TorchPolicy, exported_policy
from scalepilot.learn.images import ImageEncoder
from scalepilot.learn.rllib.module import ActorCriticModule
from scalepilot.learn.rllib.q_module import QModule
from scalepilot.policy import PolicySpec, env_actions, env_fields, load_policy, save_policy
from scalepilot.policy.spec import FieldEntry
from scalepilot_envs.registration import find_env

MODEL = {"field_names": ["image"], "num_states": None, "cnn": "small", "hidden": [8], "dueling": False}
IMAGE = {"shape": list(SHAPE), "axes": ["height", "width", "channels"]}


@pytest.fixture
def spec(blob: str) -> PolicySpec:
    env = find_env(blob).describe()
    return PolicySpec("blob", "1", "network", blob, {}, env_fields(env), env_actions(env), "argmax_p")


def images(count: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def network(seed: int = 0) -> ScoresNetwork:
    torch.manual_seed(seed)
    encoder = make_encoder({**MODEL, "image": IMAGE})
    return ScoresNetwork(encoder, Unchanged(), mlp(encoder.num_features, [], 2, 1.0))


@pytest.mark.parametrize("cnn", list(CNNS))
def test_bytes_are_scaled_to_one_and_channels_found_wherever_they_stand(cnn: str):
    encoders = []
    for shape, axes in (((64, 48, 2), ("height", "width", "channels")), ((2, 64, 48), ("frame_stack", "height", "width"))):
        torch.manual_seed(0)
        encoders.append(ImageEncoder(shape, axes, cnn, (8,)))
    last = torch.randint(0, 256, (5, 64, 48, 2), dtype=torch.uint8)
    features = encoders[0](last)
    torch.testing.assert_close(features, encoders[1](last.permute(0, 3, 1, 2)))
    torch.testing.assert_close(features, encoders[0].layers(last.permute(0, 3, 1, 2).float() / 255.0))
    torch.testing.assert_close(features, encoders[0](last.reshape(5, -1)), msg="flattened, as replay hands them out")
    assert features.shape == (5, encoders[0].num_features)


@pytest.mark.parametrize("cnn", list(CNNS))
def test_the_smallest_image_leaves_one_pixel_and_a_smaller_one_none(cnn: str):
    side = smallest_side(cnn)
    axes = ("height", "width", "channels")
    filters = CNNS[cnn][-1][0]
    assert ImageEncoder((side, side, 1), axes, cnn, ()).num_features == filters
    assert ImageEncoder((side - 1, side, 1), axes, cnn, ()).num_features == 0


def test_policy_and_value_share_the_encoder_and_both_train_it():
    module = ActorCriticModule(
        observation_space=Blob.observation_space,
        action_space=Blob.action_space,
        inference_only=False,
        model_config={**MODEL, "image": IMAGE},
    )
    batch = {"obs": torch.from_numpy(images(4))}
    for output in ("policy", "value"):
        module.zero_grad()
        outputs = module._forward_train(batch)
        loss = outputs["action_dist_inputs"] if output == "policy" else module.compute_values({}, outputs["embeddings"])
        loss.sum().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in module.encoder.parameters() if p.ndim > 1), output
    (together,) = module.gradient_groups()
    assert len(together) == len(list(module.parameters()))


def test_the_target_of_a_q_network_on_images_has_convolutions_of_its_own():
    module = QModule(
        observation_space=Blob.observation_space,
        action_space=Blob.action_space,
        inference_only=False,
        model_config={**MODEL, "image": IMAGE},
    )
    flat = torch.from_numpy(images(4)).reshape(4, -1)
    before = module.target_head(module.features(flat))
    torch.testing.assert_close(before, module.q_head(module.features(flat)))
    with torch.no_grad():
        for parameter in module.q_head.parameters():
            parameter += 0.1
    torch.testing.assert_close(module.target_head(module.features(flat)), before)


def test_the_artifact_names_shape_axes_bytes_and_scale_and_decides_as_the_network(spec: PolicySpec, tmp_path: Path):
    native = network()
    save_policy(exported_policy(spec, native, images(100)), tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    (field,) = loaded.spec.observation_fields
    assert (field.dtype, field.shape, field.axes, field.scale) == ("uint8", SHAPE, tuple(IMAGE["axes"]), 1 / 255)
    fresh = images(100, seed=1)
    expected, _ = TorchPolicy(spec, copy.deepcopy(native)).act(fresh)
    found, _ = loaded.act(fresh)
    assert np.array_equal(found.action, expected.action)
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)
    assert len(np.unique(found.action)) > 1, "a network that always says the same proves nothing"


def test_a_description_that_does_not_fit_the_model_is_refused(spec: PolicySpec):
    model = exported_policy(spec, network(), images(4)).model
    from scalepilot.policy import NetworkPolicy

    (field,) = spec.observation_fields
    turned = replace(field, shape=(36, 40, 3))
    with pytest.raises(ArtifactError, match=r"policy.json has images \(36, 40, 3\)"):
        NetworkPolicy(replace(spec, observation_fields=(turned,)), model)
    numbers = tuple(FieldEntry(f"x{i}", "1", 0.0, 1.0) for i in range(4))
    with pytest.raises(ArtifactError, match=r"policy\.json has 4 observation fields"):
        NetworkPolicy(replace(spec, observation_fields=numbers), model)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"shape": (), "axes": ()}, "allowed: a float32 number without either, or a uint8 or float32 image with three of each"),
        ({"axes": ("height", "width")}, "allowed: a float32 number without either"),
        ({"shape": (40, 36)}, "allowed: a float32 number without either"),
    ],
)
def test_an_image_field_that_does_not_make_sense_is_refused(spec: PolicySpec, changes: dict[str, Any], expected: str):
    with pytest.raises(ValueError, match=expected):
        replace(spec.observation_fields[0], **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"algorithm": "sb3_ppo"}, "algorithm: sb3_ppo is not allowed on test/Blob-v0, which shows images; allowed: ppo, dqn"),
        ({"algorithm": "q_learning"}, "algorithm: q_learning is not allowed"),
        ({"engine": "rllib-stock"}, "engine: rllib-stock is not allowed on test/Blob-v0, which shows images; allowed: rllib"),
        ({"ppo": {"cnn": "natur"}}, "ppo.cnn: 'natur' is not allowed; allowed: nature, small; did you mean nature"),
    ],
)
def test_what_cannot_train_on_images_is_one_line(blob: str, changes: dict[str, Any], expected: str):
    with pytest.raises(ConfigError, match=expected):
        config_from_mapping({"env": {"id": blob}, **changes})


def test_images_too_small_for_the_convolutions_are_one_line():
    env_id = "test/Tiny-v0"
    if env_id not in gym.registry:
        tiny = type("Tiny", (Blob,), {"observation_space": spaces.Box(0, 255, (24, 24, 3), np.uint8)})
        gym.register(env_id, tiny)
    with pytest.raises(ConfigError, match=r"ppo\.cnn: nature is not allowed .* images are 24 × 24; allowed: images from 36 × 36"):
        config_from_mapping({"env": {"id": env_id}})
    config_from_mapping({"env": {"id": env_id}, "ppo": {"cnn": "small"}})
