"""Checks that workload descriptions share: each refusal names the field, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, TypeVar

from scalepilot_envs.checks import Between, declared, did_you_mean, is_number

MAX_STEPS = 20_000_000
_T = TypeVar("_T")

# What many kinds have: a length, a grid, a highest rate, shares, seeds.
NumSteps = Annotated[int, Between(2, MAX_STEPS)]
GridSeconds = Annotated[float, Between(0, 1e7, above=True)]
Peak = Annotated[float, Between(above=True)]
Requests = Annotated[int, Between(1, 10**12)]
FewestRequests = Annotated[int, Between(0, 10**12)]
Share = Annotated[float, Between(0, 1)]
Seed = Annotated[int, Between()]
NotNegative = Annotated[float, Between()]
Positive = Annotated[float, Between(above=True)]


def check_number(
    owner: object,
    name: str,
    low: float = 0.0,
    high: float = math.inf,
    *,
    above: bool = False,
    whole: bool = False,
    optional: bool = False,
    prefix: str = "workload.",
) -> None:
    """Refuse a field that is no finite number of a range.

    Args:
        owner: the description.
        name: of its field.
        low: smallest allowed.
        high: largest allowed.
        above: `low` itself is refused.
        whole: only whole numbers.
        optional: None is allowed.
        prefix: of the field in the message; empty for the parts of a workload, whose place the workload adds.

    Raises:
        ValueError: naming the field, its value and the range.
    """
    value: Any = getattr(owner, name)
    if optional and value is None:
        return
    if not is_number(value, low, high, above=above, whole=whole):
        bound = f"{'integers ' if whole else ''}{'above' if above else 'from'} {low:.15g}"
        bound += "" if math.isinf(high) else f" to {high:.15g}"
        raise ValueError(f"{prefix}{name}: {value!r} is not allowed; allowed: {bound}{', or null' if optional else ''}")


def check_choice(owner: object, name: str, choices: Sequence[str], *, prefix: str = "workload.") -> None:
    """Refuse a field that is none of `choices`.

    Raises:
        ValueError: naming the field, its value and the choices, the nearest one last.
    """
    value = getattr(owner, name)
    if value not in choices:
        raise ValueError(f"{prefix}{name}: {value!r} is not allowed; allowed: {', '.join(choices)}{did_you_mean(value, choices)}")


def check_declared(owner: object, prefix: str = "workload.") -> None:
    """Refuse fields outside the bounds that their annotations declare; a pair is its owner's to check.

    Raises:
        ValueError: naming the field, its value and the range.
    """
    kind: Any = type(owner)
    for field in declared(kind):
        bound, optional = field.bound, field.optional
        if not field.pair:
            check_number(
                owner, field.name, bound.low, bound.high, above=bound.above, whole=field.whole, optional=optional, prefix=prefix
            )


def build(kind: type[_T], values: Mapping[str, Any], prefix: str) -> _T:
    """Build a dataclass from plain data.

    Args:
        kind: the dataclass.
        values: its fields.
        prefix: of its fields in messages, such as "workload.phases.0.".

    Raises:
        ValueError: an unknown or missing key, or what the dataclass itself refuses.
    """
    allowed = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in allowed:
            raise ValueError(f"{prefix}{name}: unknown key; allowed: {', '.join(allowed)}{did_you_mean(name, allowed)}")
    return kind(**values)


def parts_of(owner: object, name: str, kind: type[_T]) -> None:
    """Make a field a tuple of `kind`, from a list of them or of their mappings.

    Raises:
        ValueError: naming the part by its place, such as "workload.phases.0.low".
    """
    given = getattr(owner, name)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"workload.{name}: {given!r} is not allowed; allowed: a list")
    parts = []
    for i, part in enumerate(given):
        place = f"workload.{name}.{i}"
        if isinstance(part, Mapping):
            try:
                parts.append(build(kind, part, ""))
            except ValueError as error:
                raise ValueError(f"{place}.{error}") from None
        elif isinstance(part, kind):
            parts.append(part)
        else:
            keys = ", ".join(f.name for f in fields(kind))  # type: ignore[arg-type]
            raise ValueError(f"{place}: {part!r} is not allowed; allowed: keys and values ({keys})")
    object.__setattr__(owner, name, tuple(parts))
