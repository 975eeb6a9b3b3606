"""Recorded workloads on disk: read as a stream, a block of rows at a time, and written."""

from scalepilot_envs.workloads.traces.grid import COUNTER_RESETS, GAPS, MAX_POINTS, CounterResets, Gaps, TraceError
from scalepilot_envs.workloads.traces.read import read_csv, read_parquet, read_prometheus, read_trace
from scalepilot_envs.workloads.traces.write import write_trace

__all__ = [
    "COUNTER_RESETS",
    "GAPS",
    "MAX_POINTS",
    "CounterResets",
    "Gaps",
    "TraceError",
    "read_csv",
    "read_parquet",
    "read_prometheus",
    "read_trace",
    "write_trace",
]
