"""Compare contestants over the same episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.comparison import ROLES, TOTALS, Comparison, Contestant, GapReference, PlayedBack, Scope
from scalepilot.evaluate.statistics.intervals import GapClosed, Interval, block_bootstrap, gap_closed, paired_difference
from scalepilot.evaluate.store import read_evaluation, write_evaluation
from scalepilot.simulate import EpisodeResults, EpisodeSet, Playback


def compare(
    workload: str,
    episodes: EpisodeSet,
    contestants: Sequence[Contestant],
    *,
    bootstrap_samples: int = 2000,
    lower_bound_J_per_hour: NDArray[np.float64] | None = None,
) -> Comparison:
    """Judge contestants by J and its parts, each policy against each baseline over the same pairs.

    Args:
        workload: name.
        episodes: what all of them flew through.
        contestants: with results for exactly these episodes.
        bootstrap_samples: resamples behind the intervals.
        lower_bound_J_per_hour: (n,) what no policy can cost less than, one an episode: the gap is closed towards it. Without
            one it is closed towards the first reference.

    Raises:
        InputError: no contestants, a name twice, an unknown role, or results or playbacks of other episodes.
    """
    _check(episodes, contestants)
    day = episodes.day
    days, windows = len(np.unique(day)), len(np.unique(episodes.window))
    # On a single day, days cannot be resampled; windows can, and the report says that day-to-day chance is missing.
    by_day = days > 1
    blocks = day if by_day else episodes.window
    rows = {c.name: _figures(c, blocks, bootstrap_samples) for c in contestants}
    policies = [c for c in contestants if c.role == "policy"]
    baselines = [c for c in contestants if c.role == "baseline"]
    reference = next((c for c in contestants if c.role == "reference"), None)
    versus = {
        p.name: {
            b.name: paired_difference(p.by_member(_J), b.results.J_per_hour, blocks, samples=bootstrap_samples) for b in baselines
        }
        for p in policies
    }
    closed: dict[str, dict[str, GapClosed]] = {}
    gap_reference, towards = None, None
    if reference is not None:
        gap_reference = GapReference(reference.name, lower_bound_J_per_hour is not None)
        towards = reference.results.J_per_hour if lower_bound_J_per_hour is None else lower_bound_J_per_hour
        closed = {
            c.name: {
                b.name: gap_closed(c.by_member(_J), b.results.J_per_hour, towards, blocks, samples=bootstrap_samples)
                for b in baselines
                if b is not c
            }
            for c in (*policies, *baselines)
        }
    shown = _played_back(episodes, contestants)
    scope = Scope(
        windows=windows,
        seeds=len(np.unique(episodes.seed)),
        days=days,
        block="day" if by_day else "window",
        num_blocks=days if by_day else windows,
        window_steps=episodes.num_steps,
        window_hours=episodes.num_steps * shown.interval_seconds / 3600 if shown else None,
        mean_rps=float(episodes.rates_rps.mean()),
        peak_rps=float(episodes.rates_rps.max()),
    )
    return Comparison(workload, episodes, tuple(contestants), rows, closed, versus, scope, shown, gap_reference, towards)


def _check(episodes: EpisodeSet, contestants: Sequence[Contestant]) -> None:
    if not contestants:
        raise InputError("contestants: none given; allowed: at least one")
    names = [c.name for c in contestants]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"contestants: the name {name!r} is given twice; allowed: each once")
    for c in contestants:
        if c.role not in ROLES:
            raise InputError(f"contestants: {c.name}: role {c.role!r} is not allowed; allowed: {', '.join(ROLES)}")
        for results in (c.results, *(m.results for m in c.members)):
            if not (np.array_equal(results.window, episodes.window) and np.array_equal(results.seed, episodes.seed)):
                raise InputError(
                    f"contestants: {c.name}: its results are not those of these episodes; allowed: the same (window, seed)s"
                )


def _J(results: EpisodeResults) -> NDArray[np.float64]:
    return results.J_per_hour


def _figures(contestant: Contestant, blocks: NDArray[np.int64], samples: int) -> dict[str, Interval]:
    """Every metric with its interval."""
    return {
        name: block_bootstrap(
            contestant.by_member(total.values),
            blocks,
            weights=None if total.weights is None else contestant.by_member(total.weights),
            samples=samples,
            bounds=total.bounds,
        )
        for name, total in TOTALS.items()
    }


def _played_back(episodes: EpisodeSet, contestants: Sequence[Contestant]) -> PlayedBack | None:
    """The episode all playbacks show, found by its arrivals.

    Raises:
        InputError: playbacks of different episodes, or of none of these.
    """
    shown = [(c.name, c.playback) for c in contestants if c.playback is not None]
    if not shown:
        return None
    first_name, first = shown[0]
    for name, playback in shown[1:]:
        if not np.array_equal(playback.arrival_rate_rps, first.arrival_rate_rps):
            raise InputError(f"contestants: {name} and {first_name} play back different episodes; allowed: the same for all")
    found = _find_episode(episodes, first)
    if found is None:
        raise InputError(f"contestants: {first_name}: its playback is of none of these episodes")
    row, interval_seconds = found
    return PlayedBack(
        int(episodes.window[row]), int(episodes.seed[row]), float(episodes.start_unix_seconds[row]), interval_seconds
    )


def _find_episode(episodes: EpisodeSet, playback: Playback) -> tuple[int, float] | None:
    """Row whose arrivals the playback shows, and the seconds of a step: arrivals = rate × interval."""
    rate = playback.arrival_rate_rps
    total = float(rate.sum())
    if rate.shape != (episodes.num_steps,) or total <= 0:
        return None
    intervals = episodes.arrived.sum(axis=1) / total
    for row in np.flatnonzero(intervals > 0):
        if np.allclose(rate * intervals[row], episodes.arrived[row], rtol=1e-6, atol=1e-6):
            return int(row), round(float(intervals[row]), 6)
    return None


__all__ = ["Comparison", "Contestant", "compare", "read_evaluation", "write_evaluation"]
