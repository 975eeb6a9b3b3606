"""Rules against cases worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.errors import ArtifactError
from scalepilot.policy import Planner, Policy, state_from_json, state_to_json
from scalepilot.policy.rules import (
    RULES,
    Hpa,
    HpaParameters,
    LookAhead,
    Static,
    StaticParameters,
    Threshold,
    ThresholdParameters,
    make_rule,
    rules_for,
)
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields
from scalepilot_envs.autoscale.description import describe

PARAMS = AutoscaleParams()
AUTOSCALE_RULES = rules_for(describe(PARAMS))
NAMES = [f.name for f in observation_fields(PARAMS)]


def observed(*rows):
    """Observations (n, fields) from named readings; what is not named is 0, a replica serves 20 requests/s."""
    out = np.zeros((len(rows), len(NAMES)), dtype=np.float32)
    out[:, NAMES.index("replica_capacity_rps")] = 20.0
    for i, row in enumerate(rows):
        for name, value in row.items():
            out[i, NAMES.index(name)] = value
    return out


def reading(cpu=0.0, ready=10, starting=0, rate=0.0):
    return {"cpu_utilisation": cpu, "ready_replicas": ready, "starting_replicas_3": starting, "request_rate_rps_0": rate}


def decide(rule, *rows, state=None):
    decision, state = rule.act(observed(*rows), state)
    return decision.desired_replicas.tolist(), state


def hpa(env_params=PARAMS, **parameters):
    return Hpa(HpaParameters(**{"stabilisation_down_seconds": 0, **parameters}), env_params)


@pytest.mark.parametrize(
    ("cpu", "ready", "starting", "desired", "why"),
    [
        (0.50, 10, 0, 10, "on target"),
        (0.54, 10, 0, 10, "8 % above, inside the tolerance"),
        (0.46, 10, 0, 10, "8 % below, inside the tolerance"),
        (0.60, 10, 0, 12, "⌈1.2 × 10⌉"),
        (0.61, 10, 0, 13, "⌈12.2⌉ rounds up"),
        (0.41, 10, 0, 9, "⌈8.2⌉ rounds up when shrinking too"),
        (0.20, 10, 0, 4, "⌈0.4 × 10⌉"),
        (0.00, 10, 0, 1, "an idle service falls to the minimum, never to 0"),
        (1.00, 10, 0, 20, "⌈2 × 10⌉ is just inside the doubling"),
        (0.90, 10, 10, 20, "10 starting count as idle: 0.45 / 0.5 < 1, so growing is off"),
        (0.90, 10, 5, 18, "0.9 × 10 / 15 / 0.5 = 1.2, × 15"),
        (0.80, 10, 5, 15, "0.8 × 10 / 15 / 0.5 = 1.067 is inside the tolerance"),
        (0.20, 10, 5, 4, "starting replicas are left out when shrinking: ⌈0.4 × 10⌉"),
        (0.40, 10, 0, 8, "⌈0.8 × 10⌉"),
    ],
)
def test_hpa_on_cpu_recommends_what_the_documentation_says(cpu, ready, starting, desired, why):
    assert decide(hpa(target=0.5), reading(cpu, ready, starting))[0] == [desired], why


@pytest.mark.parametrize(
    ("rate", "ready", "starting", "desired", "why"),
    [
        (100.0, 10, 0, 10, "10 rps a replica is the target"),
        (105.0, 10, 0, 10, "5 % above, inside the tolerance"),
        (125.0, 10, 0, 13, "⌈125 / 10⌉"),
        (125.0, 8, 4, 12, "starting replicas count: 125 / 120 is inside the tolerance"),
        (51.0, 10, 0, 6, "⌈5.1⌉"),
        (0.0, 10, 0, 1, "no requests: the minimum"),
        (600.0, 10, 0, 20, "60 wanted, doubled at most"),
    ],
)
def test_hpa_on_requests_recommends_the_rate_over_the_target(rate, ready, starting, desired, why):
    assert decide(hpa(metric="rps", target=0.5), reading(rate=rate, ready=ready, starting=starting))[0] == [desired], why


@pytest.mark.parametrize(("ready", "limit"), [(1, 5), (2, 6), (3, 7), (4, 8), (5, 10), (20, 40), (40, 60)])
def test_hpa_grows_by_four_or_doubles_and_stops_at_the_maximum(ready, limit):
    assert decide(hpa(metric="rps", target=0.5), reading(rate=1e5, ready=ready))[0] == [limit]


def test_hpa_stops_at_the_minimum():
    assert decide(hpa(AutoscaleParams(min_replicas=3)), reading(cpu=0.0))[0] == [3]


def play(rule, rates, ready=10):
    """Targets of a rule that gets what it wants at once."""
    state, targets = None, []
    for rate in rates:
        desired, state = decide(rule, reading(rate=rate, ready=ready), state=state)
        ready = desired[0]
        targets.append(ready)
    return targets


def test_hpa_falls_only_to_the_highest_recommendation_of_its_window():
    rule = hpa(metric="rps", target=0.5, tolerance=0.0, stabilisation_down_seconds=45)
    assert play(rule, [100, 60, 80, 50, 50, 50, 50]) == [10, 10, 10, 8, 8, 5, 5]


def test_hpa_rises_only_to_the_lowest_recommendation_of_its_window():
    rule = hpa(metric="rps", target=0.5, tolerance=0.0, stabilisation_up_seconds=45)
    assert play(rule, [100, 140, 130, 120, 120, 150, 110, 160]) == [10, 10, 10, 12, 12, 12, 11, 11]


def test_hpa_without_an_up_window_rises_at_once_and_with_the_default_down_window_waits_five_minutes():
    rule = Hpa(HpaParameters(metric="rps", target=0.5, tolerance=0.0), PARAMS)
    targets = play(rule, [100, 150] + [60] * 25)
    assert targets[:2] == [10, 15]
    assert targets[2:21] == [15] * 19
    assert targets[21:] == [6] * 6


def test_hpas_windows_are_read_as_whole_intervals_of_the_service():
    slow = AutoscaleParams(interval_seconds=60.0, startup_seconds=60.0)
    rule = Hpa(HpaParameters(stabilisation_down_seconds=300, stabilisation_up_seconds=0), slow)
    _, state = decide(rule, reading(cpu=0.5))
    assert state["recommendations"].shape == (1, 5)


def test_hpa_agrees_with_the_specification_over_random_histories(golden):
    protocol = golden("protocol")

    class Shown:
        def __init__(self, cpu, ready, starting, rate):
            self.cpu, self.ready, self.total, self.rate = cpu, ready, ready + starting, rate

    rng = np.random.default_rng(0)
    for metric in ("cpu", "rps"):
        arguments = (metric, 0.55, 0.05, 120, 45)
        reference = protocol.hpa(*arguments)()
        rule, state = Hpa(HpaParameters(*arguments), PARAMS), None
        for _ in range(300):
            cpu, rate = (rng.random(7).astype(np.float32).astype(float) * scale for scale in (1, 600))
            ready, starting = rng.integers(1, 50, 7).astype(float), rng.integers(0, 10, 7).astype(float)
            rows = [reading(*row) for row in zip(cpu, ready, starting, rate, strict=True)]
            rate32 = observed(*rows)[:, 0].astype(float)
            desired, state = decide(rule, *rows, state=state)
            assert desired == np.clip(reference(Shown(cpu, ready, starting, rate32)), 1, 60).tolist()


def test_threshold_steps_out_of_its_band_and_then_pauses():
    rule = Threshold(ThresholdParameters(upper=0.8, lower=0.4, step=2, cooldown_seconds=30), PARAMS)
    state, targets = None, []
    for cpu in (0.5, 0.9, 0.9, 0.9, 0.9, 0.3, 0.5, 0.3, 0.3):
        desired, state = decide(rule, reading(cpu=cpu), state=state)
        targets += desired
    assert targets == [10, 12, 10, 10, 12, 10, 10, 8, 10]


def test_threshold_without_a_cooldown_moves_every_time_and_counts_starting_replicas():
    rule = Threshold(ThresholdParameters(cooldown_seconds=0), PARAMS)
    first, state = decide(rule, reading(cpu=0.9, ready=10, starting=3))
    second, _ = decide(rule, reading(cpu=0.9, ready=10, starting=4), state=state)
    assert (first, second) == ([14], [15])


def test_static_asks_for_the_same_whatever_it_sees_within_the_bounds():
    assert decide(Static(StaticParameters(7), PARAMS), reading(cpu=1.0), reading(cpu=0.0))[0] == [7, 7]
    assert decide(Static(StaticParameters(700), PARAMS), reading())[0] == [60]


HPA_PARAMETERS = st.builds(
    HpaParameters,
    metric=st.sampled_from(["cpu", "rps"]),
    target=st.floats(0.3, 0.95),
    tolerance=st.sampled_from([0.0, 0.02, 0.1]),
    stabilisation_down_seconds=st.sampled_from([0, 15, 60, 120]),
    stabilisation_up_seconds=st.sampled_from([0, 30, 60]),
)
THRESHOLD_PARAMETERS = st.builds(
    ThresholdParameters,
    upper=st.floats(0.6, 1.0),
    lower=st.floats(0.0, 0.5),
    step=st.integers(1, 5),
    cooldown_seconds=st.sampled_from([0.0, 15.0, 100.0]),
)


@pytest.mark.parametrize(
    ("rule_type", "strategy"),
    [(Hpa, HPA_PARAMETERS), (Threshold, THRESHOLD_PARAMETERS), (Static, st.builds(StaticParameters, st.integers(1, 80)))],
)
def test_candidates_side_by_side_decide_as_each_alone(rule_type, strategy):
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.lists(strategy, min_size=2, max_size=5), st.integers(0, 2**32 - 1))
    def agrees(candidates, seed):
        rng = np.random.default_rng(seed)
        together, states = rule_type(candidates, PARAMS), None
        alone, alone_states = [rule_type(c, PARAMS) for c in candidates], [None] * len(candidates)
        for _ in range(12):
            rows = [reading(rng.random(), rng.integers(1, 40), rng.integers(0, 9), rng.random() * 500) for _ in candidates]
            desired, states = decide(together, *rows, state=states)
            for i, rule in enumerate(alone):
                own, alone_states[i] = decide(rule, rows[i], state=alone_states[i])
                assert own == [desired[i]]

    agrees()


def rule_of(name):
    return make_rule(name, PARAMS)


@pytest.mark.parametrize("name", AUTOSCALE_RULES)
def test_a_rules_state_survives_json_and_decides_on(name):
    rule, rng = rule_of(name), np.random.default_rng(3)
    rows = [[reading(rng.random(), 10, 2, rng.random() * 400) for _ in range(3)] for _ in range(30)]
    state, through_json = None, [None] * 3
    for step in rows:
        desired, state = decide(rule, *step, state=state)
        stacked = state_from_json(through_json)
        again, next_state = decide(rule, *step, state=stacked)
        assert again == desired
        split = [None if next_state is None else {k: v[i : i + 1] for k, v in next_state.items()} for i in range(3)]
        through_json = [json.loads(json.dumps(state_to_json(s), allow_nan=False)) for s in split]


@pytest.mark.parametrize("name", AUTOSCALE_RULES)
def test_a_rule_neither_changes_its_inputs_nor_remembers_by_itself(name):
    rule = rule_of(name)
    observation = observed(reading(0.95, 10, 2, 300.0), reading(0.1, 10, 0, 20.0))
    _, state = rule.act(observation)
    before = observation.copy(), None if state is None else {k: v.copy() for k, v in state.items()}
    first, _ = rule.act(observation, state)
    second, _ = rule.act(observation, state)
    np.testing.assert_array_equal(first.desired_replicas, second.desired_replicas)
    np.testing.assert_array_equal(observation, before[0])
    for key, column in (state or {}).items():
        np.testing.assert_array_equal(column, before[1][key])


def test_states_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="state: give one for every observation"):
        state_from_json([{"recommendations": [1.0]}, None])
    with pytest.raises(ValueError, match="state: give one for every observation"):
        state_from_json([{"recommendations": [1.0]}, {"cooldown_steps": 1.0}])
    assert state_from_json([None, None]) is None


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("hpa", {"recommendations": np.zeros((1, 3))}),
        ("hpa", {}),
        ("hpa", {"recommendations": np.full((1, 20), np.nan)}),
        ("threshold", {}),
        ("threshold", {"cooldown_steps": np.zeros((1, 2))}),
        ("threshold", {"cooldown_steps": np.array([np.nan])}),
    ],
)
def test_a_clients_unfit_state_is_refused_by_name(name, state):
    with pytest.raises(ValueError, match=r"^state\.(recommendations|cooldown_steps): .*allowed"):
        rule_of(name).act(observed(reading()), state)


def test_candidates_need_one_row_each():
    rule = Static([StaticParameters(1), StaticParameters(2)], PARAMS)
    with pytest.raises(ValueError, match="observation: 3 rows for 2 parameter sets"):
        rule.act(observed(reading(), reading(), reading()))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("hpaa", {}, f"rule: 'hpaa' is not allowed; allowed: {', '.join(RULES)}; did you mean hpa?"),
        ("hpa", {"metric": "memory"}, "rule.parameters: metric: 'memory' is not allowed; allowed: cpu, rps"),
        ("hpa", {"target": 0}, "rule.parameters: target: 0 is not allowed; allowed: above 0 to 10"),
        ("hpa", {"target": "abc"}, "rule.parameters: "),
        ("hpa", {"tolerance": float("nan")}, "rule.parameters: tolerance: nan is not allowed"),
        ("hpa", {"stabilisation_down_seconds": -1}, "rule.parameters: stabilisation_down_seconds: -1 is not allowed"),
        ("hpa", {"goal": 0.5}, "rule.parameters: {'goal': 0.5} is not allowed; allowed keys: "),
        ("threshold", {"lower": 0.9}, "rule.parameters: lower, upper: 0.9, 0.8 are not allowed"),
        ("threshold", {"step": 0}, "rule.parameters: step: 0 is not allowed; allowed: whole numbers from 1"),
        ("threshold", {"step": 1.5}, "rule.parameters: step: 1.5 is not allowed"),
        ("threshold", {"cooldown_seconds": float("inf")}, "rule.parameters: cooldown_seconds: inf is not allowed"),
        ("static", {"replicas": 0}, "rule.parameters: replicas: 0 is not allowed; allowed: whole numbers from 1"),
        ("static", {"replicas": 2.5}, "rule.parameters: replicas: 2.5 is not allowed"),
        ("static", {"replicas": "import os"}, "rule.parameters: replicas: 'import os' is not allowed"),
    ],
)
def test_unfit_rules_and_parameters_are_refused_in_one_line(name, parameters, message):
    with pytest.raises(ArtifactError) as caught:
        make_rule(name, PARAMS, parameters)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", AUTOSCALE_RULES)
def test_every_rule_is_a_policy_whose_description_rebuilds_it(name):
    rule = rule_of(name)
    assert isinstance(rule, Policy)
    assert not isinstance(rule, Planner)
    assert rule.spec.rule == {"name": name, "parameters": asdict(rule.parameters)}
    again = make_rule(name, PARAMS, rule.spec.rule["parameters"])
    assert again.parameters == rule.parameters
    assert [f.name for f in rule.spec.observation_fields] == NAMES


def test_the_look_ahead_is_a_planner_and_never_a_policy():
    assert isinstance(LookAhead(), Planner)
    assert not isinstance(LookAhead(), Policy)


def test_the_look_aheads_utilisation_may_differ_by_row():
    plan = LookAhead(np.array([[0.5], [1.0]])).plan(np.full((2, 3), 100.0), 20.0, 4)
    assert plan.tolist() == [[10, 10, 10], [5, 5, 5]]
