"""Every parameter of ClusterDeployment-v0, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scalepilot_envs.checks import check_number

# What the observation's scales and the reward's thresholds are built on; not for a caller to change.
POD_LOAD_REQUESTS, POD_LOAD_TARGET_SHARE = 500.0, 0.6
MEMORY_LIMIT_BYTES, SWAP_LIMIT_BYTES = 500e6, 200e6
PODS_PER_NODE, NUM_NODES = 8, 5
MAX_LATENCY_SECONDS = 10.0
# A config or an artifact may come from anywhere: what is allocated by them has a bound.
MAX_PODS, MAX_STARTUP_STEPS, MAX_LOAD_REQUESTS = 1_000_000, 1000, 1e12


@dataclass(frozen=True)
class ClusterDeploymentParams:
    """A deployment of pods on nodes, and how noisy its world is.

    Attributes:
        min_pods: fewest pods (ready + starting).
        max_pods: most pods (ready + starting).
        start_pods: ready pods at the start.
        startup_steps: steps from asking for a pod until it serves.
        patience: an episode ends after this many overloaded steps in a row.
        failure_probability: share of scaling requests that change nothing.
        load_noise_requests: standard deviation of the load's noise, in requests a step.
        spike_probability: chance that a spike of load begins, each step without one.
        cpu_noise_share: CPU is measured with uniform noise up to this, either way.
        memory_noise_bytes: memory of a pod is measured with uniform noise up to this, either way.
    """

    min_pods: int = 1
    max_pods: int = 40
    start_pods: int = 5
    startup_steps: int = 2
    patience: int = 3
    failure_probability: float = 0.05
    load_noise_requests: float = 25.0
    spike_probability: float = 0.005
    cpu_noise_share: float = 0.05
    memory_noise_bytes: float = 10e6

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_number(self, "min_pods", 1, MAX_PODS, whole=True)
        check_number(self, "max_pods", self.min_pods, MAX_PODS, whole=True)
        check_number(self, "start_pods", self.min_pods, self.max_pods, whole=True)
        check_number(self, "startup_steps", 1, MAX_STARTUP_STEPS, whole=True)
        check_number(self, "patience", 1, whole=True)
        check_number(self, "failure_probability", 0, 1)
        check_number(self, "load_noise_requests", 0, MAX_LOAD_REQUESTS)
        check_number(self, "spike_probability", 0, 1)
        check_number(self, "cpu_noise_share", 0, 1)
        check_number(self, "memory_noise_bytes", 0, MEMORY_LIMIT_BYTES)
