"""A policy that is shown a changed observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.policy.protocol import Decision, Policy, State


class Shown:
    """Decides as a policy does on what it is shown.

    Args:
        policy: who decides.
        show: observation (n, num_fields) → what is shown of it; it changes nothing in place.
    """

    def __init__(self, policy: Policy, show: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self.spec, self._policy, self._show = policy.spec, policy, show

    def act(
        self,
        observation: NDArray[Any],
        state: State | None = None,
        *,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[Decision, State | None]:
        """See `Policy.act`."""
        return self._policy.act(self._show(observation), state, deterministic=deterministic, rng=rng)
