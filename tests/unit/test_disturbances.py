"""What training may put between a policy and its service: late targets, blurred and missing measurements, stuck replicas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.config import json_schema
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams, Randomisation
from scalepilot_envs.autoscale.env import make_env
from scalepilot_envs.workloads import RateSeries

STEADY = RateSeries(np.full(64, 100.0), 15.0)
RATE, MEAN, CPU, LATENCY, LATE, ERROR, BACKLOG, READY = 0, 8, 10, 11, 12, 13, 14, 15
RATES, REPLICAS = slice(0, 10), slice(15, 21)
OPTIONAL = [LATENCY, LATE, ERROR, BACKLOG]
ALL_ON = {
    "actuation_lag_steps": (0, 3),
    "measurement_phase": (0.0, 1.0),
    "field_dropout": (0.0, 0.5),
    "rate_dropout": (0.0, 0.5),
    "stuck_share": (0.0, 0.5),
    "startup_scale": (0.25, 3.0),
    "measurement_noise": (0.0, 0.2),
}


def run(targets=None, steps=60, **arguments):
    """(1 + steps, num_fields) what one service that is busy now and then shows, and what each step cost."""
    env = make_env(workload={"kind": "diurnal", "days": 1}, episode_steps=60, **arguments)
    seen, costs = [env.reset(seed=3)[0]], []
    for target in np.random.default_rng(0).integers(2, 30, steps) if targets is None else targets:
        observation, *_, info = env.step_targets(int(target))
        seen.append(observation)
        costs.append(info["J"])
    return np.array(seen), np.array(costs)


def replicas(targets, stuck=(1.0, 1.0), **arguments):
    """What each step billed, and (steps, 5) ready and starting by quarter after it."""
    randomisation = {"stuck_share": stuck, **arguments.pop("randomisation", {})}
    env = make_env(workload=STEADY, arrivals="exact", randomisation=randomisation, episode_steps=40, **arguments)
    env.reset(seed=0)
    billed, seen = [], []
    for target in targets:
        observation, *_, info = env.step_targets(target)
        billed.append(info["billed_replicas"])
        seen.append(observation[READY : READY + 5].tolist())
    return billed, seen


def test_a_window_out_of_phase_shows_a_part_of_the_interval_before():
    clear, costs = run()
    behind, same_costs = run(randomisation={"measurement_phase": (0.25, 0.25)})
    np.testing.assert_array_equal(same_costs, costs)
    np.testing.assert_array_equal(behind[:, REPLICAS], clear[:, REPLICAS])
    np.testing.assert_array_equal(behind[0], clear[0])
    for field in (RATE, CPU, BACKLOG):
        by_time = 0.75 * clear[1:, field] + 0.25 * clear[:-1, field]
        np.testing.assert_allclose(behind[1:, field], by_time, rtol=1e-5, atol=1e-5, err_msg=str(field))
    old, new = 0.25 * clear[:-1, RATE], 0.75 * clear[1:, RATE]
    for field in (LATENCY, LATE, ERROR):
        by_requests = (new * clear[1:, field] + old * clear[:-1, field]) / (new + old)
        # More may be dropped in an interval than arrive: what is shown ends at 1.
        whole = (clear[1:, field] < 1) & (clear[:-1, field] < 1) | (field == LATENCY)
        np.testing.assert_allclose(behind[1:, field][whole], by_requests[whole], rtol=1e-4, atol=1e-6, err_msg=str(field))
    assert (clear[:, LATE] > 0.05).any()
    # A rate is measured once: it keeps its blend while it grows old.
    np.testing.assert_array_equal(behind[1:, 1], behind[:-1, 0])


def test_a_whole_interval_out_of_phase_is_a_metric_lag_of_one_step():
    behind, _ = run(randomisation={"measurement_phase": (1.0, 1.0)})
    late, _ = run(params={"metric_lag_steps": 1})
    np.testing.assert_allclose(behind, late, rtol=1e-6, atol=1e-6)


def test_without_requests_a_window_out_of_phase_shows_no_share_of_nothing():
    env = make_env(workload=RateSeries(np.zeros(64), 15.0), randomisation={"measurement_phase": (0.5, 0.5)}, episode_steps=8)
    env.reset(seed=0)
    assert env.step_targets(1)[0][RATE:READY].tolist() == pytest.approx([0] * 11 + [0.05, 0, 0, 0])


def test_a_missing_field_is_shown_as_of_a_service_at_rest_and_nothing_else_changes():
    clear, costs = run()
    blind, same_costs = run(randomisation={"field_dropout": (1.0, 1.0)})
    np.testing.assert_array_equal(same_costs, costs)
    assert (blind[:, OPTIONAL] == np.array([0.05, 0, 0, 0], dtype=np.float32)).all()
    others = [i for i in range(21) if i not in OPTIONAL]
    np.testing.assert_array_equal(blind[:, others], clear[:, others])


def test_each_field_is_missing_for_itself_as_often_as_was_drawn():
    overload = {"workload": STEADY, "params": {"max_replicas": 4}, "arrivals": "exact"}
    batch = AutoscaleBatch(100, randomisation={"field_dropout": (0.3, 0.3)}, episode_steps=60, **overload)
    batch.seed_streams(list(range(100)))
    batch.reset_batch()
    missing = []
    for _ in range(60):
        shown = batch.step_targets(np.full(100, 4)).observation[:, OPTIONAL]
        missing.append(shown == np.array([0.05, 0, 0, 0], dtype=np.float32))
    # Overloaded: none of the four is at rest by itself once the queue is full.
    missing = np.array(missing)[30:].reshape(-1, 4)
    assert missing.mean(axis=0) == pytest.approx([0.3] * 4, abs=0.03)
    assert np.abs(np.corrcoef(missing.T) - np.eye(4)).max() < 0.06


def test_a_missing_rate_shows_the_one_before_again():
    clear, costs = run()
    gaps, same_costs = run(randomisation={"rate_dropout": (0.4, 0.4)})
    np.testing.assert_array_equal(same_costs, costs)
    np.testing.assert_array_equal(gaps[:, CPU:], clear[:, CPU:])
    fresh = gaps[1:, RATE] == clear[1:, RATE]
    again = gaps[1:, RATE] == gaps[:-1, RATE]
    assert (fresh | again).all()
    assert 0.2 < again.mean() < 0.6
    silent, _ = run(randomisation={"rate_dropout": (1.0, 1.0)})
    assert (silent[:, RATE] == silent[0, RATE]).all()


def test_a_stuck_replica_is_billed_and_shown_as_starting_until_a_scale_down_removes_it():
    billed, seen = replicas([10, 10, 10, 10, 10, 10, 9, 8, 7])
    assert billed == [10, 10, 10, 10, 10, 10, 9, 8, 7]
    assert seen == [
        [8, 0, 0, 2, 0],
        [8, 0, 2, 0, 0],
        [8, 2, 0, 0, 0],
        [8, 2, 0, 0, 0],
        [8, 2, 0, 0, 0],
        [8, 2, 0, 0, 0],
        [8, 1, 0, 0, 0],
        [8, 0, 0, 0, 0],
        [7, 0, 0, 0, 0],
    ]


def test_a_scale_down_removes_stuck_replicas_before_those_that_will_serve():
    env = make_env(workload=STEADY, arrivals="exact", randomisation={"stuck_share": (1.0, 1.0)}, episode_steps=40)
    env.reset(seed=0)
    env.step_targets(10)
    env.batch.disturbances.stuck_share[:] = 0.0  # what is ordered from now on serves
    seen = [env.step_targets(t)[0][READY : READY + 5].tolist() for t in (11, 10, 9, 9, 9)]
    assert seen == [[8, 0, 2, 1, 0], [8, 1, 1, 0, 0], [8, 1, 0, 0, 0], [9, 0, 0, 0, 0], [9, 0, 0, 0, 0]]


def test_stuck_replicas_are_the_same_where_one_step_is_all_the_start_up_there_is():
    assert replicas([10, 10, 8], params={"startup_seconds": 15.0})[1] == [[8, 2, 0, 0, 0], [8, 2, 0, 0, 0], [8, 0, 0, 0, 0]]


def test_a_late_order_is_stuck_too():
    billed, seen = replicas([10] * 7, params={"actuation_lag_steps": 1})
    assert billed == [8, *[10] * 6]
    assert seen[0] == [8, 0, 0, 0, 2]
    assert seen[-1] == [8, 2, 0, 0, 0]


@pytest.mark.parametrize("order", [1, 3, 40])
def test_of_many_orders_the_share_that_was_drawn_is_stuck(order):
    batch = AutoscaleBatch(
        500, workload=STEADY, params={"min_replicas": 8}, randomisation={"stuck_share": (0.1, 0.1)}, episode_steps=30
    )
    batch.seed_streams(list(range(500)))
    batch.reset_batch(None)
    base = batch.state.ready.copy()
    stuck = 0.0
    for _ in range(5):
        batch.step_targets(base + order)
        assert batch.state.stuck is not None
        for _ in range(4):
            batch.step_targets(base + order)
        stuck += batch.state.stuck.sum()
        batch.step_targets(base)
        batch.state.ready[:] = base
        batch.state.starting[:] = batch.state.stuck[:] = 0.0
    assert stuck / (5 * 500 * order) == pytest.approx(0.1, abs=0.02)


def test_drawn_lags_are_those_of_services_with_that_lag():
    batch = AutoscaleBatch(12, workload=STEADY, randomisation={"actuation_lag_steps": (0, 3)}, episode_steps=40)
    batch.seed_streams(list(range(12)))
    batch.reset_batch()
    lags = batch.disturbances.lag_steps.copy()
    assert set(lags) == {0, 1, 2, 3}
    alone = []
    for i, lag in enumerate(lags):
        one = AutoscaleBatch(1, workload=STEADY, params={"actuation_lag_steps": int(lag)}, episode_steps=40)
        one.seed_streams([i])
        one.reset_batch()
        alone.append(one)
    for target in np.random.default_rng(1).integers(1, 60, 40):
        together = batch.step_targets(np.full(12, target))
        for i, one in enumerate(alone):
            step = one.step_targets(np.array([target]))
            np.testing.assert_array_equal(step.observation[0], together.observation[i])
            assert step.reward[0] == together.reward[i]
    batch.reset_batch()
    assert (batch.disturbances.lag_steps != lags).any(), "drawn anew"


def test_drawn_lags_stand_in_place_of_the_services_own():
    batch = AutoscaleBatch(
        20, workload=STEADY, params={"actuation_lag_steps": 5}, randomisation={"actuation_lag_steps": (0, 1)}, episode_steps=8
    )
    batch.seed_streams(list(range(20)))
    batch.reset_batch()
    assert set(batch.disturbances.lag_steps) == {0, 1}
    batch.reset_batch(None, {"rates_rps": np.full((20, 8), 100.0)})
    assert set(batch.disturbances.lag_steps) == {5}


@pytest.mark.parametrize("name", ALL_ON)
def test_what_is_drawn_for_one_kind_never_shifts_another(name):
    def begun(randomisation):
        batch = AutoscaleBatch(
            30, workload={"kind": "diurnal", "days": 2}, randomisation=randomisation, episode_steps=10, arrivals="poisson"
        )
        batch.seed_streams(list(range(30)))
        batch.reset_batch()
        d = batch.disturbances
        kinds = [batch._start_seconds, batch._arrived, batch.state.capacity_rps, batch.state.startup_steps]
        live = {"phase": d.phase, "stuck": d.stuck_share, "noise": d.noise, "missing": d._missing, "repeated": d._repeated}
        return kinds, {"actuation_lag_steps": d.lag_steps, "chance": d._chance, **live}

    plain, _ = begun({})
    alone, drawn_alone = begun({name: ALL_ON[name]})
    for before, after in zip(plain, alone, strict=True):
        if name != "startup_scale" or before is not plain[3]:
            np.testing.assert_array_equal(before, after)
    together = begun(ALL_ON)[1]
    for kind, values in drawn_alone.items():
        if values is not None and (kind != "actuation_lag_steps" or name == kind):
            np.testing.assert_array_equal(values, together[kind], err_msg=kind)


def test_given_episodes_are_undisturbed():
    drawn = {name: (high, high) for name, (_, high) in ALL_ON.items() if name != "startup_scale"}
    targets = np.random.default_rng(2).integers(1, 30, 20)
    seen = []
    for randomisation in ({}, drawn):
        env = make_env(workload=STEADY, randomisation=randomisation, arrivals="exact", episode_steps=20)
        env.reset(seed=0)
        for target in targets[:5]:
            env.step_targets(int(target))
        first, _ = env.reset(options={"rates_rps": np.linspace(10, 300, 20)[None]})
        seen.append([first, *(env.step_targets(int(t))[0] for t in targets)])
    np.testing.assert_array_equal(seen[0], seen[1])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    startup_seconds=st.sampled_from([1.0, 15.0, 70.0]),
    bounds=st.sampled_from([(1, 60), (0, 5), (3, 3)]),
    scale=st.sampled_from([(1.0, 1.0), (0.25, 3.0)]),
)
def test_replicas_are_never_lost_made_up_or_out_of_bounds(seed, startup_seconds, bounds, scale):
    params = AutoscaleParams(min_replicas=bounds[0], max_replicas=bounds[1], startup_seconds=startup_seconds)
    batch = AutoscaleBatch(
        5,
        workload=STEADY,
        params=params,
        randomisation={**ALL_ON, "stuck_share": (0, 1), "startup_scale": scale},
        episode_steps=50,
    )
    batch.seed_streams([seed + i for i in range(5)])
    batch.reset_batch()
    rng, total = np.random.default_rng(seed), batch.state.total
    for _ in range(50):
        step = batch.step_targets(rng.integers(0, 70, 5))
        state, before = batch.state, total
        total = state.total
        np.testing.assert_array_equal(total, before + step.info["change_replicas"])
        at_once = batch.disturbances.lag_steps == 0
        np.testing.assert_array_equal(step.info["billed_replicas"], np.where(at_once, total, before))
        assert ((total >= bounds[0]) & (total <= bounds[1])).all()
        assert state.stuck is not None
        assert (state.stuck >= 0).all()
        assert (state.stuck <= state.starting).all()
        assert (state.ready >= min(1, bounds[0])).all()
        assert (step.observation[:, READY : READY + 5].sum(axis=1) == total).all()
        assert np.isfinite(step.reward).all()


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        ({"actuation_lag_steps": (2, 1)}, r"\[2, 1\] is not allowed; allowed: whole numbers, 0 <= low <= high <= 10000"),
        ({"actuation_lag_steps": (0.5, 2)}, r"\[0.5, 2\] is not allowed; allowed: whole numbers, 0 <= low"),
        ({"actuation_lag_steps": (0, 2.5)}, "whole numbers"),
        ({"actuation_lag_steps": (0, 10_001)}, "<= 10000"),
        ({"actuation_lag_steps": 2}, "2 is not allowed; allowed: whole numbers, 0 <= low"),
        ({"stuck_share": (0.1,)}, r"\[0.1\] is not allowed; allowed: 0 <= low <= high <= 1$"),
        ({"stuck_share": [0.0, 0.1, 0.2]}, r"\[0.0, 0.1, 0.2\] is not allowed"),
        ({"measurement_phase": (0.0, 1.1)}, r"0 <= low <= high <= 1$"),
        ({"field_dropout": (-0.1, 0.1)}, r"0 <= low <= high <= 1$"),
        ({"rate_dropout": (0.0, float("nan"))}, r"0 <= low <= high <= 1$"),
        ({"stuck_share": (0.2, 0.1)}, r"0 <= low <= high <= 1$"),
    ],
)
def test_ranges_out_of_bounds_are_refused_by_name(wrong, allowed):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: .*{allowed}"):
        Randomisation(**wrong)


def test_the_configurations_schema_knows_the_ranges():
    randomisation = json_schema()["$defs"]["Randomisation"]["properties"]
    assert set(ALL_ON) <= set(randomisation)
    lag = randomisation["actuation_lag_steps"]["anyOf"][0]["prefixItems"][0]
    assert (lag["type"], lag["minimum"], lag["maximum"]) == ("integer", 0, 10_000)
    phase = randomisation["measurement_phase"]["prefixItems"][0]
    assert (phase["type"], phase["minimum"], phase["maximum"]) == ("number", 0, 1)
