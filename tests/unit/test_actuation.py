"""Targets that take effect late: when they are served, billed and seen."""

from __future__ import annotations

import numpy as np
import pytest

from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.autoscale.env import make_env, make_vector_env
from scalepilot_envs.workloads import RateSeries

STEADY = RateSeries(np.full(64, 100.0), 15.0)
REPLICAS = slice(15, 20)  # ready, and starting by quarter


def run(targets, lag, num_envs=1, **params):
    """What each step billed and changed, and the replicas seen after it: (steps, num_envs), the same, (steps, num_envs, 5)."""
    batch = AutoscaleBatch(
        num_envs, workload=STEADY, arrivals="exact", params={"actuation_lag_steps": lag, **params}, episode_steps=20
    )
    batch.reset_batch(None, {"rates_rps": np.full((num_envs, 20), 100.0)})
    billed, changes, seen = [], [], []
    for target in targets:
        step = batch.step_targets(np.full(num_envs, target))
        billed.append(step.info["billed_replicas"].copy())
        changes.append(step.info["change_replicas"].copy())
        seen.append(step.observation[:, REPLICAS])
    return np.array(billed), np.array(changes), np.array(seen)


KNOWN = {
    # lag: (target, billed, change, ready and starting by quarter that the next observation shows), a step a row
    1: (
        (12, 8, 4, [8, 0, 0, 0, 4]),
        (12, 12, 0, [8, 0, 0, 4, 0]),
        (9, 12, -3, [8, 0, 1, 0, 0]),
        (5, 9, -4, [5, 0, 0, 0, 0]),
        (99, 5, 55, [5, 0, 0, 0, 55]),
        (60, 60, 0, [5, 0, 0, 55, 0]),
    ),
    2: (
        (12, 8, 0, [8, 0, 0, 0, 0]),
        (12, 8, 4, [8, 0, 0, 0, 4]),
        (9, 12, 0, [8, 0, 0, 4, 0]),
        (5, 12, -3, [8, 0, 1, 0, 0]),
        (99, 9, -4, [5, 0, 0, 0, 0]),
        (60, 5, 55, [5, 0, 0, 0, 55]),
    ),
}


@pytest.mark.parametrize("lag", KNOWN)
def test_a_late_target_is_served_billed_and_seen_as_worked_out_by_hand(lag):
    targets, billed, changes, seen = zip(*KNOWN[lag], strict=True)
    found = run(targets, lag)
    assert found[0][:, 0].tolist() == list(billed)
    assert found[1][:, 0].tolist() == list(changes)
    assert found[2][:, 0].tolist() == list(seen)


def test_a_replica_ordered_with_a_lag_serves_its_start_up_time_after_it_took_effect():
    ready = {lag: run([12] * 8, lag)[2][:, 0, 0].tolist() for lag in (0, 1, 3)}
    assert ready == {0: [8] * 3 + [12] * 5, 1: [8] * 4 + [12] * 4, 3: [8] * 6 + [12] * 2}


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_a_lag_costs_what_the_same_targets_cost_so_much_later(lag):
    targets = np.random.default_rng(lag).integers(3, 40, 60)
    costs = {}
    for at, given in ((lag, targets), (0, np.concatenate([np.full(lag, 8), targets[:-lag]]))):
        env = make_env(workload=STEADY, params={"actuation_lag_steps": at}, episode_steps=60)
        env.reset(seed=3)
        costs[at] = [env.step_targets(int(t))[-1]["J"] for t in given]
    np.testing.assert_array_equal(costs[lag], costs[0])


def test_a_move_is_paid_in_the_step_at_whose_end_it_takes_effect():
    env = make_env(workload=STEADY, params={"actuation_lag_steps": 1, "price_per_move": 2.0}, episode_steps=8)
    env.reset(seed=0)
    assert [env.step_targets(t)[-1]["move_cost"] for t in (10, 10, 9)] == [4.0, 0.0, 2.0]


def test_a_lag_forgets_the_last_episode_where_one_begins():
    envs = make_vector_env(2, autoreset_mode="Disabled", workload=STEADY, params={"actuation_lag_steps": 3}, episode_steps=20)
    envs.reset(options={"rates_rps": np.full((2, 20), 100.0)})
    for _ in range(4):
        envs.step_targets(np.array([30, 30]))
    envs.reset(options={"rates_rps": np.full((2, 20), 40.0), "reset_mask": np.array([True, False])})
    billed = [envs.step_targets(np.array([20, 20]))[-1]["billed_replicas"].tolist() for _ in range(4)]
    assert billed == [[3, 30], [3, 30], [3, 30], [20, 20]]


def test_moves_are_relative_to_the_replicas_there_are_and_not_to_those_on_their_way():
    env = make_env(workload=STEADY, params={"actuation_lag_steps": 2}, episode_steps=8)
    env.reset(seed=0)
    seen = [env.step(7)[0][REPLICAS].sum() for _ in range(4)]
    assert seen == [8, 16, 16, 32], "+100 % of 8 twice, then of 16"


@pytest.mark.parametrize("wrong", [-1, 1.5, 10_001])
def test_a_lag_that_means_nothing_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"actuation_lag_steps: .* is not allowed; allowed: whole numbers from 0 to 10000"):
        AutoscaleParams(actuation_lag_steps=wrong)
