"""Ray: one local cluster started and ended by us, or somebody else's joined and left."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scalepilot.cluster.ray_internals import (
    check_token,
    cluster_address,
    make_token,
    on_loopback,
    ray_folder,
    session_folder,
    without_helpers,
)
from scalepilot.config import ResourcesConfig
from scalepilot.errors import InputError, RunError

# The local object store holds a few rollouts, not a data set.
_OBJECT_STORE_BYTES = 512 * 1024 * 1024
# A process that has not begun by then waits for something that does not come; one that imports torch may only be slow.
_NODE_START_SECONDS, _NODE_IMPORT_SECONDS = 45.0, 300.0
_NEEDED = ("scalepilot", "scalepilot_envs", "gymnasium", "numpy", "onnxruntime", "pyarrow", "pydantic", "torch", "yaml")
# A cluster's greeting takes milliseconds.
_ANSWER_SECONDS = 2.0


def check_nodes() -> None:
    """Look whether the nodes that may run our processes have what those need, and can import it; Ray must be up.

    What is missing is found without importing anything, within seconds of a process's start, so that it is told at once even
    where a busy node takes minutes to import torch.

    Raises:
        RunError: naming a node that cannot, the package, and what to do.
    """
    from scalepilot import __version__

    remedy = f"install scalepilot {__version__} there, or give the job a runtime_env that brings it"
    wanted = _NEEDED

    # Nested, so that they travel by value: a node without the package could not even load a function of this module.
    def look() -> str:
        import importlib.util

        for name in wanted:
            try:
                found = importlib.util.find_spec(name)
            except ImportError as error:
                return f"!{error}"
            if found is None:
                return f"!No module named '{name}'"
        return str(importlib.import_module("scalepilot").__version__)

    def load() -> str:
        import importlib

        try:
            importlib.import_module("scalepilot.learn.rllib.env_runner")
        except ImportError as error:
            return f"!{error}"
        return ""

    for node, found in on_each_node(look, _NODE_START_SECONDS, remedy):
        if not found.startswith("!") and found != __version__:
            raise RunError(f"node {node}: has scalepilot {found}, this is {__version__}; {remedy}")
    for _ in on_each_node(load, _NODE_IMPORT_SECONDS, remedy):
        pass


def on_each_node(work: Callable[[], str], seconds: float, remedy: str = "see its logs") -> Iterator[tuple[str, str]]:
    """What a task answers on each node that has cores; Ray must be up.

    Args:
        work: that is done there; its answer begins with "!" where it failed.
        seconds: all of them get.
        remedy: for an error.

    Yields:
        The node's address and the answer, as they come.

    Raises:
        RunError: a node that fails, or does not answer in time.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    waiting = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(work)
            waiting[task.options(scheduling_strategy=there).remote()] = node["NodeManagerAddress"]
    deadline = time.monotonic() + seconds
    while waiting:
        ready, _ = ray.wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            node = next(iter(waiting.values()))
            raise RunError(f"node {node}: runs no task of ours within {seconds:g} s; see its logs in Ray's folder")
        node = waiting.pop(ready[0])
        try:
            found = str(ray.get(ready[0]))
        except ray.exceptions.RayError as error:
            raise RunError(f"node {node}: runs no task ({str(error).splitlines()[-1]}); {remedy}") from None
        if found.startswith("!"):
            raise RunError(f"node {node}: cannot import scalepilot ({found[1:]}); {remedy}")
        yield node, found


def check_address(address: str, key: str = "resources.address", words: tuple[str, ...] = ("auto", "local")) -> None:
    """Check within seconds that a Ray cluster answers at an address: Ray itself tries for a minute, or for many.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or one of the words.
        key: what errors call it.
        words: that are taken as they are.

    Raises:
        InputError: not an address, or no cluster answers there.
    """
    if address in words:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise InputError(f"{key}: {address[:80]!r} is not allowed; allowed: HOST:PORT of a Ray cluster, ray://HOST:PORT, auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"{key}: {address[:80]!r} cannot be reached ({error})") from None
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        # A greeting would need Ray's certificates.
        return
    import grpc

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            raise InputError(f"{key}: {address[:80]!r} cannot be reached (what answers is not Ray)") from None


def cpus_of(resources: ResourcesConfig) -> int:
    """Cores of one training: its own, and one for each env runner and each learner."""
    return 1 + resources.num_env_runners + resources.num_learners


@contextlib.contextmanager
def connected(resources: ResourcesConfig, *, num_cpus: int | None = None) -> Iterator[None]:
    """Ray for the length of a `with` block; inside a Ray job the job's cluster is joined.

    Args:
        resources: address, runners, GPUs, and whether a local Ray gets a dashboard.
        num_cpus: of a local Ray; None for one for the driver, each env runner and each learner.

    Raises:
        InputError: the address cannot be reached.
        RunError: a local Ray cannot start.
    """
    # Ray 2.60 warns about an accelerator setting nobody here made; choosing the coming behaviour silences it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address = resources.address or os.environ.get("RAY_ADDRESS")
    if address:
        check_address(address)
    try:
        if address:
            check_token()
            address = cluster_address(address)
            context = ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            make_token()
            folder = ray_folder()
            with on_loopback(), contextlib.nullcontext() if resources.dashboard else without_helpers():
                context = ray.init(
                    num_cpus=cpus_of(resources) if num_cpus is None else num_cpus,
                    include_dashboard=resources.dashboard,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    _temp_dir=str(folder),
                )
    except InputError:
        ray.shutdown()
        raise
    except (ConnectionError, ValueError) as error:
        raise InputError(f"resources.address: {address!r} cannot be reached ({str(error).splitlines()[0]})") from None
    except Exception as error:
        # Ray raises bare exceptions, too, such as where its processes are slow to start on a busy machine.
        raise RunError(f"ray: cannot start here ({str(error).splitlines()[0]})") from error
    try:
        if context.dashboard_url:
            token = f"  ·  token: {os.environ['RAY_AUTH_TOKEN']}" if not address and "RAY_AUTH_TOKEN" in os.environ else ""
            print(f"Ray's dashboard: http://{context.dashboard_url}{token}", file=sys.stderr, flush=True)
        if address:
            check_nodes()
        yield
    finally:
        ray.shutdown()


def session_logs() -> Path:
    """Folder of the logs of Ray's session on this node, which its dashboard shows; as a job, or with Ray up.

    Raises:
        RunError: there is no session here.
    """
    import ray

    began = not ray.is_initialized()
    if began:
        ray.init(address=cluster_address("auto"), logging_level=logging.ERROR, log_to_driver=False)
    try:
        folder = session_folder() / "logs"
    finally:
        if began:
            ray.shutdown()
    if not folder.is_dir():
        raise RunError(f"{folder}: no logs of Ray's session are here; give --storage a URI that this node can write to")
    return folder
