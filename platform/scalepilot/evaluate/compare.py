"""Compare contenders over the same episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.comparison import ROLES, Comparison, Contender, GapReference, PlayedBack, Scope
from scalepilot.evaluate.statistics.intervals import GapClosed, Interval, block_bootstrap, gap_closed, paired_difference
from scalepilot.evaluate.store import read_evaluation, write_evaluation
from scalepilot.simulate import EpisodeIndex, EpisodeSet, Playback
from scalepilot.simulate.scenario import Compared
from scalepilot_envs.objective import Objective


def compare(
    workload: str,
    episodes: Compared,
    contenders: Sequence[Contender],
    *,
    bootstrap_samples: int = 2000,
    bound: NDArray[np.float64] | None = None,
) -> Comparison:
    """Compare contenders by what decides and its parts, each policy with each baseline over the same episodes.

    Args:
        workload: name.
        episodes: what all of them ran through.
        contenders: with results for exactly these episodes.
        bootstrap_samples: resamples behind the intervals.
        bound: (n,) what no policy can do better than, one an episode: the gap is closed towards it. Without one it is closed
            towards the first reference.

    Raises:
        InputError: no contenders, a name twice, an unknown role, or results or playbacks of other episodes.
    """
    index, objective = episodes.index, episodes.objective
    _check(index, contenders)
    blocks, decides = index.blocks, objective.column
    rows = {c.name: _figures(c, objective, blocks, bootstrap_samples) for c in contenders}
    policies = [c for c in contenders if c.role == "policy"]
    baselines = [c for c in contenders if c.role == "baseline"]
    reference = next((c for c in contenders if c.role == "reference"), None)
    versus = {
        p.name: {
            b.name: paired_difference(p.by_member(decides), b.results[decides], blocks, samples=bootstrap_samples)
            for b in baselines
        }
        for p in policies
    }
    closed: dict[str, dict[str, GapClosed]] = {}
    gap_reference, towards = None, None
    if reference is not None:
        gap_reference = GapReference(reference.name, bound is not None)
        towards = reference.results[decides] if bound is None else bound
        # A gap is one of losses, whichever way the figure is better.
        sign = objective.sign
        closed = {
            c.name: {
                b.name: gap_closed(
                    sign * c.by_member(decides), sign * b.results[decides], sign * towards, blocks, samples=bootstrap_samples
                )
                for b in baselines
                if b is not c
            }
            for c in (*policies, *baselines)
        }
    shown = _played_back(episodes, contenders)
    num_steps, (mean_rps, peak_rps) = episodes.num_steps, episodes.mean_and_peak_rps
    scope = Scope(
        windows=len(np.unique(index.window)),
        seeds=int(index.repeat.max()) + 1,
        days=index.days,
        block=index.block,
        num_blocks=len(np.unique(blocks)),
        window_steps=num_steps,
        window_hours=num_steps * shown.interval_seconds / 3600 if shown and num_steps else None,
        mean_rps=mean_rps,
        peak_rps=peak_rps,
    )
    return Comparison(workload, objective, index, tuple(contenders), rows, closed, versus, scope, shown, gap_reference, towards)


def _check(index: EpisodeIndex, contenders: Sequence[Contender]) -> None:
    if not contenders:
        raise InputError("contenders: none given; allowed: at least one")
    names = [c.name for c in contenders]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"contenders: the name {name!r} is given twice; allowed: each once")
    for c in contenders:
        if c.role not in ROLES:
            raise InputError(f"contenders: {c.name}: role {c.role!r} is not allowed; allowed: {', '.join(ROLES)}")
        for results in (c.results, *(m.results for m in c.members)):
            if not (np.array_equal(results.window, index.window) and np.array_equal(results.seed, index.seed)):
                raise InputError(
                    f"contenders: {c.name}: its results are not those of these episodes; allowed: the same (window, seed)s"
                )


def _figures(contender: Contender, objective: Objective, blocks: NDArray[np.int64], samples: int) -> dict[str, Interval]:
    """Every metric with its interval."""
    found = {}
    for name, metric in objective.metrics_of(contender.results.columns).items():
        values, weights = contender.sums(metric)
        found[name] = block_bootstrap(values, blocks, weights=weights, samples=samples, bounds=metric.bounds)
    return found


def _played_back(episodes: Compared, contenders: Sequence[Contender]) -> PlayedBack | None:
    """The episode all playbacks show, found by its arrivals.

    Raises:
        InputError: playbacks of different episodes, or of none of these.
    """
    shown = [(c.name, c.playback) for c in contenders if c.playback is not None]
    if not shown:
        return None
    first_name, first = shown[0]
    for name, playback in shown[1:]:
        if not np.array_equal(playback.arrival_rate_rps, first.arrival_rate_rps):
            raise InputError(f"contenders: {name} and {first_name} play back different episodes; allowed: the same for all")
    traffic = getattr(episodes, "episodes", episodes)
    found = _find_episode(traffic, first) if isinstance(traffic, EpisodeSet) else None
    if found is None:
        raise InputError(f"contenders: {first_name}: its playback is of none of these episodes")
    row, interval_seconds = found
    index = episodes.index
    return PlayedBack(int(index.window[row]), int(index.seed[row]), float(index.start_unix_seconds[row]), interval_seconds)


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


__all__ = ["Comparison", "Contender", "compare", "read_evaluation", "write_evaluation"]
