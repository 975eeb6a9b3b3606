"""`scalepilot serve` beside stock Ray Serve and bare uvicorn: the same network, the same request, alternating on one machine.

Ours with all that is on in production: keys, ranges, metrics. wrk makes the load. Each server is started, measured and ended by
itself, so that none takes another's time; the rounds alternate, and the figures are medians.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.ports import free_port

ROUNDS, SECONDS, WARM_SECONDS = 5, 5, 1
CONNECTIONS = (1, 16, 64)
BATCH = 256
# While this machine's host takes its cores away, a queue may be full for a moment.
MAX_REFUSED_SHARE = 0.001
HIDDEN = 64
_START_SECONDS, _STOP_SECONDS = 180.0, 60.0
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
KEY = secrets.token_hex(16)
ROOT = Path(__file__).resolve().parents[1]
Figures = dict[str, float]


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Alternate the three servers.

    Raises:
        SystemExit: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise SystemExit("wrk: is not installed; install it with: apt-get install wrk (or brew install wrk)")
    rounds: dict[str, list[Figures]] = {"scalepilot": [], "serve_stock": [], "uvicorn": []}
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        body = make_policy(folder)
        servers: dict[str, Callable[[int], list[str]]] = {
            "scalepilot": lambda port: scalepilot_command(folder, port),
            "serve_stock": lambda port: [sys.executable, "-m", "benchmarks.serve_rivals.stock_serve", str(port)],
            "uvicorn": _uvicorn,
        }
        for _ in range(int(os.environ.get("BENCH_ROUNDS", ROUNDS))):
            for server, command in servers.items():
                path = "/v1/policies/bench:decide" if server == "scalepilot" else "/decide"
                rounds[server].append(_measured(server, command, path, body, folder))
    figures: dict[str, Any] = {"rounds": len(rounds["uvicorn"]), "seconds": SECONDS}
    for server, measured in rounds.items():
        figures[server] = {key: round(statistics.median(m[key] for m in measured), 3) for key in measured[0]}
    return figures, _ratios(figures)


def _ratios(figures: dict[str, Any]) -> dict[str, float]:
    ours, stock, bare = figures["scalepilot"], figures["serve_stock"], figures["uvicorn"]
    ratios = {
        "vs_serve_stock": ours["requests_per_second_16"] / stock["requests_per_second_16"],
        "vs_uvicorn": ours["requests_per_second_16"] / bare["requests_per_second_16"],
        "p50_at_1_vs_serve_stock": ours["p50_milliseconds_1"] / stock["p50_milliseconds_1"],
        "p99_at_1_vs_uvicorn": ours["p99_milliseconds_1"] / bare["p99_milliseconds_1"],
        "p99_at_16_vs_serve_stock": ours["p99_milliseconds_16"] / stock["p99_milliseconds_16"],
        "batch_256_vs_single": ours["p50_milliseconds_batch"] / ours["p50_milliseconds_1"],
        "replica_pss_vs_serve_stock": ours["replica_pss_mib"] / stock["replica_pss_mib"],
    }
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    return rounded | {"ready_seconds_after_serve_stock": round(ours["ready_seconds"] - stock["ready_seconds"], 2)}


def _measured(server: str, command: Callable[[int], list[str]], path: str, body: dict[str, Any], folder: Path) -> Figures:
    port = free_port()
    with running(command(port), port, folder) as (process, ready_seconds):
        url = f"http://127.0.0.1:{port}{path}"
        one, many = json.dumps(body), json.dumps({"observation": [body["observation"]] * BATCH})
        figures: Figures = {"ready_seconds": ready_seconds}
        wrk(url, one, 4, WARM_SECONDS, folder)
        for connections in CONNECTIONS:
            measured = wrk(url, one, connections, SECONDS, folder)
            figures |= {f"{key}_{connections}": value for key, value in measured.items() if key != "requests"}
        if server == "scalepilot":
            figures["p50_milliseconds_batch"] = wrk(url, many, 1, SECONDS, folder)["p50_milliseconds"]
        if server != "uvicorn":
            figures["replica_pss_mib"] = _replica_pss_mib(process)
    return figures


def scalepilot_command(folder: Path, port: int) -> list[str]:
    """The command that serves the artifact with a key."""
    script = [sys.executable, "-m", "scalepilot.cli", "serve", str(folder / "artifact"), "--port", str(port)]
    return [*script, "--api-key-file", str(folder / "keys"), "--log-file", str(folder / "serve.log")]


def _uvicorn(port: int) -> list[str]:
    module = "benchmarks.serve_rivals.app:make_app"
    return [sys.executable, "-m", "uvicorn", "--factory", module, "--port", str(port), "--log-level", "critical"]


def make_policy(folder: Path) -> dict[str, Any]:
    """A network of two tanh layers for Autoscale-v0, as an artifact and as weights for the rivals; its example request."""
    from onnx import TensorProto, helper, numpy_helper

    from scalepilot.policy import ActionEntry, NetworkPolicy, PolicySpec, autoscale_fields, save_policy
    from scalepilot.serve.decide.example import example_observation
    from scalepilot_envs.autoscale import DEFAULT_MOVES, ENV_ID, AutoscaleParams, MoveTable

    fields, rng = autoscale_fields(AutoscaleParams()), np.random.default_rng(0)
    sizes = [len(fields), HIDDEN, HIDDEN, len(DEFAULT_MOVES)]
    arrays, nodes, at = {}, [], "observation"
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        arrays[f"weight_{i}"] = (rng.normal(0, 0.1, (rows, columns)) / (1000 if i == 0 else 1)).astype(np.float32)
        arrays[f"bias_{i}"] = rng.normal(0, 0.1, columns).astype(np.float32)
        out = "scores" if i == 2 else f"linear_{i}"
        nodes.append(helper.make_node("Gemm", [at, f"weight_{i}", f"bias_{i}"], [out]))
        at = out if i == 2 else f"hidden_{i}"
        nodes += [] if i == 2 else [helper.make_node("Tanh", [out], [at])]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", sizes[0]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", sizes[-1]])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    actions = tuple(ActionEntry(**entry) for entry in MoveTable(DEFAULT_MOVES).to_json())
    spec = PolicySpec("bench", "1", "network", ENV_ID, asdict(AutoscaleParams()), fields, actions, "argmax_p")
    save_policy(NetworkPolicy(spec, model.SerializeToString()), folder / "artifact")
    np.savez(folder / "weights.npz", **arrays)
    about = {"names": [f.name for f in fields], "actions": [asdict(a) for a in actions]}
    (folder / "policy.json").write_text(json.dumps(about), encoding="utf-8")
    keys = folder / "keys"
    keys.touch(mode=0o600)
    keys.write_text(KEY, encoding="ascii")
    return {"observation": example_observation(spec)}


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[tuple[psutil.Process, float]]:
    """A server and the seconds until it was ready; ended with every process it began."""
    ray_folder = tempfile.mkdtemp(prefix="b-", dir="/tmp")
    env = os.environ | {"RIVAL_FOLDER": str(folder), "RIVAL_RAY_FOLDER": ray_folder, "RAY_USAGE_STATS_ENABLED": "0"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    log = (folder / "server.log").open("ab")
    begin = time.perf_counter()
    started = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    process = psutil.Process(started.pid)
    try:
        while not _is_ready(port):
            if started.poll() is not None or time.perf_counter() - begin > _START_SECONDS:
                raise SystemExit(f"{command[2]}: did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield process, time.perf_counter() - begin
    finally:
        children = process.children(recursive=True)
        started.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(_STOP_SECONDS)
        for orphan in psutil.wait_procs([process, *children], timeout=5)[1]:
            orphan.kill()
        log.close()
        shutil.rmtree(ray_folder, ignore_errors=True)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wrk(url: str, body: str, connections: int, seconds: int, folder: Path) -> Figures:
    """Requests a second, and the time of an answer.

    Raises:
        SystemExit: more than a few requests were answered with another status than 200. Time-outs show in the figures.
    """
    script = folder / "request.lua"
    headers = f'wrk.headers["Content-Type"] = "application/json"\nwrk.headers["X-API-Key"] = "{KEY}"\n'
    script.write_text(f'wrk.method = "POST"\n{headers}wrk.body = {json.dumps(body)}\n', encoding="utf-8")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    total = re.search(r"(\d+) requests in", said)
    assert total is not None
    if refused is not None and int(refused[1]) > MAX_REFUSED_SHARE * int(total[1]):
        raise SystemExit(f"too many requests were not answered with 200:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None
    figures = {"requests_per_second": float(rate[1])}
    figures["requests"] = float(total[1])
    for share in (50, 99):
        found = re.search(rf"\s{share}%\s+([\d.]+)(us|ms|s)", said)
        assert found is not None
        figures[f"p{share}_milliseconds"] = float(found[1]) * _UNITS[found[2]]
    return figures


def _replica_pss_mib(process: psutil.Process) -> float:
    """Proportional set size of the process that holds the model."""
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ServeReplica" in " ".join(child.cmdline()):
                return float(child.memory_full_info().pss / 2**20)
    raise SystemExit("no replica found")
