"""The move table: an action index names a move, a move and the current replicas name a target."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Move:
    """One entry of the move table.

    Attributes:
        kind: "absolute" adds `size` replicas, "relative" adds `size` × (ready + starting), rounded away from zero.
        size: replicas, or a share (−0.25 is a quarter less).
    """

    kind: Literal["absolute", "relative"]
    size: float

    def __post_init__(self) -> None:
        if self.kind not in ("absolute", "relative"):
            raise ValueError(f"moves.kind: {self.kind!r} is not allowed; allowed: absolute, relative")
        if not math.isfinite(self.size) or (self.kind == "absolute" and self.size != int(self.size)):
            raise ValueError(f"moves.size: {self.size!r} is not allowed; allowed: whole replicas, or a finite share")

    @property
    def label(self) -> str:
        """What a person reads: "+2", "−25 %", "hold"."""
        if self.size == 0:
            return "hold"
        sign = "+" if self.size > 0 else "−"
        return f"{sign}{abs(self.size):.0%}".replace("%", " %") if self.kind == "relative" else f"{sign}{abs(int(self.size))}"


class MoveTable:
    """Decodes action indices to targets for whole batches.

    Args:
        moves: the table, index = action.

    Raises:
        ValueError: an empty table.
    """

    def __init__(self, moves: Iterable[Move]) -> None:
        self.moves = tuple(moves)
        if not self.moves:
            raise ValueError("moves: the table is empty; allowed: at least one move")
        relative = np.array([m.kind == "relative" for m in self.moves])
        sizes = np.array([m.size for m in self.moves], dtype=np.float64)
        self._share = np.where(relative, np.abs(sizes), 0.0)
        self._sign = np.sign(sizes)
        self._absolute = np.where(relative, 0.0, sizes)

    def __len__(self) -> int:
        return len(self.moves)

    def targets(self, actions: NDArray[Any], total_replicas: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn action indices into targets; bounds are the environment's to apply.

        Args:
            actions: (n,) integers in [0, len(self)).
            total_replicas: (n,) ready + starting.

        Returns:
            (n,) desired replicas.
        """
        away_from_zero = self._sign[actions] * np.ceil(self._share[actions] * total_replicas)
        targets: NDArray[np.float64] = total_replicas + self._absolute[actions] + away_from_zero
        return targets

    def to_json(self) -> list[dict[str, Any]]:
        """The table as plain data, for an artifact."""
        return [{"index": i, "kind": m.kind, "size": m.size, "label": m.label} for i, m in enumerate(self.moves)]


DEFAULT_MOVES = (
    Move("relative", -0.25),
    Move("absolute", -2),
    Move("absolute", -1),
    Move("absolute", 0),
    Move("absolute", 1),
    Move("absolute", 2),
    Move("relative", 0.25),
    Move("relative", 1.0),
)
