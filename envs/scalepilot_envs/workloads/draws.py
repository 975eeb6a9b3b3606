"""Request patterns drawn by chance, counted in whole requests an interval: poisson, random, random_walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from scalepilot_envs.checks import Between
from scalepilot_envs.workloads.checks import FewestRequests, GridSeconds, NumSteps, Peak, Requests, Seed, Share
from scalepilot_envs.workloads.patterns import (
    INTERVAL_SECONDS,
    MAX_REQUESTS,
    NUM_STEPS,
    OFFSET_REQUESTS,
    Counted,
    check_counts,
)


@dataclass(frozen=True)
class PoissonWorkload(Counted):
    """Poisson counts around one mean, clipped to the range.

    Attributes:
        max_requests: upper end of the range, requests an interval.
        offset_requests: lower end of the range, requests an interval.
        mean_share: where in the range the mean lies, 0 to 1.
        seed: of the draws.
        num_steps: length in intervals.
        interval_seconds: grid.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["poisson"] = "poisson"
    max_requests: Requests = MAX_REQUESTS
    offset_requests: FewestRequests = OFFSET_REQUESTS
    mean_share: Share = 0.5
    seed: Seed = 0
    num_steps: NumSteps = NUM_STEPS
    interval_seconds: GridSeconds = INTERVAL_SECONDS
    peak_rps: Peak | None = None

    def __post_init__(self) -> None:
        check_counts(self)

    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""
        mean = self.offset_requests + self.mean_share * (self.max_requests - self.offset_requests)
        counts = np.random.default_rng(self.seed).poisson(mean, self.num_steps)
        return np.clip(counts, self.offset_requests, self.max_requests)


@dataclass(frozen=True)
class RandomWorkload(Counted):
    """Whole numbers drawn uniformly from the range, each without regard to the others.

    Attributes:
        max_requests: largest, requests an interval.
        offset_requests: smallest, requests an interval.
        seed: of the draws.
        num_steps: length in intervals.
        interval_seconds: grid.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["random"] = "random"
    max_requests: Requests = MAX_REQUESTS
    offset_requests: FewestRequests = OFFSET_REQUESTS
    seed: Seed = 0
    num_steps: NumSteps = NUM_STEPS
    interval_seconds: GridSeconds = INTERVAL_SECONDS
    peak_rps: Peak | None = None

    def __post_init__(self) -> None:
        check_counts(self)

    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""
        rng = np.random.default_rng(self.seed)
        return rng.integers(self.offset_requests, self.max_requests, self.num_steps, endpoint=True)


@dataclass(frozen=True)
class RandomWalkWorkload(Counted):
    """A walk of uniform steps, mirrored at both ends of the range.

    Attributes:
        max_requests: upper wall, requests an interval.
        offset_requests: lower wall, requests an interval.
        start_share: where in the range the walk begins, 0 to 1.
        largest_step_requests: each step is a whole number drawn uniformly from − this to + this.
        seed: of the steps.
        num_steps: length in intervals.
        interval_seconds: grid.
        peak_rps: scale so that the 99.5 % quantile is this; None keeps the rates.
    """

    kind: Literal["random_walk"] = "random_walk"
    max_requests: Requests = MAX_REQUESTS
    offset_requests: FewestRequests = OFFSET_REQUESTS
    start_share: Share = 0.5
    largest_step_requests: Annotated[int, Between(1, 10**9)] = 100
    seed: Seed = 0
    num_steps: NumSteps = NUM_STEPS
    interval_seconds: GridSeconds = INTERVAL_SECONDS
    peak_rps: Peak | None = None

    def __post_init__(self) -> None:
        check_counts(self)

    def request_counts(self) -> NDArray[np.int64]:
        """(num_steps,) requests an interval."""
        span = self.max_requests - self.offset_requests
        largest = self.largest_step_requests
        steps = np.random.default_rng(self.seed).integers(-largest, largest, self.num_steps, endpoint=True)
        steps[0] = int(self.start_share * span)
        # A walk between mirrors is the free walk seen through them: fold the line onto the range.
        folded = span - np.abs(np.cumsum(steps) % (2 * span) - span) if span else np.zeros_like(steps)
        return folded + self.offset_requests
