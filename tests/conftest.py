"""What several test modules share: the shared specification where it is mounted, and a network small enough to read."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scalepilot.policy import ActionEntry, NetworkPolicy, PolicySpec, autoscale_fields, save_policy
from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"../shared/{name} is absent: this check needs the team's shared folder")
    return folder


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope="session")
def traces() -> Path:
    """Folder of the recorded workloads; skips where it is absent."""
    return _shared("traces")


@pytest.fixture(scope="session")
def golden() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the executable specification by name; skips where it is absent."""
    folder = str(_shared("golden"))
    sys.path.insert(0, folder)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield importlib.import_module
    sys.path.remove(folder)
    sys.dont_write_bytecode = writes_bytecode


def tiny_model_bytes(weights: np.ndarray, bias: np.ndarray) -> bytes:
    """An ONNX file of one matrix product: scores = observation @ weights + bias."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Gemm", ["observation", "weights", "bias"], ["scores"])],
        "tiny",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", weights.shape[0]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", weights.shape[1]])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture
def tiny_network() -> Callable[..., NetworkPolicy]:
    """Makes a network policy for Autoscale-v0 whose scores are one matrix product; keywords replace parts of its spec."""

    def make(seed: int = 0, **changes: Any) -> NetworkPolicy:
        params, rng = AutoscaleParams(), np.random.default_rng(seed)
        fields = autoscale_fields(params)
        spec = PolicySpec(
            name="tiny",
            version="1",
            kind="network",
            env_id=ENV_ID,
            env_params=asdict(params),
            observation_fields=fields,
            actions=tuple(ActionEntry(**entry) for entry in MoveTable(DEFAULT_MOVES).to_json()),
            decision_rule="argmax_p",
            provenance={"algorithm": "none"},
        )
        weights = rng.normal(0, 0.1, (len(fields), len(DEFAULT_MOVES)))
        return NetworkPolicy(replace(spec, **changes), tiny_model_bytes(weights, rng.normal(0, 1, len(DEFAULT_MOVES))))

    return make


@pytest.fixture
def tiny_artifact(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> Path:
    """A folder with the tiny network's artifact."""
    folder = tmp_path / "tiny"
    save_policy(tiny_network(), folder)
    return folder
