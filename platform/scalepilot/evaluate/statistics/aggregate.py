"""Aggregates over several tasks that a few runs of one task cannot dominate: interquartile mean, probability of improvement.

Source:
    Agarwal, Schwarzer, Castro, Courville & Bellemare, "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", NeurIPS 2021. The figures agree with the authors' library, rliable.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.statistics.intervals import Interval, percentile_interval

Array = NDArray[np.float64]
_CUT_SHARE = 0.25


def interquartile_mean(scores: NDArray[np.floating], axis: int | None = None) -> Array:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at either end.

    Args:
        scores: of any shape.
        axis: to reduce; None takes all values together.
    """
    values = np.asarray(scores, np.float64)
    values = np.sort(values.ravel() if axis is None else np.moveaxis(values, axis, -1))
    cut = int(_CUT_SHARE * values.shape[-1])
    return np.asarray(values[..., cut : values.shape[-1] - cut].mean(axis=-1))


def probability_of_improvement(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """How probably a run of the first scores higher than one of the second on the same task; ties count half.

    Args:
        first: (num_runs, num_tasks) scores, higher is better.
        second: (other_num_runs, num_tasks).
    """
    return float(improvement_by_task(first, second).mean())


def improvement_by_task(first: NDArray[np.floating], second: NDArray[np.floating]) -> Array:
    """(num_tasks,) the Mann–Whitney statistic U / (num_runs · other_num_runs) of each task.

    Args:
        first: (num_runs, num_tasks) scores, higher is better.
        second: (other_num_runs, num_tasks).
    """
    difference = np.asarray(first, np.float64)[:, None] - np.asarray(second, np.float64)[None]
    return np.asarray(np.where(difference == 0, 0.5, difference > 0).mean(axis=(0, 1)))


def stratified_bootstrap(
    statistic: Callable[[Array], float], scores: NDArray[np.floating], *, samples: int = 2000, seed: int = 0
) -> Interval:
    """A statistic of (num_runs, num_tasks) scores with its 95 % percentile interval, runs drawn anew within each task.

    For runs that are independent of each other, as those of rliable are; days of traffic are not: see `bootstrap`.

    Args:
        statistic: of scores of that shape.
        scores: one a run and task.
        samples: resamples.
        seed: of the draws.
    """
    values = np.asarray(scores, np.float64)
    runs, tasks = values.shape
    estimate = float(statistic(values))
    if runs < 2:
        return Interval(estimate, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(runs, size=(samples, runs, tasks))
    resamples = np.array([float(statistic(values[rows, np.arange(tasks)])) for rows in drawn])
    return percentile_interval(estimate, resamples)
