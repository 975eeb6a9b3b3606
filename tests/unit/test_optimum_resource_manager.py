"""Two optima of ResourceManager-v0: with the rates known, and with their law known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.simulate.optimum import resource_manager_causal_optimum, resource_manager_optimum

EPISODES, STEPS = 4000, 100


def rates_drawn(count, num_steps, seed=0):
    factors = np.random.default_rng(seed).uniform(0.8, 1.2, (num_steps, count))
    rates = [np.full(count, 100.0)]
    for factor in factors:
        rates.append(np.clip(rates[-1] * factor, 20.0, 300.0))
    return np.array(rates).T


def returns_of(rates, decide):
    """The environment's rules once more, plainly: (n,) returns of `decide(rate, instances, t)`."""
    instances, total = np.full(len(rates), 2), np.zeros(len(rates))
    for t in range(rates.shape[1] - 1):
        action = decide(rates[:, t], instances, t)
        instances = np.clip(instances + np.array([0, 1, -1])[action], 1, 5)
        cpu = rates[:, t] / instances
        memory = 0.8 * cpu
        good = (cpu >= 30) & (cpu <= 70) & (memory >= 30) & (memory <= 70)
        bad = (np.maximum(cpu, memory) > 90) | (np.minimum(cpu, memory) < 10)
        total += np.where(good, 10, np.where(bad, -5, 0)) - (action != 0)
    return total


def threshold(rate, instances, t):
    cpu = rate / instances
    return np.where(cpu > 70, 1, np.where(0.8 * cpu < 30, 2, 0))


@pytest.fixture(scope="module")
def rates():
    return rates_drawn(EPISODES, STEPS)


@pytest.fixture(scope="module")
def causal():
    return resource_manager_causal_optimum(STEPS)


def test_no_sequence_of_actions_returns_more_than_the_clairvoyant_optimum():
    rates = rates_drawn(20, 7, seed=1) * np.random.default_rng(1).uniform(0.3, 2.5, (20, 1))
    best, actions = resource_manager_optimum(rates)
    every = [returns_of(rates, lambda rate, n, t, a=a: np.full(20, a[t])) for a in itertools.product(range(3), repeat=7)]
    np.testing.assert_allclose(best, np.max(every, axis=0))
    np.testing.assert_allclose(returns_of(rates, lambda rate, n, t: actions[:, t]), best)


def test_the_specification_pays_the_planned_actions_what_was_promised(golden):
    factors = np.random.default_rng(2).uniform(0.8, 1.2, STEPS)
    service = golden("resource_manager").ResourceManager()
    service.reset()
    rates = [service.rate]
    for factor in factors:
        service.step(0, factor)
        rates.append(service.rate)
    best, actions = resource_manager_optimum(np.array([rates]))
    service.reset()
    assert sum(service.step(int(a), f)[1] for a, f in zip(actions[0], factors, strict=True)) == pytest.approx(best[0])


def test_playing_the_causal_optimum_returns_what_it_expects(rates, causal):
    played = returns_of(rates, lambda rate, n, t: causal.action(rate, n, STEPS - t))
    error = played.std() / np.sqrt(EPISODES)
    assert abs(played.mean() - causal.expected_return) < 4 * error
    assert error < 0.01 * causal.expected_return


def test_clairvoyance_is_worth_at_least_as_much_as_the_law_and_that_more_than_a_rule(rates, causal):
    clairvoyant, _ = resource_manager_optimum(rates)
    played = returns_of(rates, lambda rate, n, t: causal.action(rate, n, STEPS - t))
    ruled = returns_of(rates, threshold)
    idle = returns_of(rates, lambda rate, n, t: np.zeros(EPISODES, int))
    assert (clairvoyant >= played - 1e-9).all()
    assert (clairvoyant >= ruled - 1e-9).all()
    assert played.mean() > ruled.mean() > idle.mean()


def test_one_step_is_worth_what_its_reward_says():
    # 100 requests on 2 instances: CPU 50 %, memory 40 %, both in 30 … 70 %.
    assert resource_manager_causal_optimum(1).expected_return == 10.0


def test_two_steps_are_worth_the_share_of_good_rates():
    # After 100 the rate is uniform in 80 … 120: always good on 2 instances.
    assert resource_manager_causal_optimum(2).expected_return == pytest.approx(20.0, abs=1e-9)
    # After 150 it is uniform in 120 … 180: at 3 instances (112.5 … 210) always good, at 2 (75 … 140) good for a third of the
    # rates, for the rest one instance more costs 1.
    two_ahead = resource_manager_causal_optimum(2).continuation[1]
    at_150 = int((150 - 20) / 0.125)
    assert two_ahead[2, at_150] == pytest.approx(10.0, abs=1e-9)
    assert two_ahead[1, at_150] == pytest.approx(10.0 - 2 / 3, abs=1e-2)


def test_the_causal_optimum_refuses_what_it_did_not_plan(causal):
    with pytest.raises(InputError, match="steps_left: 101 is not allowed; allowed: 1 to 100"):
        causal.action(np.array([100.0]), np.array([2]), 101)
    with pytest.raises(InputError, match=r"instances: .* allowed: 1 to 5"):
        causal.action(np.array([100.0]), np.array([6]), 1)
    with pytest.raises(InputError, match="num_steps: 0"):
        resource_manager_causal_optimum(0)
    with pytest.raises(InputError, match=r"rates: shape \(5,\)"):
        resource_manager_optimum(np.ones(5))
