"""`scalepilot serve` as a person runs it: a process, a port, HTTP, and a signal at the end."""

from __future__ import annotations

import inspect
import json
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.commands import refused

from scalepilot.errors import ConfigError
from scalepilot.policy import ActionEntry, NetworkPolicy, Policy, PolicySpec, autoscale_fields, load_policy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable

pytestmark = pytest.mark.ray

START_SECONDS, STOP_SECONDS = 120, 60


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    url: str
    curl: str
    folders: dict[str, Path]

    def policy(self, name: str) -> Policy:
        return load_policy(self.folders[name])

    def example(self, name: str) -> dict[str, float]:
        example: dict[str, float] = httpx.get(f"{self.url}/v1/policies/{name}").json()["example"]
        return example

    def decide(self, name: str, request: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/policies/{name}:decide", json=request, timeout=30)


def network_policy() -> NetworkPolicy:
    params = AutoscaleParams()
    fields, rng = autoscale_fields(params), np.random.default_rng(5)
    weights = rng.normal(0, 0.1, (len(fields), len(DEFAULT_MOVES))).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "weights"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", len(fields)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(DEFAULT_MOVES)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    actions = tuple(ActionEntry(**entry) for entry in MoveTable(DEFAULT_MOVES).to_json())
    spec = PolicySpec("net", "7", "network", ENV_ID, asdict(params), fields, actions, "sample")
    return NetworkPolicy(spec, model.SerializeToString())


def start(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scalepilot.cli", "serve", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def line_that_begins(process: subprocess.Popen[str], words: str) -> str:
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while not (line := lines.get(timeout=START_SECONDS)).startswith(words):
        assert line, process.stderr.read() if process.stderr else ""
    return line


def stop(process: subprocess.Popen[str], how: int = signal.SIGTERM) -> tuple[int, list[psutil.Process]]:
    """The exit code, and those it started that are still there."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    code = process.wait(STOP_SECONDS)
    return code, psutil.wait_procs(children, timeout=1)[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("policies")
    # One as a run's best policy, one as a policy folder.
    save_policy(make_rule("hpa", AutoscaleParams()), base / "run" / "policy")
    save_policy(network_policy(), base / "net")
    return {"hpa": base / "run", "net": base / "net"}


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], cli_env: dict[str, str]) -> Iterator[Server]:
    # Relative paths: the replica, in another folder, must find them all the same.
    arguments = [os.path.relpath(folder) for folder in folders.values()]
    process = start([*arguments, "--port", "0"], cli_env)
    try:
        curl = line_that_begins(process, "curl ")
        yield Server(process, curl.split()[1].partition("/v1/")[0], curl, folders)
    finally:
        if process.poll() is None:
            stop(process)


def test_a_serve_config_names_artifacts_only_and_nothing_else() -> None:
    from scalepilot.serve.app import ServeArgs, build

    # How Serve finds the type to check a config's `args` against.
    assert inspect.signature(build).parameters["args"].annotation is ServeArgs
    for wrong in ({}, {"policies": []}, {"policies": ["/policy"], "import": "os"}, {"policies": ["/policy"]}):
        with pytest.raises(ConfigError, match="args: "):
            build(ServeArgs.model_validate(wrong))
    assert build(ServeArgs.model_validate({"policies": ["/policy"], "without_keys": True}))


def test_it_listens_on_loopback_and_is_healthy(server: Server) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{server.url}/health/live").json() == {"status": "live"}
    assert httpx.get(f"{server.url}/health/ready").json() == {"status": "ready", "ready": True, "policies": 2}


def test_it_lists_its_policies_with_fields_units_and_bounds(server: Server) -> None:
    hpa, net = httpx.get(f"{server.url}/v1/policies").json()["policies"]
    assert (hpa["name"], hpa["kind"], hpa["actions"]) == ("hpa", "rule", [])
    assert (net["name"], net["version"], net["kind"], len(net["actions"])) == ("net", "7", "network", len(DEFAULT_MOVES))
    keys = ("name", "unit", "low", "high", "description", "promql")
    fields = server.policy("net").spec.observation_fields
    assert net["observation_fields"] == [{key: getattr(field, key) for key in keys} for field in fields]


def test_a_network_decides_over_http_as_the_artifact_does(server: Server) -> None:
    policy, rng = server.policy("net"), np.random.default_rng(0)
    fields = policy.spec.observation_fields
    rows = [{f.name: round(float(rng.uniform(f.low, f.high)), 3) for f in fields} for _ in range(50)]
    rows = [{f.name: min(row[f.name], f.high) for f in fields} for row in rows]
    expected, _ = policy.act(np.array([list(row.values()) for row in rows]))
    answers = server.decide("net", {"observation": rows}).json()
    assert expected.action is not None
    assert expected.desired_replicas is not None
    assert [answer["action"] for answer in answers] == expected.action.tolist()
    assert [answer["desired_replicas"] for answer in answers] == expected.desired_replicas.tolist()
    assert all(sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4) for answer in answers)


def test_a_rule_remembers_through_the_state_the_client_sends_back(server: Server) -> None:
    example = server.example("hpa")
    busy = server.decide("hpa", {"observation": example | {"cpu_utilisation": 1.0}}).json()
    idle = example | {"cpu_utilisation": 0.1, "ready_replicas": busy["desired_replicas"]}
    state, targets = busy["state"], []
    for _ in range(22):
        answer = server.decide("hpa", {"observation": idle, "state": state}).json()
        state = answer["state"]
        targets.append(answer["desired_replicas"])
    # Five minutes of 15 s: so long the highest recommendation counts. Without a state every decision is the first.
    assert targets[:18] == [busy["desired_replicas"]] * 18
    assert targets[-1] < busy["desired_replicas"]
    assert server.decide("hpa", {"observation": idle}).json()["move"] == "hold"


def test_a_wrong_field_is_a_422_that_names_field_unit_and_bounds(server: Server) -> None:
    answer = server.decide("net", {"observation": server.example("net") | {"cpu_utilisation": 70}})
    assert answer.status_code == 422
    assert "cpu_utilisation: 70 is not allowed; allowed: 0 to 1 share" in answer.json()["error"]
    problem = answer.json()["problems"][0]
    assert (problem["field"], problem["unit"], problem["low"], problem["high"]) == ("cpu_utilisation", "share", 0, 1)


def _streamed() -> Iterator[bytes]:
    yield from (b" " * 65536 for _ in range(320))


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("net", b"{", 400),
        ("net", b"[" * 100_000, 400),
        ("nett", b"{}", 404),
        ("..%2f..%2fetc%2fpasswd", b"{}", 404),
        ("net", b'{"observation": {"cpu_utilisation": NaN}}', 422),
        ("net", b'{"observation": {"cpu_utilisation": 1e400}}', 422),
        ("net", b'{"observation": []}', 422),
        ("net", b'{"observation": [' + b"{}," * 4096 + b"{}]}", 422),
        ("hpa", b'{"observation": {}, "state": {"recommendations": ["x"]}}', 422),
        ("net", b" " * 2_000_000, 413),
        ("net", _streamed, 413),
    ],
)
def test_every_bad_request_gets_one_line_and_the_service_goes_on(
    server: Server, name: str, content: bytes | Callable[[], Iterator[bytes]], status: int
) -> None:
    body = content() if callable(content) else content
    answer = httpx.post(f"{server.url}/v1/policies/{name}:decide", content=body, timeout=30)
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]
    assert server.decide("net", {"observation": server.example("net")}).status_code == 200


def test_the_documentation_is_served_with_all_its_files_and_true_examples(server: Server) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert page.headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert httpx.get(f"{server.url}/{name}").status_code == 200, name
    openapi = httpx.get(f"{server.url}/openapi.json").json()
    assert openapi["openapi"].startswith("3.1")
    operation = openapi["paths"]["/v1/policies/net:decide"]["post"]
    request = operation["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]
    expected = operation["responses"]["200"]["content"]["application/json"]["examples"]["one"]["value"]
    assert server.decide("net", request).json() == expected


def test_a_taken_port_and_a_bad_artifact_are_one_line_and_exit_2_before_anything_starts(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = server.url.rpartition(":")[2]
    good = str(server.folders["net"])
    for arguments, words in (
        ([good, "--port", port], "port"),
        ([good, "--host", "0.0.0.0"], "without API keys"),
        ([str(tmp_path)], "policy.json"),
        ([good, good, "--port", "0"], "net@7 is also in"),
    ):
        assert words in refused(capsys, "serve", *arguments)


def test_the_curl_line_works_as_pasted(server: Server) -> None:
    _, url, _, body = shlex.split(server.curl)
    assert httpx.post(url, content=body).json()["policy"] == "hpa"


def test_sigterm_drains_and_leaves_no_process_behind(server: Server) -> None:
    stopping = threading.Event()
    unexpected: list[str] = []

    example = server.example("net")

    def keep_asking() -> None:
        while not stopping.is_set():
            try:
                status = server.decide("net", {"observation": example}).status_code
            except httpx.TransportError:
                return
            if status not in (200, 503):
                unexpected.append(str(status))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    code, orphans = stop(server.process)
    stopping.set()
    asking.join()
    assert code == 0
    assert orphans == []
    assert unexpected == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_haproxy_and_with_keys_it_answers_the_same_and_ctrl_c_ends_everything(
    folders: dict[str, Path], tmp_path: Path, cli_env: dict[str, str]
) -> None:
    key = "a-key-of-this-test-0123456789"
    keys = tmp_path / "keys"
    keys.write_text(key)
    keys.chmod(0o600)
    (tmp_path / "serve.yaml").write_text(
        f"policies: [{folders['hpa']}, {folders['net']}]\n"
        "ingress: plain\nport: 0\napi_key_file: keys\nhost: 0.0.0.0\nopen: [metrics]\n"
    )
    # In a folder of its own, as without this variable.
    process = start(["--config", str(tmp_path / "serve.yaml"), "--json"], {k: v for k, v in cli_env.items() if k != "RAY_TMPDIR"})
    try:
        said = json.loads(line_that_begins(process, "{"))
        assert said["ingress"] == "plain"
        assert [policy["name"] for policy in said["policies"]] == ["hpa", "net"]
        url = f"http://127.0.0.1:{said['url'].rpartition(':')[2]}"
        assert httpx.get(f"{url}/v1/policies").status_code == 401
        assert httpx.get(f"{url}/metrics").status_code == 200
        with httpx.Client(headers={"authorization": f"Bearer {key}"}, base_url=url) as client:
            example = client.get("/v1/policies/net").json()["example"]
            answer = client.post("/v1/policies/net:decide", json={"observation": example}, headers={"x-request-id": "mine"})
            assert answer.json()["desired_replicas"] >= 1
            assert answer.headers.get_list("x-request-id") == ["mine"]
            assert client.post("/v1/policies/net:decide", content=b" " * 2_000_000).status_code == 413
        command = [sys.executable, "-m", "scalepilot.cli", "serve", "status", "--url", url, "--api-key-file", str(keys)]
        status = subprocess.run(command, env=cli_env, capture_output=True, text=True, check=True).stdout
        assert re.search(r"net@7 +network +\d+ requests +default", status), status
        assert " ready" in status.splitlines()[0]
        words = [word for child in psutil.Process(process.pid).children(recursive=True) for word in child.cmdline()]
        session = Path(next(word for word in words if word.startswith("--session-dir=")).partition("=")[2])
        assert session.is_dir()
    finally:
        code, left = stop(process, signal.SIGINT)
    assert (code, left) == (0, [])
    assert not session.parents[1].exists(), "its own folder"
