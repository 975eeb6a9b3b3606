"""The policies as a Ray Serve application, and a server of it for one machine. The only module here that imports Ray."""

# No `from __future__ import annotations` here: Serve reads the type of `build`'s argument, and a string is none to it.

import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil
import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from scalepilot.errors import InputError, RunError
from scalepilot.serve.asgi import PolicyApi
from scalepilot.serve.store import PolicyStore

APP_NAME = "scalepilot"
# A decision takes well under a millisecond: more at once only wait inside the replica instead of in front of it.
MAX_ONGOING_REQUESTS = 64
# Ray's default is no bound. Past this many the proxy answers 503 at once, and memory stays flat.
MAX_QUEUED_REQUESTS = 256
REQUEST_TIMEOUT_SECONDS = 10.0
DRAIN_SECONDS = 10.0
HEALTH_CHECK_PERIOD_SECONDS, HEALTH_CHECK_TIMEOUT_SECONDS = 5.0, 10.0
# Requests go through no object store; about the least that Ray accepts.
_OBJECT_STORE_BYTES = 100_000_000
_PROXY_SECONDS = 0.1
_ORPHAN_SECONDS = 2.0
_logger = logging.getLogger(__name__)
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class ServeArgs(BaseModel):
    """What a Serve config may set.

    Attributes:
        policies: absolute paths of policy or run folders, readable where the replicas run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policies: list[str] = Field(min_length=1)


class PolicyServer:
    """A replica: loads the artifacts itself, so that only their paths travel.

    Args:
        policies: paths of policy or run folders.
    """

    def __init__(self, policies: list[str]) -> None:
        self._store = PolicyStore.load(policies)
        self._api = PolicyApi(self._store)

    def __serve_build_asgi_app__(self) -> PolicyApi:
        """The ASGI application; Serve asks for it once the replica is made."""
        return self._api

    async def drain(self) -> None:
        """Answer what has begun and refuse the rest; called once before Serve ends, which waits for nobody."""
        await self._api.drain(DRAIN_SECONDS)

    def check_health(self) -> None:
        """Raise where a policy no longer decides: Serve then replaces the replica."""
        self._store.check()


def build(args: ServeArgs) -> serve.Application:
    """The application, for `serve_forever` and for Serve config files (`import_path: scalepilot.serve.app:build`).

    Args:
        args: which artifacts.
    """
    configure = serve.deployment(
        name="policies",
        num_replicas=1,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_queued_requests=MAX_QUEUED_REQUESTS,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH_CHECK_PERIOD_SECONDS,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_SECONDS,
        logging_config=_QUIET,
    )
    return configure(serve.ingress()(PolicyServer)).bind(args.policies)


class _StopRequested(BaseException):
    """SIGINT or SIGTERM, raised wherever the main thread is; no `except Exception` may swallow it."""


def serve_forever(
    args: ServeArgs, *, host: str, port: int, address: str | None = None, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGINT or SIGTERM; then answer what has begun and end everything this call started.

    A second signal does not wait for requests in flight.

    Args:
        args: which artifacts.
        host: a loopback address to listen on.
        port: a free port.
        address: a running Ray cluster; None starts a private one, which ends with this call.
        on_ready: called once requests are answered.

    Raises:
        InputError: no cluster answers at `address`, or Serve runs there already.
        RunError: Ray or Serve did not start.
    """
    try:
        with _signals_raise(), _ray(address) as logs, _serving(build(args), host, port, logs):
            on_ready()
            while True:
                time.sleep(3600)
    except BaseException as error:
        if not _asked_to_stop(error):
            raise


def _asked_to_stop(error: BaseException | None) -> bool:
    """Whether a signal is behind an error: raised inside Ray's C code it arrives wrapped in a SystemError."""
    while error is not None:
        if isinstance(error, _StopRequested):
            return True
        error = error.__cause__ or error.__context__
    return False


def _request_stop(_signal: int, _frame: FrameType | None) -> None:
    raise _StopRequested


@contextmanager
def _signals_raise() -> Iterator[None]:
    before = {number: signal.signal(number, _request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ray(address: str | None) -> Iterator[str]:
    """Ray, connected to or started; what was started is ended. Gives the words for where its logs are."""
    folder = None if address else _private_folder()
    try:
        try:
            if folder is None:
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            else:
                _start_private_cluster(folder)
        except SystemExit:
            # Until a driver is connected Ray answers SIGTERM itself.
            raise _StopRequested from None
        except (OSError, RuntimeError, ValueError) as error:
            if folder is None:
                raise InputError(f"address: {address!r}: no Ray cluster answers ({_first_line(error)})") from None
            raise RunError(f"Ray did not start: {_first_line(error)}; its logs are in {folder}") from None
        # ray.init puts its own handler in place of ours.
        signal.signal(signal.SIGTERM, _request_stop)
        yield "the cluster's logs say more" if folder is None else f"its logs are in {folder}"
    except BaseException as error:
        _shut_down_ray(private=folder is not None)
        # After a failure the logs inside are what there is to go by.
        if folder is not None and _asked_to_stop(error) and "RAY_TMPDIR" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _private_folder() -> Path:
    """A folder of this run alone: nobody else can open its sockets, and no other `ray.init` finds this cluster.

    Short, because a Unix socket's path ends at 107 characters (103 on macOS). RAY_TMPDIR is taken as it is.
    """
    given = os.environ.get("RAY_TMPDIR")
    return Path(given) if given else Path(tempfile.mkdtemp(prefix="scalepilot-", dir="/tmp"))


def _start_private_cluster(folder: Path) -> None:
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        # Ray would write one to ~/.ray; this one lives as long as the cluster.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # On a busy machine the proxy needs longer than Serve's 5 s to import itself; Serve would kill it and give up.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # Ray runs its workers at niceness 15: beside a training run the proxy and the replica would starve.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address="local",
        num_cpus=1,
        num_gpus=0,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _temp_dir=str(folder),
    )


def _shut_down_ray(*, private: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    children = psutil.Process().children(recursive=True) if private else []
    ray.shutdown()
    # Ray's agents notice the end of their raylet in their own time: up to a minute when it came while they started.
    for orphan in psutil.wait_procs(children, timeout=_ORPHAN_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()


@contextmanager
def _serving(application: serve.Application, host: str, port: int, logs: str) -> Iterator[None]:
    """The application on its port, until the block is left; then drained."""
    if serve.status().proxies:
        raise InputError("address: Serve runs on this cluster already; add scalepilot.serve.app:build to its config instead")
    # Serve greets every start on the terminal.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": host, "port": port, "request_timeout_s": REQUEST_TIMEOUT_SECONDS},
            logging_config=_QUIET,
        )
        handle = serve.run(application, name=APP_NAME, route_prefix="/")
        try:
            yield
        finally:
            _drain(handle)
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise RunError(f"Serve did not start: {_first_line(error)}; {logs}") from None
    finally:
        serve.shutdown()


def _drain(handle: DeploymentHandle) -> None:
    try:
        handle.drain.remote().result(timeout_s=DRAIN_SECONDS + 1)
    except Exception as error:  # noqa: BLE001 - a replica that died or hangs must not keep the server from ending
        _logger.warning("not drained: %s", _first_line(error))
    # The last answers still have to pass the proxy.
    time.sleep(_PROXY_SECONDS)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
