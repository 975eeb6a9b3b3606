"""Whether two engines agree: intervals over training seeds (outer level) and episodes (inner level).

What differs between two runs of the same engine is the training seed, so seeds are drawn with replacement, each engine's on
their own. Both flew the same test episodes, so blocks of episodes are drawn once for both. Deviations are widened for few
seeds as in `scalepilot.evaluate.statistics`, conservatively by the smaller number of seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.statistics import Interval, widening

Array = NDArray[np.float64]
Outcome = Literal["agree", "RLlib better", "SB3 better", "undecided"]
# A difference smaller than this share of what both reach makes no difference in practice.
EQUIVALENT_SHARE = 0.05


@dataclass(frozen=True)
class Agreement:
    """The verdict on two engines.

    Attributes:
        outcome: agree, RLlib better, SB3 better, or undecided for want of seeds.
        reason: why, in a few words.
        difference: RLlib − SB3, in the metric's unit.
        relative: the same as shares of the mean of both.
    """

    outcome: Outcome
    reason: str
    difference: Interval
    relative: Interval


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


def agreement(
    rllib: Array, sb3: Array, blocks: NDArray[np.int64], *, lower_is_better: bool, samples: int = 2000, seed: int = 0
) -> Agreement:
    """Judge two engines by what their policies reach on the same episodes.

    Args:
        rllib: (num_seeds, num_episodes).
        sb3: likewise.
        blocks: (num_episodes,).
        lower_is_better: of the metric.
        samples: resamples.
        seed: of the draws.
    """
    difference = nested_difference(rllib, sb3, blocks, samples=samples, seed=seed)
    scale = abs(float(rllib.mean() + sb3.mean())) / 2
    relative = Interval(*(x / scale if scale else math.nan for x in (difference.mean, difference.low, difference.high)))
    limit = EQUIVALENT_SHARE * scale
    if not difference.is_known:
        return Agreement("undecided", "one seed says nothing of the next", difference, relative)
    if -limit <= difference.low and difference.high <= limit:
        return Agreement("agree", f"the difference is within ±{EQUIVALENT_SHARE:.0%} of the mean", difference, relative)
    if difference.low <= 0 <= difference.high:
        return Agreement("agree", "the difference may be 0, but the interval is wide", difference, relative)
    better: Outcome = "RLlib better" if (difference.mean < 0) == lower_is_better else "SB3 better"
    return Agreement(better, "the interval of the difference leaves out 0", difference, relative)


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
