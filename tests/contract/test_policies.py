"""Every kind of policy keeps the protocol on every environment: pure, batched, described, stored and loaded alike."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from scalepilot.errors import ArtifactError
from scalepilot.policy import (
    Discretiser,
    Policy,
    PolicySpec,
    TablePolicy,
    env_actions,
    env_fields,
    load_policy,
    save_policy,
    state_from_json,
    state_to_json,
)
from scalepilot.policy.fields import FieldView
from scalepilot.policy.rules import RULES, make_rule, rules_for
from scalepilot.simulate import poisson_episodes, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.registration import ENVS
from scalepilot_envs.workloads import DiurnalWorkload, part_of

AUTOSCALE = "scalepilot/Autoscale-v0"
PARAMS = {AUTOSCALE: {"max_replicas": 40}}
DESCRIPTIONS = {env_id: entry.describe(PARAMS.get(env_id)) for env_id, entry in ENVS.items()}
GRID_WORLD = "scalepilot/GridWorld-v0"
# A table's field → edges, by environment; GridWorld's states are numbered.
TABLE_EDGES = {
    AUTOSCALE: {"ready_replicas": [5, 10, 20]},
    "scalepilot/QueueScaling-v0": {"load_share": [0.3, 0.6]},
    GRID_WORLD: {},
}
# Every rule on every environment that can feed it, a network on the flagship, and tables on numbered and other states.
KINDS = [
    *((env_id, name) for env_id, env in DESCRIPTIONS.items() for name in rules_for(env)),
    (AUTOSCALE, "network"),
    *((env_id, "table") for env_id in TABLE_EDGES),
]
STEPS, ROWS = 30, 8


@pytest.fixture(params=KINDS, ids=[f"{env_id.removeprefix('scalepilot/')}:{name}" for env_id, name in KINDS])
def kind(request):
    return request.param


@pytest.fixture
def env(kind):
    return DESCRIPTIONS[kind[0]]


@pytest.fixture
def policy(kind, env, tiny_network):
    return policy_of(*kind, tiny_network)


def policy_of(env_id, name, tiny_network):
    """A policy of one kind: random weights or Q-values, or the rule of that name."""
    if name == "network":
        return tiny_network()
    env = DESCRIPTIONS[env_id]
    return tiny_table(env, TABLE_EDGES[env_id]) if name == "table" else make_rule(name, env)


def tiny_table(env, edges):
    spec = PolicySpec(
        name="tiny",
        version="1",
        kind="table",
        env_id=env.env_id,
        env_params=asdict(env.params),
        observation_fields=env_fields(env),
        actions=env_actions(env),
        decision_rule="argmax_q",
    )
    grid = Discretiser(spec.observation_fields, edges)
    return TablePolicy(spec, np.random.default_rng(0).normal(size=(grid.num_states, len(env.actions))), grid)


_flown = {}


@pytest.fixture
def observations(kind):
    """Whole batches as a replay of the native batch shows them, (steps, n, fields)."""
    env_id = kind[0]
    if env_id not in _flown:
        arguments = {"params": DESCRIPTIONS[env_id].params} if env_id in PARAMS else {}
        envs, rng = ENVS[env_id].vector_maker()(ROWS, **arguments), np.random.default_rng(0)
        seen = [envs.reset(seed=0)[0]]
        for _ in range(STEPS - 1):
            seen.append(envs.step(rng.integers(0, envs.single_action_space.n, ROWS))[0])
        _flown[env_id] = np.array(seen).reshape(STEPS, ROWS, -1)
        _flown[env_id].flags.writeable = False
    return _flown[env_id]


def fly(policy, observations):
    """Decisions (steps, n, 1 or 2) along given observations: desired replicas and action, where there are such."""
    state, decided = None, []
    for observation in observations:
        decision, state = policy.act(observation, state)
        decided.append(parts_of(decision))
    return np.array(decided)


def parts_of(decision):
    parts = [part for part in (decision.desired_replicas, decision.action) if part is not None]
    assert parts
    return np.stack(parts, axis=1).astype(np.float64)


def test_every_rule_serves_some_environment_and_every_environment_has_a_rule():
    assert {name for _, name in KINDS} == {*RULES, "network", "table"}
    assert {env_id for env_id, _ in KINDS} == set(ENVS)


def test_the_observations_are_those_of_the_description(env, observations):
    assert observations.shape == (STEPS, ROWS, len(env.fields))
    assert len(np.unique(observations.reshape(-1, len(env.fields)), axis=0)) > 5


def test_it_satisfies_the_protocol_and_its_description_is_complete(kind, env, policy):
    assert isinstance(policy, Policy)
    spec = policy.spec
    assert spec.kind == (kind[1] if spec.actions else "rule")
    assert spec.env_id == kind[0]
    assert set(spec.env_params) == set(asdict(env.params))
    assert all(f.unit and f.description and f.low <= f.high for f in spec.observation_fields)
    assert (spec.decision_rule == "target") == (not spec.actions)
    if spec.kind == "rule":
        assert spec.env_params == asdict(env.params)
        assert spec.observation_fields == env_fields(env)
        revision = {"revision": policy.revision} if policy.revision > 1 else {}
        assert spec.rule == {"name": kind[1], "parameters": asdict(policy.parameters), **revision}
        json.dumps(asdict(spec), allow_nan=False)


def test_it_decides_what_the_environment_takes(env, policy, observations):
    state = None
    for observation in observations:
        decision, state = policy.act(observation, state)
        desired, action = decision.desired_replicas, decision.action
        if env.commands_targets:
            assert desired.shape == (ROWS,)
            assert (desired == np.rint(desired)).all()
            assert desired.min() >= policy.spec.env_params["min_replicas"]
            assert desired.max() <= policy.spec.env_params["max_replicas"]
        else:
            assert action.shape == (ROWS,)
            assert action.dtype == np.int64
            assert action.min() >= 0
            assert action.max() < len(env.actions)
            assert (desired is None) == ("total_replicas" not in env.signals)
        if desired is not None and not env.commands_targets:
            total = FieldView(env_fields(env), env.signals).total(observation)
            np.testing.assert_array_equal(desired - total, [env.actions[a].size for a in action])


def test_the_same_observations_give_the_same_decisions(policy, observations):
    np.testing.assert_array_equal(fly(policy, observations), fly(policy, observations))


def test_a_batch_decides_as_each_row_alone(policy, observations):
    together = fly(policy, observations)
    for i in range(ROWS):
        np.testing.assert_array_equal(fly(policy, observations[:, i : i + 1])[:, 0], together[:, i])


def test_a_client_that_carries_the_state_as_json_gets_the_same_decisions(policy, observations):
    through_json, decided = [None] * ROWS, []
    for observation in observations:
        decision, state = policy.act(observation, state_from_json(through_json))
        split = [None if state is None else {name: column[i : i + 1] for name, column in state.items()} for i in range(ROWS)]
        through_json = [json.loads(json.dumps(state_to_json(own), allow_nan=False)) for own in split]
        decided.append(parts_of(decision))
    np.testing.assert_array_equal(np.array(decided), fly(policy, observations))


def test_it_leaves_its_inputs_alone_and_remembers_nothing_by_itself(policy, observations):
    observation = observations[3].copy()
    _, state = policy.act(observations[2])
    kept = None if state is None else {name: column.copy() for name, column in state.items()}
    first, after_first = policy.act(observation, state)
    policy.act(observations[9], state)
    second, after_second = policy.act(observation, state)
    np.testing.assert_array_equal(parts_of(first), parts_of(second))
    np.testing.assert_array_equal(observation, observations[3])
    for name, column in (state or {}).items():
        np.testing.assert_array_equal(column, kept[name])
        np.testing.assert_array_equal(after_first[name], after_second[name])


def test_its_state_is_one_row_an_observation_and_finite(policy, observations):
    state, shapes = None, set()
    for observation in observations:
        _, state = policy.act(observation, state)
        shapes.add(json.dumps({name: column.shape for name, column in (state or {}).items()}, sort_keys=True))
        assert all(len(column) == ROWS and np.isfinite(column).all() for column in (state or {}).values())
    assert len(shapes) == 1


def test_stored_and_loaded_it_is_the_same_policy(policy, observations, tmp_path):
    written = save_policy(policy, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert loaded.spec == written
    assert getattr(loaded, "parameters", None) == getattr(policy, "parameters", None)
    np.testing.assert_array_equal(fly(loaded, observations), fly(policy, observations))


@pytest.mark.parametrize(("env_id", "name"), [kind for kind in KINDS if kind[1] in RULES])
def test_a_rules_artifact_of_another_observation_is_refused(env_id, name, tmp_path):
    save_policy(make_rule(name, DESCRIPTIONS[env_id]), tmp_path / "p")
    path = tmp_path / "p" / "policy.json"
    stored = json.loads(path.read_text())
    stored["observation_fields"][0]["name"] = "something_else"
    path.write_text(json.dumps(stored))
    with pytest.raises(ArtifactError, match="something_else"):
        load_policy(tmp_path / "p")


@pytest.mark.parametrize("name", [name for env_id, name in KINDS if env_id == AUTOSCALE])
def test_it_flies_episodes_and_its_figures_are_finite(name, tiny_network):
    policy = policy_of(AUTOSCALE, name, tiny_network)
    params = AutoscaleParams(**policy.spec.env_params)
    series = part_of(DiurnalWorkload(days=1), "test", params.interval_seconds)
    episodes = poisson_episodes("diurnal", series, series.window_starts(200), 200, (0,))
    results, _ = run_episodes(policy, episodes, params)
    for name, column in results.columns.items():
        assert column.shape == (len(episodes),), name
        assert np.isfinite(column).all(), name
        assert (column >= 0).all(), name
