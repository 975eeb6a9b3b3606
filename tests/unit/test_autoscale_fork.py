"""Copies of Autoscale's services in the middle of an episode."""

import copy

import numpy as np
import pytest

from scalepilot_envs.autoscale.env import AutoscaleBatch
from scalepilot_envs.queue_scaling import QueueScalingBatch
from scalepilot_envs.registration import ENVS
from scalepilot_envs.workloads import RateSeries

NUM_ENVS, STEPS = 5, 30
DISTURBED = {
    "workload_scale": (0.5, 1.5),
    "capacity_scale": (0.5, 2.0),
    "startup_scale": (0.5, 2.0),
    "surges_per_hour": 20.0,
    "measurement_noise": (0.1, 0.3),
    "actuation_lag_steps": (0, 2),
    "measurement_phase": (0.0, 1.0),
    "field_dropout": (0.1, 0.5),
    "rate_dropout": (0.1, 0.5),
    "stuck_share": (0.1, 0.5),
}
KINDS = {
    "plain": {},
    "late metrics and a clock": {"params": {"metric_lag_steps": 2, "actuation_lag_steps": 1, "observe_clock": True}},
    "everything disturbed": {"randomisation": DISTURBED},
    "to zero replicas": {"params": {"min_replicas": 0}},
    "probes and queues that stay": {
        "params": {"load_balancing": "random", "backlog_stays": True, "min_replicas": 0},
        "randomisation": DISTURBED
        | {
            "arrival_dispersion": (0.0, 9.0),
            "readiness_timeout_seconds": (0.5, 5.0),
            "readiness_period_seconds": (2.0, 9.0),
            "services": {"interval_multiples": (1, 3)},
        },
    },
    "other services with a past": {
        "params": {"observe_service": True, "long_window_steps": 32, "max_replicas": 100},
        "randomisation": DISTURBED
        | {
            "past_steps": (10, 60),
            "relative_reward": True,
            "services": {
                "replica_capacity_rps": (10.0, 50.0),
                "startup_seconds": (15.0, 120.0),
                "price_per_late_request": (1e-4, 1e-2),
                "interval_multiples": (1, 3),
                "max_replicas": (20, 100),
            },
        },
    },
}


def batch_of(num_envs=NUM_ENVS, **kwargs):
    rates = 200.0 + 150.0 * np.sin(np.arange(400) / 7.0)
    batch = AutoscaleBatch(num_envs, workload=RateSeries(rates, 15.0), episode_steps=STEPS, **kwargs)
    batch.seed_streams(range(num_envs))
    batch.reset_batch()
    return batch


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_under_the_actions_taken_is_what_happened_to_the_bit(kind):
    batch, rng = batch_of(**copy.deepcopy(KINDS[kind])), np.random.default_rng(0)
    actions = rng.integers(0, 8, (STEPS, NUM_ENVS))
    for action in actions[:11]:
        batch.step_batch(action)
    of = np.array([3, 0, 3, 4, 1, 2, 2])
    fork = batch.fork(of)
    # One that went another way, and a fork of a fork, are nobody's business.
    batch.fork(of).step_batch(np.zeros(len(of), dtype=np.int64))
    again = fork.fork(np.arange(len(of)))
    for action in actions[11:]:
        real, copied, twice = batch.step_batch(action), fork.step_batch(action[of]), again.step_batch(action[of])
        for step in (copied, twice):
            assert np.array_equal(step.observation, real.observation[of])
            assert np.array_equal(step.reward, real.reward[of])
            assert np.array_equal(step.truncated, real.truncated[of])
            assert all(np.array_equal(step.info[name], column[of]) for name, column in real.info.items())
    assert real.truncated.all()


def test_another_action_meets_the_same_traffic_and_changes_nothing_of_the_original():
    batch, other = batch_of(), batch_of()
    hold, grow = np.full(NUM_ENVS, 3), np.full(NUM_ENVS, 7)
    fork = batch.fork(np.arange(NUM_ENVS))
    taken, tried = batch.step_batch(hold), fork.step_batch(grow)
    assert np.array_equal(tried.info["arrived_requests"], taken.info["arrived_requests"])
    assert (tried.info["billed_replicas"] > taken.info["billed_replicas"]).all()
    assert np.array_equal(taken.observation, other.step_batch(hold).observation)


def test_a_service_alone_forks_too():
    batch = batch_of(1)
    fork = batch.fork(np.zeros(8, dtype=np.int64))
    step = fork.step_batch(np.arange(8))
    assert step.observation[4].tolist() == batch.step_batch(np.array([4])).observation[0].tolist()


def test_a_fork_is_never_reset():
    with pytest.raises(RuntimeError, match="a fork is never reset"):
        batch_of().fork(np.arange(2)).reset_batch()


def test_environments_that_cannot_fork_say_so():
    assert [entry.env_id for entry in ENVS.values() if entry.can_fork] == ["scalepilot/Autoscale-v0"]
    with pytest.raises(NotImplementedError, match="QueueScalingBatch cannot fork"):
        QueueScalingBatch(1).fork(np.array([0]))
