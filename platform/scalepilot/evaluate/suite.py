"""Several workloads together: who does best over all of them, and how sure that is.

Money on a small service and on a large one cannot be averaged, so costs are also stated relative to one baseline, whose mean
J counts as 1 on every workload. Everything comes with an interval from the same draws of days, each workload's own, and of
training seeds, the same for all workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.comparison import TOTALS, Comparison, Contestant, Role, Total
from scalepilot.evaluate.statistics.aggregate import improvement_by_task, interquartile_mean
from scalepilot.evaluate.statistics.bootstrap import Indices, Statistic, block_sums, drawn_sums, nested_bootstrap, ratio
from scalepilot.evaluate.statistics.intervals import (
    FROM_ZERO,
    SHARE,
    UNBOUNDED,
    UNKNOWN,
    Bounds,
    GapClosed,
    Interval,
    has_gap,
    percentile_interval,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """One contestant over all workloads.

    Attributes:
        name, role, detail: as in its comparisons.
        relative_cost_iqm: interquartile mean over (training seed, arrival seed) runs and workloads of J relative to the
            yardstick's mean on that workload: 0.9 is a tenth cheaper.
        relative_cost_mean: the mean of the same.
        figures: metric (METRICS) → its mean over the workloads.
        improvement: baseline → how probably a run of this one is cheaper than one of the baseline in the same window, ties
            half, averaged over windows and then workloads.
        gap_closed: baseline → gap closed, a ratio of sums over the pairs of all workloads; empty without a reference.
    """

    name: str
    role: Role
    detail: str
    relative_cost_iqm: Interval
    relative_cost_mean: Interval
    figures: Mapping[str, Interval]
    improvement: Mapping[str, Interval]
    gap_closed: Mapping[str, GapClosed]


@dataclass(frozen=True)
class SuiteComparison:
    """The same contestants on one workload or several.

    Attributes:
        comparisons: one a workload.
        yardstick: the baseline (without one, the first contestant) whose mean J counts as 1 on each workload.
        standings: one a contestant, in the order of the comparisons.
        failed: policy → why it was left out.
    """

    comparisons: tuple[Comparison, ...]
    yardstick: str
    standings: tuple[Standing, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def workloads(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(c.workload for c in self.comparisons)

    def standing(self, name: str) -> Standing:
        """One contestant's."""
        return next(s for s in self.standings if s.name == name)

    def of_role(self, role: Role) -> tuple[Standing, ...]:
        """Standings of one role, lowest relative cost first."""
        return tuple(sorted((s for s in self.standings if s.role == role), key=lambda s: s.relative_cost_iqm.mean))

    def best(self, role: Role) -> Standing | None:
        """The one of a role with the lowest relative cost."""
        found = self.of_role(role)
        return found[0] if found else None


def compare_suite(
    comparisons: Sequence[Comparison],
    *,
    yardstick: str | None = None,
    failed: Mapping[str, str] | None = None,
    bootstrap_samples: int = 2000,
) -> SuiteComparison:
    """Rank the contestants over all workloads.

    Args:
        comparisons: one a workload, of the same contestants in the same order.
        yardstick: whose J counts as 1; the baseline with the lowest mean relative to the first baseline if None.
        failed: policy → why it was left out.
        bootstrap_samples: resamples behind the intervals.

    Raises:
        InputError: no comparisons, a workload twice, contestants that differ, or an unknown yardstick.
    """
    _check(comparisons)
    first = comparisons[0]
    names = [c.name for c in first.contestants]
    if yardstick is None:
        yardstick = _cheapest_baseline(comparisons)
    elif yardstick not in names:
        raise InputError(f"yardstick: {yardstick!r} is not allowed; allowed: {', '.join(names)}")
    blocks = [np.unique(c.blocks, return_inverse=True)[1] for c in comparisons]
    standings = []
    for i, contestant in enumerate(first.contestants):
        rivals = [c.name for c in first.contestants if c.role == "baseline" and c.name != contestant.name]
        flown = _Flown(comparisons, [c.contestants[i] for c in comparisons], blocks, bootstrap_samples)
        standings.append(
            Standing(
                contestant.name,
                contestant.role,
                contestant.detail,
                flown.relative_cost(yardstick, lambda runs: interquartile_mean(runs, axis=-1)),
                flown.relative_cost(yardstick, lambda runs: runs.mean(axis=-1)),
                {metric: flown.figure(total) for metric, total in TOTALS.items()},
                {rival: flown.improvement(rival) for rival in rivals},
                {rival: flown.gap_closed(rival) for rival in rivals}
                if contestant.role != "reference" and all(c.gap_reference for c in comparisons)
                else {},
            )
        )
    return SuiteComparison(tuple(comparisons), yardstick, tuple(standings), dict(failed or {}))


def _check(comparisons: Sequence[Comparison]) -> None:
    if not comparisons:
        raise InputError("comparisons: none given; allowed: at least one workload")
    names = [c.workload for c in comparisons]
    wanted = [(c.name, c.role) for c in comparisons[0].contestants]
    for comparison in comparisons:
        if names.count(comparison.workload) > 1:
            raise InputError(f"comparisons: the workload {comparison.workload!r} is given twice; allowed: each once")
        if [(c.name, c.role) for c in comparison.contestants] != wanted:
            raise InputError(
                f"comparisons: {comparison.workload} has other contestants than {names[0]}; allowed: the same, in the same order"
            )


def _cheapest_baseline(comparisons: Sequence[Comparison]) -> str:
    """The baseline with the lowest cost, each workload weighing the same; the first contestant where there is none."""
    baselines = [c.name for c in comparisons[0].contestants if c.role == "baseline"]
    if not baselines:
        return comparisons[0].contestants[0].name

    def cost(name: str) -> float:
        return sum(c.rows[name]["J"].mean / max(c.rows[baselines[0]]["J"].mean, 1e-12) for c in comparisons)

    return min(baselines, key=cost)


@dataclass(frozen=True)
class _Flown:
    """One contestant on every workload, and the draws its intervals come from.

    Attributes:
        comparisons: one a workload.
        contestants: the same one, in each of them.
        blocks: (n,) block of each episode, numbered from 0, one array a workload.
        samples: resamples.
    """

    comparisons: Sequence[Comparison]
    contestants: Sequence[Contestant]
    blocks: Sequence[Indices]
    samples: int

    def figure(self, total: Total) -> Interval:
        """A metric's mean over the workloads."""
        sums = [
            (block_sums(c.by_member(total.values), blocks), block_sums(self._weights(c, total), blocks))
            for c, blocks in zip(self.contestants, self.blocks, strict=True)
        ]
        return self._interval(
            lambda members, drawn: np.mean(
                [ratio(drawn_sums(t, members, v), drawn_sums(b, members, v)) for (t, b), v in zip(sums, drawn, strict=True)],
                axis=0,
            ),
            total.bounds,
        )

    def relative_cost(self, yardstick: str, aggregate: Callable[[Array], Array]) -> Interval:
        """An aggregate over runs and workloads of J relative to the yardstick's mean on the same resampled days."""
        costs = []
        for comparison, contestant, blocks in zip(self.comparisons, self.contestants, self.blocks, strict=True):
            seeds = comparison.episodes.seed
            J = np.atleast_2d(contestant.by_member(lambda r: r.J_per_hour))
            # (members, arrival seeds, blocks) each, and the yardstick's mean over its arrival seeds.
            runs = np.stack([block_sums(np.where(seeds == s, J, 0.0), blocks) for s in np.unique(seeds)], axis=1)
            base = block_sums(_named(comparison, yardstick).results.J_per_hour, blocks)[0] / runs.shape[1]
            costs.append((runs, base))

        def statistic(members: Indices, drawn: Sequence[Array]) -> Array:
            relative = []
            for (runs, base), counts in zip(costs, drawn, strict=True):
                of_runs = np.einsum("kb,mab->kma", counts, runs)
                chosen = np.take_along_axis(of_runs, members[:, :, None], axis=1).reshape(len(members), -1)
                relative.append(ratio(chosen, np.broadcast_to((counts @ base)[:, None], chosen.shape)))
            return aggregate(np.concatenate(relative, axis=1))

        return self._interval(statistic, FROM_ZERO)

    def improvement(self, rival: str) -> Interval:
        """How probably a run of this one is cheaper than one of the rival, window by window."""
        chances = []
        for comparison, contestant, blocks in zip(self.comparisons, self.contestants, self.blocks, strict=True):
            theirs = _named(comparison, rival)
            windows, first = np.unique(comparison.episodes.window, return_index=True)
            by_window = np.stack(
                [_improvement_by_member(contestant, theirs, comparison.episodes.window == window) for window in windows],
                axis=1,
            )
            of_block = blocks[first]
            chances.append((block_sums(by_window, of_block), block_sums(np.ones(len(windows)), of_block)))
        return self._interval(
            lambda members, drawn: np.mean(
                [ratio(drawn_sums(t, members, v), drawn_sums(b, members, v)) for (t, b), v in zip(chances, drawn, strict=True)],
                axis=0,
            ),
            SHARE,
        )

    def gap_closed(self, rival: str) -> GapClosed:
        """G over the pairs of all workloads."""
        gained, gaps, pairs, left_out = [], [], 0, 0
        for comparison, contestant, blocks in zip(self.comparisons, self.contestants, self.blocks, strict=True):
            base, towards = _named(comparison, rival).results.J_per_hour, comparison.gap_reference_J_per_hour
            assert towards is not None
            kept = has_gap(base, towards)
            gained.append(block_sums(np.where(kept, base - contestant.by_member(lambda r: r.J_per_hour), 0.0), blocks))
            gaps.append(block_sums(np.where(kept, base - towards, 0.0), blocks))
            pairs, left_out = pairs + int(kept.sum()), left_out + int((~kept).sum())
        if not pairs:
            return GapClosed(UNKNOWN, 0, left_out)

        def statistic(members: Indices, drawn: Sequence[Array]) -> Array:
            top, bottom = (
                np.sum([drawn_sums(s, members, v) for s, v in zip(sums, drawn, strict=True)], axis=0) for sums in (gained, gaps)
            )
            return ratio(top, bottom)

        return GapClosed(self._interval(statistic), pairs, left_out)

    def _interval(self, statistic: Statistic, bounds: Bounds = UNBOUNDED) -> Interval:
        num_blocks = [int(b.max()) + 1 for b in self.blocks]
        num_members = max(1, len(self.contestants[0].members))
        return percentile_interval(*nested_bootstrap(statistic, num_blocks, num_members, samples=self.samples), bounds)

    @staticmethod
    def _weights(contestant: Contestant, total: Total) -> Array:
        return np.ones(len(contestant.results.seed)) if total.weights is None else contestant.by_member(total.weights)


def _improvement_by_member(ours: Contestant, theirs: Contestant, rows: NDArray[np.bool_]) -> Array:
    """(num_members,) probability that a run of each is cheaper than one of theirs; the seeds are the runs."""
    costs = np.atleast_2d(ours.by_member(lambda r: r.J_per_hour))[:, rows]
    rival = np.atleast_2d(theirs.by_member(lambda r: r.J_per_hour))[:, rows]
    return improvement_by_task(-costs.T, -np.repeat(rival.ravel()[:, None], len(costs), axis=1))


def _named(comparison: Comparison, name: str) -> Contestant:
    return next(c for c in comparison.contestants if c.name == name)
