"""How policies fare against whom they must beat: the rules, the look-ahead and the optimum, on the same test episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import InputError
from scalepilot.evaluate.baselines import HPA_DEFAULT, Ground, find_rules, tuned_rivals
from scalepilot.evaluate.compare import Comparison, Contestant, compare
from scalepilot.evaluate.comparison import Member, Role
from scalepilot.evaluate.rule_search import describe_parameters, tune_look_ahead
from scalepilot.policy import Planner, Policy
from scalepilot.policy.rules import Rule
from scalepilot.progress import Progress, steps_text
from scalepilot.simulate import (
    Cell,
    CellStore,
    Executor,
    FlownCell,
    Optimum,
    OptimumCache,
    ProtocolData,
    SerialExecutor,
    autoscale_optimum,
    fly_cells,
)
from scalepilot_envs.autoscale import AutoscaleParams

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
        actor: the policy, or a planner.
    """

    name: str
    seed: int
    actor: Policy | Planner


@dataclass(frozen=True)
class Entrant:
    """One row: a policy, or several that differ only in their training seed.

    Attributes:
        name, role, detail: as in `Contestant`.
        trained: one, or one a training seed.
    """

    name: str
    role: Role
    detail: str
    trained: tuple[Trained, ...]

    @classmethod
    def single(cls, name: str, role: Role, actor: Policy | Planner, detail: str | None = None) -> Entrant:
        """A row of one policy or planner."""
        if detail is None:
            assert isinstance(actor, Policy)
            detail = describe_policy(actor)
        return cls(name, role, detail, (Trained(name, 0, actor),))


@dataclass(frozen=True)
class Field:
    """One workload and who flies it.

    Attributes:
        data: the protocol's episodes.
        params: the service.
        entrants: all of them.
        lower_bound_J_per_hour: (n,) the optimum's; None without it.
    """

    data: ProtocolData
    params: AutoscaleParams
    entrants: tuple[Entrant, ...]
    lower_bound_J_per_hour: NDArray[np.float64] | None = None


def with_references(
    data: ProtocolData,
    params: AutoscaleParams,
    entrants: Sequence[Entrant],
    *,
    optimum: OptimumOptions | None,
    executor: Executor,
) -> Field:
    """The look-ahead and the optimum's plan beside the others.

    Args:
        data: the protocol's episodes.
        params: the service.
        entrants: policies and baselines.
        optimum: how to compute the clairvoyant optimum; None leaves it out, and the gap is closed towards the look-ahead.
        executor: plans the optimum's episodes.
    """
    rows, bound = list(entrants), None
    if optimum is not None:
        best = optimum_of(data, params, optimum, executor)
        bound = best.lower_J_per_hour
        detail = f"clairvoyant: this plan can be flown; no policy costs less than {bound.mean():.3f}"
        rows.append(Entrant.single(OPTIMUM, "reference", best.planner(OPTIMUM), detail))
    look_ahead = tune_look_ahead(data, params)
    knows = f"knows the coming mean rates, utilisation {look_ahead.utilisation:.2f}"
    rows.append(Entrant.single(look_ahead.name, "reference", look_ahead, knows))
    return Field(data, params, tuple(rows), bound)


def optimum_of(data: ProtocolData, params: AutoscaleParams, options: OptimumOptions, executor: Executor) -> Optimum:
    """The clairvoyant optimum of every test episode."""
    progress = Progress(f"planning the clairvoyant optimum of {data.test.workload}", "episodes")
    progress.begin(len(data.test))
    cache = OptimumCache(options.cache) if options.cache else None
    found = autoscale_optimum(data.test, params, cache=cache, executor=executor, progress=progress.update)
    progress.end()
    return found


def judge_fields(
    fields: Sequence[Field],
    executor: Executor,
    *,
    bootstrap_samples: int,
    store: CellStore | None = None,
    step_log: bool = False,
) -> tuple[list[Comparison], dict[str, str]]:
    """Fly everybody through the test episodes of every workload, and compare.

    Args:
        fields: one a workload, the same rows in each.
        executor: flies the cells.
        bootstrap_samples: resamples behind the intervals.
        store: where finished cells are kept.
        step_log: keep every step of every episode in the store.

    Returns:
        One comparison a workload, and policy → why it was left out, from all of them.

    Raises:
        InputError: a baseline cannot be flown, or nobody is left.
    """
    cells: list[Cell] = []
    for field in fields:
        _check_names(field)
        shown = _busiest_window(field.data)
        for entrant in field.entrants:
            for trained in entrant.trained:
                where = (field.data.test, field.params)
                cells.append(Cell.of(trained.name, trained.actor, *where, playback_of=shown, step_log=step_log))
    progress = Progress("evaluating", "episodes")
    progress.begin(sum(len(cell.episodes) for cell in cells))
    flown = fly_cells(cells, executor, store=store, progress=progress.update)
    progress.end()
    failed = {cell.name: str(outcome) for cell, outcome in zip(cells, flown, strict=True) if isinstance(outcome, InputError)}
    outcomes = iter(flown)
    comparisons = []
    for field in fields:
        contestants = []
        for entrant in field.entrants:
            mine = [(trained, next(outcomes)) for trained in entrant.trained]
            good = [(t, o) for t, o in mine if t.name not in failed and isinstance(o, FlownCell)]
            if len(good) < len(mine) and entrant.role != "policy":
                raise InputError(f"{entrant.name}: {failed[entrant.name]}")
            if good:
                contestants.append(_contestant(entrant, good))
        if not contestants:
            raise InputError(f"policies: no policy could be evaluated; the first: {next(iter(failed.values()))}")
        comparisons.append(
            compare(
                field.data.test.workload,
                field.data.test,
                contestants,
                bootstrap_samples=bootstrap_samples,
                lower_bound_J_per_hour=field.lower_bound_J_per_hour,
            )
        )
    return comparisons, failed


def _contestant(entrant: Entrant, flown: Sequence[tuple[Trained, FlownCell]]) -> Contestant:
    row = entrant.name, entrant.role, entrant.detail
    if len(entrant.trained) == 1:
        return Contestant(*row, flown[0][1].results, flown[0][1].playback)
    return Contestant.of_members(*row, [Member(t.name, t.seed, cell.results) for t, cell in flown], flown[0][1].playback)


def _check_names(field: Field) -> None:
    names = [entrant.name for entrant in field.entrants]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"contestants: the name {name!r} is given twice; allowed: each once")


def judge(
    data: ProtocolData,
    params: AutoscaleParams,
    policies: Sequence[tuple[str, Policy]],
    rivals: Sequence[Rule[Any]],
    *,
    bootstrap_samples: int,
    optimum: OptimumOptions | None = None,
    executor: Executor | None = None,
) -> Comparison:
    """Fly policies, the default HPA, the rivals, the look-ahead and the optimum's plan through the test windows.

    Args:
        data: the protocol's episodes.
        params: the service.
        policies: (row label, policy).
        rivals: rules to be beaten.
        bootstrap_samples: resamples behind the intervals.
        optimum: how to compute the clairvoyant optimum; None leaves it out, and the gap is closed towards the look-ahead.
        executor: flies and plans; here, one after the other, if None.

    Raises:
        InputError: a policy cannot be flown.
    """
    executor = executor or SerialExecutor()
    default = find_rules([HPA_DEFAULT], [Ground(data, params)], 0, executor)[0]
    entrants = [Entrant.single(label, "policy", policy) for label, policy in policies]
    entrants += [Entrant.single(rule.spec.name, "baseline", rule) for rule in (*default, *rivals)]
    field = with_references(data, params, entrants, optimum=optimum, executor=executor)
    comparisons, failed = judge_fields([field], executor, bootstrap_samples=bootstrap_samples)
    for problem in failed.values():
        raise InputError(problem)
    return comparisons[0]


def with_test(data: ProtocolData, windows: int | None) -> ProtocolData:
    """The protocol's episodes with so many of the test windows, evenly spread; None for all."""
    have = len(np.unique(data.test.window))
    if windows is None or windows >= have:
        return data
    kept = np.unique(np.linspace(0, have - 1, windows).round().astype(np.int64))
    return replace(data, test=data.test.at(np.isin(data.test.window, kept)))


def _busiest_window(data: ProtocolData) -> int:
    """The test episode worth playing back: the one whose rate varies most."""
    rates = data.test.rates_rps[data.test.seed == data.test.seed[0]]
    return int(np.asarray(rates).std(axis=1).argmax())


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


__all__ = [
    "HPA_DEFAULT",
    "OPTIMUM",
    "Entrant",
    "Field",
    "OptimumOptions",
    "Trained",
    "describe_policy",
    "judge",
    "judge_fields",
    "optimum_of",
    "tuned_rivals",
    "with_references",
    "with_test",
]
