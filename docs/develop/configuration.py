"""Writes docs/configuration.md from the configuration's own classes: `make docs`."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from scalepilot.config import json_schema
from scalepilot.config.schema import Described, reference
from scalepilot.experiments.study.config import json_schema as study_schema
from scalepilot.experiments.sweep.config import json_schema as sweep_schema
from scalepilot.operate.config import json_schema as operate_schema
from scalepilot.operate.feeds import KINDS as FEED_KINDS
from scalepilot.operate.feeds.external_metrics import ExternalMetricsSettings
from scalepilot.operate.feeds.keda import KedaSettings
from scalepilot.operate.feeds.metrics_api import MetricsApiSettings
from scalepilot.operate.live.options import json_schema as live_schema
from scalepilot.operate.targets import KINDS
from scalepilot.operate.targets.file import FileSettings
from scalepilot.operate.targets.kubernetes.settings import KubernetesSettings
from scalepilot.operate.targets.none import NoneSettings
from scalepilot.operate.targets.openfaas import OpenFaaSSettings
from scalepilot.operate.targets.ray_serve import RayServeSettings
from scalepilot.operate.targets.redis_farm import RedisFarmSettings
from scalepilot.operate.targets.workers import CommandWorkersSettings, FunctionWorkersSettings
from scalepilot.operate.telemetry.redis import RedisTelemetrySettings
from scalepilot.operate.telemetry.settings import json_schema as prometheus_schema

TARGETS = {
    "kubernetes": KubernetesSettings,
    "ray_serve": RayServeSettings,
    "openfaas": OpenFaaSSettings,
    "redis_farm": RedisFarmSettings,
    "file": FileSettings,
    "none": NoneSettings,
}
WORKERS = {"openfaas": FunctionWorkersSettings, "command": CommandWorkersSettings}
FEEDS = {"keda": KedaSettings, "metrics_api": MetricsApiSettings, "external_metrics": ExternalMetricsSettings}

for name, described, kinds in (("TARGETS", TARGETS, KINDS), ("FEEDS", FEEDS, FEED_KINDS)):
    if described.keys() != kinds.keys():
        raise SystemExit(f"docs/develop/configuration.py: {name} lacks {sorted(kinds.keys() - described.keys())}")


def schemas() -> dict[str, dict[str, Any]]:
    """Title → JSON Schema of everything that a file may say."""
    return {
        "The experiment": json_schema(),
        "The sweep": sweep_schema(),
        "The study": study_schema(),
        "Operating": operate_schema(),
        "Telemetry of kind prometheus": prometheus_schema(),
        "Telemetry of kind redis": _schema(RedisTelemetrySettings),
        "Live environment": live_schema(),
        **{f"Target of kind {kind}": _schema(settings) for kind, settings in TARGETS.items()},
        **{f"Workers of kind {kind}, of a redis_farm": _schema(settings) for kind, settings in WORKERS.items()},
        **{f"Feed of kind {kind}": _schema(settings) for kind, settings in FEEDS.items()},
    }


def _schema(settings: type) -> dict[str, Any]:
    return TypeAdapter(settings).json_schema(schema_generator=Described)


if __name__ == "__main__":
    print(reference(schemas()), end="")
