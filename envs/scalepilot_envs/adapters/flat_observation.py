"""An observation of any space as named numbers, one image or a numbered state: a pure function of the space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.adapters.space_parts import LARGEST, Leaf, bounds_of, element_names, joined, leaves, shape_of, shown
from scalepilot_envs.description import MASK_KEY, ObservationField, mask_field

# Every number is a field with a name in policy.json.
MAX_NUMBERS = 4000
# Shorter sides are too small for convolutions: such arrays are numbers.
MIN_IMAGE_SIDE, NATURE_IMAGE_SIDE = 20, 36
_DROP = "a wrapper can leave it out, such as {gymnasium.wrappers:FilterObservation: {filter_keys: [...]}} in env.wrappers"
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
        parts = [(p, s) for p, s in leaves(space, "", "observation") if not (self.keeps_mask and p == MASK_KEY)]
        if not parts:
            raise ValueError(f"observation is {shown(space)} without a part; allowed: at least one number")
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
            size = len(bounds_of(part, path, _DROP)[0])
            total += size
            if total > MAX_NUMBERS:
                beside = " beside other parts" if len(parts) > 1 else ""
                raise ValueError(
                    f"{path} is {shown(part)}{beside}, {total:,} numbers in all; allowed: up to {MAX_NUMBERS:,} numbers, or one"
                    " image (two or three dimensions) alone; env.wrappers can choose a part or make it smaller"
                )
        lows: list[float] = []
        highs: list[float] = []
        for path, part in parts:
            low, high = (np.clip(side, -LARGEST, LARGEST) for side in bounds_of(part, path))
            names = element_names(path, shape_of(part))
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
                    raise ValueError(f"{joined(path, key)} is missing from the observation; allowed: every key of its space")
                found += self._parts(part, value[key], joined(path, key))
            return found
        if isinstance(space, gym.spaces.Tuple):
            if not isinstance(value, list | tuple) or len(value) != len(space.spaces):
                raise ValueError(f"{where} is {str(value)[:60]!r}; allowed: a tuple of {len(space.spaces)}")
            found = []
            for i, (part, one) in enumerate(zip(space.spaces, value, strict=True)):
                found += self._parts(part, one, f"{where}_{i}")
            return found
        if np.shape(value) != shape_of(space):
            raise ValueError(f"{where} has shape {np.shape(value)}; allowed: {shape_of(space)}")
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


def _refuse_twice(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"observation: two parts of it are both called {twice}; allowed: keys that give different names")
