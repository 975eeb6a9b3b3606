"""What several test modules share: the shared specification where it is mounted, and a network small enough to read."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import hypothesis
import numpy as np
import pytest

import scalepilot.simulate
from scalepilot.policy import ActionEntry, NetworkPolicy, PolicySpec, autoscale_fields, save_policy
from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable

pytest_plugins = ["tests.all_ran"]
# Read when Ray is first imported, so set before any test module does. Tests never use a person's own token.
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "scalepilot-tests-only-0123456789abcdef",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers are started when there is something to do.
    "RAY_prestart_worker_first_driver": "0",
    # Two pytest processes share two cores: threads that wait for each other in a spin only slow all of them down.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# Compiled once, not by each of the processes that the tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Commands do their jobs one after the other here: a process that is spawned imports everything anew, and executors of
# several have tests of their own. Whoever takes the name from there later gets this.
scalepilot.simulate.usable_cores = lambda: 1
# RLlib looks at the stack for each of its connectors; pytest's is deep, and the source lines of it are not asked for.
inspect.stack = partial(inspect.stack, context=0)
# Unix sockets allow 107 bytes; Ray appends about 75 of its own.
_LONGEST_RAY_FOLDER = 30

# An example takes as long as the machine lets it: CI has other work.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"../shared/{name} is absent: this check needs the team's shared folder")
    return folder


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where the slow tests alone are asked for, a module that has none is not imported, by none of the processes."""
    if not config.option.markexpr.startswith("slow and ") or collection_path.suffix != ".py":
        return None
    return True if b"mark.slow" not in collection_path.read_bytes() else None


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope="session")
def traces() -> Path:
    """Folder of the recorded workloads; skips where it is absent."""
    return _shared("traces")


@pytest.fixture(scope="session")
def schemas() -> Path:
    """Folder of the CustomResourceDefinitions; skips where it is absent."""
    return _shared("schemas")


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

    def make(seed: int = 0, params: AutoscaleParams | None = None, **changes: Any) -> NetworkPolicy:
        params, rng = params or AutoscaleParams(), np.random.default_rng(seed)
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


@pytest.fixture(scope="session")
def blob() -> str:
    """Id of a tiny environment on images, registered with gymnasium."""
    from tests.image_env import Blob

    env_id = "test/Blob-v0"
    if env_id not in gym.registry:
        gym.register(env_id, Blob)
    return env_id


@pytest.fixture(scope="session")
def ray_tmpdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder short enough for Ray's sockets, under pytest's own where that is possible."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen") else base) / "r"
    if len(str(folder)) <= _LONGEST_RAY_FOLDER:
        folder.mkdir(exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp", ignore_cleanup_errors=True) as short:
        yield Path(short)


@pytest.fixture(scope="session")
def ray_session(ray_tmpdir: Path) -> Iterator[None]:
    """The session's one local cluster."""
    import ray

    from scalepilot.cluster.ray_internals import without_helpers

    with without_helpers():
        ray.init(
            num_cpus=3,
            include_dashboard=False,
            object_store_memory=200 * 1024**2,
            logging_level="ERROR",
            log_to_driver=False,
            # Of its own: Ray opens the folder that it gets to everybody, and the commands then refuse it as RAY_TMPDIR.
            _temp_dir=str(ray_tmpdir / "s"),
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real API server, a `tests.real_kubernetes.Kubernetes`; one per module, as it uses CPU even when idle."""
    from tests import real_kubernetes

    with real_kubernetes.running(tmp_path_factory.mktemp("k8s"), real_kubernetes.cache(tmp_path_factory)) as found:
        yield found


@pytest.fixture(scope="session")
def cli_env(ray_tmpdir: Path) -> dict[str, str]:
    """Environment for `scalepilot` as a subprocess, which starts and ends a Ray of its own."""
    # The commands of this very installation come first, also where its environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "RAY_TMPDIR": str(ray_tmpdir), "PYTHONUNBUFFERED": "1"}
