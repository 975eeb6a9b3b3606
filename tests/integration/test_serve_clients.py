"""Clients that others wrote, against the application over real HTTP: Triton's, and a fuzzer that reads the OpenAPI document."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.ports import free_port

from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot_envs.autoscale import AutoscaleParams

# Ray is not needed for what is said on the wire, so the application runs under uvicorn alone.
_APP = """
import sys, uvicorn
from scalepilot.serve import PolicyApi, PolicyStore
uvicorn.run(PolicyApi(PolicyStore.load(sys.argv[2:])), port=int(sys.argv[1]), log_level="critical")
"""
_TRITON = """
import json, sys
import numpy as np
import tritonclient.http as triton

url, row = sys.argv[1], json.loads(sys.argv[2])
client = triton.InferenceServerClient(url)
said = {"live": client.is_server_live(), "ready": client.is_server_ready(), "model_ready": client.is_model_ready("tiny")}
said |= {"server": client.get_server_metadata(), "model": client.get_model_metadata("tiny"), "answers": []}
observation = np.array([row, [0.5 * value for value in row]], np.float32)
for binary in (True, False):
    tensor = triton.InferInput("observation", observation.shape, "FP32")
    tensor.set_data_from_numpy(observation, binary_data=binary)
    for version in ("", "1"):
        answer = client.infer("tiny", [tensor], model_version=version, request_id="42")
        names = ("action", "desired_replicas", "scores")
        said["answers"].append({"id": answer.get_response()["id"]} | {name: answer.as_numpy(name).tolist() for name in names})
    wanted = triton.InferRequestedOutput("desired_replicas", binary_data=binary)
    chosen = client.infer("tiny", [tensor], outputs=[wanted])
    said["chosen"] = [chosen.as_numpy("desired_replicas").tolist(), chosen.as_numpy("action") is None]
try:
    client.infer("unknown", [tensor])
except triton.InferenceServerException as error:
    said["refused"] = [error.status(), error.message()]
print(json.dumps(said))
"""
FUZZ_SECONDS = int(os.environ.get("SCALEPILOT_FUZZ_SECONDS", "20"))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients") / "tiny"


@pytest.fixture
def port(artifact: Path, tiny_network: Callable[..., NetworkPolicy]) -> Iterator[int]:
    save_policy(tiny_network(), artifact)
    save_policy(make_rule("hpa", AutoscaleParams()), artifact.parent / "hpa")
    free = free_port()
    command = [sys.executable, "-c", _APP, str(free), str(artifact), str(artifact.parent / "hpa")]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 60
        while not _answers(free):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield free
        assert process.poll() is None, "the server did not live through it"
        assert _answers(free)
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


def test_tritons_own_client_gets_metadata_and_inference_right(port: int, artifact: Path) -> None:
    pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    import numpy as np

    from scalepilot.serve import ServedPolicy

    served = ServedPolicy.load(artifact)
    row = list(served.example.values())
    done = subprocess.run(
        [sys.executable, "-c", _TRITON, f"127.0.0.1:{port}", json.dumps(row)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["live"], said["ready"], said["model_ready"]) == (True, True, True)
    assert said["server"]["name"] == "scalepilot"
    assert said["model"]["inputs"] == [{"name": "observation", "datatype": "FP32", "shape": [-1, 21]}]
    rows = np.array([row, [0.5 * value for value in row]], np.float32)
    expected, _ = served.policy.act(rows)
    assert expected.action is not None
    assert expected.desired_replicas is not None
    for answer in said["answers"]:
        assert answer["id"] == "42"
        assert answer["action"] == expected.action.tolist()
        assert answer["desired_replicas"] == expected.desired_replicas.tolist()
        np.testing.assert_allclose(answer["scores"], expected.scores, rtol=1e-6)
    assert said["chosen"] == [expected.desired_replicas.tolist(), True]
    assert said["refused"][0] == "404"
    assert "'unknown' is not served" in said["refused"][1]


@pytest.mark.slow
def test_a_fuzzer_finds_no_5xx_and_no_answer_that_the_document_does_not_allow(port: int, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("st")
    if not script.is_file() and shutil.which("st") is None:
        pytest.skip("schemathesis is not installed")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance"
    command = [str(script), "run", f"http://127.0.0.1:{port}/openapi.json", "--phases", "examples,coverage,fuzzing"]
    command += ["--checks", f"{checks},response_schema_conformance", "--max-time", str(FUZZ_SECONDS), "--seed", "7", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
