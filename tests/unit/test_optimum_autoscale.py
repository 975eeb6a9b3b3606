"""The clairvoyant optimum of Autoscale-v0: a bound no policy breaks, and a plan that costs what it says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.errors import InputError
from scalepilot.policy import Planner
from scalepilot.policy.rules import Hpa, HpaParameters, LookAhead, Static, StaticParameters
from scalepilot.simulate import (
    EpisodeSet,
    OptimumCache,
    PlannedTargets,
    ProcessExecutor,
    autoscale_optimum,
    protocol_v1,
    run_episodes,
)
from scalepilot.simulate.optimum.autoscale import targets_of
from scalepilot.simulate.optimum.cache import cache_key
from scalepilot.simulate.optimum.ready_replicas import BacklogGrid, late_and_left, plan_ready_replicas
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload, TraceWorkload

PARAMS = AutoscaleParams()
TINY = AutoscaleParams(max_replicas=3, startup_seconds=30.0)


def episodes_of(rates, params, seed=0, arrived=None):
    rates = np.atleast_2d(np.asarray(rates, dtype=float))
    if arrived is None:
        arrived = np.random.default_rng(seed).poisson(rates * params.interval_seconds)
    count = len(rates)
    return EpisodeSet("any", rates, np.asarray(arrived, dtype=float), np.arange(count), np.zeros(count, int), np.zeros(count))


def only(episodes, rows):
    names = ("rates_rps", "arrived", "window", "seed", "start_unix_seconds")
    return replace(episodes, **{name: getattr(episodes, name)[rows] for name in names})


def random_rates(rng, params, num_steps, count=1):
    """Smooth loads between a tenth and nine tenths of what the most replicas serve, with jumps now and then."""
    full = params.replica_capacity_rps * params.max_replicas
    walk = 0.5 + np.cumsum(rng.normal(0, 0.03, (count, num_steps)), axis=1)
    jumps = 0.4 * (rng.random((count, num_steps // 10 + 1)) < 0.15).repeat(10, axis=1)[:, :num_steps]
    return full * np.clip(walk + jumps, 0.1, 0.9)


def cheapest_by_enumeration(params, episodes):
    """J per hour of the best of all target sequences, each flown through the simulator."""
    choices = range(params.min_replicas, params.max_replicas + 1)
    targets = np.array(list(itertools.product(choices, repeat=episodes.num_steps)), dtype=float)
    results, _ = run_episodes(PlannedTargets("all", targets), episodes.repeated(len(targets)), params)
    return results["J_per_hour"].min()


TINY_SERVICES = {
    "two steps to start": {},
    "one step to start": {"startup_seconds": 15.0},
    "three steps to start": {"startup_seconds": 45.0},
    "paid moves": {"price_per_move": 0.003},
    "a strict deadline": {"wait_slo_seconds": 0.0},
    "a patient deadline": {"wait_slo_seconds": 5.0, "max_wait_seconds": 60.0},
    "cheap lateness": {"price_per_late_request": 2e-5},
    "odd capacity": {"replica_capacity_rps": 7.5},
    "at least two": {"min_replicas": 2},
    "random balancing": {"load_balancing": "random"},
    "Erlang's probability": {"waiting_probability": "erlang_c"},
}


@pytest.mark.parametrize("name", TINY_SERVICES)
def test_the_best_of_all_target_sequences_lies_between_the_bounds(name):
    params, rng = replace(TINY, **TINY_SERVICES[name]), np.random.default_rng(3)
    gaps = []
    for seed in range(3):
        episodes = episodes_of(rng.uniform(0.1, 1.2, 6) * 3 * params.replica_capacity_rps, params, seed)
        optimum, best = autoscale_optimum(episodes, params), cheapest_by_enumeration(params, episodes)
        assert optimum.lower_J_per_hour[0] <= best * (1 + 1e-12)
        assert best <= optimum.upper_J_per_hour[0] * (1 + 1e-12)
        gaps.append(optimum.gap[0])
    assert max(gaps) < 0.03


@pytest.mark.parametrize("lag", [1, 3])
def test_where_targets_take_effect_late_the_best_sequence_lies_between_the_bounds(lag):
    params, rng = replace(TINY, actuation_lag_steps=lag, price_per_move=0.001), np.random.default_rng(3)
    for seed in range(3):
        episodes = episodes_of(rng.uniform(0.1, 1.2, 6) * 3 * params.replica_capacity_rps, params, seed)
        optimum, best = autoscale_optimum(episodes, params), cheapest_by_enumeration(params, episodes)
        assert optimum.lower_J_per_hour[0] <= best * (1 + 1e-12)
        assert best <= optimum.upper_J_per_hour[0] * (1 + 1e-12)


@pytest.mark.parametrize("startup_seconds", [15.0, 30.0, 60.0])
def test_without_a_queue_the_optimum_is_exact(startup_seconds):
    params = replace(TINY, max_wait_seconds=0.0, startup_seconds=startup_seconds, price_per_move=0.001)
    rng = np.random.default_rng(5)
    for seed in range(4):
        episodes = episodes_of(rng.uniform(3, 55, 7), params, seed)
        optimum, best = autoscale_optimum(episodes, params), cheapest_by_enumeration(params, episodes)
        np.testing.assert_allclose([optimum.lower_J_per_hour[0], optimum.upper_J_per_hour[0]], best, rtol=1e-9)


services = st.builds(
    AutoscaleParams,
    interval_seconds=st.sampled_from([5.0, 15.0, 60.0]),
    replica_capacity_rps=st.sampled_from([0.4, 7.5, 20.0, 100.0]),
    startup_seconds=st.sampled_from([1.0, 20.0, 60.0, 300.0]),
    min_replicas=st.sampled_from([1, 2, 8]),
    max_replicas=st.sampled_from([8, 12, 30]),
    wait_slo_seconds=st.sampled_from([0.0, 0.05, 0.2, 5.0]),
    max_wait_seconds=st.sampled_from([0.0, 1.0, 30.0, 120.0]),
    price_per_late_request=st.sampled_from([1e-5, 1e-3, 1e-2]),
    price_per_move=st.sampled_from([0.0, 0.001, 0.01]),
    load_balancing=st.sampled_from(["central", "random"]),
    waiting_probability=st.sampled_from(["sakasegawa", "erlang_c"]),
    actuation_lag_steps=st.sampled_from([0, 0, 1, 3]),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(params=services, seed=st.integers(0, 999))
def test_no_rule_costs_less_than_the_lower_bound_and_the_plan_costs_the_upper_one(params, seed):
    rng = np.random.default_rng(seed)
    episodes = episodes_of(random_rates(rng, params, 60, count=2), params, seed)
    optimum = autoscale_optimum(episodes, params)
    assert (optimum.lower_J_per_hour <= optimum.upper_J_per_hour).all()
    assert (optimum.targets >= params.min_replicas).all()
    assert (optimum.targets <= params.max_replicas).all()
    replay, _ = run_episodes(optimum.planner(), episodes, params)
    np.testing.assert_allclose(replay["J_per_hour"], optimum.upper_J_per_hour, rtol=1e-9)
    rivals = [
        LookAhead(0.8),
        Static(StaticParameters(params.max_replicas), params),
        Static(StaticParameters(params.min_replicas), params),
        Hpa(HpaParameters(target=0.6), params),
        PlannedTargets("random", rng.integers(params.min_replicas, params.max_replicas + 1, (2, 60)).astype(float)),
    ]
    for rival in rivals:
        results, _ = run_episodes(rival, episodes, params)
        assert (results["J_per_hour"] >= optimum.lower_J_per_hour).all()


@pytest.mark.parametrize("startup_steps", [1, 4, 20])
def test_the_bounds_are_within_three_per_cent_on_synthetic_workloads(startup_steps):
    params = replace(PARAMS, startup_seconds=15.0 * startup_steps, max_replicas=30)
    episodes = episodes_of(random_rates(np.random.default_rng(startup_steps), params, 240, count=3), params)
    assert autoscale_optimum(episodes, params).gap.max() < 0.03


@pytest.fixture(scope="module")
def demo():
    return only(protocol_v1("demo", DiurnalWorkload(), PARAMS).test, slice(0, 1))


@pytest.fixture(scope="module")
def demo_optimum(demo):
    return autoscale_optimum(demo, PARAMS)


def test_a_window_of_the_demo_is_planned_tightly_and_far_below_the_rules(demo, demo_optimum):
    replay, _ = run_episodes(demo_optimum.planner(), demo, PARAMS)
    assert isinstance(demo_optimum.planner(), Planner)
    np.testing.assert_allclose(replay["J_per_hour"], demo_optimum.upper_J_per_hour, rtol=1e-9)
    assert demo_optimum.gap.max() < 0.001
    hpa, _ = run_episodes(Hpa(HpaParameters(), PARAMS), demo, PARAMS)
    assert demo_optimum.upper_J_per_hour[0] < 0.9 * hpa["J_per_hour"][0]


def test_a_plan_flown_a_step_too_late_costs_more(demo, demo_optimum):
    late = PlannedTargets("late", np.roll(demo_optimum.targets, 1, axis=1))
    results, _ = run_episodes(late, demo, PARAMS)
    assert (results["J_per_hour"] > 1.01 * demo_optimum.upper_J_per_hour).all()


# On the first, letting the backlog overflow would pay if replicas could come back at once: the second pass tells.
HARDEST = [("nasa_http_1995_07_1min", 28), ("aws_elb_2014_04_5min", 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), HARDEST)
def test_the_bounds_are_within_three_per_cent_on_traces(traces, name, row):
    workload = TraceWorkload(path=str(traces / f"{name}.csv"), peak_rps=500.0)
    episodes = only(protocol_v1(name, workload, PARAMS).test, slice(row, row + 1))
    optimum = autoscale_optimum(episodes, PARAMS)
    results, _ = run_episodes(LookAhead(0.85), episodes, PARAMS)
    assert optimum.gap.max() < 0.03
    assert (optimum.lower_J_per_hour < results["J_per_hour"]).all()


def test_the_specifications_own_service_charges_a_plan_what_the_optimum_says(golden):
    params = replace(PARAMS, price_per_move=0.002)
    episodes = episodes_of(random_rates(np.random.default_rng(9), params, 150), params)
    optimum = autoscale_optimum(episodes, params)
    reference = golden("autoscale")
    service = reference.Autoscale(reference.Params(price_per_move=0.002))
    service.reset(float(episodes.rates_rps[0, 0]))
    total = 0.0
    for target, arrived in zip(optimum.targets[0], episodes.arrived[0], strict=True):
        total += service.step(int(target), float(arrived) / params.interval_seconds, float(arrived))["J"]
    assert total / (150 / params.steps_per_hour) == pytest.approx(optimum.upper_J_per_hour[0], rel=1e-9)


def test_replicas_are_ordered_their_start_up_time_before():
    ready = np.array([2.0, 2.0, 2.0, 5.0, 5.0, 1.0, 1.0])
    assert targets_of(ready, 2.0, 3).tolist() == [5, 5, 5, 5, 5, 1, 1]
    assert targets_of(ready[:3], 2.0, 3).tolist() == [2, 2, 2]


@given(st.floats(0.5, 1e5), st.floats(0.05, 1e3), st.floats(0, 1))
def test_the_grid_rounds_every_backlog_down_and_no_further_than_one_point(most, capacity, share):
    grid = BacklogGrid(most, capacity)
    backlog = np.array([share * most])
    at = int(grid.below(backlog)[0])
    assert grid.points[at] <= backlog[0]
    assert at + 1 == len(grid.points) or backlog[0] < grid.points[at + 1]


@settings(deadline=None, derandomize=True)
@given(params=services, load=st.floats(0, 3), share=st.floats(0, 1))
def test_more_backlog_never_makes_fewer_requests_late_nor_leaves_fewer(params, load, share):
    ready = np.ceil(share * params.max_replicas) + 1.0
    served = np.array(ready * params.replica_capacity_rps)
    backlog = np.linspace(0.0, 2.0 * max(params.max_wait_seconds, params.interval_seconds) * float(served), 200)
    arrived = np.array(load * served * params.interval_seconds)
    late, left = late_and_left(params, arrived, np.array(ready), served, backlog)
    assert (np.diff(late) >= -1e-9 * arrived).all()
    assert (np.diff(left) >= 0).all()


def test_a_plan_computed_in_segments_is_the_same():
    rates = random_rates(np.random.default_rng(1), PARAMS, 90)
    arrived = np.random.default_rng(1).poisson(rates[0] * 15.0).astype(float)
    whole, cut = plan_ready_replicas(PARAMS, arrived, 30.0), plan_ready_replicas(PARAMS, arrived, 30.0, kept_bytes=1_500_000)
    assert whole.lower_J == cut.lower_J
    np.testing.assert_array_equal(whole.ready, cut.ready)


def test_processes_share_the_episodes_and_change_nothing():
    params = replace(PARAMS, max_replicas=20)
    episodes = episodes_of(random_rates(np.random.default_rng(2), params, 40, count=3), params)
    counted = []
    alone = autoscale_optimum(episodes, params)
    with ProcessExecutor(2) as executor:
        together = autoscale_optimum(episodes, params, executor=executor, progress=counted.append)
    assert counted == [1, 2, 3]
    np.testing.assert_array_equal(together.targets, alone.targets)
    np.testing.assert_array_equal(together.lower_J_per_hour, alone.lower_J_per_hour)


def test_each_episode_may_have_its_own_capacity():
    rates = np.tile(random_rates(np.random.default_rng(4), TINY, 40), (2, 1))
    episodes = episodes_of(rates, TINY)
    both = autoscale_optimum(episodes, TINY, replica_capacity_rps=np.array([20.0, 30.0]))
    other = autoscale_optimum(only(episodes, slice(1, 2)), replace(TINY, replica_capacity_rps=30.0))
    assert both.lower_J_per_hour[1] == other.lower_J_per_hour[0]
    assert both.lower_J_per_hour[1] < both.lower_J_per_hour[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replica_capacity_rps": np.ones(2)}, r"replica_capacity_rps: shape \(2,\)"),
        ({"replica_capacity_rps": np.array([-1.0])}, "replica_capacity_rps: -1.0 is not allowed"),
    ],
)
def test_what_cannot_be_planned_is_the_callers_error(arguments, message):
    with pytest.raises(InputError, match=message):
        autoscale_optimum(episodes_of(np.full(5, 20.0), TINY), TINY, **arguments)


def test_a_plan_is_refused_for_other_episodes():
    with pytest.raises(InputError, match=r"clairvoyant: planned for episodes \(1, 5\); asked for \(2, 5\)"):
        PlannedTargets("clairvoyant", np.ones((1, 5))).plan(np.ones((2, 5)), 20.0, 4)


class TestCache:
    EPISODES = episodes_of(random_rates(np.random.default_rng(8), TINY, 30), TINY)

    def key(self, params=TINY):
        return cache_key(params, self.EPISODES.arrived[0], float(self.EPISODES.rates_rps[0, 0]))

    def test_what_was_found_is_read_and_not_computed_again(self, tmp_path):
        cache = OptimumCache(tmp_path / "optima")
        first = autoscale_optimum(self.EPISODES, TINY, cache=cache)
        stored = cache.load(self.key(), 30)
        assert [path.name for path in cache.folder.iterdir()] == [f"{self.key()}.npz"]
        # A bound that no computation would find shows where the answer comes from.
        cache.store(self.key(), replace(stored, lower_J=stored.lower_J / 2))
        second = autoscale_optimum(self.EPISODES, TINY, cache=cache)
        np.testing.assert_array_equal(second.targets, first.targets)
        np.testing.assert_array_equal(second.upper_J_per_hour, first.upper_J_per_hour)
        assert second.lower_J_per_hour[0] == pytest.approx(first.lower_J_per_hour[0] / 2)

    @pytest.mark.parametrize("fault", ["torn", "foreign", "pickled", "too short", "another price"])
    def test_a_file_that_cannot_be_believed_is_computed_again(self, tmp_path, fault):
        cache = OptimumCache(tmp_path)
        first = autoscale_optimum(self.EPISODES, TINY, cache=cache)
        path, stored = tmp_path / f"{self.key()}.npz", cache.load(self.key(), 30)
        if fault == "torn":
            path.write_bytes(path.read_bytes()[:-40])
        elif fault == "foreign":
            path.write_bytes(b"not an archive")
        elif fault == "pickled":
            np.savez(path, lower_J=np.array([{}]), upper_J=1.0, ready=np.ones(30))
        elif fault == "too short":
            cache.store(self.key(), replace(stored, ready=stored.ready[:-1]))
        else:
            cache.store(self.key(), replace(stored, upper_J=stored.upper_J * 1.01))
        again = autoscale_optimum(self.EPISODES, TINY, cache=cache)
        np.testing.assert_array_equal(again.lower_J_per_hour, first.lower_J_per_hour)
        np.testing.assert_array_equal(again.upper_J_per_hour, first.upper_J_per_hour)
        assert cache.load(self.key(), 30).upper_J == stored.upper_J

    def test_the_key_holds_all_that_matters_and_nothing_else(self):
        assert self.key(replace(TINY, observe_clock=True, history_steps=4)) == self.key()
        for change in ({"startup_seconds": 45.0}, {"load_balancing": "random"}, {"price_per_move": 0.1}):
            assert self.key(replace(TINY, **change)) != self.key()
        arrived = self.EPISODES.arrived[0].copy()
        arrived[7] += 1
        assert cache_key(TINY, arrived, float(self.EPISODES.rates_rps[0, 0])) != self.key()
        assert cache_key(TINY, self.EPISODES.arrived[0], 1.0) != self.key()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"readiness_timeout_seconds": 2.0},
            r"readiness_timeout_seconds: 2.0 is not allowed for the clairvoyant optimum",
        ),
        ({"backlog_stays": True, "load_balancing": "random"}, r"env.params.backlog_stays: true is not allowed .* allowed: false"),
    ],
)
def test_a_service_whose_backlog_does_not_say_it_all_is_refused(given, said):
    rates = np.full((1, 20), 50.0)
    episodes = EpisodeSet("w", rates, rates * 15, np.zeros(1, dtype=int), np.zeros(1, dtype=int), np.zeros(1))
    with pytest.raises(InputError, match=said):
        autoscale_optimum(episodes, AutoscaleParams(**given))
