"""ClusterDeployment-v0 against the executable specification, and what surrounds its transition."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from scalepilot_envs.cluster_deployment import (
    ClusterDeploymentBatch,
    ClusterDeploymentParams,
    describe,
    make_env,
    make_vector_env,
    observation_fields,
)
from scalepilot_envs.testing import check_scaling_env

DATA = Path(__file__).parents[1] / "data" / "golden_cluster_deployment.npz"
NOTHING, UP, DOWN = range(3)
STEPS = 100
QUIET = {"failure_probability": 0.0, "load_noise_requests": 0.0, "spike_probability": 0.0, "cpu_noise_share": 0.0}
INPUTS = ("loads", "cpu_noise", "memory_noise", "failed")
CPU, MEMORY, LATENCY, SWAP, NODES, LOAD_MEAN, THROUGHPUT = range(7)


@pytest.fixture(scope="module")
def stored():
    with np.load(DATA, allow_pickle=False) as arrays:
        return dict(arrays) | {"params": json.loads(str(arrays["params"]))}


def replay(params, inputs, actions):
    """Fly scenarios of equal parameters side by side: (fields, shown, pods, reward, terminated), steps first."""
    batch = ClusterDeploymentBatch(len(actions), params=params, episode_steps=actions.shape[1])
    shown, fields = [batch.reset_batch(None, inputs)], [batch.measured.T.copy()]
    pods, reward, terminated = [], [], []
    for action in actions.T:
        step = batch.step_batch(action)
        shown.append(step.observation)
        fields.append(batch.measured.T.copy())
        pods.append(step.info["pods"])
        reward.append(step.reward)
        terminated.append(step.terminated)
    return [np.moveaxis(np.array(column), 0, 1) for column in (fields, shown, pods, reward, terminated)]


@pytest.mark.parametrize("scenario", range(20))
def test_stored_trajectories_of_the_specification_are_replayed_to_1e_9(stored, scenario):
    # Beside a neighbour that lives through the next scenario, so that environments may not mix.
    rows = [scenario, (scenario + 1) % 20]
    params = ClusterDeploymentParams(**stored["params"][scenario])
    inputs = {name: stored[name][rows] for name in INPUTS}
    fields, shown, pods, reward, terminated = (c[0] for c in replay(params, inputs, stored["actions"][rows]))
    expected = stored["observation"][scenario]
    lived = np.isfinite(stored["reward"][scenario])
    assert lived.sum() > 2
    np.testing.assert_allclose(fields[: lived.sum() + 1], expected[: lived.sum() + 1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(reward[lived], stored["reward"][scenario][lived], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(pods[lived], stored["pods"][scenario][lived])
    np.testing.assert_array_equal(terminated[lived], stored["terminated"][scenario][lived])
    highest = [f.high for f in observation_fields(params)]
    clipped = np.minimum(expected[: lived.sum() + 1], highest)
    np.testing.assert_allclose(shown[: lived.sum() + 1], clipped, rtol=1e-6, atol=1e-7)


def test_the_stored_trajectories_touch_what_they_should(stored):
    observation, pods = stored["observation"], stored["pods"]
    assert stored["terminated"].any(axis=1).sum() >= 3
    assert np.isfinite(stored["reward"][:, -1]).sum() >= 5
    assert np.nanmin(pods) == 1
    assert np.nanmax(pods) == 60
    assert (np.nanmax(observation[..., SWAP]), np.nanmax(observation[..., LATENCY])) == (1, 10)
    on_threshold = [(np.abs(observation[..., CPU] - level) < 1e-12).any() for level in (0.3, 0.7, 0.85, 0.9)]
    assert all(on_threshold)


@pytest.mark.parametrize("seed", range(5))
def test_fresh_trajectories_of_the_live_specification_are_replayed_to_1e_9(golden, seed):
    reference, rng = golden("cluster_deployment"), np.random.default_rng(1000 + seed)
    values = {"startup_steps": int(rng.integers(1, 5)), "start_pods": int(rng.integers(3, 9)), "max_pods": 12, "patience": 60}
    inputs = {
        "loads": rng.uniform(0, 6000, (1, STEPS + 1)),
        "cpu_noise": rng.uniform(-0.05, 0.05, (1, STEPS)),
        "memory_noise": rng.uniform(-10e6, 10e6, (1, STEPS)),
        "failed": rng.random((1, STEPS)) < 0.2,
    }
    actions = rng.integers(0, 3, (1, STEPS))
    fields, _, pods, reward, terminated = (c[0] for c in replay(ClusterDeploymentParams(**values), inputs, actions))
    service = reference.ClusterDeployment(**values)
    np.testing.assert_allclose(fields[0], service.reset(float(inputs["loads"][0, 0])), rtol=1e-9)
    for t in range(STEPS):
        given = [inputs[name][0, t] for name in INPUTS[1:]]
        observation, expected, ended, _ = service.step(int(actions[0, t]), float(inputs["loads"][0, t + 1]), *given)
        np.testing.assert_allclose(fields[t + 1], observation, rtol=1e-9, atol=1e-9)
        assert (reward[t], pods[t], terminated[t]) == (pytest.approx(expected, abs=1e-9), service.pods, ended)
        if ended:
            break


def test_parameter_defaults_are_the_specifications(golden):
    reference = golden("cluster_deployment").ClusterDeployment
    for name in ("min_pods", "max_pods", "start_pods", "startup_steps", "patience"):
        assert getattr(ClusterDeploymentParams(), name) == getattr(reference, name)
    assert ClusterDeploymentBatch(1).episode_steps == reference.max_steps


def flown(num_envs=64, steps=STEPS, seed=0, action=NOTHING, **kwargs):
    """Info columns of a batch that takes one action all along, steps first, and its batch; nobody is ended by overload."""
    params = {"patience": 10**6} | kwargs.pop("params", {})
    envs = make_vector_env(num_envs, params=params, episode_steps=steps, **kwargs)
    observations = [envs.reset(seed=seed)[0]]
    loads = [envs.batch.load_requests.copy()]
    infos = []
    for _ in range(steps):
        observation, *_, info = envs.step(np.full(num_envs, action))
        observations.append(observation)
        infos.append(info)
        loads.append(info["load_requests"])
    columns = {name: np.array([info[name] for info in infos]) for name in infos[0]}
    return columns | {"observation": np.array(observations), "load_requests": np.array(loads)}


@pytest.mark.parametrize(("day", "factor"), [(0, 1.0), (1, 0.4), (2, 0.3)])
def test_without_noise_the_load_is_the_specifications_daily_sine(golden, day, factor):
    base_load = golden("cluster_deployment").base_load
    loads = flown(2, weekend_day=day, params=QUIET)["load_requests"]
    np.testing.assert_allclose(loads[:, 0], [base_load(t, weekend_day=day) for t in range(STEPS + 1)], rtol=1e-12)
    assert loads[0, 0] == 500 * factor
    np.testing.assert_array_equal(loads[:, 0], loads[:, 1])


def test_the_noise_of_the_load_is_normal_with_25_requests():
    loads = flown(200, params=QUIET | {"load_noise_requests": 25.0})["load_requests"]
    noise = loads - flown(1, params=QUIET)["load_requests"]
    assert noise.std() == pytest.approx(25.0, rel=0.03)
    assert noise.mean() == pytest.approx(0.0, abs=0.6)
    assert (np.abs(noise) > 50).mean() == pytest.approx(0.0455, abs=0.006)


def test_spikes_rise_over_five_steps_last_10_to_29_and_begin_once_in_200_steps():
    extra = flown(400, params=QUIET | {"spike_probability": 0.005})["load_requests"] - flown(1, params=QUIET)["load_requests"]
    begins, lengths, heights = 0, [], []
    for column in np.abs(extra).T > 1e-9:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], column.astype(int), [0]])))
        begins += len(edges) // 2
    idle_steps = (np.abs(extra) < 1e-9).sum()
    assert begins / (idle_steps + begins) == pytest.approx(0.005, abs=0.0012)
    for column in extra.T:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (np.abs(column) > 1e-9).astype(int), [0]])))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            spike = column[start:end]
            if end <= STEPS and len(set(np.round(spike[4:], 6))) == 1:
                lengths.append(len(spike))
                heights.append(spike[-1])
                np.testing.assert_allclose(spike[:5], spike[-1] * np.arange(1, 6) / 5)
    assert (min(lengths), max(lengths)) == (10, 29)
    assert 250 <= min(heights) < 500
    assert 1700 < max(heights) <= 2000


def test_events_multiply_the_daily_load_in_their_window():
    plain = flown(1, params=QUIET)["load_requests"][:, 0]
    loads = flown(1, params=QUIET, events=[(10, 5, 2.0), (90, 50, 0.5)])["load_requests"][:, 0]
    factor = np.ones(STEPS + 1)
    factor[10:15], factor[90:] = 2.0, 0.5
    np.testing.assert_allclose(loads, np.maximum(50, plain * factor))


def test_a_random_phase_starts_the_day_anywhere_and_a_random_day_is_a_weekend_two_times_in_seven():
    first = flown(300, steps=1, params=QUIET, random_phase=True)["load_requests"][0]
    assert (first.min(), first.max()) == (pytest.approx(350, abs=2), pytest.approx(650, abs=2))
    days = flown(2000, steps=1, params=QUIET, weekend_day="random")["load_requests"][0]
    share = [(np.abs(days - level) < 1e-9).mean() for level in (500.0, 200.0, 150.0)]
    np.testing.assert_allclose(share, [5 / 7, 1 / 7, 1 / 7], atol=0.03)


def test_one_request_in_twenty_fails_and_measurements_are_noisy_within_their_limits():
    quiet = QUIET | {"max_pods": 1000}
    up = flown(100, action=UP, params=quiet | {"failure_probability": 0.05})
    assert set(np.unique(up["change_pods"])) == {0.0, 1.0}
    assert (up["change_pods"] == 0).mean() == pytest.approx(0.05, abs=0.008)
    cpu = (
        flown(100, params=QUIET | {"cpu_noise_share": 0.05})["observation"][1:, :, CPU]
        - flown(1, params=QUIET)["observation"][1:, :, CPU]
    )
    assert (cpu.min(), cpu.max()) == (pytest.approx(-0.05, abs=1e-3), pytest.approx(0.05, abs=1e-3))
    assert cpu.std() == pytest.approx(0.1 / math.sqrt(12), rel=0.03)
    memory = [
        flown(100, params=QUIET | {"memory_noise_bytes": noise})["observation"][1:, :, MEMORY] * 500e6 for noise in (0.0, 10e6)
    ]
    assert np.abs(memory[1] - memory[0]).max() == pytest.approx(10e6, rel=0.01)


def test_what_the_world_does_depends_on_no_action():
    up, nothing = flown(8, action=UP), flown(8, action=NOTHING)
    np.testing.assert_array_equal(up["load_requests"], nothing["load_requests"])
    # Also in a later episode, though the first one ended at another step.
    loads = []
    for action in (DOWN, UP):
        env = make_env(params={"start_pods": 2, "min_pods": 1})
        env.reset(seed=4)
        ended = 0
        while not ended:
            *_, terminated, truncated, _ = env.step(action)
            ended += terminated or truncated
        env.reset()
        loads.append([env.batch.load_requests[0], *(env.step(UP)[4]["load_requests"] for _ in range(5))])
    np.testing.assert_array_equal(*loads)


def test_every_kind_of_chance_has_a_stream_of_its_own():
    loads = [
        flown(3, random_phase=True, params=p)["load_requests"] for p in ({}, {"cpu_noise_share": 0.0, "failure_probability": 0.9})
    ]
    np.testing.assert_array_equal(*loads)


def test_many_episodes_of_a_batch_are_those_of_single_environments():
    envs = make_vector_env(5, episode_steps=3)
    envs.reset(seed=20)
    batch = np.array([envs.step(np.zeros(5, dtype=int))[0] for _ in range(160)])
    env = make_env(episode_steps=3)
    env.reset(seed=23)
    single, ended = [], False
    for _ in range(160):
        if ended:
            observation, ended = env.reset()[0], False
        else:
            observation, _, terminated, truncated, _ = env.step(NOTHING)
            ended = terminated or truncated
        single.append(observation)
    np.testing.assert_array_equal(batch[:, 3], single)
    starts = batch[3::4, :, LOAD_MEAN]
    assert len(np.unique(starts)) == starts.size


def test_how_many_episodes_are_drawn_together_changes_none_of_them():
    # So long that a batch draws fewer of them ahead than a single environment does.
    batch, single = ClusterDeploymentBatch(4, episode_steps=50_001), ClusterDeploymentBatch(1, episode_steps=50_001)
    batch.seed_streams(range(4))
    single.seed_streams([2])
    for _ in range(14):
        np.testing.assert_array_equal(batch.reset_batch()[2], single.reset_batch()[0])
        np.testing.assert_array_equal(
            batch.step_batch(np.zeros(4, dtype=int)).observation[2], single.step_batch(np.array([NOTHING])).observation[0]
        )
    assert batch.exogenous._half < single.exogenous._half


def test_a_single_environment_takes_inputs_without_a_leading_axis():
    loads = np.linspace(100, 900, 11)
    env = make_env(episode_steps=10)
    observations = [env.reset(seed=0, options={"loads": given})[0] for given in (loads, loads[None])]
    np.testing.assert_array_equal(*observations)
    for t in range(10):
        info = env.step(UP)[4]
        assert (info["load_requests"], info["change_pods"]) == (loads[t + 1], 1)


def test_after_injected_inputs_the_drawn_episodes_go_on_as_if_nothing_had_been_injected():
    starts = []
    for injected in (False, True):
        env = make_env(episode_steps=2)
        env.reset(seed=1)
        if injected:
            env.reset(options={"loads": np.ones(3)})
        starts.append(env.reset()[0])
    np.testing.assert_array_equal(*starts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loads": np.ones(10)}, r"options.loads: shape \(1, 10\) is not allowed; allowed: \(1, 11\)"),
        ({"loads": np.full(11, np.nan)}, "options.loads: holds negative or non-finite"),
        ({"loads": np.full(11, -1.0)}, "options.loads: holds negative"),
        ({"loads": np.full(11, 1e200)}, "options.loads: 1e.200 is not allowed"),
        ({"loads": np.ones(11), "cpu_noise": np.ones(11)}, "options.cpu_noise: shape"),
        ({"loads": np.ones(11), "memory_noise": np.full(10, np.inf)}, "options.memory_noise: holds"),
        ({"loads": np.ones(11), "failed": np.full(10, 0.5)}, "options.failed: holds other values"),
        ({"cpu_noise": np.zeros(10)}, "options.loads: missing"),
        ({"load": np.ones(11)}, "options.load: unknown key; allowed: loads, cpu_noise"),
    ],
)
def test_wrong_inputs_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        make_env(episode_steps=10).reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"params": {"min_pods": 0}}, "min_pods: 0 is not allowed"),
        ({"params": {"max_pods": 2, "min_pods": 3}}, "max_pods: 2 is not allowed"),
        ({"params": {"start_pods": 41}}, "start_pods: 41 is not allowed"),
        ({"params": {"startup_steps": 0}}, "startup_steps: 0"),
        ({"params": {"startup_steps": 1.5}}, "startup_steps: 1.5 is not allowed; allowed: whole numbers"),
        (
            {"params": {"failure_probability": 1.1}},
            "failure_probability: 1.1 is not allowed; allowed: finite numbers from 0 to 1",
        ),
        ({"params": {"load_noise_requests": math.nan}}, "load_noise_requests: nan"),
        ({"params": {"pods": 3}}, "params.pods: unknown key"),
        ({"episode_steps": 0}, "episode_steps: 0 is not allowed"),
        ({"weekend_day": True}, "weekend_day: True is not allowed"),
        ({"weekend_day": 3}, "weekend_day: 3 is not allowed; allowed: 0, 1, 2, 'random'"),
        ({"events": [(0, 0, 1.0)]}, "events: .*is not allowed; allowed"),
        ({"events": [(0, 1)]}, r"events: \(0, 1\) is not allowed; allowed: \(start_step, steps, factor\)"),
    ],
)
def test_wrong_arguments_are_refused_with_field_and_value(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_env(**kwargs)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="workload"):
        make_env(workload="steady")


@pytest.mark.parametrize("action", [3, -1])
def test_actions_out_of_range_are_refused(action):
    env = make_env()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"actions: {action} is not allowed; allowed: 0 to 2"):
        env.step(action)


def test_extreme_loads_stay_inside_the_space_and_the_state_is_not_clipped():
    loads = np.tile([0.0, 1e12], 6)[:11]
    env = make_env(episode_steps=10, params={"patience": 100})
    observation, _ = env.reset(seed=0, options={"loads": loads})
    for t in range(10):
        assert env.observation_space.contains(observation), observation
        observation = env.step(UP if t % 2 else DOWN)[0]
    assert observation[LOAD_MEAN] == env.observation_space.high[LOAD_MEAN] == 4.0
    assert env.batch.measured[LOAD_MEAN, 0] == pytest.approx(loads[1:].mean() / 5000)


def test_what_a_step_returned_is_not_changed_by_later_steps_and_resets():
    envs = make_vector_env(4, episode_steps=3)
    envs.reset(seed=0)
    kept = []
    for _ in range(9):
        *rest, info = envs.step(np.full(4, UP))
        kept.append((rest, info))
        kept.append(([a.copy() for a in rest], {k: v.copy() for k, v in info.items()}))
    for (rest, info), (rest_then, info_then) in zip(kept[::2], kept[1::2], strict=True):
        for now, then in zip([*rest, *info.values()], [*rest_then, *info_then.values()], strict=True):
            np.testing.assert_array_equal(now, then)


def test_targets_move_one_pod_at_a_time():
    env = make_env(params=QUIET)
    env.reset(seed=0)
    pods = [env.step_targets(8)[4]["pods"] for _ in range(4)] + [env.step_targets(7)[4]["pods"] for _ in range(2)]
    assert pods == [6, 7, 8, 8, 7, 7]


SHORT = {"episode_steps": 20, "random_phase": True, "weekend_day": "random", "events": [(5, 5, 3.0)]}


@pytest.mark.parametrize("kwargs", [{"episode_steps": 20}, SHORT | {"params": {"start_pods": 1, "startup_steps": 1}}])
def test_the_environment_keeps_the_contract(kwargs):
    check_scaling_env(
        lambda: gym.make("scalepilot/ClusterDeployment-v0", **kwargs).unwrapped,
        lambda num_envs, autoreset_mode: make_vector_env(num_envs, autoreset_mode, **kwargs),
        batch_sizes=(1, 2, 17),
        num_steps=48,
    )


def test_stable_baselines3_accepts_it_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(make_env("rgb_array", episode_steps=20), warn=True)


def test_the_description_names_what_the_observation_shows():
    description = describe({"max_pods": 20})
    env = make_env(params={"max_pods": 20})
    assert [f.high for f in description.fields] == pytest.approx(env.observation_space.high.tolist())
    assert [f.low for f in description.fields] == env.observation_space.low.tolist()
    assert all(f.unit and f.description for f in description.fields)
    assert [(a.kind, a.size, a.label) for a in description.actions] == [
        ("absolute", 0, "hold"),
        ("absolute", 1, "+1"),
        ("absolute", -1, "−1"),
    ]
    assert [a.size for a in description.actions] == env.batch.move_of_action.tolist()
    assert description.params == env.batch.params
    observation, _ = env.reset(seed=0)
    columns = dict(zip([f.name for f in description.fields], observation, strict=True))
    assert description.signals["utilisation"](columns.__getitem__) == observation[CPU]
    assert description.rule_defaults["threshold"] == {"upper": 0.7, "lower": 0.3, "cooldown_seconds": 0.0}


def test_text_and_picture_show_the_state():
    env = make_env("rgb_array", episode_steps=30, params={"failure_probability": 0.0})
    env.reset(seed=0)
    blank = env.render()
    for _ in range(3):
        env.step(UP)
    picture, text = env.render(), env.batch.render_one(0, "ansi")
    assert picture.shape == blank.shape
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    assert (picture != blank).any()
    assert "step 3 of 30" in text
    assert "7 ready + 1 starting" in text
    assert f"{env.batch.load_requests[0]:,.0f} requests" in text
    assert f"cpu {env.batch.measured[CPU, 0]:.0%}" in text


def test_same_step_reports_the_last_step_and_not_the_reset():
    envs = make_vector_env(3, AutoresetMode.SAME_STEP, episode_steps=2, params=QUIET)
    envs.reset(seed=0)
    envs.step(np.full(3, UP))
    *_, info = envs.step(np.full(3, UP))
    np.testing.assert_array_equal(info["final_info"]["pods"], [7, 7, 7])
    np.testing.assert_array_equal(envs.batch.pods, [5, 5, 5])
