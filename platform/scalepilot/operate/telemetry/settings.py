"""What `telemetry` with `kind: prometheus` may say: one source a measure, each with its own selector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Between, OneOf, Positive, Section
from scalepilot.config.schema import Described
from scalepilot.operate.telemetry.client import Connection

# Containers' usage alone: cAdvisor also shows the pod's whole group of processes, which would count twice.
CADVISOR = "container_cpu_usage_seconds_total"
CADVISOR_MEMORY = "container_memory_working_set_bytes"
CONTAINERS_ONLY = 'container!="",container!="POD"'


@dataclass(frozen=True)
class CounterSource(Section):
    """A counter, summed over its series.

    Attributes:
        counter: its name.
        selector: labels of its series, such as `namespace="shop",app="web"`.
        per_replica: whether each replica has series of its own: fewer than replicas serve are then unknown and not less
            traffic. null finds out; false for an ingress or a mesh.
    """

    counter: str = "http_requests_total"
    selector: str = ""
    per_replica: bool | None = None


@dataclass(frozen=True)
class ErrorSource(Section):
    """The part of the requests that failed.

    Attributes:
        counter: its name; null for that of `requests`.
        selector: labels of its series; null for those of `requests`, and the failed ones by their label `code` or `status`.
    """

    counter: str | None = None
    selector: str | None = None


@dataclass(frozen=True)
class LatencySource(Section):
    """A histogram of response times, with buckets.

    Attributes:
        histogram: its name without `_bucket`.
        selector: labels of its series.
        unit: of its bounds, s or ms.
    """

    histogram: str = "http_request_duration_seconds"
    selector: str = ""
    unit: Annotated[str, OneOf(("s", "ms"))] = "s"


@dataclass(frozen=True)
class CpuSource(Section):
    """CPU seconds of the replicas' containers.

    Attributes:
        counter: its name.
        selector: labels of its series, such as `namespace="shop",pod=~"web-.*"`.
        cores_per_replica: what one replica may use, the utilisation's 1; null with `requests`, else 1.
        requests: a query for it instead: one series a pod or container, such as
            `kube_pod_container_resource_requests{resource="cpu",namespace="shop",pod=~"web-.*"}`; the mean over pods is taken.
    """

    counter: str = CADVISOR
    selector: str = ""
    cores_per_replica: Positive | None = None
    requests: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cores_per_replica is not None and self.requests is not None:
            raise ValueError("requests: is not allowed beside cores_per_replica; allowed: one of them")


@dataclass(frozen=True)
class GaugeSource(Section):
    """A gauge, summed over its series.

    Attributes:
        gauge: its name.
        selector: labels of its series.
    """

    gauge: str = ""
    selector: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gauge:
            raise ValueError("gauge: is empty; allowed: the name of a metric")


@dataclass(frozen=True)
class PodSource(Section):
    """When each pod was made, and whether it serves, of kube-state-metrics.

    Attributes:
        selector: labels of the pods' series, such as `namespace="shop",pod=~"web-.*"`.
        prefix: of the metrics' names: `kube_pod` of kube_pod_created and kube_pod_status_ready.
    """

    selector: str = ""
    prefix: str = "kube_pod"


@dataclass(frozen=True)
class FieldSource(Section):
    """Any field of an observation.

    Attributes:
        query: PromQL that gives one number in the field's unit.
    """

    query: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.query.strip():
            raise ValueError("query: is empty; allowed: PromQL that gives one number")


@dataclass(frozen=True)
class PrometheusSettings(Connection):
    """Keys of `telemetry` with `kind: prometheus`.

    Attributes:
        requests: what counts requests (tasks, messages).
        errors: which of them failed; null for those of `requests` whose label `code` or `status` begins with 5.
        latency: what measures response times.
        cpu: what counts CPU time.
        memory: what measures memory, in bytes, summed over the replicas.
        backlog: what measures how many requests wait; null to derive it from the response times.
        replicas: replicas that serve, where the target cannot tell.
        starting: pods that do not serve yet, where the target cannot tell.
        capacity_rps: requests/s one replica serves; null to learn it where replicas are busy, from that of the policy.
        fields: field → its own source, before any other.
        interval_seconds: of a step, for a policy whose environment has no unit of time (ClusterDeployment-v0).
        timeout_seconds: for everything of one moment.
    """

    url: str = ""
    requests: CounterSource | None = None
    errors: ErrorSource | None = None
    latency: LatencySource | None = None
    cpu: CpuSource | None = None
    memory: GaugeSource | None = None
    backlog: GaugeSource | None = None
    replicas: GaugeSource | None = None
    starting: PodSource | None = None
    capacity_rps: Positive | None = None
    fields: Mapping[str, FieldSource] = field(default_factory=dict)
    interval_seconds: Positive | None = None
    timeout_seconds: Annotated[float, Between(0.1, 2.0)] = 1.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.errors is not None and self.requests is None:
            raise ValueError("errors: are a share of the requests; allowed: with requests")


_SETTINGS: TypeAdapter[PrometheusSettings] = TypeAdapter(PrometheusSettings)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of these settings."""
    return _SETTINGS.json_schema(schema_generator=Described)


def prometheus_settings(values: Mapping[str, Any]) -> PrometheusSettings:
    """The settings as typed data.

    Raises:
        ConfigError: a key or value that is not allowed.
    """
    return checked(PrometheusSettings, _SETTINGS, dict(values), "telemetry")
