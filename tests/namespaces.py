"""Machines of a small network on this one: network namespaces on a bridge, an address each. Needs root and `ip`."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_START_SECONDS = 90.0


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Attributes:
        name: of the namespace.
        address: IPv4.
    """

    name: str
    address: str

    def command(self, command: Sequence[str]) -> list[str]:
        """The same, run there."""
        return ["ip", "netns", "exec", self.name, *command]


def allowed() -> bool:
    """Whether machines can be made here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    bridge = f"sp{secrets.token_hex(2)}br"
    made = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, check=False).returncode == 0
    subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)
    return made


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """So many, which reach each other and nothing else; skips where they cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip` (iproute2)")
    tag = secrets.token_hex(2)
    bridge, net = f"sp{tag}br", f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
    made = [Machine(f"sp{tag}{i}", f"{net}.{i + 1}") for i in range(count)]
    if subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    try:
        _ip("link", "set", bridge, "up")
        for i, machine in enumerate(made):
            outer, inner = f"sp{tag}o{i}", f"sp{tag}i{i}"
            _ip("netns", "add", machine.name)
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            _ip("link", "set", inner, "netns", machine.name)
            _ip("link", "set", outer, "master", bridge, "up")
            _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", inner)
            _ip("-n", machine.name, "link", "set", inner, "up")
            _ip("-n", machine.name, "link", "set", "lo", "up")
        yield made
    finally:
        for machine in made:
            subprocess.run(["ip", "netns", "del", machine.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class RayNode:
    """A Ray node on a machine.

    Attributes:
        machine: where.
        process: that started it; its session's processes are the node's.
    """

    machine: Machine
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Lose the node, as by a power cut."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def ray_cluster(
    places: Sequence[Machine], cpus: Sequence[int], folder: Path, environment: Mapping[str, str]
) -> Iterator[list[RayNode]]:
    """A Ray node on each machine, the first the head with its dashboard on 8265.

    Args:
        places: machines.
        cpus: of each node.
        folder: short enough for sockets; each node has its own in it.
        environment: of all their processes.
    """
    nodes: list[RayNode] = []
    try:
        for i, (machine, count) in enumerate(zip(places, cpus, strict=True)):
            # Ray takes every node's folder from the head: one path, and behind it a folder of each machine's own. With one
            # folder for both, one node's agent removes what the other's jobs stand in.
            own, shared, log = folder / str(i), folder / "r", folder / f"{i}.log"
            own.mkdir()
            shared.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
            command += [f"--node-ip-address={machine.address}", f"--num-cpus={count}", "--num-gpus=0"]
            # Its own is one that the system gives to others, and an agent that finds it taken takes no jobs, for good.
            command += [f"--object-store-memory={100 * 1024**2}", "--dashboard-agent-listen-port=8266"]
            if i == 0:
                command += ["--head", "--port=6379", "--dashboard-host=0.0.0.0", "--dashboard-port=8265", f"--temp-dir={shared}"]
            else:
                command += [f"--address={places[0].address}:6379"]
            there = machine.command(_with_own(own, shared, command))
            with log.open("wb") as out:
                process = subprocess.Popen(there, stdout=out, stderr=out, env=dict(environment), start_new_session=True)
            nodes.append(RayNode(machine, process))
            _wait_for(log, process)
        yield nodes
    finally:
        for node in reversed(nodes):
            node.process.send_signal(signal.SIGTERM)
        for node in reversed(nodes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(20)
            node.kill()


def _with_own(own: Path, shared: Path, command: Sequence[str]) -> list[str]:
    """The command with a folder of its own behind a path that others use, too."""
    return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(own), str(shared), *command]


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"ray: a node did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.2)
