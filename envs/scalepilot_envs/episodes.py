"""The time of a batch's episodes, and random numbers drawn for many of them at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.streams import Streams

Draw = Callable[[np.random.Generator, int], NDArray[Any]]


class EpisodeClock:
    """Steps since each environment's reset.

    Args:
        num_envs: environments.
        episode_steps: steps until truncation.

    Environments of a batch mostly start together; knowing it makes a row of a table a view instead of a gather.
    """

    def __init__(self, num_envs: int, episode_steps: int) -> None:
        self.episode_steps = episode_steps
        self._common: int | None = 0
        # Of use only where there is no common step. Operands as whole arrays: numpy is slower at turning a plain number into
        # one than at adding a thousand.
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._one, self._limit = np.ones_like(self._steps), np.full_like(self._steps, episode_steps)
        self._columns = np.arange(num_envs)

    @property
    def step_index(self) -> NDArray[np.int64]:
        """(num_envs,) steps taken."""
        return self._steps if self._common is None else np.full_like(self._steps, self._common)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Start environments `rows` again, rising indices."""
        if len(rows) == len(self._steps):
            self._common = 0
            return
        self._steps, self._common = self.step_index, None
        self._steps[rows] = 0

    def advance(self) -> NDArray[np.bool_]:
        """One step on.

        Returns:
            (num_envs,) whether the time limit is reached.
        """
        if self._common is None:
            self._steps += self._one
            return self._steps >= self._limit
        self._common += 1
        running = np.zeros(len(self._steps), dtype=np.bool_)
        return ~running if self._common >= self.episode_steps else running

    def of(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values of this step, row `step_index` of a table.

        Args:
            table: (rows, num_envs), or (rows,) for all environments.

        Returns:
            (num_envs,) an array of its own. An ended episode, which may be stepped once more before its reset, sees the
            last row again.
        """
        last = len(table) - 1
        if self._common is not None:
            row = table[min(self._common, last)]
            values = np.empty(len(self._columns))
            values[:] = row
            return values
        if table.ndim == 1:
            return table.take(self._steps, mode="clip")
        # One flat index gathers twice as fast as a row and a column.
        return table.ravel().take(np.minimum(self._steps, last) * len(self._columns) + self._columns)


class EpisodeDraws:
    """Random numbers of each environment, drawn for many episodes in one call of its generator.

    A batch that resets together would otherwise spend more time in calls of its generators than in its steps.

    Args:
        streams: the batch's generators.
        kind: which of them.
        num_envs: environments.
        num_values: numbers of an episode.
        draw: (generator, count) → (count,) numbers; drawing a and then b must give what drawing a + b gives.
        dtype: of the numbers.
    """

    # A long enough block to make the call cheap, a short enough one to keep a large batch's small.
    _MAX_EPISODES, _BLOCK_VALUES, _BATCH_VALUES = 64, 2048, 1 << 24

    def __init__(
        self, streams: Streams, kind: str, num_envs: int, num_values: int, draw: Draw, dtype: type[np.generic] = np.float64
    ) -> None:
        self._streams, self._kind, self._draw = streams, kind, draw
        block = min(self._BLOCK_VALUES, self._BATCH_VALUES // num_envs)
        self._episodes = min(self._MAX_EPISODES, max(1, block // num_values))
        self._values = np.zeros((num_envs, self._episodes, num_values), dtype=dtype)
        self._used = np.full(num_envs, self._episodes)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Drop what is left of environments `rows`: they were seeded anew."""
        self._used[rows] = self._episodes

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(len(rows), num_values): the next episode's numbers of each environment in `rows`."""
        dry = rows[self._used[rows] == self._episodes]
        for i in dry.tolist():
            self._values[i].reshape(-1)[:] = self._draw(self._streams.of(self._kind, i), self._values[i].size)
        self._used[dry] = 0
        taken: NDArray[Any] = self._values[rows, self._used[rows]]
        self._used[rows] += 1
        return taken


def write_columns(table: NDArray[np.float64], rows: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """Put the values of some environments into a table by step.

    Args:
        table: (num_steps, num_envs).
        rows: rising indices of environments.
        values: (len(rows), num_steps).
    """
    if len(rows) == table.shape[1]:
        # All of them: ten times as fast as by index.
        table[:] = values.T
    else:
        table[:, rows] = values.T


def uniform(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count,) numbers in [0, 1)."""
    return generator.random(count)


def integers(generator: np.random.Generator, count: int, high: int) -> NDArray[np.int64]:
    """(count,) whole numbers in [0, high)."""
    return generator.integers(0, high, count)
