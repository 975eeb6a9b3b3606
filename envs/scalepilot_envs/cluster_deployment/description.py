"""What ClusterDeployment-v0 shows, takes and pays, as one description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.cluster_deployment.measurement import LOAD_SCALE, THROUGHPUT_SCALE, node_share
from scalepilot_envs.cluster_deployment.params import (
    MAX_LATENCY_SECONDS,
    MEMORY_LIMIT_BYTES,
    NUM_NODES,
    POD_LOAD_REQUESTS,
    SWAP_LIMIT_BYTES,
    ClusterDeploymentParams,
)
from scalepilot_envs.description import Action, Columns, EnvDescription, ObservationField, params_from_mapping

ENV_ID = "scalepilot/ClusterDeployment-v0"
EPISODE_STEPS = 100
# cAdvisor's rows without a container are sums of the others.
_CONTAINERS = 'container!="",container!="POD",$pods'
_READY_PODS = 'on (namespace, pod) (kube_pod_status_ready{condition="true",$pods} == 1)'
_CPU_REQUESTS = f'sum(kube_pod_container_resource_requests{{resource="cpu",$pods}} and {_READY_PODS})'


def observation_fields(params: ClusterDeploymentParams) -> tuple[ObservationField, ...]:
    """The fields in the order of the observation vector."""
    nodes = float(node_share(np.array([float(params.max_pods)]))[0])
    carried = POD_LOAD_REQUESTS * params.max_pods
    latency = "response time: 0.2 s and the square of load / capacity, at most 10 s"
    cpu = f"clamp_max(sum(rate(container_cpu_usage_seconds_total{{{_CONTAINERS}}}[$window])) / {_CPU_REQUESTS}, 1)"
    ready = "sum(kube_deployment_status_replicas_ready{$deployment})"
    memory = f"sum(container_memory_working_set_bytes{{{_CONTAINERS}}}) / {ready} / {MEMORY_LIMIT_BYTES:.0f}"
    swap = f"sum(container_memory_swap{{{_CONTAINERS}}}) / {ready} / {SWAP_LIMIT_BYTES:.0f}"
    answered, spent = (f"sum(rate(http_request_duration_seconds_{kind}{{$selector}}[$window]))" for kind in ("count", "sum"))
    rate, failed = (f"sum(rate(http_requests_total{{{labels}$selector}}[$window]))" for labels in ("", 'code=~"5..",'))
    return (
        ObservationField(
            "cpu_share", "share", 0.0, 1.0, "CPU of a ready pod: 0.2 + 0.8 × load / capacity, measured with noise", cpu
        ),
        ObservationField("memory_share", "share of 500 MB", 0.0, 1.0, "memory of a ready pod, of its limit", memory),
        ObservationField(
            "latency_seconds", "s", 0.0, MAX_LATENCY_SECONDS, latency, f"{spent} / ({answered} > 0) or 0 * {answered} + 0.2"
        ),
        ObservationField("swap_share", "share of 200 MB", 0.0, 1.0, "memory beyond the limit that a pod swaps out", swap),
        ObservationField(
            "node_share",
            "share of 5 nodes",
            0.0,
            max(1.0, nodes),
            "nodes in use; one holds 8 ready pods",
            f"count(count by (node) (kube_pod_info{{$pods}})) / {NUM_NODES}",
        ),
        ObservationField(
            "load_mean_5000_requests",
            "5,000 requests/step",
            0.0,
            carried / LOAD_SCALE,
            "mean load of the last 10 steps; clipped at what max_pods carry",
            f"avg_over_time({rate}[${{step}}0s:${{step}}s]) * $step / {LOAD_SCALE:g}",
        ),
        ObservationField(
            "throughput_1000_requests",
            "1,000 requests/step",
            0.0,
            carried / THROUGHPUT_SCALE,
            "load that the ready pods served",
            f"({rate} - ({failed} or 0 * {rate})) * $step / {THROUGHPUT_SCALE:g}",
        ),
    )


def _utilisation(columns: Columns) -> NDArray[np.float64]:
    return columns("cpu_share")


def describe(params: ClusterDeploymentParams | Mapping[str, Any] | None = None) -> EnvDescription:
    """Fields, actions, reward and end of ClusterDeployment-v0.

    Raises:
        ValueError: a parameter is unknown or out of range.
    """
    values = params_from_mapping(ClusterDeploymentParams, params)
    return EnvDescription(
        env_id=ENV_ID,
        params=values,
        fields=observation_fields(values),
        actions=(Action("absolute", 0, "hold"), Action("absolute", 1, "+1"), Action("absolute", -1, "−1")),
        reward=(
            "In [−1, 1]: more for scaling up when CPU or memory is high, for scaling down when CPU is below 0.3, for nothing in"
            " between, for pods that carry the load at 60 % and for moving with it; less for overload, swap and requests;"
            " −5 for the step that ends overloaded."
        ),
        end=(
            f"Terminates after {values.patience} steps in a row with CPU or memory above 0.9 or swap above 0.8;"
            f" truncates after `episode_steps` ({EPISODE_STEPS})."
        ),
        signals={"utilisation": _utilisation},
        rule_defaults={"threshold": {"upper": 0.7, "lower": 0.3, "cooldown_seconds": 0.0}},
        episode_steps=EPISODE_STEPS,
    )
