"""The best causal policy on a Markov-modulated workload: what the simulator charges for it, and what nothing causal beats."""

from __future__ import annotations

import itertools
import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.evaluate.causal import CAUSAL_OPTIMUM, above_causal
from scalepilot.evaluate.evaluation import OptimumOptions, causal_row, evaluate
from scalepilot.evaluate.store import summary
from scalepilot.policy import Policy
from scalepilot.policy.rules import Hpa, HpaParameters, Static, StaticParameters
from scalepilot.report.words.tables import comparison_notes
from scalepilot.simulate import EpisodeSet, protocol_v1, run_episodes, traffic_scenario
from scalepilot.simulate.optimum import autoscale_optimum, causal_optimum
from scalepilot.simulate.optimum.causal_interval import interval_model, poisson
from scalepilot.simulate.optimum.ready_replicas import BacklogGrid, late_and_left
from scalepilot.simulate.optimum.replica_states import ReplicaStates
from scalepilot_envs.autoscale import DEFAULT_MOVES, AutoscaleParams, MoveTable
from scalepilot_envs.autoscale.dynamics import AutoscaleState
from scalepilot_envs.workloads import MarkovWorkload

STEPS = 60
SERVICE = AutoscaleParams(startup_seconds=30.0, max_replicas=6, max_wait_seconds=10.0, price_per_late_request=4e-5)
CHAIN = MarkovWorkload(levels_rps=(30.0, 55.0, 85.0), transitions=((0.97, 0.025, 0.005), (0.1, 0.5, 0.4), (0.08, 0.0, 0.92)))
SERVICES = {
    "two steps to start": SERVICE,
    "one step to start": replace(SERVICE, startup_seconds=15.0),
    "three steps to start": replace(SERVICE, startup_seconds=45.0, max_replicas=5),
    "paid moves": replace(SERVICE, price_per_move=0.004),
    "none at least": replace(SERVICE, min_replicas=0, price_per_late_request=2e-5),
    "random balancing": replace(SERVICE, load_balancing="random"),
}


def episodes_of(chain, count, params=SERVICE, steps=STEPS, arrivals_seed=1):
    """Independent episodes of the chain."""
    rng = np.random.default_rng(arrivals_seed)
    phases = np.empty((count, steps), dtype=int)
    phases[:, 0] = rng.choice(len(chain.levels_rps), count, p=chain.stationary)
    for t in range(1, steps):
        phases[:, t] = (rng.random(count)[:, None] > np.cumsum(chain.transition_matrix[phases[:, t - 1]], axis=1)).sum(axis=1)
    rates = np.array(chain.levels_rps)[phases]
    arrived = rng.poisson(rates * params.interval_seconds).astype(np.float64)
    return EpisodeSet("markov", rates, arrived, np.arange(count), np.zeros(count, int), np.zeros(count))


@pytest.mark.parametrize("name", SERVICES)
def test_what_the_simulator_charges_is_what_the_program_expects(name):
    params = SERVICES[name]
    best, episodes = causal_optimum(CHAIN, params, STEPS), episodes_of(CHAIN, 2000)
    charged = run_episodes(best.policy, episodes, params)[0]["J_per_hour"]
    difference = charged - best.by_episode(best.expected_J_per_hour, episodes.rates_rps[:, 0])
    assert abs(difference.mean()) < 3.5 * difference.std() / np.sqrt(len(difference))
    assert difference.std() / np.sqrt(len(difference)) < 0.02 * charged.mean()
    assert (best.lower_J_per_hour <= best.expected_J_per_hour * (1 + 1e-9)).all()
    assert (best.expected_J_per_hour <= best.lower_J_per_hour * 1.01).all()


def test_no_rule_costs_less_and_clairvoyance_does():
    best, episodes = causal_optimum(CHAIN, SERVICE, STEPS), episodes_of(CHAIN, 400)
    ours = run_episodes(best.policy, episodes, SERVICE)[0]["J_per_hour"]
    rules = [Static(StaticParameters(n), SERVICE) for n in range(1, 7)]
    for target, down in itertools.product((0.5, 0.65, 0.8, 0.95), (15, 60)):
        rules.append(Hpa(HpaParameters("rps", target, stabilisation_down_seconds=down), SERVICE))
    cheapest = min((run_episodes(rule, episodes, SERVICE)[0]["J_per_hour"] for rule in rules), key=np.mean)
    assert cheapest.mean() > 1.05 * ours.mean()
    few = episodes.at(np.arange(60))
    assert autoscale_optimum(few, SERVICE).lower_J_per_hour.mean() < ours[:60].mean()


def test_with_exact_arrivals_two_steps_agree_with_all_there_is_to_do():
    """By hand: over two steps the first target is chosen for the first phase, the second for the rate that was seen."""
    chain = replace(CHAIN, levels_rps=(30.0, 50.0, 85.0))
    params, matrix = replace(SERVICE, startup_seconds=15.0), chain.transition_matrix
    best = causal_optimum(chain, params, 2, arrivals="exact")
    targets = range(1, 7)
    for phase, rate in enumerate(chain.levels_rps):
        costs = []
        for first in targets:
            second = [[_cost(params, (rate, then), (first, n)) for n in targets] for then in chain.levels_rps]
            # The second target is given before the second rate is known.
            costs.append(min(matrix[phase] @ np.array(second)))
        hours = 2 / params.steps_per_hour
        # Backlogs lie on a grid of single requests at first.
        assert best.expected_J_per_hour[phase] == pytest.approx(min(costs) / hours, rel=2e-3)
        assert best.lower_J_per_hour[phase] <= min(costs) / hours * (1 + 1e-9)


def _cost(params, rates, targets):
    state = AutoscaleState(params, 1)
    state.reset(np.ones(1, dtype=bool), np.array([rates[0]]))
    steps = zip(targets, rates, strict=True)
    return sum(float(state.step(np.array([float(n)]), np.array([15.0 * r])).cost.total[0]) for n, r in steps)


def test_fewer_targets_cost_no_less():
    free, bound = (causal_optimum(CHAIN, SERVICE, STEPS, moves=moves) for moves in (None, MoveTable(DEFAULT_MOVES)))
    assert (bound.expected_J_per_hour >= free.expected_J_per_hour * (1 - 1e-12)).all()
    assert (bound.expected_J_per_hour <= free.expected_J_per_hour * 1.2).all()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_targets_lead_where_the_simulator_goes(steps):
    params = replace(SERVICE, startup_seconds=15.0 * steps, max_replicas=4)
    states = ReplicaStates(1, 4, steps)
    assert len(states) == ReplicaStates.count(1, 4, steps) == len({tuple(row) for row in states.states.tolist()})
    for i, row in enumerate(states.states):
        count = len(states.targets)
        service = AutoscaleState(params, count)
        service.reset(np.ones(count, dtype=bool), np.full(count, 20.0))
        service.ready[:] = row[0]
        service.starting[: steps - 1] = row[1:, None]
        outcome = service.step(states.targets.astype(float), np.zeros(count))
        np.testing.assert_array_equal(outcome.billed_replicas, states.targets)
        after = np.column_stack([service.ready, *service.starting[: steps - 1]]).astype(int)
        np.testing.assert_array_equal(states.index(after), states.after[i])


def test_poisson_counts_leave_nothing_out():
    for mean in (0.0, 0.3, 7.0, 2500.0):
        counts, shares = poisson(mean)
        assert shares.sum() == pytest.approx(1, abs=1e-12)
        assert counts @ shares == pytest.approx(mean, rel=1e-9, abs=1e-12)
        assert (counts - mean) ** 2 @ shares == pytest.approx(mean, rel=1e-8, abs=1e-12)


def test_an_interval_is_expected_as_it_is_drawn():
    grid, serving = BacklogGrid(1200.0, 300.0, 200), np.array([2.0, 3.0])
    model = interval_model(SERVICE, np.array([825.0]), serving, grid, exact=False)
    arrived = np.random.default_rng(0).poisson(825.0, 200_000).astype(np.float64)
    for k, replicas in enumerate(serving):
        late, left = late_and_left(SERVICE, arrived, np.array(replicas), np.array(replicas * 20.0), np.array(0.0))
        assert model.late[0, k, 0] == pytest.approx(late.mean(), rel=0.01)
        assert model.left[0, k, 0] @ grid.points == pytest.approx(left.mean(), rel=0.01, abs=0.01)
        np.testing.assert_allclose(model.left[0, k].sum(axis=1), 1.0)


def test_the_policy_is_a_policy_that_other_processes_can_take():
    best = causal_optimum(CHAIN, SERVICE, STEPS)
    assert isinstance(best.policy, Policy)
    copy, episodes = pickle.loads(pickle.dumps(best.policy)), episodes_of(CHAIN, 3)
    ours, theirs = (run_episodes(policy, episodes, SERVICE)[0]["J_per_hour"] for policy in (best.policy, copy))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("chain", "service", "message"),
    [
        (
            {"levels_rps": (30.0, 30.0, 85.0)},
            {},
            "workload.levels_rps: 30 and 30 cannot be told apart by the rate",
        ),
        ({"levels_rps": (30.0, 33.0, 85.0)}, {}, "workload.levels_rps: 30 and 33 cannot be told apart"),
        (
            {"interval_seconds": 60.0},
            {},
            "workload.interval_seconds: 60 is not allowed for the causal optimum; allowed:",
        ),
        ({}, {"metric_lag_steps": 1}, "env.params.metric_lag_steps: 1 is not allowed for the causal optimum; allowed: 0"),
        ({}, {"actuation_lag_steps": 2}, "env.params.actuation_lag_steps: 2 is not allowed"),
        (
            {},
            {"startup_seconds": 75.0},
            "env.params.startup_seconds: 75 is not allowed for the causal optimum",
        ),
        ({}, {"max_replicas": 60}, "env.params.max_replicas: 60 with a start-up of 2 steps has too many states"),
    ],
)
def test_what_cannot_be_computed_is_said(chain, service, message):
    with pytest.raises(InputError) as caught:
        causal_optimum(replace(CHAIN, **chain), replace(SERVICE, **service), STEPS)
    assert str(caught.value).startswith(message)


def test_a_comparison_on_such_traffic_has_the_causal_optimum_among_its_references(caplog):
    data = protocol_v1("markov", replace(CHAIN, num_steps=4000), SERVICE, window_steps=120, drawn_windows=2)
    row = causal_row(data, SERVICE)
    assert (row.name, row.role) == (CAUSAL_OPTIMUM, "reference")
    assert "no such policy is expected to cost less than" in row.detail
    assert causal_row(replace(data, workload=None), SERVICE) is None
    with caplog.at_level(logging.WARNING):
        assert causal_row(data, replace(SERVICE, metric_lag_steps=1)) is None
    assert "optimum (causal): left out: env.params.metric_lag_steps" in caplog.text


def test_a_comparison_says_how_far_the_others_are_above_it():
    data = protocol_v1("markov", replace(CHAIN, num_steps=9000), SERVICE, window_steps=120, drawn_windows=2, test_seeds=(0,))
    found = evaluate(
        traffic_scenario(data, SERVICE),
        [("static", Static(StaticParameters(5), SERVICE))],
        [Hpa(HpaParameters("rps", 0.8), SERVICE, name="hpa")],
        bootstrap_samples=50,
        optimum=OptimumOptions(),
    )
    above = above_causal(found)
    cost, best = found.figure("hpa").mean, found.figure(CAUSAL_OPTIMUM).mean
    assert above["hpa"].mean == pytest.approx(cost / best - 1)
    assert above["static"].mean > 0
    assert "Cost above optimum (causal): static " in comparison_notes(found)[0]
    assert summary(found)["above_causal_optimum"]["hpa"]["mean"] == pytest.approx(cost / best - 1)
    # The gap is closed towards what no policy reaches, as on any other traffic.
    assert found.gap_reference.name == "optimum"
    without = replace(found, contenders=tuple(c for c in found.contenders if c.name != CAUSAL_OPTIMUM))
    assert above_causal(without) == {}
    assert "above_causal_optimum" not in summary(without)
