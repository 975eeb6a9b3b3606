"""Operate's telemetry on a real Prometheus, against a service whose truth is known."""

from __future__ import annotations

import http.server
import json
import re
import string
import threading
import time
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
import pytest
from tests.fleet import Fleet, Pod, backfilled

from scalepilot.errors import InputError
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.telemetry import TelemetryContext, make_telemetry
from scalepilot.policy.spec import env_fields
from scalepilot_envs import ENVS
from scalepilot_envs.registration import find_env

INTERVAL, END = 15.0, 2400.0
PODS = (
    Pod("web-0", 0),
    Pod("web-1", 0, restarts=(905.0,)),
    Pod("web-2", 0, end=1303),
    Pod("web-3", 0),
    Pod("web-4", 0),
    Pod("web-5", 1000),
    Pod("web-6", 1207),
    Pod("web-7", 1210, end=1700),
    # Not scraped for a while, and then again.
    Pod("web-8", 0, unscraped=((1750, 1830),)),
)


def day(times):
    return 150 + 80 * np.sin(2 * np.pi * times / 1800) + 20 * np.sin(times / 97)


def fleet(name, pods=PODS, rate=day, **options):
    return Fleet(pods, END, rate, labels=f'namespace="shop",app="{name}"', cpu_per_request=0.02, **options)


FEW = tuple(Pod(f"few-{i}", 0) for i in range(3))
FLEETS = {
    "third": (5.0, fleet("third")),
    "whole": (15.0, fleet("whole")),
    "one": (5.0, fleet("one", (Pod("one-0", 0),))),
    "healthy": (5.0, fleet("healthy", FEW, error_share=0.0, late_share=0.0)),
    "silent": (5.0, fleet("silent", FEW, rate=lambda times: np.where(times < 600, 50.0, 0.0))),
    "half": (5.0, fleet("half", tuple(Pod(f"half-{i}", 0, unscraped=((1500, END),) if i % 2 else ()) for i in range(10)))),
}
GAUGES_AT = 1500.0
GAUGES = """
http_requests_queued{namespace="shop",app="third",pod="web-0"} 12 %(now)s
http_requests_queued{namespace="shop",app="third",pod="web-1"} 30 %(now)s
kube_deployment_status_replicas_ready{namespace="shop",deployment="web"} 7 %(now)s
kube_deployment_status_replicas_ready{namespace="other",deployment="web"} 99 %(now)s
"""


def requests_of_kubernetes(now, fleet):
    """Each pod of a fleet is ready and requests half a core."""
    serving = [pod for pod in fleet.pods if pod.start <= GAUGES_AT < pod.end]
    labels = [f'{fleet.labels},pod="{pod.name}"' for pod in serving]
    lines = ["# TYPE kube_pod_container_resource_requests gauge"]
    lines += [f'kube_pod_container_resource_requests{{{one},resource="cpu"}} 0.5 {now}' for one in labels]
    return "\n".join([*lines, *(f'kube_pod_status_ready{{{one},condition="true"}} 1 {now}' for one in labels)])


def pods_of_kubernetes(now):
    """Three old ready pods, one of 20 s ready, one of 20 s not ready, one of 90 s not ready, one that ended."""
    ages = {"a": (600, 1), "b": (600, 1), "c": (600, 1), "d": (20, 1), "e": (20, 0), "f": (90, 0), "g": (20, 0)}
    lines = ["# TYPE kube_pod_created gauge"]
    labels = {name: f'namespace="shop",pod="web-{name}"' for name in ages}
    lines += [f"kube_pod_created{{{labels[name]}}} {now - age} {now}" for name, (age, _) in ages.items()]
    lines += ["# TYPE kube_pod_status_ready gauge"]
    for name, (_, ready) in ages.items():
        lines += [f'kube_pod_status_ready{{{labels[name]},condition="true"}} {ready} {now}']
        lines += [f'kube_pod_status_ready{{{labels[name]},condition="false"}} {1 - ready} {now}']
    return "\n".join(
        [*lines, "# TYPE kube_pod_status_phase gauge", f'kube_pod_status_phase{{{labels["g"]},phase="Failed"}} 1 {now}']
    )


@pytest.fixture(scope="module")
def begun():
    return float(int(time.time() - 4 * 3600) // 60 * 60)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, begun):
    now = begun + GAUGES_AT
    texts = [one.openmetrics(scrape, begun) for scrape, one in FLEETS.values()]
    gauges = [(GAUGES % {"now": now}).strip(), pods_of_kubernetes(now)]
    gauges += [requests_of_kubernetes(now, FLEETS[name][1]) for name in ("third", "whole")]
    with backfilled(tmp_path_factory.mktemp("prometheus"), *texts, *(f"{text}\n# EOF\n" for text in gauges)) as url:
        yield url


def telemetry(url, name, env_id="scalepilot/Autoscale-v0", params=None, **settings):
    env = find_env(env_id).describe(params)
    app = f'app="{name}"'
    sources = {
        "requests": {"selector": app},
        "latency": {"selector": app},
        "cpu": {"selector": app},
    }
    given = {"kind": "prometheus", "url": url, **sources, **settings}
    made = {key: value for key, value in given.items() if value is not None}
    return make_telemetry(made, TelemetryContext(env, env_fields(env)))


def values(snapshot):
    return {name: reading.value for name, reading in snapshot.readings.items()}


@pytest.mark.parametrize(("name", "allowed"), [("third", 0.05), ("whole", 0.10), ("one", 0.05)])
def test_every_field_is_true_through_restarts_and_pods_that_come_and_go(prometheus, begun, name, allowed):
    scrape, truth = FLEETS[name]
    reads = telemetry(prometheus, name, capacity_rps=20.0)
    errors, spent = {}, []
    moments = np.arange(700.0, END - 5, 9 * INTERVAL if name == "one" else 3 * INTERVAL)
    for at in moments:
        ready = truth.ready(at)
        started = time.process_time()
        snapshot = reads.read(begun + at, Replicas(ready, ready, ()))
        spent.append(time.process_time() - started)
        found = values(snapshot)
        assert None not in found.values(), {k: r.problem for k, r in snapshot.readings.items() if r.value is None}
        rates = np.array([truth.requests(at - INTERVAL * (i + 1), at - INTERVAL * i) / INTERVAL for i in range(40)])
        serving = np.mean([truth.ready(t) for t in np.arange(at - INTERVAL, at, 0.5)])
        expected = {f"request_rate_rps_{i}": rates[i] for i in range(8)}
        expected |= {"request_rate_mean_rps": rates.mean(), "request_rate_std_rps": rates.std(), "error_share": 0.02}
        expected |= {"late_share": 0.1, "cpu_utilisation": min(1.0, rates[0] * 0.02 / serving), "ready_replicas": ready}
        expected |= {"latency_p95_seconds": 0.25 + 0.25 * 0.05 / 0.06}
        for field, value in expected.items():
            errors.setdefault(field, []).append(found[field] / value - 1)
        assert snapshot.extra["requests"].value == pytest.approx(found["request_rate_rps_0"] * INTERVAL)
        assert snapshot.extra["late_requests"].value == pytest.approx(0.1 * found["request_rate_rps_0"] * INTERVAL)
        ages = [reading.age_seconds for reading in snapshot.readings.values() if "http" in reading.source]
        assert 0 <= min(ages) <= max(ages) <= scrape
    reads.close()
    for field, relative in errors.items():
        within = np.mean(np.abs(relative) <= allowed)
        assert np.mean(np.abs(relative)) <= allowed / 2, (field, np.mean(np.abs(relative)))
        # While pods come and go, cpu is of a moment between two decisions that nobody saw.
        assert within >= (0.9 if field == "cpu_utilisation" else 0.97), (field, within, np.max(np.abs(relative)))
    # Of a quiet moment: on a busy machine the same work takes longer.
    assert min(spent) < 0.05, f"{1000 * min(spent):.0f} ms of CPU a read"


def test_a_healthy_and_a_silent_service_leave_no_field_empty(prometheus, begun):
    healthy = telemetry(prometheus, "healthy", capacity_rps=20.0)
    found = values(healthy.read(begun + 1500, Replicas(6, 6, ())))
    assert None not in found.values()
    assert (found["error_share"], found["late_share"]) == (0, pytest.approx(0, abs=1e-6))
    silent = telemetry(prometheus, "silent", capacity_rps=20.0)
    found = values(silent.read(begun + 2000, Replicas(6, 6, ())))
    assert None not in found.values()
    assert found["latency_p95_seconds"] == 0.05
    zeros = ("request_rate_rps_0", "request_rate_std_rps", "late_share", "error_share", "cpu_utilisation", "backlog_requests")
    assert [found[name] for name in zeros] == [0.0] * len(zeros)


def test_half_the_replicas_unscraped_are_unknown_whether_seen_to_go_or_not(prometheus, begun):
    reads = telemetry(prometheus, "half")
    replicas = Replicas(10, 10, ())
    for at in np.arange(1440.0, 1505, INTERVAL):
        snapshot = reads.read(begun + at, replicas)
        assert snapshot.readings["request_rate_rps_0"].value == pytest.approx(day(np.array(at - 7.5)), rel=0.05)
    # Past what the samples tell of the others.
    for at in (1530.0, 1600.0, 2300.0):
        snapshot = reads.read(begun + at, replicas)
        assert snapshot.readings["request_rate_rps_0"].value is None
        assert snapshot.readings["request_rate_mean_rps"].value is None
        assert snapshot.readings["request_rate_rps_0"].problem.startswith("5 of 10 replicas that serve are scraped")
        assert snapshot.extra["requests"].value is None
    fresh = telemetry(prometheus, "half").read(begun + 1600, replicas)
    assert fresh.readings["request_rate_rps_0"].value is None


def test_gauges_and_pods_come_from_kubernetes_where_the_target_cannot_tell(prometheus, begun):
    reads = telemetry(
        prometheus,
        "third",
        backlog={"gauge": "http_requests_queued", "selector": 'app="third"'},
        replicas={"gauge": "kube_deployment_status_replicas_ready", "selector": 'namespace="shop",deployment="web"'},
        starting={"selector": 'namespace="shop"'},
    )
    found = values(reads.read(begun + GAUGES_AT, Replicas(9, None, None)))
    assert found["backlog_requests"] == 42
    assert found["ready_replicas"] == 7
    assert [found[f"starting_replicas_{i}"] for i in range(4)] == [1, 0, 1, 0]
    # What the target says goes before.
    found = values(reads.read(begun + GAUGES_AT, Replicas(9, 8, (50.0,))))
    assert found["ready_replicas"] == 8
    assert [found[f"starting_replicas_{i}"] for i in range(4)] == [1, 0, 0, 0]
    # Nobody knows the ages: as if just asked for, and said so.
    unknown = telemetry(prometheus, "third").read(begun + GAUGES_AT, Replicas(9, 8, None))
    assert [unknown.readings[f"starting_replicas_{i}"].value for i in range(4)] == [0, 0, 0, 1]
    assert unknown.readings["starting_replicas_3"].assumed
    nobody = telemetry(prometheus, "third").read(begun + GAUGES_AT, Replicas(None, None, problem="HTTP 403"))
    assert nobody.readings["ready_replicas"].value is None
    assert nobody.readings["starting_replicas_0"].problem == "HTTP 403"
    # Traffic is known whoever serves it.
    assert nobody.readings["request_rate_rps_0"].value is not None


def test_capacity_is_learned_where_replicas_are_busy(prometheus, begun):
    reads = telemetry(prometheus, "third")
    first = reads.read(begun + 1000, Replicas(20, 20, ()))
    assert first.readings["replica_capacity_rps"].assumed
    assert first.readings["replica_capacity_rps"].value == 20
    reads = telemetry(prometheus, "third")
    busy = reads.read(begun + 700, Replicas(3, 3, ()))
    assert busy.readings["cpu_utilisation"].value == 1
    learned = busy.readings["replica_capacity_rps"]
    assert learned.value == pytest.approx(busy.readings["request_rate_rps_0"].value / 3)
    assert not learned.assumed
    assert reads.read(begun + 1000, Replicas(20, 20, ())).readings["replica_capacity_rps"].value == learned.value


def test_any_field_may_be_a_query_with_the_age_of_what_it_looks_at(prometheus, begun):
    queries = {
        "cpu_utilisation": {"query": 'sum(http_requests_queued{app="third"}) / 100'},
        "error_share": {"query": "http_requests_queued"},
        "late_share": {"query": "no_such_metric"},
        "latency_p95_seconds": {"query": "0 / 0"},
        "backlog_requests": {"query": "sum(("},
    }
    found = telemetry(prometheus, "third", cpu=None, fields=queries).read(begun + GAUGES_AT + 30, Replicas(9, 9, ())).readings
    assert found["cpu_utilisation"].value == pytest.approx(0.42)
    assert found["cpu_utilisation"].age_seconds == pytest.approx(30)
    assert "2 series; allowed: one number" in found["error_share"].problem
    assert found["late_share"].problem == "the query gives nothing"
    assert found["latency_p95_seconds"].problem == "the query gives nan"
    assert found["backlog_requests"].problem.startswith("HTTP 400: invalid parameter")


def test_the_other_environments_are_read_as_well(prometheus, begun):
    at, (_, truth) = begun + 1500, FLEETS["third"]
    count = truth.requests(1500 - INTERVAL, 1500)
    replicas = Replicas(8, 8, ())
    queue = {"gauge": "http_requests_queued", "selector": 'app="third"'}
    found = values(
        telemetry(
            prometheus,
            "third",
            "scalepilot/QueueScaling-v0",
            {"interval_seconds": INTERVAL},
            latency=None,
            cpu=None,
            backlog=queue,
        ).read(begun + GAUGES_AT, replicas)
    )
    assert found["instances_share"] == pytest.approx(8 / 100)
    assert found["capacity_requests"] == 8 * 87
    assert found["influx_requests"] == pytest.approx(truth.requests(GAUGES_AT - INTERVAL, GAUGES_AT), rel=0.05)
    assert found["queue_requests"] == 42
    assert found["load_share"] == 1
    memory = {"query": "0.5"}
    cluster = telemetry(
        prometheus, "third", "scalepilot/ClusterDeployment-v0", interval_seconds=INTERVAL,
        fields={"memory_share": memory, "swap_share": {"query": "0"}},
    )  # fmt: skip
    found = cluster.read(at, replicas).readings
    assert found["load_mean_5000_requests"].value == pytest.approx(truth.requests(1350, 1500) / 10 / 5000, rel=0.05)
    assert found["throughput_1000_requests"].value == pytest.approx(count * 0.98 / 1000, rel=0.05)
    assert found["cpu_share"].value == pytest.approx(count / INTERVAL * 0.02 / 8, rel=0.05)
    assert found["node_share"].value == pytest.approx(0.2)
    assert found["latency_seconds"].value == pytest.approx(0.12)
    workflow = telemetry(
        prometheus, "third", "scalepilot/FunctionWorkflow-v0", cpu=None, backlog=queue, fields={"output_queue": {"query": "3"}}
    )
    found = workflow.read(begun + GAUGES_AT, replicas).readings
    assert (found["worker_queue"].value, found["workers"].value, found["output_queue"].value) == (42, 8, 3)
    assert found["arrival_rate_per_second"].value == pytest.approx(truth.requests(GAUGES_AT - 8, GAUGES_AT) / 8, rel=0.05)
    assert found["sojourn_max_seconds"].value == pytest.approx(1.0)
    assert found["qos"].value == 1
    assert found["qos"].assumed


def test_what_is_missing_late_or_coarse_is_said_before_it_runs(prometheus, begun):
    at = begun + 1500
    took = []
    for _ in range(3):
        started = time.monotonic()
        assert telemetry(prometheus, "third", capacity_rps=20.0).check(at) == []
        took.append(time.monotonic() - started)
    assert min(took) < 2
    told = telemetry(prometheus, "whole", requests={"selector": 'app="whole"'}).check(at)
    assert any("requests: scraped every 15 s: rates are up to 15 s late; better: every 5 s" in line for line in told)
    assert any(line.startswith("capacity_rps: not set") for line in told)
    told = telemetry(prometheus, "third", requests={"counter": "http_request_total", "selector": 'app="third"'}).check(at)
    assert 'requests: no series of http_request_total{app="third"}; there is no http_request_total; did you mean' in told[0]
    told = telemetry(prometheus, "thrid").check(at)
    assert re.search(r'requests: no series of http_requests_total{app="thrid"}; \d+ series of \w+ have other labels', told[0])
    told = telemetry(prometheus, "third", params={"wait_slo_seconds": 0.3}).check(at)
    assert any("latency: no bucket at 0.35 s" in line for line in told)
    told = telemetry(prometheus, "third").check(at + 3600)
    assert any("no series" in line or "not scraped any more" in line for line in told)
    told = telemetry(prometheus, "third", fields={"backlog_requests": {"query": "http_requests_total"}}).check(at)
    assert any(line.startswith("fields.backlog_requests: the query gives") for line in told)


def test_a_prometheus_that_is_away_is_one_line(begun):
    reads = telemetry("http://127.0.0.1:9", "third")
    assert len(reads.check(begun)) == 1
    found = reads.read(begun, Replicas(6, 6, ()))
    assert found.readings["request_rate_rps_0"].value is None
    assert "cannot be reached" in found.readings["request_rate_rps_0"].problem
    assert found.readings["ready_replicas"].value == 6


# The templates of `env show`


@pytest.fixture(scope="module")
def ask(prometheus):
    client = httpx.Client(base_url=prometheus, timeout=10)

    def asked(promql, at, name, scrape):
        filled = string.Template(promql).substitute(
            selector=f'namespace="shop",app="{name}"',
            pods=f'namespace="shop",app="{name}",pod=~"web-.*"',
            deployment='namespace="shop",deployment="web"',
            window=f"{INTERVAL + scrape:g}s",
            step=f"{INTERVAL:g}",
        )
        answer = client.get("/api/v1/query", params={"query": filled, "time": at}).json()
        assert answer["status"] == "success", (promql, answer)
        values = [float(one["value"][1]) for one in answer["data"]["result"]]
        assert len(values) <= 1, promql
        return values[0] if values else None

    yield asked
    client.close()


@pytest.mark.parametrize(("name", "allowed"), [("third", 0.10), ("whole", 0.15)])
def test_the_templates_of_the_environments_answer_on_a_real_prometheus(ask, begun, name, allowed):
    scrape, truth = FLEETS[name]
    rates = np.array([truth.requests(GAUGES_AT - INTERVAL * (i + 1), GAUGES_AT - INTERVAL * i) / INTERVAL for i in range(40)])
    expected = {f"request_rate_rps_{i}": rates[i] for i in range(8)}
    expected |= {"request_rate_mean_rps": rates.mean(), "error_share": 0.02, "late_share": 0.1, "ready_replicas": 7}
    expected |= {"cpu_utilisation": rates[0] * 0.02 / 0.5 / 8, "latency_p95_seconds": 0.25 + 0.25 * 0.05 / 0.06}
    for field in find_env("scalepilot/Autoscale-v0").describe().fields:
        if field.name in expected:
            found = ask(field.promql, begun + GAUGES_AT, name, scrape)
            assert found == pytest.approx(expected[field.name], rel=allowed), field.name
    describe = find_env("scalepilot/QueueScaling-v0").describe
    queue = {field.name: field.promql for field in describe({"interval_seconds": INTERVAL}).fields}
    cluster = {field.name: field.promql for field in find_env("scalepilot/ClusterDeployment-v0").describe().fields}
    count = rates[0] * INTERVAL
    for promql, value in (
        (queue["instances_share"], 7 / 100),
        (queue["capacity_requests"], 7 * 87),
        (queue["influx_requests"], count),
        (queue["load_share"], 1),
        (cluster["cpu_share"], rates[0] * 0.02 / 0.5 / 8),
        (cluster["latency_seconds"], 0.12),
        (cluster["load_mean_5000_requests"], truth.requests(1350, 1500) / 10 / 5000),
        (cluster["throughput_1000_requests"], 0.98 * count / 1000),
    ):
        assert ask(promql, begun + GAUGES_AT, name, scrape) == pytest.approx(value, rel=allowed), promql


def test_the_templates_leave_nothing_empty_where_there_is_no_traffic_or_no_error(ask, begun):
    fields = {f.name: f.promql for f in find_env("scalepilot/Autoscale-v0").describe().fields}
    at = begun + GAUGES_AT
    assert ask(fields["error_share"], at, "healthy", 5.0) == 0
    assert ask(fields["late_share"], at, "healthy", 5.0) == pytest.approx(0, abs=1e-9)
    silent = {name: ask(fields[name], at, "silent", 5.0) for name in ("error_share", "late_share", "latency_p95_seconds")}
    assert silent == {"error_share": 0, "late_share": 0, "latency_p95_seconds": 0.05}
    assert ask(fields["request_rate_rps_0"], at, "silent", 5.0) == 0
    known = [fields[f"starting_replicas_{i}"].replace("$pods", 'namespace="shop",pod=~"web-[a-f]"') for i in range(4)]
    assert [ask(promql, at, "", 5.0) for promql in known] == [1, 0, 1, 0]
    # Where Kubernetes is not scraped, nothing is known.
    assert ask(known[0], at + 4000, "", 5.0) is None


@pytest.mark.parametrize("env_id", ENVS)
def test_every_template_is_promql(ask, begun, env_id):
    for field in find_env(env_id).describe().fields:
        if field.promql:
            ask(field.promql, begun + GAUGES_AT, "third", 5.0)


# What it wants to see


class Gate(http.server.BaseHTTPRequestHandler):
    """Answers as a Prometheus without series; keeps what it was sent."""

    seen: ClassVar[list[dict[str, str]]] = []
    body: ClassVar[bytes | None] = None

    def do_GET(self):
        self.seen.append(dict(self.headers))
        if self.body is not None:
            body, status = self.body, 200
        elif self.headers.get("x-scope-orgid") == "broken":
            body, status = b"<html>sign in</html>", 200
        elif "authorization" not in {key.lower() for key in self.headers}:
            body, status = b"no", 401
        else:
            body, status = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode(), 200
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def gate():
    # As many at once as are asked: five is the library's own.
    door = type("Door", (http.server.ThreadingHTTPServer,), {"request_queue_size": 64})
    server = door(("127.0.0.1", 0), Gate)
    Gate.seen, Gate.body = [], None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def matrix(*values, metric=None, **others):
    series = [{"metric": {"pod": "a"} if metric is None else metric, "values": list(values)}]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}, **others}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"status":"success"}',
        b'{"status":"success","data":null}',
        b'{"status":"success","data":{"resultType":"scalar","result":[1000,"5"]}}',
        b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[[1000,{}]]}]}}',
        matrix(),
        matrix([1000, "abc"]),
        matrix(["then", "5"]),
        matrix([1000, "+Inf"], [1005, "NaN"]),
        matrix([1000, "5"], [1005, "7"], metric=[]),
        matrix([1005, "5"], [1000, "7"]),
        matrix([1000, "5"], [1000, "7"]),
        matrix([1000, "5"]),
        matrix([9000, "5"], [9005, "7"]),
        matrix([1000, "5"], [1005, "7"], warnings=["a store is away"]),
    ],
)
def test_an_answer_that_is_none_is_a_problem_and_no_exception(gate, body):
    Gate.body = body
    reads = telemetry(
        gate, "x", errors={"counter": "e"}, starting={}, backlog={"gauge": "g"}, fields={"late_share": {"query": "q"}}
    )
    found = reads.read(1010.0, Replicas(3, None)).readings
    assert found["request_rate_rps_1"].value is None
    assert found["request_rate_rps_1"].problem
    assert all("\n" not in line for line in reads.check(1010.0))
    reads.close()


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_tokens_passwords_and_tenants_are_sent(gate, tmp_path, begun):
    token = private(tmp_path / "token", "abc.def\n")
    telemetry(gate, "x", token_file=token, headers={"X-Scope-OrgID": "shop"}).read(begun, Replicas(1, 1))
    sent = {key.lower(): value for key, value in Gate.seen[-1].items()}
    assert (sent["authorization"], sent["x-scope-orgid"]) == ("Bearer abc.def", "shop")
    password = private(tmp_path / "password", "secret")
    telemetry(gate, "x", user="me", password_file=password).read(begun, Replicas(1, 1))
    assert Gate.seen[-1]["authorization"] == "Basic bWU6c2VjcmV0"
    refused = telemetry(gate, "x").read(begun, Replicas(1, 1)).readings["request_rate_rps_0"]
    assert "HTTP 401" in refused.problem
    assert "token_file" in refused.problem
    broken = telemetry(gate, "x", token_file=token, headers={"X-Scope-OrgID": "broken"}).check(begun)
    assert broken == [f"telemetry: HTTP 200 from {gate}/api/v1/query: this is not the API of a Prometheus"]


# "test", as in Prometheus' own guide.
BCRYPT = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"


def certified(folder):
    """A key and a certificate for 127.0.0.1, which is its own authority."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "prometheus")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = made.add_extension(addresses, False).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    return {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}


@pytest.mark.slow
def test_a_prometheus_with_a_certificate_and_a_password_is_read(tmp_path, begun):
    web = {"tls_server_config": certified(tmp_path), "basic_auth_users": {"me": BCRYPT}}
    with backfilled(tmp_path, FLEETS["one"][1].openmetrics(5.0, begun), web=web) as url:
        known = {"user": "me", "password_file": private(tmp_path / "password", "test"), "ca_file": str(tmp_path / "cert.pem")}

        def told(words, **settings):
            """What is said of the rate; checking a password takes long on a busy machine."""
            for _ in range(10):
                read = telemetry(url, "one", latency=None, cpu=None, **settings).read(begun + 1500, Replicas(1, 1, ()))
                found = read.readings["request_rate_rps_0"]
                if words in (found.problem or f"{found.value:.3f}"):
                    return True
            raise AssertionError(found)

        assert told("86.", **known)
        assert told("CERTIFICATE_VERIFY_FAILED", **{**known, "ca_file": None})
        wrong = private(tmp_path / "wrong", "guess")
        assert told("HTTP 401", **{**known, "password_file": wrong})
        assert told("HTTP 401", ca_file=known["ca_file"])


def test_a_secret_that_others_can_read_is_refused(gate, tmp_path, begun):
    path = tmp_path / "token"
    path.write_text("abc")
    path.chmod(0o644)
    with pytest.raises(InputError, match=r"telemetry\.token_file: .* chmod 600"):
        telemetry(gate, "x", token_file=str(path))
