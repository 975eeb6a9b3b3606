"""Intervals for what several training seeds reach on the same episodes: seeds are the outer level, episodes the inner one.

What differs between two runs of the same settings is the training seed, so seeds are drawn with replacement, each
contestant's on their own. All flew the same test episodes, so blocks of episodes are drawn once for all. Deviations are
widened for few seeds as in `scalepilot.evaluate.bootstrap`, conservatively by the smaller number of seeds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.aggregate import interquartile_mean
from scalepilot.evaluate.bootstrap import widening
from scalepilot.evaluate.statistics import Interval

Array = NDArray[np.float64]


def nested_mean(values: Array, blocks: NDArray[np.int64], *, samples: int = 2000, seed: int = 0) -> Interval:
    """Mean over training seeds and episodes with its 95 % interval.

    Args:
        values: (num_seeds, num_episodes).
        blocks: (num_episodes,) what is resampled together: the day or the episode itself.
        samples: resamples.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    return _interval(float(values.mean()), _resampled(values, blocks, _block_draws(blocks, samples, rng), rng), len(values))


def nested_difference(first: Array, second: Array, blocks: NDArray[np.int64], *, samples: int = 2000, seed: int = 0) -> Interval:
    """Mean of the first minus mean of the second, as `nested_mean`.

    Args:
        first: (num_seeds, num_episodes).
        second: (any number of seeds, num_episodes), of the same episodes.
        blocks: (num_episodes,).
        samples: resamples.
        seed: of the draws.

    Raises:
        ValueError: different episodes.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"first, second: shapes {first.shape} and {second.shape}; allowed: the same episodes in both")
    rng = np.random.default_rng(seed)
    drawn = _block_draws(blocks, samples, rng)
    resamples = _resampled(first, blocks, drawn, rng) - _resampled(second, blocks, drawn, rng)
    return _interval(float(first.mean() - second.mean()), resamples, min(len(first), len(second)))


def nested_iqm(values: Array, blocks: NDArray[np.int64], *, samples: int = 2000, seed: int = 0) -> Interval:
    """Interquartile mean over training seeds and episodes with its interval; arguments as `nested_mean`."""
    rng = np.random.default_rng(seed)
    drawn = _block_draws(blocks, samples, rng).astype(np.int64)
    _, block_of = np.unique(blocks, return_inverse=True)
    episodes = np.arange(values.shape[1])
    seeds = rng.integers(0, len(values), (samples, len(values)))
    resamples = np.array(
        [
            interquartile_mean(values[which][:, np.repeat(episodes, counts[block_of])])
            for which, counts in zip(seeds, drawn, strict=True)
        ]
    )
    return _interval(float(interquartile_mean(values)), resamples, len(values))


def _block_draws(blocks: NDArray[np.int64], samples: int, rng: np.random.Generator) -> Array:
    """(samples, num_blocks) how often each block is drawn; a single block is always drawn once."""
    count = len(np.unique(blocks))
    return rng.multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64)


def _resampled(values: Array, blocks: NDArray[np.int64], drawn: Array, rng: np.random.Generator) -> Array:
    """(samples,) means over drawn seeds and blocks."""
    unique, block_of = np.unique(blocks, return_inverse=True)
    sums = np.stack([np.bincount(block_of, row, len(unique)) for row in values])
    sizes = np.bincount(block_of, minlength=len(unique)).astype(np.float64)
    seeds = len(values)
    seed_draws = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(drawn)) / seeds
    means: Array = np.einsum("ns,sb,nb->n", seed_draws, sums, drawn, optimize=True) / (drawn @ sizes)
    return means


def _interval(estimate: float, resamples: Array, num_seeds: int) -> Interval:
    if num_seeds < 2:
        return Interval(estimate, math.nan, math.nan)
    low, high = np.percentile(estimate + widening(num_seeds) * (resamples - estimate), (2.5, 97.5))
    return Interval(estimate, float(low), float(high))
