"""The least an episode can cost: with its arrivals known (clairvoyant), and with their law alone (causal)."""

from scalepilot.simulate.optimum.autoscale import Optimum, PlannedTargets, autoscale_optimum
from scalepilot.simulate.optimum.cache import OptimumCache
from scalepilot.simulate.optimum.causal import CausalOptimum, causal_optimum
from scalepilot.simulate.optimum.queue_scaling import queue_scaling_optimum
from scalepilot.simulate.optimum.resource_manager import (
    ResourceManagerCausalOptimum,
    resource_manager_causal_optimum,
    resource_manager_optimum,
)

__all__ = [
    "CausalOptimum",
    "Optimum",
    "OptimumCache",
    "PlannedTargets",
    "ResourceManagerCausalOptimum",
    "autoscale_optimum",
    "causal_optimum",
    "queue_scaling_optimum",
    "resource_manager_causal_optimum",
    "resource_manager_optimum",
]
