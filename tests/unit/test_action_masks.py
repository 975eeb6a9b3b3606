"""A valid action is all that learners explore, value, and take for possible."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from scalepilot.config import DQNConfig
from scalepilot.learn import export
from scalepilot.learn.encoder import INVALID_SCORE, masked
from scalepilot.learn.rllib.distributions import Categorical
from scalepilot.learn.rllib.module import FEATURES, VALID_ACTIONS, ActorCriticModule
from scalepilot.learn.rllib.q_learning import QLearner, _Minibatches
from scalepilot.learn.rllib.q_module import QModule
from scalepilot.policy import ActionEntry, FieldEntry, PolicySpec
from scalepilot.policy.masks import valid_actions
from scalepilot.policy.onnx_metadata import model_metadata
from scalepilot_envs.description import valid_at

NUM_ACTIONS = 4
INPUTS = {
    "field_names": ["a", "b"],
    "num_states": None,
    "num_masked": NUM_ACTIONS,
    "interval_seconds": 1.0,
    "max_replicas": 1,
    "image": None,
    "hidden": (8,),
    "cnn": "nature",
    "dueling": True,
}
SPACES = {
    "observation_space": gym.spaces.Box(-1.0, 1.0, (2 + NUM_ACTIONS,), np.float32),
    "action_space": gym.spaces.Discrete(NUM_ACTIONS),
    "model_config": INPUTS,
}
VALID = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)


@pytest.fixture
def observation():
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.rand((3, 2), generator=generator), VALID.float()], dim=1)


def test_the_policy_gives_invalid_actions_no_probability_and_no_entropy(observation):
    module = ActorCriticModule(**SPACES)
    logits = module._forward({Columns.OBS: observation})[Columns.ACTION_DIST_INPUTS]
    probability = torch.softmax(logits, dim=-1)
    assert (probability[~VALID] == 0).all()
    logp, entropy = Categorical(gym.spaces.Discrete(NUM_ACTIONS)).judge(logits, torch.tensor([0, 3, 1]))
    # One valid action is certain, two leave at most log 2 of doubt.
    assert logp[1] == 0
    assert entropy[1] == 0
    assert 0 < entropy[0] <= np.log(2) + 1e-6
    entropy.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.policy_head.parameters())


def test_the_learner_sees_the_same_logits_in_its_own_columns(observation):
    module = ActorCriticModule(**SPACES)
    wanted = module._forward({Columns.OBS: observation})[Columns.ACTION_DIST_INPUTS]
    features = module.features({Columns.OBS: observation})
    assert features.shape == (3, 2)
    columns = {FEATURES: features, VALID_ACTIONS: VALID}
    torch.testing.assert_close(module._forward_train(columns)[Columns.ACTION_DIST_INPUTS], wanted)
    torch.testing.assert_close(module.scores_network()(observation), wanted)


def test_draws_are_valid_however_little_the_network_likes_them(observation):
    logits = masked(torch.tensor([[0.0, 500.0, -500.0, 500.0]]).expand(3, -1), VALID)
    distribution = Categorical(gym.spaces.Discrete(NUM_ACTIONS))
    noise = distribution.noise(2000, 3, torch.Generator().manual_seed(0))
    for step in noise:
        assert VALID.gather(1, distribution.draw(logits, step)[:, None]).all()


@pytest.mark.parametrize("double", [True, False])
def test_the_target_is_the_best_valid_action_of_the_next_state(observation, double):
    torch.manual_seed(1)
    module = QModule(**SPACES)
    learner = QLearner(module, DQNConfig(double=double, gamma=0.5), torch.device("cpu"), 0)
    next_features = module.features(observation)
    minibatch = _Minibatches(
        next_features[None],
        next_features[None],
        torch.zeros((1, 3, 1), dtype=torch.int64),
        torch.ones((1, 3, 1)),
        torch.full((1, 3, 1), 0.5),
        None,
        torch.arange(3),
        VALID[None],
    )
    with torch.no_grad():
        values = module.target_head(next_features)
        target = learner.td_target(minibatch, 0, values).squeeze(1)
    best = torch.where(VALID, values, -torch.inf).amax(dim=1)
    torch.testing.assert_close(target, 1.0 + 0.5 * best)
    # The control: the best of all actions is another one somewhere.
    assert (values.amax(dim=1) != best).any()


def test_exploration_draws_valid_actions_alike():
    valid = np.array([[True, False, True, True]] * 3000)
    drawn = valid_at(np.random.default_rng(0).random(3000), valid)
    assert set(drawn.tolist()) == {0, 2, 3}
    assert np.bincount(drawn, minlength=4)[[0, 2, 3]] == pytest.approx(1000, abs=120)
    assert valid_at(np.array([0.999999, 0.0]), np.array([[False, True, False, False]] * 2)).tolist() == [1, 1]


def spec_of(*names):
    fields = tuple(FieldEntry(name, "1", 0.0, 1.0) for name in names)
    rule = {"name": "random", "parameters": {}}
    return PolicySpec("p", "1", "rule", "X-v0", {}, fields, rule=rule)


def test_a_mask_must_stand_behind_the_other_fields_once_an_action():
    with pytest.raises(ValueError, match="are not the last"):
        spec_of("action_mask_0", "a")
    fields = tuple(FieldEntry(name, "1", 0.0, 1.0) for name in ("a", "action_mask_0"))
    with pytest.raises(ValueError, match="1 of an action mask; allowed: none, or 0"):
        PolicySpec("p", "1", "network", "X-v0", {}, fields, decision_rule="argmax_q")


def test_a_policy_of_before_masks_heeds_those_that_an_environment_shows(tiny_network):
    policy = tiny_network(env_id="X-v0", env_params={})
    fields, actions = len(policy.spec.observation_fields), len(policy.spec.actions)
    shown = np.ones((5, fields), np.float32)
    mask = np.eye(actions, dtype=np.float32)[[3, 1, 0, 2, 4]]
    assert valid_actions(policy.spec, shown)[1] is None
    decision, _ = policy.act(np.concatenate([shown, mask], axis=1))
    assert decision.action.tolist() == [3, 1, 0, 2, 4]
    assert (decision.scores[mask == 0] == INVALID_SCORE).all()


def test_an_export_is_held_to_its_network_by_the_scores_of_valid_actions(observation):
    # The size that stands for invalid ones must not decide how much the others may differ.
    network = ActorCriticModule(**SPACES).scores_network()
    fields = (
        *(FieldEntry(name, "1", -1.0, 1.0) for name in "ab"),
        *(FieldEntry(f"action_mask_{i}", "1", 0.0, 1.0) for i in range(4)),
    )
    values = ([0, 0], [0, 1], [1, 0], [1, 1])
    actions = tuple(ActionEntry(i, "plain", 0.0, str(value), value) for i, value in enumerate(values))
    spec = PolicySpec("p", "1", "network", "X-v0", {}, fields, actions, "argmax_p")
    assert [entry["value"] for entry in json.loads(model_metadata(spec)["scalepilot.actions"])] == list(values)
    policy = export.exported_policy(spec, network, observation.numpy())
    decision, _ = policy.act(observation.numpy())
    assert VALID.numpy()[np.arange(3), decision.action].all()
    said = export._said(decision.scores)
    assert (said[~VALID.numpy()] == 0).all()
    assert np.abs(said).max() < 100
