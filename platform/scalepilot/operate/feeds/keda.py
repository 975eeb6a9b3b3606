"""A feed for KEDA: its external scaler over gRPC, for triggers `external` and `external-push`.

What is asked for the metric is answered at any time, also before the first decision: without an answer KEDA makes an HPA on CPU.
The value is an error where there is none: KEDA and its HPA then hold, or do what its `fallback` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between, Section
from scalepilot.errors import InputError
from scalepilot.operate.answering import host_and_port
from scalepilot.operate.feeds import METRIC, FeedContext, Newest, check_target, target_of
from scalepilot.operate.feeds.certificates import Certificates, check_pair
from scalepilot.operate.feeds.keda_messages import MESSAGES, METHODS, SERVICE, read_message

# We log errors ourselves; gRPC would log one before it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc

_START_SECONDS, _STOP_SECONDS = 30.0, 0.2
# KEDA has two for each ScaledObject.
_MOST_STREAMS = 100
_OPTIONS = [
    # A port that another process has is an error, and not shared with it.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 65_536),
    ("grpc.max_concurrent_streams", _MOST_STREAMS),
    # Each connection is one of the files that a process may have open: those that say nothing are ended.
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 300_000),
    # Streams of a client that has gone without a word are ended.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


@dataclass(frozen=True)
class KedaSettings(Section):
    """Keys of `feed` with `kind: keda`.

    Attributes:
        listen: HOST:PORT of the gRPC server, port 0 for any.
        target: NAMESPACE/NAME that KEDA scales: what a trigger's `target` must be, if it says any, and the namespace of its
            ScaledObject. null for that of a Kubernetes target; for any other, whoever asks is answered.
        max_age_seconds: of a decision that is still told; null for three intervals.
        cert_file: the server's certificate, for TLS; null for none.
        key_file: its key.
        client_ca_file: only clients with a certificate that this one has signed are answered.
    """

    listen: str = "127.0.0.1:9465"
    target: str | None = None
    max_age_seconds: Annotated[float, Between(0, 86_400, above=True)] | None = None
    cert_file: str | None = None
    key_file: str | None = None
    client_ca_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pair(self.cert_file, self.key_file, self.client_ca_file)
        check_target(self.target)


_SETTINGS: TypeAdapter[KedaSettings] = TypeAdapter(KedaSettings)


class KedaFeed:
    """The external scaler.

    Args:
        settings: where, for what, with which certificate.
        target: NAMESPACE/NAME of what is scaled; "" where that is not known.
        interval_seconds: between two signs of life on a stream.

    Raises:
        InputError: an address or a certificate that is not allowed.
    """

    def __init__(self, settings: KedaSettings, target: str, interval_seconds: float) -> None:
        self.max_age_seconds = settings.max_age_seconds
        self._host, self._port = host_and_port(settings.listen, "feed.listen")
        self._listen, self._target, self._interval = settings.listen, target, interval_seconds
        self._certificates: Certificates | None = None
        if settings.cert_file is not None and settings.key_file is not None:
            self._certificates = Certificates(settings.cert_file, settings.key_file, settings.client_ca_file)

    @contextlib.contextmanager
    def answering(self, newest: Newest) -> Iterator[str]:
        """See `Feed`."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="keda", daemon=True)
        thread.start()
        try:
            scaler = _Scaler(newest, self._target, self._interval)
            server, port = asyncio.run_coroutine_threadsafe(self._started(scaler), loop).result(_START_SECONDS)
            try:
                yield f"grpc{'' if self._certificates is None else 's'}://{self._host}:{port}"
            finally:
                asyncio.run_coroutine_threadsafe(server.stop(_STOP_SECONDS), loop).result(_START_SECONDS)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _started(self, scaler: _Scaler) -> tuple[Any, int]:
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((scaler.handlers(),))
        where = f"{self._host}:{self._port}"
        try:
            secured = self._certificates
            port = server.add_insecure_port(where) if secured is None else server.add_secure_port(where, _credentials(secured))
        except RuntimeError:
            raise InputError(f"feed.listen: {self._listen} is not available; allowed: a free port, or 0 for any") from None
        await server.start()
        return server, port


def _credentials(certificates: Certificates) -> Any:
    def configuration() -> Any:
        pem = certificates.pem
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.client_ca)

    def renewed() -> Any:
        return configuration() if certificates.renewed() else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(), renewed, require_client_authentication=certificates.pem.client_ca is not None
    )


class _Scaler:
    """The five methods. Their names are KEDA's."""

    def __init__(self, newest: Newest, target: str, interval: float) -> None:
        self._newest, self._target, self._interval = newest, target, interval
        self._streams = 0

    def handlers(self) -> Any:
        """For the server."""
        found = {}
        for name, (request, response, streamed) in METHODS.items():
            make = grpc.unary_stream_rpc_method_handler if streamed else grpc.unary_unary_rpc_method_handler
            read, write = functools.partial(read_message, request), MESSAGES[response].SerializeToString
            found[name] = make(getattr(self, name), request_deserializer=read, response_serializer=write)
        return grpc.method_handlers_generic_handler(SERVICE, found)

    async def IsActive(self, request: Any, context: Any) -> Any:
        """Always: what is wanted is never less than one replica because nothing is known."""
        await self._check(request, context)
        return MESSAGES["IsActiveResponse"](result=True)

    async def StreamIsActive(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The same at once, and again every interval."""
        with await self._streaming(context):
            while True:
                yield await self.IsActive(request, context)
                await asyncio.sleep(self._interval)

    async def GetMetricSpec(self, request: Any, context: Any) -> Any:
        """One a replica. Whoever asks, and whatever is known: without an answer KEDA makes an HPA on 80 % CPU."""
        spec = MESSAGES["MetricSpec"](metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
        return MESSAGES["GetMetricSpecResponse"](metricSpecs=[spec])

    async def StreamMetricSpec(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The same at once; it never changes."""
        with await self._streaming(context):
            yield await self.GetMetricSpec(request, context)
            await asyncio.Event().wait()

    async def _streaming(self, context: Any) -> contextlib.AbstractContextManager[None]:
        """One more stream, for the length of a `with` block. They last as long as their clients like."""
        if self._streams >= _MOST_STREAMS:
            await _refuse(context, f"more than {_MOST_STREAMS} streams", grpc.StatusCode.RESOURCE_EXHAUSTED)

        @contextlib.contextmanager
        def counted() -> Iterator[None]:
            self._streams += 1
            try:
                yield
            finally:
                self._streams -= 1

        return counted()

    async def GetMetrics(self, request: Any, context: Any) -> Any:
        """The newest target, in both fields: KEDA reads the second, and the first where the second is 0."""
        await self._check(None if request is None else request.scaledObjectRef, context)
        if request.metricName != METRIC:
            await _refuse(context, f"metricName: {request.metricName[:80]!r} is not known; allowed: {METRIC}")
        offer = self._newest()
        if offer.replicas is None:
            await _refuse(context, offer.problem, grpc.StatusCode.UNAVAILABLE)
        value = MESSAGES["MetricValue"](metricName=METRIC, metricValue=offer.replicas, metricValueFloat=float(offer.replicas))
        return MESSAGES["GetMetricsResponse"](metricValues=[value])

    async def _check(self, reference: Any, context: Any) -> None:
        """Whoever scales something else must not get our number."""
        if reference is None:
            await _refuse(context, "the request is no message of KEDA's interface")
        said, namespace = reference.scalerMetadata.get("target", ""), self._target.partition("/")[0]
        if self._target and said not in ("", self._target):
            await _refuse(context, f"target: {said[:80]!r} is not scaled here; allowed: {self._target}")
        if self._target and reference.namespace not in ("", namespace):
            await _refuse(context, f"namespace: {reference.namespace[:80]!r} is not scaled here; allowed: {namespace}")


async def _refuse(context: Any, why: str, code: Any = grpc.StatusCode.INVALID_ARGUMENT) -> NoReturn:
    await context.abort(code, why)
    raise AssertionError("abort raises")


def make(settings: Mapping[str, Any], context: FeedContext) -> KedaFeed:
    """The feed of these settings.

    Raises:
        ConfigError: a key or value that is not allowed.
        InputError: a certificate that is missing, or within reach of others.
    """
    found = checked(KedaSettings, _SETTINGS, dict(settings), "feed")
    return KedaFeed(found, target_of(found.target, context), context.interval_seconds)
