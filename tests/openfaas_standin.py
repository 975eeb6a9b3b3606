"""A gateway that answers as OpenFaaS's published interface (0.8.12) demands, and real processes that work on a real Redis.

Two ways of scaling: `scale-function` of one function with many replicas, each a worker; and a function for each worker, which
begins when it is called, as the workflow system has it. Removing a function kills its process, whatever it is doing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from scalepilot.operate.twin import Clock

WORKER = Path(__file__).with_name("farm_worker.py")
NAMESPACE, USER, PASSWORD = "openfaas-fn", "admin", "secret"
COMMUNITY = (1, 5)


@dataclass
class Deployed:
    """A function.

    Attributes:
        body: it was deployed with.
        replicas: asked for.
        processes: of its replicas, or of its call.
        since: when each became a replica.
    """

    body: dict[str, Any]
    replicas: int = 1
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    invocations: int = 0
    created: float = field(default_factory=time.time)
    changed: float = 0.0
    before: int = 0


@dataclass
class Standin:
    """The gateway and everything behind it.

    Attributes:
        redis: host, port and database.
        clock: of the tasks' times.
        community: whether it keeps 1 to 5 replicas of whatever is asked for.
        start_seconds: until a replica is available.
        most_functions: refuses to deploy more.
        fail: path's beginning → status it answers with.
        delay_seconds: before each answer.
        says_started: whether workers say that they have started.
    """

    redis: tuple[str, int, int]
    clock: Clock = field(default_factory=Clock)
    community: bool = False
    start_seconds: float = 0.0
    most_functions: int = 10_000
    fail: dict[str, int] = field(default_factory=dict)
    delay_seconds: float = 0.0
    says_started: bool = True
    functions: dict[str, Deployed] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    url: str = ""
    authorisation: str = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.ended: list[subprocess.Popen[bytes]] = []
        self._number = 0

    def process(self, kind: str, name: str = "collector") -> subprocess.Popen[bytes]:
        """A worker or the collector."""
        self._number += 1
        spec = {
            "kind": kind,
            "redis": self.redis,
            "pod_name": f"{name}-5d8f7c9b4-{self._number:05d}",
            "pace": self.clock.pace,
            "clock": [self.clock._begin, self.clock._mark],
            "says_started": self.says_started,
        }
        process = subprocess.Popen([sys.executable, "-I", "-S", str(WORKER), json.dumps(spec)])
        self.ended.append(process)
        return process

    def available(self, deployed: Deployed) -> int:
        """Replicas that serve: new ones do after a while."""
        if deployed.changed and time.monotonic() - deployed.changed < self.start_seconds:
            return min(deployed.before, deployed.replicas)
        return deployed.replicas

    def status(self, name: str) -> dict[str, Any]:
        """FunctionStatus."""
        deployed = self.functions[name]
        body = deployed.body
        return {
            "name": name,
            "image": body["image"],
            "namespace": NAMESPACE,
            "envProcess": "",
            "labels": body.get("labels") or {},
            "annotations": body.get("annotations"),
            "invocationCount": deployed.invocations,
            "replicas": deployed.replicas,
            "availableReplicas": self.available(deployed),
            "createdAt": datetime.fromtimestamp(deployed.created, UTC).isoformat().replace("+00:00", "Z"),
        }

    def scale(self, name: str, replicas: int) -> None:
        """Give a function so many replicas, each a worker; those that go finish their task."""
        deployed = self.functions[name]
        deployed.before, deployed.replicas, deployed.changed = self.available(deployed), replicas, time.monotonic()
        if deployed.body.get("labels", {}).get("works") == "true":
            while len(deployed.processes) < replicas:
                deployed.processes.append(self.process("worker", name))
            while len(deployed.processes) > replicas:
                deployed.processes.pop().terminate()

    def alert(self, body: dict[str, Any]) -> None:
        """What Alertmanager sends: up by a share of the maximum while it fires, to the minimum when it is over."""
        for alert in body["alerts"]:
            name = alert["labels"]["function_name"].removesuffix(f".{NAMESPACE}")
            labels = self.functions[name].body.get("labels", {})
            low, high = (int(labels.get(f"com.openfaas.scale.{key}", default)) for key, default in (("min", 1), ("max", 5)))
            step = math.ceil(min(high, 5) / 100 * int(labels.get("com.openfaas.scale.factor", 10)))
            have = self.functions[name].replicas
            self.scale(name, min(have + step, min(high, 5)) if alert["status"] == "firing" and step else low)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Of one request to /system or /async-function."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "async-function" and method == "POST":
            name, _, namespace = parts[1].partition(".")
            if name not in self.functions or namespace not in ("", NAMESPACE):
                return 404, "error finding function"
            deployed = self.functions[name]
            deployed.invocations += 1
            deployed.processes.append(self.process("worker", name))
            return 202, None
        match method, parts[1:]:
            case "GET", ["info"]:
                version = {"release": "0.27.12", "sha": "0" * 40, "commit_message": ""}
                provider = {"provider": "faas-netes", "orchestration": "kubernetes", "version": version}
                return 200, {"provider": provider, "version": version, "arch": "x86_64"}
            case "GET", ["functions"]:
                return 200, [self.status(name) for name in self.functions] or None
            case "GET", ["function", name]:
                return (200, self.status(name)) if name in self.functions else (404, "function not found")
            case "POST", ["functions"]:
                return self._deploy(body)
            case "DELETE", ["functions"]:
                return self._remove(body)
            case "POST", ["scale-function", name]:
                return self._scaled(name, body)
            case "POST", ["alert"]:
                self.alert(body)
                return 200, None
        return 404, "404 page not found"

    def _deploy(self, body: Any) -> tuple[int, Any]:
        if not isinstance(body, dict) or not body.get("service") or not body.get("image"):
            return 400, "service and image are required"
        if len(self.functions) >= self.most_functions:
            return 500, f"unable to deploy: no more than {self.most_functions} functions are allowed"
        self.functions[body["service"]] = Deployed(body, changed=time.monotonic())
        if body.get("labels", {}).get("works") == "true":
            self.scale(body["service"], 1)
        return 202, None

    def _remove(self, body: Any) -> tuple[int, Any]:
        name = body.get("functionName") if isinstance(body, dict) else None
        if not name:
            return 400, "functionName is required"
        if name not in self.functions:
            return 404, "function not found"
        for process in self.functions.pop(name).processes:
            process.kill()
        return 202, None

    def _scaled(self, name: str, body: Any) -> tuple[int, Any]:
        replicas = body.get("replicas") if isinstance(body, dict) else None
        known = isinstance(body, dict) and body.get("serviceName") == name and body.get("namespace") == NAMESPACE
        if not known or not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            return 400, "Error unmarshalling request body"
        if name not in self.functions:
            return 404, "function not found"
        low, high = COMMUNITY
        self.scale(name, min(max(replicas, low), high) if self.community else replicas)
        return 202, None


@contextmanager
def running(standin: Standin, *, collects: bool = True) -> Iterator[Standin]:
    """The gateway answering, and a collector at work; all processes are ended with the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def _any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(standin.delay_seconds)
            parts = urlsplit(self.path)
            try:
                body = json.loads(data) if data else None
            except ValueError:
                body = None
            with standin.lock:
                standin.asked.append((self.command, parts.path, body))
                failing = next((code for start, code in standin.fail.items() if parts.path.startswith(start)), None)
                namespace = parse_qs(parts.query).get("namespace", [NAMESPACE])[0]
                if parts.path == "/healthz":
                    code, found = 200, "OK"
                elif parts.path.startswith("/system/") and self.headers.get("Authorization") != standin.authorisation:
                    code, found = 401, "invalid credentials"
                elif failing is not None:
                    code, found = failing, "the reason"
                elif namespace != NAMESPACE:
                    code, found = 404, f"namespace {namespace} not found"
                else:
                    code, found = standin.answer(self.command, parts.path, body)
            out = b"" if found is None and code == 202 else (found if isinstance(found, str) else json.dumps(found)).encode()
            with contextlib.suppress(OSError):
                self.send_response(code)
                if code == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="Restricted"')
                self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

        do_GET = do_POST = do_DELETE = do_PUT = _any

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    standin.url = f"http://127.0.0.1:{server.server_address[1]}"
    if collects:
        standin.process("collector")
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for process in standin.ended:
            process.kill()
        for process in standin.ended:
            process.wait()
