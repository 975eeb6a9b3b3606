"""The latency model's reference: a recursion that agrees with SimPy request by request, and what the model says beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.latency_model import page, steady_state
from benchmarks.latency_model.steady_state import Cell, Measured
from benchmarks.queue_simulation import DROPPED, Requests, lindley, poisson_requests, simulate, simulate_with_simpy

from scalepilot_envs.autoscale.erlang import erlang_c

BALANCINGS = ("central", "random")
SERVICE = 0.05


def requests_and_replicas(seed):
    """Two minutes over 1 to 5 replicas that change every 2 s, idle and overloaded by turns."""
    rng = np.random.default_rng(seed)
    ready = rng.integers(1, 6, 20)
    counts = rng.poisson(rng.uniform(0, 1.6, 20) * ready * 2.0 / SERVICE)
    return poisson_requests(counts, 2.0, SERVICE, rng), ready


@pytest.mark.parametrize("load_balancing", BALANCINGS)
@pytest.mark.parametrize("max_waiting", [math.inf, 15.0, 7.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_recursion_and_simpy_agree_on_every_request_while_replicas_come_and_go(seed, max_waiting, load_balancing):
    requests, ready = requests_and_replicas(seed)
    told = {"interval_seconds": 2.0, "load_balancing": load_balancing, "max_waiting_per_replica": max_waiting}
    fast, reference = (model(requests, ready, **told) for model in (simulate, simulate_with_simpy))
    np.testing.assert_array_equal(fast == DROPPED, reference == DROPPED)
    np.testing.assert_allclose(fast, reference, rtol=0, atol=1e-9)
    assert (fast == DROPPED).any() == (max_waiting < math.inf)
    assert 0.05 < (fast > 0.2).mean() < 0.95, "neither idle nor hopeless"


def test_the_agreement_would_notice_a_replica_too_many():
    requests, ready = requests_and_replicas(0)
    told = {"interval_seconds": 2.0, "load_balancing": "central"}
    assert np.abs(simulate(requests, ready, **told) - simulate_with_simpy(requests, ready + 1, **told)).max() > 0.1


def by_hand(arrival, service, route=0.0):
    return Requests(np.array(arrival), np.array(service), np.broadcast_to(route, len(arrival)).astype(float))


def test_one_replica_serves_in_the_order_of_arrival():
    requests = by_hand([0.0, 1.0, 2.0, 9.0], [3.0, 2.0, 1.0, 1.0])
    expected = [0.0, 2.0, 3.0, 0.0]
    for load_balancing in BALANCINGS:
        assert simulate(requests, np.array([1]), interval_seconds=15.0, load_balancing=load_balancing).tolist() == expected
    assert lindley(requests.arrival_seconds, requests.service_seconds).tolist() == expected


@pytest.mark.parametrize("model", [simulate, simulate_with_simpy])
def test_a_replica_that_leaves_ends_its_request_and_hands_its_queue_back(model):
    # Both requests go to the second replica (route 0.9 of 2), which leaves at 10 s: the second one moves to the first.
    requests = by_hand([1.0, 2.0], [20.0, 1.0], 0.9)
    waits = model(requests, np.array([2, 1]), interval_seconds=10.0, load_balancing="random")
    assert waits.tolist() == [0.0, 8.0]


@pytest.mark.parametrize("model", [simulate, simulate_with_simpy])
def test_a_replica_that_comes_takes_the_head_of_the_central_queue_at_once(model):
    requests = by_hand([1.0, 2.0, 3.0], [20.0, 1.0, 1.0])
    waits = model(requests, np.array([1, 2]), interval_seconds=10.0, load_balancing="central")
    assert waits.tolist() == [0.0, 8.0, 8.0]


@pytest.mark.parametrize("load_balancing", BALANCINGS)
@pytest.mark.parametrize("model", [simulate, simulate_with_simpy])
def test_an_arrival_that_finds_the_queue_full_is_dropped(model, load_balancing):
    requests = by_hand([0.0, 1.0, 2.0, 3.0, 6.0], [5.0, 1.0, 1.0, 1.0, 1.0])
    waits = model(requests, np.array([1]), interval_seconds=15.0, load_balancing=load_balancing, max_waiting_per_replica=2)
    assert waits.tolist() == [0.0, 4.0, 4.0, DROPPED, 1.0]


def test_requests_keep_the_counts_of_their_intervals_and_the_mean_service():
    counts = np.array([300, 0, 500])
    requests = poisson_requests(counts, 15.0, SERVICE, np.random.default_rng(0))
    assert np.bincount((requests.arrival_seconds / 15.0).astype(int), minlength=3).tolist() == counts.tolist()
    assert (np.diff(requests.arrival_seconds) >= 0).all()
    assert requests.service_seconds.mean() == pytest.approx(SERVICE, rel=0.1)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (10, 0.8)])
def test_the_simulated_share_that_waits_and_the_95_per_cent_wait_are_erlangs(servers, load):
    cell = Cell("central", servers, load)
    waits = steady_state.steady_waits(cell, 400_000, np.random.default_rng(0))
    assert (waits > 0).mean() == pytest.approx(float(erlang_c(servers, np.array([load]))[0]), abs=0.01)
    assert np.quantile(waits, 0.95) == pytest.approx(steady_state.model_p95_seconds(cell, "erlang_c"), rel=0.04)


def test_under_random_balancing_every_replica_is_an_m_m_1_queue():
    cell = Cell("random", 5, 0.8)
    waits = steady_state.steady_waits(cell, 400_000, np.random.default_rng(0))
    assert (waits > 0).mean() == pytest.approx(0.8, abs=0.01)
    assert np.quantile(waits, 0.95) == pytest.approx(steady_state.model_p95_seconds(cell, "sakasegawa"), rel=0.04)


@pytest.mark.parametrize("cell", steady_state.cells())
def test_the_exact_model_gives_the_quantile_of_the_theory(cell):
    alone = cell.load_balancing == "random"
    servers = 1 if alone else cell.servers
    waits = float(erlang_c(servers, np.array([cell.load]))[0])
    drain = servers * steady_state.CAPACITY_RPS * (1 - cell.load)
    theory = max(0.0, math.log(waits / 0.05)) / drain
    assert steady_state.model_p95_seconds(cell, "erlang_c") == pytest.approx(theory, rel=1e-3, abs=1e-9)


def measured(load_balancing, servers, load, simulated, sakasegawa, exact):
    return Measured(Cell(load_balancing, servers, load), simulated, simulated / 100, sakasegawa, exact, 10)


@pytest.mark.parametrize(
    ("simulated", "said", "error"), [(0.0, 0.0, 0.0), (0.0, 0.1, 100.0), (0.1, 0.0, -100.0), (0.1, 0.12, 20.0)]
)
def test_errors_are_relative_and_nothing_is_never_taken_for_agreement(simulated, said, error):
    assert measured("central", 2, 0.5, simulated, said, said).error_percent("erlang_c") == pytest.approx(error)


def test_the_table_marks_what_is_beyond_the_bar_and_sums_up():
    cells = [
        measured(balancing, servers, load, 0.1, 0.12 if servers == 2 else 0.11, 0.101)
        for balancing in BALANCINGS
        for servers in steady_state.SERVERS
        for load in steady_state.LOADS
    ]
    table = page.p95_table(cells)
    assert "| 2 | 0.5 | 100.0 ± 1.0 | **120.0 (+20.0 %)** | 101.0 (+1.0 %) | 100.0 ± 1.0 | 101.0 (+1.0 %) |" in table
    assert "`sakasegawa`: largest error 20.0 %, mean 12.0 %, 6 of 30 cells beyond 15 %." in table


def test_generated_sections_are_replaced_and_the_text_around_them_is_kept():
    text = "before\n<!-- generated:a -->\nold\n<!-- end:a -->\nafter\n"
    assert page.with_section(text, "a", "new\n") == "before\n<!-- generated:a -->\nnew\n<!-- end:a -->\nafter\n"
    with pytest.raises(ValueError, match=r"markers .*generated:b"):
        page.with_section(text, "b", "new\n")


def test_the_published_page_has_both_sections_filled(repo):
    text = (repo / "docs" / "latency.md").read_text(encoding="utf-8")
    for name in ("steady_state", "late_share"):
        body = text.partition(f"<!-- generated:{name} -->\n")[2].partition(f"<!-- end:{name} -->")[0]
        assert body.count("\n|") > 5, name
    assert (repo / "docs" / "images" / "latency_model.png").is_file()
