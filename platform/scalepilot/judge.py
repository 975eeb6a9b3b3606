"""Who a policy must beat, and how it fares against them: rules default and tuned, the look-ahead, the optimum."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scalepilot.errors import ArtifactError
from scalepilot.evaluate.compare import Comparison, Contestant, compare
from scalepilot.evaluate.comparison import Role
from scalepilot.policy import Planner, Policy, load_policy, save_policy
from scalepilot.policy.rules import Hpa, HpaParameters, Rule, make_rule
from scalepilot.policy.rules.hpa import METRICS
from scalepilot.progress import Progress
from scalepilot.simulate import Optimum, OptimumCache, ProtocolData, autoscale_optimum, run_episodes
from scalepilot.tuning import (
    SPACES,
    describe_parameters,
    fitted_forecast,
    tune_hpa,
    tune_look_ahead,
    tune_rule,
    tuned_rule,
)
from scalepilot_envs.autoscale import AutoscaleParams

HPA_DEFAULT = "hpa-default"
OPTIMUM = "optimum"
RuleSet = Literal["hpa", "all"]
RULE_SETS: tuple[RuleSet, ...] = ("hpa", "all")


@dataclass(frozen=True)
class OptimumOptions:
    """How the clairvoyant optimum is computed.

    Attributes:
        processes: to share the episodes among.
        cache: folder of optima found before; None keeps nothing.
    """

    processes: int = 1
    cache: Path | None = None


def tuned_rivals(data: ProtocolData, params: AutoscaleParams, evaluations: int, folder: Path | None) -> list[Rule[Any]]:
    """HPA tuned on each metric, half of the evaluations each.

    Args:
        data: the protocol's episodes; test is not touched.
        params: the service.
        evaluations: points drawn, both metrics together.
        folder: of a run: what it holds is not searched again, what is found is stored there. None keeps nothing.
    """
    rivals = []
    for metric in METRICS:

        def find(progress: Progress, metric: str = metric, share: int = evaluations // len(METRICS)) -> Rule[Any]:
            progress.begin(share)
            found = tune_hpa(data, params, metric=metric, evaluations=share, progress=progress.update)
            return tuned_rule("hpa", found, params, f"hpa-tuned-{metric}")

        rivals.append(_stored_or_found(f"hpa-tuned-{metric}", f"tuning HPA on {metric}", find, folder))
    return rivals


def other_rules(data: ProtocolData, params: AutoscaleParams, evaluations: int, folder: Path | None) -> list[Rule[Any]]:
    """Every other rule for Autoscale: as it comes, and tuned with so many evaluations where there is something to tune."""
    rules: list[Rule[Any]] = [make_rule(name, params) for name in ("random", "never")]
    rules += [make_rule(name, params, name=f"{name}-default") for name in ("static", "threshold", "tracking", "kpa")]
    # Fitted but not searched.
    fitted = {"forecast": fitted_forecast(data, params)}
    rules.append(make_rule("forecast_mpc", params, fitted, name="forecast_mpc-default"))
    for name in ("static", *SPACES):

        def find(progress: Progress, name: str = name) -> Rule[Any]:
            progress.begin(evaluations)
            found = tune_rule(name, data, params, evaluations=evaluations, progress=progress.update)
            return tuned_rule(name, found, params, f"{name}-tuned")

        rules.append(_stored_or_found(f"{name}-tuned", f"tuning {name}", find, folder))
    return rules


def _stored_or_found(name: str, task: str, find: Any, folder: Path | None) -> Rule[Any]:
    if folder is not None and (folder / name).exists():
        with contextlib.suppress(ArtifactError):
            stored = load_policy(folder / name)
            if isinstance(stored, Rule):
                return stored
    progress = Progress(task, "evaluations")
    rule: Rule[Any] = find(progress)
    progress.end()
    if folder is not None:
        save_policy(rule, folder / name)
    return rule


def optimum_of(data: ProtocolData, params: AutoscaleParams, options: OptimumOptions) -> Optimum:
    """The clairvoyant optimum of every test episode."""
    progress = Progress("planning the clairvoyant optimum", "episodes")
    progress.begin(len(data.test))
    cache = OptimumCache(options.cache) if options.cache else None
    found = autoscale_optimum(data.test, params, cache=cache, processes=options.processes, progress=progress.update)
    progress.end()
    return found


def judge(
    data: ProtocolData,
    params: AutoscaleParams,
    policies: Sequence[tuple[str, Policy]],
    rivals: Sequence[Rule[Any]],
    *,
    bootstrap_samples: int,
    optimum: OptimumOptions | None = None,
) -> Comparison:
    """Fly policies, the default HPA, the rivals, the look-ahead and the optimum's plan through the test windows.

    Args:
        data: the protocol's episodes.
        params: the service.
        policies: (row label, policy).
        rivals: rules to be beaten.
        bootstrap_samples: resamples behind the intervals.
        optimum: how to compute the clairvoyant optimum; None leaves it out, and the gap is closed towards the look-ahead.
    """
    default = Hpa(HpaParameters(), params, name=HPA_DEFAULT)
    entries: list[tuple[str, Role, str, Policy | Planner]] = [
        (label, "policy", describe_policy(policy), policy) for label, policy in policies
    ]
    entries += [(rule.spec.name, "baseline", describe_policy(rule), rule) for rule in (default, *rivals)]
    best = None
    if optimum is not None:
        best = optimum_of(data, params, optimum)
        bound = f"clairvoyant: this plan can be flown; no policy costs less than {best.lower_J_per_hour.mean():.3f}"
        entries.append((OPTIMUM, "reference", bound, best.planner(OPTIMUM)))
    look_ahead = tune_look_ahead(data, params)
    knows = f"knows the coming mean rates, utilisation {look_ahead.utilisation:.2f}"
    entries.append((look_ahead.name, "reference", knows, look_ahead))
    contestants, played_back = [], _busiest_window(data)
    progress = Progress("evaluating", "policies")
    progress.begin(len(entries))
    for done, (name, role, detail, actor) in enumerate(entries, start=1):
        results, playback = run_episodes(actor, data.test, params, playback_of=played_back)
        contestants.append(Contestant(name, role, detail, results, playback))
        progress.update(done)
    progress.end()
    return compare(
        data.test.workload,
        data.test,
        contestants,
        bootstrap_samples=bootstrap_samples,
        lower_bound_J_per_hour=None if best is None else best.lower_J_per_hour,
    )


def _busiest_window(data: ProtocolData) -> int:
    """The test episode worth playing back: the one whose rate varies most."""
    rates = data.test.rates_rps[data.test.seed == data.test.seed[0]]
    return int(np.asarray(rates).std(axis=1).argmax())


def describe_policy(policy: Policy) -> str:
    """One phrase for a table: how it came to be."""
    provenance = policy.spec.provenance
    if policy.spec.kind == "rule":
        parameters = getattr(policy, "parameters", None)
        return describe_parameters(parameters) if parameters is not None else "rule"
    steps = provenance.get("env_steps")
    trained = f", {steps / 1e6:.1f} M steps" if isinstance(steps, int) else ""
    return f"{provenance.get('algorithm', policy.spec.kind)}, seed {provenance.get('seed', '?')}{trained}"
