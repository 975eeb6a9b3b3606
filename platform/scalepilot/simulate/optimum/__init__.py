"""The clairvoyant optimum: the least an episode can cost when its arrivals are known. A bound, never a policy."""

from scalepilot.simulate.optimum.autoscale import Optimum, PlannedTargets, autoscale_optimum
from scalepilot.simulate.optimum.cache import OptimumCache
from scalepilot.simulate.optimum.queue_scaling import queue_scaling_optimum
from scalepilot.simulate.optimum.resource_manager import (
    CausalOptimum,
    resource_manager_causal_optimum,
    resource_manager_optimum,
)

__all__ = [
    "CausalOptimum",
    "Optimum",
    "OptimumCache",
    "PlannedTargets",
    "autoscale_optimum",
    "queue_scaling_optimum",
    "resource_manager_causal_optimum",
    "resource_manager_optimum",
]
