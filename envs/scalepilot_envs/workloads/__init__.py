"""Workloads: a seeded description → request rates. One dictionary, kind → description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from scalepilot_envs.workloads.diurnal import DiurnalWorkload, LoadEvent
from scalepilot_envs.workloads.drawn import DrawnWorkload
from scalepilot_envs.workloads.draws import PoissonWorkload, RandomWalkWorkload, RandomWorkload
from scalepilot_envs.workloads.markov import MarkovWorkload
from scalepilot_envs.workloads.mixture import Component, MixtureWorkload, SimpleWorkload, kinds_of, reseeded, workload_of
from scalepilot_envs.workloads.patterns import Cycle, SineCurveWorkload, SinusoidalWorkload, SpikeWorkload, SteadyWorkload
from scalepilot_envs.workloads.phases import Phase, PhasesWorkload
from scalepilot_envs.workloads.pool import Member, PoolWorkload, RatePool
from scalepilot_envs.workloads.series import PARTS, Part, RateSeries
from scalepilot_envs.workloads.trace import TraceWorkload
from scalepilot_envs.workloads.traces import (
    Imported,
    Said,
    TraceError,
    import_trace,
    read_csv,
    read_trace,
    trace_notes,
    write_trace,
)

__all__ = [
    "PARTS",
    "WORKLOADS",
    "AnyWorkload",
    "Component",
    "Cycle",
    "DiurnalWorkload",
    "DrawnWorkload",
    "Imported",
    "LoadEvent",
    "MarkovWorkload",
    "Member",
    "MixtureWorkload",
    "Part",
    "Phase",
    "PhasesWorkload",
    "PoissonWorkload",
    "PoolWorkload",
    "RandomWalkWorkload",
    "RandomWorkload",
    "RatePool",
    "RateSeries",
    "Said",
    "SineCurveWorkload",
    "SinusoidalWorkload",
    "SpikeWorkload",
    "SteadyWorkload",
    "TraceError",
    "TraceWorkload",
    "Workload",
    "import_trace",
    "part_of",
    "pool_of",
    "read_csv",
    "read_trace",
    "reseeded",
    "trace_notes",
    "workload_from_mapping",
    "write_trace",
]


@runtime_checkable
class Workload(Protocol):
    """A description that yields the same series whenever it is asked."""

    @property
    def kind(self) -> str:
        """Its key in WORKLOADS."""
        ...

    def series(self) -> RateSeries:
        """The whole series on its own grid."""
        ...


AnyWorkload = SimpleWorkload | MixtureWorkload | PoolWorkload
WORKLOADS: dict[str, type[AnyWorkload]] = kinds_of(AnyWorkload)


def workload_from_mapping(description: Workload | Mapping[str, Any]) -> Workload:
    """Build a workload from {"kind": …, …}; a workload passes through.

    Raises:
        ValueError: unknown kind or key, with the nearest allowed one, or a value the kind refuses.
    """
    if not isinstance(description, Mapping):
        return description
    workload: Workload = workload_of(description, WORKLOADS)
    return workload


def pool_of(workload: Workload | RateSeries, part: Part, interval_seconds: float) -> RatePool:
    """The part of every member of a pool; of any other workload, of itself alone.

    Args:
        workload: a description, or a series that is taken as it is.
        part: of the time.
        interval_seconds: the environment's grid.

    Raises:
        ValueError: a member that cannot be read, by its place.
    """
    if isinstance(workload, RateSeries):
        return RatePool.of(workload)
    if isinstance(workload, PoolWorkload):
        return workload.pool(interval_seconds).part(part)
    return RatePool.of(part_of(workload, part, interval_seconds))


def part_of(workload: Workload, part: Part, interval_seconds: float) -> RateSeries:
    """The part of a workload on the environment's grid: resample first, then split by time (protocol v1)."""
    series = workload.series()
    if series.interval_seconds != interval_seconds:
        series = series.resampled(interval_seconds)
    return series.part(part)
