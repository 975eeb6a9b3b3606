"""Flash crowds added to a workload's own, in training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.params import Randomisation

_RAMP_SECONDS = 60.0


def with_surges(
    rates_rps: NDArray[np.float64], randomisation: Randomisation, interval_seconds: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A window with the flash crowds that randomisation asks for; unchanged, and nothing drawn, where it asks for none.

    Args:
        rates_rps: (num_steps,) mean rates.
        randomisation: how many, how high and how long.
        interval_seconds: length of a step.
        rng: where they are drawn from.

    Returns:
        (num_steps,) mean rates.
    """
    if not randomisation.surges_per_hour:
        return rates_rps
    at_seconds = np.arange(len(rates_rps)) * interval_seconds
    hours = len(rates_rps) * interval_seconds / 3600.0
    for _ in range(rng.poisson(randomisation.surges_per_hour * hours)):
        begin = rng.uniform(0.0, hours * 3600.0)
        end = begin + 60.0 * rng.uniform(*randomisation.surge_minutes)
        factor = rng.uniform(*randomisation.surge_factor)
        shape = (begin, begin + _RAMP_SECONDS, end, end + _RAMP_SECONDS)
        rates_rps = rates_rps * np.interp(at_seconds, shape, (1.0, factor, factor, 1.0))
    return rates_rps
