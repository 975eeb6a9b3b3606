"""State → action maps: known thresholds give known maps, whatever kind of policy is asked."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict, replace

import numpy as np
import pytest
from tests.conftest import tiny_model_bytes

from scalepilot.errors import ArtifactError, InputError
from scalepilot.policy import (
    Decision,
    Discretiser,
    FieldEntry,
    NetworkPolicy,
    PolicySpec,
    TablePolicy,
    env_actions,
    env_components,
    env_fields,
)
from scalepilot.policy.rules import Hpa, HpaParameters, Threshold, ThresholdParameters
from scalepilot.report.charts.policy_map import (
    observed_ranges,
    policy_map,
    policy_map_picture,
    telling_fields,
    typical_observation,
)
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.registration import find_env

PARAMS = AutoscaleParams()
NAMESPACE = "{http://www.w3.org/2000/svg}"


def observation(policy, **values):
    fields = policy.spec.observation_fields
    usual = {"ready_replicas": 10.0, "replica_capacity_rps": PARAMS.replica_capacity_rps}
    return np.array([{**usual, **values}.get(f.name, 0.0) for f in fields])


def spec_of(env_id, kind="network", **changes):
    env = find_env(env_id).describe()
    rule = "box" if env.components else "argmax_q"
    return PolicySpec(
        name="p",
        version="1",
        kind=kind,
        env_id=env.env_id,
        env_params=asdict(env.params),
        observation_fields=env_fields(env),
        actions=env_actions(env),
        components=env_components(env),
        decision_rule=rule,
        **changes,
    )


def cartpole(weights):
    return NetworkPolicy(spec_of("CartPole-v1"), tiny_model_bytes(np.array(weights), np.zeros(2)))


def texts(svg):
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{NAMESPACE}text")]


def test_a_threshold_rule_gives_its_thresholds():
    rule = Threshold(ThresholdParameters(upper=0.8, lower=0.4), PARAMS)
    ranges = {"cpu_utilisation": (0.0, 1.0), "ready_replicas": (5.0, 15.0)}
    found = policy_map(rule, "cpu_utilisation", "ready_replicas", base=observation(rule), points=11, ranges=ranges)
    assert found.labels == ()
    assert found.value_label == "desired replicas"
    for row, ready in enumerate(found.y):
        for column, utilisation in enumerate(found.x):
            move = 1 if utilisation > 0.8 + 1e-6 else -1 if utilisation < 0.4 - 1e-6 else 0
            assert found.values[row, column] == ready + move, (utilisation, ready)


def test_a_table_gives_the_action_of_the_highest_value_by_index_and_label():
    spec = spec_of("QueueScaling-v0", "table")
    grid = Discretiser(spec.observation_fields, {"load_share": [0.3, 0.7]})
    policy = TablePolicy(spec, np.eye(3), grid)
    names = [f.name for f in spec.observation_fields]
    other = next(name for name in names if name != "load_share")
    found = policy_map(policy, "load_share", other, base=np.zeros(len(names)), points=21)
    np.testing.assert_array_equal(found.values[0], np.where(found.x < 0.3 - 1e-9, 0, np.where(found.x < 0.7 - 1e-9, 1, 2)))
    assert (found.values == found.values[0]).all(), "the table does not see the other field"
    assert set(found.shares()) == {a.label for a in spec.actions}
    assert found.signs == (-1, 0, 1)


def test_a_network_over_fields_without_bounds_needs_a_range_of_recorded_values():
    # Right where angle + angular velocity is positive.
    policy = cartpole([[0, 0], [0, 0], [-1, 1], [-1, 1]])
    names = [f.name for f in policy.spec.observation_fields]
    with pytest.raises(InputError, match=rf"{names[3]} reaches from .*; allowed: a range of recorded values"):
        policy_map(policy, names[2], names[3], base=np.zeros(4))
    recorded = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, 4)).astype(np.float32)
    ranges = observed_ranges(policy, recorded)
    assert ranges[names[3]] == pytest.approx((-0.49, 0.49), abs=0.01)
    found = policy_map(policy, names[2], names[3], base=np.zeros(4), points=30, ranges=ranges)
    np.testing.assert_array_equal(found.values, (found.x[None, :] + found.y[:, None] > 0).astype(float))
    assert found.held == {names[0]: 0.0, names[1]: 0.0}
    assert found.shares() == pytest.approx({policy.spec.actions[0].label: 0.5, policy.spec.actions[1].label: 0.5}, abs=0.05)


def test_a_continuous_action_shows_its_first_component_and_refuses_what_is_not_finite():
    env_id = "Pendulum-v1"
    spec = spec_of(env_id)
    policy = NetworkPolicy(spec, tiny_model_bytes(np.array([[1.0], [0.0], [0.1]]), np.zeros(1)))
    names = [f.name for f in spec.observation_fields]
    found = policy_map(policy, names[0], names[2], base=np.zeros(3), points=9)
    np.testing.assert_allclose(found.values, np.clip(found.x[None, :] + 0.1 * found.y[:, None], -2, 2), atol=1e-6)
    assert found.labels == ()
    broken = NetworkPolicy(spec, tiny_model_bytes(np.array([[np.nan], [0.0], [0.1]]), np.zeros(1)))
    with pytest.raises(ArtifactError, match="not finite"):
        policy_map(broken, names[0], names[2], base=np.zeros(3), points=3)


def test_numbered_rates_move_together_and_the_utilisation_follows():
    rule = Hpa(HpaParameters("cpu", 0.5), PARAMS)
    ranges = {"request_rate_rps": (0.0, 400.0), "ready_replicas": (5.0, 45.0)}
    found = policy_map(rule, "request_rate_rps", "ready_replicas", base=observation(rule), points=5, ranges=ranges)
    assert not [name for name in found.held if name.startswith(("request_rate_rps", "request_rate_mean", "cpu"))]
    # HPA: ceil(ready × utilisation / target), at most what the utilisation of 100 % can show.
    expected = np.ceil(200.0 / PARAMS.replica_capacity_rps / 0.5)
    assert found.values[-1, 2] == expected
    assert (np.diff(found.values, axis=1) >= 0).all()
    with pytest.raises(InputError, match="allowed: two different ones"):
        policy_map(rule, "request_rate_rps", "request_rate_rps_3", base=observation(rule))
    with pytest.raises(InputError, match="did you mean ready_replicas"):
        policy_map(rule, "redy_replicas", "late_share", base=observation(rule))


def test_the_fields_that_decisions_hang_on_are_found():
    policy = cartpole([[0, 0], [-1, 1], [0, 0], [-0.3, 0.3]])
    names = [f.name for f in policy.spec.observation_fields]
    recorded = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    assert telling_fields(policy, recorded) == (names[1], names[3])
    hpa = Hpa(HpaParameters(), PARAMS)
    assert telling_fields(hpa, np.tile(observation(hpa), (3, 1))) == ("request_rate_rps", "ready_replicas")
    image = FieldEntry("screen", "1", 0, 255, dtype="uint8", shape=(4, 4, 1), axes=("height", "width", "channels"))
    seeing = type("Seeing", (), {"spec": replace(hpa.spec, observation_fields=(image,), name="pong")})()
    assert telling_fields(seeing, np.zeros((1, 4, 4, 1))) is None
    with pytest.raises(InputError, match="pong: looks at images"):
        policy_map(seeing, "screen", "screen", base=np.zeros(1))


def test_a_typical_observation_did_occur_and_a_constant_field_still_has_a_range():
    recorded = np.array([[0.0, 7.0], [1.0, 7.0], [2.5, 7.0], [50.0, 7.0], [60.0, 7.0]])
    np.testing.assert_array_equal(typical_observation(recorded), [2.5, 7.0])
    rule = type("Two", (), {"spec": type("Spec", (), {"observation_fields": [FieldEntry(n, "1", 0, 10) for n in "ab"]})})()
    assert observed_ranges(rule, recorded)["b"] == (0.0, 10.0)


def test_the_picture_names_every_action_with_its_share_in_light_and_dark():
    policy = cartpole([[0, 0], [0, 0], [-1, 1], [-1, 1]])
    names = [f.name for f in policy.spec.observation_fields]
    ranges = dict.fromkeys(names, (-1.0, 1.0))
    found = policy_map(policy, names[2], names[3], base=np.zeros(4), ranges=ranges)
    svg = policy_map_picture(found, "a <b> & c", visited=np.random.default_rng(0).normal(size=(1000, 2)))
    labels = [a.label for a in policy.spec.actions]
    assert {"a <b> & c", *labels, "visited in an episode"} <= set(texts(svg))
    on_map = [e.text for e in ET.fromstring(svg).iter(f"{NAMESPACE}text") if e.get("paint-order") == "stroke"]
    assert on_map == labels, "each in its region, beside the key"
    assert "prefers-color-scheme: dark" in svg
    assert "nan" not in svg
    assert len(svg) < 60_000
    assert "visited in an episode" not in texts(policy_map_picture(found, "t"))


class Constant:
    """Always the same number of replicas."""

    def __init__(self):
        self.spec = Hpa(HpaParameters(), PARAMS).spec

    def act(self, observation, state=None, *, deterministic=True, rng=None):
        return Decision(np.full(len(observation), 7.0)), None


def test_a_policy_that_never_changes_its_mind_is_drawn_too():
    policy = Constant()
    found = policy_map(policy, "cpu_utilisation", "late_share", base=np.zeros(len(policy.spec.observation_fields)), points=5)
    assert (found.values == 7.0).all()
    svg = policy_map_picture(found, "constant")
    assert "7" in texts(svg)
    assert "nan" not in svg
