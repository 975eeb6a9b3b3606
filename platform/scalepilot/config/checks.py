"""What a key may be, written where it is declared: `Annotated[float, Between(0, 1)]` is checked, and told in the JSON Schema."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from scalepilot.errors import did_you_mean
from scalepilot_envs.checks import Between


@dataclass(frozen=True)
class OneOf:
    """A text that is one of some."""

    choices: tuple[str, ...]

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """The schema of the text, with what it may be."""
        return {**handler(core), "enum": list(self.choices)}

    def check(self, owner: object, name: str) -> None:
        """Refuse any other."""
        check_allowed(name, getattr(owner, name), self.choices)


Share = Annotated[float, Between(0, 1)]
PositiveShare = Annotated[float, Between(0, 1, above=True)]
Positive = Annotated[float, Between(0, 1e12, above=True)]
Count = Annotated[int, Between(1, 1e12)]


class Section:
    """A frozen dataclass of the configuration: unknown keys are refused, and every key is within what its annotation allows."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        section: Any = type(self)
        for name, bound in _bounds(section):
            if getattr(self, name) is None:
                continue
            if isinstance(bound, Between):
                check_between(self, name, bound.low, bound.high, above=bound.above)
            else:
                bound.check(self, name)


@cache
def _bounds(section: Any) -> tuple[tuple[str, Between | OneOf], ...]:
    hints = get_type_hints(section, include_extras=True)
    found = []
    for key in fields(section):
        for part in (hints[key.name], *get_args(hints[key.name])):
            if get_origin(part) is Annotated:
                found += [(key.name, bound) for bound in part.__metadata__ if isinstance(bound, Between | OneOf)]
    return tuple(found)


def check_allowed(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices, naming the nearest."""
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {', '.join(choices)}{hint}")


def check_between(owner: object, name: str, low: float, high: float, *, above: bool = False) -> None:
    """Refuse a field outside [low, high], or not above low."""
    value = getattr(owner, name)
    if not (math.isfinite(value) and low <= value <= high) or (above and value == low):
        bound = f"above {low:g}" if above else f"from {low:g}"
        limit = "" if math.isinf(high) else f" to {high:g}"
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {bound}{limit}")


__all__ = ["Between", "Count", "OneOf", "Positive", "PositiveShare", "Section", "Share", "check_allowed", "check_between"]
