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
from scalepilot.simulate.episodes import EpisodeSet, poisson_windows
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import Part, RatePool, RateSeries, Workload, pool_of

WINDOW_STEPS = 1920
DRAWN_WINDOWS = 24
TEST_SEEDS = (0, 1, 2)
SEARCH_SEEDS = (0,)
_FEWEST_TO_SPLIT = 4
_SPLIT: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class ProtocolData:
    """The three sets of episodes, and the training part to fit forecasts to: of a pool, its members one after the other.

    Attributes:
        train_series: the training part.
        train, validation, test: windows of the parts.
        workload: what they were cut from; None where that is not known.
    """

    train_series: RateSeries
    train: EpisodeSet
    validation: EpisodeSet
    test: EpisodeSet
    workload: Workload | None = None


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
        whole = pool_of(workload, "all", params.interval_seconds)
    except ValueError as error:
        # A trace names its file and line, the value and what is allowed.
        raise InputError(str(error)) from None
    parts = {part: _part(name, whole, part, params.interval_seconds, window_steps) for part in _SPLIT}
    # One generator draws the training windows first, then the validation windows: the reference's order.
    rng = np.random.default_rng(0)
    train, validation = (parts[part].drawn_windows(window_steps, drawn_windows, rng) for part in ("train", "validation"))
    interval, dispersion = params.interval_seconds, params.arrival_dispersion
    return ProtocolData(
        parts["train"].joined(),
        poisson_windows(name, *train, interval, SEARCH_SEEDS, dispersion),
        poisson_windows(name, *validation, interval, SEARCH_SEEDS, dispersion),
        poisson_windows(name, *parts["test"].all_windows(window_steps), interval, test_seeds, dispersion),
        workload,
    )


def _part(name: str, whole: RatePool, part: Part, interval_seconds: float, window_steps: int) -> RatePool:
    """A part of the time that holds a window.

    Raises:
        InputError: naming the workload, or the member of a pool, that is too short.
    """
    for member, series in zip(whole.names, whole.members, strict=True):
        told = name if len(whole.members) == 1 else f"{name}, {member},"
        if len(series) < _FEWEST_TO_SPLIT:
            raise InputError(f"workload: {told} has {len(series)} steps; allowed: at least {_FEWEST_TO_SPLIT}, to be split")
        steps = len(series.part(part))
        if steps <= window_steps:
            tenths_of_days = math.ceil((window_steps + 2) * interval_seconds / 0.15 / 8640)
            raise InputError(
                f"workload: the {part} part of {told} has {steps} steps of {interval_seconds:g} s, a window has"
                f" {window_steps}; allowed: at least {tenths_of_days / 10:.1f} days, or a smaller evaluation.window_steps"
            )
    return whole.part(part)
