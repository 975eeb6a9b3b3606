"""What one metric asks for: the replica calculator of the Kubernetes HorizontalPodAutoscaler."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.rules.base import Array

# Readings come as float32: what rounding to it may have taken away or added, as a share. Larger would decide otherwise than
# Kubernetes where a reading really is a little above or below.
_SINGLE = 6.1e-8


def percent(share: Array) -> Array:
    """Whole percents, cut off as Kubernetes' integer division does, forgiving single precision: 0.57 is 57, not 56."""
    whole: Array = np.floor(100.0 * share * (1.0 + _SINGLE))
    return whole


def target_percent(target: Array) -> Array:
    """A target as percent. Kubernetes' are whole; what is not (from a search) is kept as it is."""
    exact = 100.0 * target
    return np.where(np.abs(exact - np.rint(exact)) <= 1e-9 * exact, np.rint(exact), exact)


def within(ratio: Array, down: Array, up: Array) -> NDArray[np.bool_]:
    """Whether a ratio of metric and target is close enough to 1 to keep the count."""
    kept: NDArray[np.bool_] = (ratio >= 1.0 - down) & (ratio <= 1.0 + up)
    return kept


def cpu_recommendation(
    cpu: Array,
    ready: Array,
    total: Array,
    target: Array,
    tolerance: Array,
    missing: Array | float = 0.0,
    *,
    tolerance_up: Array | None = None,
) -> Array:
    """Desired replicas from CPU utilisation, unready replicas counted as idle when growing and left out when shrinking.

    Args:
        cpu: (n,) mean utilisation of the ready replicas that are measured; NaN where none is.
        ready: (n,) replicas that serve.
        total: (n,) ready + starting.
        target: (1,) or (n,) utilisation aimed at.
        tolerance: (1,) or (n,) share below the target that is tolerated, and above it unless `tolerance_up` says otherwise.
        missing: (n,) ready replicas without a measurement: idle when growing, fully used (or on a target above 1) when shrinking.
        tolerance_up: (1,) or (n,) share above the target that is tolerated.

    Returns:
        (n,) replicas; `total` where nothing is measured, which the controller does not count as a recommendation.

    Source:
        Kubernetes, `replica_calculator.go` (GetResourceReplicas) and `metrics/utilization.go`: utilisation is a whole percent.
    """
    down, up = tolerance, tolerance if tolerance_up is None else tolerance_up
    aimed = target_percent(target)
    measured = ready - missing
    used = np.where(measured > 0, cpu, 0.0) * measured
    ratio = percent(np.where(measured > 0, cpu, 0.0)) / aimed
    # Without a measurement there is nothing to go by, and what starts is left alone.
    known = (measured > 0) & ~np.isnan(cpu)
    starting = total - ready
    grows_with_starting = (starting > 0) & (ratio > 1.0)
    simple = ~grows_with_starting & (missing == 0)
    at_once = np.where(within(ratio, down, up), total, np.ceil(ratio * measured))
    if simple.all():
        return np.where(known, at_once, total)

    fully_used = np.where(ratio < 1.0, missing * np.maximum(100.0, aimed) / 100.0, 0.0)
    counted = measured + np.where(ratio != 1.0, missing, 0.0) + np.where(grows_with_starting, starting, 0.0)
    again = percent((used + fully_used) / np.maximum(counted, 1.0)) / aimed
    turned = ((ratio < 1.0) & (again > 1.0)) | ((ratio > 1.0) & (again < 1.0))
    wanted = np.ceil(again * counted)
    against = ((again < 1.0) & (wanted > total)) | ((again > 1.0) & (wanted < total))
    recomputed = np.where(within(again, down, up) | turned | against, total, wanted)
    return np.where(known, np.where(simple, at_once, recomputed), total)


def rate_recommendation(
    rate_rps: Array, capacity_rps: Array, total: Array, target: Array, tolerance: Array, *, tolerance_up: Array | None = None
) -> Array:
    """Desired replicas from the request rate (an external or object metric with an average value).

    Args:
        rate_rps: (n,) newest arrival rate.
        capacity_rps: (n,) requests/s of one replica.
        total: (n,) ready + starting; from 0 the tolerance does not matter.
        target: (1,) or (n,) share of a replica's capacity aimed at.
        tolerance: (1,) or (n,) share below the target that is tolerated, and above it unless `tolerance_up` says otherwise.
        tolerance_up: (1,) or (n,) share above the target that is tolerated.

    Source:
        Kubernetes, `replica_calculator.go` (GetExternalPerPodMetricReplicas).
    """
    wanted_per_replica = target * capacity_rps
    ratio = rate_rps / (wanted_per_replica * np.maximum(total, 1.0))
    up = tolerance if tolerance_up is None else tolerance_up
    kept = within(ratio, tolerance + _SINGLE, up + 2 * _SINGLE) & (total > 0)
    return np.where(kept, total, np.ceil(rate_rps / wanted_per_replica * (1.0 - _SINGLE)))
