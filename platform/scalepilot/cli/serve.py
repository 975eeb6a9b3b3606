"""`scalepilot serve`: policies over HTTP on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from scalepilot.errors import InputError

if TYPE_CHECKING:
    from scalepilot.serve import PolicyStore

HELP = "answer decisions over HTTP with Ray Serve, until Ctrl-C"
_MAX_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "policies", nargs="+", metavar="RUN_OR_POLICY", help="run or policy folders; every policy by its own name"
    )
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--address", metavar="HOST:PORT", help="a running Ray cluster (default: a private one for this command)")
    parser.add_argument("--json", action="store_true", help="say where it listens as one line of JSON")


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_PORT)) else -1
    if not 0 <= port <= _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not allowed; allowed: 0 to {_MAX_PORT}")
    return port


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM.

    Returns:
        0 after either signal.

    Raises:
        InputError: an unfit artifact, host or port, before anything is started.
        RunError: Ray or Serve did not start.
    """
    from scalepilot.serve import PolicyApi, PolicyStore
    from scalepilot.serve.listen import check_cluster, check_loopback, free_port

    store = PolicyStore.load(arguments.policies)
    host = check_loopback(arguments.host)
    port = free_port(host, arguments.port)
    if arguments.address:
        check_cluster(arguments.address)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    # Both are read when Ray is imported. Its logs stay in its folder; what a person must know is said here.
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        # What every replica will do, done once here, where a failure is a line on the terminal.
        PolicyApi(store)
        from scalepilot.serve.app import ServeArgs, serve_forever
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name}: is not installed; install it with: pip install 'scalepilot[serve]'") from None
    print("scalepilot serve: starting Ray Serve, about 10 s …", file=sys.stderr, flush=True)
    serve_forever(
        ServeArgs(policies=[str(served.folder) for served in store]),
        host=host,
        port=port,
        address=arguments.address,
        on_ready=lambda: _announce(store, url, as_json=arguments.json),
    )
    print("scalepilot serve: stopped", file=sys.stderr)
    return 0


def _announce(store: PolicyStore, url: str, *, as_json: bool) -> None:
    """Say where the policies are and how to ask one."""
    from scalepilot.serve.describe import decide_path

    if as_json:
        policies = [{"name": p.spec.name, "version": p.spec.version, "url": url + decide_path(p.spec.name)} for p in store]
        print(json.dumps({"url": url, "docs": f"{url}/docs", "pid": os.getpid(), "policies": policies}), flush=True)
        return
    for served in store:
        print(f"serving  {served.spec.name} {served.spec.version}  ({served.folder})")
    first = next(iter(store))
    body = json.dumps({"observation": first.example})
    print(f"at       {url}  ·  what to send: {url}/docs  ·  stop: Ctrl-C\n")
    print(f"curl {url}{decide_path(first.spec.name)} -d '{body}'\n", flush=True)
