"""What may come in: parameters, sizes and injected arrays, refused with field, value and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def did_you_mean(given: object, allowed: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message: "; did you mean kpa?" where a name comes near, else nothing."""
    near = difflib.get_close_matches(str(given), list(allowed), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def is_number(value: Any, low: float, high: float, *, above: bool = False, whole: bool = False) -> bool:
    """Whether a value is a finite number in [low, high], or in (low, high] with `above`; true and false are none."""
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        return False
    return low <= value <= high and not (above and value == low)


def check_number(owner: object, name: str, low: float = 0.0, high: float = math.inf, *, whole: bool = False) -> None:
    """Refuse a field that is no finite number in [low, high].

    Args:
        owner: a parameters dataclass.
        name: of the field.
        low: smallest allowed value.
        high: largest allowed value.
        whole: only integers.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    value = getattr(owner, name)
    if not is_number(value, low, high, whole=whole):
        numbers = "whole numbers" if whole else "finite numbers"
        above = "" if high == math.inf else f" to {high:g}"
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {numbers} from {low:g}{above}")


def check_count(name: str, value: Any, low: int = 1) -> int:
    """A whole number from `low`.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: whole numbers from {low}")
    return int(value)


def check_options(options: Mapping[str, Any] | None, allowed: Sequence[str]) -> Mapping[str, Any]:
    """What `reset(options=…)` was given.

    Raises:
        ValueError: an unknown name.
    """
    if not options:
        return {}
    unknown = set(options) - set(allowed)
    if unknown:
        raise ValueError(f"options.{min(unknown)}: unknown key; allowed: {', '.join(allowed) or 'none'}")
    return options


def check_injected(name: str, values: Any, num_envs: int, num_steps: int) -> NDArray[np.float64]:
    """Exogenous inputs given instead of drawn.

    Args:
        name: of the option.
        values: (num_envs, num_steps) finite numbers from 0; (num_steps,) will do for one environment.
        num_envs: environments of the batch.
        num_steps: values an episode needs.

    Returns:
        (num_envs, num_steps) float64.

    Raises:
        ValueError: another shape, or a negative or non-finite value.
    """
    array = np.asarray(values, dtype=np.float64)
    if num_envs == 1 and array.ndim == 1:
        array = array[None]
    if array.shape != (num_envs, num_steps):
        raise ValueError(f"{name}: shape {array.shape} is not allowed; allowed: ({num_envs}, {num_steps})")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"{name}: holds negative or non-finite values; allowed: finite numbers from 0")
    return array
