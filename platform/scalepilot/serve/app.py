"""The policies as a Ray Serve application, and a server of it for one machine. The only module here that imports Ray."""

# No `from __future__ import annotations` here: Serve reads the type of `build`'s argument, and a string is none to it.

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from types import FrameType

import psutil
import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from scalepilot.cluster.ray_internals import (
    check_token,
    close_replica_port,
    cluster_address,
    make_token,
    on_loopback,
    ray_folder,
    without_helpers,
)
from scalepilot.errors import ConfigError, InputError, RunError, ScalepilotError
from scalepilot.files.atomic import write_bytes
from scalepilot.serve.catalogue.opening import open_store
from scalepilot.serve.config import LimitsConfig, ServeConfig, serve_config
from scalepilot.serve.http.asgi import PolicyApi
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.http.logs import LOGGER, log_to
from scalepilot.serve.http.metrics import Metrics
from scalepilot.serve.ingress import direct
from scalepilot.serve.ingress.ingress import SEPARATE_LOOP, bridge_command, replica_host
from scalepilot.serve.supervisor import (
    CONTROLLER,
    FAILURE_FILE,
    HAPROXY,
    MANAGER,
    PROXY,
    REPLICA,
    Bridge,
    ServerLostError,
    Supervisor,
    adopt_orphans,
    answers_at,
    kill_all,
    last_failure,
    ready_replicas,
)

APP_NAME = "scalepilot"
HEALTH_CHECK_PERIOD_SECONDS, HEALTH_CHECK_TIMEOUT_SECONDS = 5.0, 10.0
# Requests go through no object store; about the least that Ray accepts.
_OBJECT_STORE_BYTES = 100_000_000
_PROXY_SECONDS = 0.1
_ORPHAN_SECONDS = 2.0
_SAVE_SECONDS = 1.0
_PLACES_FOR_HEALTH = 16
# Idle clients keep their connection; Ray's default closes it after 5 s, while some are just sending.
_KEEP_ALIVE_SECONDS = 75
_logger = logging.getLogger(__name__)
_serve_logger = logging.getLogger(LOGGER)
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class ServeArgs(BaseModel):
    """What the `args` of a Serve config may set: the keys of `ServeConfig`, flat."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def config(self) -> ServeConfig:
        """The configuration.

        Raises:
            ConfigError: a key or value is not allowed, or nobody said who may ask.
        """
        config = serve_config(dict(self.model_extra or {}), "args")
        if config.api_key_file is None and not config.without_keys:
            raise ConfigError(
                "args: api_key_file: is missing; allowed: a file of keys, or without_keys: true where nobody else has access"
            )
        if not config.policies and config.watch is None:
            raise ConfigError("args: policies: none given; allowed: policy or run folders, or a folder to watch")
        return config


class PolicyServer:
    """A replica: loads the artifacts itself, so that only their paths travel.

    Args:
        config: what is served and how.
        metrics_folder: shared with the other replicas of this machine; None where nobody shares.
        behind_haproxy: the short way in (`direct.py`) is open.
    """

    def __init__(self, config: ServeConfig, metrics_folder: str | None, behind_haproxy: bool) -> None:
        close_replica_port()
        log_to(config.log_file)
        shared = None if metrics_folder is None else Path(metrics_folder)
        self._metrics = Metrics(shared)
        try:
            self._store, self._watcher = open_store(config, self._metrics)
            keys = None if config.api_key_file is None else ApiKeys(Path(config.api_key_file), remembered_in=shared)
        except InputError as error:
            # Serve tries again and again, and tells its own log alone.
            _serve_logger.error("a replica cannot start", extra={"event": "replica_failed", "reason": str(error)})
            if shared is not None:
                write_bytes(shared / FAILURE_FILE, str(error).encode())
            raise
        self._api = PolicyApi(self._store, config, keys=keys, metrics=self._metrics, names_requests=behind_haproxy)
        if shared is not None:
            (shared / FAILURE_FILE).unlink(missing_ok=True)
        self._drain_seconds = config.limits.drain_seconds
        if behind_haproxy:
            direct.register(self._api)
        if self._watcher is not None:
            self._watcher.start()
        if metrics_folder is not None:
            threading.Thread(target=self._save_metrics, name="metrics", daemon=True).start()

    def __serve_build_asgi_app__(self) -> PolicyApi:
        """The ASGI application; Serve asks for it once the replica is made."""
        return self._api

    async def notice(self) -> None:
        """Be not ready, and answer on for a moment; called on every replica before Serve ends."""
        await self._api.notice()

    async def drain(self) -> None:
        """Answer what has begun and refuse the rest; called on every replica after `notice`, as Serve waits for nobody."""
        await self._api.drain(self._drain_seconds)
        self._metrics.save()

    def check_health(self) -> None:
        """Raise where a policy no longer decides: Serve then replaces the replica."""
        self._store.check()

    def _save_metrics(self) -> None:
        while True:
            time.sleep(_SAVE_SECONDS)
            try:
                self._metrics.save()
            except (OSError, RuntimeError):
                # A full disk, or a new label just being counted: the next second has it.
                continue


def build(args: ServeArgs) -> serve.Application:
    """The application for Serve config files (`import_path: scalepilot.serve.app:build`), RayService and `serve deploy`.

    Args:
        args: the keys of `ServeConfig`.

    Raises:
        ConfigError: a key or value is not allowed.
    """
    return _application(args.config(), metrics_folder=None)


def _application(config: ServeConfig, metrics_folder: Path | None) -> serve.Application:
    limits = config.limits
    configure = serve.deployment(
        name="policies",
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": 1},
        # The door lets no more than `requests_per_replica` in; health finds a place beyond them.
        max_ongoing_requests=limits.requests_per_replica + _PLACES_FOR_HEALTH,
        # Ray's default is no bound. Past this many the proxy answers 503 at once, and memory stays flat.
        max_queued_requests=limits.queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        graceful_shutdown_timeout_s=limits.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=HEALTH_CHECK_PERIOD_SECONDS,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_SECONDS,
        logging_config=_QUIET,
    )
    behind_haproxy = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
    folder = None if metrics_folder is None else str(metrics_folder)
    return configure(serve.ingress()(PolicyServer)).bind(config, folder, behind_haproxy)


class _StopRequested(BaseException):
    """SIGINT or SIGTERM, raised wherever the main thread is; no `except Exception` may swallow it."""


def serve_forever(
    config: ServeConfig, folder: Path, *, address: str | None = None, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGINT or SIGTERM; then answer what has begun and end everything this call started.

    A second signal does not wait for requests in flight.

    Args:
        config: what is served, and where it listens; `port` is a free one.
        folder: private to this run; Ray's files go there, unless RAY_TMPDIR names another place for them.
        address: a running Ray cluster; None starts a private one, which ends with this call.
        on_ready: called once requests are answered.

    Raises:
        InputError: no cluster answers at `address`, or Serve runs there already.
        RunError: Ray or Serve did not start.
    """
    metrics_folder = None
    if address is None:
        metrics_folder = folder / "metrics"
        metrics_folder.mkdir(mode=0o700)
        adopt_orphans()
        # What Ray's processes write must not be for others to change, however this one was started.
        os.umask(os.umask(0) | 0o022)
    application = _application(config, metrics_folder)
    try:
        with _signals_raise(), _ray(address, folder, config.replicas) as logs, _serving(application, config, logs):
            on_ready()
            if metrics_folder is None:
                while True:
                    time.sleep(3600)
            _supervisor(config, folder, metrics_folder).watch()
    except BaseException as error:
        if not _asked_to_stop(error):
            raise


def _supervisor(config: ServeConfig, folder: Path, metrics_folder: Path) -> Supervisor:
    behind_haproxy = config.ingress == "haproxy"
    own = {HAPROXY: 1, MANAGER: 1} if behind_haproxy else {}

    def bridge() -> psutil.Popen | None:
        command = bridge_command(folder)
        return None if command is None else psutil.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)

    return Supervisor(
        answers=lambda: answers_at(config.host, config.port),
        expected={REPLICA: config.replicas, CONTROLLER: 1, PROXY: 1, **own},
        replicas_ready=lambda: ready_replicas(metrics_folder),
        bridge=Bridge(bridge) if behind_haproxy else None,
        failure=lambda: last_failure(metrics_folder),
    )


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
def _ray(address: str | None, folder: Path, replicas: int) -> Iterator[str]:
    """Ray, connected to or started; what was started is ended. Gives the words for where its logs are."""
    private = address is None
    try:
        try:
            if private:
                _start_private_cluster(folder, replicas)
            else:
                check_token()
                ray.init(address=cluster_address(address or ""), logging_level=logging.ERROR, log_to_driver=False)
        except SystemExit:
            # Until a driver is connected Ray answers SIGTERM itself.
            raise _StopRequested from None
        except ScalepilotError:
            raise
        except Exception as error:
            # Ray raises bare exceptions, too, such as where its processes are slow to start on a busy machine.
            if _asked_to_stop(error):
                raise
            if not private:
                raise InputError(f"address: {address!r}: no Ray cluster answers ({_first_line(error)})") from None
            raise RunError(f"Ray did not start: {_first_line(error)}; its logs are in {folder}") from None
        # ray.init puts its own handler in place of ours.
        signal.signal(signal.SIGTERM, _request_stop)
        yield f"its logs are in {folder}" if private else "see the cluster's logs"
    except ServerLostError:
        # Ray would wait for what is no longer there; the command ends this process without asking it.
        kill_all(psutil.Process().children(recursive=True))
        raise
    except BaseException:
        _shut_down_ray(private=private)
        raise


def _start_private_cluster(folder: Path, replicas: int) -> None:
    make_token()
    temporary = ray_folder(folder)
    # Ray runs its workers at niceness 15: beside a training run the proxy and the replica would starve.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Read when Serve was imported: meant for this process alone, whose handle has no loop of its own to run in.
    os.environ.pop(SEPARATE_LOOP, None)
    with on_loopback(), without_helpers():
        ray.init(
            address="local",
            num_cpus=replicas,
            num_gpus=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=str(temporary),
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
def _serving(application: serve.Application, config: ServeConfig, logs: str) -> Iterator[None]:
    """The application on its port, until the block is left; then drained, unless nobody is left to be asked."""
    lost = False
    if serve.status().proxies:
        raise InputError("address: Ray Serve already runs on this cluster; add scalepilot.serve.app:build to its config instead")
    # Serve greets every start on the terminal.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": replica_host(config),
                "port": config.port,
                "request_timeout_s": config.limits.request_seconds,
                "keep_alive_timeout_s": _KEEP_ALIVE_SECONDS,
            },
            logging_config=_QUIET,
        )
        handle = serve.run(application, name=APP_NAME, route_prefix="/")
        try:
            yield
        except ServerLostError:
            lost = True
            raise
        finally:
            if not lost:
                _drain(handle, config.limits)
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise RunError(f"Serve did not start: {_first_line(error)}; {logs}") from None
    finally:
        if not lost:
            serve.shutdown()


def _drain(handle: DeploymentHandle, limits: LimitsConfig) -> None:
    try:
        handle.broadcast("notice").results(timeout_s=limits.notice_seconds + 2)
        handle.broadcast("drain").results(timeout_s=limits.drain_seconds + 2)
    except Exception as error:  # noqa: BLE001 - a replica that died or hangs must not keep the server from ending
        _logger.warning("not drained: %s", _first_line(error))
    # The last answers still have to pass the proxy.
    time.sleep(_PROXY_SECONDS)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
