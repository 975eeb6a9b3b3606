"""Policies beside baselines and references on the same test episodes of a scenario, or of several."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.causal import CAUSAL_OPTIMUM
from scalepilot.evaluate.compare import Comparison, Contender, compare
from scalepilot.evaluate.comparison import Member, Role
from scalepilot.evaluate.front import front_cell, with_fronts
from scalepilot.evaluate.rule_search import describe_parameters, tune_look_ahead
from scalepilot.policy import Policy
from scalepilot.policy.rules import Rule
from scalepilot.progress import Progress, steps_text
from scalepilot.simulate import (
    Cell,
    CellResult,
    CellStore,
    Executor,
    Optimum,
    OptimumCache,
    ProtocolData,
    Scenario,
    SeededEpisodes,
    SerialExecutor,
    autoscale_optimum,
    run_cells,
)
from scalepilot.simulate.optimum import causal_optimum
from scalepilot.simulate.optimum.known import known_optimum
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import MarkovWorkload

logger = logging.getLogger("scalepilot.evaluation")
OPTIMUM = "optimum"


@dataclass(frozen=True)
class OptimumOptions:
    """How the clairvoyant optimum is computed.

    Attributes:
        cache: folder of optima found before; None keeps nothing.
    """

    cache: Path | None = None


@dataclass(frozen=True)
class Trained:
    """A policy behind a row.

    Attributes:
        name: for messages; unique among all.
        seed: it was trained with.
        actor: the policy, or a plan.
    """

    name: str
    seed: int
    actor: Any


@dataclass(frozen=True)
class LineupRow:
    """Who takes part: a policy, or several that differ only in their training seed.

    Attributes:
        name, role, detail: as in `Contender`.
        trained: one, or one a training seed.
    """

    name: str
    role: Role
    detail: str
    trained: tuple[Trained, ...]

    @classmethod
    def single(cls, name: str, role: Role, actor: Any, detail: str | None = None) -> LineupRow:
        """A row of one policy or plan."""
        if detail is None:
            assert isinstance(actor, Policy)
            detail = describe_policy(actor)
        return cls(name, role, detail, (Trained(name, 0, actor),))


@dataclass(frozen=True)
class Lineup:
    """One scenario and everyone who takes part.

    Attributes:
        scenario: its test episodes are run.
        rows: policies, baselines and references.
        bound: (n,) what no policy does better than, of each test episode; None where it is not known.
    """

    scenario: Scenario
    rows: tuple[LineupRow, ...]
    bound: NDArray[np.float64] | None = None


def with_references(
    scenario: Scenario, rows: Sequence[LineupRow], *, optimum: OptimumOptions | None, executor: Executor
) -> Lineup:
    """The optimum's plan, where one is known, and on Autoscale the look-ahead, beside the others.

    Args:
        scenario: where they run.
        rows: policies and baselines.
        optimum: how to compute the clairvoyant optimum; None leaves it out, and the gap is closed towards the look-ahead.
        executor: plans the optimum's episodes.
    """
    all_rows, bound, test = list(rows), None, scenario.test
    if optimum is not None and isinstance(test, SeededEpisodes):
        known = known_optimum(test, executor)
        if known is not None:
            bound = known.returns
            detail = f"clairvoyant: no policy returns more than {bound.mean():,.2f}"
            all_rows.append(LineupRow.single(OPTIMUM, "reference", known, detail))
    if scenario.traffic is not None:
        params: AutoscaleParams = scenario.env.params
        if optimum is not None and params.one_queue:
            best = optimum_of(scenario.traffic, params, optimum, executor)
            bound = best.lower_J_per_hour
            detail = f"clairvoyant: this plan can be run; no policy costs less than {bound.mean():.3f}"
            all_rows.append(LineupRow.single(OPTIMUM, "reference", best.planner(OPTIMUM), detail))
        look_ahead = tune_look_ahead(scenario.traffic, params)
        knows = f"knows the coming mean rates, utilisation {look_ahead.utilisation:.2f}"
        all_rows.append(LineupRow.single(look_ahead.name, "reference", look_ahead, knows))
        causal = causal_row(scenario.traffic, params) if optimum is not None else None
        all_rows += [] if causal is None else [causal]
    return Lineup(scenario, tuple(all_rows), bound)


def causal_row(data: ProtocolData, params: AutoscaleParams) -> LineupRow | None:
    """The best policy that does not know what comes, where traffic's law is known and few enough states can be told apart."""
    if not isinstance(data.workload, MarkovWorkload):
        return None
    try:
        best = causal_optimum(data.workload, params, data.test.num_steps)
    except InputError as error:
        logger.warning("%s: left out: %s", CAUSAL_OPTIMUM, error)
        return None
    lower = best.by_episode(best.lower_J_per_hour, data.test.rates_rps[:, 0]).mean()
    detail = f"knows the law of the traffic, not what comes; no such policy is expected to cost less than {lower:.3f}"
    return LineupRow.single(CAUSAL_OPTIMUM, "reference", best.policy, detail)


def optimum_of(data: ProtocolData, params: AutoscaleParams, options: OptimumOptions, executor: Executor) -> Optimum:
    """The clairvoyant optimum of every test episode."""
    progress = Progress(f"planning the clairvoyant optimum of {data.test.workload}", "episodes")
    progress.begin(len(data.test))
    cache = OptimumCache(options.cache) if options.cache else None
    found = autoscale_optimum(data.test, params, cache=cache, executor=executor, progress=progress.update)
    progress.end()
    return found


def evaluate_lineups(
    lineups: Sequence[Lineup],
    executor: Executor,
    *,
    bootstrap_samples: int,
    store: CellStore | None = None,
    step_log: bool = False,
) -> tuple[list[Comparison], dict[str, str]]:
    """Run everyone through the test episodes of every scenario, and compare.

    Args:
        lineups: one a scenario, the same rows in each.
        executor: runs the cells.
        bootstrap_samples: resamples behind the intervals.
        store: where finished cells are kept.
        step_log: keep every step of every episode in the store.

    Returns:
        One comparison a scenario, and policy → why it was left out, from all of them.

    Raises:
        InputError: a baseline cannot be run, or nobody is left.
    """
    cells: list[Cell] = []
    for lineup in lineups:
        _check_names(lineup)
        for row in lineup.rows:
            for trained in row.trained:
                cells.append(Cell.of(trained.name, trained.actor, lineup.scenario.test, playback=True, step_log=step_log))
    turned = [
        (at, row.name, cell)
        for at, lineup in enumerate(lineups)
        for row in lineup.rows
        for trained in row.trained
        if row.role == "policy" and (cell := front_cell(trained.name, trained.actor, lineup.scenario)) is not None
    ]
    cells, own = [*cells, *(cell for _, _, cell in turned)], len(cells)
    progress = Progress("evaluating", "episodes")
    progress.begin(sum(len(cell.episodes) for cell in cells))
    found = run_cells(cells, executor, store=store, progress=progress.update)
    progress.end()
    failed = {cell.name: str(o) for cell, o in zip(cells[:own], found[:own], strict=True) if isinstance(o, InputError)}
    outcomes = iter(found[:own])
    comparisons = []
    for at, lineup in enumerate(lineups):
        contenders = []
        for row in lineup.rows:
            mine = [(trained, next(outcomes)) for trained in row.trained]
            good = [(t, o) for t, o in mine if t.name not in failed and isinstance(o, CellResult)]
            if len(good) < len(mine) and row.role != "policy":
                raise InputError(f"{row.name}: {failed[row.name]}")
            if good:
                contenders.append(_contender(row, good))
        if not contenders:
            raise InputError(f"policies: no policy could be evaluated; the first: {next(iter(failed.values()))}")
        where = lineup.scenario.name, lineup.scenario.test
        comparison = compare(*where, contenders, bootstrap_samples=bootstrap_samples, bound=lineup.bound)
        fronts: dict[str, list[CellResult]] = {}
        for (where_at, name, _), outcome in zip(turned, found[own:], strict=True):
            # Whoever fails here has failed in its own row, too.
            if where_at == at and isinstance(outcome, CellResult):
                fronts.setdefault(name, []).append(outcome)
        comparisons.append(with_fronts(comparison, lineup.scenario, fronts))
    return comparisons, failed


def _contender(row: LineupRow, found: Sequence[tuple[Trained, CellResult]]) -> Contender:
    what = row.name, row.role, row.detail
    if len(row.trained) == 1:
        return Contender(*what, found[0][1].results, found[0][1].playback)
    return Contender.of_members(*what, [Member(t.name, t.seed, cell.results) for t, cell in found], found[0][1].playback)


def _check_names(lineup: Lineup) -> None:
    names = [row.name for row in lineup.rows]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"contenders: the name {name!r} is given twice; allowed: each once")


def evaluate(
    scenario: Scenario,
    policies: Sequence[tuple[str, Policy]],
    baselines: Sequence[Rule[Any]],
    *,
    bootstrap_samples: int,
    optimum: OptimumOptions | None = None,
    references: bool = True,
    executor: Executor | None = None,
) -> Comparison:
    """Run policies, baselines and references through the test episodes.

    Args:
        scenario: where.
        policies: (row label, policy).
        baselines: rules to compare against.
        bootstrap_samples: resamples behind the intervals.
        optimum: as `with_references`.
        references: whether those who know the future take part.
        executor: runs and plans; here, one after the other, if None.

    Raises:
        InputError: a policy cannot be run.
    """
    executor = executor or SerialExecutor()
    rows = [LineupRow.single(label, "policy", policy) for label, policy in policies]
    rows += [LineupRow.single(rule.spec.name, "baseline", rule) for rule in baselines]
    lineup = with_references(scenario, rows, optimum=optimum, executor=executor) if references else Lineup(scenario, tuple(rows))
    comparisons, failed = evaluate_lineups([lineup], executor, bootstrap_samples=bootstrap_samples)
    for problem in failed.values():
        raise InputError(problem)
    return comparisons[0]


def describe_policy(policy: Policy) -> str:
    """One phrase for a table: how it came to be."""
    provenance = policy.spec.provenance
    if policy.spec.kind == "rule":
        parameters = getattr(policy, "parameters", None)
        told = describe_parameters(parameters) if parameters is not None else "rule"
        old = isinstance(policy, Rule) and policy.made_with_revision != policy.revision
        return f"{told}, found with an earlier revision of the rule".removeprefix(", ") if old else told
    return f"{provenance.get('algorithm', policy.spec.kind)}, seed {provenance.get('seed', '?')}{trained_steps(policy)}"


def trained_steps(policy: Policy) -> str:
    """How long a policy was trained, such as ", 4.0 M steps"; empty where the provenance does not say."""
    steps = policy.spec.provenance.get("env_steps")
    return f", {steps_text(steps)} steps" if isinstance(steps, int) else ""
