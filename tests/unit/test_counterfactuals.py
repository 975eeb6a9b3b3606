"""Every action tried in copies of the environments: what came of it, and what is learnt from it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from scalepilot.config import load_config
from scalepilot.errors import ConfigError
from scalepilot.learn.rllib.counterfactuals import advantages_of_all, try_every_action
from scalepilot.learn.rllib.loss import ALL_ADVANTAGES, COUNTS, LOG_PROBABILITY, tried_loss
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot_envs.autoscale.env import AutoscaleBatch
from scalepilot_envs.batch_env import BatchEnv, BatchStep

GAMMA, NUM_ENVS, NUM_ACTIONS = 0.9, 4, 8


class Sum(BatchEnv):
    """Adds up actions, which are the reward; terminates at a sum of 3 or more, is cut after 4 steps."""

    single_observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    single_action_space = gym.spaces.Discrete(3)

    def __init__(self, total: Any, steps: Any) -> None:
        self.total, self.steps = np.asarray(total, dtype=float), np.asarray(steps)
        self.num_envs = len(self.total)

    def seed_streams(self, seeds: Any) -> None: ...

    def reset_batch(self, mask: Any = None, options: Any = None) -> Any:
        raise AssertionError("never reset")

    def step_batch(self, actions: Any) -> BatchStep:
        self.total, self.steps = self.total + actions, self.steps + 1
        terminated = self.total >= 3
        observation = self.total[:, None].astype(np.float32)
        return BatchStep(observation, np.asarray(actions, dtype=float), terminated, ~terminated & (self.steps >= 4))

    def fork(self, of: Any) -> Sum:
        return Sum(self.total[of], self.steps[of])


def test_copies_are_left_at_the_end_of_their_episode_or_after_their_steps():
    batch = Sum([0, 2, 0], [0, 0, 3])
    tried = try_every_action(batch, 3, lambda observation, h: np.ones(9, np.int64), num_steps=3, gamma=GAMMA)
    # From 0: the action, then 1 and 1, ended early where the sum has reached 3.
    assert tried.reward[0] == pytest.approx([0.9 + 0.81, 1 + 0.9 + 0.81, 2 + 0.9])
    assert tried.discount[0] == pytest.approx([0.9**3, 0, 0])
    assert tried.last_observation[0, :, 0].tolist() == [2, 3, 3]
    # From 2: 1 and 2 end it at once. With one step to go: cut, and bootstrapped from where it stands.
    assert tried.reward[1] == pytest.approx([0.9, 1, 2])
    assert tried.reward[2] == pytest.approx([0, 1, 2])
    assert tried.discount[2] == pytest.approx([0.9] * 3)
    assert tried.last_observation[2, :, 0].tolist() == [0, 1, 2]
    assert batch.total.tolist() == [0, 2, 0]


def test_rewards_of_copies_are_clipped_like_all_others():
    tried = try_every_action(Sum([0], [0]), 3, lambda observation, h: np.ones(3, np.int64), num_steps=1, gamma=1, reward_clip=1)
    assert tried.reward.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("num_steps", [1, 6])
def test_the_action_taken_brings_in_a_copy_what_it_brought(num_steps: int):
    batch = AutoscaleBatch(NUM_ENVS, episode_steps=40, randomisation={"capacity_scale": (0.5, 1.5), "stuck_share": (0.1, 0.3)})
    batch.seed_streams(range(NUM_ENVS))
    batch.reset_batch()
    actions = np.random.default_rng(0).integers(0, NUM_ACTIONS, (20, NUM_ENVS))
    for action in actions[:10]:
        batch.step_batch(action)
    tried = try_every_action(
        batch, NUM_ACTIONS, lambda _, h: np.repeat(actions[10 + h], NUM_ACTIONS), num_steps=num_steps, gamma=GAMMA
    )
    real = [batch.step_batch(action) for action in actions[10 : 10 + num_steps]]
    taken = np.arange(NUM_ENVS), actions[10]
    expected = sum(GAMMA**h * step.reward for h, step in enumerate(real))
    assert np.array_equal(tried.reward[taken], expected.astype(np.float32))
    assert np.array_equal(tried.last_observation[taken], real[-1].observation)
    assert (np.ptp(tried.reward, axis=1) > 0).all(), "other actions bring something else"


def test_advantages_are_over_the_policys_own_mean():
    log_probability = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    advantage = advantages_of_all(log_probability, torch.tensor([[1.0, 2.0, 4.0], [7.0, 7.0, 7.0]]))
    assert advantage[0].tolist() == pytest.approx([-0.9, 0.1, 2.1], abs=1e-5)
    assert advantage[1].tolist() == pytest.approx([0, 0, 0], abs=1e-6)


BEFORE = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))


def loss_of(logits: torch.Tensor, advantages: torch.Tensor, counts: list[bool], temperature: float = 0.5) -> Any:
    tried = {ALL_ADVANTAGES: advantages, LOG_PROBABILITY: BEFORE, COUNTS: torch.tensor(counts)}
    batch = {Postprocessing.VALUE_TARGETS: torch.zeros(3), Columns.LOSS_MASK: torch.tensor([True, True, False])}
    value = torch.tensor([1.0, 3.0, 100.0])
    weights = {"value_clip": 4.0, "value_coefficient": 0.5, "entropy_coefficient": 0.0}
    return tried_loss(logits, value, batch, tried, temperature=temperature, **weights)


def test_the_loss_is_least_where_advantage_and_divergence_balance():
    advantages = torch.tensor([[1.0, -1.0], [-2.0, 3.0]])
    best = (BEFORE + advantages / 0.5).requires_grad_()
    loss = loss_of(best, advantages, [True, True])
    (gradient,) = torch.autograd.grad(loss.total, best)
    assert gradient.abs().max() < 1e-6
    assert float(loss.kl()) > 0


def test_the_luck_of_single_futures_cancels():
    # One state twice, with a rare disaster and without: the action that saves a little otherwise is not worth it.
    one = torch.zeros(2, requires_grad=True)
    logits = one.expand(2, 2)
    tried = torch.tensor([[0.0, 0.5], [0.0, -3.0]])
    loss = tried_loss(
        logits,
        torch.zeros(1),
        {Postprocessing.VALUE_TARGETS: torch.zeros(1)},
        {ALL_ADVANTAGES: tried, LOG_PROBABILITY: torch.log(torch.full((2, 2), 0.5)), COUNTS: torch.ones(2, dtype=torch.bool)},
        temperature=0.3, value_clip=1.0, value_coefficient=0.5, entropy_coefficient=0.0,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss.total, one)
    mean = tried.mean(dim=0)
    assert gradient.tolist() == pytest.approx((-0.5 * (mean - 0.5 * mean.sum())).tolist())


def test_what_does_not_count_is_left_out():
    loss = loss_of(torch.tensor([[5.0, 1.0], [0.9, 0.1]]).log(), torch.tensor([[9.0, 9.0], [0.0, 0.0]]), [False, True])
    # (1² + min(3², 4)) / 2 × 0.5: the third value is masked, and nothing is gained in the second state.
    assert float(loss.total) == pytest.approx(0.5 * 2.5, abs=1e-6)
    assert float(loss.kl()) == pytest.approx(0, abs=1e-6)
    assert set(loss.metrics()) == {"total_loss", "policy_loss", "vf_loss", "vf_explained_var", "entropy", "mean_kl_loss"}


def rollout_with_tried(first: int) -> Rollout:
    space = gym.spaces.Discrete(3)
    rollout = Rollout.empty(4, np.zeros((2, 5), np.float32), space, 3)
    batch = Sum([first, first + 1], [0, 0])
    follow = lambda observation, h: np.zeros(6, np.int64)  # noqa: E731
    rollout.add_tried({t: try_every_action(batch, 3, follow, num_steps=1, gamma=1) for t in (0, 2)})
    return rollout


def test_rollouts_are_joined_and_shared_with_what_was_tried():
    one, other = rollout_with_tried(0), rollout_with_tried(10)
    joined = Rollout.concatenate([one, other])
    assert joined.tried_at is not None
    assert joined.tried_at.tolist() == [0, 2]
    assert joined.tried_observation[:, :, 0, 0].tolist() == [[0, 1, 10, 11]] * 2
    for piece, whole in zip(joined.split(2), (one, other), strict=True):
        restored = copy.deepcopy(piece.copy())
        for name in ("tried_at", "tried_reward", "tried_discount", "tried_observation"):
            assert np.array_equal(getattr(restored, name), getattr(whole, name))
    assert Rollout.empty(4, np.zeros((2, 5), np.float32), gym.spaces.Discrete(3), 3).tried_at is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "env: {id: QueueScaling-v0}\nppo: {counterfactual_every: 4}",
            "ppo.counterfactual_every: QueueScaling-v0 cannot be copied in the middle of an episode; allowed: null, or Autoscale",
        ),
        ("engine: rllib-stock\nppo: {counterfactual_every: 4}", "ppo.counterfactual_every: is not used by engine rllib-stock"),
        ("algorithm: sb3_ppo\nppo: {counterfactual_every: 4}", "ppo.counterfactual_every: is not used by algorithm sb3_ppo"),
        ("ppo: {counterfactual_every: 0}", "ppo.counterfactual_every: 0 is not allowed; allowed: from 1"),
        ("ppo: {counterfactual_steps: 4}", "ppo.counterfactual_steps: is not used with counterfactual_every: null"),
        ("ppo: {counterfactual_every: 4, clip: 0.3}", "ppo.clip: is not used with counterfactual_every"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_a_line(text: str, message: str, tmp_path: Path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "x.yaml")
    assert message in str(raised.value)
