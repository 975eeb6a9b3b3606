"""What a study measures of each arm: final performance, success, sample efficiency, stability, actions.

All arms run the same test episodes with the policies they kept (of each run the best by validation, measured again).
Intervals are over training seeds and episodes (`statistics.nested`); of what a run has only one number, over seeds alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.statistics.intervals import Interval, block_bootstrap
from scalepilot.evaluate.statistics.nested import difference_over_seeds, nested_difference, nested_iqm, nested_mean
from scalepilot_envs.objective import FROM_ZERO, SHARE, UNBOUNDED, Bounds

Array = NDArray[np.float64]
# A validation counts as late in the last quarter of the budget.
_LATE_SHARE = 0.75


@dataclass(frozen=True)
class SeedRun:
    """One run of an arm.

    Attributes:
        seed: of its training.
        curve: validation return over environment steps, at least one point.
        seconds: (n,) of training, at the curve's points.
        kept_validation: validation return of the kept policy: what settings may be chosen by.
        test_return: (num_episodes,) of the kept policy.
        action_share: (num_actions,) of its greedy decisions; empty where actions are not numbered.
        train_seconds: of the whole training.
        run: its folder, relative to the study's.
    """

    seed: int
    curve: Curve
    seconds: Array
    kept_validation: float
    test_return: Array
    action_share: Array
    train_seconds: float
    run: str


@dataclass(frozen=True)
class Arm:
    """One arm over all seeds, measured.

    Attributes:
        name: of the arm.
        detail: algorithm and settings that differ, in a few words.
        budget_env_steps: of each run.
        runs: one a seed.
        mean: test return.
        iqm: its interquartile mean.
        success_rate: share of test episodes that reach the task's threshold; None without one.
        area: validation return averaged over the budget, what was collected on the way: the area under the curve.
        largest_fall: of the validation return from its best so far.
        late_deviation: standard deviation of the validations in the last quarter of the budget.
        seed_deviation: standard deviation of the seeds' mean test returns; NaN for one seed.
        steps_to_success: of each run, steps of the first validation that reaches the threshold; None where none does.
    """

    name: str
    detail: str
    budget_env_steps: int
    runs: tuple[SeedRun, ...]
    mean: Interval
    iqm: Interval
    success_rate: Interval | None
    area: Interval
    largest_fall: Interval
    late_deviation: Interval
    seed_deviation: float
    steps_to_success: tuple[int | None, ...]

    @property
    def values(self) -> Array:
        """(num_seeds, num_episodes) test returns."""
        return np.stack([run.test_return for run in self.runs])

    @property
    def action_share(self) -> Array:
        """(num_actions,) mean over seeds."""
        shares: Array = np.stack([run.action_share for run in self.runs]).mean(axis=0)
        return shares

    @property
    def median_steps_to_success(self) -> float | None:
        """Median over seeds, those that never reach it counted as longer than all; None where most do not."""
        steps = sorted(float("inf") if s is None else s for s in self.steps_to_success)
        median = statistics.median(steps)
        return median if np.isfinite(median) else None


@dataclass(frozen=True)
class Difference:
    """First arm minus second.

    Attributes:
        final: of the mean test return.
        area: of the return averaged over the budget.
        largest_fall: of the largest fall.
    """

    final: Interval
    area: Interval
    largest_fall: Interval


@dataclass(frozen=True)
class TaskResult:
    """A task with all its arms.

    Attributes:
        name: of the task.
        env_id: of the environment.
        success_return: a test episode that collects it is a success; None for none.
        actions: labels by index; empty where actions are not numbered.
        random: test return of a random agent on the same episodes.
        random_success_rate: of it; None without a threshold.
        arms: highest interquartile mean first, among equals highest mean.
        versus: leader's rivals → leader minus rival; the leader is the first arm.
    """

    name: str
    env_id: str
    success_return: float | None
    actions: tuple[str, ...]
    random: Interval
    random_success_rate: float | None
    arms: tuple[Arm, ...]
    versus: Mapping[str, Difference]

    def arm(self, name: str) -> Arm:
        """An arm by name."""
        return next(arm for arm in self.arms if arm.name == name)


def measure_arm(
    name: str,
    detail: str,
    budget_env_steps: int,
    runs: Sequence[SeedRun],
    success_return: float | None,
    samples: int = 2000,
    return_bounds: Bounds = UNBOUNDED,
) -> Arm:
    """Everything of one arm.

    Args:
        name: of the arm.
        detail: algorithm and settings, in a few words.
        budget_env_steps: of each run.
        runs: one a seed, all on the same test episodes.
        success_return: threshold; None for none.
        samples: resamples behind the intervals.
        return_bounds: of an episode's return.
    """
    values = np.stack([run.test_return for run in runs])
    episodes = np.arange(values.shape[1])
    success = None
    if success_return is not None:
        success = nested_mean((values >= success_return).astype(np.float64), episodes, samples=samples, bounds=SHARE)
    return Arm(
        name=name,
        detail=detail,
        budget_env_steps=budget_env_steps,
        runs=tuple(runs),
        mean=nested_mean(values, episodes, samples=samples, bounds=return_bounds),
        iqm=nested_iqm(values, episodes, samples=samples, bounds=return_bounds),
        success_rate=success,
        area=_over_seeds([area(run.curve, budget_env_steps) for run in runs], samples, return_bounds),
        largest_fall=_over_seeds([largest_fall(run.curve) for run in runs], samples, FROM_ZERO),
        late_deviation=_over_seeds([late_deviation(run.curve) for run in runs], samples, FROM_ZERO),
        seed_deviation=statistics.stdev(values.mean(axis=1)) if len(runs) > 1 else float("nan"),
        steps_to_success=tuple(None if success_return is None else steps_to(run.curve, success_return) for run in runs),
    )


def compare_arms(
    name: str,
    env_id: str,
    success_return: float | None,
    actions: Sequence[str],
    random_return: Array,
    arms: Sequence[Arm],
    samples: int = 2000,
    return_bounds: Bounds = UNBOUNDED,
) -> TaskResult:
    """Rank the arms and hold the leader against each of the others.

    Args:
        name: of the task.
        env_id: of the environment.
        success_return: threshold; None for none.
        actions: labels by index.
        random_return: (num_episodes,) of a random agent on the same test episodes.
        arms: at least one.
        samples: resamples behind the intervals.
        return_bounds: of an episode's return.
    """
    ranked = sorted(arms, key=lambda arm: (-arm.iqm.mean, -arm.mean.mean))
    leader, *others = ranked
    episodes = np.arange(len(random_return))
    versus = {
        other.name: Difference(
            nested_difference(leader.values, other.values, episodes, samples=samples),
            difference_over_seeds(_areas(leader), _areas(other), samples),
            difference_over_seeds(_largest_falls(leader), _largest_falls(other), samples),
        )
        for other in others
    }
    # A random agent has no training seeds: its episodes are the only level.
    random = block_bootstrap(random_return, episodes, samples=samples, bounds=return_bounds)
    reached = None if success_return is None else float((random_return >= success_return).mean())
    return TaskResult(name, env_id, success_return, tuple(actions), random, reached, tuple(ranked), versus)


def area(curve: Curve, budget_env_steps: int) -> float:
    """Mean of a curve over the budget, its first value held before and its last after: comparable between budgets."""
    inside = np.linspace(0.0, budget_env_steps, 501)
    return float(np.interp(inside, curve.env_steps, curve.value).mean())


def largest_fall(curve: Curve) -> float:
    """Largest difference between the best value so far and a later one; 0 for a curve that never falls."""
    return float((np.maximum.accumulate(curve.value) - curve.value).max())


def late_deviation(curve: Curve) -> float:
    """Standard deviation of the values in the last quarter of the steps; 0 for a single one."""
    late = curve.value[curve.env_steps >= _LATE_SHARE * curve.env_steps[-1]]
    return float(late.std())


def steps_to(curve: Curve, threshold: float) -> int | None:
    """Steps of the first value that reaches the threshold."""
    reached = np.flatnonzero(curve.value >= threshold)
    return int(curve.env_steps[reached[0]]) if len(reached) else None


def _over_seeds(values: Sequence[float], samples: int, bounds: Bounds) -> Interval:
    """Mean over seeds with its interval from seeds alone."""
    return block_bootstrap(np.array(values), np.arange(len(values)), samples=samples, bounds=bounds)


def _areas(arm: Arm) -> list[float]:
    return [area(run.curve, arm.budget_env_steps) for run in arm.runs]


def _largest_falls(arm: Arm) -> list[float]:
    return [largest_fall(run.curve) for run in arm.runs]
