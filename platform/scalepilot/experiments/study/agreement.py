"""Whether two engines agree: by intervals over training seeds and episodes (`scalepilot.evaluate.statistics.nested`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.statistics.intervals import Interval
from scalepilot.evaluate.statistics.nested import nested_difference

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


def agreement(
    rllib: Array, sb3: Array, blocks: NDArray[np.int64], *, lower_is_better: bool, samples: int = 2000, seed: int = 0
) -> Agreement:
    """Compare two engines by what their policies reach on the same episodes.

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
