"""QueueScaling-v0 against the executable specification and its known answers, and what surrounds its transition."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from scalepilot_envs.queue_scaling import QueueScalingBatch, QueueScalingParams, describe, make_env, make_vector_env
from scalepilot_envs.testing import check_scaling_env
from scalepilot_envs.workloads import RandomWorkload, RateSeries

DATA = Path(__file__).parents[1] / "data" / "golden_queue_scaling.npz"
DOWN, HOLD, UP = 0, 1, 2
STEPS = 200


@pytest.fixture(scope="module")
def stored():
    with np.load(DATA, allow_pickle=False) as arrays:
        return dict(arrays)


def state_of(batch):
    return np.array([batch.instances / 100, batch.load / 100, batch.capacity, batch.influx, batch.queue])


def test_every_stored_trajectory_of_the_specification_is_replayed_exactly(stored):
    batch = QueueScalingBatch(20)
    seen = [batch.reset_batch(None, {"influx": stored["influx"]})]
    exact, reward, terminated, truncated = [state_of(batch)], [], [], []
    for action in stored["actions"].T:
        step = batch.step_batch(action)
        seen.append(step.observation)
        exact.append(state_of(batch))
        reward.append(step.reward)
        terminated.append(step.terminated)
        truncated.append(step.truncated)
    expected = stored["observation"].transpose(1, 2, 0)
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.array(reward).T, stored["reward"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(np.array(terminated).T, stored["terminated"])
    assert not np.array(truncated)[:-1].any()
    assert truncated[-1].all()
    bound = batch.single_observation_space.high[:, None]
    np.testing.assert_allclose(np.array(seen).transpose(0, 2, 1), np.minimum(expected, bound), rtol=1e-6)
    assert all(batch.single_observation_space.contains(row) for step in seen for row in step)


def test_the_stored_trajectories_touch_both_bounds_overflow_and_idle(stored):
    instances = np.rint(stored["observation"][..., 0] * 100)
    assert (instances.min(), instances.max()) == (2, 100)
    assert stored["terminated"].any()
    assert (stored["influx"] == 0).all(axis=1).any()
    assert stored["observation"][..., 4].max() > 10 * 4350


def test_environments_of_one_batch_at_different_steps_replay_like_alone(stored):
    rows, late = np.array([10, 11, 12]), np.array([False, True, False])
    batch = QueueScalingBatch(3)
    batch.reset_batch(None, {"influx": stored["influx"][rows]})
    for t in range(10):
        batch.step_batch(stored["actions"][rows, t])
    batch.reset_batch(late, {"influx": stored["influx"][rows]})
    at = np.array([10, 0, 10])
    for _ in range(100):
        step = batch.step_batch(stored["actions"][rows, at])
        np.testing.assert_allclose(step.reward, stored["reward"][rows, at], rtol=0, atol=1e-9)
        at += 1
        np.testing.assert_allclose(state_of(batch), stored["observation"][rows, at].T, rtol=1e-9)


@pytest.mark.parametrize("pattern", ["SINE_CURVE", "SINUSOIDAL", "STEADY", "SPIKE"])
def test_the_workload_of_a_pattern_brings_the_specifications_requests(stored, pattern):
    expected = stored[f"patterns/{pattern}"]
    steps = len(expected) - 1
    env = make_env(workload=pattern.lower(), episode_steps=steps, params={"max_influx_requests": 10**9})
    influx = [env.reset(seed=0)[0][3], *(env.step(HOLD)[0][3] for _ in range(steps))]
    np.testing.assert_array_equal(influx, expected)


def episode_return(rule, workload="sine_curve"):
    """Return of a rule (instances, load in percent, queue, influx → action), which reads observations only."""
    env = make_env(workload=workload)
    observation, _ = env.reset(seed=0)
    total = 0.0
    while True:
        share, load, _, influx, queue = observation
        observation, reward, terminated, truncated, _ = env.step(
            rule(np.rint(share * 100), np.rint(load * 100), np.rint(queue), influx)
        )
        total += reward
        if terminated or truncated:
            return total


def threshold(upper, lower):
    def rule(_, load, queue, __):
        return UP if load > upper or queue > 100 else DOWN if load < lower and queue == 0 else HOLD

    return rule


def tracking(instances, _, queue, influx):
    wanted = (influx + queue) / (87 * 0.95)
    return UP if wanted > instances else DOWN if wanted < instances - 1 else HOLD


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (threshold(80, 40), -27.9537),
        (lambda *_: HOLD, -14.0250),
        (threshold(95, 85), -8.0330),
        (tracking, -6.9035),
    ],
    ids=["threshold", "never", "threshold 95/85", "tracking 95 %"],
)
def test_rules_return_what_the_specification_publishes(rule, expected):
    assert episode_return(rule) == pytest.approx(expected, abs=1e-4)


def test_another_rule_does_not_return_the_published_figure():
    assert abs(episode_return(threshold(81, 40)) - -27.9537) > 1e-3


def test_a_chosen_action_is_applied_one_step_later():
    env = make_env(workload="steady")
    env.reset(seed=0)
    shares = [env.step(action)[0][0] for action in (UP, UP, HOLD, HOLD)]
    np.testing.assert_allclose(shares, [0.5, 0.51, 0.52, 0.52])


def test_a_refused_change_is_not_made_and_costs_a_tenth():
    env = make_env(params={"max_instances": 50, "min_instances": 50}, episode_steps=3)
    env.reset(seed=0, options={"influx": np.full(4, 4350)})
    env.step(UP)
    _, reward, _, _, info = env.step(HOLD)
    assert (reward, info["refused_changes"], info["change_instances"]) == (pytest.approx(-0.1), 1, 0)
    _, reward, _, _, info = env.step(HOLD)
    assert (reward, info["refused_changes"]) == (0, 0)


def test_the_price_is_billed_once_a_step_for_the_instances_that_served():
    env = make_env(params={"price_per_instance_hour": 0.6})
    env.reset(seed=0)
    costs = [env.step(DOWN)[4]["cost"] for _ in range(3)]
    np.testing.assert_allclose(costs, [50 * 0.6 / 12, 50 * 0.6 / 12, 49 * 0.6 / 12])


def test_an_overflow_terminates_and_the_queue_stays_in_its_space():
    env = make_env(params={"start_instances": 2})
    env.reset(seed=0, options={"influx": np.full(201, 5000.0)})
    for step in range(1, 201):
        observation, _, terminated, _, info = env.step(HOLD)
        assert env.observation_space.contains(observation)
        assert observation[3] == 4350
        assert info["influx_requests"] == 5000
        assert terminated == (step * (5000 - 174) > 43500)
        if terminated:
            break
    assert step == 10


def test_injected_influx_is_rounded_to_whole_requests():
    env = make_env(episode_steps=2)
    first, _ = env.reset(seed=0, options={"influx": [[10.4, 20.6, 30.0]]})
    assert [first[3], env.step(HOLD)[0][3], env.step(HOLD)[0][3]] == [10, 21, 30]


def test_after_an_injected_episode_the_workload_returns():
    envs = make_vector_env(2, episode_steps=5)
    plain, _ = envs.reset(seed=0)
    injected, _ = envs.reset(options={"influx": np.ones((2, 6))})
    assert injected[:, 3].tolist() == [1, 1]
    again, _ = envs.reset()
    np.testing.assert_array_equal(again, plain)
    envs.batch.reset_batch(np.array([True, False]), {"influx": np.full((2, 6), 7.0)})
    hold = np.ones(2, dtype=np.int64)
    influx = [envs.step(hold)[0][:, 3] for _ in range(6)]
    reference = make_env(episode_steps=5)
    reference.reset(seed=0)
    expected = [reference.step(HOLD)[0][3] for _ in range(5)]
    assert [i[0] for i in influx[:5]] == [7] * 5
    assert [i[1] for i in influx[:5]] == expected
    assert influx[5].tolist() == plain[:, 3].tolist()


def influx_of(envs, episodes, steps):
    """(episodes, steps + 1, num_envs) requests under holding."""
    observation, _ = envs.reset(seed=4)
    rows = []
    for _ in range(episodes * (steps + 1)):
        rows.append(observation[:, 3])
        observation, *_ = envs.step(np.ones(envs.num_envs, dtype=np.int64))
    return np.array(rows).reshape(episodes, steps + 1, -1)


def test_a_stochastic_workload_is_drawn_anew_each_episode_and_environment():
    influx = influx_of(make_vector_env(3, workload="random", episode_steps=6), 4, 6)
    assert len({influx[e, :, i].tobytes() for e in range(4) for i in range(3)}) == 12
    assert influx.min() >= 500
    assert influx.max() <= 4350


def test_a_drawn_series_is_that_of_the_workload_with_another_seed():
    batch = QueueScalingBatch(1, workload=RandomWorkload(max_requests=1000), episode_steps=6)
    batch.seed_streams([11])
    seed = int(np.random.default_rng(np.random.SeedSequence(11, spawn_key=(1,))).integers(0, 1 << 31, 1)[0])
    first = batch.reset_batch()[0, 3]
    assert first == RandomWorkload(max_requests=1000, seed=seed).request_counts()[0]


def test_a_workload_without_chance_is_the_same_each_episode():
    influx = influx_of(make_vector_env(2, episode_steps=5), 3, 5)
    assert len({influx[e, :, i].tobytes() for e in range(3) for i in range(2)}) == 1


def test_a_random_phase_begins_each_episode_elsewhere_in_the_series():
    steps = 10
    influx = influx_of(make_vector_env(4, episode_steps=steps, random_phase=True), 5, steps)
    series = np.rint(QueueScalingBatch(1).workload.series().rates_rps * 300).astype(np.float32)
    windows = {series[s : s + steps + 1].tobytes() for s in range(len(series) - steps)}
    drawn = {np.ascontiguousarray(influx[e, :, i]).tobytes() for e in range(5) for i in range(4)}
    assert len(drawn) == 20
    assert drawn <= windows


def test_a_series_on_another_grid_is_resampled():
    env = make_env(workload=RateSeries(np.linspace(0, 10, 101), 150.0), episode_steps=20)
    env.reset(seed=0)
    assert [env.step(HOLD)[0][3] for _ in range(3)] == [60, 120, 180]


def test_the_bounded_observation_stays_in_the_unit_box_and_says_the_same(stored):
    batch, bounded = QueueScalingBatch(20), QueueScalingBatch(20, bounded_observation=True)
    options = {"influx": stored["influx"]}
    pairs = [(batch.reset_batch(None, options), bounded.reset_batch(None, options))]
    for action in stored["actions"].T[:60]:
        pairs.append((batch.step_batch(action).observation, bounded.step_batch(action).observation))
    plain, scaled = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert bounded.single_observation_space.low.min() >= 0
    assert bounded.single_observation_space.high.max() == 1
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    np.testing.assert_allclose(scaled[:, 4], np.log1p(plain[:, 4]) / np.log1p(47850), rtol=1e-5)
    for name, signal in describe().signals.items():
        same = describe(bounded_observation=True).signals[name]
        values = [
            s(lambda field, o=o, d=d: o[:, [f.name for f in d].index(field)].astype(np.float64))
            for s, o, d in ((signal, plain, batch.fields), (same, scaled, bounded.fields))
        ]
        # A queue of tens of thousands is known to the 24 bits of a float32's logarithm only.
        np.testing.assert_allclose(values[1], values[0], rtol=2e-5, atol=1e-9, err_msg=name)


def test_targets_count_the_change_under_way():
    batch = QueueScalingBatch(3, episode_steps=5)
    batch.seed_streams([0, 1, 2])
    batch.reset_batch()
    batch.step_targets(np.array([51, 50, 49]))
    assert batch.total_replicas.tolist() == [51, 50, 49]
    assert batch.instances.tolist() == [50, 50, 50]
    batch.step_targets(np.array([51, 50, 49]))
    assert batch.pending.tolist() == [0, 0, 0]
    assert batch.instances.tolist() == [51, 50, 49]


def test_results_of_a_step_are_not_changed_by_later_steps_and_resets():
    batch = QueueScalingBatch(3)
    batch.seed_streams([0, 1, 2])
    first = batch.reset_batch()
    step = batch.step_batch(np.array([0, 1, 2]))
    arrays = [first, step.observation, step.reward, step.terminated, step.truncated, *step.info.values()]
    before = [a.copy() for a in arrays]
    batch.reset_batch(np.array([True, False, True]))
    batch.step_batch(np.array([1, 1, 1]))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_caller_does_to_the_results_leaves_the_environments_alone():
    batches = [QueueScalingBatch(3), QueueScalingBatch(3)]
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
        ({"influx": np.ones((2, 200))}, r"influx: shape \(2, 200\) is not allowed; allowed: \(2, 201\)"),
        ({"influx": np.ones(201)}, r"influx: shape \(201,\) is not allowed"),
        ({"influx": np.full((2, 201), np.inf)}, "influx: holds negative or non-finite values"),
        ({"influx": np.full((2, 201), -1)}, "influx: holds negative or non-finite values"),
        ({"arrived": np.ones((2, 201))}, "options.arrived: unknown key; allowed: influx"),
    ],
)
def test_unfit_injected_influx_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_vector_env(2).reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": {"price": 1}}, "params.price: unknown key; allowed: interval_seconds"),
        ({"params": {"min_instances": 0}}, "min_instances: 0 is not allowed; allowed: whole numbers from 1"),
        ({"params": {"max_instances": 1}}, "max_instances: 1 is not allowed; allowed: whole numbers from 2"),
        ({"params": {"start_instances": 101}}, "start_instances: 101 is not allowed; allowed: whole numbers from 2 to 100"),
        ({"params": {"capacity_requests": 87.5}}, "capacity_requests: 87.5 is not allowed; allowed: whole numbers"),
        ({"params": {"price_per_instance_hour": float("inf")}}, "price_per_instance_hour: inf is not allowed"),
        ({"params": {"interval_seconds": 0}}, "interval_seconds: 0 is not allowed"),
        ({"episode_steps": 0}, "episode_steps: 0 is not allowed"),
        ({"workload": "sine_curv"}, r"workload.kind: 'sine_curv' is not allowed; allowed: .*did you mean sine_curve"),
        ({"workload": RateSeries(np.ones(150), 300.0)}, "workload: its 150 steps of 300 s are fewer than the 201 of an episode"),
        ({"episode_steps": 5000}, "workload: its 4032 steps of 300 s are fewer than the 5001"),
    ],
)
def test_unfit_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        QueueScalingBatch(**{"num_envs": 1} | arguments)


def test_unknown_arguments_raise():
    with pytest.raises(TypeError, match="part"):
        make_env(part="train")


def test_the_description_fits_spaces_and_observations():
    params = {"max_instances": 80, "max_influx_requests": 1000}
    description = describe(params)
    env = make_env(params=params)
    assert description.env_id == "scalepilot/QueueScaling-v0"
    assert [a.size for a in description.actions] == env.batch.move_of_action.tolist() == [-1, 0, 1]
    assert [a.label for a in description.actions] == ["−1", "hold", "+1"]
    np.testing.assert_array_equal(np.float32([f.low for f in description.fields]), env.observation_space.low)
    np.testing.assert_array_equal(np.float32([f.high for f in description.fields]), env.observation_space.high)
    assert description.fields == env.batch.fields
    assert env.observation_space.high.tolist() == [1, 1, 6960, 1000, 11000]
    assert all(f.unit and f.description for f in description.fields)
    assert "10,000 requests" in description.end
    assert describe(None).params == describe(QueueScalingParams()).params == QueueScalingParams()


def test_the_signals_are_physical_quantities_and_travel():
    description = pickle.loads(pickle.dumps(describe()))
    env = make_env()
    observation, _ = env.reset(seed=0)
    for _ in range(25):
        observation, _, _, _, info = env.step(DOWN)
    names = [f.name for f in description.fields]
    signals = {
        name: signal(lambda field: np.array([observation[names.index(field)]], dtype=np.float64)).tolist()
        for name, signal in description.signals.items()
    }
    assert signals == {
        "total_replicas": [info["instances"]],
        "utilisation": [info["load_percent"] / 100],
        "backlog_requests": [info["queue_requests"]],
        "demand": [info["influx_requests"]],
        "replica_capacity": [87.0],
    }
    assert info["queue_requests"] > 100
    assert description.rule_defaults["threshold"]["upper_backlog"] == 100.0


def test_the_text_holds_the_numbers():
    env = make_env(render_mode="ansi", workload="steady")
    env.reset(seed=0)
    env.step(UP)
    assert env.render() == (
        "step 1 of 200  instances 50 (+1 pending)  load 56 %  influx 2,425 of 4,350 requests  queue 0  reward -0.2200"
    )


def test_the_picture_shows_the_episode():
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    for _ in range(150):
        env.step(HOLD)
    picture = env.render()
    assert picture.shape == (400, 640, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert (picture != first).any(axis=2).sum() > 500


@pytest.mark.parametrize(
    "arguments",
    [{}, {"workload": "random", "bounded_observation": True}, {"random_phase": True}],
    ids=["fixed", "random", "phase"],
)
def test_the_contract_is_kept(arguments):
    arguments = {"episode_steps": 18, **arguments}
    check_scaling_env(
        lambda: make_env(**arguments),
        lambda num_envs, autoreset_mode: make_vector_env(num_envs, autoreset_mode, **arguments),
        num_steps=42,
        batch_sizes=(1, 2, 5),
        stochastic=len(arguments) > 1,
    )


def test_the_contract_is_kept_where_episodes_end_apart():
    # Two instances for 4,350 requests: episodes overflow after about eleven steps, sooner or later by the actions.
    arguments = {"episode_steps": 40, "workload": "random", "params": {"start_instances": 2, "max_influx_requests": 2000}}
    check_scaling_env(
        lambda: make_env(**arguments),
        lambda num_envs, autoreset_mode: make_vector_env(num_envs, autoreset_mode, **arguments),
        num_steps=60,
        batch_sizes=(1, 6),
    )


def test_both_libraries_check_it_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("scalepilot_envs:scalepilot/QueueScaling-v0", render_mode="rgb_array")
        gym.utils.env_checker.check_env(env.unwrapped)
        sb3_check_env(env.unwrapped, warn=True)
