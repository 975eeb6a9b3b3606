"""How to add an endpoint: a module with a handler and its record, and one line in `ENDPOINTS`; everything else follows."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from tests.own_loop import run

from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyApi, PolicyStore, ServeConfig, serve_config
from scalepilot.serve.http import endpoints
from scalepilot.serve.http.endpoint import Endpoint
from scalepilot.serve.http.gate import Gate
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.ingress import haproxy_config
from scalepilot.serve.ingress.door import Door
from scalepilot_envs.autoscale import AutoscaleParams

KEY = "a-key-of-this-test-0123456789"
# What a developer writes; docs/develop/add-an-endpoint.md shows the same.
MODULE = '''
"""How many replicas a policy may ask for at most, and an echo to try posting with."""

import json
from typing import Any, TypedDict

from scalepilot.serve.http.endpoint import Call, Endpoint
from scalepilot.serve.http.errors import RequestError


class Ceiling(TypedDict):
    policy: str
    most_replicas: int | None


class Echo(TypedDict):
    words: str


def ceiling(call: Call) -> Ceiling:
    bounds = call.policy.replica_bounds
    return {"policy": call.policy.reference, "most_replicas": None if bounds is None else int(bounds[1])}


def echo(call: Call) -> Any:
    try:
        return {"words": json.loads(call.body)["words"] + call.named["ending"]}
    except (ValueError, KeyError, TypeError):
        raise RequestError(400, "words: is missing; allowed: {\\"words\\": text}") from None


CEILING = Endpoint(
    name="get_ceiling",
    path="/v1/policies/{name}/ceiling",
    answer=ceiling,
    response=Ceiling,
    summary="Most replicas a policy asks for",
    tag="policies",
    label="ceiling",
)
ECHO = Endpoint(
    name="echo",
    path="/v1/echo/{ending}",
    method="POST",
    answer=echo,
    request=Echo,
    response=Echo,
    summary="Says it again",
    tag="policies",
    label="echo",
)
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "endpoints_of_a_developer.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("endpoints_of_a_developer")
    # The one line.
    monkeypatch.setattr(endpoints, "ENDPOINTS", (*endpoints.ENDPOINTS, module.CEILING, module.ECHO))
    yield module
    del sys.modules["endpoints_of_a_developer"]


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    for version in ("1", "2"):
        rule = make_rule("static", AutoscaleParams(max_replicas=40), {"replicas": 4}, name="shop", version=version)
        save_policy(rule, tmp_path / version)
    return PolicyStore.load([tmp_path / "1", tmp_path / "2"])


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o600)
    return ApiKeys(file)


@pytest.fixture(params=["replica", "door"])
def server(request: pytest.FixtureRequest, added: Any, store: PolicyStore, keys: ApiKeys) -> Any:
    """The application alone, as behind HAProxy, and behind the door of Serve's own proxy."""
    api = PolicyApi(store, keys=keys)
    return api if request.param == "replica" else Door(api, ServeConfig(), keys)


def ask(app: Any, method: str, path: str, headers: dict[str, str] | None = None, **content: Any) -> httpx.Response:
    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, headers={"x-api-key": KEY} | (headers or {}), **content)

    return run(exchange())


def test_it_is_routed_with_the_policy_that_its_path_names(server: Any) -> None:
    assert ask(server, "GET", "/v1/policies/shop/ceiling").json() == {"policy": "shop@2", "most_replicas": 40}
    assert ask(server, "GET", "/v1/policies/shop@1/ceiling").json() == {"policy": "shop@1", "most_replicas": 40}
    unknown = ask(server, "GET", "/v1/policies/shops/ceiling")
    assert (unknown.status_code, unknown.json()["error"]) == (
        404,
        "policy: 'shops' is not served; allowed: shop; did you mean shop?",
    )


def test_its_body_is_read_within_the_limits_and_its_refusals_are_of_the_same_form(server: Any) -> None:
    assert ask(server, "POST", "/v1/echo/!", json={"words": "hello"}).json() == {"words": "hello!"}
    assert ask(server, "POST", "/v1/echo/!", json={}).json() == {"error": 'words: is missing; allowed: {"words": text}'}
    assert ask(server, "POST", "/v1/echo/!", content=b" " * (1 << 21)).status_code == 413


def test_head_405_and_options_follow(server: Any, store: PolicyStore, keys: ApiKeys) -> None:
    for path, allowed in (("/v1/policies/shop/ceiling", "GET, HEAD"), ("/v1/echo/x", "POST")):
        for method in ("DELETE", "OPTIONS", "PUT"):
            refused = ask(server, method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    get, head = (ask(server, method, "/v1/policies/shop/ceiling") for method in ("GET", "HEAD"))
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", get.headers["content-length"])
    asked = {"origin": "https://grafana.example", "access-control-request-method": "POST"}
    config = serve_config({"cors_origins": ["https://grafana.example"]})
    for app in (PolicyApi(store, config, keys=keys), Door(PolicyApi(store, config, keys=keys), config, keys)):
        # Without a key, and without telling whether the policy is there.
        for path, allowed in (("/v1/policies/nobody/ceiling", "GET, HEAD, OPTIONS"), ("/v1/echo/x", "POST, OPTIONS")):
            preflight = ask(app, "OPTIONS", path, {"x-api-key": ""} | asked)
            assert (preflight.status_code, preflight.headers["allow"]) == (204, allowed)
            assert preflight.headers["access-control-allow-origin"] == "https://grafana.example"


def test_it_needs_a_key_unless_its_record_says_otherwise(
    server: Any, added: Any, store: PolicyStore, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(server, "GET", "/v1/policies/shop/ceiling", {"x-api-key": ""}).status_code == 401
    open_one = Endpoint("hello", "/hello", lambda _: {}, dict, "Hello", "policies", label="hello", key="never")
    monkeypatch.setattr(endpoints, "ENDPOINTS", (*endpoints.ENDPOINTS, open_one))
    for app in (PolicyApi(store, keys=keys), Door(PolicyApi(store, keys=keys), ServeConfig(), keys)):
        assert ask(app, "GET", "/hello", {"x-api-key": ""}).status_code == 200


def test_it_is_in_the_document_with_its_types_and_a_true_example(server: Any) -> None:
    document = ask(server, "GET", "/openapi.json").json()
    operation = document["paths"]["/v1/policies/{name}/ceiling"]["get"]
    assert (operation["operationId"], operation["summary"]) == ("get_ceiling", "Most replicas a policy asks for")
    assert operation["responses"].keys() == {"200", "401", "404"}
    content = operation["responses"]["200"]["content"]["application/json"]
    assert content["example"] == {"policy": "shop@2", "most_replicas": 40}
    schema = content["schema"] | {"components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(content["example"])
    assert not jsonschema.Draft202012Validator(schema).is_valid({"policy": 3})
    posted = document["paths"]["/v1/echo/{ending}"]
    assert [parameter["name"] for parameter in posted["parameters"]] == ["ending"]
    assert "requestBody" in posted["post"]
    assert posted["post"]["responses"].keys() >= {"400", "408", "413", "415", "503"}


def test_it_is_counted_under_its_own_label_and_named_where_a_path_is_unknown(added: Any, store: PolicyStore) -> None:
    api = PolicyApi(store)
    ask(api, "GET", "/v1/policies/shop/ceiling")
    ask(api, "POST", "/v1/echo/x", json={"words": ""})
    text = ask(api, "GET", "/metrics").text
    for label in ("ceiling", "echo"):
        assert f'scalepilot_serve_requests_total{{endpoint="{label}",policy="",status="200",version=""}} 1.0' in text
    told = ask(api, "GET", "/nothing").json()["error"]
    assert "/v1/policies/{name}/ceiling" in told
    assert "/v1/echo/{ending}" in told


def test_without_the_line_it_is_not_there(store: PolicyStore) -> None:
    assert ask(PolicyApi(store), "GET", "/v1/policies/shop/ceiling").status_code == 404


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "everybody"}, "key: 'everybody' is not allowed; allowed: needed, never, metrics, docs, page"),
        ({"method": "PUT"}, "method: 'PUT' is not allowed; allowed: GET, POST"),
        ({"path": "x"}, "path: 'x' is not allowed; allowed: a path that begins with /"),
        ({"path": "/v1/echo/{words}", "kept": True}, "kept: strangers would fill the memory"),
        ({"method": "POST", "kept": True}, "kept: strangers would fill the memory"),
    ],
)
def test_a_record_that_would_open_a_hole_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Endpoint(**{"name": "x", "path": "/x", "answer": dict, "response": dict, "summary": "x"} | changes)


def test_two_records_of_one_path_and_method_are_refused(store: PolicyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "ENDPOINTS", (*endpoints.ENDPOINTS, Endpoint("other", "/metrics", dict, dict, "x")))
    with pytest.raises(ValueError, match="GET /metrics: get_metrics and other answer it; allowed: one"):
        PolicyApi(store)


@pytest.mark.parametrize("answer", [lambda _: 1 / 0, lambda _: {"a": float("nan")}, lambda _: {"a": object()}, lambda _: {1, 2}])
def test_a_handler_that_fails_is_a_500_in_json_and_nothing_else_stops(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    broken = Endpoint("broken", "/broken", answer, dict, "x", label="broken")
    monkeypatch.setattr(endpoints, "ENDPOINTS", (*endpoints.ENDPOINTS, broken))
    api = PolicyApi(store)
    failed = ask(api, "GET", "/broken")
    assert (failed.status_code, failed.json()) == (500, {"error": "internal error; the server's log has the details"})
    assert 'requests_total{endpoint="broken",policy="",status="500",version=""} 1.0' in ask(api, "GET", "/metrics").text


def test_every_record_has_a_name_of_its_own_and_haproxy_knows_those_that_need_no_key() -> None:
    names = [endpoint.name for endpoint in endpoints.ENDPOINTS if endpoint.tag]
    assert len(set(names)) == len(names)
    assert len({(endpoint.path, endpoint.method) for endpoint in endpoints.ENDPOINTS}) == len(endpoints.ENDPOINTS)
    condition, _ = haproxy_config._CLASSES["health"]
    assert set(condition.split()[2:-1]) == Gate(ServeConfig(), None).open_to_all


def test_the_guide_shows_what_is_tested(repo: Path) -> None:
    guide = (repo / "docs" / "develop" / "add-an-endpoint.md").read_text(encoding="utf-8")
    for line in MODULE.partition("CEILING = ")[2].partition("\n)\n")[0].splitlines():
        assert line in guide, line
    assert json.loads(guide.partition("```json\n")[2].partition("```")[0]) == {"policy": "shop@2", "most_replicas": 40}
