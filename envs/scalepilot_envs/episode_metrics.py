"""What an episode was like, in numbers: how they come from the infos of its steps, and an accumulator over a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Reduction = Literal["mean", "sum", "max", "last", "changes", "unchanged"]
METADATA_KEY = "episode_metrics"

# Name → unit, meaning, environments. The names are columns of every run: one more needs a line here.
MEANINGS: dict[str, tuple[str, str, str]] = {
    "late_share": ("share", "of the requests of an episode, those that waited too long", "Autoscale-v0"),
    "dropped_requests": ("requests", "dropped in an episode", "Autoscale-v0"),
    "moves": ("steps", "of an episode that changed the number of replicas", "all but GridWorld-v0"),
    "no_ops": ("steps", "of an episode that left it as it was", "all but GridWorld-v0"),
    "replicas": ("replicas", "(instances, workers, pods) on average over an episode", "all but GridWorld-v0"),
    "peak_replicas": ("replicas", "most in an episode", "all but GridWorld-v0"),
    "queue_requests": ("requests", "waiting on average over an episode", "QueueScaling-v0, FunctionWorkflow-v0"),
    "unfinished_requests": ("requests", "not served when an episode ends", "Autoscale-v0, QueueScaling-v0, FunctionWorkflow-v0"),
    "on_time_share": ("share", "of the tasks of an episode, those finished by their deadline", "FunctionWorkflow-v0"),
    "in_band_share": ("share", "of the steps of an episode, those with CPU and memory in the band", "ResourceManager-v0"),
    "refused_changes": ("steps", "of an episode whose change a bound refused", "QueueScaling-v0"),
    "failed_writes": ("steps", "of an episode whose change of replicas failed or was refused", "LiveScaling-v0"),
    "overloaded_steps": ("steps", "of overload at the end of an episode, in a row", "ClusterDeployment-v0"),
}
# Columns of the infos that lie between 0 and 1, and so do their means.
SHARE_COLUMNS = frozenset({"in_band", "qos", "final_qos"})


@dataclass(frozen=True)
class EpisodeMetric:
    """How a number of an episode comes from its steps.

    Attributes:
        column: of the steps' infos.
        reduction: mean, sum or max over the steps, last; changes counts steps where it is not 0, unchanged those where it is.
        per: another column, by whose sum the sum is divided (0 where that is 0).
    """

    column: str
    reduction: Reduction = "mean"
    per: str | None = None


def of_moves(change: str, replicas: str) -> dict[str, EpisodeMetric]:
    """What every scaling environment has.

    Args:
        change: column of the change in replicas.
        replicas: column of their number.
    """
    return {
        "moves": EpisodeMetric(change, "changes"),
        "no_ops": EpisodeMetric(change, "unchanged"),
        "replicas": EpisodeMetric(replicas),
        "peak_replicas": EpisodeMetric(replicas, "max"),
    }


class EpisodeMeter:
    """Follows the episodes of a vector environment and keeps the means over those that ended.

    Args:
        envs: its `metadata["episode_metrics"]` names the metrics; none cost nothing.
    """

    def __init__(self, envs: Any) -> None:
        metrics: Mapping[str, EpisodeMetric] = envs.metadata.get(METADATA_KEY, {})
        self._metrics = {name: metric for name, metric in metrics.items() if name in MEANINGS}
        self._num_envs = int(envs.num_envs)
        self._summed = sorted(
            {m.column for m in self._metrics.values() if m.reduction in ("mean", "sum")}
            | {m.per for m in self._metrics.values() if m.per is not None}
        )
        self._most = sorted({m.column for m in self._metrics.values() if m.reduction == "max"})
        self._changed = sorted({m.column for m in self._metrics.values() if m.reduction in ("changes", "unchanged")})
        self._columns = sorted({m.column for m in self._metrics.values()} | set(self._summed))
        self._ended: dict[str, list[Array]] = {}
        self.restart()

    def restart(self) -> None:
        """Every environment begins an episode."""
        self._sums, self._largest, self._changes = (
            {name: np.zeros(self._num_envs) for name in names} for names in (self._summed, self._most, self._changed)
        )

    def step(self, info: Mapping[str, Any], lengths: NDArray[np.int64], ended: NDArray[np.bool_]) -> None:
        """Follow a step.

        Args:
            info: of the step, columns (num_envs,) with 0 where the step only reset, those of SAME_STEP's ends in "final_info";
                empty where the step failed, which then ended no episode.
            lengths: (num_envs,) steps of each episode, this one included.
            ended: (num_envs,) which episodes end with it.
        """
        if not self._metrics or not info:
            return
        if "final_info" in info:
            info = {name: info[name] + info["final_info"][name] for name in self._columns}
        for name, total in self._sums.items():
            total += info[name]
        for name, largest in self._largest.items():
            np.maximum(largest, info[name], out=largest)
        for name, count in self._changes.items():
            count += info[name] != 0
        if not np.count_nonzero(ended):
            return
        rows = ended.nonzero()[0]
        for name, metric in self._metrics.items():
            self._ended.setdefault(name, []).append(self._value(metric, info, lengths, rows))
        self.forget(rows)

    def forget(self, rows: NDArray[Any]) -> None:
        """Begin an episode in some environments (indices or a mask), whatever became of the one before."""
        for columns in (self._sums, self._largest, self._changes):
            for column in columns.values():
                column[rows] = 0.0

    def _value(self, metric: EpisodeMetric, info: Mapping[str, Any], lengths: NDArray[np.int64], rows: NDArray[np.intp]) -> Array:
        if metric.reduction == "last":
            return np.asarray(info[metric.column][rows], dtype=np.float64)
        if metric.reduction == "max":
            return self._largest[metric.column][rows]
        if metric.reduction == "changes":
            return self._changes[metric.column][rows]
        if metric.reduction == "unchanged":
            unchanged: Array = lengths[rows] - self._changes[metric.column][rows]
            return unchanged
        total = self._sums[metric.column][rows]
        if metric.per is not None:
            other = self._sums[metric.per][rows]
            return np.divide(total, other, out=np.zeros_like(total), where=other > 0)
        return total / lengths[rows] if metric.reduction == "mean" else total

    def take(self) -> dict[str, Array]:
        """Name → (n,) a value an episode that ended since the last call; empty when none did."""
        taken = {name: np.concatenate(values) for name, values in self._ended.items()}
        self._ended = {}
        return taken
