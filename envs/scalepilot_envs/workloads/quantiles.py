"""Exact quantiles of a large array in a few megabytes of working memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# np.quantile partitions a copy; from here on the copy matters more than the second or two this takes.
_LARGE = 2_000_000
_BLOCK = 1 << 18
_DIGIT_BITS, _DIGIT = 16, 0xFFFF


def quantiles(values: NDArray[np.float64], shares: Sequence[float]) -> list[float]:
    """Quantiles with linear interpolation, as `np.quantile` gives them.

    Args:
        values: (n,) finite, from 0.
        shares: each 0 to 1.
    """
    if len(values) < _LARGE:
        return [float(q) for q in np.quantile(values, list(shares))]
    positions = [share * (len(values) - 1) for share in shares]
    neighbours = [(int(p), min(int(p) + 1, len(values) - 1)) for p in positions]
    found = order_statistics(values, [rank for pair in neighbours for rank in pair])
    return [float(np.quantile([found[a], found[b]], p - a)) for p, (a, b) in zip(positions, neighbours, strict=True)]


def order_statistics(values: NDArray[np.float64], ranks: Iterable[int]) -> dict[int, float]:
    """The values with so many values before them in sorted order, found 16 bits at a time.

    The bit patterns of floats from 0 sort as the floats do, so a count of the leading bits tells which values can
    still be meant; four passes settle all 64 bits.

    Args:
        values: (n,) float64, finite, from 0.
        ranks: each 0 to n − 1.

    Returns:
        rank → value.
    """
    # rank → the leading bits known so far, and the rank among the values that begin with them.
    known = {rank: (0, rank) for rank in ranks}
    for shift in range(64 - _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts = {prefix: np.zeros(1 << _DIGIT_BITS, dtype=np.int64) for prefix, _ in known.values()}
        for first in range(0, len(values), _BLOCK):
            # + 0.0 turns −0.0, whose bits sort last, into 0.0.
            bits = (values[first : first + _BLOCK] + 0.0).view(np.uint64) >> np.uint64(shift)
            leading = bits >> np.uint64(_DIGIT_BITS)
            for prefix, count in counts.items():
                digits = (bits[leading == prefix] & np.uint64(_DIGIT)).astype(np.intp)
                count += np.bincount(digits, minlength=1 << _DIGIT_BITS)
        for rank, (prefix, within) in known.items():
            upto = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(upto, within, side="right"))
            known[rank] = (prefix << _DIGIT_BITS) | digit, within - int(upto[digit] - counts[prefix][digit])
    return {rank: float(np.array([bits], dtype=np.uint64).view(np.float64)[0]) for rank, (bits, _) in known.items()}
