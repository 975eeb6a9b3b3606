"""A feed for the HPA itself: an aggregated API `external.metrics.k8s.io` with one metric, that of one target."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between, Section
from scalepilot.errors import ConfigError, InputError
from scalepilot.operate.answering import Handler, answering, host_and_port
from scalepilot.operate.feeds import METRIC, FeedContext, Newest, check_target, target_of
from scalepilot.operate.feeds.certificates import Certificates
from scalepilot.operate.snapshot import utc

_GROUP_VERSION = "external.metrics.k8s.io/v1beta1"
_ROOT = f"/apis/{_GROUP_VERSION}"
_REASONS = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class ExternalMetricsSettings(Section):
    """Keys of `feed` with `kind: external_metrics`.

    Attributes:
        cert_file: the server's certificate: the API server speaks TLS alone.
        key_file: its key.
        client_ca_file: only clients with a certificate that this one has signed are answered, such as the API server's
            `requestheader-client-ca`; null for all.
        listen: HOST:PORT, port 0 for any.
        target: NAMESPACE/NAME that the HPA scales; null for that of a Kubernetes target.
        max_age_seconds: of a decision that is still told; null for three intervals.
    """

    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    listen: str = "127.0.0.1:9466"
    target: str | None = None
    max_age_seconds: Annotated[float, Between(0, 86_400, above=True)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_target(self.target)


_SETTINGS: TypeAdapter[ExternalMetricsSettings] = TypeAdapter(ExternalMetricsSettings)


class ExternalMetricsFeed:
    """The aggregated API.

    Args:
        settings: where, for what, with which certificate.
        target: NAMESPACE/NAME of what is scaled.

    Raises:
        InputError: an address or a certificate that is not allowed.
    """

    def __init__(self, settings: ExternalMetricsSettings, target: str) -> None:
        self.max_age_seconds = settings.max_age_seconds
        self._host, self._port = host_and_port(settings.listen, "feed.listen")
        self._listen, self._namespace = settings.listen, target.partition("/")[0]
        self._certificates = Certificates(settings.cert_file, settings.key_file, settings.client_ca_file)

    @contextlib.contextmanager
    def answering(self, newest: Newest) -> Iterator[str]:
        """See `Feed`."""

        class Telling(_Handler):
            """With what it tells."""

            namespace = self._namespace
            tells = staticmethod(newest)

        with contextlib.ExitStack() as stack:
            try:
                server = answering(Telling, self._host, self._port, "external metrics", self._certificates.context)
                url = stack.enter_context(server)
            except OSError as error:
                told = f"is not available ({error.strerror}); allowed: a free port, or 0 for any"
                raise InputError(f"feed.listen: {self._listen} {told}") from None
            yield f"{url}{_ROOT}/namespaces/{self._namespace}/{METRIC}"


class _Handler(Handler):
    """One request of the API server, or of its aggregator for an HPA."""

    namespace: str
    tells: Newest

    def do_GET(self) -> None:
        """What there is, or its value."""
        parts = urlsplit(self.path)
        path = parts.path.rstrip("/")
        if path == _ROOT:
            self._json(200, _RESOURCES)
        elif path != f"{_ROOT}/namespaces/{self.namespace}/{METRIC}":
            self._refuse(404, f"{path[:200]}: not found; allowed: {METRIC} in namespace {self.namespace}")
        elif any(parse_qs(parts.query).get("labelSelector", ())):
            self._refuse(400, f"labelSelector: is not allowed; {METRIC} has no labels")
        else:
            self._tell()

    def _tell(self) -> None:
        offer = self.tells()
        if offer.replicas is None or offer.decided is None:
            # Not an empty list, nor 0: an error makes the HPA hold.
            self._refuse(503, offer.problem)
            return
        value = {"metricName": METRIC, "metricLabels": {}, "timestamp": utc(offer.decided), "value": str(offer.replicas)}
        listed = {"kind": "ExternalMetricValueList", "apiVersion": _GROUP_VERSION, "metadata": {}, "items": [value]}
        self._json(200, listed)

    def _refuse(self, code: int, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._json(code, {**status, "code": code, "reason": _REASONS[code], "message": message})

    def _json(self, code: int, value: Any) -> None:
        self.answer(code, json.dumps(value, ensure_ascii=False).encode(), "application/json")


_RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": _GROUP_VERSION,
    "resources": [{"name": METRIC, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}],
}


def make(settings: Mapping[str, Any], context: FeedContext) -> ExternalMetricsFeed:
    """The feed of these settings.

    Raises:
        ConfigError: a key or value that is not allowed, or no target.
        InputError: a certificate that is missing, or within reach of others.
    """
    found = checked(ExternalMetricsSettings, _SETTINGS, dict(settings), "feed")
    target = target_of(found.target, context)
    if not target:
        raise ConfigError("feed.target: none given; allowed: NAMESPACE/NAME of what the HPA scales, such as shop/web")
    return ExternalMetricsFeed(found, target)
