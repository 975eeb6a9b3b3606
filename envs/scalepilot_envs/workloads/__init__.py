"""Workloads: a seeded description → request rates. One dictionary, kind → description."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

from scalepilot_envs.workloads.diurnal import DiurnalWorkload
from scalepilot_envs.workloads.series import PARTS, Part, RateSeries
from scalepilot_envs.workloads.trace import TraceError, TraceWorkload, read_csv

__all__ = [
    "PARTS",
    "WORKLOADS",
    "DiurnalWorkload",
    "Part",
    "RateSeries",
    "TraceError",
    "TraceWorkload",
    "Workload",
    "part_of",
    "read_csv",
    "workload_from_mapping",
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


WORKLOADS: dict[str, type[DiurnalWorkload] | type[TraceWorkload]] = {"diurnal": DiurnalWorkload, "trace": TraceWorkload}


def workload_from_mapping(description: Workload | Mapping[str, Any]) -> Workload:
    """Build a workload from {"kind": …, …}; a workload passes through.

    Raises:
        ValueError: unknown kind or key, with the nearest allowed one.
    """
    if not isinstance(description, Mapping):
        return description
    values = dict(description)
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in WORKLOADS:
        near = difflib.get_close_matches(str(kind), WORKLOADS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"workload.kind: {kind!r} is not allowed; allowed: {', '.join(WORKLOADS)}{hint}")
    allowed = [f.name for f in fields(WORKLOADS[kind])]
    for name in values:
        if name not in allowed:
            raise ValueError(f"workload.{name}: unknown key; allowed: {', '.join(allowed)}")
    return WORKLOADS[kind](**values)


def part_of(workload: Workload, part: Part, interval_seconds: float) -> RateSeries:
    """The part of a workload on the environment's grid: resample first, then split by time (protocol v1)."""
    series = workload.series()
    if series.interval_seconds != interval_seconds:
        series = series.resampled(interval_seconds)
    return series.part(part)
