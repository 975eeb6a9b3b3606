"""The openfaas target against a gateway that answers as OpenFaaS's published interface demands."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests import dripping, openfaas_standin, real_prometheus
from tests.openfaas_standin import Standin

from scalepilot.errors import ConfigError, InputError
from scalepilot.operate.answering import answering
from scalepilot.operate.config import load_service, operate_config
from scalepilot.operate.controller import Controller
from scalepilot.operate.ledger import sentence
from scalepilot.operate.snapshot import Reading, Replicas, Snapshot
from scalepilot.operate.targets import WARNING, Target, TargetContext, make_target

# What openfaas/faas api-docs/spec.openapi.yml 0.8.12 says of what the target reads and writes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "FunctionStatus": {
        "type": "object",
        "required": ["name", "image"],
        "properties": {
            "name": {"type": "string"},
            "image": {"type": "string"},
            "namespace": {"type": "string"},
            "envProcess": {"type": "string"},
            "labels": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
            "annotations": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
            "invocationCount": {"type": "number"},
            "replicas": {"type": "number"},
            "availableReplicas": {"type": "number"},
            "createdAt": {"type": "string", "format": "date-time"},
        },
    },
    "ScaleServiceRequest": {
        "type": "object",
        "required": ["serviceName", "replicas"],
        "properties": {"serviceName": {"type": "string"}, "replicas": {"type": "integer", "minimum": 0}},
    },
    "GatewayInfo": {
        "type": "object",
        "required": ["provider", "version", "arch"],
        "properties": {
            "provider": {"type": ["object", "null"], "required": ["provider", "orchestration", "version"]},
            "version": {"type": ["object", "null"], "required": ["sha", "release"]},
            "arch": {"type": "string"},
        },
    },
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Standin]:
    with openfaas_standin.running(Standin(("127.0.0.1", 0, 0)), collects=False) as found:
        yield found


@pytest.fixture
def shop(gateway: Standin) -> Standin:
    """One function, resize, of three replicas."""
    gateway.community, gateway.start_seconds, gateway.delay_seconds = False, 0.0, 0.0
    gateway.fail.clear()
    gateway.functions.clear()
    gateway.answer("POST", "/system/functions", {"service": "resize", "image": "resize:1", "labels": {}})
    gateway.functions["resize"].replicas, gateway.functions["resize"].changed = 3, 0.0
    gateway.asked.clear()
    return gateway


@pytest.fixture
def password(tmp_path: Path) -> Path:
    return written(tmp_path / "password", openfaas_standin.PASSWORD)


def written(path: Path, text: str) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


Make = Callable[..., Target]


@pytest.fixture
def make(shop: Standin, password: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    made: list[Target] = []
    monkeypatch.setattr("scalepilot.operate.targets.openfaas._SHOWN_SECONDS", 0.01)

    def target(*, dry_run: bool = False, **settings: Any) -> Target:
        chosen = {"kind": "openfaas", "url": shop.url, "function": "resize", "password_file": str(password), **settings}
        found = make_target({key: value for key, value in chosen.items() if value is not None}, TargetContext("a", dry_run, 15.0))
        made.append(found)
        return found

    yield target
    for found in made:
        found.close()


def test_the_stand_in_and_what_it_is_asked_are_as_published(shop: Standin, make: Make) -> None:
    make().write(5, 3)
    jsonschema.validate(shop.status("resize"), PUBLISHED["FunctionStatus"])
    jsonschema.validate(shop.answer("GET", "/system/info", None)[1], PUBLISHED["GatewayInfo"])
    (body,) = [body for method, _, body in shop.asked if method == "POST"]
    jsonschema.validate(body, PUBLISHED["ScaleServiceRequest"])
    assert body == {"serviceName": "resize", "namespace": "openfaas-fn", "replicas": 5}


def test_replicas_are_read_and_written(shop: Standin, make: Make) -> None:
    target = make()
    found = target.read(time.time())
    assert (found.spec, found.ready, found.starting_ages_seconds, found.problem) == (3, 3, (), "")
    done = target.write(12, 3)
    assert (done.outcome, done.replicas, done.detail) == ("written", 12, "")
    assert shop.functions["resize"].replicas == 12
    assert target.name == "function resize.openfaas-fn"


def test_replicas_that_are_not_available_are_starting(shop: Standin, make: Make) -> None:
    target = make()
    target.read(time.time())
    shop.start_seconds = 60.0
    shop.scale("resize", 5)
    found = target.read(time.time())
    # The gateway does not say since when.
    assert (found.spec, found.ready, found.starting_ages_seconds) == (5, 3, None)


def test_to_zero_and_from_zero(shop: Standin, make: Make) -> None:
    target = make()
    assert target.write(0, 3).outcome == "written"
    assert target.read(time.time()).spec == 0
    assert target.write(2, 3).outcome == "refused"
    assert target.write(2, 0).replicas == 2


def test_a_write_on_what_is_no_longer_so_changes_nothing(shop: Standin, make: Make) -> None:
    target = make()
    shop.functions["resize"].replicas = 7
    done = target.write(5, 3)
    assert (done.outcome, done.replicas, done.detail) == ("refused", 7, "7 are asked for, not 3")
    assert shop.functions["resize"].replicas == 7


def test_a_dry_run_writes_nothing(shop: Standin, make: Make) -> None:
    target = make(dry_run=True)
    assert target.write(9, 3).outcome == "forbidden"
    assert {method for method, _, _ in shop.asked} <= {"GET"}


@pytest.mark.parametrize(("wanted", "kept"), [(12, 5), (0, 1), (6, 5)])
def test_what_the_community_edition_keeps_is_told(shop: Standin, make: Make, wanted: int, kept: int) -> None:
    shop.community = True
    target = make()
    done = target.write(wanted, 3)
    assert (done.outcome, done.replicas, done.detail) == ("written", kept, "OpenFaaS's community edition allows 1 to 5")
    told = f"the gateway keeps {kept} of {wanted} replicas: OpenFaaS's community edition allows 1 to 5"
    # As long as it is so: in what is read, and in what stands out.
    found = target.read(time.time())
    assert (found.spec, found.problem) == (kept, told)
    assert WARNING + told in target.check(dry_run=False)
    # Asked for again, nothing changes.
    again = target.write(wanted, kept)
    assert (again.outcome, again.replicas, again.detail) == ("refused", kept, told)
    assert target.write(4, kept).detail == ""
    assert target.read(time.time()).problem == ""


def test_another_limit_is_not_said_to_be_the_community_editions(shop: Standin, make: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr(openfaas_standin, "COMMUNITY", (1, 8))
    shop.community = True
    assert make().write(12, 3).detail == "another limit, or another owner"


def test_what_is_kept_counts_and_not_what_is_said(shop: Standin, make: Make, monkeypatch: Any) -> None:
    answer, status, target = shop.answer, shop.status, make()

    def told(method: str, path: str, body: Any) -> tuple[int, Any]:
        code, found = answer(method, path, body)
        return (200, "scaled") if method == "POST" else (code, found)

    monkeypatch.setattr(shop, "answer", told)
    assert target.write(5, 3).outcome == "written"
    monkeypatch.setattr(
        shop, "status", lambda name: {**status(name), "replicas": None if shop.functions[name].replicas == 7 else 5}
    )
    done = target.write(7, 5)
    assert (done.outcome, "does not say how many" in done.detail) == ("unknown", True)


def test_the_controller_goes_on_from_what_the_gateway_keeps(shop: Standin, make: Make) -> None:
    shop.community = True
    service = load_service(operate_config({"policy": "tracking:utilisation=0.7", "service": {"replica_capacity_rps": 20}}))
    policy = service.deciders.policy
    values = {f.name: f.low for f in policy.spec.observation_fields} | {f"request_rate_rps_{i}": 200.0 for i in range(8)}
    values |= {"ready_replicas": 3.0, "cpu_utilisation": 1.0, "replica_capacity_rps": 20.0}

    class Known:
        def read(self, now: float, replicas: Any) -> Snapshot:
            return Snapshot(now, {name: Reading(value, "test") for name, value in values.items()}, replicas)

    controller = Controller(service, Known(), make())  # type: ignore[arg-type]
    first, second = controller.step(), controller.step()
    assert first.record.outcome == "written"
    assert (first.record.target or 0) > 5
    assert "the target keeps 5; OpenFaaS's community edition allows 1 to 5" in sentence(first.record)
    # Not contested: 5 is what came of our own write.
    assert (second.record.mode, second.record.outcome) == ("active", "refused")
    assert second.record.snapshot.replicas.spec == 5


@pytest.mark.parametrize(
    ("code", "outcome"), [(400, "refused"), (403, "forbidden"), (404, "refused"), (429, "throttled"), (500, "unknown")]
)
def test_each_answer_has_its_outcome(shop: Standin, make: Make, code: int, outcome: str) -> None:
    shop.fail["/system/scale-function"] = code
    done = make().write(5, 3)
    assert (done.outcome, done.detail) == (outcome, f"HTTP {code}: the reason")
    assert shop.functions["resize"].replicas == 3


def test_without_the_right_password_nothing_is_known(shop: Standin, make: Make, tmp_path: Path) -> None:
    target = make(password_file=str(written(tmp_path / "wrong", "wrong")))
    found = target.read(time.time())
    assert (found.spec, found.problem) == (None, "openfaas: HTTP 401: invalid credentials")
    assert target.write(5, 3).outcome == "forbidden"
    (line,) = make(password_file=None).check(dry_run=True)
    assert line == "openfaas: HTTP 401: invalid credentials (allowed: user and password_file, or token_file)"


def test_a_token_in_place_of_a_password(shop: Standin, make: Make, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shop, "authorisation", "Bearer abc")
    target = make(password_file=None, token_file=str(written(tmp_path / "token", "abc")))
    assert target.read(time.time()).spec == 3


def test_a_secret_that_others_can_read_is_refused(make: Make, password: Path) -> None:
    password.chmod(0o644)
    with pytest.raises(InputError, match=r"target.password_file: .*open to every user"):
        make()


def test_a_function_that_is_not_there(make: Make) -> None:
    target = make(function="nobody")
    line = "openfaas: there is no function 'nobody' in namespace 'openfaas-fn'"
    assert (target.read(time.time()).problem, target.check(dry_run=True)) == (line, [line])
    assert target.write(5, 3).detail == line
    assert "in namespace 'staging'" in make(namespace="staging").read(time.time()).problem


def test_a_gateway_that_does_not_answer(shop: Standin, make: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr("scalepilot.operate.targets.door.SECONDS", 0.1)
    target = make()
    shop.delay_seconds = 0.3
    found = target.read(time.time())
    assert found.spec is None
    assert "no answer within 0.1 s" in found.problem
    # Nothing was asked for before it was read again.
    assert target.write(5, 3).outcome == "refused"
    assert shop.functions["resize"].replicas == 3
    assert "Connect" in make(url="http://127.0.0.1:1").read(time.time()).problem


def test_an_answer_that_is_no_function_is_unknown(make: Make) -> None:
    bodies = ["null", "[]", '{"name": 3}', "<html>", "[" * 100_000, "", '{"name": "resize", "replicas": -1}', " " * 6_000_000]
    with page(lambda path: bodies[0]) as url:
        target = make(url=url)
        while bodies:
            found = target.read(time.time())
            assert (found.spec, bool(found.problem)) == (None, True)
            bodies.pop(0)


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_a_gateway_that_sends_a_little_now_and_then_holds_nobody_up(
    make: Make, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalepilot.operate.targets.door.SECONDS", 0.2)
    with dripping.server(begin) as port:
        target = make(url=f"http://127.0.0.1:{port}")
        began = time.monotonic()
        for _ in range(2):
            assert "no answer within 0.2 s" in target.read(time.time()).problem
        assert time.monotonic() - began < 1.5


def test_a_name_that_resolves_late_sends_no_decision_of_long_ago(
    shop: Standin, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalepilot.operate.targets.door.SECONDS", 0.2)
    resolve = socket.getaddrinfo
    resolved = threading.Event()

    def slowly(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.5)
        try:
            return resolve(*arguments, **named)
        finally:
            resolved.set()

    target = make(url=shop.url.replace("127.0.0.1", "localhost"))
    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    assert "no answer within 0.2 s" in target.read(time.time()).problem
    assert resolved.wait(5)
    time.sleep(0.4)
    assert shop.asked == []


def test_what_a_gateway_says_commands_no_terminal(shop: Standin, make: Make) -> None:
    with page(lambda path: "\x1b[2J\x07 no JSON") as url:
        assert make(url=url).read(time.time()).problem == "openfaas: HTTP 200: answered no JSON: \\x1b[2J\\x07 no JSON"
    shop.functions["resize"].body["labels"]["com.openfaas.scale.type"] = "\x1b[31mrps\n"
    service = load_service(operate_config({"policy": "hpa", "target": {"kind": "none"}}))
    record = Controller(service, Unread(), make()).step().record
    assert record.mode == "contested"
    assert sentence(record).isprintable()


class Unread:
    """Telemetry of nothing."""

    def read(self, now: float, replicas: Replicas) -> Snapshot:
        return Snapshot(now, {}, replicas)

    def check(self, now: float) -> list[str]:
        return []

    def close(self) -> None:
        pass


@contextmanager
def page(answer: Callable[[str], str]) -> Iterator[str]:
    """A server that answers every GET with a text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            out = answer(self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def log_message(self, *args: Any) -> None:
            pass

    with answering(Handler, "127.0.0.1", 0, "page") as url:
        yield url


# Who else scales it.


def rule(name: str, query: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"type": "alerting", "name": name, "query": query, "labels": labels or {}, "state": "inactive", "alerts": []}


OWN = rule("APIHighInvocationRate", 'sum by(function_name) (rate(gateway_function_invocation_total{code="200"}[10s])) > 5')


RULES: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def rules_page() -> Iterator[str]:
    with page(lambda path: json.dumps({"status": "success", "data": {"groups": [{"name": "a", "rules": RULES}]}})) as url:
        yield url


@pytest.fixture
def prometheus(rules_page: str) -> tuple[str, list[dict[str, Any]]]:
    """Its address, and its rules."""
    RULES.clear()
    return rules_page, RULES


def test_openfaas_own_alert_scales_it(shop: Standin, make: Make, prometheus: tuple[str, list[dict[str, Any]]]) -> None:
    url, rules = prometheus
    rules.append(OWN)
    shop.functions["resize"].body["labels"] = {"com.openfaas.scale.max": "15", "com.openfaas.scale.factor": "20"}
    target = make(prometheus={"url": url})
    assert target.read(time.time()).owners == ("Alertmanager (alert APIHighInvocationRate, /system/alert)",)
    (line,) = [line for line in target.check(dry_run=False) if not line.startswith(WARNING)]
    assert line == (
        "it is scaled by Alertmanager (alert APIHighInvocationRate, /system/alert): remove one of the two"
        " (an alert adds 20 % of 15 replicas, and its end sets 1)"
    )


def test_what_that_alert_does(shop: Standin) -> None:
    shop.functions["resize"].body["labels"] = {"com.openfaas.scale.min": "2", "com.openfaas.scale.factor": "40"}
    for status, expected in (("firing", 5), ("resolved", 2)):
        shop.alert({"alerts": [{"status": status, "labels": {"alertname": "a", "function_name": "resize.openfaas-fn"}}]})
        assert shop.functions["resize"].replicas == expected


@pytest.mark.parametrize(
    ("found", "owns", "warns"),
    [
        (rule("Mine", "rate(gateway_function_invocation_total[1m]) > 5", {"service": "gateway"}), True, False),
        (rule("Errors", 'rate(gateway_function_invocation_total{code="500"}[1m]) > 1'), False, True),
        (rule("Errors", 'rate(gateway_function_invocation_total{function_name="other.openfaas-fn"}[1m]) > 1'), False, False),
        (rule("Errors", 'rate(gateway_function_invocation_total{function_name=~"re.*"}[1m]) > 1'), False, True),
        (rule("Disk", "node_filesystem_avail_bytes < 1e9", {"service": "gateway"}), False, False),
        (rule("Named", "vector(1)", {"service": "gateway", "function_name": "resize"}), True, False),
        (rule("Named", "vector(1)", {"service": "gateway", "function_name": "other"}), False, False),
    ],
)
def test_alerts_that_may_scale_it(
    make: Make, prometheus: tuple[str, list[dict[str, Any]]], found: dict[str, Any], owns: bool, warns: bool
) -> None:
    url, rules = prometheus
    rules.append(found)
    target = make(prometheus={"url": url})
    assert bool(target.read(time.time()).owners) == owns
    told = any("must not go to /system/alert" in line for line in target.check(dry_run=False))
    assert told == warns


def test_what_cannot_be_seen_is_told(make: Make) -> None:
    lines = make().check(dry_run=False)
    assert all(line.startswith(WARNING) for line in lines)
    assert any("name OpenFaaS's Prometheus in target.prometheus" in line for line in lines)
    lines = make(prometheus={"url": "http://127.0.0.1:1"}).check(dry_run=False)
    assert any("whether its alerts scale the function is unknown" in line for line in lines)


@pytest.mark.parametrize(
    ("labels", "owner"),
    [
        ({"com.openfaas.scale.type": "rps"}, "OpenFaaS's autoscaler (label com.openfaas.scale.type=rps)"),
        ({"com.openfaas.scale.zero": "true"}, "OpenFaaS's autoscaler (label com.openfaas.scale.zero=true)"),
        ({"com.openfaas.scale.zero": "false", "com.openfaas.scale.min": "1"}, None),
    ],
)
def test_labels_of_openfaas_own_autoscaler(shop: Standin, make: Make, labels: dict[str, str], owner: str | None) -> None:
    shop.functions["resize"].body["labels"] = labels
    assert make().read(time.time()).owners == (() if owner is None else (owner,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"function": None}, "function: is missing"),
        ({"url": "ftp://gateway"}, "url: 'ftp://gateway' is not allowed"),
        ({"url": "http://gateway?tenant=a"}, "url: 'http://gateway?tenant=a' is not allowed"),
        ({"url": "http://gate\x00way"}, r"url: 'http://gate\\x00way' is not allowed"),
        ({"url": "http://:secret@gateway"}, "url: holds a user or a password"),
        ({"user": "admin", "password_file": None}, "user: is not used without password_file"),
        ({"token_file": "t"}, "token_file: is not allowed beside password_file"),
        ({"ca_file": "ca.pem"}, "ca_file: is not used by http://"),
        ({"functon": "x"}, "functon"),
        ({"prometheus": {"url": "prometheus:9090"}}, "url: 'prometheus:9090' is not allowed"),
    ],
)
def test_settings_that_are_not_allowed(make: Make, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(**settings)


def test_the_users_name_may_be_another(shop: Standin, make: Make, monkeypatch: Any) -> None:
    pair = base64.b64encode(f"pilot:{openfaas_standin.PASSWORD}".encode()).decode()
    monkeypatch.setattr(shop, "authorisation", f"Basic {pair}")
    assert make(user="pilot").read(time.time()).spec == 3


@pytest.mark.slow
def test_the_rules_of_a_real_prometheus(make: Make, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    groups = [{"name": "openfaas", "rules": [{"alert": each["name"], "expr": each["query"]} for each in (OWN,)]}]
    rules.write_text(json.dumps({"groups": groups}))
    with real_prometheus.running({"rule_files": [str(rules)]}, tmp_path, {}) as running:
        target = make(prometheus={"url": str(running._client.base_url).rstrip("/")})
        assert target.read(time.time()).owners == ("Alertmanager (alert APIHighInvocationRate, /system/alert)",)
