"""How busy a training episode is, and how steady: as it was recorded, or at a level drawn for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.autoscale.params import Randomisation


def at_drawn_level(
    rates_rps: NDArray[np.float64], randomisation: Randomisation, interval_seconds: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(num_steps,) rates of an episode; without `peak_rps` the recorded ones times a single draw from `workload_scale`.

    Args:
        rates_rps: (num_steps,) requests/s as recorded.
        randomisation: from what levels to draw.
        interval_seconds: of a step.
        rng: the environment's own; what is drawn from it does not depend on the window.
    """
    scale = float(rng.uniform(*randomisation.workload_scale))
    if randomisation.peak_rps is None:
        return rates_rps * scale
    drawn, (low, high) = rng.random(), randomisation.peak_rps
    peak_rps = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    width = max(1, round(60.0 * rng.uniform(*randomisation.smoothing_minutes) / interval_seconds))
    smooth = _moving_average(rates_rps, width)
    # A window without requests has no level to change.
    if drawn >= randomisation.peak_share or not smooth.max() > 0:
        return rates_rps * scale
    return np.asarray(smooth * (peak_rps / smooth.max()), dtype=np.float64)


def _moving_average(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Means over `width` neighbours, over fewer at the ends."""
    if width == 1:
        return values
    width = min(width, len(values))
    kernel = np.ones(width)
    sums: NDArray[np.float64] = np.convolve(values, kernel, mode="same")
    return np.asarray(sums / np.convolve(np.ones(len(values)), kernel, mode="same"), dtype=np.float64)
