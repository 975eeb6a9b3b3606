"""Open Inference Protocol v2 without HTTP: what is answered, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import RequestError, ServedPolicy
from scalepilot.serve.decide.oip import infer, model_metadata
from scalepilot_envs.autoscale import AutoscaleParams


@pytest.fixture
def network(tiny_artifact: Path) -> ServedPolicy:
    return ServedPolicy.load(tiny_artifact)


def row(served: ServedPolicy) -> list[float]:
    return list(served.example.values())


def request_of(served: ServedPolicy, **changes: Any) -> dict[str, Any]:
    values = row(served)
    return {"name": "observation", "shape": [1, len(values)], "datatype": "FP32", "data": values} | changes


def ask(served: ServedPolicy, *tensors: dict[str, Any], **keys: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(infer(served, json.dumps({"inputs": list(tensors)} | keys).encode()).body)
    return answer


def refused(served: ServedPolicy, *tensors: dict[str, Any], body: bytes | None = None, **keys: Any) -> str:
    with pytest.raises(RequestError) as refusal:
        infer(served, body if body is not None else json.dumps({"inputs": list(tensors)} | keys).encode())
    assert refusal.value.status == 400
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def outputs(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output for output in answer["outputs"]}


def test_metadata_says_what_is_taken_and_given(network: ServedPolicy) -> None:
    said = model_metadata(network, ["1"])
    assert said["platform"] == "onnx_onnxv1"
    assert said["inputs"] == [{"name": "observation", "datatype": "FP32", "shape": [-1, 21]}]
    assert {o["name"]: (o["datatype"], o["shape"]) for o in said["outputs"]} == {
        "action": ("INT64", [-1]),
        "desired_replicas": ("INT64", [-1]),
        "scores": ("FP32", [-1, 8]),
    }


@pytest.mark.parametrize("nested", [False, True])
def test_rows_are_decided_as_the_artifact_decides(network: ServedPolicy, nested: bool) -> None:
    rows = [row(network), [0.5 * value for value in row(network)]]
    data: list[Any] = rows if nested else [value for one in rows for value in one]
    answer = ask(network, request_of(network, shape=[2, 21], data=data), id="a-7")
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "1", "a-7")
    expected, _ = network.policy.act(np.array(rows))
    assert expected.action is not None
    assert expected.desired_replicas is not None
    assert expected.scores is not None
    found = outputs(answer)
    assert found["action"]["data"] == expected.action.tolist()
    assert found["desired_replicas"]["data"] == expected.desired_replicas.tolist()
    assert found["scores"]["shape"] == [2, 8]
    np.testing.assert_allclose(found["scores"]["data"], expected.scores.ravel(), rtol=1e-6)


def test_outputs_come_as_asked_for(network: ServedPolicy) -> None:
    answer = ask(network, request_of(network), outputs=[{"name": "desired_replicas"}])
    assert list(outputs(answer)) == ["desired_replicas"]


def test_tensors_travel_as_bytes_both_ways(network: ServedPolicy) -> None:
    values = np.array([row(network)] * 3, dtype="<f4")
    tensor = {"name": "observation", "shape": [3, 21], "datatype": "FP32", "parameters": {"binary_data_size": values.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    inferred = infer(network, head + values.tobytes(), str(len(head)).encode())
    assert inferred.header_length is not None
    told = json.loads(inferred.body[: inferred.header_length])
    at = inferred.header_length
    for output, dtype in zip(told["outputs"], ("<i8", "<i8", "<f4"), strict=True):
        size = output["parameters"]["binary_data_size"]
        found = np.frombuffer(inferred.body[at : at + size], dtype).reshape(output["shape"])
        assert len(found) == 3
        at += size
    assert at == len(inferred.body)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datatype": "BYTES"}, "datatype: 'BYTES' is not allowed; allowed: BOOL, UINT8, UINT16"),
        ({"shape": [2, 21]}, "21 numbers do not fill shape [2, 21]"),
        ({"shape": [1, 20]}, "shape: [1, 20]"),
        ({"shape": [21]}, "shape: [21]"),
        ({"shape": [-1, 21]}, "shape: [-1, 21]"),
        ({"shape": [5000, 21]}, "n from 1 to 4096"),
        ({"data": [1.0] * 20}, "20 numbers do not fill"),
        ({"data": [[1.0] * 20]}, "do not fill"),
        ({"data": ["1"] * 21}, "finite numbers"),
        ({"data": [True] * 21}, "finite numbers"),
        ({"data": {}}, "finite numbers"),
        ({"data": [-1.0] * 21}, "request_rate_rps_0"),
        ({"name": "x"}, "'x' is not allowed"),
        ({"name": 3}, "body"),
        ({"parameters": {"binary_data_size": 84}}, "binary_data_size 84"),
    ],
)
def test_a_wrong_tensor_is_refused_in_one_line(network: ServedPolicy, changes: dict[str, Any], words: str) -> None:
    assert words in refused(network, request_of(network, **changes))


def test_a_missing_a_double_and_a_foreign_input_are_refused(network: ServedPolicy) -> None:
    assert "observation is missing" in refused(network)
    assert "given 2 times" in refused(network, request_of(network), request_of(network))
    assert "'other'" in refused(network, request_of(network), request_of(network, name="other"))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_not_finite_are_refused(network: ServedPolicy, number: str) -> None:
    body = json.dumps({"inputs": [request_of(network)]}).replace(str(row(network)[0]), number, 1).encode()
    refused(network, body=body)


def test_bytes_that_are_not_finite_are_refused(network: ServedPolicy) -> None:
    values = np.array([row(network)], dtype="<f4")
    values[0, 3] = np.nan
    tensor = {"name": "observation", "shape": [1, 21], "datatype": "FP32", "parameters": {"binary_data_size": values.nbytes}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(RequestError, match=r"observation\[0\]\[3\] \(request_rate_rps_3\): nan"):
        infer(network, head + values.tobytes(), str(len(head)).encode())
    with pytest.raises(RequestError, match="80 bytes after the JSON, binary_data_size 84"):
        infer(network, head + values.tobytes()[:-4], str(len(head)).encode())


@pytest.mark.parametrize("length", [b"-1", b"x", b"99999999", b"9" * 30])
def test_a_wrong_header_length_is_refused(network: ServedPolicy, length: bytes) -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        infer(network, json.dumps({"inputs": [request_of(network)]}).encode(), length)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"inputs": {}}', b"\xff", b'{"inputs": [1]}'])
def test_what_is_no_request_is_refused(network: ServedPolicy, body: bytes) -> None:
    assert "allowed" in refused(network, body=body)


def test_a_value_out_of_range_is_clipped_only_at_the_clients_wish(network: ServedPolicy) -> None:
    values = row(network)
    at = [f.name for f in network.spec.observation_fields].index("cpu_utilisation")
    values[at] = 1.5
    assert "(cpu_utilisation): 1.5 is not allowed; allowed: 0 to 1 share" in refused(network, request_of(network, data=values))
    body = json.dumps({"inputs": [request_of(network, data=values)], "parameters": {"clip": True}}).encode()
    clipped = infer(network, body).clipped
    assert clipped is not None
    assert [(c["field"], c["value"], c["used"]) for c in clipped[0]] == [("cpu_utilisation", 1.5, 1.0)]


def test_a_bound_that_float32_rounds_up_is_within_range(network: ServedPolicy) -> None:
    high = [f.high for f in network.spec.observation_fields]
    ask(network, request_of(network, data=np.array(high, np.float32).astype(float).tolist()))


def test_a_rule_with_memory_is_sent_to_its_own_endpoint(tmp_path: Path) -> None:
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "hpa")
    hpa = ServedPolicy.load(tmp_path / "hpa")
    assert ":decide" in refused(hpa, request_of(hpa))


def test_a_rule_without_memory_gives_replicas_alone(tmp_path: Path) -> None:
    save_policy(make_rule("static", AutoscaleParams(), {"replicas": 9}), tmp_path / "static")
    static = ServedPolicy.load(tmp_path / "static")
    found = outputs(ask(static, request_of(static)))
    assert list(found) == ["desired_replicas"]
    assert found["desired_replicas"]["data"] == [9]


def test_rows_that_fell_back_are_named(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> None:
    from tests.unit.test_serve_fast import broken_at_high_load

    served = broken_at_high_load(tmp_path, tiny_network)
    good, bad = row(served), list((served.example | {"backlog_requests": 36000.0}).values())
    answer = ask(served, request_of(served, shape=[2, 21], data=[good, bad]))
    assert answer["parameters"] == {"fallback_rows": "1"}
    assert outputs(answer)["action"]["data"][1] == -1
    assert outputs(answer)["desired_replicas"]["data"][1] == 6
