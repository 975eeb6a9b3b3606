"""ResourceManager-v0 against the executable specification, and what surrounds its transition."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from scalepilot_envs.resource_manager import (
    ResourceManagerBatch,
    ResourceManagerParams,
    describe,
    make_env,
    make_vector_env,
)
from scalepilot_envs.testing import check_scaling_env

DATA = Path(__file__).parents[1] / "data" / "golden_resource_manager.npz"
HOLD, ADD, REMOVE = 0, 1, 2


@pytest.fixture(scope="module")
def stored():
    with np.load(DATA, allow_pickle=False) as arrays:
        return dict(arrays)


def replay(batch, factors, actions):
    """(usage and rate, reward, instances, truncated), each (steps, num_envs), in float64; and the float32 observations."""
    seen = [batch.reset_batch(None, {"rate_factors": factors})]
    exact = [(*batch.usage(), batch.rate)]
    steps = []
    for action in actions.T:
        steps.append(batch.step_batch(action))
        seen.append(steps[-1].observation)
        exact.append((*batch.usage(), batch.rate))
    columns = [
        np.array(c) for c in ([s.reward for s in steps], [s.info["instances"] for s in steps], [s.truncated for s in steps])
    ]
    return np.array(exact), *columns, np.array(seen)


def test_every_stored_trajectory_of_the_specification_is_replayed_exactly(stored):
    batch = ResourceManagerBatch(20)
    exact, reward, instances, truncated, seen = replay(batch, stored["rate_factors"], stored["actions"])
    expected = stored["observation"].transpose(1, 2, 0)
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(seen.transpose(0, 2, 1), expected, rtol=1e-6)
    np.testing.assert_allclose(reward.T, stored["reward"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(instances.T, stored["instances"])
    np.testing.assert_array_equal(truncated.T, stored["ended"])


def test_the_stored_trajectories_touch_every_bound_and_every_reward(stored):
    rate, instances = stored["observation"][..., 2], stored["instances"]
    assert (rate.min(), rate.max()) == (20, 300)
    assert (instances.min(), instances.max()) == (1, 5)
    assert set(np.unique(stored["reward"])) == {10.0, 9.0, 0.0, -1.0, -5.0, -6.0}


def test_environments_of_one_batch_at_different_steps_replay_like_alone(stored):
    actions, factors = stored["actions"][:3], stored["rate_factors"][:3]
    batch = ResourceManagerBatch(3)
    batch.reset_batch(None, {"rate_factors": factors})
    for t in range(10):
        batch.step_batch(actions[:, t])
    late = np.array([False, True, False])
    batch.reset_batch(late, {"rate_factors": factors})
    for t in range(60):
        step = batch.step_batch(np.array([actions[0, t + 10], actions[1, t], actions[2, t + 10]]))
        at = np.array([t + 10, t, t + 10])
        np.testing.assert_allclose(step.reward, stored["reward"][np.arange(3), at], rtol=0, atol=1e-9)
        np.testing.assert_allclose(batch.rate, stored["observation"][np.arange(3), at + 1, 2], rtol=1e-9)


def test_the_reward_judges_the_old_rate_on_the_new_instances_and_the_observation_shows_the_new_rate():
    env = make_env()
    first, _ = env.reset(seed=0, options={"rate_factors": np.full(100, 1.2)})
    np.testing.assert_allclose(first, [50, 40, 100])
    seen, reward, _, _, info = env.step(ADD)
    assert info["cpu_percent"] == pytest.approx(100 / 3)
    assert info["memory_percent"] == pytest.approx(80 / 3)
    assert (reward, info["in_band"], info["instances"], info["change_instances"]) == (-1, False, 3, 1)
    np.testing.assert_allclose(seen, [40, 32, 120])
    assert env.step(HOLD)[1] == 10


def test_an_action_that_the_bound_swallows_still_costs_one():
    env = make_env(params={"max_instances": 2})
    env.reset(seed=0, options={"rate_factors": np.ones(100)})
    _, reward, _, _, info = env.step(ADD)
    assert (reward, info["change_instances"]) == (9, 0)


def test_drawn_factors_stay_within_the_change_and_differ_between_episodes_and_environments():
    envs = make_vector_env(4, episode_steps=30)
    rates = []
    observation, _ = envs.reset(seed=3)
    for _ in range(3 * 31 - 1):
        rates.append(observation[:, 2])
        observation, *_ = envs.step(np.zeros(4, dtype=np.int64))
    rates = np.array([*rates, observation[:, 2]]).reshape(3, 31, 4)
    factors = rates[:, 1:] / rates[:, :-1]
    assert factors.min() >= 0.8 - 1e-6
    assert factors.max() <= 1.2 + 1e-6
    assert 0.95 < factors.mean() < 1.05
    assert len({rates[e, :, i].tobytes() for e in range(3) for i in range(4)}) == 12


def test_seeding_again_forgets_what_was_drawn_before():
    envs = make_vector_env(2)
    envs.reset(seed=5)
    envs.reset()
    envs.reset(seed=5)
    again = [envs.step(np.zeros(2, dtype=np.int64))[0] for _ in range(5)]
    envs.reset(seed=5)
    np.testing.assert_array_equal(again, [envs.step(np.zeros(2, dtype=np.int64))[0] for _ in range(5)])


def test_targets_move_one_instance_towards_them():
    batch = ResourceManagerBatch(3)
    batch.seed_streams([0, 1, 2])
    batch.reset_batch()
    assert batch.step_targets(np.array([5, 2, 1])).info["instances"].tolist() == [3, 2, 1]


def test_results_of_a_step_are_not_changed_by_later_steps_and_resets():
    batch = ResourceManagerBatch(3)
    batch.seed_streams([0, 1, 2])
    batch.reset_batch()
    step = batch.step_batch(np.array([0, 1, 2]))
    arrays = [step.observation, step.reward, step.truncated, *step.info.values()]
    before = [a.copy() for a in arrays]
    batch.reset_batch(np.array([True, False, True]))
    batch.step_batch(np.array([1, 1, 1]))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_caller_does_to_the_results_leaves_the_environments_alone():
    batches = [ResourceManagerBatch(3), ResourceManagerBatch(3)]
    for batch in batches:
        batch.seed_streams([0, 1, 2])
        batch.reset_batch()
    for _ in range(3):
        steps = [batch.step_batch(np.array([0, 1, 2])) for batch in batches]
        np.testing.assert_array_equal(steps[0].observation, steps[1].observation)
        np.testing.assert_array_equal(steps[0].reward, steps[1].reward)
        for array in (steps[0].observation, steps[0].reward, steps[0].truncated, *steps[0].info.values()):
            array[:] = 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_factors": np.ones((2, 99))}, r"rate_factors: shape \(2, 99\) is not allowed; allowed: \(2, 100\)"),
        ({"rate_factors": np.ones(100)}, r"rate_factors: shape \(100,\) is not allowed"),
        ({"rate_factors": np.full((2, 100), np.nan)}, "rate_factors: holds negative or non-finite values"),
        ({"rate_factors": np.full((2, 100), -0.1)}, "rate_factors: holds negative or non-finite values"),
        ({"rate_factor": np.ones((2, 100))}, "options.rate_factor: unknown key; allowed: rate_factors"),
    ],
)
def test_unfit_injected_factors_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_vector_env(2).reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": {"cpu": 1}}, "params.cpu: unknown key; allowed: min_instances"),
        ({"params": {"max_instances": 0}}, "max_instances: 0 is not allowed; allowed: whole numbers from 1"),
        ({"params": {"start_instances": 9}}, "start_instances: 9 is not allowed; allowed: whole numbers from 1 to 5"),
        ({"params": {"min_rate": float("nan")}}, "min_rate: nan is not allowed"),
        ({"params": {"start_rate": 10.0}}, "start_rate: 10.0 is not allowed; allowed: finite numbers from 20 to 300"),
        ({"params": {"rate_change": 1.5}}, "rate_change: 1.5 is not allowed"),
        ({"params": {"overload_percent": 60.0}}, "overload_percent: 60.0 is not allowed; allowed: finite numbers from 70 to 100"),
        ({"episode_steps": 0}, "episode_steps: 0 is not allowed; allowed: whole numbers from 1"),
        ({"num_envs": True}, "num_envs: True is not allowed"),
    ],
)
def test_unfit_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ResourceManagerBatch(**{"num_envs": 1} | arguments)


def test_unknown_arguments_raise():
    with pytest.raises(TypeError, match="workload"):
        make_env(workload="sine_curve")


@pytest.mark.parametrize("actions", [np.array([0, 3]), np.array([-1, 0]), np.array([0.0, 1.0]), np.array([0])])
def test_unfit_actions_are_refused(actions):
    envs = make_vector_env(2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"^actions: .* is not allowed; allowed"):
        envs.step(actions)


def test_the_description_fits_spaces_and_observations():
    description = describe({"max_rate": 200, "band_reward": 4})
    env = make_env(params=description.params)
    assert description.env_id == "scalepilot/ResourceManager-v0"
    assert len(description.actions) == env.action_space.n
    assert [a.size for a in description.actions] == env.batch.move_of_action.tolist() == [0, 1, -1]
    np.testing.assert_array_equal([f.low for f in description.fields], env.observation_space.low)
    np.testing.assert_array_equal([f.high for f in description.fields], env.observation_space.high)
    assert [f.name for f in description.fields] == ["cpu_percent", "memory_percent", "request_rate"]
    assert all(f.unit and f.description for f in description.fields)
    assert "+4 with" in description.reward
    columns = dict(zip([f.name for f in description.fields], env.reset(seed=0)[0], strict=True))
    assert description.signals["utilisation"](lambda name: np.array([columns[name]], dtype=np.float64)).tolist() == [0.5]
    assert describe().rule_defaults["threshold"] == {"upper": 0.7, "lower": 0.3, "cooldown_seconds": 0.0}
    assert describe(ResourceManagerParams()) == describe(None)


def test_the_text_holds_the_numbers():
    env = make_env(render_mode="ansi")
    env.reset(seed=0, options={"rate_factors": np.full(100, 1.1)})
    env.step(ADD)
    text = env.render()
    assert text == "step 1 of 100  CPU  36.7 %  memory  29.3 %  request rate 110.0/s  instances 3  reward -1"


def test_the_picture_shows_the_episode():
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    for _ in range(60):
        env.step(HOLD)
    picture = env.render()
    assert picture.shape == (400, 640, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert (picture != first).any(axis=2).sum() > 500


def test_an_environment_of_a_larger_batch_is_drawn_too():
    batch = ResourceManagerBatch(3)
    batch.seed_streams([0, 1, 2])
    batch.reset_batch()
    batch.step_batch(np.array([1, 1, 1]))
    assert batch.render_one(2, "rgb_array").shape == (400, 640, 3)


def test_the_contract_is_kept():
    check_scaling_env(
        lambda: make_env(episode_steps=20),
        lambda num_envs, autoreset_mode: make_vector_env(num_envs, autoreset_mode, episode_steps=20),
        num_steps=45,
        batch_sizes=(1, 2, 7),
    )


def test_both_libraries_check_it_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("scalepilot_envs:scalepilot/ResourceManager-v0", render_mode="rgb_array")
        gym.utils.env_checker.check_env(env.unwrapped)
        sb3_check_env(env.unwrapped, warn=True)
