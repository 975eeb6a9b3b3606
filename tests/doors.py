"""A server with its real doors and without Ray: HAProxy as we configure it, or the door of Serve's own proxy, and a replica."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ports import free_port
from tests.slow_clients import request_bytes

from scalepilot.serve.ingress.haproxy_config import _copy_speaking_json, error_files, tighten, write_digests
from scalepilot.serve.ingress.ingress import haproxy_binary

REPO = Path(__file__).resolve().parents[1]
START_SECONDS = 60


@dataclass(frozen=True)
class Doors:
    """Where it listens, and what others ask of it."""

    port: int
    way: str
    key: str
    keys: Path

    def requests(self, observation: dict[str, float]) -> dict[str, bytes]:
        """Health and a decision, as `slow_clients.watch` takes them."""
        close = {"Connection": "close"}
        body = json.dumps({"observation": observation}).encode()
        return {
            "live": request_bytes("GET", "/health/live", close),
            "ready": request_bytes("GET", "/health/ready", close),
            "decide": request_bytes("POST", "/v1/policies/shop:decide", close | self.keyed(), body),
        }

    def keyed(self) -> dict[str, str]:
        return {"X-API-Key": self.key} if self.key else {}

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=self.keyed())
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else answer.status


def serves_configuration(folder: Path, replica: int) -> str:
    """HAProxy's configuration as Ray Serve itself renders it, for one replica."""
    from ray.serve._private import haproxy
    from ray.serve._private.common import RequestProtocol
    from ray.serve.config import HTTPOptions

    config = haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=8123, keep_alive_timeout_s=75),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        has_received_routes=True,
        has_received_servers=True,
        bufsize=65536,
        nbthread=1,
    )
    server = haproxy.ServerConfig(name="replica-1", host="127.0.0.1", port=replica)
    backend = haproxy.BackendConfig(
        name="http-app", path_prefix="/", app_name="app", servers=[server], protocol=RequestProtocol.HTTP
    )
    api = haproxy.HAProxyApi(cfg=config, backend_configs={"http-app": backend}, config_file_path=str(folder / "haproxy.cfg"))
    api._generate_config_file_internal()
    return (folder / "haproxy.cfg").read_text()


@contextmanager
def doors(folder: Path, way: str, policies: list[Path], config: dict[str, Any], key: str = "") -> Iterator[Doors]:
    """A server until the block is left.

    Args:
        folder: for its files, with a short path.
        way: "haproxy" or "plain".
        policies: folders.
        config: keys of ServeConfig.
        key: the one key; empty for none.
    """
    processes = []
    if key:
        keys = folder / "keys"
        keys.write_text(key)
        keys.chmod(0o600)
        config = config | {"api_key_file": str(keys)}
    replica, port = free_port(), free_port()
    try:
        command = [sys.executable, "-m", "tests.door_server", str(replica if way == "haproxy" else port), way, json.dumps(config)]
        processes.append(subprocess.Popen([*command, *map(str, policies)], cwd=REPO))
        if way == "haproxy":
            settings: dict[str, int | str] = {
                "listen": f"127.0.0.1:{port}",
                "requests_per_replica": 64,
                "queue_milliseconds": 50,
                "body_bytes": 1 << 20,
                "request_seconds": max(1, round(config.get("limits", {}).get("request_seconds", 10))),
            }
            if key:
                settings["key_digests"] = str(folder / "keys.sha256")
                write_digests(folder / "keys", folder / "keys.sha256")
            for name, content in error_files().items():
                (folder / name).write_bytes(content)
            (folder / "state").write_text("1\n")
            file = folder / "tight.cfg"
            file.write_text(tighten(serves_configuration(folder, replica), settings, folder))
            binary = haproxy_binary()
            assert binary is not None
            binary = _copy_speaking_json(binary, folder)
            processes.append(subprocess.Popen([binary, "-db", "-f", str(file)], stderr=subprocess.DEVNULL))
        made = Doors(port, way, key, folder / "keys")
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if isinstance(made.get("/health/ready"), dict):
                    break
            assert time.monotonic() < deadline, "the server did not start"
            assert all(process.poll() is None for process in processes), "a process of the server ended"
            time.sleep(0.1)
        yield made
    finally:
        for process in processes:
            process.kill()
            process.wait()


def raise_file_limit(wanted: int = 8192) -> None:
    """Let this process open so many files."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, most), most))


__all__ = ["Doors", "doors", "raise_file_limit"]
