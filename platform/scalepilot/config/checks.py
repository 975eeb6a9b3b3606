"""Checks that the sections share: field, value and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

# Of every section, for pydantic: an unknown key is refused.
STRICT: dict[str, Any] = {"extra": "forbid"}


def check_allowed(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices, naming the nearest."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {', '.join(choices)}{hint}")


def check_between(owner: object, name: str, low: float, high: float, *, above: bool = False) -> None:
    """Refuse a field outside [low, high], or not above low."""
    value = getattr(owner, name)
    if not (math.isfinite(value) and low <= value <= high) or (above and value == low):
        bound = f"above {low:g}" if above else f"from {low:g}"
        limit = "" if math.isinf(high) else f" to {high:g}"
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {bound}{limit}")
