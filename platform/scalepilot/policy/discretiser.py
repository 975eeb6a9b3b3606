"""From an observation to the number of a state: fields cut at edges, or a state that is numbered already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import did_you_mean
from scalepilot.policy.spec import FieldEntry, unmasked

MAX_ENTRIES = 10_000_000
# Wider bounds are those of a number format (gymnasium's ±3.4e38), not of a quantity: equal bins would all be empty but two.
_WIDEST_RANGE = 1e30

Edges = Mapping[str, Sequence[float] | NDArray[np.float32]]


class Discretiser:
    """Numbers the cells of a grid over some fields of the observation, row-major in the observation's order.

    A value equal to an edge belongs to the bin above it. Edges are float32, as observations are: 0.7 is then the same
    number in both.

    Args:
        fields: of the observation, in order.
        edges: field name → its rising edges, k edges make k + 1 bins; fields left out are not seen. Empty: the one field
            is a whole number from its low to its high, the state itself.

    Raises:
        ValueError: an unknown field, edges that do not rise, or no edges where states are not numbered.
    """

    def __init__(self, fields: Sequence[FieldEntry], edges: Edges) -> None:
        names = [f.name for f in fields]
        for name, values in edges.items():
            _check_name(f"edges.{name}", name, names)
            rising = np.asarray(values, dtype=np.float32)
            if rising.ndim != 1 or not np.isfinite(rising).all() or (np.diff(rising) <= 0).any():
                raise ValueError(f"edges.{name}: are not allowed; allowed: finite numbers that rise, as float32")
        self.fields = tuple(fields)
        self.edges = {name: np.array(edges[name], dtype=np.float32) for name in names if name in edges}
        self._columns = [(names.index(name), values, len(values) + 1) for name, values in self.edges.items()]
        self.shape = tuple(count for _, _, count in self._columns)
        if not self.edges:
            if len(unmasked(fields)) != 1 or not _is_numbered(fields[0]):
                raise ValueError(f"bins: is empty; allowed: number of bins by field, one or more of {', '.join(names)}")
            self.shape = (int(fields[0].high) - int(fields[0].low) + 1,)
        self.num_states = math.prod(self.shape)

    @classmethod
    def of_bins(
        cls,
        fields: Sequence[FieldEntry],
        bins: Mapping[str, int],
        edges: Mapping[str, Sequence[float]],
        num_actions: int,
        *,
        numbered: bool = True,
    ) -> Discretiser:
        """A grid from equal bins between a field's bounds, and from explicit edges.

        Args:
            fields: of the observation, in order.
            bins: field name → number of equal bins.
            edges: field name → edges; no field of `bins`.
            num_actions: columns of the table that the grid is for.
            numbered: whether the environment numbers its states, so that no bins are needed.

        Raises:
            ValueError: an unknown field, bounds too wide for equal bins, or a table of more than ten million entries; each
                message begins with the key under `tabular`.
        """
        by_name = {f.name: f for f in fields}
        cut: dict[str, Sequence[float] | NDArray[np.float32]] = dict(edges)
        for name, count in bins.items():
            _check_name(f"bins.{name}", name, list(by_name))
            low, high = by_name[name].low, by_name[name].high
            if count > 1 and not 0 < high - low < _WIDEST_RANGE:
                raise ValueError(
                    f"bins.{name}: its bounds {low:g} to {high:g} cannot be cut into equal bins; allowed: tabular.edges.{name}"
                )
            cut[name] = np.linspace(low, high, count + 1)[1:-1].astype(np.float32)
        if not cut and not numbered:
            raise ValueError(f"bins: is empty; allowed: number of bins by field, one or more of {', '.join(by_name)}")
        made = cls(fields, cut)
        if made.num_states * num_actions > MAX_ENTRIES:
            grid = " × ".join(str(count) for count in made.shape)
            raise ValueError(
                f"bins: {grid} states × {num_actions} actions are {made.num_states * num_actions:,} entries;"
                f" allowed: up to {MAX_ENTRIES:,} (fewer bins, or fewer fields)"
            )
        return made

    def states(self, observation: NDArray[Any]) -> NDArray[np.int64]:
        """(n,) numbers in [0, num_states) of observations (n, num_fields); values beyond the outer edges count as inside."""
        if not self._columns:
            cells = np.rint(observation[:, 0]) - self.fields[0].low
            numbered: NDArray[np.int64] = np.clip(cells, 0, self.num_states - 1).astype(np.int64)
            return numbered
        state: NDArray[np.int64] = np.zeros(len(observation), dtype=np.int64)
        for index, edges, count in self._columns:
            state *= count
            state += edges.searchsorted(observation[:, index].astype(np.float32, copy=False), side="right")
        return state


def _check_name(key: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        hint = did_you_mean(name, names)
        raise ValueError(f"{key}: unknown field; allowed: {', '.join(names)}{hint}")


def _is_numbered(field: FieldEntry) -> bool:
    return field.low == round(field.low) and field.high == round(field.high) and field.high - field.low < MAX_ENTRIES
