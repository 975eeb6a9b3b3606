"""Recorded workloads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from scalepilot_envs.workloads.checks import Peak, Positive, check_choice, check_declared
from scalepilot_envs.workloads.series import RateSeries
from scalepilot_envs.workloads.traces import COUNTER_RESETS, GAPS, Said, import_trace


@dataclass(frozen=True)
class TraceWorkload:
    """Request rates from a file that says itself what it is, of any kind that `scalepilot workload import` reads.

    The plainest is a CSV or Parquet file with the columns `timestamp` (ISO-8601, the start of the interval; without a zone it is
    UTC) and `requests_per_second`, or `requests_total` for a rising counter.

    Attributes:
        path: the file.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the recorded rates.
        gaps: what to do where rows are missing on the grid: refuse ("error"), interpolate ("linear") or repeat the
            last value ("previous"), or take them as no requests ("zero").
        interval_seconds: average into intervals of this length while reading, a multiple of the recorded grid; None
            keeps that grid.
        counter_resets: where `requests_total` falls: refuse ("error"), or take it as counted from zero, as Prometheus
            does ("restart").
    """

    kind: Literal["trace"] = "trace"
    path: str = ""
    peak_rps: Peak | None = None
    gaps: Literal["error", "linear", "previous", "zero"] = "error"
    interval_seconds: Positive | None = None
    counter_resets: Literal["error", "restart"] = "error"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.path or not isinstance(self.path, str):
            raise ValueError("workload.path: is empty; allowed: a CSV file with the columns timestamp,requests_per_second")
        check_declared(self)
        check_choice(self, "gaps", GAPS)
        check_choice(self, "counter_resets", COUNTER_RESETS)

    def series(self) -> RateSeries:
        """The recorded series on its own grid, or on that of `interval_seconds`.

        Raises:
            TraceError: see `import_trace`; also where only the numbers say what they are: such a file is imported first.
        """
        said = Said(
            gaps=self.gaps,
            interval_seconds=self.interval_seconds,
            counter_resets=self.counter_resets,
            scale_free=self.peak_rps is not None,
            asked=False,
        )
        series = import_trace(Path(self.path), said).series
        return series if self.peak_rps is None else series.scaled_to_peak(self.peak_rps, in_place=True)
