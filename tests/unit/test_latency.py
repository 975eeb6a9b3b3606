"""Late requests and waiting times against cases worked out by hand and against queueing theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot_envs.autoscale.latency import fluid_late_share, longest_wait_p95_seconds, waiting


def late(slope, room, interval=10.0):
    with np.errstate(all="ignore"):
        return float(fluid_late_share(np.array([slope]), np.array([room]), interval)[0])


@pytest.mark.parametrize(
    ("slope", "room", "share", "why"),
    [
        (5.0, 25.0, 0.5, "the backlog passes the room half-way"),
        (5.0, 100.0, 0.0, "the room lasts the interval"),
        (5.0, 0.0, 1.0, "no room at all"),
        (5.0, -10.0, 1.0, "late already, and getting worse"),
        (-5.0, -25.0, 0.5, "late for the first half, until the backlog has drained"),
        (-5.0, -100.0, 1.0, "does not drain in time"),
        (-5.0, 10.0, 0.0, "never late"),
        (0.0, 1.0, 0.0, "steady with room"),
        (0.0, 0.0, 0.0, "steady at the limit is in time"),
        (0.0, -1.0, 1.0, "steady without room"),
    ],
)
def test_the_fluid_share_is_the_time_over_the_limit(slope, room, share, why):
    assert late(slope, room) == pytest.approx(share), why


def wait_of(arrival, replicas, backlog=0.0, slo=0.2, capacity=20.0):
    with np.errstate(all="ignore"):
        return waiting(
            np.array([float(arrival)]),
            np.array([replicas * capacity]),
            np.array([float(replicas)]),
            np.array([float(backlog)]),
            wait_slo_seconds=slo,
            interval_seconds=15.0,
        )


def erlang_c(replicas, load):
    """Waiting probability of M/M/c, from its definition."""
    offered = replicas * load
    terms = [offered**k / math.factorial(k) for k in range(replicas)]
    last = offered**replicas / math.factorial(replicas) / (1 - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize("replicas", [1, 2, 5, 10, 30])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.9])
def test_the_tail_is_close_to_erlangs_exact_waiting_probability(replicas, load):
    share = wait_of(load * replicas * 20, replicas, slo=0.0).late_share[0]
    assert share == pytest.approx(erlang_c(replicas, load), abs=0.055)


def test_one_replica_waits_with_the_probability_of_its_load_exactly():
    assert wait_of(12, 1, slo=0.0).late_share[0] == pytest.approx(0.6)
    assert wait_of(12, 1, slo=0.2).late_share[0] == pytest.approx(0.6 * math.exp(-8 * 0.2))


def test_the_95_per_cent_wait_is_the_tails_own_quantile():
    wait = wait_of(12, 1).wait_p95_seconds[0]
    assert 0.6 * math.exp(-8 * wait) == pytest.approx(0.05)
    assert wait_of(0.5, 1).wait_p95_seconds[0] == 0.0


def test_an_idle_service_is_never_late():
    idle = wait_of(0, 3)
    assert idle.late_share.tolist() == [0.0]
    assert idle.wait_p95_seconds.tolist() == [0.0]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(0, 5000), st.integers(1, 200), st.floats(0, 1e5), st.floats(0, 5), st.floats(0.5, 500))
def test_shares_stay_between_0_and_1_and_waits_below_their_bound(arrival, replicas, backlog, slo, capacity):
    wait = wait_of(arrival, replicas, backlog, slo, capacity)
    assert 0 <= wait.late_share[0] <= 1
    assert 0 <= wait.wait_p95_seconds[0] <= longest_wait_p95_seconds(capacity) * (1 + 1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(1, 2000), st.integers(1, 100), st.floats(0, 1e4))
def test_another_replica_never_makes_more_requests_late(arrival, replicas, backlog):
    fewer, more = (wait_of(arrival, n, backlog).late_share[0] for n in (replicas, replicas + 1))
    assert more <= fewer + 1e-12


def test_the_specifications_late_share_is_ours_over_random_intervals(golden):
    reference, rng = golden("autoscale"), np.random.default_rng(0)
    for _ in range(200):
        replicas, rate, backlog = (
            int(rng.integers(1, 60)),
            float(rng.uniform(0, 1500)),
            float(rng.choice([0, rng.uniform(0, 5000)])),
        )
        service = reference.Autoscale()
        service.reset(100.0)
        service.ready, service.starting, service.backlog = replicas, [0] * 4, backlog
        expected = service.step(replicas, rate)
        wait = wait_of(rate, replicas, backlog)
        assert wait.late_share[0] * rate * 15 == pytest.approx(expected["late"], rel=1e-9, abs=1e-9)
