"""The tasks of an episode: when each arrives and how long it takes, drawn whole or given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.function_workflow.params import MEAN_SERVICE_SECONDS
from scalepilot_envs.streams import Streams
from scalepilot_envs.workloads import PhasesWorkload

Array = NDArray[np.float64]
KINDS: Final = ("arrivals", "services", "phase_shuffle")
GAMMA_SHAPE, SERVICE_SECONDS = 4.0, (0.05, 15.0)
# Shorter services could end in the very instant they begin, by rounding.
LEAST_SERVICE_SECONDS = 1e-6
# The cumulative rate is tabulated at this distance and linear in between.
_GRID_SECONDS = 0.02
_MAX_PROGRAMMES = 64


class ArrivalTable:
    """The expected number of arrivals by time, and its inverse.

    Args:
        workload: its rate at any time.
        order: of its phases.
        until_seconds: end of the table.
    """

    def __init__(self, workload: PhasesWorkload, order: NDArray[np.int64], until_seconds: float) -> None:
        cells = max(1, math.ceil(until_seconds / _GRID_SECONDS))
        self.seconds = np.linspace(0.0, until_seconds, cells + 1)
        middle = (self.seconds[1:] + self.seconds[:-1]) / 2
        self.expected = np.concatenate([[0.0], np.cumsum(workload.rate_at(middle, order) * np.diff(self.seconds))])

    def times(self, unit_times: Array) -> Array:
        """Arrival times of a process of rate one, made those of this one; infinite after its end.

        Source:
            time change of a Poisson process, e.g. Çinlar, Introduction to Stochastic Processes (1975), 4.7.
        """
        return np.interp(unit_times, self.expected, self.seconds, right=np.inf)


class Tasks:
    """The tasks of `num_envs` episodes.

    Args:
        num_envs: environments.
        workload: phases and their rate.
        phase_shuffle: draw another order of the phases each episode.
        step_seconds: length of a step.
        episode_steps: steps of an episode; tasks arrive until its end.

    Attributes:
        arrival_seconds: (num_envs, longest list + 1), ascending, infinite after the last task.
        service_seconds: the same shape.
        count: (num_envs,) tasks.
        arrived: (num_envs, episode_steps + 1) tasks arrived by the end of each step; column 0 is the start.
    """

    def __init__(
        self, num_envs: int, workload: PhasesWorkload, phase_shuffle: bool, step_seconds: float, episode_steps: int
    ) -> None:
        self.num_envs, self.workload, self.phase_shuffle = num_envs, workload, phase_shuffle
        self._edges = np.arange(episode_steps + 1) * step_seconds
        self._until = min(float(self._edges[-1]), workload.duration_seconds)
        self._tables: dict[bytes, ArrivalTable] = {}
        self._order = workload.order()
        self._streams = Streams(KINDS)
        most = max(phase.high for phase in workload.phases) * workload.base_requests_per_minute / 60 * self._until
        if not phase_shuffle:
            most = float(self._table(self._order).expected[-1])
        # Every episode draws as many numbers, ten standard deviations more than it needs, so none shifts the next.
        self._drawn = math.ceil(most + 10 * math.sqrt(most)) + 20
        self.arrival_seconds = np.full((num_envs, self._drawn + 1), np.inf)
        self.service_seconds = np.ones((num_envs, self._drawn + 1))
        self.count = np.zeros(num_envs, dtype=np.int64)
        self.arrived = np.zeros((num_envs, episode_steps + 1), dtype=np.int64)

    def seed(self, seeds: Sequence[int | None]) -> None:
        """New streams for environment i from `seeds[i]`; None keeps its own."""
        self._streams.seed(seeds)

    def draw(self, rows: NDArray[np.int64]) -> None:
        """New tasks for environments `rows`: Poisson arrivals, services Gamma distributed with mean 1.5 s, clipped."""
        order, low_high = self._order, SERVICE_SECONDS
        for i in rows.tolist():
            unit_times = self._streams.of("arrivals", i).standard_exponential(self._drawn)
            if self.phase_shuffle:
                order = self._streams.of("phase_shuffle", i).permutation(len(self.workload.phases))
            times = self._table(order).times(np.cumsum(unit_times, out=unit_times))
            services = self._streams.of("services", i).standard_gamma(GAMMA_SHAPE, self._drawn)
            services *= MEAN_SERVICE_SECONDS / GAMMA_SHAPE
            self._set(i, times, np.minimum(np.maximum(services, low_high[0]), low_high[1]))

    def inject(self, rows: NDArray[np.int64], tasks: Sequence[Array]) -> None:
        """Given tasks for environments `rows`; `tasks` holds a (k, 2) array for each environment of the batch."""
        longest = max(len(tasks[i]) for i in rows.tolist())
        missing = longest + 1 - self.arrival_seconds.shape[1]
        if missing > 0:
            self.arrival_seconds = np.pad(self.arrival_seconds, ((0, 0), (0, missing)), constant_values=np.inf)
            self.service_seconds = np.pad(self.service_seconds, ((0, 0), (0, missing)), constant_values=1.0)
        for i in rows.tolist():
            self._set(i, tasks[i][:, 0], tasks[i][:, 1])

    def _set(self, i: int, times: Array, services: Array) -> None:
        self.arrival_seconds[i, : len(times)] = times
        self.arrival_seconds[i, len(times) :] = np.inf
        self.service_seconds[i, : len(services)] = services
        self.count[i] = times.searchsorted(np.inf)
        self.arrived[i] = times.searchsorted(self._edges, side="right")

    def _table(self, order: NDArray[np.int64]) -> ArrivalTable:
        key = order.tobytes()
        if key not in self._tables:
            if len(self._tables) >= _MAX_PROGRAMMES:
                self._tables.clear()
            self._tables[key] = ArrivalTable(self.workload, order, self._until)
        return self._tables[key]


def checked_tasks(tasks: Any, num_envs: int) -> list[Array]:
    """What `reset(options={"tasks": …})` was given, an array of (arrival, service) pairs an environment.

    Raises:
        ValueError: another number of lists, no pairs, a value that is not allowed, or arrivals out of order.
    """
    allowed = f"{num_envs} lists of (arrival_seconds, service_seconds) pairs"
    # A single environment may give its list as it is: then the first entry is a pair of numbers, not a list of pairs.
    if num_envs == 1 and len(tasks) and np.ndim(tasks[0]) == 1 and np.size(tasks[0]) == 2:
        tasks = [tasks]
    if len(tasks) != num_envs:
        raise ValueError(f"options.tasks: {len(tasks)} lists are not allowed; allowed: {allowed}")
    checked = []
    for i, given in enumerate(tasks):
        values = np.asarray(given, dtype=np.float64)
        where = f"options.tasks[{i}]"
        if values.ndim != 2 or values.shape[1] != 2 or not len(values):
            raise ValueError(f"{where}: shape {values.shape} is not allowed; allowed: (tasks, 2), one task at least")
        if not np.isfinite(values).all() or (values[:, 0] < 0).any() or (values[:, 1] < LEAST_SERVICE_SECONDS).any():
            raise ValueError(
                f"{where}: holds a value that is not allowed; allowed: finite arrivals from 0, finite services from"
                f" {LEAST_SERVICE_SECONDS:g} s"
            )
        if (np.diff(values[:, 0]) < 0).any():
            raise ValueError(f"{where}: arrivals are out of order; allowed: ascending")
        checked.append(values)
    return checked
