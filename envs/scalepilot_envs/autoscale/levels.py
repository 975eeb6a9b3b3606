"""How busy a training episode is: at the level it was recorded with, or at one drawn for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.params import Randomisation


def drawn_scale(rates_rps: NDArray[np.float64], randomisation: Randomisation, rng: np.random.Generator) -> float:
    """Factor on a window's rates; without `peak_rps` a single draw from `workload_scale`.

    Args:
        rates_rps: (num_steps,) requests/s as recorded.
        randomisation: from what levels to draw.
        rng: the environment's own; what is drawn from it does not depend on the window.
    """
    scale = float(rng.uniform(*randomisation.workload_scale))
    if randomisation.peak_rps is None:
        return scale
    drawn, (low, high) = rng.random(), randomisation.peak_rps
    peak_rps = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    recorded_peak_rps = float(rates_rps.max())
    # A window without requests has no level to change.
    return peak_rps / recorded_peak_rps if drawn < randomisation.peak_share and recorded_peak_rps > 0 else scale
