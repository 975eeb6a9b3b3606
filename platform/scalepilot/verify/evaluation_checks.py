"""Whether a run's stored evaluation can be flown again, and whether its figures make sense."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.config import ExperimentConfig
from scalepilot.config.env import EnvConfig
from scalepilot.errors import EnvironmentFailedError, ScalepilotError
from scalepilot.evaluate.comparison import Comparison
from scalepilot.evaluate.returns import ReturnComparison, is_returns, read_returns
from scalepilot.evaluate.store import SUMMARY_FILE, read_evaluation
from scalepilot.policy import Policy
from scalepilot.policy.rules import make_rule
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import EpisodeSet, autoscale_optimum, run_episodes, run_returns
from scalepilot.simulate.episode_runner import EpisodeLimits
from scalepilot.simulate.workload_data import load_data
from scalepilot.verify.finding import Finding, error, warning
from scalepilot_envs.autoscale.description import describe as describe_autoscale

_FLOWN_AGAIN = 3
# Planning the optimum of a day takes seconds: not without being asked for, where the evaluation holds none.
_BOUNDED = 3
# Networks run on another processor may round otherwise; figures that differ by more are others.
_TOLERANCE = 1e-3
_APART = 2.0
_ROUNDING = 1e-9
_AGAIN = "evaluate again: scalepilot evaluate {run} --out {run}/evaluation"
_DISTRUST = "do not rely on this evaluation; evaluate again with this version"


def evaluation_findings(
    config: ExperimentConfig, folder: RunFolder, policy: Policy | None, best_value: float | None, *, thorough: bool
) -> Iterator[Finding]:
    """Read what is stored, fly a few of its episodes again, and judge the figures.

    Args:
        config: the run's.
        folder: of the run.
        policy: the kept one; None where it does not load: nothing is flown then.
        best_value: its validation, from run.json.
        thorough: fly all episodes again, and plan the optimum of some anew.
    """
    if not (folder.evaluation / SUMMARY_FILE).exists():
        return
    mend = _AGAIN.format(run=folder.path)
    try:
        stored = read_returns(folder.evaluation) if is_returns(folder.evaluation) else read_evaluation(folder.evaluation)
    except ScalepilotError as problem:
        yield error("evaluation", str(problem).removeprefix(f"{folder.evaluation}: "), mend)
        return
    flown: Callable[[], Iterator[Finding]]
    if isinstance(stored, ReturnComparison):
        yield from _return_findings(stored, best_value)
        flown = lambda: _returns_again(config, stored, policy, thorough)  # noqa: E731 - called below, where any error is caught
    elif isinstance(stored, Comparison):
        yield from _cost_findings(stored, best_value)
        flown = lambda: _costs_again(config, stored, policy, thorough)  # noqa: E731
    else:
        return
    if policy is None:
        return
    try:
        yield from flown()
    except Exception as problem:  # noqa: BLE001 - a moved trace, an environment that raises: a finding, not an end
        what = str(problem) if isinstance(problem, ScalepilotError) else f"{type(problem).__name__}: {problem}"
        yield error(
            "evaluation", f"its test episodes cannot be flown again: {what}", "put the workload back where config.yaml says"
        )


def _cost_findings(stored: Comparison, best_value: float | None) -> Iterator[Finding]:
    for contestant in stored.contestants:
        columns = contestant.results.columns()
        for name, values in columns.items():
            if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
                yield error("evaluation", f"{contestant.name}: {name} is not finite in some episode", _DISTRUST)
                break
        late = columns["late_share"]
        if not ((late >= 0) & (late <= 1 + 1e-9)).all():
            yield error(
                "evaluation", f"{contestant.name}: late share {late.min():g} to {late.max():g}; a share lies in [0, 1]", _DISTRUST
            )
    if stored.gap_reference is not None and stored.gap_reference.is_bound and stored.gap_reference_J_per_hour is not None:
        yield from _bound_findings(stored, stored.gap_reference_J_per_hour)
    policy, rival = stored.best("policy"), stored.best("baseline")
    if policy is None:
        yield error("evaluation", "judges no policy", _DISTRUST)
        return
    test = float(policy.results.J_per_hour.mean())
    if rival is not None and test > float(rival.results.J_per_hour.mean()):
        dearest = max(float(c.results.J_per_hour.mean()) for c in stored.of_role("baseline"))
        who = "every rule it was judged against" if test > dearest else f"the best rule ({rival.name})"
        yield warning("evaluation", f"the policy costs more than {who}: J/h {test:.3f}", "train longer, or take the rule")
    if best_value and best_value > 0 and not 1 / _APART <= test / best_value <= _APART:
        what = f"J/h {best_value:.3f} on validation, {test:.3f} on test: wildly apart"
        yield warning("evaluation", what, "the parts of the workload differ; use a longer trace or more windows")


def _bound_findings(stored: Comparison, lower: NDArray[np.float64]) -> Iterator[Finding]:
    """Who costs less than (n,) bounds of the first n episodes, J per hour; NaN where there is none."""
    for contestant in stored.contestants:
        costs = contestant.results.J_per_hour[: len(lower)]
        below = np.flatnonzero(costs < lower * (1 - _ROUNDING))
        if len(below):
            i = int(below[0])
            figure = f"J/h {costs[i]:.3f} in test episode {i}, no policy costs less than {lower[i]:.3f}"
            yield error("evaluation", f"{contestant.name}: {figure}", _DISTRUST)


def _costs_again(config: ExperimentConfig, stored: Comparison, policy: Policy | None, thorough: bool) -> Iterator[Finding]:
    assert isinstance(config.env, EnvConfig)
    params, kept = config.env.params, stored.best("policy")
    if policy is None or kept is None:
        return
    test = load_data(config).test
    if len(test) != len(stored.episodes):
        what = f"{len(stored.episodes)} test episodes are stored, the workload now has {len(test)}"
        yield error("evaluation", what, "the workload has changed; evaluate again")
        return
    again = test if thorough else _first(test, _FLOWN_AGAIN)
    results, _ = run_episodes(policy, again, params)
    yield from _differing("J per hour", kept.results.J_per_hour[: len(again)], results.J_per_hour)
    chance, _ = run_episodes(make_rule("random", describe_autoscale(params)), again, params)
    if results.J_per_hour.mean() > chance.J_per_hour.mean():
        what = (
            f"the policy costs more than random moves: J/h {results.J_per_hour.mean():.3f} against {chance.J_per_hour.mean():.3f}"
        )
        yield error("policy", what, "it has not learnt; train again with other settings")
    if thorough:
        yield from _bound_findings(stored, autoscale_optimum(_first(test, _BOUNDED), params).lower_J_per_hour)


def _first(episodes: EpisodeSet, count: int) -> EpisodeSet:
    parts: dict[str, Any] = {
        name: getattr(episodes, name)[:count] for name in ("rates_rps", "arrived", "window", "seed", "start_unix_seconds")
    }
    return EpisodeSet(episodes.workload, **parts)


def _return_findings(stored: ReturnComparison, best_value: float | None) -> Iterator[Finding]:
    for row in stored.rows:
        if not np.isfinite(row.results.episode_return).all():
            yield error("evaluation", f"{row.name}: a return is not finite", _DISTRUST)
    policy = stored.best("policy")
    if policy is None:
        yield error("evaluation", "judges no policy", _DISTRUST)
        return
    test, spread = policy.figures["return"].mean, float(policy.results.episode_return.std())
    for row in stored.rows:
        if row.name in ("random", "never") and test < row.figures["return"].mean:
            what = f"the policy collects less than {row.name}: {test:,.2f} against {row.figures['return'].mean:,.2f}"
            yield error("policy", what, "it has not learnt; train again with other settings")
    if best_value is not None and math.isfinite(best_value) and abs(best_value - test) > max(_APART * spread, 0.5 * abs(test)):
        what = f"return {best_value:,.2f} on validation, {test:,.2f} on test: wildly apart"
        yield warning("evaluation", what, "validate on more episodes (evaluation.validation_episodes)")


def _returns_again(
    config: ExperimentConfig, stored: ReturnComparison, policy: Policy | None, thorough: bool
) -> Iterator[Finding]:
    kept = stored.best("policy")
    if policy is None or kept is None or isinstance(config.env, EnvConfig):
        return
    stored_count = len(kept.results.seed)
    count = stored_count if thorough else min(_FLOWN_AGAIN, stored_count)
    first = int(kept.results.seed[0])
    limits = EpisodeLimits(config.evaluation.max_episode_steps, config.resources.env_timeout_seconds)
    try:
        results = run_returns(policy, stored.env_id, count, arguments=config.env.arguments, first_seed=first, limits=limits)
    except EnvironmentFailedError as problem:
        yield error("evaluation", str(problem), "mend the environment, then verify again")
        return
    yield from _differing("return", kept.results.episode_return[:count], results.episode_return)


def _differing(what: str, stored: Any, flown: Any) -> Iterator[Finding]:
    apart = np.abs(stored - flown) > _TOLERANCE * np.maximum(np.abs(flown), 1e-6)
    if apart.any():
        i = int(np.flatnonzero(apart)[0])
        told = f"{what} of test episode {i} is stored as {stored[i]:.6g}, flown again it is {flown[i]:.6g}"
        yield error("evaluation", told, "policy, evaluation and environment are not of one version; evaluate again")
