"""One policy that sees the price of a late request, run at several of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scalepilot.config import config_from_mapping
from scalepilot.evaluate.compare import read_evaluation, write_evaluation
from scalepilot.evaluate.evaluation import LineupRow, Trained, evaluate, evaluate_lineups, with_references
from scalepilot.evaluate.front import FACTORS
from scalepilot.evaluate.store import summary
from scalepilot.policy import Decision
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot.report.html.chart_data import chart_data
from scalepilot.report.words.tables import comparison_notes
from scalepilot.simulate import CellStore, SerialExecutor
from scalepilot.simulate.scenario import scenario_of
from scalepilot_envs.autoscale import PRICE_FIELD, AutoscaleParams

SEES = AutoscaleParams(observe_service=True)


@pytest.fixture(scope="module")
def scenario():
    small = {"window_steps": 60, "drawn_windows": 2, "test_seeds": [0, 1]}
    return scenario_of(config_from_mapping({"workload": {"kind": "diurnal", "days": 2}, "evaluation": small}))


class ByPrice:
    """As many replicas as the price of a late request says, and nothing else."""

    def __init__(self, spec, per_price=4.0):
        self.spec, self._per_price, self.asked = spec, per_price, 0
        self._price = [f.name for f in spec.observation_fields].index(PRICE_FIELD)

    def act(self, observation, state=None, *, deterministic=True, rng=None):
        self.asked += 1
        return Decision(np.ceil(self._per_price * 1000 * observation[:, self._price]).astype(float)), None


@pytest.fixture
def found(scenario, tiny_network):
    policies = [("turns", ByPrice(tiny_network(params=SEES).spec)), ("plain", tiny_network())]
    return evaluate(scenario, policies, [Hpa(HpaParameters(), scenario.env, name="hpa")], bootstrap_samples=50)


def test_each_price_is_a_point_and_its_own_is_the_row(found):
    assert list(found.fronts) == ["turns"]
    points = found.fronts["turns"]
    assert [point.factor for point in points] == sorted([1.0, *FACTORS])
    assert [point.late_request_replica_hours for point in points] == pytest.approx([0.00025, 0.0005, 0.001, 0.002, 0.004])
    own = points[2]
    row = found.rows["turns"]
    assert (own.cost, own.late_share, own.J) == tuple(row[name].mean for name in ("cost", "late_share", "J"))
    # What is charged stays: more replicas cost more, and fewer requests are late.
    costs, late = [point.cost for point in points], [point.late_share for point in points]
    assert costs == sorted(costs)
    assert late == sorted(late, reverse=True)
    assert costs[0] < costs[-1]


def test_the_front_is_stored_read_told_and_drawn(found, tmp_path):
    write_evaluation(found, tmp_path)
    assert read_evaluation(tmp_path).fronts == found.fronts
    stored = summary(found)["fronts"]["turns"]
    assert set(stored[0]) == {"factor", "late_request_replica_hours", "cost", "late_share", "J"}
    (told,) = [note for note in comparison_notes(found) if "price" in note]
    assert told.startswith("turns shown the price of a late request ×0.25 … ×4: replica cost")
    (drawn,) = chart_data([found])[0]["scatter"]["fronts"]
    assert drawn["name"] == "turns"
    assert [point["factor"] for point in drawn["points"]] == [0.25, 0.5, 1, 2, 4]
    # One replica, which nobody undercuts: what a policy can be turned to can be deployed.
    assert drawn["points"][0]["front"]
    assert all(math.isfinite(point["cost"]) and math.isfinite(point["late"]) for point in drawn["points"])


def test_without_such_policies_nothing_more_is_run_or_written(scenario, tiny_network):
    found = evaluate(scenario, [("plain", tiny_network())], [], bootstrap_samples=50)
    assert found.fronts == {}
    assert "fronts" not in summary(found)
    assert chart_data([found])[0]["scatter"]["fronts"] == []


def test_training_seeds_are_one_front(scenario, tiny_network):
    spec = tiny_network(params=SEES).spec
    members = tuple(Trained(f"m{i}", i, ByPrice(spec, per)) for i, per in enumerate((2.0, 6.0)))
    lineup = with_references(scenario, [LineupRow("both", "policy", "", members)], optimum=None, executor=SerialExecutor())
    (found,), _ = evaluate_lineups([lineup], SerialExecutor(), bootstrap_samples=50)
    points = found.fronts["both"]
    assert points[2].cost == found.rows["both"]["cost"].mean
    assert points[0].cost < points[2].cost < points[4].cost


def test_finished_fronts_are_not_run_again(scenario, tiny_network, tmp_path):
    network = tiny_network(params=SEES)
    lineup = with_references(scenario, [LineupRow.single("n", "policy", network, "")], optimum=None, executor=SerialExecutor())
    found = []
    for reuse in (False, True):
        store = CellStore(tmp_path, reuse)
        (comparison,), _ = evaluate_lineups([lineup], SerialExecutor(), bootstrap_samples=50, store=store)
        found.append(comparison.fronts)
    assert found[0] == found[1]
    # Its own row, its front, and the reference.
    assert len(list((tmp_path / "cells").glob("*.npz"))) == 3
