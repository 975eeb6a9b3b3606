"""Operate's telemetry while things go wrong: a real Prometheus that scrapes pods which fail, fall silent and come back."""

from __future__ import annotations

import http.server
import threading
import time

import numpy as np
import pytest
from tests.fleet import backfilled
from tests.frozen import frozen

from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.telemetry import TelemetryContext, make_telemetry
from scalepilot.policy.spec import env_fields
from scalepilot_envs.registration import find_env

pytestmark = pytest.mark.slow
SCRAPE, INTERVAL, RPS = 0.25, 0.75, 40.0
# Half of the pods would be a half.
NEAR = 0.3


class Pods:
    """Pods that count requests in wall time; each is a target of its own."""

    def __init__(self, number):
        self.begun, self.failing, self.silent = time.time(), set(), set()
        self.servers = []
        for pod in range(number):
            handler = type("Handler", (_Handler,), {"pods": self, "pod": pod})
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.servers.append(server)

    def scrape_configs(self, job, **pods):
        static = [
            {"targets": [f"127.0.0.1:{self.servers[pod].server_port}"], "labels": {"app": job, "pod": f"{job}-{pod}"}}
            for pod in pods.get("of", range(len(self.servers)))
        ]
        return {
            "job_name": job,
            "scrape_interval": f"{int(1000 * SCRAPE)}ms",
            "scrape_timeout": "200ms",
            "static_configs": static,
        }

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.pod in self.pods.failing:
            self.send_error(503)
            return
        lines = ["# HELP http_requests_total Requests.", "# TYPE http_requests_total counter"]
        if self.pod not in self.pods.silent:
            lines.append(f'http_requests_total{{code="200"}} {RPS * (time.time() - self.pods.begun)}')
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def pods():
    made = Pods(6)
    made.silent = {4, 5}
    yield made
    made.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, pods):
    scrape = [pods.scrape_configs("web", of=range(4)), pods.scrape_configs("quiet", of=(4, 5))]
    folder = tmp_path_factory.mktemp("live")
    with backfilled(folder, scrape=scrape) as url:
        time.sleep(8 * INTERVAL)
        yield url


def telemetry(url, app, **settings):
    params = {"interval_seconds": INTERVAL, "startup_seconds": 3, "history_steps": 3, "window_steps": 5}
    env = find_env("scalepilot/Autoscale-v0").describe(params)
    given = {"kind": "prometheus", "url": url, "requests": {"selector": f'app="{app}"'}, "capacity_rps": 20, **settings}
    return make_telemetry(given, TelemetryContext(env, env_fields(env)))


def rate(reads, number=4):
    return reads.read(time.time(), Replicas(number, number, ())).readings["request_rate_rps_0"]


def until(reads, holds, seconds=8.0):
    """Read as a controller would, until something holds; what was read."""
    seen, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.append(rate(reads))
        if holds(seen[-1]):
            return seen
        time.sleep(INTERVAL / 3)
    raise AssertionError(seen[-3:])


def test_a_steady_service_is_read_as_it_is(prometheus):
    reads = telemetry(prometheus, "web")
    found = [rate(reads) for _ in range(8) if not time.sleep(0.1)]
    values = np.array([one.value for one in found])
    # On a busy machine a sample is taken a moment after its time.
    assert values.mean() == pytest.approx(4 * RPS, rel=0.1)
    np.testing.assert_allclose(values, 4 * RPS, rtol=NEAR)
    assert max(one.age_seconds for one in found) < 2 * SCRAPE
    assert not any(one.problem for one in found)


def test_a_service_that_never_had_a_request_has_none_and_a_wrong_name_is_unknown(prometheus):
    replicas = Replicas(2, 2, ())
    found = telemetry(prometheus, "quiet", latency={"selector": 'app="quiet"'}).read(time.time(), replicas).readings
    assert found["request_rate_rps_0"].value == 0
    assert (found["error_share"].value, found["late_share"].value, found["latency_p95_seconds"].value) == (0, 0, 0.05)
    for requests in ({"counter": "http_request_total", "selector": 'app="quiet"'}, {"selector": 'app="quit"'}):
        wrong = telemetry(prometheus, "quiet", requests=requests).read(time.time(), replicas)
        assert wrong.readings["request_rate_rps_0"].value is None
        assert "no such series" in wrong.readings["request_rate_rps_0"].problem


def test_half_the_pods_failing_is_no_less_traffic_and_it_recovers(prometheus, pods):
    reads = telemetry(prometheus, "web")
    until(reads, lambda one: one.value is not None)
    pods.failing = {0, 1}
    try:
        seen = until(reads, lambda one: one.value is None)
        assert all(one.value == pytest.approx(4 * RPS, rel=NEAR) for one in seen[:-1])
        assert "of 4 replicas that serve are scraped" in seen[-1].problem
        time.sleep(3 * INTERVAL)
        assert rate(reads).value is None
        # One of four is estimated.
        pods.failing = {0}
        seen = until(reads, lambda one: one.value is not None)
        assert seen[-1].assumed
        assert seen[-1].value == pytest.approx(4 * RPS, rel=NEAR)
    finally:
        pods.failing = set()
    seen = until(reads, lambda one: one.value is not None and not one.problem)
    assert seen[-1].value == pytest.approx(4 * RPS, rel=NEAR)


def test_all_pods_failing_only_ages(prometheus, pods):
    reads = telemetry(prometheus, "web")
    until(reads, lambda one: one.value is not None and not one.problem)
    pods.failing = {0, 1, 2, 3}
    try:
        seen = until(reads, lambda one: one.age_seconds is not None and one.age_seconds > 3 * INTERVAL)
        assert all(one.value == pytest.approx(4 * RPS, rel=NEAR) for one in seen)
        told = reads.check(time.time())
        assert any("it is not scraped any more" in line for line in told)
    finally:
        pods.failing = set()
    until(reads, lambda one: one.value is not None and one.age_seconds < 2 * SCRAPE)


def test_a_frozen_prometheus_costs_no_more_than_its_time(prometheus):
    reads = telemetry(prometheus, "web", timeout_seconds=0.5)
    until(reads, lambda one: one.value is not None)
    with frozen(listener(prometheus)):
        for _ in range(3):
            started = time.monotonic()
            found = rate(reads)
            assert time.monotonic() - started < 1.0
            assert found.value is None
            assert "no answer" in found.problem or "still not answered" in found.problem
        started = time.monotonic()
        assert len(reads.check(time.time())) >= 1
        assert time.monotonic() - started < 2
    until(reads, lambda one: one.value is not None and not one.problem)


def listener(url):
    """The process of this test's own Prometheus."""
    import psutil

    port = int(url.rpartition(":")[2])
    own = psutil.Process().children()
    return next(one.pid for one in own if any(c.laddr and c.laddr.port == port for c in one.net_connections()))
