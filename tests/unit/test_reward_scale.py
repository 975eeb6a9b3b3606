"""Large rewards are divided by one number that only rises; small ones are learnt as they are."""

from __future__ import annotations

import numpy as np
import torch

from scalepilot.learn.reward_scale import RewardScale
from scalepilot.learn.rllib.learner import LARGEST_REWARD, REWARDS_CLIPPED, clipped_rewards
from scalepilot.learn.rllib.transitions import NStepBuilder
from scalepilot.simulate.env_notes import EnvNotes, Outside, SeenRange


def test_rewards_up_to_a_hundred_are_learnt_as_they_are():
    scale = RewardScale()
    assert [scale.update(10, 10 * size**2) for size in (0.0, 1.0, 100.0)] == [1.0, 1.0, 1.0]


def test_larger_ones_are_divided_by_a_power_of_two_that_only_rises():
    scale = RewardScale()
    assert scale.update(10, 10 * 1e6**2) == 2.0**20
    assert scale.update(1000, 0.0) == 2.0**20
    restored = RewardScale()
    restored.set_state(scale.get_state())
    assert restored.scale == 2.0**20
    assert RewardScale(fixed=1.0).update(10, 1e15) == 1.0
    earlier = RewardScale()
    earlier.stay()
    assert earlier.update(10, 1e15) == 1.0, "what was learnt without a scale goes on without one"


def test_what_is_cut_is_counted_among_valid_steps_only():
    reward, valid = torch.tensor([[1.0, -7.0], [300.0, 2.0]]), torch.tensor([[True, True], [False, True]])
    cut, said = clipped_rewards(reward, valid, 5.0)
    assert cut.tolist() == [[1.0, -5.0], [5.0, 2.0]]
    assert said[REWARDS_CLIPPED] == 1 / 3
    assert said[LARGEST_REWARD] == 7.0
    assert clipped_rewards(reward, valid, float("inf")) == (reward, {})
    assert NStepBuilder(1, 0.9, None, torch.device("cpu")).reward_clip == float("inf")


def test_a_range_names_share_and_most_extreme_value_of_each_field():
    import gymnasium as gym

    seen = SeenRange(gym.spaces.Box(np.array([0.0, -1.0], np.float32), np.array([1.0, 1.0], np.float32)))
    seen.add(np.array([[[0.5, 0.0], [2.0, -1.5]], [[1.0, 1.0], [0.0, -4.0]]], np.float32))
    notes = seen.take().named(["load", "change"])
    assert notes.steps == 4
    assert notes.outside == {"load": Outside(1, 0.0, 2.0, 0.0, 1.0), "change": Outside(2, -4.0, 1.0, -1.0, 1.0)}
    assert [entry.most for entry in notes.outside.values()] == [2.0, -4.0]
    assert EnvNotes.from_mapping(notes.to_mapping()) == notes
    assert EnvNotes.from_mapping({"outside": 3}) == EnvNotes()
    twice = notes + notes
    assert (twice.steps, twice.outside["change"].count) == (8, 4)
