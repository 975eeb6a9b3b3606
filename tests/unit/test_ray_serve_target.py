"""The ray_serve target against the answers of the dashboard's REST interface."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scalepilot.errors import ConfigError
from scalepilot.operate.targets import Target, TargetContext, make_target


class Dashboard:
    """Two routes of it."""

    def __init__(self) -> None:
        self.url = ""
        self.token = ""
        self.post: tuple[int, Any] = (200, {"message": "Scaling request received."})
        self.get_code = 200
        self.delay_seconds = 0.0
        self.deployment: dict[str, Any] = {
            "status": "HEALTHY",
            "target_num_replicas": 3,
            "deployment_config": {},
            "replicas": [
                {"state": "RUNNING", "start_time_s": 100.0},
                {"state": "STARTING", "start_time_s": 970.0},
                {"state": "STARTING", "start_time_s": 990.0},
                {"state": "STOPPING", "start_time_s": 100.0},
            ],
        }

    def answer(self, method: str, path: str, token: str, body: Any) -> tuple[int, Any]:
        time.sleep(self.delay_seconds)
        if token != self.token:
            return (401 if not token else 403), "Unauthorized"
        if method == "GET":
            return self.get_code, {
                "applications": {"shop": {"external_scaler_enabled": True, "deployments": {"Web": self.deployment}}}
            }
        if self.post[0] == 200:
            self.deployment["target_num_replicas"] = body["target_num_replicas"]
        return self.post


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    found = Dashboard()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            code, body = found.answer(self.command, self.path, token, json.loads(data) if data else None)
            out = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(out)))
            with suppress(OSError):
                self.end_headers()
                self.wfile.write(out)

        do_GET = do_POST = _any

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def target(dashboard: Dashboard, no_token: None) -> Iterator[Target]:
    found = make(dashboard)
    yield found
    found.close()


def make(dashboard: Dashboard, **settings: Any) -> Target:
    chosen = {"kind": "ray_serve", "application": "shop", "deployment": "Web", "url": dashboard.url, **settings}
    return make_target(chosen, TargetContext("a", False, 15.0))


def test_replicas_that_start_are_told_from_those_that_serve_or_are_going(target: Target) -> None:
    found = target.read(1000.0)
    assert (found.spec, found.ready, found.starting_ages_seconds) == (3, 1, (30.0, 10.0))
    assert (found.rolling_out, found.owners, found.problem) == (False, (), "")


def test_another_version_on_its_way_is_a_rollout(dashboard: Dashboard, target: Target) -> None:
    dashboard.deployment["status"] = "UPDATING"
    assert target.read(1000.0).rolling_out


def test_serves_own_autoscaler_owns_what_it_scales(dashboard: Dashboard, target: Target) -> None:
    dashboard.deployment["deployment_config"] = {"autoscaling_config": {"min_replicas": 1}}
    assert target.read(1000.0).owners == ("Ray Serve's autoscaler (autoscaling_config)",)
    (line,) = target.check(dry_run=True)
    assert "deploy it without autoscaling_config" in line


def test_a_write_is_on_what_was_decided_on(dashboard: Dashboard, target: Target) -> None:
    assert target.write(5, 3).outcome == "written"
    stale = target.write(7, 3)
    assert (stale.outcome, stale.replicas) == ("refused", 5)
    assert dashboard.deployment["target_num_replicas"] == 5


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (400, "refused"),
        (404, "refused"),
        (412, "forbidden"),
        (403, "forbidden"),
        (429, "throttled"),
        (500, "unknown"),
        (503, "unknown"),
    ],
)
def test_each_answer_has_its_outcome(dashboard: Dashboard, target: Target, code: int, outcome: str) -> None:
    dashboard.post = (code, {"error": "the reason"})
    written = target.write(5, 3)
    assert (written.outcome, written.detail) == (outcome, f"HTTP {code}: the reason")


def test_the_token_comes_from_where_ray_has_it(
    dashboard: Dashboard, no_token: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dashboard.token = "secret"
    target = make(dashboard)
    assert "HTTP 401" in target.read(0.0).problem
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o600)
    assert make(dashboard, token_file=str(path)).read(0.0).spec == 3
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert target.read(0.0).spec == 3
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    assert "HTTP 403" in target.read(0.0).problem
    path.chmod(0o644)
    assert "chmod 600" in make(dashboard, token_file=str(path)).read(0.0).problem


def test_what_is_not_known_is_not_zero(dashboard: Dashboard, target: Target) -> None:
    dashboard.get_code = 503
    found = target.read(0.0)
    assert (found.spec, found.ready, found.starting_ages_seconds) == (None, None, None)
    assert "HTTP 503" in found.problem


@pytest.mark.slow
def test_a_dashboard_that_hangs_is_left_after_two_seconds(dashboard: Dashboard, target: Target) -> None:
    dashboard.delay_seconds = 2.5
    began = time.monotonic()
    assert target.read(0.0).spec is None
    assert time.monotonic() - began < 2.4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "http://head:99999"}, "url: 'http://head:99999'"),
        ({"url": "ray://head:10001"}, "url: 'ray://head:10001'"),
        ({"application": ""}, "application: is empty"),
    ],
)
def test_settings_that_are_not_allowed_are_told_in_a_line(dashboard: Dashboard, settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(dashboard, **settings)
