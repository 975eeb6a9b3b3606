"""A learning curve, as one run gives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Curve:
    """One run: env_steps (n,) rising, value (n,)."""

    env_steps: NDArray[np.float64]
    value: NDArray[np.float64]
