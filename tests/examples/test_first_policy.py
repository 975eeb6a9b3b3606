"""docs/first-policy.md, command by command: from an empty folder to a controller that scales a twin behind a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmarks.ports import free_port
from tests.fleet import backfilled

from scalepilot.operate.twin import Clock, Twin, exporter, living
from scalepilot_envs.autoscale import AutoscaleParams

INTERVAL, STARTUP, CAPACITY = 0.5, 2.0, 20.0
_DAYS = 2
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def history(end: float) -> str:
    """Two days of a service, a sample a minute."""
    minute = np.arange(_DAYS * 1440)
    rates = 120 + 80 * np.sin(2 * np.pi * minute / 1440) + 30 * np.sin(2 * np.pi * minute / 97)
    total = np.cumsum(np.random.default_rng(0).poisson(rates * 60.0))
    begin = end // 60 * 60 - 60 * len(minute)
    name = 'http_requests_total{namespace="shop",app="web",code="200",instance="old"}'
    lines = [f"{name} {value} {begin + 60 * (i + 1):.0f}" for i, value in enumerate(total.tolist())]
    return "\n".join(["# TYPE http_requests counter", *lines, "# EOF", ""])


@dataclass
class Ran:
    """What the page's commands left behind."""

    folder: Path
    printed: list[str]
    last: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The twin in real time, scraped by a Prometheus that also has its past, scaled by the file that the page names."""
    folder = tmp_path_factory.mktemp("first-policy")
    params = AutoscaleParams(interval_seconds=INTERVAL, startup_seconds=STARTUP, replica_capacity_rps=CAPACITY, max_replicas=40)
    clock = Clock()
    rates = 150 + 90 * np.sin(np.arange(4000) / 20.0)
    twin = Twin(params, rates, clock() // INTERVAL * INTERVAL)
    with contextlib.ExitStack() as stack:
        stack.enter_context(living(twin, clock, lambda: int((folder / "replicas.txt").read_text())))
        page = stack.enter_context(exporter(twin, clock))
        job: dict[str, Any] = {"job_name": "web", "scrape_interval": f"{int(1000 * INTERVAL / 3)}ms", "honor_labels": True}
        job["scrape_timeout"] = job["scrape_interval"]
        job["static_configs"] = [{"targets": [page.removeprefix("http://").removesuffix("/metrics")]}]
        past = tmp_path_factory.mktemp("prometheus")
        end = time.time() - 4 * 3600
        url = stack.enter_context(backfilled(past, history(end), scrape=[job]))
        yield SimpleNamespace(
            folder=folder, twin=twin, url=url, start=end // 60 * 60 - (_DAYS - 0.1) * 86_400, end=end // 60 * 60
        )


@pytest.fixture(scope="module")
def ran(repo: Path, service: SimpleNamespace, cli_env: dict[str, str]) -> Ran:
    """All blocks of the page but the last, one shell after another."""
    *blocks, last = _BLOCK.findall((repo / "docs" / "first-policy.md").read_text(encoding="utf-8"))
    times = {"START": f"{service.start:.0f}", "END": f"{service.end:.0f}"}
    budget = {
        "STEPS": "8192",
        "EPISODE": "60",
        "WINDOWS": "2",
        "EVALUATIONS": "4",
        "COMPARED": "2",
        "MINUTES": "0.04",
        "JOBS": "1",
    }
    own = {"PROMETHEUS": service.url, "INTERVAL": str(INTERVAL), "STARTUP": str(STARTUP), "DRY_RUN": "3s"}
    environment = {**cli_env, **times, **budget, **own, "LISTEN": f"127.0.0.1:{free_port()}"}
    # What one exports the next has, and what each prints is kept apart. Nothing waits for the comparison.
    (compare,) = [block for block in blocks if block.startswith("scalepilot compare")]
    blocks[blocks.index(compare)] = f"{{ {compare}}} > compared.txt 2>&1 &\n"
    script = "set -e\n" + "\necho END_OF_BLOCK\n".join([*blocks, "wait $!"])
    done = subprocess.run(
        ["bash", "-c", script], cwd=service.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Ran(service.folder, done.stdout.split("END_OF_BLOCK\n"), last, environment)


def wait_for(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_every_command_does_what_the_page_says(ran: Ran) -> None:
    _, imported, trained, _, _, twin, checked, _, reported, _ = ran.printed
    compared = (ran.folder / "compared.txt").read_text()
    assert "written: shop.csv" in imported
    assert list((ran.folder / "runs" / "shop").iterdir())
    assert trained
    assert "hpa-tuned" in compared
    assert (ran.folder / "comparison" / "report.html").stat().st_size > 10_000
    assert "What it would have cost" in twin
    assert "missing" not in checked.lower()
    decided = [json.loads(line) for path in (ran.folder / "records").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert {entry["dry_run"] for entry in decided} == {True}
    assert len(decided) >= 3
    assert decided[-1]["mode"] == "active"
    assert next(iter(decided[-1]["shadows"])).startswith("hpa")
    assert "Not yet" in reported
    assert (ran.folder / "records" / "report.html").stat().st_size > 10_000
    # Nothing was written meanwhile.
    assert (ran.folder / "replicas.txt").read_text() == "4\n"


@pytest.mark.slow
def test_at_its_end_a_controller_scales_the_service(ran: Ran, service: SimpleNamespace) -> None:
    process = subprocess.Popen(["bash", "-c", f"{ran.last.replace('scalepilot operate', 'exec scalepilot operate')}"],
                               cwd=ran.folder, env=ran.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        url = f"http://{ran.environment['LISTEN']}"

        def moved() -> Any:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v1/decisions?last=100", timeout=2) as answer:
                return [entry for entry in json.loads(answer.read()) if entry["outcome"] == "written"]
            return None

        written = wait_for(moved)
        with urllib.request.urlopen(f"{url}/", timeout=5) as answer:
            assert b"Scalepilot operate" in answer.read()
        # The file says what was decided, and the twin has as many.
        wait_for(lambda: (ran.folder / "replicas.txt").read_text() != "4\n")
        wait_for(lambda: service.twin.replicas(service.twin._next).spec != 4)
        assert written[0]["spec"] == 4
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.wait()
