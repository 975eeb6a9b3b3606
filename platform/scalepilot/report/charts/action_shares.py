"""How often a policy moved, and by how much, in the window played back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# First and last change of each class; what people tell apart: hold, one, a few, many.
_CLASSES = ((-np.inf, -5), (-4, -2), (-1, -1), (0, 0), (1, 1), (2, 4), (5, np.inf))
LABELS = ("−5 and more", "−2 … −4", "−1", "hold", "+1", "+2 … +4", "+5 and more")


@dataclass(frozen=True)
class ActionShares:
    """Shares of the steps.

    Attributes:
        shares: one a class of LABELS; they sum to 1.
        steps: how many steps they are of.
    """

    shares: tuple[float, ...]
    steps: int


def action_shares(replicas: NDArray[np.float64]) -> ActionShares | None:
    """Count the changes of billed replicas from step to step.

    Args:
        replicas: (num_steps,) billed replicas.

    Returns:
        The shares; None for fewer than two steps.
    """
    if len(replicas) < 2:
        return None
    change = np.rint(np.diff(replicas))
    shares = tuple(float(((change >= first) & (change <= last)).mean()) for first, last in _CLASSES)
    return ActionShares(shares, len(change))
