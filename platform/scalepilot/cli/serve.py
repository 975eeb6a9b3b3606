"""`scalepilot serve`: policies over HTTP on this machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from scalepilot.cli.streams import note_deploy
from scalepilot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalepilot.serve import PolicyStore, ServeConfig
    from scalepilot.serve.supervisor import ServerLostError

HELP = "serve policies over HTTP with Ray Serve, until Ctrl-C"
_MAX_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "policies",
        nargs="*",
        metavar="RUN_OR_POLICY",
        help="run or policy folders, each served under its own name; `status` shows what a running server serves",
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="a serve.yaml with these options and more (docs/serving.md)")
    parser.add_argument("--watch", metavar="FOLDER", help="also serve policies placed in this folder, without a restart")
    parser.add_argument("--host", help="address to listen on; any but loopback needs --api-key-file (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, help="0 picks a free port (default: 8000)")
    parser.add_argument("--api-key-file", metavar="FILE", help="API keys, one per line; every request needs one")
    parser.add_argument("--replicas", type=int, help="number of replica processes (default: 1)")
    parser.add_argument("--ingress", choices=("auto", "haproxy", "plain"), help="HAProxy or Serve's own proxy (default: auto)")
    parser.add_argument("--require-signature", metavar="FILE", help="public keys; refuse policies that none of them signed")
    parser.add_argument("--log-file", metavar="FILE", help="write the log there as JSON lines (default: standard error)")
    parser.add_argument("--rollback", metavar="NAME[@VERSION]", help="with --watch: make another version the default and exit")
    parser.add_argument("--address", metavar="HOST:PORT", help="a running Ray cluster (default: start a private one)")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server that `status` asks (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the address and policies as one line of JSON")


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_PORT)) else -1
    if not 0 <= port <= _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not allowed; allowed: 0 to {_MAX_PORT}")
    return port


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, or ask a server, or change a default.

    Returns:
        0 after either signal.

    Raises:
        InputError: an unfit configuration, artifact, host or port, before anything is started.
        RunError: Ray or Serve did not start, or no server answers.
    """
    if arguments.policies == ["status"] and not Path("status").exists():
        return _status(arguments)
    config = _config(arguments)
    if arguments.rollback:
        return _rollback(arguments.rollback, config)
    if not config.policies and config.watch is None:
        raise InputError("policies: none given; allowed: run or policy folders, --watch FOLDER, or both in --config FILE")
    return _serve(config, arguments)


def _config(arguments: argparse.Namespace) -> ServeConfig:
    """The file's keys, with what was given on the command line in their place."""
    from scalepilot.serve import load_serve_config, serve_config

    base = load_serve_config(arguments.config) if arguments.config else serve_config({})
    names = ("watch", "host", "port", "api_key_file", "replicas", "ingress", "require_signature", "log_file")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.policies:
        given["policies"] = list(arguments.policies)
    checked = serve_config(given, "arguments")
    return replace(base, **{name: getattr(checked, name) for name in given})


def _serve(config: ServeConfig, arguments: argparse.Namespace) -> int:
    from scalepilot.cluster.connection import check_address
    from scalepilot.serve import PolicyApi
    from scalepilot.serve.catalogue.opening import open_store
    from scalepilot.serve.http.gate import own_hosts
    from scalepilot.serve.http.keys import ApiKeys
    from scalepilot.serve.http.listen import check_host, free_port
    from scalepilot.serve.http.logs import muted
    from scalepilot.serve.ingress.ingress import choose_ingress, set_environment

    keys = None if config.api_key_file is None else ApiKeys(Path(config.api_key_file))
    host = check_host(config.host, with_keys=keys is not None)
    if keys is None or config.allowed_hosts:
        config = replace(config, allowed_hosts=own_hosts(host, config.allowed_hosts))
    ingress = "plain" if arguments.address else choose_ingress(config.ingress)
    with muted():
        # What every replica will do, done once here, where a failure is a line on the terminal.
        store, _ = open_store(config)
        try:
            PolicyApi(store, config, keys=keys)
        except ModuleNotFoundError as error:
            raise _not_installed(error) from None
    note_deploy("serve", config.policies)
    if arguments.address:
        check_address(arguments.address, "address", ("auto",))
    port = free_port(host, config.port)
    config = replace(_absolute(config), host=host, port=port, ingress=ingress, without_keys=keys is None)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with _private_folder() as folder:
        set_environment(config, folder)
        shown = None
        if config.log_file is None and not arguments.address:
            shown = folder / "serve.log"
            config = replace(config, log_file=str(shown))
        try:
            from scalepilot.serve.app import serve_forever
            from scalepilot.serve.supervisor import ServerLostError
        except ModuleNotFoundError as error:
            raise _not_installed(error) from None
        print("scalepilot serve: starting Ray Serve, about 10 seconds …", file=sys.stderr, flush=True)
        ready = partial(_announce, store, url, config, as_json=arguments.json)
        try:
            with _followed(shown):
                serve_forever(config, folder, address=arguments.address, on_ready=ready)
        except ServerLostError as error:
            _end_now(error, folder)
    print("scalepilot serve: stopped", file=sys.stderr)
    return 0


def _end_now(error: ServerLostError, folder: Path) -> NoReturn:
    """End without asking Ray, whose parts that are still in this process wait for a minute for those that are gone."""
    shutil.rmtree(folder, ignore_errors=True)
    print(f"scalepilot serve: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code)


def _not_installed(error: ModuleNotFoundError) -> InputError:
    return InputError(f"{error.name}: is not installed; install it with: pip install 'scalepilot[serve]'")


def _absolute(config: ServeConfig) -> ServeConfig:
    """The same for a process in another folder."""
    from scalepilot.policy import located

    paths = {
        name: str(Path(value).resolve())
        for name in ("watch", "api_key_file", "require_signature", "log_file")
        if (value := getattr(config, name)) is not None
    }
    return replace(config, policies=tuple(str(located(path).resolve()) for path in config.policies), **paths)  # type: ignore[arg-type]


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder of this run alone: nobody else can open its sockets, and no other `ray.init` finds its cluster.

    Short, because a Unix socket's path ends at 107 characters (103 on macOS).
    """
    folder = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
    try:
        yield folder
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # After a failure the logs inside are what there is to go by: then this line is not reached.
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _followed(file: Path | None) -> Iterator[None]:
    """Show what the replicas log, which are other processes with streams of their own; None shows nothing."""
    if file is None:
        yield
        return
    from scalepilot.serve.http.logs import follow

    stop = follow(file, sys.stderr)
    try:
        yield
    finally:
        stop()


def _announce(store: PolicyStore, url: str, config: ServeConfig, *, as_json: bool) -> None:
    """Say where the policies are and how to ask one."""
    from scalepilot.serve.http.describe import decide_path

    defaults = store.catalogue.defaults()
    if as_json:
        policies = [{"name": p.spec.name, "version": p.spec.version, "url": url + decide_path(p.spec.name)} for p in defaults]
        said = {"url": url, "docs": f"{url}/docs", "pid": os.getpid(), "ingress": config.ingress, "policies": policies}
        print(json.dumps(said), flush=True)
        return
    for served in store:
        default = "" if served in defaults else "  (not the default)"
        print(f"serving  {served.spec.name}@{served.spec.version}{default}  {served.folder}")
    if config.watch is not None:
        print(f"watching {config.watch}")
    how = "HAProxy" if config.ingress == "haproxy" else "Serve's own proxy"
    print(f"at       {url}  ·  through {how}  ·  what to send: {url}/docs  ·  stop: Ctrl-C\n")
    if not defaults:
        return
    body = json.dumps({"observation": defaults[0].example})
    key = "" if config.api_key_file is None else ' -H "X-API-Key: $KEY"'
    print(f"curl {url}{decide_path(defaults[0].spec.name)}{key} -d '{body}'\n", flush=True)


def _status(arguments: argparse.Namespace) -> int:
    from scalepilot.serve.http.keys import read_keys
    from scalepilot.serve.status import read_status, status_text

    key = read_keys(Path(arguments.api_key_file))[0] if arguments.api_key_file else None
    status = read_status(arguments.url, key)
    print(json.dumps(status) if arguments.json else status_text(status))
    return 0


def _rollback(reference: str, config: ServeConfig) -> int:
    from scalepilot.serve.catalogue.rollback import roll_back

    if config.watch is None:
        raise InputError("rollback: needs the watched folder; allowed: --watch FOLDER")
    print(roll_back(Path(config.watch), reference, config))
    return 0
