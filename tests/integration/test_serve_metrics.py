"""The server's metrics with a real Prometheus: every expression of the dashboard and the alerts, and every alert's cause."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from benchmarks.ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from tests.real_prometheus import Prometheus, binary, check_rules, running
from tests.serving_dashboard import (
    RULES,
    SCRAPE,
    Query,
    alert_queries,
    alerts,
    annotation_queries,
    dashboard,
    panel_queries,
    without_threshold,
)

from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyApi, ServeConfig, serve_config
from scalepilot.serve.catalogue.opening import open_store
from scalepilot.serve.http.asgi import Receive, Scope, Send
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.http.metrics import Metrics
from scalepilot.serve.ingress.ingress import haproxy_binary
from scalepilot_envs.autoscale import AutoscaleParams

KEY = "prometheus-0123456789abcdef0123456789abcdef"
HOST = "127.0.0.1"


def put_version(folder: Path, policy: NetworkPolicy) -> None:
    save_policy(policy, folder / policy.spec.name / policy.spec.version)


@dataclass(frozen=True)
class Server:
    url: str
    watched: Path
    look: Callable[[], None]

    def ask(self, client: httpx.Client, method: str, path: str, status: int, **content: Any) -> httpx.Response:
        answer = client.request(method, f"{self.url}{path}", **content)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """An ASGI application on a free port, in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline, "uvicorn did not start"
        time.sleep(0.01)
    try:
        yield f"http://{HOST}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


HAPROXY = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout queue 5s
frontend http_frontend
    bind {host}:{port}
    default_backend replicas
backend replicas
    server replica {replica} maxconn 8
"""


@contextmanager
def behind_haproxy(folder: Path, replica: str, admin: Path) -> Iterator[str]:
    """The proxy of Serve's throughput mode in front of a replica, without Serve."""
    found = haproxy_binary()
    if found is None:
        pytest.skip("no HAProxy that Serve would run")
    port = free_port()
    path = folder / "haproxy.cfg"
    path.write_text(HAPROXY.format(socket=admin, host=HOST, port=port, replica=replica.removeprefix("http://")))
    process = subprocess.Popen([str(found), "-db", "-f", str(path)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 10
        while not admin.is_socket():
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "HAProxy did not start"
            time.sleep(0.02)
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def server(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> Iterator[Server]:
    watched = tmp_path / "watched"
    watched.mkdir(mode=0o755)
    put_version(watched, tiny_network(seed=1, name="net", version="1"))
    # A rule whose metric divides by a field: not finite where that is 0.
    save_policy(make_rule("hpa", AutoscaleParams(), {"metric": "rps"}), tmp_path / "hpa")
    save_policy(tiny_network(seed=2, name="rival"), tmp_path / "rival")
    keys = tmp_path / "keys"
    keys.write_text(KEY + "\n")
    keys.chmod(0o600)
    route = {"canary": {"policy": "rival", "share": 0.3}, "shadow": "hpa"}
    config = serve_config(
        {"policies": [str(tmp_path / "hpa"), str(tmp_path / "rival")], "watch": str(watched), "routes": {"net": route}}
    )
    # A Unix socket's path is short.
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp") as short:
        admin = Path(short) / "admin.sock"
        yield from serving(config, keys, Metrics(proxy=admin), tmp_path, admin)


def serving(config: ServeConfig, keys: Path, metrics: Metrics, folder: Path, admin: Path) -> Iterator[Server]:
    assert config.watch is not None
    store, watcher = open_store(config, metrics)
    assert watcher is not None
    api = PolicyApi(store, config, keys=ApiKeys(keys), metrics=metrics)
    # The same counts as seen by clients of a server that is stopping.
    stopping = PolicyApi(store, config, metrics=metrics)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/drain":
            await stopping.drain(0.0)
        await (stopping if scope["path"].startswith(("/stopping", "/drain")) else api)(scope, receive, send)

    with listening(app) as replica, behind_haproxy(folder, replica, admin) as url:
        yield Server(url, Path(config.watch), watcher.look)


def example(server: Server, client: httpx.Client, name: str) -> dict[str, float]:
    found: dict[str, float] = client.get(f"{server.url}/v1/policies/{name}").json()["example"]
    return found


def make_traffic(server: Server, client: httpx.Client, stranger: httpx.Client) -> None:
    """One of every kind of request."""
    seen = example(server, client, "net")
    decide = "/v1/policies/net:decide"
    for _ in range(3):
        server.ask(client, "POST", decide, 200, json={"observation": seen})
    server.ask(client, "POST", "/v1/policies/rival:decide", 200, json={"observation": seen})
    server.ask(client, "POST", decide, 200, json={"observation": [seen] * 20, "explain": True})
    wrong_unit = seen | {"cpu_utilisation": 70.0}
    server.ask(client, "POST", decide, 200, json={"observation": wrong_unit, "clip": True})
    server.ask(client, "POST", decide, 422, json={"observation": wrong_unit})
    server.ask(client, "POST", "/v1/policies/hpa:decide", 200, json={"observation": seen | {"replica_capacity_rps": 0}})
    row = {"name": "observation", "shape": [1, len(seen)], "datatype": "FP32", "data": list(seen.values())}
    model = server.ask(client, "GET", "/v2/models/net", 200).json()
    server.ask(client, "POST", "/v2/models/net/infer", 200, json={"inputs": [row | {"name": model["inputs"][0]["name"]}]})
    server.ask(client, "POST", decide, 400, content=b"{")
    server.ask(client, "POST", "/v1/policies/absent:decide", 404, json={})
    server.ask(client, "PUT", decide, 405)
    server.ask(client, "GET", "/health/ready", 200)
    server.ask(stranger, "GET", "/v1/policies", 401)
    server.ask(stranger, "GET", "/stopping", 503)


@contextmanager
def traffic(server: Server) -> Iterator[None]:
    """Requests of every kind, again and again, until the block is left."""
    over = threading.Event()
    failures: list[Exception] = []

    def run() -> None:
        with httpx.Client(headers={"x-api-key": KEY}) as client, httpx.Client() as stranger:
            try:
                while not over.wait(0.05):
                    make_traffic(server, client, stranger)
            except (AssertionError, httpx.HTTPError) as error:
                failures.append(error)

    with httpx.Client() as client:
        server.ask(client, "GET", "/drain", 503)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)
    assert not failures, failures


@pytest.fixture
def prometheus(repo: Path, tmp_path: Path, server: Server) -> Iterator[Prometheus]:
    key = tmp_path / "prometheus-key"
    key.write_text(KEY + "\n")
    # The example as it is, but for what an operator has to fill in.
    config = yaml.safe_load((repo / SCRAPE).read_text(encoding="utf-8"))
    config["rule_files"] = [str(repo / RULES)]
    (job,) = config["scrape_configs"]
    job["authorization"]["credentials_file"] = str(key)
    job["static_configs"][0]["targets"] = [server.url.removeprefix("http://")]
    variables = {"instance": ".+", "policy": ".*", "__rate_interval": "4s", "__interval": "1s", "datasource": "prometheus"}
    with running(config, tmp_path, variables) as asked:
        yield asked


@pytest.mark.slow
def test_every_expression_has_data_on_a_real_prometheus(
    repo: Path, server: Server, prometheus: Prometheus, tiny_network: Callable[..., NetworkPolicy]
) -> None:
    with traffic(server):
        prometheus.check(Query("the target", 'up{job="scalepilot-serve"} == 1'))
        prometheus.check(Query("the first counts", "sum(scalepilot_serve_decisions_total) > 0"))
        # A new version, and one that is unfit.
        put_version(server.watched, tiny_network(seed=3, name="net", version="2"))
        put_version(server.watched, tiny_network(seed=4, name="net", version="3"))
        (server.watched / "net" / "3" / "model.onnx").write_bytes(b"cut off")
        # What changed is taken in once it has settled.
        server.look()
        server.look()

        for query in panel_queries(repo) + annotation_queries(repo) + [without_threshold(q) for q in alert_queries(repo)]:
            prometheus.check(query)
        check_values(prometheus)
        for query in alert_queries(repo):
            # Whether it fires or not, it is asked without an error.
            prometheus.numbers(query)
        # Neither a misspelt metric nor a misspelt label value passes for a good expression.
        query = panel_queries(repo)[1]
        for right, wrong in (("requests_total", "request_total"), ("health|metrics", ".*"), ("5..", "5xx")):
            assert right in query.expr
            with pytest.raises(AssertionError, match="no data"):
                prometheus.check(Query(query.where, query.expr.replace(right, wrong)), wait_seconds=1)
        with pytest.raises(AssertionError, match="parse error"):
            prometheus.check(Query(query.where, query.expr + ")"))


def check_values(prometheus: Prometheus) -> None:
    """A few numbers that the traffic makes certain."""

    def latest(expr: str) -> float:
        return prometheus.check(Query(expr, expr))[-1]

    assert latest("max(scalepilot_serve_ready)") == 1
    assert latest('sum(scalepilot_serve_policy_info{policy="net", default="true", version="2"})') == 1
    assert latest('scalepilot_serve_policy_loads_total{result="refused"}') == 1
    assert latest('sum(rate(scalepilot_serve_requests_total{status="503"}[4s]))') > 0
    # The proxy counts what the replica counts, and has nothing of its own to say here.
    seen = 'sum(scalepilot_serve_proxy_responses_total{status="5xx"}) / sum(scalepilot_serve_requests_total{status=~"5.."})'
    assert 0.8 < latest(seen) < 1.2
    share = 'sum(scalepilot_serve_requests_total{policy="rival"}) / sum(scalepilot_serve_requests_total{policy=~"net|rival"})'
    assert 0.1 < latest(share) < 0.6
    decided, drawn = 'scalepilot_serve_decisions_total{policy="net"}', 'scalepilot_serve_shadow_decisions_total{policy=~"net@.*"}'
    assert latest(f"sum({drawn}) / sum({decided})") > 0.9


@pytest.mark.slow
def test_the_variables_of_the_dashboard_have_values(repo: Path, server: Server, prometheus: Prometheus) -> None:
    with traffic(server):
        prometheus.check(Query("the first counts", "sum(scalepilot_serve_decisions_total) > 0"))
        asked = 0
        for variable in dashboard(repo)["templating"]["list"]:
            if variable["type"] != "query":
                continue
            series, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            selector = Query(variable["name"], series).filled({"instance": ".+"}).expr
            values = prometheus.get(f"label/{label}/values", **{"match[]": selector})
            expected = {"instance": [server.url.removeprefix("http://")], "policy": ["hpa", "net", "rival"]}
            assert values == expected[variable["name"]]
            asked += 1
        assert asked == 2
        # One policy chosen, and two, as Grafana writes them: the panels still draw, and nothing of the others.
        for chosen, names in (("net", {"net"}), ("(net|rival)", {"net", "rival"})):
            query = next(q for q in panel_queries(repo) if q.where == "panel Requests by policy")
            filled = query.filled({"instance": ".+", "policy": chosen, "__rate_interval": "4s"})
            prometheus.check(filled)
            found = prometheus.get("query", query=filled.expr)["result"]
            assert {series["metric"]["policy"] for series in found} == names


def test_the_exposition_is_what_prometheus_recommends(server: Server) -> None:
    with traffic(server), httpx.Client(headers={"authorization": f"Bearer {KEY}"}) as client:
        time.sleep(0.5)
        answer = server.ask(client, "GET", "/metrics", 200)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)) > 10
    assert all(family.documentation for family in families)
    own = [family for family in families if family.name.startswith("scalepilot_")]
    assert all(family.name.startswith("scalepilot_serve_") for family in own)
    assert all(not sample.name.endswith("_total") or family.type == "counter" for family in own for sample in family.samples)
    checked = subprocess.run(
        [binary("promtool"), "check", "metrics"], input=answer.text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_rules_and_the_scrape_config_are_what_promtool_accepts(repo: Path) -> None:
    promtool = binary("promtool")
    subprocess.run([promtool, "check", "rules", str(repo / RULES)], check=True, capture_output=True)
    # The key's file is another machine's.
    subprocess.run([promtool, "check", "config", "--syntax-only", str(repo / SCRAPE)], check=True, capture_output=True)


REQUESTS = "scalepilot_serve_requests_total{instance='a',endpoint='decide',policy='net',version='1',status='%s'}"
DECISIONS = "scalepilot_serve_decisions_total{instance='a',policy='net',version='1',move='hold'}"
FALLBACKS = "scalepilot_serve_fallbacks_total{instance='a',policy='net',version='1'}"
CLIPPED = "scalepilot_serve_clipped_fields_total{instance='a',policy='net',field='cpu_utilisation'}"
SHADOW = "scalepilot_serve_shadow_decisions_total{instance='a',policy='net@1',shadow='hpa@1',agreement='%s'}"
DURATION = "scalepilot_serve_request_duration_seconds_bucket{instance='a',endpoint='decide',le='%s'}"
REFUSED = "scalepilot_serve_policy_loads_total{instance='a',result='refused'}"
READY = "scalepilot_serve_ready{instance='a',replica='%d'}"
STARTED = "process_start_time_seconds{job='scalepilot-serve',instance='a',replica='%d'}"
PROXY = "scalepilot_serve_proxy_responses_total{instance='a',status='%s'}"
INFO = "scalepilot_serve_policy_info{instance='%s',policy='net',version='%d',kind='network',env='e',default='%s'}"
UP = "up{job='scalepilot-serve',instance='a'}"
OPEN = "process_open_fds{job='scalepilot-serve',instance='a',replica='1'}"
MOST = "process_max_fds{job='scalepilot-serve',instance='a',replica='1'}"
# An hour in which nothing is wrong, a sample a minute; 6,000 requests a minute.
GOOD_HOUR = {
    UP: "1x60",
    READY % 1: "1x60",
    STARTED % 1: "1000x60",
    PROXY % "2xx": "0+6000x60",
    PROXY % "5xx": "0x60",
    REQUESTS % 200: "0+6000x60",
    REQUESTS % 422: "0+300x60",
    REQUESTS % 401: "0+1x60",
    REQUESTS % 500: "0x60",
    DECISIONS: "0+6000x60",
    FALLBACKS: "0x60",
    CLIPPED: "0+60x60",
    SHADOW % "same": "0+5900x60",
    SHADOW % "different": "0+100x60",
    DURATION % "0.001": "0+5900x60",
    DURATION % "0.1": "0+5990x60",
    DURATION % "+Inf": "0+6000x60",
    REFUSED: "0x60",
    INFO % ("a", 1, "true"): "1x60",
    INFO % ("b", 1, "true"): "1x60",
    OPEN: "100x60",
    MOST: "1024x60",
}
# What goes wrong, and the alerts that it causes.
CAUSES: list[tuple[str, dict[str, str], set[str]]] = [
    ("nothing", {}, set()),
    ("the server does not answer", {UP: "1x50 0x10"}, {"ScalepilotServeDown"}),
    ("one scrape fails", {UP: "1x55 0 1x4"}, set()),
    ("it is not ready", {READY % 1: "1x55 0x5"}, {"ScalepilotServeNotReady"}),
    ("one of two replicas is not ready", {READY % 2: "0x60"}, set()),
    ("2 % of requests fail", {REQUESTS % 500: "0x50 0+120x10"}, {"ScalepilotServeErrors"}),
    ("5 in 10,000 requests fail", {REQUESTS % 503: "0+3x60"}, set()),
    ("no replica is free", {PROXY % "5xx": "0x50 0+600x10"}, {"ScalepilotServeOverloaded"}),
    ("clients make mistakes", {REQUESTS % 422: "0+6000x60"}, set()),
    ("2 % of decisions are slow", {DURATION % "0.1": "0+5880x60", DURATION % "0.25": "0+6000x60"}, {"ScalepilotServeSlow"}),
    ("one decision is not finite", {FALLBACKS: "0x55 1x5"}, {"ScalepilotServeFallbacks"}),
    (
        "the policy is broken",
        {FALLBACKS: "0x50 0+6000x10"},
        {"ScalepilotServeFallbacks", "ScalepilotServeManyFallbacks"},
    ),
    ("an unfit artifact", {REFUSED: "0x55 1x5"}, {"ScalepilotPolicyRefused"}),
    ("an unfit artifact of yesterday", {REFUSED: "1x60"}, set()),
    ("half a rollout", {INFO % ("b", 1, "true"): "_x60", INFO % ("b", 2, "true"): "1x60"}, {"ScalepilotVersionsDiffer"}),
    ("a shadow of another mind", {SHADOW % "different": "0+3000x60"}, {"ScalepilotShadowDisagrees"}),
    ("a wrong unit", {CLIPPED: "0+3000x60"}, {"ScalepilotClippedFields"}),
    ("an old key", {REQUESTS % 401: "0+300x60"}, {"ScalepilotKeysRefused"}),
    (
        "replicas that die",
        {STARTED % replica: f"_x{40 + 3 * replica} 1000x2 stale" for replica in range(2, 6)},
        {"ScalepilotReplicasRestart"},
    ),
    ("too many connections", {OPEN: "1000x60"}, {"ScalepilotOpenFiles"}),
]


@pytest.mark.parametrize(("cause", "series", "fired"), CAUSES, ids=[cause for cause, _, _ in CAUSES])
def test_each_cause_raises_its_alerts_and_no_others(
    repo: Path, tmp_path: Path, cause: str, series: dict[str, str], fired: set[str]
) -> None:
    check_rules(repo / RULES, tmp_path, GOOD_HOUR | series, fired)


def test_an_alert_that_should_fire_and_does_not_is_found(repo: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ScalepilotServeErrors"):
        check_rules(repo / RULES, tmp_path, GOOD_HOUR, {"ScalepilotServeErrors"})


def test_every_alert_has_a_cause(repo: Path) -> None:
    assert {rule["alert"] for rule in alerts(repo)} == set().union(*(fired for _, _, fired in CAUSES))
