"""What a policy costs without a field, and that live operation requires what it cannot do without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scalepilot.config import config_from_mapping
from scalepilot.evaluate.missing_fields import worse_without
from scalepilot.operate.config import load_service, operate_config
from scalepilot.policy import Decision, load_policy, save_policy
from scalepilot.simulate.scenario import scenario_of
from scalepilot_envs.autoscale import values_at_rest


@pytest.fixture(scope="module")
def scenario():
    small = {"window_steps": 120, "drawn_windows": 2, "test_seeds": [0]}
    return scenario_of(config_from_mapping({"workload": {"kind": "diurnal", "days": 2}, "evaluation": small}))


class ByBacklog:
    """Many replicas while requests wait, few when none do; looks at nothing else."""

    def __init__(self, spec):
        self.spec = spec
        self._backlog = [f.name for f in spec.observation_fields].index("backlog_requests")

    def act(self, observation, state=None, *, deterministic=True, rng=None):
        return Decision(np.where(observation[:, self._backlog] > 0, 40.0, 2.0)), None


def test_only_what_is_looked_at_is_missed(scenario, tiny_network):
    found = worse_without(ByBacklog(tiny_network().spec), scenario)
    assert list(found) == list(values_at_rest(scenario.env.params))
    assert found.pop("backlog_requests") > 0.05
    assert set(found.values()) == {0.0}


def test_a_service_that_costs_nothing_misses_nothing_either(scenario, tiny_network):
    prices = {f"price_per_{name}": 0.0 for name in ("replica_hour", "late_request", "move")}
    free = replace(scenario.validation, params=replace(scenario.validation.params, **prices))
    assert set(worse_without(ByBacklog(tiny_network().spec), replace(scenario, validation=free)).values()) == {0.0}


def test_of_another_environment_there_is_nothing_to_tell(tiny_network):
    assert worse_without(tiny_network(), scenario_of(config_from_mapping({"env": {"id": "CartPole-v1"}}))) == {}


@pytest.mark.parametrize("stored", [None, {"backlog_requests": 0.2, "late_share": 0.01}, {"backlog_requests": "much"}, ["?"]])
def test_what_it_cannot_do_without_is_required(tmp_path, tiny_network, stored):
    network = tiny_network()
    network.spec = replace(network.spec, evaluation={} if stored is None else {"worse_without": stored})
    save_policy(network, tmp_path / "p")
    assert load_policy(tmp_path / "p").spec.evaluation == network.spec.evaluation
    config = {"policy": str(tmp_path / "p"), "fallback": []}
    optional = set(load_service(operate_config(config)).deciders.at_rest)
    assert {"latency_p95_seconds", "late_share", "error_share"} <= optional
    assert ("backlog_requests" in optional) == (not isinstance(stored, dict))
    assert "backlog_requests" in load_service(operate_config({**config, "assume": {"backlog_requests": 0.0}})).deciders.at_rest
