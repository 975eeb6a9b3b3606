"""A plausible observation of a policy's fields: for documentation, the first curl, and a probe of a freshly loaded policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scalepilot.policy import FieldEntry, PolicySpec
from scalepilot_envs.autoscale.observation import PRICE_FIELD, SERVICE_FIELDS
from scalepilot_envs.description import is_mask

_UTILISATION = 0.72
_REPLICAS = 6
_RISE_PER_STEP = 0.01
_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?", re.DOTALL)


def example_observation(spec: PolicySpec) -> dict[str, float]:
    """A service in a quiet moment: six replicas at 72 % of their capacity, a rising rate, no backlog.

    Args:
        spec: fields and environment parameters come from here.

    Returns:
        Field name → value within its bounds; the middle of the range for fields this module does not know.
    """
    typical = _typical_values(spec.env_params)
    example = {}
    for field in spec.observation_fields:
        if is_mask(field.name):
            example[field.name] = 1.0
            continue
        stem, index = _NUMBERED.fullmatch(field.name).groups()  # type: ignore[union-attr]
        value = typical.get(stem)
        if stem == "request_rate_rps" and value is not None:
            value *= 1 - _RISE_PER_STEP * int(index or 0)
        example[field.name] = _within(field, value)
    return example


def _typical_values(env_params: Mapping[str, Any]) -> dict[str, float]:
    capacity_rps = float(env_params.get("replica_capacity_rps", 20.0))
    replicas = min(max(_REPLICAS, int(env_params.get("min_replicas", 1))), int(env_params.get("max_replicas", 60)))
    rate_rps = _UTILISATION * capacity_rps * replicas
    return {
        "request_rate_rps": rate_rps,
        "request_rate_mean_rps": 0.95 * rate_rps,
        "request_rate_std_rps": 0.04 * rate_rps,
        "request_rate_max_rps": 1.1 * rate_rps,
        "request_rate_change_rps": 0.05 * rate_rps,
        "request_rate_rise_rps": 0.12 * rate_rps,
        "request_rate_lagged_rps": 0.9 * rate_rps,
        "request_rate_lagged_soon_rps": 0.95 * rate_rps,
        "request_rate_lagged_later_rps": rate_rps,
        "cpu_utilisation": _UTILISATION,
        "latency_p95_seconds": 1.2 * float(env_params.get("service_time_seconds", 0.05)),
        "late_share": 0.0,
        "error_share": 0.0,
        "backlog_requests": 0.0,
        "ready_replicas": float(replicas),
        "starting_replicas": 0.0,
        "replica_capacity_rps": capacity_rps,
        # Monday, noon.
        "clock_day_sin": 0.0,
        "clock_day_cos": -1.0,
        "clock_week_sin": 0.434,
        "clock_week_cos": 0.901,
        "clock_hour_sin": 0.0,
        "clock_hour_cos": 1.0,
        **_of_service(env_params),
    }


def _of_service(env_params: Mapping[str, Any]) -> dict[str, float]:
    """The service that the policy was made with, where it sees one: what a client turns is what it was trained for."""
    if not env_params.get("observe_service"):
        return {}
    known = {name: float(env_params[name]) for name in SERVICE_FIELDS if name in env_params}
    price, hour = (float(env_params.get(f"price_per_{name}", 1.0)) for name in ("late_request", "replica_hour"))
    return known | {PRICE_FIELD: price / max(hour, 1e-9)}


def _within(field: FieldEntry, value: float | None) -> float:
    wanted = (field.low + field.high) / 2 if value is None else round(value, 3) if value >= 1 else float(f"{value:.3g}")
    return float(min(max(wanted, field.low), field.high))
