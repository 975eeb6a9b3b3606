"""Actions of any space as an index of a table, or as bounded numbers: a pure function of the space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.adapters.space_parts import LARGEST, bounds_of, element_names, leaves, shape_of, shown
from scalepilot_envs.description import Action, ActionComponent

# Every combination is a row of the action table, and an output of the network.
MAX_COMBINATIONS = 1024
MAX_ACTIONS = 10_000


class FlatActions:
    """Actions of any space as an index of a table, or as bounded numbers.

    Several choices at once (MultiDiscrete, MultiBinary, whole-number Boxes, Dict and Tuple of these) are one table of all their
    combinations, the last choice changing fastest.

    Args:
        space: the environment's.
        words: what it calls its actions, where it is one Discrete and says so.

    Attributes:
        space: Discrete(n), or Box of k bounded numbers.
        actions: the table; each with the action that the environment takes.
        components: the numbers of a continuous action.

    Raises:
        ValueError: naming the part of the space and what is allowed.
    """

    def __init__(self, space: gym.Space[Any], words: Sequence[str] | None = None) -> None:
        self._original = space
        self._parts = list(leaves(space, "", "action"))
        self.actions: tuple[Action, ...] = ()
        self.components: tuple[ActionComponent, ...] = ()
        if not self._parts:
            raise ValueError(f"action is {shown(space)} without a part; allowed: at least one choice")
        kinds = {path: _is_finite(part) for path, part in self._parts}
        bounds = [bounds_of(part, path) for path, part in self._parts]
        low, high = (np.concatenate(side) for side in zip(*bounds, strict=True))
        self._sizes = [len(side) for side, _ in bounds]
        if len(set(kinds.values())) > 1:
            whole, numbers = (next(path for path, finite in kinds.items() if finite is wanted) for wanted in (True, False))
            raise ValueError(
                f"action {whole} is chosen from a list and action {numbers} is a number, which is not allowed together;"
                " allowed: discrete actions or continuous ones"
            )
        if all(kinds.values()):
            self.space: gym.Space[Any] = self._as_table(low, high, words)
        else:
            self.space = self._as_box(low, high)

    def _as_table(self, low: NDArray[np.float64], high: NDArray[np.float64], words: Sequence[str] | None) -> gym.Space[Any]:
        counts = [int(b - a) + 1 if np.isfinite(b - a) else 2**62 for a, b in zip(low, high, strict=True)]
        total = math.prod(counts)
        single = isinstance(self._original, gym.spaces.Discrete)
        most = MAX_ACTIONS if single else MAX_COMBINATIONS
        if total > most:
            path, part = self._parts[0]
            what = shown(part) if len(self._parts) == 1 else f"{len(self._parts)} parts"
            count = f"{total:,}" if total < 10**9 else "over a billion"
            where = path if len(self._parts) == 1 else "action"
            raise ValueError(f"{where} is {what} with {count} combinations; allowed: up to {most:,}")
        self.counts = tuple(counts)
        self._low = low.astype(np.int64)
        if single:
            labels = list(words or [])
            if len(labels) != total or len(set(labels)) != total:
                labels = [str(int(low[0]) + i) for i in range(total)]
            first = int(low[0])
            self.actions = tuple(Action("plain", 0.0, label, first + i if first else None) for i, label in enumerate(labels))
        else:
            self.actions = tuple(
                Action("plain", 0.0, self._label(real), _as_json(real)) for real in (self.real(i) for i in range(total))
            )
        return gym.spaces.Discrete(total)

    def _label(self, real: Any) -> str:
        """A combination for a person: (2, 1), or gear 2, brake 0."""
        values = _parts_of(self._original, real)
        if len(values) == 1:
            return _told(values[0])
        return ", ".join(f"{path} {_told(value)}" for (path, _), value in zip(self._parts, values, strict=True))

    def _as_box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> gym.Space[Any]:
        names = [name for path, part in self._parts for name in element_names(path, shape_of(part))]
        for name, a, b in zip(names, low, high, strict=True):
            if not (np.isfinite(a) and np.isfinite(b) and abs(a) < LARGEST and abs(b) < LARGEST and a < b):
                raise ValueError(
                    f"action: {name} is a number from {a:g} to {b:g}; allowed: finite bounds, the lower one below the upper one"
                )
        self.components = tuple(ActionComponent(n, "1", float(a), float(b)) for n, a, b in zip(names, low, high, strict=True))
        return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), (len(names),), np.float32)

    @property
    def plain(self) -> bool:
        """Whether the environment takes this already."""
        original = self._original
        if isinstance(original, gym.spaces.Discrete):
            return int(original.start) == 0
        return isinstance(original, gym.spaces.Box) and len(original.shape) == 1 and original.dtype == np.float32

    def real(self, action: Any) -> Any:
        """What the environment takes, for an index or for numbers (k,)."""
        flat: NDArray[Any]
        if self.components:
            flat = np.asarray(action, np.float64).ravel()
        else:
            index = int(action)
            if not 0 <= index < math.prod(self.counts):
                raise ValueError(f"action: {index} is not allowed; allowed: 0 to {math.prod(self.counts) - 1}")
            flat = self._low + np.array(np.unravel_index(index, self.counts))
        pieces = iter(np.split(flat, np.cumsum(self._sizes)[:-1]))
        return _rebuilt(self._original, pieces)

    def mask(self, given: Any, where: str) -> NDArray[np.bool_]:
        """(n,) which actions of the table are valid.

        Args:
            given: n truth values; for several choices at once also those of each choice, apart or one behind the other.
            where: it came from, for messages.

        Raises:
            ValueError: of another length, or none where actions are numbers.
        """
        if not self.actions:
            raise ValueError(f"{where}: this environment takes continuous actions; allowed: a mask of discrete actions")
        if isinstance(given, list | tuple) and len(given) == len(self.counts) > 1 and all(np.ndim(part) == 1 for part in given):
            flat = np.concatenate([np.asarray(part) for part in given])
        else:
            flat = np.asarray(given).ravel()
        total = math.prod(self.counts)
        if flat.dtype == object or flat.dtype.kind not in "biuf":
            raise ValueError(f"{where}: {str(given)[:60]!r} is not allowed; allowed: {total} truth values")
        # Sums of numbers of choices are what gymnasium and sb3-contrib use for several at once.
        if len(self.counts) > 1 and len(flat) == sum(self.counts):
            valid = np.ones(1, np.bool_)
            for part in np.split(flat > 0, np.cumsum(self.counts)[:-1]):
                valid = np.logical_and.outer(valid, part).ravel()
            return valid
        if len(flat) != total:
            each = f", or {sum(self.counts)}, those of each choice" if len(self.counts) > 1 else ""
            raise ValueError(f"{where}: {len(flat)} values are not allowed; allowed: {total}, one an action{each}")
        found: NDArray[np.bool_] = flat > 0
        return found


def _is_finite(space: gym.Space[Any]) -> bool:
    """Whether a part is chosen from a list: a Box of whole numbers is one, too."""
    return not (isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating))


def _rebuilt(space: gym.Space[Any], pieces: Iterator[NDArray[Any]]) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _rebuilt(part, pieces) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_rebuilt(part, pieces) for part in space.spaces)
    flat, dtype = next(pieces), np.dtype(space.dtype)
    if isinstance(space, gym.spaces.Discrete):
        return dtype.type(flat[0])
    if isinstance(space, gym.spaces.Box) and dtype.kind == "f":
        # float32 on the way may have rounded a bound beyond itself.
        return np.asarray(np.clip(flat.astype(dtype).reshape(space.shape), space.low, space.high))
    return flat.astype(dtype).reshape(shape_of(space))


def _parts_of(space: gym.Space[Any], value: Any) -> list[Any]:
    if isinstance(space, gym.spaces.Dict):
        return [leaf for key, part in space.spaces.items() for leaf in _parts_of(part, value[key])]
    if isinstance(space, gym.spaces.Tuple):
        return [leaf for part, one in zip(space.spaces, value, strict=True) for leaf in _parts_of(part, one)]
    return [value]


def _told(value: Any) -> str:
    plain = _as_json(value)
    return f"({', '.join(_told(part) for part in plain)})" if isinstance(plain, list) else str(plain)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
