"""What is drawn from a network's outputs, and what of it reaches the environment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from scalepilot.learn.encoder import BoxOutput
from scalepilot.learn.rllib.distributions import Categorical, DiagonalGaussian, distribution_of

BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))


def test_numbered_actions_are_drawn_by_their_probabilities():
    distribution = Categorical(spaces.Discrete(3))
    probabilities = torch.tensor([0.2, 0.5, 0.3])
    noise = distribution.noise(1, 100_000, torch.Generator().manual_seed(0))[0]
    drawn = distribution.draw(probabilities.log().expand(100_000, 3), noise)
    assert torch.bincount(drawn).div(100_000).tolist() == pytest.approx(probabilities.tolist(), abs=0.01)
    log_probability, entropy = distribution.judge(probabilities.log()[None], torch.tensor([1]))
    assert float(log_probability) == pytest.approx(np.log(0.5))
    assert float(entropy) == pytest.approx(-sum(p * np.log(p) for p in (0.2, 0.5, 0.3)))


def test_continuous_actions_are_drawn_around_their_mean():
    distribution = distribution_of(BOX)
    assert isinstance(distribution, DiagonalGaussian)
    inputs = torch.tensor([0.5, -1.0, np.log(0.1), np.log(2.0)], dtype=torch.float32).expand(100_000, 4)
    drawn = distribution.draw(inputs, distribution.noise(1, 100_000, torch.Generator().manual_seed(0))[0])
    assert drawn.mean(dim=0).tolist() == pytest.approx([0.5, -1.0], abs=0.02)
    assert drawn.std(dim=0).tolist() == pytest.approx([0.1, 2.0], rel=0.02)


def test_one_is_the_upper_bound_zero_the_middle_and_what_lies_beyond_is_cut():
    drawn = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [-7.0, 9.0], [0.5, -0.5]], np.float32)
    expected = [[-2, 0], [0, 5], [2, 10], [-2, 10], [1, 2.5]]
    in_environment = DiagonalGaussian(BOX).to_env(drawn)
    assert in_environment.tolist() == expected
    assert in_environment.dtype == np.float32
    assert BoxOutput(BOX.low, BOX.high)(torch.from_numpy(drawn)).tolist() == expected, "as the exported network does it"
