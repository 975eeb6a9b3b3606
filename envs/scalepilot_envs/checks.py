"""What may come in: parameters, sizes and injected arrays, refused with field, value and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray


def did_you_mean(given: object, allowed: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message: "; did you mean kpa?" where a name comes near, else nothing."""
    near = difflib.get_close_matches(str(given), list(allowed), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


@dataclass(frozen=True)
class Between:
    """A number in [low, high], or in (low, high] with `above`.

    `Annotated[float, Between(0, 1)]` on a field is what `check_declared` checks and what a configuration's JSON Schema says.
    """

    low: float = 0.0
    high: float = math.inf
    above: bool = False

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """The schema of the number, with its bounds."""
        upper = {} if math.isinf(self.high) else {"maximum": self.high}
        return {**handler(core), "exclusiveMinimum" if self.above else "minimum": self.low, **upper}


@dataclass(frozen=True)
class Declared:
    """A field with bounds.

    Attributes:
        name: of the field.
        bound: of the number, or of both numbers of a (low, high).
        whole: it is a whole number.
        optional: None is allowed.
        pair: it is (low, high).
    """

    name: str
    bound: Between
    whole: bool
    optional: bool
    pair: bool


@cache
def declared(kind: Any) -> tuple[Declared, ...]:
    """The fields of a dataclass whose annotations hold a `Between`."""
    found = []
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for member in members:
            pair = get_origin(member) is tuple
            number = get_args(member)[0] if pair else member
            if get_origin(number) is Annotated and isinstance(bound := number.__metadata__[0], Between):
                found.append(Declared(field.name, bound, get_args(number)[0] is int, type(None) in members, pair))
    return tuple(found)


def check_declared(owner: object) -> None:
    """Refuse fields outside the bounds that their annotations declare.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    kind: Any = type(owner)
    for field in declared(kind):
        bound, value = field.bound, getattr(owner, field.name)
        if field.optional and value is None:
            continue
        if not field.pair:
            check_number(owner, field.name, bound.low, bound.high, above=bound.above, whole=field.whole)
            continue
        pair = value if isinstance(value, list | tuple) and len(value) == 2 else (math.nan, math.nan)
        at_least = {"above": bound.above, "whole": field.whole}
        if not (
            is_number(pair[0], bound.low, bound.high, **at_least) and is_number(pair[1], pair[0], bound.high, whole=field.whole)
        ):
            upper = ", finite" if math.isinf(bound.high) else f" <= {bound.high:.15g}"
            below, kind = "<" if bound.above else "<=", "whole numbers, " if field.whole else ""
            given = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"{field.name}: {given!r} is not allowed; allowed: {kind}{bound.low:g} {below} low <= high{upper}")


def is_number(value: Any, low: float, high: float, *, above: bool = False, whole: bool = False) -> bool:
    """Whether a value is a finite number in [low, high], or in (low, high] with `above`; true and false are none."""
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        return False
    return low <= value <= high and not (above and value == low)


def check_number(
    owner: object, name: str, low: float = 0.0, high: float = math.inf, *, above: bool = False, whole: bool = False
) -> None:
    """Refuse a field that is no finite number in [low, high].

    Args:
        owner: a parameters dataclass.
        name: of the field.
        low: smallest allowed value.
        high: largest allowed value.
        above: `low` itself is refused.
        whole: only integers.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    value = getattr(owner, name)
    if not is_number(value, low, high, above=above, whole=whole):
        numbers = "whole numbers" if whole else "finite numbers"
        upper = "" if high == math.inf else f" to {high:.15g}"
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {numbers} {'above' if above else 'from'} {low:g}{upper}")


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
