"""Recorded traffic through the simulator: what really ran, and what others would have made of the same requests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.operate.guard import Limits
from scalepilot.operate.recorded import HISTORY, Recorded
from scalepilot.operate.taken_over import TakenOver
from scalepilot.policy import Planner, Policy
from scalepilot.simulate import EpisodeSet, PlannedTargets, run_episodes
from scalepilot.simulate.step_log import STEP_COLUMNS, StepLog
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.dynamics import AutoscaleState, StepOutcome
from scalepilot_envs.autoscale.params import MAX_REPLICAS
from scalepilot_envs.description import EnvDescription

Array = NDArray[np.float64]
# So many intervals without a measurement are passed over: simulated with the requests that the next decision's history tells
# of, or with some between those before and after, and counted in no figure. A longer gap ends a piece: what follows begins anew
# with the replicas that really ran.
BRIDGED_INTERVALS = 8
# Replicas that are asked for take effect in the same interval, in the next, or one later.
SHIFTS = 3
_DAY_SECONDS, _LEAD_SECONDS = 86_400.0, 3600.0
_FEWEST_STARTUPS = 5


@dataclass(frozen=True)
class Pieces:
    """Recorded traffic, cut at gaps and into days, all equally long: what is too short is filled up, and not counted.

    Attributes:
        episodes: one a piece. Each begins with a lead of up to an hour, so that what is simulated finds its way in.
        asked: (SHIFTS, n, num_steps) replicas asked for at the end of each step, at its beginning, a step before that.
        counted: (n, num_steps) whether requests and replicas of the step were measured.
        row: (n, num_steps) of the record at the end of the step, where it is counted.
        forced: (n,) steps at the beginning in which everyone has the replicas that really ran.
    """

    episodes: EpisodeSet
    asked: Array
    counted: NDArray[np.bool_]
    row: NDArray[np.int64]
    forced: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """(num_counted,) of the record, one a counted step."""
        found: NDArray[np.int64] = self.row[self.counted]
        return found

    def settled(self, steps: int) -> NDArray[np.bool_]:
        """(num_counted,) whether nothing was passed over in so many steps before: who scaled meanwhile is not known."""
        begun = np.logical_or.accumulate(self.counted, axis=1)
        at = np.arange(self.counted.shape[1])
        last = np.maximum.accumulate(np.where(begun & ~self.counted, at, -steps - 1), axis=1)
        found: NDArray[np.bool_] = (at - last > steps)[self.counted]
        return found


def cut(recorded: Recorded, params: AutoscaleParams) -> Pieces:
    """The pieces of a record.

    Args:
        recorded: with rates and replicas where they were measured.
        params: the service; start-up time and window say how long the lead is.

    Raises:
        InputError: nowhere two decisions in a row know both requests and replicas.
    """
    interval = recorded.interval_seconds
    known = np.flatnonzero(np.isfinite(recorded["rate_rps"]) & np.isfinite(recorded["spec"]))
    moment = recorded.moment[known]
    ends = np.flatnonzero(np.diff(moment) > BRIDGED_INTERVALS) + 1
    lead = math.ceil(max(_LEAD_SECONDS / interval, params.startup_steps + 1, params.window_steps))
    longest = max(1, round(_DAY_SECONDS / interval))
    pieces = []
    for rows in np.split(known, ends):
        if len(rows) < 2:
            continue
        dense = _dense(recorded, rows)
        steps = len(dense.rate) - 1
        for first in range(0, steps, longest):
            pieces.append(_piece(dense, first, min(steps, first + longest), lead, params))
    if not pieces:
        raise InputError("records: no two decisions in a row know both requests and replicas; allowed: records that do")
    length = max(len(piece.rate) for piece in pieces)
    filled = [_filled(piece, length) for piece in pieces]
    rates = np.stack([piece.rate for piece in filled])
    start = np.array([(piece.moment[0] - 1) * interval for piece in filled])
    number = np.arange(len(filled))
    episodes = EpisodeSet("recorded", rates, rates * interval, number, np.zeros(len(filled), np.int64), start)
    asked = np.stack([piece.asked for piece in filled], axis=1)
    row = np.stack([piece.row for piece in filled])
    return Pieces(episodes, asked, row >= 0, row, np.array([piece.forced for piece in filled]))


@dataclass(frozen=True)
class _Steps:
    """A stretch without long gaps; (num_steps,) each, `row` −1 where nothing was measured.

    `before_rps` is the mean rate of some time up to the step, and `asked` (SHIFTS, num_steps) are the replicas asked for at the
    end of a step, at its beginning, and so on.
    """

    rate: Array
    before_rps: Array
    asked: Array
    moment: NDArray[np.int64]
    row: NDArray[np.int64]
    forced: int = 0

    def at(self, steps: NDArray[np.int64]) -> _Steps:
        """Some of the steps."""
        ends = (self.moment[steps], self.row[steps], self.forced)
        return _Steps(self.rate[steps], self.before_rps[steps], self.asked[:, steps], *ends)


def _dense(recorded: Recorded, rows: NDArray[np.int64]) -> _Steps:
    """One entry a moment, those passed over included; the first is only where the first step begins."""
    at = recorded.moment[rows]
    moment = np.arange(at[0], at[-1] + 1)
    last = np.searchsorted(at, moment, side="right") - 1
    spec = recorded["spec"][rows][last]
    row = np.where(at[last] == moment, rows[last], -1)
    rate = np.interp(moment, at, recorded["rate_rps"][rows])
    for back, name in enumerate(HISTORY, start=1):
        # Measured, though later: better than what lies between the moments before and after.
        missed = at - at[0] - back
        told = recorded[name][rows]
        of = np.flatnonzero((missed >= 0) & np.isfinite(told))
        of = of[row[missed[of]] < 0]
        rate[missed[of]] = told[of]
    asked = np.stack([spec[np.maximum(np.arange(len(spec)) - shift, 0)] for shift in range(SHIFTS)])
    mean = recorded["request_rate_mean_rps"][rows][last]
    return _Steps(rate, np.where(np.isfinite(mean), mean, rate), asked, moment, row)


def _piece(dense: _Steps, first: int, last: int, lead: int, params: AutoscaleParams) -> _Steps:
    """Steps first … last − 1 behind their lead: what was before, or without that what was usual at the first moment."""
    before = min(lead, first)
    # The entry of a step is that of its end.
    at = np.arange(first - before, last) + 1
    part = dense.at(at)
    part.row[:before] = -1
    missing = lead - before
    # One interval alone may have had few requests, or many.
    usual = np.full(missing, dense.before_rps[at[0] - 1])
    return _Steps(
        np.concatenate([usual, part.rate]),
        np.concatenate([usual, part.before_rps]),
        np.concatenate([np.full((SHIFTS, missing), part.asked[1, 0]), part.asked], axis=1),
        np.concatenate([part.moment[0] + np.arange(-missing, 0), part.moment]),
        np.concatenate([np.full(missing, -1), part.row]),
        missing or params.startup_steps + 1,
    )


def _filled(piece: _Steps, length: int) -> _Steps:
    """As long as the longest, its last step again and again."""
    have = len(piece.rate)
    filled = piece.at(np.minimum(np.arange(length), have - 1))
    filled.row[have:] = -1
    return filled


@dataclass(frozen=True)
class Ran:
    """What came of one actor; (num_counted,) each, in the order of `Pieces.rows`.

    Attributes:
        cost: currency of the interval.
        replicas: ready and starting ones.
        ready: at the end of the interval.
        late: requests.
        moved: replicas ordered or removed.
    """

    cost: Array
    replicas: Array
    ready: Array
    late: Array
    moved: Array


def run(
    actor: Policy | Planner,
    pieces: Pieces,
    params: AutoscaleParams,
    times: int = 1,
    on_step: Callable[[], None] = lambda: None,
) -> list[Ran]:
    """Simulate an actor on all pieces, or several side by side.

    Args:
        actor: decides; its first n rows are the first candidate's.
        pieces: of the record.
        params: the service.
        times: how many candidates there are.
        on_step: called after each of their steps.

    Returns:
        One a candidate.
    """
    episodes = pieces.episodes.repeated(times)
    log = StepLog(len(episodes), episodes.num_steps)

    def keep(t: int, state: AutoscaleState, outcome: StepOutcome, desired: Array) -> None:
        log(t, state, outcome, desired)
        on_step()

    run_episodes(actor, episodes, params, on_step=keep)
    columns = dict(zip(STEP_COLUMNS, log.steps, strict=True))
    columns["cost"] = columns["replica_cost"] + columns["late_cost"] + columns["move_cost"]
    billed = columns["billed_replicas"]
    columns["moved"] = np.abs(np.diff(billed, axis=1, prepend=billed[:, :1]))
    found = []
    for rows in np.split(np.arange(len(episodes)), times):
        names = ("cost", "billed_replicas", "ready_replicas", "late_requests", "moved")
        found.append(Ran(*(columns[name][rows][pieces.counted].astype(np.float64) for name in names)))
    return found


def taken_over(
    policy: Policy, pieces: Pieces, shift: int, env: EnvDescription, *, limits: Limits | None = None, times: int = 1
) -> TakenOver:
    """A policy that takes the service over as it was.

    Args:
        policy: decides; with several `times`, for so many candidates side by side.
        pieces: of the record.
        shift: which of `Pieces.asked` is right.
        env: that the policy was made for.
        limits: see `TakenOver`.
        times: how many candidates there are.
    """
    asked, start = np.tile(pieces.asked[shift], (times, 1)), np.tile(pieces.episodes.start_unix_seconds, times)
    return TakenOver(policy, asked, np.tile(pieces.forced, times), env, start, limits)


def replayed_replicas(
    recorded: Recorded, pieces: Pieces, params: AutoscaleParams, on_step: Callable[[], None] = lambda: None
) -> tuple[Ran, int]:
    """The replicas that really ran, simulated.

    Whoever scaled did so some time within an interval, and it may take effect later. When it did is told by when the replicas
    were ready; without a say, at once, as our own writes do.

    Returns:
        What came of them, and which of `Pieces.asked` it is.
    """
    ready = recorded["ready"][pieces.rows]
    seen = np.isfinite(ready)
    best, shift, least = None, 0, math.inf
    for late in range(SHIFTS):
        # With a lag the plan is commanded as much earlier; what is removed is then seen at the end of its interval, as it is.
        lagging = replace(params, actuation_lag_steps=late)
        found = run(PlannedTargets("what ran", pieces.asked[late]), pieces, lagging, on_step=on_step)[0]
        off = float(np.abs(found.ready - ready)[seen].mean()) if seen.any() else 0.0
        if off < least:
            best, shift, least = found, late, off
        if off == 0.0:
            for _ in range((SHIFTS - 1 - late) * pieces.episodes.num_steps):
                on_step()
            break
    assert best is not None
    return best, shift


def as_recorded(recorded: Recorded, params: AutoscaleParams) -> AutoscaleParams:
    """The service as the records show it: its capacity, its start-up time, and bounds that what really ran keeps to."""
    capacity, spec = recorded["replica_capacity_rps"], recorded["spec"]
    capacity, spec = capacity[np.isfinite(capacity) & (capacity > 0)], spec[np.isfinite(spec)]
    low = int(min(params.min_replicas, spec.min(initial=params.min_replicas)))
    high = int(min(MAX_REPLICAS, max(params.max_replicas, spec.max(initial=params.max_replicas))))
    service = replace(params, min_replicas=low, max_replicas=high, interval_seconds=recorded.interval_seconds)
    if len(capacity):
        service = replace(service, replica_capacity_rps=float(np.median(capacity)))
    startup = measured_startup_seconds(recorded)
    if startup is not None and math.ceil(startup / recorded.interval_seconds) != service.startup_steps:
        service = replace(service, startup_seconds=startup)
    return service


def measured_startup_seconds(recorded: Recorded) -> float | None:
    """From when a replica was made until it served; None where too few were seen to become ready."""
    oldest, ready, interval = recorded["oldest_starting_seconds"], recorded["ready"], recorded.interval_seconds
    with np.errstate(invalid="ignore"):
        served = (oldest[:-1] > 0) & (oldest[1:] < oldest[:-1]) & (ready[1:] > ready[:-1]) & (np.diff(recorded.moment) == 1)
    if np.count_nonzero(served) < _FEWEST_STARTUPS:
        return None
    return float(np.median(oldest[:-1][served])) + interval / 2
