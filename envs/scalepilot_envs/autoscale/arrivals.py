"""How evenly requests come: how their number in an interval is drawn around its mean, and what that does to their wait."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
POISSON, EXPONENTIAL = 1.0, 1.0
# A queue without any randomness still divides by its variability.
_LEAST_VARIABILITY = 1e-9


def drawn_arrivals(mean_requests: Array, dispersion: float, rng: np.random.Generator) -> Array:
    """Requests of each interval, with variance = dispersion × mean.

    Args:
        mean_requests: any shape, requests expected in each interval.
        dispersion: 1 draws Poisson counts. Below, the share 1 − dispersion comes evenly spaced, as expected, and the rest is
            Poisson. Above, the mean of each interval is itself drawn from a gamma distribution (negative binomial counts).
        rng: where they are drawn from.

    Returns:
        The shape of `mean_requests`; whole numbers from a dispersion of 1 on.
    """
    if dispersion == POISSON:
        return rng.poisson(mean_requests).astype(np.float64)
    if dispersion < POISSON:
        return mean_requests * (1.0 - dispersion) + rng.poisson(mean_requests * dispersion)
    spread = dispersion - 1.0
    return rng.poisson(rng.gamma(mean_requests / spread, spread)).astype(np.float64)


def variability(dispersion: Array | float, service_variation: float, queues: Array | None = None) -> Array:
    """What the waits of an exponential queue (M/M/c) are to be multiplied by: (ca² + cs²) / 2.

    Args:
        dispersion: (num_envs,) index of dispersion of the arrivals. Above 1 the mean differs between intervals: that is in
            their counts, and within one they are Poisson.
        service_variation: squared coefficient of variation of the service time, cs².
        queues: (num_envs,) queues that the arrivals are spread over at random, which makes each one's more like Poisson; one
            for all if None.

    Returns:
        (num_envs,) from a little above 0; 1 with Poisson arrivals and exponential service.

    Source:
        A. O. Allen, "Probability, Statistics and Queueing Theory", 2nd ed. (1990), with Cunneen's approximation for GI/G/c;
        W. Whitt, "The queueing network analyzer", Bell System Technical Journal 62 (1983), for the splitting.
    """
    spaced = 1.0 - np.minimum(dispersion, POISSON)
    if queues is not None:
        spaced = spaced / np.maximum(queues, 1.0)
    factor: Array = np.maximum((1.0 - spaced + service_variation) / 2.0, _LEAST_VARIABILITY)
    return factor
