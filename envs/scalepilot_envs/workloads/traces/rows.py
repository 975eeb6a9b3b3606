"""What every reader of traces gives: rows with time stamps, or a TraceError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Gaps = Literal["error", "linear", "previous", "zero"]
CounterResets = Literal["error", "restart"]
Kind = Literal["rate", "count", "counter"]
GAPS: tuple[Gaps, ...] = get_args(Gaps)
COUNTER_RESETS: tuple[CounterResets, ...] = get_args(CounterResets)


class TraceError(ValueError):
    """A trace file that cannot be used; the message names file, line, value and what is allowed."""


@dataclass(frozen=True)
class Rows:
    """A block of rows.

    Attributes:
        stamps: (n,) Unix seconds.
        values: (n,) finite, from 0, or NaN where nothing was measured: requests/s, or requests counted.
        lines: (n,) places in the file, as the reader counts them.
        missing: what the first NaN looks like, such as "value ''"; only there where there is one.
    """

    stamps: NDArray[np.float64]
    values: NDArray[np.float64]
    lines: NDArray[np.int64]
    missing: str = ""

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Rows:
        """Some of the rows."""
        return Rows(self.stamps[chosen], self.values[chosen], self.lines[chosen], self.missing)


def joined(rows: list[Rows]) -> Rows:
    """Blocks as one; the first missing one's words are kept."""
    stamps, values = np.concatenate([r.stamps for r in rows]), np.concatenate([r.values for r in rows])
    lines = np.concatenate([r.lines for r in rows])
    return Rows(stamps, values, lines, next((r.missing for r in rows if r.missing), ""))
