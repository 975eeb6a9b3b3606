"""Protocol v1: how a policy for Autoscale-v0 is evaluated on a workload.

The workload is resampled to the decision interval and split by time 70 / 15 / 15. Training and validation windows are
drawn (24 each) from their own parts, test windows are all disjoint 8-hour windows of the last part. Arrivals are
Poisson; test uses seeds 0, 1, 2. Source: the shared specification `golden/protocol.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scalepilot.errors import InputError
from scalepilot.simulate.episodes import EpisodeSet, poisson_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import RateSeries, Workload

WINDOW_STEPS = 1920
DRAWN_WINDOWS = 24
TEST_SEEDS = (0, 1, 2)
SEARCH_SEEDS = (0,)
_FEWEST_TO_SPLIT = 4


@dataclass(frozen=True)
class ProtocolData:
    """The three sets of episodes, and the training part to train on."""

    train_series: RateSeries
    train: EpisodeSet
    validation: EpisodeSet
    test: EpisodeSet


def protocol_v1(
    name: str,
    workload: Workload,
    params: AutoscaleParams,
    *,
    window_steps: int = WINDOW_STEPS,
    drawn_windows: int = DRAWN_WINDOWS,
    test_seeds: tuple[int, ...] = TEST_SEEDS,
) -> ProtocolData:
    """Cut a workload into the protocol's episodes.

    Args:
        name: of the workload, for tables.
        workload: scaled as wanted already (protocol v1 proper: `peak_rps` 500).
        params: the service; only its interval matters here.
        window_steps: steps of a window (1,920 of 15 s are 8 hours).
        drawn_windows: training and validation windows.
        test_seeds: arrival seeds of the test.

    Raises:
        InputError: a trace that cannot be used, or a workload too short for a window in each part.
    """
    try:
        series = workload.series()
    except ValueError as error:
        # A trace names its file and line, the value and what is allowed.
        raise InputError(str(error)) from None
    if series.interval_seconds != params.interval_seconds:
        series = series.resampled(params.interval_seconds)
    if len(series) < _FEWEST_TO_SPLIT:
        raise InputError(f"workload: {name} has {len(series)} steps; allowed: at least {_FEWEST_TO_SPLIT}, to be split")
    parts = {part: series.part(part) for part in ("train", "validation", "test")}
    for part, cut in parts.items():
        if len(cut) <= window_steps:
            tenths_of_days = math.ceil((window_steps + 2) * params.interval_seconds / 0.15 / 8640)
            raise InputError(
                f"workload: the {part} part of {name} has {len(cut)} steps of {params.interval_seconds:g} s, a window has"
                f" {window_steps}; allowed: at least {tenths_of_days / 10:.1f} days, or a smaller evaluation.window_steps"
            )
    # One generator draws the training windows first, then the validation windows: the reference's order.
    rng = np.random.default_rng(0)
    train_starts = parts["train"].drawn_starts(window_steps, drawn_windows, rng)
    validation_starts = parts["validation"].drawn_starts(window_steps, drawn_windows, rng)
    return ProtocolData(
        parts["train"],
        poisson_episodes(name, parts["train"], train_starts, window_steps, SEARCH_SEEDS),
        poisson_episodes(name, parts["validation"], validation_starts, window_steps, SEARCH_SEEDS),
        poisson_episodes(name, parts["test"], parts["test"].window_starts(window_steps), window_steps, test_seeds),
    )
