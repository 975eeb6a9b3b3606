"""Several workloads together: who does best over all of them, and how sure that is.

Money on a small service and on a large one cannot be averaged, so costs are also stated relative to one baseline, whose mean
counts as 1 on every workload. A return is stated the same way: 0.9 is better than the baseline by a tenth of the size of its
mean. Everything comes with an interval from the same draws of days (or episodes), each workload's own, and of training seeds,
the same for all workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.comparison import Comparison, Contender, Role
from scalepilot.evaluate.statistics.aggregate import improvement_by_task, interquartile_mean
from scalepilot.evaluate.statistics.bootstrap import Indices, Statistic, block_sums, drawn_sums, nested_bootstrap, ratio
from scalepilot.evaluate.statistics.intervals import UNKNOWN, GapClosed, Interval, has_gap, percentile_interval
from scalepilot_envs.objective import FROM_ZERO, SHARE, UNBOUNDED, Bounds, Metric, Objective

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """One contender over all workloads.

    Attributes:
        name, role, detail: as in its comparisons.
        relative_cost_iqm: interquartile mean over (training seed, arrival seed) runs and workloads of what decides relative to
            the yardstick's mean on that workload: 0.9 is a tenth cheaper.
        relative_cost_mean: the mean of the same.
        figures: metric of the objective → its mean over the workloads.
        improvement: baseline → how probably a run of this one is better than one of the baseline in the same window, ties
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
    """The same contenders on one workload or several.

    Attributes:
        comparisons: one a workload.
        yardstick: the baseline (without one, the first contender) whose mean counts as 1 on each workload.
        standings: one a contender, in the order of the comparisons.
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

    @property
    def objective(self) -> Objective:
        """What decides, the same everywhere."""
        return self.comparisons[0].objective

    def standing(self, name: str) -> Standing:
        """One contender's."""
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
    """Rank the contenders over all workloads.

    Args:
        comparisons: one a workload, of the same contenders in the same order.
        yardstick: who counts as 1; the baseline that is best relative to the first baseline if None.
        failed: policy → why it was left out.
        bootstrap_samples: resamples behind the intervals.

    Raises:
        InputError: no comparisons, a workload twice, contenders that differ, or an unknown yardstick.
    """
    _check(comparisons)
    first = comparisons[0]
    names = [c.name for c in first.contenders]
    if yardstick is None:
        yardstick = _cheapest_baseline(comparisons)
    elif yardstick not in names:
        raise InputError(f"yardstick: {yardstick!r} is not allowed; allowed: {', '.join(names)}")
    blocks = [np.unique(c.episodes.blocks, return_inverse=True)[1] for c in comparisons]
    standings = []
    for i, contender in enumerate(first.contenders):
        rivals = [c.name for c in first.contenders if c.role == "baseline" and c.name != contender.name]
        found = _Found(comparisons, [c.contenders[i] for c in comparisons], blocks, bootstrap_samples)
        standings.append(
            Standing(
                contender.name,
                contender.role,
                contender.detail,
                found.relative_cost(yardstick, lambda runs: interquartile_mean(runs, axis=-1)),
                found.relative_cost(yardstick, lambda runs: runs.mean(axis=-1)),
                {name: found.figure(metric) for name, metric in _shared_metrics(first.objective, found.contenders).items()},
                {rival: found.improvement(rival) for rival in rivals},
                {rival: found.gap_closed(rival) for rival in rivals}
                if contender.role != "reference" and all(c.gap_reference for c in comparisons)
                else {},
            )
        )
    return SuiteComparison(tuple(comparisons), yardstick, tuple(standings), dict(failed or {}))


def _check(comparisons: Sequence[Comparison]) -> None:
    if not comparisons:
        raise InputError("comparisons: none given; allowed: at least one workload")
    names = [c.workload for c in comparisons]
    wanted = [(c.name, c.role) for c in comparisons[0].contenders]
    for comparison in comparisons:
        if names.count(comparison.workload) > 1:
            raise InputError(f"comparisons: the workload {comparison.workload!r} is given twice; allowed: each once")
        if [(c.name, c.role) for c in comparison.contenders] != wanted:
            raise InputError(
                f"comparisons: {comparison.workload} has other contenders than {names[0]}; allowed: the same, in the same order"
            )


def _shared_metrics(objective: Objective, contenders: Sequence[Contender]) -> dict[str, Metric]:
    """What is known of a contender on every workload."""
    return objective.metrics_of(
        [name for name in contenders[0].results.columns if all(name in c.results.columns for c in contenders)]
    )


def _cheapest_baseline(comparisons: Sequence[Comparison]) -> str:
    """The baseline with the lowest cost, each workload weighing the same; the first contender where there is none."""
    baselines = [c.name for c in comparisons[0].contenders if c.role == "baseline"]
    if not baselines:
        return comparisons[0].contenders[0].name

    def cost(name: str) -> float:
        first = [c.figure(baselines[0]).mean for c in comparisons]
        sign = comparisons[0].objective.sign
        return sum(sign * c.figure(name).mean / max(abs(base), 1e-12) for c, base in zip(comparisons, first, strict=True))

    return min(baselines, key=cost)


@dataclass(frozen=True)
class _Found:
    """One contender on every workload, and the draws its intervals come from.

    Attributes:
        comparisons: one a workload.
        contenders: the same one, in each of them.
        blocks: (n,) block of each episode, numbered from 0, one array a workload.
        samples: resamples.
    """

    comparisons: Sequence[Comparison]
    contenders: Sequence[Contender]
    blocks: Sequence[Indices]
    samples: int

    @property
    def _column(self) -> str:
        return self.comparisons[0].objective.column

    def figure(self, metric: Metric) -> Interval:
        """A metric's mean over the workloads."""
        sums = []
        for c, blocks in zip(self.contenders, self.blocks, strict=True):
            values, weights = c.sums(metric)
            sums.append((block_sums(values, blocks), block_sums(np.ones(len(blocks)) if weights is None else weights, blocks)))
        return self._interval(
            lambda members, drawn: np.mean(
                [ratio(drawn_sums(t, members, v), drawn_sums(b, members, v)) for (t, b), v in zip(sums, drawn, strict=True)],
                axis=0,
            ),
            metric.bounds,
        )

    def relative_cost(self, yardstick: str, aggregate: Callable[[Array], Array]) -> Interval:
        """An aggregate over runs and workloads of what decides, relative to the yardstick's mean on the same resampled days."""
        costs, is_cost = [], self.comparisons[0].objective.lower_is_better
        for comparison, contender, blocks in zip(self.comparisons, self.contenders, self.blocks, strict=True):
            repeat = comparison.episodes.repeat
            values = np.atleast_2d(contender.by_member(self._column))
            # (members, arrival seeds, blocks) each, and the yardstick's mean over its arrival seeds.
            runs = np.stack([block_sums(np.where(repeat == r, values, 0.0), blocks) for r in np.unique(repeat)], axis=1)
            base = block_sums(_named(comparison, yardstick).results[self._column], blocks)[0] / runs.shape[1]
            costs.append((runs, base))

        def statistic(members: Indices, drawn: Sequence[Array]) -> Array:
            relative = []
            for (runs, base), counts in zip(costs, drawn, strict=True):
                of_runs = np.einsum("kb,mab->kma", counts, runs)
                chosen = np.take_along_axis(of_runs, members[:, :, None], axis=1).reshape(len(members), -1)
                yardsticks = np.broadcast_to((counts @ base)[:, None], chosen.shape)
                # Of a return, which may have either sign, the difference counts, in sizes of the yardstick's.
                relative.append(ratio(chosen, yardsticks) if is_cost else 1.0 + ratio(yardsticks - chosen, np.abs(yardsticks)))
            return aggregate(np.concatenate(relative, axis=1))

        return self._interval(statistic, FROM_ZERO if is_cost else UNBOUNDED)

    def improvement(self, rival: str) -> Interval:
        """How probably a run of this one is better than one of the rival, window by window."""
        sign, chances = self.comparisons[0].objective.sign, []
        for comparison, contender, blocks in zip(self.comparisons, self.contenders, self.blocks, strict=True):
            losses, theirs = (sign * c.by_member(self._column) for c in (contender, _named(comparison, rival)))
            windows, first = np.unique(comparison.episodes.window, return_index=True)
            by_window = np.stack(
                [_improvement_by_member(losses, theirs, comparison.episodes.window == window) for window in windows],
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
        for comparison, contender, blocks in zip(self.comparisons, self.contenders, self.blocks, strict=True):
            assert comparison.gap_reference_values is not None
            sign = comparison.objective.sign
            base, towards = sign * _named(comparison, rival).results[self._column], sign * comparison.gap_reference_values
            kept = has_gap(base, towards)
            gained.append(block_sums(np.where(kept, base - sign * contender.by_member(self._column), 0.0), blocks))
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
        num_members = max(1, len(self.contenders[0].members))
        return percentile_interval(*nested_bootstrap(statistic, num_blocks, num_members, samples=self.samples), bounds)


def _improvement_by_member(ours: Array, theirs: Array, rows: NDArray[np.bool_]) -> Array:
    """(num_members,) probability that a run of each loses less than one of theirs; the seeds are the runs.

    Args:
        ours: losses, (num_members, n) or (n,).
        theirs: the same of the other.
        rows: (n,) which episodes.
    """
    losses, rival = np.atleast_2d(ours)[:, rows], np.atleast_2d(theirs)[:, rows]
    return improvement_by_task(-losses.T, -np.repeat(rival.ravel()[:, None], len(losses), axis=1))


def _named(comparison: Comparison, name: str) -> Contender:
    return next(c for c in comparison.contenders if c.name == name)
