"""A real Prometheus, and promtool, asked what dashboards and alerts ask; skips visibly where they are not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from benchmarks.ports import free_port
from tests.serving_dashboard import Query

HOST = "127.0.0.1"
# Until the slowest expression has its data: a few scrapes, and the two looks that an increase needs.
WAIT_SECONDS = 30.0
SCRAPE_SECONDS = 0.25


def binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the path (Debian: apt-get install prometheus)")
    return found


class Prometheus:
    """The HTTP API of a Prometheus."""

    def __init__(self, url: str, variables: Mapping[str, str]) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)
        self._variables = variables

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        body = answer.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        assert not body.get("warnings"), f"{parameters}: {body['warnings']}"
        return body["data"]

    def is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def numbers(self, query: Query) -> list[float]:
        """What a panel would draw: every finite number of the last seconds."""
        now = time.time()
        filled = query.filled(self._variables)
        found = self.get("query_range", query=filled.expr, start=now - 5, end=now, step=1)["result"]
        numbers = [float(text) for series in found for _, text in series["values"]]
        return [number for number in numbers if number == number]

    def check(self, query: Query, wait_seconds: float = WAIT_SECONDS) -> list[float]:
        """The numbers of an expression, which must have some before long."""
        deadline = time.monotonic() + wait_seconds
        while not (numbers := self.numbers(query)):
            assert time.monotonic() < deadline, f"{query.where}: no data for {query.filled(self._variables).expr}"
            time.sleep(0.3)
        return numbers


@contextmanager
def running(config: dict[str, Any], folder: Path, variables: Mapping[str, str]) -> Iterator[Prometheus]:
    """A Prometheus of its own.

    Args:
        config: with its targets filled in; how often it looks is set here.
        folder: for its files.
        variables: of the dashboard whose queries are asked.
    """
    program = binary("prometheus")
    config["global"] = {"scrape_interval": f"{int(1000 * SCRAPE_SECONDS)}ms", "evaluation_interval": "1s"}
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    subprocess.run([binary("promtool"), "check", "config", str(path)], check=True, capture_output=True)
    address = f"{HOST}:{free_port()}"
    command = [program, f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    asked = Prometheus(f"http://{address}", variables)
    with started(command, folder, asked.is_ready):
        yield asked


@contextmanager
def started(command: list[str], folder: Path, is_ready: Callable[[], bool]) -> Iterator[None]:
    """A process of a Prometheus, from when it is ready until the end of the block."""
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not is_ready():
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, "Prometheus did not start"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def check_rules(rules: Path, folder: Path, series: Mapping[str, str], fired: set[str]) -> None:
    """Let promtool fly an hour, a sample a minute, and say which alerts are firing at its end."""
    promtool = binary("promtool")
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(fired)]
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "60m",
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }
    path = folder / "rules-test.yaml"
    path.write_text(json.dumps(test))
    ran = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
