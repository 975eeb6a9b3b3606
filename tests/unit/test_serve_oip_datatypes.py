"""What datatypes the Open Inference Protocol's input may have: decided as the same numbers in FP32, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalepilot.serve import RequestError, ServedPolicy
from scalepilot.serve.decide.oip import DATATYPES, infer

NUMPY = {kind: kind.lower().replace("fp", "float") for kind in DATATYPES}


def asked(served: ServedPolicy, datatype: str, values: Any, *, binary: bool) -> dict[str, Any]:
    width = len(served.spec.observation_fields)
    tensor: dict[str, Any] = {"name": "observation", "shape": [1, width], "datatype": datatype}
    if binary:
        head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(values)}}]}).encode()
        inferred = infer(served, head + values, str(len(head)).encode())
    else:
        inferred = infer(served, json.dumps({"inputs": [tensor | {"data": values}]}).encode())
    answer: dict[str, Any] = json.loads(inferred.body)
    return answer


def refused(served: ServedPolicy, datatype: str, values: Any, *, binary: bool) -> str:
    with pytest.raises(RequestError) as refusal:
        asked(served, datatype, values, binary=binary)
    assert refusal.value.status == 400
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def network(tiny_artifact: Path) -> ServedPolicy:
    return ServedPolicy.load(tiny_artifact)


def test_every_datatype_is_decided_as_the_same_numbers_in_fp32(network: ServedPolicy) -> None:
    assert {"FP16", "FP32", "FP64", "BOOL"} | {f"{u}INT{n}" for u in ("", "U") for n in (8, 16, 32, 64)} == set(DATATYPES)
    fields = network.spec.observation_fields
    # 0 and 1 are within every field's range here, or its lower bound is above: then clip to it.
    numbers = [float(min(max(i % 2, np.ceil(f.low)), np.floor(f.high))) for i, f in enumerate(fields)]
    expected, _ = network.policy.act(np.array([numbers]))
    assert expected.action is not None
    decided = []
    for datatype in DATATYPES:
        values = np.array(numbers).astype(NUMPY[datatype])
        if datatype == "BOOL" and values.astype(float).tolist() != numbers:
            continue
        rows = [values.tolist()]
        for answer in (
            asked(network, datatype, values.tobytes(), binary=True),
            asked(network, datatype, values.tolist(), binary=False),
            asked(network, datatype, rows, binary=False),
        ):
            outputs = {output["name"]: output["data"] for output in answer["outputs"]}
            assert outputs["action"] == expected.action.tolist(), datatype
            np.testing.assert_allclose(outputs["scores"], np.ravel(expected.scores), rtol=1e-6)
        decided.append(datatype)
    assert len(decided) >= 11


def test_fp64_is_not_rounded_to_fp32(network: ServedPolicy) -> None:
    numbers = np.array(list(network.example.values()), dtype="<f8")
    numbers[0] = 0.1
    head = json.dumps(
        {"inputs": [{"name": "observation", "shape": [1, 21], "datatype": "FP64", "parameters": {"binary_data_size": 168}}]}
    ).encode()
    inferred = infer(network, head + numbers.tobytes(), str(len(head)).encode())
    assert inferred.observation[0, 0] == 0.1


def test_what_a_datatype_does_not_hold_exactly_is_refused(network: ServedPolicy) -> None:
    for datatype, first, words in (
        ("INT8", 128, "observation[0][0]: 128 is not allowed for INT8; allowed: whole numbers from -128 to 127"),
        ("UINT8", -1, "-1 is not allowed for UINT8; allowed: whole numbers from 0 to 255"),
        ("INT32", 0.5, "0.5 is not allowed for INT32"),
        ("INT64", 2**53 + 1, f"{2**53 + 1} is not allowed for INT64"),
        ("INT64", 2**63, f"{2**63} is not allowed for INT64"),
        ("UINT64", 10**30, "is not allowed for UINT64"),
        ("BOOL", 2, "2 is not allowed for BOOL; allowed: whole numbers from 0 to 1"),
        ("BOOL", "true", "finite numbers"),
        ("INT16", True, "finite numbers"),
        ("FP16", 70000, "70000.0 is not allowed for FP16; allowed: -65504 to 65504"),
        ("FP32", 1e39, "is not allowed for FP32"),
        ("FP64", None, "finite numbers"),
    ):
        assert words in refused(network, datatype, [first, *[0] * 20], binary=False), datatype


def test_bytes_that_are_no_number_or_too_many_are_refused(network: ServedPolicy) -> None:
    assert "2 is not allowed for BOOL" in refused(network, "BOOL", bytes([2, *[0] * 20]), binary=True)
    assert f"{2**53 + 1} is not allowed" in refused(
        network, "INT64", np.array([2**53 + 1, *[0] * 20], "<i8").tobytes(), binary=True
    )
    assert f"{2**64 - 1} is" in refused(network, "UINT64", np.array([2**64 - 1, *[0] * 20], "<u8").tobytes(), binary=True)
    for value in (np.nan, np.inf, -np.inf):
        for datatype in ("FP16", "FP32", "FP64"):
            values = np.array([value, *[0] * 20], NUMPY[datatype])
            assert f"(request_rate_rps_0): {value:g}" in refused(network, datatype, values.tobytes(), binary=True)
    for datatype, size in (("FP64", 168), ("INT16", 42), ("BOOL", 21)):
        assert f"allowed: {size} for shape" in refused(network, datatype, b"\0" * 84, binary=True)


def test_a_bound_that_fp16_rounds_up_is_within_range(network: ServedPolicy) -> None:
    high = np.array([min(f.high, 60000.0) for f in network.spec.observation_fields])
    asked(network, "FP16", high.astype("<f2").tobytes(), binary=True)


def test_other_datatypes_are_refused_naming_those_allowed(network: ServedPolicy) -> None:
    for datatype in ("BF16", "BYTES", "fp32", "INT4", "", "F" * 500):
        said = refused(network, datatype, [0.0] * 21, binary=False)
        assert "observation.datatype" in said
        assert said.endswith("allowed: BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64")
