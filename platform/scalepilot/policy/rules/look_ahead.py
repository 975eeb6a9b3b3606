"""A reference that knows the coming mean rates, but not the noise. Not a bound, and never deployable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


@dataclass(frozen=True)
class LookAhead:
    """The fewest replicas that keep the highest mean rate of the next start-up + 1 steps under a utilisation.

    Attributes:
        utilisation: share of capacity aimed at; one number, or (n, 1) with one a row.
        name: row label.
    """

    utilisation: float | NDArray[np.float64] = 0.8
    name: str = "look-ahead"

    def plan(self, rates_rps: NDArray[np.float64], replica_capacity_rps: float, startup_steps: int) -> NDArray[np.float64]:
        """Targets for known rates.

        Args:
            rates_rps: (n, num_steps).
            replica_capacity_rps: requests/s of one replica.
            startup_steps: steps from order to service.

        Returns:
            (n, num_steps) replicas.
        """
        padded = np.pad(rates_rps, ((0, 0), (0, startup_steps)), mode="edge")
        ahead = sliding_window_view(padded, startup_steps + 1, axis=1).max(axis=2)
        targets: NDArray[np.float64] = np.ceil(ahead / (replica_capacity_rps * self.utilisation))
        return targets
