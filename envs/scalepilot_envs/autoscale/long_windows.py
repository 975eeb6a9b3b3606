"""What the last hours were like: mean, highest rate, usual change and steepest rise over a long window and a quarter of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Changes are those over a minute of 15-second intervals: over one interval most of them is the noise of single requests.
CHANGE_STEPS = 4
STATISTICS = ("mean", "max", "change", "rise")
# A quarter of the long window ago, of the moment that is now: the intervals up to it, those that came soon and those after.
# Schedules repeat within the hour, so an hour ago is what is to come now.
LAGGED = ("lagged", "lagged_soon", "lagged_later")
BEFORE_STEPS, SOON_STEPS, LATER_STEPS = 5, 5, 20
_BLOCKS = 4


def long_window_names(num_steps: int) -> list[str]:
    """Fields of `LongWindows.values`, in order; none without a long window."""
    if not num_steps:
        return []
    statistics = [(name, steps) for steps in (num_steps // 4, num_steps) for name in STATISTICS]
    return [f"request_rate_{name}_rps_{steps}" for name, steps in (*statistics, *((name, num_steps // 4) for name in LAGGED))]


class _Sliding:
    """A sum or maximum over exactly the last `num_steps` values, of many services at once.

    The window is kept in blocks whose aggregates are known; of the oldest block, which the newest values overwrite, those of
    what is left of it. So a step costs a few operations instead of one for each value (van Herk 1992).
    """

    def __init__(self, operation: np.ufunc, num_steps: int, num_envs: int) -> None:
        self._operation, self._size = operation, num_steps // _BLOCKS
        self._values = np.zeros((_BLOCKS, self._size, num_envs))
        self._of_block = np.zeros((_BLOCKS, num_envs))
        # Of the block that is being overwritten: what is left from each place on; its last row is that of nothing.
        self._left = np.zeros((self._size + 1, num_envs))
        self._block, self._at = 0, 0
        self._nothing = 0.0 if operation is np.add else -np.inf

    def of(self, columns: NDArray[np.intp]) -> _Sliding:
        """Those of copies of services `columns`, (n,)."""
        copies = copy.copy(self)
        copies._values, copies._of_block, copies._left = (x[..., columns] for x in (self._values, self._of_block, self._left))
        return copies

    def fill(self, mask: NDArray[np.bool_], newest_last: Array) -> None:
        """(num_steps, num) values of the services where `mask` is true, the oldest first."""
        # The oldest stands where the next will be written.
        first = self._block * self._size + self._at
        flat = self._values.reshape(-1, self._values.shape[-1])
        flat[:, mask] = np.roll(newest_last, first, axis=0)
        self._of_block[:, mask] = _all_of(self._operation, self._values[:, :, mask], axis=1)
        self._prepare(mask)
        if self._at:
            self._of_block[self._block, mask] = _all_of(self._operation, self._values[self._block, : self._at][:, mask])

    def _prepare(self, mask: Any = slice(None)) -> None:
        old = self._values[self._block][:, mask]
        self._left[-1, mask] = self._nothing
        self._left[:-1, mask] = self._operation.accumulate(old[::-1], axis=0)[::-1]

    def add(self, values: Array) -> Array:
        """Take the newest (num_envs,) and give the aggregate of the window."""
        if self._at == 0:
            self._prepare()
            self._of_block[self._block] = values
        else:
            self._of_block[self._block] = self._operation(self._of_block[self._block], values)
        self._values[self._block, self._at] = values
        self._at += 1
        found = self._operation(self._operation.reduce(self._of_block, axis=0), self._left[self._at])
        if self._at == self._size:
            self._block, self._at = (self._block + 1) % _BLOCKS, 0
        return np.asarray(found, dtype=np.float64)


def _all_of(operation: np.ufunc, values: Array, axis: int = 0) -> Array:
    """One after the other: numpy's own sum of a single column is pairwise, and a batch of one must round like any other."""
    found: Array = np.take(operation.accumulate(values, axis=axis), -1, axis=axis)
    return found


class LongWindows:
    """Statistics of the measured rates of `num_envs` services over the last `num_steps` and over a quarter of them.

    Args:
        num_steps: of the longer window, a multiple of 16.
        num_envs: services.

    `values` are of the shorter window, then of the longer one: mean, highest rate, root mean square of the change within four
    intervals and steepest rise within four; then, the shorter window ago, the mean of the five intervals up to that moment and
    the highest rates of the five and twenty behind it. All requests/s.
    """

    def __init__(self, num_steps: int, num_envs: int) -> None:
        self._steps = (num_steps // 4, num_steps)
        self._sliding = [
            {
                "mean": _Sliding(np.add, steps, num_envs),
                "max": _Sliding(np.maximum, steps, num_envs),
                "change": _Sliding(np.add, steps, num_envs),
                "rise": _Sliding(np.maximum, steps, num_envs),
            }
            for steps in self._steps
        ]
        self._recent = np.zeros((CHANGE_STEPS, num_envs))
        self._values = np.zeros((2 * len(STATISTICS) + len(LAGGED), num_envs))
        # Of a fork: the first copy of each service, and whose copy each is.
        self._first: Any = slice(None)
        self._spread: Any = slice(None)
        # The newest rates, one row at least for each that is looked at.
        self._ring = np.zeros((self._steps[0] + BEFORE_STEPS, num_envs))
        self._newest = 0

    def of(self, columns: NDArray[np.intp]) -> LongWindows:
        """Those of copies of services `columns`, (n,)."""
        copies = copy.copy(self)
        # Copies of one service meet the same traffic: one window for all of them.
        own = np.arange(self._values.shape[1])[self._spread][columns]
        kept, copies._first, copies._spread = np.unique(own, return_index=True, return_inverse=True)
        copies._sliding = [{name: one.of(kept) for name, one in sliding.items()} for sliding in self._sliding]
        copies._recent, copies._ring, copies._values = self._recent[:, kept], self._ring[:, kept], self._values[:, kept]
        return copies

    @property
    def values(self) -> Array:
        """(2 × 4 + 3, num_envs), see above."""
        return self._values[:, self._spread]

    def fill(self, mask: NDArray[np.bool_], past_rps: Array) -> None:
        """Begin anew where `mask` is true.

        Args:
            mask: (num_envs,).
            past_rps: (num_past, number of them) measured rates before, the newest last; at least one. What lies before the first
                is taken to be like it.
        """
        most = self._steps[1] + CHANGE_STEPS
        missing = max(0, most - len(past_rps))
        rates = np.concatenate([np.repeat(past_rps[:1], missing, axis=0), past_rps[-most:]])
        self._recent[:, mask] = rates[-CHANGE_STEPS:]
        for row, (steps, sliding) in enumerate(zip(self._steps, self._sliding, strict=True)):
            seen, change = rates[-steps:], rates[-steps:] - rates[-steps - CHANGE_STEPS : -CHANGE_STEPS]
            columns: dict[str, Array] = {"mean": seen, "max": seen, "change": change**2, "rise": np.maximum(change, 0.0)}
            operations = {"mean": np.add, "max": np.maximum, "change": np.add, "rise": np.maximum}
            for i, (name, values) in enumerate(columns.items()):
                sliding[name].fill(mask, values)
                self._values[row * len(STATISTICS) + i, mask] = self._shown(name, _all_of(operations[name], values), steps)
        at = (self._newest - np.arange(len(self._ring))[::-1]) % len(self._ring)
        self._ring[at[:, None], np.flatnonzero(mask)] = rates[-len(self._ring) :]
        self._values[-len(LAGGED) :, mask] = self._lagged()[:, mask]

    def _lagged(self) -> Array:
        back = self._steps[0]

        def rows(first: int, last: int) -> Array:
            """From `first` to `last` intervals before the newest."""
            found: Array = self._ring[(self._newest - np.arange(last, first + 1)) % len(self._ring)]
            return found

        # No more of what came than there is.
        soon, later = (max(0, back - steps) for steps in (SOON_STEPS, LATER_STEPS))
        # Five rows: numpy adds so few one after the other, in a batch of one as in any other.
        before = rows(back + BEFORE_STEPS - 1, back).sum(axis=0) / BEFORE_STEPS
        return np.stack([before, rows(back - 1, soon).max(axis=0), rows(back - 1, later).max(axis=0)])

    def add(self, rate_rps: Array) -> None:
        """Take the newest measured rates, (num_envs,)."""
        rate_rps = rate_rps[self._first]
        self._newest = (self._newest + 1) % len(self._ring)
        self._ring[self._newest] = rate_rps
        self._values[-len(LAGGED) :] = self._lagged()
        change = rate_rps - self._recent[0]
        self._recent[:-1] = self._recent[1:]
        self._recent[-1] = rate_rps
        columns = (rate_rps, rate_rps, change * change, np.maximum(change, 0.0))
        for row, (steps, sliding) in enumerate(zip(self._steps, self._sliding, strict=True)):
            for i, (name, values) in enumerate(zip(STATISTICS, columns, strict=True)):
                self._values[row * len(STATISTICS) + i] = self._shown(name, sliding[name].add(values), steps)

    @staticmethod
    def _shown(name: str, aggregate: Array, steps: int) -> Array:
        if name == "mean":
            return aggregate / steps
        return np.sqrt(aggregate / steps) if name == "change" else aggregate
