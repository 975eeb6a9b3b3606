"""Comparisons by return: several training seeds as one row, and intervals that stay within what an environment allows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scalepilot.evaluate import Comparison, Contender, Member, compare, read_evaluation, write_evaluation
from scalepilot.simulate import EpisodeResults, SeededEpisodes
from scalepilot_envs.registration import find_env

EPISODES = 20


def ran(mean: float, *, spread: float = 5.0, seed: int = 0, highest: float = math.inf, **info: np.ndarray) -> EpisodeResults:
    values = np.minimum(np.random.default_rng(seed).normal(mean, spread, EPISODES), highest)
    numbers = np.arange(EPISODES)
    return EpisodeResults(numbers, numbers, {"return": values, "length": np.rint(values), **info})


def of_seeds(name: str, *means: float, **options: float) -> Contender:
    members = [Member(f"{name}·{i}", i, ran(mean, seed=i, **options)) for i, mean in enumerate(means)]
    return Contender.of_members(name, "policy", "trained", members)


def compared(*rows: Contender, env_id: str = "CartPole-v1", **arguments: object) -> Comparison:
    return compare(env_id, SeededEpisodes(env_id, env_id, EPISODES, arguments, first_seed=0), rows, bootstrap_samples=500)


def test_policies_that_differ_in_their_seed_are_one_row_with_the_mean_of_all():
    comparison = compared(of_seeds("ppo", 100.0, 150.0, 200.0))
    row = comparison.contenders[0]
    means = [m.results["return"].mean() for m in row.members]
    assert comparison.figure("ppo").mean == pytest.approx(np.mean(means))
    np.testing.assert_allclose(row.results["return"], np.mean([m.results["return"] for m in row.members], axis=0))


def test_training_seeds_widen_the_interval_where_episodes_alone_would_not():
    apart, alike = (compared(of_seeds("ppo", *means)).figure("ppo") for means in ((100.0, 150.0, 200.0), (150.0,) * 3))
    assert apart.high - apart.low > 10 * (alike.high - alike.low)


def test_a_difference_to_a_rule_is_judged_over_training_seeds():
    rule = Contender("random", "baseline", "rule", ran(160.0, seed=9))
    apart = compared(of_seeds("ppo", 150.0, 180.0, 210.0), rule).versus["ppo"]["random"].difference
    alike = compared(of_seeds("ppo", 180.0, 180.0, 180.0), rule).versus["ppo"]["random"].difference
    assert alike.low > 0
    assert apart.low < 0 < apart.high


def test_what_was_written_is_read_with_its_members(tmp_path):
    comparison = compared(of_seeds("ppo", 100.0, 150.0), Contender("random", "baseline", "rule", ran(20.0)))
    write_evaluation(comparison, tmp_path)
    read = read_evaluation(tmp_path)
    assert [(m.name, m.training_seed) for m in read.contenders[0].members] == [("ppo·0", 0), ("ppo·1", 1)]
    assert read.contenders[1].members == ()
    np.testing.assert_array_equal(read.contenders[0].by_member("return"), comparison.contenders[0].by_member("return"))
    assert read.rows == comparison.rows


def test_no_interval_leaves_what_an_episode_can_return():
    within = compared(of_seeds("ppo", 499.0, 480.0, 350.0, highest=500.0)).rows["ppo"]
    beyond = compared(of_seeds("ppo", 499.0, 480.0, 350.0, highest=500.0), max_episode_steps=900).rows["ppo"]
    assert within["return"].high == within["length"].high == 500.0
    assert 500.0 < beyond["return"].high <= 900.0
    assert within["return"].low == beyond["return"].low > 1.0


def test_no_interval_of_a_share_leaves_zero_to_one():
    shares = np.repeat([0.0, 1.0], [2, EPISODES - 2])
    rows = [Contender(name, "policy", "", ran(10.0, in_band=shares, instances=1.2 * shares)) for name in ("a", "b")]
    figures = compared(*rows, env_id="ResourceManager-v0").rows["a"]
    assert figures["in_band"].high == 1.0
    assert figures["instances"].high > 1.2


@pytest.mark.parametrize(
    ("env_id", "arguments", "bounds"),
    [
        ("CartPole-v1", {}, (1.0, 500.0)),
        ("CartPole-v1", {"sutton_barto_reward": True}, (-math.inf, math.inf)),
        ("MountainCar-v0", {}, (-200.0, -1.0)),
        ("Acrobot-v1", {"max_episode_steps": 50}, (-50.0, 0.0)),
        ("ResourceManager-v0", {}, (-600.0, 1000.0)),
        ("ResourceManager-v0", {"episode_steps": 10}, (-60.0, 100.0)),
        ("FunctionWorkflow-v0", {}, (-math.inf, math.inf)),
    ],
)
def test_the_bounds_of_a_return_follow_from_those_of_a_step(env_id, arguments, bounds):
    assert find_env(env_id).describe(None, **arguments).return_bounds(arguments) == bounds


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "MountainCar-v0", "Acrobot-v1", "Pendulum-v1", "ResourceManager-v0", "QueueScaling-v0"]
)
def test_rewards_stay_within_the_bounds_that_are_said(env_id):
    entry = find_env(env_id)
    low, high = entry.describe(None).reward_bounds
    envs = entry.vector_maker()(num_envs=4)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    ended = np.zeros(4, dtype=bool)
    for _ in range(300):
        _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        # The step after an end only resets.
        assert ((low <= reward) & (reward <= high))[~ended].all()
        ended = terminated | truncated
    envs.close()
