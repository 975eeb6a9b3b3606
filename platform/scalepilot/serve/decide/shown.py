"""Scores as a person reads them, without the digits that a float32 does not have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIGITS = 6


def shown_scores(decision_rule: str, scores: NDArray[np.float32]) -> list[list[float]]:
    """Rows (n, num_actions) as an answer shows them: Q-values, or the probabilities that logits mean."""
    if decision_rule == "argmax_q":
        return rounded(scores)
    # In float64, where the difference of any two float32 is finite.
    odds = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    shares: list[list[float]] = np.round(odds / odds.sum(axis=1, keepdims=True), DIGITS).tolist()
    return shares


def rounded(values: NDArray[np.float32]) -> list[list[float]]:
    """Rows (n, k) to the seven digits that a float32 has, counted from the largest of each: 0.3, not 0.30000001192092896."""
    exact = values.astype(np.float64)
    largest = np.nanmax(np.abs(exact), axis=1, initial=0.0, keepdims=True)
    exponents = np.floor(np.log10(np.where(largest > 0, largest, 1.0)))
    scale = 10.0 ** (DIGITS - exponents)
    rows: list[list[float]] = (np.rint(exact * scale) / scale).tolist()
    return rows
