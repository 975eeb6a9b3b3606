"""Every kind of policy keeps the protocol: pure, batched, described, stored and loaded alike."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from scalepilot.policy import Policy, load_policy, save_policy, state_from_json, state_to_json
from scalepilot.policy.rules import make_rule, rules_for
from scalepilot.simulate import poisson_episodes, run_episodes
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.autoscale.description import describe
from scalepilot_envs.workloads import DiurnalWorkload, part_of

PARAMS = AutoscaleParams(max_replicas=40)
AUTOSCALE_RULES = rules_for(describe(PARAMS))
KINDS = [*AUTOSCALE_RULES, "network"]


@pytest.fixture(params=KINDS)
def policy(request, tiny_network):
    return tiny_network() if request.param == "network" else make_rule(request.param, PARAMS)


@pytest.fixture(scope="module")
def observations():
    """Whole batches as a flight shows them, (steps, n, fields)."""
    env = AutoscaleBatch(8, workload={"kind": "diurnal", "days": 1}, params=PARAMS, episode_steps=30)
    env.seed_streams(list(range(8)))
    seen, rng = [env.reset_batch()], np.random.default_rng(0)
    for _ in range(29):
        seen.append(env.step_batch(rng.integers(0, 8, 8)).observation)
    return np.array(seen)


def fly(policy, observations):
    """Decisions (steps, n) along given observations."""
    state, desired = None, []
    for observation in observations:
        decision, state = policy.act(observation, state)
        desired.append(decision.desired_replicas)
    return np.array(desired)


def test_it_satisfies_the_protocol_and_its_description_is_complete(policy):
    assert isinstance(policy, Policy)
    spec = policy.spec
    assert spec.kind == ("network" if spec.actions else "rule")
    assert spec.env_id == "scalepilot/Autoscale-v0"
    assert set(spec.env_params) == {f.name for f in fields(AutoscaleParams)}
    assert all(f.unit and f.description and f.low <= f.high for f in spec.observation_fields)
    assert (spec.decision_rule == "target") == (not spec.actions)


def test_it_decides_whole_replicas_within_the_bounds(policy, observations):
    desired = fly(policy, observations)
    assert desired.shape == observations.shape[:2]
    assert (desired == np.rint(desired)).all()
    assert desired.min() >= policy.spec.env_params["min_replicas"]
    assert desired.max() <= policy.spec.env_params["max_replicas"]


def test_the_same_observations_give_the_same_decisions(policy, observations):
    np.testing.assert_array_equal(fly(policy, observations), fly(policy, observations))


def test_a_batch_decides_as_each_row_alone(policy, observations):
    together = fly(policy, observations)
    for i in range(observations.shape[1]):
        np.testing.assert_array_equal(fly(policy, observations[:, i : i + 1])[:, 0], together[:, i])


def test_a_client_that_carries_the_state_as_json_gets_the_same_decisions(policy, observations):
    through_json, desired = None, []
    for observation in observations[:, :1]:
        decision, state = policy.act(observation, state_from_json([through_json]))
        through_json = json.loads(json.dumps(state_to_json(state), allow_nan=False))
        desired.append(decision.desired_replicas)
    np.testing.assert_array_equal(np.array(desired), fly(policy, observations[:, :1]))


def test_it_leaves_its_inputs_alone(policy, observations):
    before = observations[3].copy()
    _, state = policy.act(observations[3])
    kept = None if state is None else {name: column.copy() for name, column in state.items()}
    policy.act(observations[3], state)
    np.testing.assert_array_equal(observations[3], before)
    for name, column in (state or {}).items():
        np.testing.assert_array_equal(column, kept[name])


def test_stored_and_loaded_it_is_the_same_policy(policy, observations, tmp_path):
    written = save_policy(policy, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert loaded.spec == written
    np.testing.assert_array_equal(fly(loaded, observations), fly(policy, observations))


def test_it_flies_episodes_and_its_figures_are_finite(policy):
    series = part_of(DiurnalWorkload(days=1), "test", PARAMS.interval_seconds)
    episodes = poisson_episodes("diurnal", series, series.window_starts(200), 200, (0,))
    results, _ = run_episodes(policy, episodes, AutoscaleParams(**policy.spec.env_params))
    for name, column in results.columns().items():
        assert column.shape == (len(episodes),), name
        assert np.isfinite(column).all(), name
        assert (column >= 0).all(), name
