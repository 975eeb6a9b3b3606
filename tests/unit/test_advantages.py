"""Generalised advantages: against a scalar loop, and truncation against its analytic value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scalepilot.learn.rllib.advantages import AdvantageScale, generalised_advantages, without_shared_luck


def scalar_reference(reward, value, terminated, truncated, valid, gamma, gae_lambda):
    """One environment, one step at a time, written from eq. 16 without arrays."""
    steps, advantage, last = len(reward), [0.0] * len(reward), 0.0
    for t in reversed(range(steps)):
        if not valid[t]:
            last = 0.0
            continue
        following = 0.0 if terminated[t] else value[t + 1]
        delta = reward[t] + gamma * following - value[t]
        last = delta if terminated[t] or truncated[t] else delta + gamma * gae_lambda * last
        advantage[t] = last
    return advantage


@pytest.mark.parametrize("seed", range(5))
def test_every_environment_agrees_with_a_scalar_loop(seed: int):
    rng = np.random.default_rng(seed)
    steps, envs = 40, 6
    reward, value = rng.normal(size=(steps, envs)), rng.normal(size=(steps + 1, envs))
    terminated = rng.random((steps, envs)) < 0.1
    truncated = (rng.random((steps, envs)) < 0.1) & ~terminated
    valid = np.ones((steps, envs), bool)
    # NEXT_STEP autoreset: the step after an end only resets.
    valid[1:] = ~(terminated | truncated)[:-1]
    terminated &= valid
    truncated &= valid
    valid[1:] = ~(terminated | truncated)[:-1]
    ours = generalised_advantages(
        torch.tensor(reward),
        torch.tensor(value[:-1]),
        torch.tensor(value[1:]),
        torch.tensor(terminated),
        torch.tensor(truncated),
        torch.tensor(valid),
        gamma=0.9,
        gae_lambda=0.8,
    )
    for i in range(envs):
        columns = (reward[:, i], value[:, i], terminated[:, i], truncated[:, i], valid[:, i])
        assert ours[:, i].numpy() == pytest.approx(scalar_reference(*columns, 0.9, 0.8), abs=1e-12)


def targets_of_constant_reward(*, as_termination: bool, same_step: bool = False, finals: bool = True) -> torch.Tensor:
    """Value targets of a service that pays 1 for ever, seen through episodes cut every 10 steps, values exact.

    With `same_step` the successor of a cut step begins the next episode, in a state worth nothing.
    """
    gamma, steps = 0.95, 33
    exact = 1 / (1 - gamma)
    ends = torch.zeros((steps, 1), dtype=torch.bool)
    ends[9::11] = True
    valid = torch.ones_like(ends)
    if not same_step:
        valid[10::11] = False
    nothing = torch.zeros_like(ends)
    value = torch.full((steps, 1), exact, dtype=torch.float64)
    next_value = value.clone()
    if same_step and not finals:
        next_value[ends] = 0.0
    advantage = generalised_advantages(
        torch.ones((steps, 1), dtype=torch.float64),
        value,
        next_value,
        ends if as_termination else nothing,
        nothing if as_termination else ends,
        valid,
        gamma=gamma,
        gae_lambda=0.95,
    )
    return (advantage + value)[valid]


@pytest.mark.parametrize("same_step", [False, True])
def test_a_truncated_service_keeps_its_infinite_horizon_value(same_step: bool):
    targets = targets_of_constant_reward(as_termination=False, same_step=same_step)
    assert torch.allclose(targets, torch.tensor(20.0, dtype=torch.float64))


def test_negative_control_a_reset_observation_in_place_of_the_last_one_does_not():
    targets = targets_of_constant_reward(as_termination=False, same_step=True, finals=False)
    assert float(targets.min()) == pytest.approx(1.0)


@pytest.mark.parametrize("same_step", [False, True])
def test_negative_control_a_terminated_service_does_not(same_step: bool):
    targets = targets_of_constant_reward(as_termination=True, same_step=same_step)
    assert not torch.allclose(targets, torch.tensor(20.0, dtype=torch.float64))
    assert float(targets.min()) == pytest.approx(1.0)


def test_luck_that_a_group_shares_cancels_and_what_differs_stays():
    luck = torch.tensor([[3.0, 3.0, 3.0, -7.0, -7.0, -7.0]])
    skill = torch.tensor([[1.0, 0.0, -1.0, 0.5, 0.5, -1.0]])
    everyone = torch.ones((1, 6), dtype=torch.bool)
    compared = without_shared_luck(luck + skill, everyone, 3)
    # Each minus the mean of the two others: 1.5 times the deviation from the group's mean.
    assert compared[0].tolist() == pytest.approx([1.5, 0.0, -1.5, 0.75, 0.75, -1.5])


def test_a_reset_step_is_no_baseline_for_others():
    advantage = torch.tensor([[2.0, 4.0, 100.0]])
    valid = torch.tensor([[True, True, False]])
    assert without_shared_luck(advantage, valid, 3)[0].tolist() == pytest.approx([-2.0, 2.0, 0.0])


def test_groups_of_one_are_plain_ppo():
    advantage = torch.tensor([[1.0, 2.0]])
    assert torch.equal(without_shared_luck(advantage, torch.ones_like(advantage, dtype=torch.bool), 1), advantage)


def test_the_baseline_of_others_leaves_the_policy_gradient_unbiased():
    """A two-armed bandit whose pay is luck + arm: the estimated gradient's mean is the analytic one."""
    rng = np.random.default_rng(0)
    probability, groups, size = 0.3, 200_000, 4
    arm = rng.random((groups, size)) < probability
    pay = rng.normal(0, 10, (groups, 1)) + arm
    advantage = torch.tensor(pay.reshape(1, -1))
    compared = without_shared_luck(advantage, torch.ones_like(advantage, dtype=torch.bool), size).numpy().reshape(groups, size)
    score = arm - probability
    analytic = probability * (1 - probability)
    assert (compared * score).mean() == pytest.approx(analytic, abs=0.003)
    assert (compared * score).var() < 0.1 * ((pay - pay.mean()) * score).var(), "and far less noisy"


def test_a_quiet_batch_stays_small_beside_a_crowd_that_came_before():
    scale, everywhere = AdvantageScale(), torch.ones((1, 4), dtype=torch.bool)
    crowd = torch.tensor([[-100.0, 100.0, -100.0, 100.0]])
    quiet = crowd / 100.0
    assert scale.normalise(crowd, everywhere).std(unbiased=False) == pytest.approx(1.0, rel=1e-5)
    after = scale.normalise(quiet, everywhere)
    # Two batches weigh alike (but for the decay of 0.99): the variance is the mean of 100² and 1².
    running = (0.99 * 100.0**2 + 1.0**2) / 1.99
    assert float(after.std(unbiased=False)) == pytest.approx(1 / running**0.5, rel=1e-3)


def test_the_first_batch_is_divided_by_its_own_deviation_and_masked_rows_stay_zero():
    advantage, valid = torch.tensor([[2.0, 4.0, 0.0]]), torch.tensor([[True, True, False]])
    assert AdvantageScale().normalise(advantage, valid)[0].tolist() == pytest.approx([-1.0, 1.0, 0.0])
