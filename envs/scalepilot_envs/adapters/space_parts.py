"""The parts of any of gymnasium's spaces by path, with their bounds.

Names are paths: `agent.direction` is the key "direction" of the key "agent", `observation_0_2` an element of an
array or of a tuple.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

LARGEST = float(np.finfo(np.float32).max)
_NUMBERS_ALLOWED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"
_UNNAMABLE = re.compile(r"[^\w.\-]+")
Leaf = tuple[str, gym.Space[Any]]


def joined(path: str, key: object) -> str:
    """The path of a key of a Dict."""
    name = _UNNAMABLE.sub("_", str(key)) or "_"
    return f"{path}.{name}" if path else name


def leaves(space: gym.Space[Any], path: str, root: str) -> Iterator[Leaf]:
    """(path, space) of every part that is no Dict or Tuple; `root` names the whole."""
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, joined(path, key), root)
    elif isinstance(space, gym.spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from leaves(part, f"{path or root}_{i}", root)
    else:
        yield path or root, space


def element_names(path: str, shape: tuple[int, ...]) -> list[str]:
    """One name an element of an array; the path itself where it is a single number."""
    return ["_".join([path, *map(str, index)]) for index in np.ndindex(shape)] if shape else [path]


def shown(space: gym.Space[Any]) -> str:
    """A space in messages."""
    kind = type(space).__name__
    return f"{kind} {space.shape} {space.dtype}" if isinstance(space, gym.spaces.Box) else kind


def bounds_of(space: gym.Space[Any], where: str, drop: str = "") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest value of every number of a part, flat.

    Args:
        space: of the part.
        where: its path, for messages.
        drop: how to leave it out, for messages.

    Raises:
        ValueError: a kind of space that holds no fixed number of numbers.
    """
    if isinstance(space, gym.spaces.Discrete):
        first = float(space.start)
        return np.array([first]), np.array([first + float(space.n) - 1])
    if isinstance(space, gym.spaces.MultiDiscrete):
        first_of_each = np.asarray(space.start, np.float64).ravel()
        return first_of_each, first_of_each + np.asarray(space.nvec, np.float64).ravel() - 1
    if isinstance(space, gym.spaces.MultiBinary):
        size = math.prod(space.shape)
        return np.zeros(size), np.ones(size)
    if isinstance(space, gym.spaces.Box):
        return space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    hint = f"; {drop}" if drop else ""
    raise ValueError(f"{where} is {shown(space)}, which is not allowed; allowed: {_NUMBERS_ALLOWED}{hint}")


def shape_of(space: gym.Space[Any]) -> tuple[int, ...]:
    """Of a part, () for a single number."""
    return tuple(int(n) for n in space.shape or ())
