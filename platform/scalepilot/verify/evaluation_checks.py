"""Whether a run's stored evaluation can be run again, and whether its figures make sense."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig
from scalepilot.errors import EnvironmentFailedError, ScalepilotError
from scalepilot.evaluate.comparison import Comparison
from scalepilot.evaluate.store import SUMMARY_FILE, read_evaluation
from scalepilot.evaluate.suite import SuiteComparison
from scalepilot.policy import Policy
from scalepilot.policy.rules import make_rule
from scalepilot.report.words.figures import shown
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import Scenario, TrafficEpisodes, autoscale_optimum, scenario_of
from scalepilot.verify.finding import Finding, error, warning

_RUN_AGAIN = 3
# Planning the optimum of a day takes seconds: not without being asked for, where the evaluation holds none.
_BOUNDED = 3
# Networks run on another processor may round otherwise; figures that differ by more are others.
_TOLERANCE = 1e-3
_APART = 2.0
_ROUNDING = 1e-9
_AGAIN = "evaluate again: scalepilot compare {run} --out {run}/evaluation"
_NOT_LEARNT = "it has not learnt; train again with other settings"
# Baselines that know nothing.
_CHANCE = ("random", "never")
_DISTRUST = "do not rely on this evaluation; evaluate again with this version"


def evaluation_findings(
    config: ExperimentConfig, folder: RunFolder, policy: Policy | None, best_value: float | None, *, thorough: bool
) -> Iterator[Finding]:
    """Read what is stored, run a few of its episodes again, and check the figures.

    Args:
        config: the run's.
        folder: of the run.
        policy: the kept one; None where it does not load: nothing is run then.
        best_value: its validation, from run.json.
        thorough: run all episodes again, and plan the optimum of some anew.
    """
    if not (folder.evaluation / SUMMARY_FILE).exists():
        return
    mend = _AGAIN.format(run=folder.path)
    try:
        stored = read_evaluation(folder.evaluation)
    except ScalepilotError as problem:
        yield error("evaluation", str(problem).removeprefix(f"{folder.evaluation}: "), mend)
        return
    if isinstance(stored, SuiteComparison):
        # `compare` wrote it; of several workloads none is the run's own.
        if len(stored.comparisons) > 1:
            return
        stored = stored.comparisons[0]
    yield from _figure_findings(stored, best_value)
    if policy is None or stored.own is None:
        return
    try:
        yield from _run_again(scenario_of(config), stored, policy, thorough)
    except EnvironmentFailedError as problem:
        yield error("evaluation", str(problem), "mend the environment, then verify again")
    except Exception as problem:  # noqa: BLE001 - a moved trace, an environment that raises: a finding, not an end
        what = str(problem) if isinstance(problem, ScalepilotError) else f"{type(problem).__name__}: {problem}"
        cannot = f"its test episodes cannot be run again: {what}"
        yield error("evaluation", cannot, "put the workload back where config.yaml says")


def _figure_findings(stored: Comparison, best_value: float | None) -> Iterator[Finding]:
    objective = stored.objective
    for contender in stored.contenders:
        columns = contender.results.columns
        for name in dict.fromkeys(m.column for m in objective.metrics.values()):
            if not np.isfinite(np.asarray(columns[name], dtype=np.float64)).all():
                yield error("evaluation", f"{contender.name}: {name} is not finite in some episode", _DISTRUST)
                break
        late = columns.get("late_share")
        if late is not None and not ((late >= 0) & (late <= 1 + 1e-9)).all():
            yield error(
                "evaluation", f"{contender.name}: late share {late.min():g} to {late.max():g}; a share lies in [0, 1]", _DISTRUST
            )
    if stored.gap_reference is not None and stored.gap_reference.is_bound and stored.gap_reference_values is not None:
        yield from _bound_findings(stored, stored.gap_reference_values)
    policy = stored.own
    if policy is None:
        yield error("evaluation", "holds no policy", _DISTRUST)
        return
    values = policy.results[objective.column]
    test, figure = stored.figure(policy.name).mean, shown(objective)
    told = f"{figure.heading} {figure.show(test)}"
    losses = {c.name: objective.sign * stored.figure(c.name).mean for c in stored.of_role("baseline")}
    chance = [name for name in _CHANCE if name in losses and objective.sign * test > losses[name]]
    if chance:
        yield error("policy", f"the policy is worse than {chance[0]}: {told}", _NOT_LEARNT)
    elif losses and objective.sign * test > min(losses.values()):
        best = min(losses, key=lambda name: losses[name])
        who = "every baseline" if objective.sign * test > max(losses.values()) else f"the best baseline ({best})"
        yield warning("evaluation", f"the policy is worse than {who}: {told}", "train longer, or take the rule")
    if best_value is None or not math.isfinite(best_value):
        return
    if objective.lower_is_better:
        apart = best_value > 0 and not 1 / _APART <= test / best_value <= _APART
        mend = "the parts of the workload differ; use a longer trace or more windows"
    else:
        apart = abs(best_value - test) > max(_APART * float(values.std()), 0.5 * abs(test))
        mend = "validate on more episodes (evaluation.validation_episodes)"
    if apart:
        both = f"{figure.show(best_value)} on validation, {figure.show(test)} on test"
        yield warning("evaluation", f"{figure.heading} {both}: wildly apart", mend)


def _bound_findings(stored: Comparison, bound: NDArray[np.float64]) -> Iterator[Finding]:
    """Who does better than (n,) bounds of the first n episodes; NaN where there is none."""
    objective, figure = stored.objective, shown(stored.objective)
    for contender in stored.contenders:
        values = contender.results[objective.column][: len(bound)]
        better = np.flatnonzero(objective.sign * (bound - values) > _ROUNDING * np.abs(bound))
        if len(better):
            i = int(better[0])
            told = f"{figure.heading} {values[i]:.3f} in test episode {i}, no policy does better than {bound[i]:.3f}"
            yield error("evaluation", f"{contender.name}: {told}", _DISTRUST)


def _run_again(scenario: Scenario, stored: Comparison, policy: Policy, thorough: bool) -> Iterator[Finding]:
    kept, test, column = stored.own, scenario.test, stored.objective.column
    assert kept is not None
    if test.num_steps is not None and len(test) != len(stored.episodes):
        what = f"{len(stored.episodes)} test episodes are stored, the workload now has {len(test)}"
        yield error("evaluation", what, "the workload has changed; evaluate again")
        return
    again = test.first(len(stored.episodes) if thorough else min(_RUN_AGAIN, len(stored.episodes)))
    values = again.run(policy).results[column]
    yield from _differing(stored.objective.short_label, kept.results[column][: len(again)], values)
    if isinstance(test, TrafficEpisodes):
        chance = again.run(make_rule("random", scenario.env)).results[column]
        if values.mean() > chance.mean():
            what = f"the policy is worse than random: J/h {values.mean():.3f} against {chance.mean():.3f}"
            yield error("policy", what, _NOT_LEARNT)
        if thorough and test.params.one_queue:
            planned = autoscale_optimum(test.first(_BOUNDED).episodes, test.params)
            yield from _bound_findings(stored, planned.lower_J_per_hour)


def _differing(what: str, stored: Any, again: Any) -> Iterator[Finding]:
    apart = np.abs(stored - again) > _TOLERANCE * np.maximum(np.abs(again), 1e-6)
    if apart.any():
        i = int(np.flatnonzero(apart)[0])
        told = f"{what} of test episode {i} is stored as {stored[i]:.6g}, run again it is {again[i]:.6g}"
        yield error("evaluation", told, "policy, evaluation and environment are not of one version; evaluate again")
