"""Autoscale with `min_replicas: 0`: nothing serves, nothing costs, and what arrives is lost."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from tests.unit.test_rule_hpa import NAMES, differences, readings

from scalepilot.policy.rules import Hpa, HpaParameters, make_rule, rules_for
from scalepilot.simulate import EpisodeSet, autoscale_optimum, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe
from scalepilot_envs.autoscale.dynamics import AutoscaleState

ZERO = AutoscaleParams(min_replicas=0, max_replicas=10)


def started(rate_rps, params=ZERO):
    state = AutoscaleState(params, 1)
    state.reset(np.ones(1, dtype=bool), np.array([float(rate_rps)]))
    return state


@pytest.mark.parametrize("balancing", ["central", "random"])
@pytest.mark.parametrize("probability", ["sakasegawa", "erlang_c"])
def test_without_replicas_every_request_is_late_and_lost_and_nothing_is_billed(balancing, probability):
    params = AutoscaleParams(min_replicas=0, startup_seconds=15.0, load_balancing=balancing, waiting_probability=probability)
    state = started(0, params)
    assert state.total.tolist() == [0]
    quiet = state.step(np.zeros(1), np.zeros(1))
    assert (quiet.late[0], quiet.billed_replicas[0], float(quiet.cost.total[0])) == (0, 0, 0)
    assert (state.cpu[0], state.latency_p95_seconds[0]) == (0, params.service_time_seconds)
    lost = state.step(np.ones(1), np.full(1, 150.0))
    assert (lost.late[0], lost.dropped[0], lost.billed_replicas[0]) == (150, 150, 1)
    assert (state.cpu[0], state.backlog[0], state.error_share[0]) == (1, 0, 1)
    assert state.latency_p95_seconds[0] == params.service_time_seconds + params.max_wait_seconds
    served = state.step(np.ones(1), np.full(1, 30.0))
    assert served.late[0] < 1
    assert np.isfinite(state.observe()).all()


def test_from_one_replica_on_nothing_differs_from_a_service_that_keeps_one():
    rng = np.random.default_rng(0)
    both = [started(100, AutoscaleParams(min_replicas=least)) for least in (0, 1)]
    for _ in range(200):
        target, arrived = rng.integers(1, 60, 1).astype(float), rng.poisson(3000, 1).astype(float)
        outcomes = [state.step(target, arrived) for state in both]
        assert outcomes[0].late == outcomes[1].late
        np.testing.assert_array_equal(both[0].observe(), both[1].observe())


def test_the_environment_passes_the_checker_at_zero():
    from gymnasium.utils.env_checker import check_env

    env = gym.make("scalepilot/Autoscale-v0", params={"min_replicas": 0, "max_replicas": 3}, disable_env_checker=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)


@pytest.fixture(scope="module")
def nights():
    """Two episodes with half of the time no traffic at all."""
    rates = np.where(np.arange(60) % 30 < 15, 0.0, 100.0)[None].repeat(2, axis=0)
    arrived = np.random.default_rng(0).poisson(rates * 15.0).astype(float)
    return EpisodeSet("nights", rates, arrived, np.arange(2), np.zeros(2, dtype=np.int64), np.zeros(2))


def test_every_rule_and_the_optimum_run_at_zero_and_none_is_below_the_bound(nights):
    best = autoscale_optimum(nights, ZERO)
    assert (best.targets.min(axis=1) == 0).all()
    assert (best.lower_J_per_hour <= best.upper_J_per_hour * (1 + 1e-9)).all()
    replayed, _ = run_episodes(best.planner(), nights, ZERO)
    np.testing.assert_allclose(replayed["J_per_hour"], best.upper_J_per_hour, rtol=1e-9)
    for name in rules_for(describe(ZERO)):
        results, _ = run_episodes(make_rule(name, ZERO), nights, ZERO)
        assert np.isfinite(results["J_per_hour"]).all(), name
        assert (results["J_per_hour"] >= best.lower_J_per_hour * (1 - 1e-9)).all(), name


def test_the_hpa_scales_to_zero_and_back_on_requests_and_keeps_one_on_cpu(nights):
    for metric, least in (("rps", 0), ("cpu", 1), ("cpu+rps", 0)):
        rule = Hpa(HpaParameters(metric, stabilisation_down_seconds=60), ZERO)
        _, log = run_episodes(rule, nights, ZERO, playback_of=0)
        assert log.replicas.min() == least, metric
        assert log.replicas.max() > 5


def test_the_hpa_leaves_a_count_of_zero_alone_where_one_is_the_fewest():
    paused = readings(0, rate=100.0)
    assert Hpa(HpaParameters("rps"), AutoscaleParams()).desired(paused, None)[0].tolist() == [0]
    assert Hpa(HpaParameters("rps"), ZERO).desired(paused, None)[0].tolist() == [4]
    assert Hpa(HpaParameters("cpu"), ZERO).desired(paused, None)[0].tolist() == [1]
    assert len(NAMES) == paused.shape[1]


def test_the_rule_equals_the_published_algorithm_from_zero_on():
    for interval in (5, 15, 30, 60):
        differing, compared, moved = differences(interval, 60, seed=interval, minimum=0, maximum=20)
        assert not differing, differing[:3]
        assert moved > compared / 20
