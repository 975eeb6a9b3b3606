"""The ASGI application as a server: keys, canary and shadow, what is open, how it stops, and slow or vanishing clients."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.own_loop import run

from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyApi, PolicyStore, serve_config
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.http.logs import JsonLines
from scalepilot_envs.autoscale import AutoscaleParams

KEY = "a-key-of-this-test-0123456789"


def static(folder: Path, replicas: int, name: str = "shop", version: str = "1") -> Path:
    place = folder / f"{name}-{version}"
    save_policy(make_rule("static", AutoscaleParams(), {"replicas": replicas}, name=name, version=version), place)
    return place


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore.load([static(tmp_path, 4), static(tmp_path, 5, version="2"), static(tmp_path, 9, name="other")])


def ask(api: PolicyApi, method: str, path: str, **content: Any) -> httpx.Response:
    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.request(method, path, **content)

    return run(exchange())


def decide(api: PolicyApi, reference: str, **content: Any) -> httpx.Response:
    example = next(iter(api._store)).example
    return ask(api, "POST", f"/v1/policies/{reference}:decide", json={"observation": example}, **content)


def counters(api: PolicyApi, name: str) -> dict[tuple[str, ...], float]:
    return api.metrics._counters[name]


def with_keys(store: PolicyStore, tmp_path: Path, **config: Any) -> PolicyApi:
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o600)
    return PolicyApi(store, serve_config(config), keys=ApiKeys(file))


def test_the_highest_version_answers_and_every_version_by_name(store: PolicyStore) -> None:
    api = PolicyApi(store)
    assert decide(api, "shop").json()["version"] == "2"
    assert decide(api, "shop@1").json() | {"move": ""} == {"policy": "shop", "version": "1", "move": "", "desired_replicas": 4}
    assert decide(api, "shop@3").status_code == 404
    assert "version: '3'" in decide(api, "shop@3").json()["error"]
    assert ask(api, "GET", "/v2/models/shop").json()["versions"] == ["1", "2"]
    assert ask(api, "GET", "/v2/models/shop/versions/1/ready").json() == {"name": "shop", "ready": True}
    assert ask(api, "GET", "/v2/models/shop/versions/7/ready").status_code == 404


def test_without_a_key_nothing_but_health_answers(store: PolicyStore, tmp_path: Path) -> None:
    api = with_keys(store, tmp_path)
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
        assert ask(api, "GET", path).status_code == 200
    for path in ("/", "/page/page.js", "/docs", "/docs/page.js", "/openapi.json", "/metrics", "/v1/policies", "/v2", "/nothing"):
        refused = ask(api, "GET", path)
        assert refused.status_code == 401, path
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert ask(api, "GET", path, headers={"x-api-key": KEY}).status_code in (200, 404)
    assert decide(api, "shop").status_code == 401
    assert decide(api, "shop", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_the_configuration_opens_by_name(store: PolicyStore, tmp_path: Path) -> None:
    api = with_keys(store, tmp_path, open=["metrics", "docs", "page"])
    for path in ("/", "/page/page.js", "/docs", "/docs/page.js", "/openapi.json", "/metrics"):
        assert ask(api, "GET", path).status_code == 200, path
    for path in ("/v1/policies", "/metricsx", "/pagex", "/docs-secret"):
        assert ask(api, "GET", path).status_code == 401, path
    assert "securitySchemes" in ask(api, "GET", "/openapi.json").json()["components"]


def test_a_canary_answers_its_share_and_every_answer_says_who_it_is(store: PolicyStore) -> None:
    store.catalogue = store.catalogue.of(
        list(store), serve_config({"routes": {"shop": {"default": "1", "canary": {"policy": "shop@2", "share": 0.3}}}}).routes
    )
    api = PolicyApi(store)
    answers = [decide(api, "shop").json() for _ in range(400)]
    assert {(a["version"], a["desired_replicas"]) for a in answers} == {("1", 4), ("2", 5)}
    # Four standard deviations of a binomial share.
    assert sum(a["version"] == "2" for a in answers) == pytest.approx(120, abs=37)
    assert all(decide(api, "shop@1").json()["version"] == "1" for _ in range(20))


def test_a_shadow_answers_nobody_and_its_disagreement_is_counted(store: PolicyStore) -> None:
    store.catalogue = store.catalogue.of(list(store), serve_config({"routes": {"shop": {"shadow": "other"}}}).routes)
    api = PolicyApi(store)
    for _ in range(3):
        assert decide(api, "shop").json()["policy"] == "shop"
    assert counters(api, "shadow_decisions")[("shop@2", "other@1", "different")] == 3
    assert counters(api, "shadow_difference_replicas")[("shop@2", "other@1")] == 3 * (9 - 5)
    assert not any(labels[0] == "other" for labels in counters(api, "decisions"))


def test_cors_is_off_until_an_origin_is_named(store: PolicyStore) -> None:
    asked = {"origin": "https://grafana.example", "access-control-request-method": "POST"}
    for answer in (
        ask(PolicyApi(store), "GET", "/v1/policies", headers=asked),
        ask(PolicyApi(store), "OPTIONS", "/v1/policies", headers=asked),
    ):
        assert "access-control-allow-origin" not in answer.headers
    api = PolicyApi(store, serve_config({"cors_origins": ["https://grafana.example"]}))
    preflight = ask(api, "OPTIONS", "/v1/policies/shop:decide", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "https://grafana.example")
    foreign = ask(api, "GET", "/v1/policies", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers


def test_a_request_keeps_its_id_and_gets_one_where_it_has_none(store: PolicyStore) -> None:
    api = PolicyApi(store)
    assert decide(api, "shop", headers={"x-request-id": "abc-7"}).headers["x-request-id"] == "abc-7"
    made = {decide(api, "shop").headers["x-request-id"] for _ in range(10)}
    assert len(made) == 10
    assert ask(api, "GET", "/v1/policies", headers={"x-request-id": "x" * 500}).headers["x-request-id"] not in ("x" * 500, "")


def test_a_stopping_server_is_first_not_ready_and_still_answers_then_refuses(store: PolicyStore) -> None:
    api = PolicyApi(store, serve_config({"limits": {"notice_seconds": 0}}))
    run(api.notice())
    assert ask(api, "GET", "/health/ready").status_code == 503
    assert ask(api, "GET", "/v2/health/ready").status_code == 503
    assert decide(api, "shop").status_code == 200
    run(api.drain(0.0))
    refused = decide(api, "shop")
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
    assert ask(api, "GET", "/health/live").status_code == 200


def scope(path: str = "/v1/policies/shop:decide", method: str = "POST") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}


def test_a_client_that_never_sends_its_body_is_answered_408(store: PolicyStore) -> None:
    api = PolicyApi(store, serve_config({"limits": {"request_seconds": 0.2}}))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(30)
        raise AssertionError("waited for the body")

    async def send(message: Any) -> None:
        sent.append(message)

    run(asyncio.wait_for(api(scope(), receive, send), 5))
    assert sent[0]["status"] == 408
    assert "0.2 s" in json.loads(sent[1]["body"])["error"]
    assert api._in_flight == 0


def test_a_client_that_leaves_is_answered_nothing_and_forgotten(store: PolicyStore) -> None:
    api = PolicyApi(store)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def many() -> None:
        await asyncio.gather(*(api(scope(), receive, send) for _ in range(1000)))

    run(many())
    assert api._in_flight == 0
    assert decide(api, "shop").status_code == 200


def test_an_empty_server_is_not_ready_and_says_so(tmp_path: Path) -> None:
    api = PolicyApi(PolicyStore([], may_be_empty=True))
    assert ask(api, "GET", "/health/ready").status_code == 503
    assert ask(api, "GET", "/openapi.json").status_code == 503
    assert ask(api, "GET", "/v1/policies").json() == {"policies": []}
    assert ask(api, "POST", "/v1/policies/x:decide", json={}).status_code == 404


def test_an_explanation_says_what_led_to_the_answer(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> None:
    save_policy(tiny_network(), tmp_path / "tiny")
    api = PolicyApi(PolicyStore.load([tmp_path / "tiny"]))
    example = next(iter(api._store)).example
    body = {"observation": example | {"cpu_utilisation": 1.4}, "explain": True, "clip": True}
    answer = ask(api, "POST", "/v1/policies/tiny:decide", json=body).json()
    why = answer["explanation"]
    assert why["observed_replicas"] + why["change"] == answer["desired_replicas"]
    assert why["bounds"] == {"min": 1, "max": 60}
    assert max(why["scores"], key=why["scores"].get) == answer["move"]
    assert [(c["field"], c["value"], c["used"]) for c in answer["clipped"]] == [("cpu_utilisation", 1.4, 1.0)]
    assert "cpu_utilisation was 1.4, taken as 1" in why["words"]
    assert counters(api, "clipped_fields") == {("tiny", "cpu_utilisation"): 1}


def test_metrics_count_what_was_answered(store: PolicyStore) -> None:
    api = PolicyApi(store)
    for path in ("shop", "shop@1", "nobody"):
        decide(api, path)
    text = ask(api, "GET", "/metrics").text
    assert 'scalepilot_serve_requests_total{endpoint="decide",policy="shop",status="200",version="2"} 1.0' in text
    assert 'scalepilot_serve_requests_total{endpoint="other",policy="",status="404",version=""} 1.0' in text
    assert (
        'scalepilot_serve_policy_info{default="true",env="scalepilot/Autoscale-v0",kind="rule",policy="shop",version="2"} 1.0'
        in text
    )
    assert "nobody" not in text


def test_a_refused_request_is_a_line_of_json_without_its_body(store: PolicyStore) -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonLines().format(record))

    logger = logging.getLogger("scalepilot.serve")
    handler, level = Kept(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        api = PolicyApi(store)
        ask(api, "POST", "/v1/policies/shop:decide", content=b'{"secret": 1}', headers={"x-request-id": "r-1"})
        decide(api, "shop")
        for _ in range(200):
            ask(api, "GET", "/nothing")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    first = json.loads(lines[0])
    assert (first["event"], first["status"], first["request_id"], first["method"]) == ("request", 422, "r-1", "POST")
    assert first["milliseconds"] > 0
    # A flood is not written down line by line.
    assert len(lines) < 160
