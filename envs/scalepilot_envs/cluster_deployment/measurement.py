"""What monitoring shows of a deployment: fields by row, from load and pods."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.cluster_deployment.params import (
    MAX_LATENCY_SECONDS,
    MEMORY_LIMIT_BYTES,
    NUM_NODES,
    POD_LOAD_REQUESTS,
    PODS_PER_NODE,
    SWAP_LIMIT_BYTES,
)

# Rows of the fields, in the order of the observation vector.
CPU, MEMORY, LATENCY, SWAP, NODES, LOAD_MEAN, THROUGHPUT, NUM_FIELDS = range(8)
LOAD_SCALE, THROUGHPUT_SCALE = 5000.0, 1000.0
_BASE_MEMORY_BYTES, _BYTES_PER_REQUEST = 80e6, 0.3e6
_BASE_CPU, _CPU_PER_LOAD, _BASE_LATENCY_SECONDS = 0.2, 0.8, 0.2
# numpy compares with an array of no dimensions faster than with a Python number.
ZERO, ONE = np.array(0.0), np.array(1.0)
_MAX_LATENCY, _MEMORY_LIMIT, _SWAP_LIMIT = (np.array(v) for v in (MAX_LATENCY_SECONDS, MEMORY_LIMIT_BYTES, SWAP_LIMIT_BYTES))


def measure(
    load: NDArray[np.float64],
    ready: NDArray[np.float64],
    cpu_noise: NDArray[np.float64] | float = 0.0,
    memory_noise: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """What monitoring shows while `ready` pods carry a load.

    Args:
        load: (n,) requests.
        ready: (n,) pods.
        cpu_noise: (n,) share added to the CPU.
        memory_noise: (n,) bytes added to a pod's memory.

    Returns:
        (NUM_FIELDS, n) fields; NODES and LOAD_MEAN are left to the caller, who knows the end of the step and the past.
    """
    fields = np.empty((NUM_FIELDS, len(ready)))
    capacity = POD_LOAD_REQUESTS * ready
    per_capacity = load / capacity
    np.minimum(load, capacity, out=capacity)
    np.divide(capacity, THROUGHPUT_SCALE, out=fields[THROUGHPUT])

    cpu = np.multiply(per_capacity, _CPU_PER_LOAD, out=fields[CPU])
    cpu += _BASE_CPU
    cpu += cpu_noise
    np.minimum(cpu, ONE, out=cpu)
    np.maximum(cpu, ZERO, out=cpu)

    latency = np.multiply(per_capacity, per_capacity, out=fields[LATENCY])
    latency += _BASE_LATENCY_SECONDS
    np.minimum(latency, _MAX_LATENCY, out=latency)

    memory_bytes = _BYTES_PER_REQUEST * load
    memory_bytes /= ready
    memory_bytes += _BASE_MEMORY_BYTES
    memory_bytes += memory_noise
    memory = np.minimum(memory_bytes, _MEMORY_LIMIT, out=fields[MEMORY])
    np.maximum(memory, ZERO, out=memory)
    memory /= MEMORY_LIMIT_BYTES
    memory_bytes -= MEMORY_LIMIT_BYTES
    np.minimum(memory_bytes, _SWAP_LIMIT, out=memory_bytes)
    np.maximum(memory_bytes, ZERO, out=memory_bytes)
    np.divide(memory_bytes, SWAP_LIMIT_BYTES, out=fields[SWAP])
    return fields


def node_share(ready: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nodes that `ready` pods fill or begin to fill, as a share of `NUM_NODES`."""
    share: NDArray[np.float64] = np.ceil(ready / PODS_PER_NODE) / NUM_NODES
    return share
