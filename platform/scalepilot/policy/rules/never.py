"""Never move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import State
from scalepilot.policy.rules.base import Array, MoveRule


@dataclass(frozen=True)
class NeverParameters:
    """There is nothing to set."""


class Never(MoveRule[NeverParameters]):
    """Keeps what there is: what doing nothing costs."""

    rule_name = "never"
    parameters_type = NeverParameters

    def moves(self, observation: NDArray[Any], state: State | None) -> tuple[Array, State | None]:
        """No move."""
        return np.zeros(len(observation)), None
