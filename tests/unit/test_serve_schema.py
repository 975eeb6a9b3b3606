"""`:decide` without HTTP: what is answered, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import MAX_OBSERVATIONS, RequestError, ServedPolicy
from scalepilot.serve.decide.strict import decide, parse_request
from scalepilot_envs.autoscale import AutoscaleParams

Serve = Callable[..., ServedPolicy]


@pytest.fixture
def hpa(tmp_path: Path) -> ServedPolicy:
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "hpa")
    return ServedPolicy.load(tmp_path / "hpa")


@pytest.fixture
def network(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> Serve:
    def load(**changes: Any) -> ServedPolicy:
        save_policy(tiny_network(**changes), tmp_path / "network")
        return ServedPolicy.load(tmp_path / "network")

    return load


def ask(served: ServedPolicy, request: Any) -> Any:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return decide(served, parse_request(body)).to_json()


def refused(served: ServedPolicy, request: Any, status: int = 422) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        ask(served, request)
    assert refusal.value.status == status
    assert "\n" not in str(refusal.value)
    json.dumps(refusal.value.to_json(), allow_nan=False)
    return refusal.value


def test_a_network_answers_with_action_move_replicas_and_probabilities(network: Serve) -> None:
    served = network()
    answer = ask(served, {"observation": served.example})
    expected, _ = served.policy.act(np.array([list(served.example.values())]))
    assert expected.action is not None
    assert expected.desired_replicas is not None
    assert expected.scores is not None
    assert answer["action"] == expected.action[0]
    assert answer["move"] == served.spec.actions[answer["action"]].label
    assert answer["desired_replicas"] == expected.desired_replicas[0]
    odds = np.exp(expected.scores[0] - expected.scores[0].max())
    assert list(answer["probabilities"]) == [action.label for action in served.spec.actions]
    np.testing.assert_allclose(list(answer["probabilities"].values()), odds / odds.sum(), atol=1e-6)
    assert (answer["policy"], answer["version"]) == ("tiny", "1")
    assert "state" not in answer


def test_q_values_are_shown_as_they_are(network: Serve) -> None:
    served = network(decision_rule="argmax_q")
    answer = ask(served, {"observation": served.example})
    scores = served.policy.act(np.array([list(served.example.values())]))[0].scores
    assert scores is not None
    np.testing.assert_allclose(list(answer["q_values"].values()), scores[0], rtol=1e-5, atol=1e-6)
    assert "probabilities" not in answer


def test_a_rule_answers_with_its_change_of_replicas_and_its_state(hpa: ServedPolicy) -> None:
    answer = ask(hpa, {"observation": hpa.example | {"cpu_utilisation": 1.0}})
    assert answer["desired_replicas"] == 9
    assert answer["move"] == "+3"
    assert answer["state"]["recommendations"][-1] == 9.0


def test_a_state_sent_back_makes_the_rule_remember(hpa: ServedPolicy) -> None:
    busy = ask(hpa, {"observation": hpa.example | {"cpu_utilisation": 1.0}})
    assert busy["state"]["seconds"] == 0.0
    idle, state = hpa.example | {"cpu_utilisation": 0.1, "ready_replicas": 9}, busy["state"]
    for _ in range(20):
        answer = ask(hpa, {"observation": idle, "state": state})
        state = answer["state"]
    # Five minutes after the first recommendation of 9 it may fall.
    assert answer["desired_replicas"] < 9
    assert ask(hpa, {"observation": idle, "state": busy["state"]})["desired_replicas"] == 9
    assert ask(hpa, {"observation": idle})["desired_replicas"] == 9


def test_a_list_is_answered_in_its_order_and_like_one_by_one(hpa: ServedPolicy) -> None:
    observations = [hpa.example | {"cpu_utilisation": share} for share in (1.0, 0.1, 0.7)]
    one_by_one = [ask(hpa, {"observation": observation}) for observation in observations]
    assert ask(hpa, {"observation": observations}) == one_by_one
    assert ask(hpa, [{"observation": observation} for observation in observations]) == one_by_one
    states = [answer["state"] for answer in one_by_one]
    again = [ask(hpa, {"observation": o, "state": s}) for o, s in zip(observations, states, strict=True)]
    assert ask(hpa, {"observation": observations, "state": states}) == again


@pytest.mark.parametrize("value", [-1, 1.5, "0.5", None, True, [0.5], {}, 10**400, float("nan"), float("inf")])
def test_a_wrong_value_is_refused_with_field_unit_and_range(hpa: ServedPolicy, value: Any) -> None:
    problem = refused(hpa, {"observation": hpa.example | {"cpu_utilisation": value}})
    assert problem.problems[0].items() >= {"field": "cpu_utilisation", "unit": "share", "low": 0.0, "high": 1.0}.items()
    assert "cpu_utilisation" in str(problem)
    assert "0 to 1 share" in str(problem)


def test_1e400_is_refused_by_name(hpa: ServedPolicy) -> None:
    body = json.dumps({"observation": hpa.example}).replace('"cpu_utilisation": 0.72', '"cpu_utilisation": 1e400').encode()
    assert refused(hpa, body).problems[0]["field"] == "cpu_utilisation"


def test_missing_and_unknown_fields_are_all_named(hpa: ServedPolicy) -> None:
    observation = hpa.example | {"cpu_utilization": 0.5}
    del observation["cpu_utilisation"], observation["late_share"]
    problem = refused(hpa, {"observation": observation})
    assert [entry["field"] for entry in problem.problems] == ["cpu_utilisation", "late_share", "cpu_utilization"]
    assert "did you mean cpu_utilisation?" in str(problem)


def test_a_field_given_twice_is_refused(hpa: ServedPolicy) -> None:
    assert "late_share" in str(refused(hpa, b'{"observation": {"late_share": 0, "late_share": 1}}'))


def test_a_wrong_observation_of_a_list_is_named_by_its_index(hpa: ServedPolicy) -> None:
    wrong = hpa.example | {"late_share": 2}
    problem = refused(hpa, {"observation": [hpa.example, hpa.example, wrong]})
    assert problem.problems[0].items() >= {"index": 2, "field": "late_share"}.items()
    assert str(problem).startswith("observation[2]: late_share")


def test_ten_thousand_unknown_fields_cost_no_search(hpa: ServedPolicy) -> None:
    problem = refused(hpa, {"observation": hpa.example | {f"cpu_utilisation_{i}": 0 for i in range(10_000)}})
    assert "10021 fields" in str(problem)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"observation=1", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000 + b"}"]
)
def test_what_is_not_json_is_a_400(hpa: ServedPolicy, body: bytes) -> None:
    refused(hpa, body, status=400)


@pytest.mark.parametrize("depth", [10, 300, 600, 900, 990])
def test_a_deeply_nested_value_is_refused_and_never_an_error_of_ours(hpa: ServedPolicy, depth: int) -> None:
    body = b'{"observation": {"cpu_utilisation": ' + b"[" * depth + b"]" * depth + b"}}"
    with pytest.raises(RequestError) as refusal:
        ask(hpa, body)
    assert refusal.value.status in (400, 422)


@pytest.mark.parametrize(
    "request_", [1, None, "x", [], [1], {}, {"observations": {}}, {"observation": 1}, {"observation": [1]}, [{}]]
)
def test_another_shape_of_request_is_refused(hpa: ServedPolicy, request_: Any) -> None:
    refused(hpa, request_)


def test_empty_and_overlong_lists_are_refused(hpa: ServedPolicy) -> None:
    refused(hpa, {"observation": []})
    problem = refused(hpa, {"observation": [{}] * (MAX_OBSERVATIONS + 1)})
    assert f"1 to {MAX_OBSERVATIONS}" in str(problem)


@pytest.mark.parametrize(
    "state",
    [
        "x",
        [],
        1,
        {},
        {"recommendations": None},
        {"recommendations": 1},
        {"recommendations": [1] * 19},
        {"recommendations": [1] * 21},
        {"recommendations": ["1"] * 20},
        {"recommendations": [None] * 20},
        {"recommendations": [[1]] * 20},
        {"recommendations": [float("nan")] * 20},
        {"recommendations": [10**400] * 20},
        {"recommendations": [True] * 20},
        {"recommendations": [1] * 20, "more": 1},
    ],
)
def test_a_state_of_another_shape_is_refused(hpa: ServedPolicy, state: Any) -> None:
    assert "state" in str(refused(hpa, {"observation": hpa.example, "state": state}))
    refused(hpa, {"observation": [hpa.example], "state": [state]})


def test_states_are_one_for_each_observation_or_none(hpa: ServedPolicy) -> None:
    state = ask(hpa, {"observation": hpa.example})["state"]
    for states in (state, [state], [state, None], [state] * 3):
        refused(hpa, {"observation": [hpa.example] * 2, "state": states})
    assert len(ask(hpa, {"observation": [hpa.example] * 2, "state": [None, None]})) == 2


def test_a_policy_without_memory_refuses_a_state(network: Serve) -> None:
    served = network()
    assert "keeps no state" in str(refused(served, {"observation": served.example, "state": {"a": 1}}))
    ask(served, {"observation": served.example, "state": None})


@pytest.mark.parametrize("edge", ["low", "high"])
def test_the_edges_of_every_field_give_a_finite_answer(hpa: ServedPolicy, network: Serve, edge: str) -> None:
    for served in (hpa, network()):
        answer = ask(served, {"observation": {f.name: getattr(f, edge) for f in served.spec.observation_fields}})
        json.dumps(answer, allow_nan=False)
        assert 1 <= answer["desired_replicas"] <= 60


def test_a_rule_that_divides_by_a_field_of_zero_holds_the_replicas(tmp_path: Path) -> None:
    save_policy(make_rule("hpa", AutoscaleParams(), {"metric": "rps"}), tmp_path / "hpa")
    served = ServedPolicy.load(tmp_path / "hpa")
    answer = ask(served, {"observation": served.example | {"replica_capacity_rps": 0}})
    assert (answer["move"], answer["desired_replicas"]) == ("hold", 6)
    assert "finite" in answer["fallback"]
    assert "state" not in answer
