"""Memory of `scalepilot serve` over many requests: the proportional set size of the whole process tree, before and after."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ports import free_port
from benchmarks.serve import make_policy, running, scalepilot_command, wrk

WARM_REQUESTS, REQUESTS = 20_000, 200_000
CONNECTIONS, SECONDS = 16, 10


def run() -> tuple[dict[str, Any], dict[str, float]]:
    """Ask until it has answered so many."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        body = json.dumps(make_policy(folder))
        port = free_port()
        with running(scalepilot_command(folder, port), port, folder) as (process, _):
            url = f"http://127.0.0.1:{port}/v1/policies/bench:decide"
            _ask(url, body, WARM_REQUESTS, folder)
            before = pss_mib(process)
            asked = _ask(url, body, REQUESTS, folder)
            after = pss_mib(process)
    figures = {"requests": asked, "pss_mib_before": round(before, 1), "pss_mib_after": round(after, 1)}
    return figures, {"pss_after_vs_before": round(after / before, 4)}


def _ask(url: str, body: str, requests: int, folder: Path) -> int:
    asked = 0
    while asked < requests:
        asked += int(wrk(url, body, CONNECTIONS, SECONDS, folder)["requests"])
    return asked


def pss_mib(process: psutil.Process) -> float:
    """Of a process and everything it began: Ray's own processes, HAProxy, the replica."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += member.memory_full_info().pss / 2**20
    return total
