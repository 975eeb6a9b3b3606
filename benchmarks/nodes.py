"""A Ray cluster of several nodes on this machine: a raylet each, on loopback, ended with the block that began it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.ports import free_port

# Read when Ray is first imported, so set before: import this module first.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
_START_SECONDS = 60.0


@contextlib.contextmanager
def ray_nodes(
    cpus: Sequence[int], environments: Sequence[Mapping[str, str]] = (), folder: Path | None = None, dashboard_port: int = 0
) -> Iterator[str]:
    """Start a head and the other nodes, end them afterwards.

    Args:
        cpus: of each node, the head first.
        environments: variables for each node's processes, on top of this process's.
        folder: short enough for sockets; a temporary one if None.
        dashboard_port: of the head's dashboard, which takes jobs; none if 0.

    Yields:
        The address for `ray.init`.
    """
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        base, address = folder or Path(temporary), f"127.0.0.1:{free_port()}"
        common = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        common += ["--node-ip-address=127.0.0.1", f"--object-store-memory={100 * 1024**2}", "--num-gpus=0"]
        # Whatever the system gives them when they begin to listen. An agent that finds its port taken takes no jobs, for good.
        common += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        try:
            for i, count in enumerate(cpus):
                role = [f"--address={address}"]
                if i == 0:
                    role = ["--head", f"--port={address.rsplit(':', 1)[1]}", f"--temp-dir={base}"]
                if dashboard_port:
                    role.append(f"--dashboard-port={dashboard_port}")
                elif i == 0:
                    role.append("--include-dashboard=false")
                variables = {**os.environ, **(environments[i] if i < len(environments) else {})}
                with (Path(temporary) / f"node{i}.log").open("wb") as log:
                    command = [*common, *role, f"--num-cpus={count}"]
                    processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=variables, start_new_session=True))
                if i == 0:
                    _wait_for(address, processes[0])
            for i, process in enumerate(processes):
                _wait_for_text("Ray runtime started", Path(temporary) / f"node{i}.log", process)
            yield address
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
            for process in reversed(processes):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                # What is left of its own session: raylet, workers.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"ray: the head at {address} did not start")
        time.sleep(0.2)


def _wait_for_text(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while text not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"ray: a node did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.2)


def wait_for_nodes(count: int) -> None:
    """Wait until so many nodes are alive; Ray must be up."""
    import ray

    deadline = time.monotonic() + _START_SECONDS
    while sum(node["Alive"] for node in ray.nodes()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"ray: no {count} nodes after {_START_SECONDS:g} s")
        time.sleep(0.2)
