"""The ASGI application without a network: routes, limits, documents."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from tests.own_loop import run

from scalepilot.cluster.connection import check_address
from scalepilot.errors import InputError
from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyApi, PolicyStore, ServeConfig, serve_config
from scalepilot.serve.http.listen import check_host, free_port
from scalepilot_envs.autoscale import AutoscaleParams


@pytest.fixture
def store(tmp_path: Path, tiny_artifact: Path) -> PolicyStore:
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "hpa")
    return PolicyStore.load([tmp_path / "hpa", tiny_artifact])


@pytest.fixture
def api(store: PolicyStore) -> PolicyApi:
    return PolicyApi(store)


def ask(api: PolicyApi, method: str, path: str, **content: Any) -> httpx.Response:
    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.request(method, path, **content)

    return run(exchange())


def limited(store: PolicyStore, body_bytes: int) -> PolicyApi:
    return PolicyApi(store, serve_config({"limits": {"body_bytes": body_bytes}}))


def document(api: PolicyApi) -> dict[str, Any]:
    answer: dict[str, Any] = ask(api, "GET", "/openapi.json").json()
    return answer


def test_every_policy_says_what_it_needs_to_be_asked(api: PolicyApi) -> None:
    listed = ask(api, "GET", "/v1/policies").json()["policies"]
    assert [policy["name"] for policy in listed] == ["hpa", "tiny"]
    for policy in listed:
        assert {"version", "kind", "env_id", "actions", "evaluation", "decision_rule"} <= set(policy)
        assert {"name", "unit", "low", "high", "promql"} <= set(policy["observation_fields"][0])
        one = ask(api, "GET", f"/v1/policies/{policy['name']}").json()
        assert one.items() >= policy.items()
        answer = ask(api, "POST", one["decide_url"], json={"observation": one["example"]})
        assert answer.status_code == 200
        assert answer.json()["policy"] == policy["name"]


def test_health_is_open_and_readiness_ends_first_when_the_server_stops(api: PolicyApi) -> None:
    assert ask(api, "GET", "/health/live").json() == {"status": "live"}
    assert ask(api, "GET", "/health/ready").status_code == 200
    run(api.drain(1.0))
    assert ask(api, "GET", "/health/live").status_code == 200
    for method, path in (("GET", "/health/ready"), ("POST", "/v1/policies/hpa:decide")):
        stopping = ask(api, method, path)
        assert (stopping.status_code, stopping.headers["connection"]) == (503, "close")
        assert "stopping" in stopping.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/page/../page.css", 404),
        ("GET", "/v1/policies/", 404),
        ("GET", "/v1/policies/other", 404),
        ("POST", "/v1/policies/other:decide", 404),
        ("POST", "/v1/policies/..%2f..%2fetc%2fpasswd:decide", 404),
        ("POST", "/v1/policies/%00:decide", 404),
        ("GET", "/docs/%2e%2e/%2e%2e/index.html", 404),
        ("GET", "/docs/swagger-ui.js.map", 404),
        ("GET", "/v1/policies/hpa:decide", 405),
        ("POST", "/v1/policies", 405),
        ("DELETE", "/v1/policies/hpa", 405),
    ],
)
def test_every_error_is_json_with_one_line(api: PolicyApi, method: str, path: str, status: int) -> None:
    answer = ask(api, method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert "\n" not in answer.json()["error"]


def test_a_405_says_what_is_allowed(api: PolicyApi) -> None:
    assert ask(api, "GET", "/v1/policies/hpa:decide").headers["allow"] == "POST"


def test_head_is_a_get_without_its_body(api: PolicyApi) -> None:
    head, get = ask(api, "HEAD", "/v1/policies"), ask(api, "GET", "/v1/policies")
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


def test_a_body_over_the_limit_is_refused_by_its_header_and_by_its_bytes(api: PolicyApi) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b" " * 65536

    assert ask(api, "POST", "/v1/policies/hpa:decide", content=b" " * (ServeConfig().limits.body_bytes + 1)).status_code == 413
    streamed = ask(api, "POST", "/v1/policies/hpa:decide", content=chunks())
    assert streamed.status_code == 413
    assert str(ServeConfig().limits.body_bytes) in streamed.json()["error"]
    assert sent <= ServeConfig().limits.body_bytes + 2 * 65536


def test_a_body_at_the_limit_is_read(store: PolicyStore) -> None:
    body = json.dumps({"observation": store.get("hpa").example}).encode()
    padded = body + b" " * (4096 - len(body))
    assert ask(limited(store, 4096), "POST", "/v1/policies/hpa:decide", content=padded).status_code == 200
    assert ask(limited(store, 4095), "POST", "/v1/policies/hpa:decide", content=padded).status_code == 413


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_unpacked(api: PolicyApi, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    example = ask(api, "GET", "/v1/policies/hpa").json()["example"]
    body = pack(json.dumps({"observation": example}).encode())
    answer = ask(api, "POST", "/v1/policies/hpa:decide", content=body, headers={"content-encoding": encoding})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b" " * (1 << 24), 1), 413),
        ("gzip", gzip.compress(gzip.compress(b" " * 1000)), 400),
        ("gzip", b"no gzip at all", 400),
        ("gzip", gzip.compress(b"{}" * 100)[:-9], 400),
        ("gzip", gzip.compress(b"{}") + b"more", 400),
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
    ],
    # Not the bytes: gzip writes the second into them, and pytest's workers must all find the same tests.
    ids=["bomb", "twice", "not gzip", "cut short", "more behind", "brotli", "two encodings"],
)
def test_a_bomb_a_damaged_and_a_foreign_compression_are_refused(api: PolicyApi, encoding: str, body: bytes, status: int) -> None:
    assert ask(api, "POST", "/v1/policies/hpa:decide", content=body, headers={"content-encoding": encoding}).status_code == status


def test_a_name_with_half_a_surrogate_and_line_breaks_comes_back_escaped(api: PolicyApi) -> None:
    answer = ask(api, "POST", "/v1/policies/hpa:decide", content=b'{"observation": {"a\\n\\ud800": 1}}')
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]


def test_the_page_and_its_files_come_from_here_alone(api: PolicyApi) -> None:
    page = ask(api, "GET", "/docs")
    assert page.status_code == 200
    assert "http" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for part in page.text.split('"'):
        if part.startswith(("docs/", "openapi")):
            assert ask(api, "GET", f"/{part}").status_code == 200, part


def test_every_endpoint_is_in_the_document_and_every_path_of_the_document_answers(api: PolicyApi) -> None:
    paths = document(api)["paths"]
    assert {"/v1/policies/hpa:decide", "/v1/policies/tiny:decide", "/v1/policies/{name}:decide", "/v1/policies"} <= set(paths)
    assert {"/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer", "/metrics", "/"} <= set(paths)
    for path, operations in paths.items():
        for method in set(operations) - {"parameters"}:
            # The rule remembers, which the inference protocol has no place for.
            name = "tiny" if "/v2/" in path else "hpa"
            where = path.replace("{name}", name).replace("{version}", "1")
            body = next(iter(examples(operations[method]["requestBody"]))) if method == "post" else None
            assert ask(api, method.upper(), where, json=body).status_code == 200, where


def examples(body: dict[str, Any]) -> list[Any]:
    """Every example of a body's contents."""
    return [
        example
        for content in body.get("content", {}).values()
        for example in [
            *(e["value"] for e in content.get("examples", {}).values()),
            *([content["example"]] if "example" in content else []),
        ]
    ]


def test_every_example_of_the_document_fits_its_schema_and_is_what_the_server_answers(api: PolicyApi) -> None:
    openapi = document(api)
    assert openapi["openapi"] == "3.1.0"
    checked = 0
    for path, operations in openapi["paths"].items():
        for operation in (value for key, value in operations.items() if key != "parameters"):
            request = operation.get("requestBody", {})
            for body in (request, *operation["responses"].values()):
                for content in body.get("content", {}).values():
                    for example in examples({"content": {"": content}}):
                        schema = content["schema"] | {"components": openapi["components"]}
                        jsonschema.Draft202012Validator(schema).validate(example)
                        checked += 1
            where = path.replace("{name}", "tiny" if "/v2/" in path else "hpa").replace("{version}", "1")
            for asked, expected in zip(examples(request), examples(operation["responses"]["200"]), strict=False):
                answer = ask(api, "POST", where, json=asked)
                assert answer.status_code == 200
                if request.get("content", {}).get("application/json", {}).get("examples", {}).keys() != {"one", "next", "list"}:
                    assert answer.json() == expected
    assert checked > 50


def test_a_field_out_of_range_does_not_fit_the_schema_either(api: PolicyApi) -> None:
    openapi = document(api)
    example = ask(api, "GET", "/v1/policies/hpa").json()["example"]
    schema = {"$ref": "#/components/schemas/Request.hpa", "components": openapi["components"]}
    jsonschema.Draft202012Validator(schema).validate({"observation": example})
    for wrong in (example | {"late_share": 2}, example | {"other": 1}):
        assert not jsonschema.Draft202012Validator(schema).is_valid({"observation": wrong})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::"])
def test_without_keys_nothing_but_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(InputError, match="without API keys"):
        check_host(host, with_keys=False)
    assert check_host(host, with_keys=True) == host


@pytest.mark.parametrize("host", ["example.org", "", "127.0.0.1:80", "1.2.3"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="an IP address"):
        check_host(host, with_keys=True)


def test_a_taken_port_is_refused_and_zero_finds_a_free_one() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="is not available"):
            free_port("127.0.0.1", taken.getsockname()[1])
    assert free_port(check_host("localhost", with_keys=False), 0) > 0


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1", ":6379", "127.0.0.1:x", "127.0.0.1:99999999", "local"]
)
def test_a_cluster_that_is_not_there_is_refused_at_once(address: str) -> None:
    with pytest.raises(InputError, match="address"):
        check_address(address, "address", ("auto",))
