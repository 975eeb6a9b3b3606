"""Recorded workloads on disk: recognised, read as a stream, and written."""

from scalepilot_envs.workloads.traces.assemble import Imported
from scalepilot_envs.workloads.traces.meaning import UNITS
from scalepilot_envs.workloads.traces.means import MAX_POINTS
from scalepilot_envs.workloads.traces.parsed import Said
from scalepilot_envs.workloads.traces.read import import_trace, read_csv, read_trace
from scalepilot_envs.workloads.traces.rows import COUNTER_RESETS, GAPS, CounterResets, Gaps, TraceError
from scalepilot_envs.workloads.traces.write import trace_notes, write_trace

__all__ = [
    "COUNTER_RESETS",
    "GAPS",
    "MAX_POINTS",
    "UNITS",
    "CounterResets",
    "Gaps",
    "Imported",
    "Said",
    "TraceError",
    "import_trace",
    "read_csv",
    "read_trace",
    "trace_notes",
    "write_trace",
]
