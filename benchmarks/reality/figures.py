"""Simulator and cluster side by side, as plain figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reality.replay import BEFORE, NOW, OTHER_STARTUPS, VARIANTS, Replayed, replay
from benchmarks.reality.study import CONDITIONS, Study, read_study

Array = NDArray[np.float64]
FIGURES = ("replica_seconds", "late_seconds", "p99_ms", "failed")
# What the study itself concludes from: one condition less another.
DIFFERENCES = (
    ("spike: missed", "spike: false peak"),
    ("spike: 10 s late", "spike: 10 s early"),
    ("sustained: 30 s shorter", "sustained: 30 s longer"),
    ("spike: missed, reactive", "spike: missed"),
)


class Compared:
    """The study and its replays.

    Args:
        folder: the study's data.

    Attributes:
        study: what the cluster did.
        replays: variant of the simulator → each of `CONDITIONS`.
        others: the newest variant with other start-up times.
    """

    def __init__(self, folder: Path) -> None:
        self.study: Study = read_study(folder)
        self.replays: dict[str, list[Replayed]] = {name: replay(self.study, p) for name, p in VARIANTS.items()}
        self.others = [replay(self.study, replace(VARIANTS[NOW], startup_seconds=s)) for s in OTHER_STARTUPS]

    def simulated(self, variant: str, figure: str) -> Array:
        """(conditions,) figures."""
        return np.array([getattr(r, figure) for r in self.replays[variant]], dtype=np.float64)

    def range(self, index: int, figure: str) -> tuple[float, float]:
        """Least and most of a condition over the start-up times."""
        values = [float(getattr(r[index], figure)) for r in (self.replays[NOW], *self.others)]
        return min(values), max(values)

    def cluster(self, figure: str) -> Array:
        """(conditions,) means over the runs."""
        return np.array([getattr(r, figure).mean() for r in self.study.recorded])

    @property
    def requests(self) -> Array:
        """(conditions,) of a run."""
        return np.array([self.study.rates_rps[c.workload].sum() for c in CONDITIONS])

    def summary(self) -> dict[str, Any]:
        """For each condition what the cluster did (mean, least and most of the runs), and each variant of the simulator."""
        rows: dict[str, Any] = {}
        for i, condition in enumerate(CONDITIONS):
            recorded = self.study.recorded[i]
            own = {f: getattr(recorded, f) for f in FIGURES}
            rows[condition.label] = {
                "cluster": {"runs": len(recorded.p99_ms)}
                | {f: [round(float(v), 2) for v in (x.mean(), x.min(), x.max())] for f, x in own.items()},
                **{name: {f: round(float(getattr(r[i], f)), 2) for f in FIGURES} for name, r in self.replays.items()},
            }
        return {"conditions": rows, "mean_absolute_error": self.errors()}

    def errors(self) -> dict[str, dict[str, float]]:
        """Each variant's mean absolute difference from the cluster over the conditions."""
        return {
            name: {f: round(float(np.abs(self.simulated(name, f) - self.cluster(f)).mean()), 2) for f in FIGURES}
            for name in VARIANTS
        }

    def difference(self, more: str, less: str, figure: str, variant: str | None) -> float:
        """Of two conditions by label; of the cluster without a variant."""
        labels = [c.label for c in CONDITIONS]
        values = self.cluster(figure) if variant is None else self.simulated(variant, figure)
        return float(values[labels.index(more)] - values[labels.index(less)])


__all__ = ["BEFORE", "DIFFERENCES", "FIGURES", "NOW", "Compared"]
