"""Late requests and waiting times against cases worked out by hand and against queueing theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams, erlang
from scalepilot_envs.autoscale.latency import fluid_late_share, longest_wait_p95_seconds, waiting, waiting_for
from scalepilot_envs.workloads import RateSeries

MODELS = ({}, {"waiting_probability": "erlang_c"}, {"load_balancing": "random"})


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


def wait_of(arrival, replicas, backlog=0.0, slo=0.2, capacity=20.0, **model):
    with np.errstate(all="ignore"):
        return waiting(
            np.array([float(arrival)]),
            np.array([replicas * capacity]),
            np.array([float(replicas)]),
            np.array([float(backlog)]),
            wait_slo_seconds=slo,
            interval_seconds=15.0,
            **model,
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
    for model in MODELS:
        wait = wait_of(arrival, replicas, backlog, slo, capacity, **model)
        assert 0 <= wait.late_share[0] <= 1 + 1e-12, model
        assert 0 <= wait.wait_p95_seconds[0] <= longest_wait_p95_seconds(capacity) * (1 + 1e-9), model


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(1, 2000), st.integers(1, 100), st.floats(0, 1e4))
def test_another_replica_never_makes_more_requests_late(arrival, replicas, backlog):
    for model in MODELS:
        fewer, more = (wait_of(arrival, n, backlog, **model).late_share[0] for n in (replicas, replicas + 1))
        # The table of Erlang C is within 2e-5.
        assert more <= fewer + (4e-5 if "waiting_probability" in model else 1e-12), model


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


@pytest.mark.parametrize(
    ("servers", "load", "known"),
    # One server waits with its load; two with 2ρ² / (1 + ρ); the others are in every table of Erlang C.
    [(1, 0.6, 0.6), (2, 0.5, 1 / 3), (2, 0.9, 2 * 0.81 / 1.9), (10, 0.6, 0.1013), (10, 0.9, 0.6687), (5, 0.8, 0.5541)],
)
def test_erlang_c_has_its_known_values(servers, load, known):
    assert erlang.erlang_c(servers, np.array([load]))[0] == pytest.approx(known, abs=5e-5)
    assert erlang_c(servers, load) == pytest.approx(known, abs=5e-5)
    assert wait_of(load * servers * 20, servers, slo=0.0, waiting_probability="erlang_c").late_share[0] == pytest.approx(
        known, abs=1e-4
    )


@pytest.mark.parametrize("servers", [1, 2, 3, 7, 20, 60, 127, 128, 129, 170, 250, 500, 1000, 3000, 20_000])
def test_the_table_of_erlang_c_is_within_2e_5_for_few_and_many_servers(servers):
    spread = min(1.0, 5.5 / math.sqrt(servers))
    load = 1.0 - np.concatenate([[0.0, 1.0], np.random.default_rng(servers).uniform(0, spread, 300)])
    exact = erlang.erlang_c(servers, load)
    assert np.abs(erlang.waiting_probability(np.full(load.shape, float(servers)), load) - exact).max() < 2e-5


def test_a_batch_of_few_and_many_servers_reads_the_same_as_each_alone():
    servers, load = np.array([3.0, 128.0, 129.0, 5000.0, 1e6]), np.array([0.5, 0.9, 0.95, 0.99, 0.999])
    together = erlang.waiting_probability(servers, load)
    alone = [erlang.waiting_probability(servers[i : i + 1], load[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-15)


def test_the_exact_95_per_cent_wait_is_the_quantile_of_m_m_c():
    # C = 0.4093 of five servers at 0.7: ln(C / 0.05) / (5 · 20 · 0.3).
    wait = wait_of(70, 5, waiting_probability="erlang_c").wait_p95_seconds[0]
    assert wait == pytest.approx(math.log(erlang_c(5, 0.7) / 0.05) / 30.0, rel=1e-4)
    assert wait_of(70, 5).wait_p95_seconds[0] != pytest.approx(wait, rel=1e-3), "the specification's approximates it"
    assert wait_of(500, 50, waiting_probability="erlang_c").wait_p95_seconds[0] == 0.0


def test_random_balancing_is_a_single_queue_a_replica():
    alone, spread = wait_of(14, 1), wait_of(5 * 14, 5, load_balancing="random")
    assert spread.late_share[0] == pytest.approx(alone.late_share[0], rel=1e-12)
    assert spread.wait_p95_seconds[0] == pytest.approx(alone.wait_p95_seconds[0], rel=1e-12)
    assert spread.late_share[0] == pytest.approx(0.7 * math.exp(-6 * 0.2))
    assert spread.late_share[0] > 50 * wait_of(5 * 14, 5).late_share[0], "it is what a central queue avoids"


def test_the_fluid_part_does_not_know_how_requests_are_balanced():
    # With a backlog that lasts the interval everybody is late; with an overload that begins half-way, half of them.
    for model in MODELS:
        assert wait_of(90, 5, backlog=5000.0, **model).late_share[0] == pytest.approx(1.0)
        assert wait_of(200, 5, **model).late_share[0] > 0.98


@pytest.mark.parametrize("model", MODELS)
def test_waiting_for_passes_on_what_the_parameters_say_and_the_environment_uses_it(model):
    params = AutoscaleParams(wait_slo_seconds=0.3, interval_seconds=10.0, **model)
    batch = AutoscaleBatch(1, workload=RateSeries(np.full(4, 150.0), 10.0), params=params, arrivals="exact", episode_steps=4)
    batch.reset_batch(None, {"rates_rps": np.full((1, 4), 150.0)})
    ready = batch.state.ready.copy()
    outcome = batch.advance(np.array([11.0]))
    one = np.ones(1)
    with np.errstate(all="ignore"):
        said = waiting_for(params, 150 * one, 20 * ready, ready, 0 * one)
        expected = waiting(150 * one, 20 * ready, ready, 0 * one, wait_slo_seconds=0.3, interval_seconds=10.0, **model)
        other = waiting(150 * one, 20 * ready, ready, 0 * one, wait_slo_seconds=0.2, interval_seconds=10.0, **model)
    assert (said.late_share, said.wait_p95_seconds) == (expected.late_share, expected.wait_p95_seconds)
    assert said.late_share != other.late_share
    assert outcome.late == pytest.approx(1500 * said.late_share)
    assert batch.state.latency_p95_seconds == pytest.approx(0.05 + said.wait_p95_seconds)
