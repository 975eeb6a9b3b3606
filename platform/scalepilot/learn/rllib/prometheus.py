"""A run's metrics for Prometheus, through the metrics port of the Ray node that trains."""

from __future__ import annotations

from dataclasses import dataclass

from ray.util.metrics import Gauge

from scalepilot.learn.callbacks import Callback, PolicyNow, Row
from scalepilot.runs.metrics import TABLE, Metric

# Ray puts `ray_` in front.
PREFIX = "scalepilot_train_"
RUNNING = f"{PREFIX}running"
LABELS = ("run", "experiment", "algorithm")
# Prometheus counts in base units.
_BASE_UNITS = {"%": ("_percent", "_ratio", 0.01), "MB": ("_megabytes", "_bytes", 1e6)}
# A row has those of its iteration; a scrape may miss a row, so their sum is shown.
_SUMMED = frozenset({"env_runner_restarts", "env_failures", "lost_rollouts", "learner_restarts"})


@dataclass(frozen=True)
class Series:
    """What Prometheus is told of one documented metric.

    Attributes:
        name: without `ray_`.
        factor: from the documented unit to the base unit.
        summed: the sum of the rows so far, not the last one's.
        description: with its unit.
    """

    name: str
    factor: float
    summed: bool
    description: str


def series_of(metric: Metric) -> Series:
    """A documented metric under Prometheus' conventions."""
    suffix, base_suffix, factor = _BASE_UNITS.get(metric.unit, ("", "", 1.0))
    # Ray exports every name in lower case.
    name = f"{PREFIX}{metric.name.removesuffix(suffix)}{base_suffix}".lower()
    summed = metric.name in _SUMMED
    meaning = metric.meaning.replace("in this iteration", "so far").replace(", since the last row", "")
    return Series(name, factor, summed, meaning if summed else f"{metric.meaning} ({metric.unit} in progress.csv)")


SERIES = {metric.name: series_of(metric) for metric in TABLE}


class RayMetrics(Callback):
    """Sets a gauge of Ray for every documented metric; one not measured keeps its last value, or is absent.

    Sums are gauges, too: Ray's counter cannot be shown at 0, and what first appears at 1 has not increased for Prometheus.

    Args:
        run: id of the run.
        experiment: name in its config.
        algorithm: likewise.
    """

    def __init__(self, run: str, experiment: str, algorithm: str) -> None:
        self._labels = dict(zip(LABELS, (run, experiment, algorithm), strict=True))
        self._gauges: dict[str, Gauge] = {}
        self._sums = dict.fromkeys(sorted(_SUMMED), 0.0)

    def on_begin(self, env_steps: int) -> None:
        """Show that training runs, and every sum at what it is."""
        self._set(RUNNING, "1 while the run trains, 0 while it is evaluated and reported", 1.0)
        for name, value in self._sums.items():
            self._show(name, value)

    def on_iteration(self, row: Row, policy: PolicyNow) -> None:
        """Show a row."""
        for name, value in row.items():
            if value is None:
                continue
            if name in self._sums:
                self._sums[name] += value
                value = self._sums[name]
            self._show(name, value)

    def on_end(self, finished: bool) -> None:
        """Show that training has ended; the last values stay until the process ends."""
        self._set(RUNNING, "", 0.0)

    def _show(self, metric: str, value: float) -> None:
        # A column that is not documented is an environment's own, the mean over its episodes.
        series = SERIES.get(metric) or series_of(Metric(metric, "1", "of the training episodes"))
        self._set(series.name, series.description, value * series.factor)

    def _set(self, name: str, description: str, value: float) -> None:
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(name, description=description, tag_keys=LABELS)
            gauge.set_default_tags(self._labels)
        gauge.set(value)
