"""Any of gymnasium's spaces as what policies know: named numbers or one image in, an index or bounded numbers out.

`FlatObservation` and `FlatActions` are pure functions of the spaces. Field names are paths: `agent.direction` is the key
"direction" of the key "agent", `observation_0_2` an element of an array or of a tuple.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.description import MASK_KEY, Action, ActionComponent, ObservationField, is_mask, mask_field

LARGEST = float(np.finfo(np.float32).max)
# Every combination is a row of the action table, and an output of the network.
MAX_COMBINATIONS = 1024
# Every number is a field with a name in policy.json.
MAX_NUMBERS = 4000
# Shorter sides are too small for convolutions: such arrays are numbers.
MIN_IMAGE_SIDE, NATURE_IMAGE_SIDE = 20, 36
MAX_ACTIONS = 10_000
_NUMBERS_ALLOWED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"
_DROP = "a wrapper can leave it out, such as {gymnasium.wrappers:FilterObservation: {filter_keys: [...]}} in env.wrappers"
_UNNAMABLE = re.compile(r"[^\w.\-]+")
Leaf = tuple[str, gym.Space[Any]]


def _joined(path: str, key: object) -> str:
    name = _UNNAMABLE.sub("_", str(key)) or "_"
    return f"{path}.{name}" if path else name


def _leaves(space: gym.Space[Any], path: str, root: str) -> Iterator[Leaf]:
    """(path, space) of every part that is no Dict or Tuple; `root` names the whole."""
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, _joined(path, key), root)
    elif isinstance(space, gym.spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from _leaves(part, f"{path or root}_{i}", root)
    else:
        yield path or root, space


def _names(path: str, shape: tuple[int, ...]) -> list[str]:
    return ["_".join([path, *map(str, index)]) for index in np.ndindex(shape)] if shape else [path]


def _shown(space: gym.Space[Any]) -> str:
    kind = type(space).__name__
    return f"{kind} {space.shape} {space.dtype}" if isinstance(space, gym.spaces.Box) else kind


def _bounds(space: gym.Space[Any], where: str, drop: str = "") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest value of every number of a part, flat.

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
    raise ValueError(f"{where} is {_shown(space)}, which is not allowed; allowed: {_NUMBERS_ALLOWED}{hint}")


def _shape(space: gym.Space[Any]) -> tuple[int, ...]:
    return tuple(int(n) for n in space.shape or ())


def _refuse_twice(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"observation: two parts of it are both called {twice}; allowed: keys that give different names")


ImageAxes = Callable[[tuple[int, ...]], tuple[str, ...]]


class FlatObservation:
    """An observation as float32 numbers by name, as one image, or as a numbered state, with the valid actions behind it.

    Args:
        space: the environment's.
        mask_size: actions of which the environment says which are valid; 0 where it says nothing.
        image_axes: what the three axes of an image of a shape are.

    Attributes:
        fields: of the numbers in order, or the image; those of the mask last.
        space: what is shown: Box of numbers or an image, Discrete for a numbered state.
        numbered: how many states there are where one integer is the whole observation, else None.
        keeps_mask: the mask is a part of the environment's own observation.

    Raises:
        ValueError: naming the part of the space and what is allowed.
    """

    def __init__(self, space: gym.Space[Any], mask_size: int = 0, *, image_axes: ImageAxes) -> None:
        self.keeps_mask = mask_in(space) is not None
        self._original, self.mask_size = space, mask_size
        self.fields: tuple[ObservationField, ...] = ()
        self.numbered: int | None = None
        parts = [(p, s) for p, s in _leaves(space, "", "observation") if not (self.keeps_mask and p == MASK_KEY)]
        if not parts:
            raise ValueError(f"observation is {_shown(space)} without a part; allowed: at least one number")
        self._image: Callable[[NDArray[Any]], NDArray[Any]] | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        if len(parts) == 1 and _is_image(parts[0][1]):
            self.space = self._as_image(parts[0], image_axes)
        else:
            self.space = self._as_numbers(parts)

    def _as_image(self, part: Leaf, image_axes: ImageAxes) -> gym.Space[Any]:
        path, box = part
        assert isinstance(box, gym.spaces.Box)
        if self.mask_size:
            raise ValueError(
                f"{path} is an image {box.shape} beside an {MASK_KEY}, which is not allowed; allowed: numbers, or an image alone"
            )
        self._image = _image_of(box)
        low, high = self._image(box.low), self._image(box.high)
        if box.dtype == np.uint8:
            self._dtype = np.dtype(np.uint8)
        low, high = (np.clip(side, -LARGEST, LARGEST).astype(self._dtype) for side in (low, high))
        shape = tuple(int(n) for n in low.shape)
        bounds = (0.0, 255.0) if self._dtype == np.uint8 else (float(low.min()), float(high.max()))
        axes = image_axes(shape)
        self.fields = (ObservationField("image", "1", *bounds, "its picture", "", self._dtype.name, shape, axes),)
        return gym.spaces.Box(low, high, shape, self._dtype.type)

    def _as_numbers(self, parts: Sequence[Leaf]) -> gym.Space[Any]:
        total = 0
        for path, part in parts:
            size = len(_bounds(part, path, _DROP)[0])
            total += size
            if total > MAX_NUMBERS:
                beside = " beside other parts" if len(parts) > 1 else ""
                raise ValueError(
                    f"{path} is {_shown(part)}{beside}, {total:,} numbers in all; allowed: up to {MAX_NUMBERS:,} numbers, or one"
                    " image (two or three dimensions) alone; env.wrappers can choose a part or make it smaller"
                )
        lows: list[float] = []
        highs: list[float] = []
        for path, part in parts:
            low, high = (np.clip(side, -LARGEST, LARGEST) for side in _bounds(part, path))
            names = _names(path, _shape(part))
            whole = len(parts) == 1 and path == "observation"
            if isinstance(part, gym.spaces.Discrete):
                meanings = ["its state" if whole else path]
            else:
                meanings = [f"number {i} of its {path}" for i in range(len(names))]
            self.fields += tuple(
                ObservationField(name, "1", float(a), float(b), meaning)
                for name, a, b, meaning in zip(names, low, high, meanings, strict=True)
            )
            lows += low.tolist()
            highs += high.tolist()
        only = parts[0][1]
        if len(parts) == 1 and isinstance(only, gym.spaces.Discrete):
            self.numbered = int(only.n)
            if not self.mask_size and only is self._original:
                return only
        self.fields += tuple(mask_field(i) for i in range(self.mask_size))
        _refuse_twice([field.name for field in self.fields])
        bounds = (np.array([*side, *[end] * self.mask_size], np.float64) for side, end in ((lows, 0), (highs, 1)))
        low32, high32 = (side.astype(np.float32) for side in bounds)
        return gym.spaces.Box(low32, high32, (len(low32),), np.float32)

    @property
    def plain(self) -> bool:
        """Whether the environment shows this already."""
        original = self._original
        same_kind = isinstance(original, gym.spaces.Box | gym.spaces.Discrete)
        return not self.mask_size and same_kind and original.shape == self.space.shape and original.dtype == self.space.dtype

    def __call__(self, observation: Any, mask: NDArray[np.bool_] | None = None) -> Any:
        """What the environment gave, flat, and its valid actions.

        Args:
            observation: of the environment's own space.
            mask: (mask_size,); None where nothing is said of them.

        Returns:
            (num_fields,) float32, an image, or an integer.

        Raises:
            ValueError: a part is missing or has another shape.
        """
        if isinstance(self.space, gym.spaces.Discrete):
            return observation
        if self._image is not None:
            found = self._parts(self._original, observation, "")
            return np.ascontiguousarray(self._image(np.asarray(found[0])), dtype=self._dtype)
        numbers = [np.asarray(part, np.float32).ravel() for part in self._parts(self._original, observation, "")]
        if self.mask_size:
            numbers.append(np.ones(self.mask_size, np.float32) if mask is None else mask.astype(np.float32))
        return np.concatenate(numbers)

    def _parts(self, space: gym.Space[Any], value: Any, path: str) -> list[Any]:
        where = path or "observation"
        if isinstance(space, gym.spaces.Dict):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"{where} is a {type(value).__name__}; allowed: a mapping with {', '.join(map(str, space.spaces))}"
                )
            found = []
            for key, part in space.spaces.items():
                if self.keeps_mask and not path and key == MASK_KEY:
                    continue
                if key not in value:
                    raise ValueError(f"{_joined(path, key)} is missing from the observation; allowed: every key of its space")
                found += self._parts(part, value[key], _joined(path, key))
            return found
        if isinstance(space, gym.spaces.Tuple):
            if not isinstance(value, list | tuple) or len(value) != len(space.spaces):
                raise ValueError(f"{where} is {str(value)[:60]!r}; allowed: a tuple of {len(space.spaces)}")
            found = []
            for i, (part, one) in enumerate(zip(space.spaces, value, strict=True)):
                found += self._parts(part, one, f"{where}_{i}")
            return found
        if np.shape(value) != _shape(space):
            raise ValueError(f"{where} has shape {np.shape(value)}; allowed: {_shape(space)}")
        return [value]


def _is_image(space: gym.Space[Any]) -> bool:
    """Whether a Box is looked at with convolutions: its sides are long enough for them, and as numbers it is no easier."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (2, 3, 4):
        return False
    sides: tuple[int, ...]
    if len(space.shape) == 3:
        sides = space.shape[:2] if space.shape[-1] <= space.shape[0] else space.shape[1:]
    else:
        sides = space.shape[-3:-1] if len(space.shape) == 4 else space.shape
    size, picture = math.prod(space.shape), space.dtype == np.uint8
    if size > MAX_NUMBERS:
        return min(sides) >= MIN_IMAGE_SIDE or (picture and len(space.shape) == 3)
    if picture and len(space.shape) == 3:
        return min(sides) >= MIN_IMAGE_SIDE
    return min(sides) >= NATURE_IMAGE_SIDE and (picture or len(space.shape) > 2)


def _image_of(box: gym.spaces.Box) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """To three dimensions: a grey picture gets its channel, colours of stacked pictures (k, h, w, c) stand side by side."""
    if len(box.shape) == 2:
        return lambda image: image[..., None]
    if len(box.shape) == 4:
        stack, height, width, channels = box.shape
        return lambda image: np.moveaxis(image, 0, 2).reshape(height, width, stack * channels)
    return lambda image: image


def mask_in(space: gym.Space[Any]) -> gym.Space[Any] | None:
    """The part of a Dict observation that says which actions are valid."""
    if not isinstance(space, gym.spaces.Dict) or MASK_KEY not in space.spaces:
        return None
    part = space.spaces[MASK_KEY]
    return part if isinstance(part, gym.spaces.Box | gym.spaces.MultiBinary) else None


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
        self._parts = list(_leaves(space, "", "action"))
        self.actions: tuple[Action, ...] = ()
        self.components: tuple[ActionComponent, ...] = ()
        if not self._parts:
            raise ValueError(f"action is {_shown(space)} without a part; allowed: at least one choice")
        kinds = {path: _is_finite(part) for path, part in self._parts}
        bounds = [_bounds(part, path) for path, part in self._parts]
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
            what = _shown(part) if len(self._parts) == 1 else f"{len(self._parts)} parts"
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
        names = [name for path, part in self._parts for name in _names(path, _shape(part))]
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
    return flat.astype(dtype).reshape(_shape(space))


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


__all__ = ["MAX_COMBINATIONS", "MAX_NUMBERS", "FlatActions", "FlatObservation", "is_mask", "mask_in"]
