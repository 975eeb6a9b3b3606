"""The short ways of a request: they read and answer as the long ones do, or leave it to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import RequestError, ServedPolicy
from scalepilot.serve.decide.strict import answer, decide, parse_request
from scalepilot_envs.autoscale import AutoscaleParams


@pytest.fixture(params=["argmax_p", "argmax_q"])
def network(request: pytest.FixtureRequest, tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> ServedPolicy:
    save_policy(tiny_network(decision_rule=request.param), tmp_path / "network")
    return ServedPolicy.load(tmp_path / "network")


@pytest.fixture
def hpa(tmp_path: Path) -> ServedPolicy:
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "hpa")
    return ServedPolicy.load(tmp_path / "hpa")


def drawn_rows(served: ServedPolicy, count: int, seed: int = 0) -> np.ndarray:
    low, high = served.bounds
    rng = np.random.default_rng(seed)
    # Small values are as likely as large ones: most fields live far from their upper bound.
    return low + (high - low) * rng.random((count, len(low))) ** rng.integers(1, 6, (count, 1))


def as_request(served: ServedPolicy, row: Any) -> dict[str, float]:
    return {f.name: float(value) for f, value in zip(served.spec.observation_fields, row, strict=True)}


def test_a_thousand_observations_are_answered_the_same_either_way(network: ServedPolicy) -> None:
    assert network.quick is not None
    rows = drawn_rows(network, 1000)
    slow = decide(network, parse_request(json.dumps({"observation": [as_request(network, row) for row in rows]}).encode()))
    together = plain(answer(network, [tuple(row) for row in rows], many=True).to_json())
    assert together == slow.answers
    for row, expected in zip(rows, slow.answers, strict=True):
        quick = plain(network.quick.answer(tuple(row)))
        for scores in ("probabilities", "q_values"):
            if scores in expected:
                assert quick.pop(scores) == pytest.approx(expected.pop(scores), abs=2e-6, rel=1e-6)
        assert quick == expected


def plain(answers: Any) -> Any:
    """As a client reads it."""
    return json.loads(msgspec.json.encode(answers))


def test_one_observation_and_a_list_are_read_in_order(network: ServedPolicy) -> None:
    rows = drawn_rows(network, 3)
    body = json.dumps({"observation": [as_request(network, row) for row in rows]}).encode()
    read = network.reader.read(body)
    assert read is not None
    assert read[1] is True
    np.testing.assert_array_equal(read[0], rows)
    shuffled = dict(reversed(as_request(network, rows[0]).items()))
    read = network.reader.read(json.dumps({"observation": shuffled}).encode())
    assert read is not None
    assert (read[0], read[1]) == ([tuple(rows[0])], False)


@pytest.mark.parametrize(
    "change",
    [
        {"cpu_utilisation": 2},
        {"cpu_utilisation": True},
        {"cpu_utilisation": "0.5"},
        {"cpu_utilisation": None},
        {"cpu_utilisation": float("nan")},
        {"cpu_utilisation": float("inf")},
        {"other": 1},
    ],
)
def test_what_is_wrong_is_left_to_the_long_way_which_refuses_it(network: ServedPolicy, change: dict[str, Any]) -> None:
    body = json.dumps({"observation": network.example | change}).encode()
    assert network.reader.read(body) is None
    with pytest.raises(RequestError):
        decide(network, parse_request(body))


def test_a_field_given_twice_is_left_to_the_long_way(network: ServedPolicy) -> None:
    whole = json.dumps({"observation": network.example})
    twice = whole.replace('"cpu_utilisation"', '"cpu_utilisation": 0.1, "cpu_utilisation"').encode()
    assert network.reader.read(twice) is None
    with pytest.raises(RequestError, match="given twice"):
        decide(network, parse_request(twice))
    again = whole[:-1] + ', "observation"' + whole[len('{"observation"') :]
    assert network.reader.read(again.encode()) is None


@pytest.mark.parametrize("extra", [{"explain": True}, {"clip": True}, {"state": None}])
def test_what_is_unusual_and_right_goes_the_long_way(network: ServedPolicy, extra: dict[str, Any]) -> None:
    body = json.dumps({"observation": network.example} | extra).encode()
    assert network.reader.read(body) is None
    assert decide(network, parse_request(body)).answers[0]["policy"] == "tiny"


@given(body=st.binary(max_size=200))
@settings(max_examples=200)
def test_no_bytes_make_it_raise(body: bytes) -> None:
    reader = _READER
    assert reader.read(body) is None


def _reader() -> Any:
    from scalepilot.policy import autoscale_fields
    from scalepilot.serve.decide.fast import FastReader

    return FastReader(autoscale_fields(AutoscaleParams()))


_READER = _reader()


def test_scores_that_are_not_finite_are_left_to_the_long_way(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> None:
    served = broken_at_high_load(tmp_path, tiny_network)
    assert served.quick is not None
    row = tuple((served.example | {"backlog_requests": 36000.0}).values())
    assert served.quick.answer(tuple(served.example.values())) is not None
    assert served.quick.answer(row) is None
    said = answer(served, [row], many=False).answers[0]
    assert "rule hpa decided" in said["fallback"]
    assert said["desired_replicas"] == 6


def broken_at_high_load(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> ServedPolicy:
    """A network whose scores overflow where the backlog is long."""
    from tests.conftest import tiny_model_bytes

    whole = tiny_network()
    names = [f.name for f in whole.spec.observation_fields]
    weights = np.zeros((len(names), len(whole.spec.actions)))
    weights[names.index("backlog_requests")] = 3e38
    save_policy(NetworkPolicy(whole.spec, tiny_model_bytes(weights, np.arange(8.0))), tmp_path / "broken")
    return ServedPolicy.load(tmp_path / "broken")


def test_a_rule_has_no_short_way_and_remembers_through_the_long_one(hpa: ServedPolicy) -> None:
    assert hpa.quick is None
    read = hpa.reader.read(json.dumps({"observation": hpa.example}).encode())
    assert read is not None
    assert "state" in answer(hpa, *read).answers[0]
