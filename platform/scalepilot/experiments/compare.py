"""A whole comparison: policies × workloads, each beside the rules tuned for that workload, the look-ahead and the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scalepilot.config import ExperimentConfig, config_from_mapping, load_config, with_trace, with_workload
from scalepilot.errors import InputError, did_you_mean
from scalepilot.evaluate.baselines import USUAL, Ground, baseline_names, find_rules
from scalepilot.evaluate.lineup import Gathered
from scalepilot.evaluate.returns import Collected, ReturnComparison, ReturnMember, compare_collected
from scalepilot.evaluate.run_comparison import Entrant, Field, OptimumOptions, judge_fields, with_references, with_test
from scalepilot.evaluate.suite import SuiteComparison, compare_suite
from scalepilot.learn.task import TEST_SEED
from scalepilot.policy import Policy, describe_env
from scalepilot.policy.rules import rules_for
from scalepilot.policy.rules.command_line import rule_from_text
from scalepilot.progress import Progress
from scalepilot.simulate import CellStore, EpisodeReturns, Executor, ProtocolData, ReturnsJob, fly_returns, packed
from scalepilot.simulate.workload_data import load_data, workload_name
from scalepilot_envs.workloads import WORKLOADS

_CONFIGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Arena:
    """One workload to be judged on.

    Attributes:
        name: for tables.
        config: names the workload, the service and how windows are cut.
    """

    name: str
    config: ExperimentConfig

    def data(self, windows: int | None = None) -> ProtocolData:
        """The protocol's episodes, with so many of the test windows; None for all."""
        data = load_data(self.config)
        parts = {part: replace(getattr(data, part), workload=self.name) for part in ("train", "validation", "test")}
        return with_test(replace(data, **parts), windows)


@dataclass(frozen=True)
class Effort:
    """How thorough a comparison is.

    Attributes:
        evaluations: points a search for a rule's parameters draws.
        windows: test windows of each workload; None for all.
        optimum: plan the clairvoyant optimum.
        step_log: keep every step of every episode; needs a store.
    """

    evaluations: int = 600
    windows: int | None = None
    optimum: bool = True
    step_log: bool = False


def arenas(
    gathered: Gathered,
    workloads: Sequence[str],
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    peak_rps: float | None = None,
) -> list[Arena]:
    """The workloads to judge on.

    Args:
        gathered: whose own workloads are taken if none is named.
        workloads: kinds of workload, traces, and experiments' YAML files.
        config: experiment that names the service, and the workload if none is named; a policy's own if None.
        overrides: "a.b=c" settings of every experiment.
        peak_rps: scale kinds and traces so that their 99.5 % quantile is this; None for protocol v1's 500, 0 keeps the rates.

    Raises:
        InputError: a workload that does not exist, or two of one name.
    """
    own = [_overridden(c, overrides) for c in gathered.configs]
    named = [load_config(config, overrides)] if config else []
    base = (named or own or [config_from_mapping({}, overrides)])[0]
    if workloads:
        found = [_arena(text, base, overrides, peak_rps) for text in workloads]
    else:
        found = [Arena(workload_name(c), c) for c in named or own or [base]]
    names = [arena.name for arena in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"workload: {name} is given twice; allowed: each once, under different names")
    return found


def _overridden(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    return config_from_mapping(config.to_mapping(), overrides) if overrides else config


def _arena(text: str, base: ExperimentConfig, overrides: Sequence[str], peak_rps: float | None) -> Arena:
    path = Path(text)
    if text in WORKLOADS and text != "trace":
        return Arena(text, with_workload(base, text, peak_rps))
    if path.suffix in _CONFIGS:
        config = load_config(path, overrides)
        return Arena(workload_name(config), config)
    if path.suffix or path.is_file():
        return Arena(path.stem, with_trace(base, path, peak_rps))
    kinds = [kind for kind in WORKLOADS if kind != "trace"]
    raise InputError(
        f"workload: {text!r} is not allowed; allowed: {', '.join(kinds)}, a trace's file or an experiment's YAML"
        f"{did_you_mean(text, kinds)}"
    )


def compete(
    gathered: Gathered,
    on: Sequence[Arena],
    *,
    baselines: Sequence[str] = USUAL,
    effort: Effort,
    executor: Executor,
    store: CellStore | None = None,
    cache: Path | None = None,
) -> SuiteComparison:
    """Tune the rules, plan the optima, fly everybody and compare.

    Args:
        gathered: policies and rules that take part.
        on: workloads.
        baselines: to be beaten, as `baseline_names` understands them.
        effort: how thorough.
        executor: does what can be done side by side.
        store: where finished cells are kept.
        cache: folder of tuned rules and optima found before; None keeps nothing.
    """
    rivals = [name for name in baseline_names(baselines) if name not in gathered.rules]
    loaded = [(arena.config.autoscale.params, arena.data(effort.windows)) for arena in on]
    grounds = [Ground.cached(data, params, effort.evaluations, cache) for params, data in loaded]
    rules = find_rules([*gathered.rules, *rivals], grounds, effort.evaluations, executor)
    fields: list[Field] = []
    for ground, found in zip(grounds, rules, strict=True):
        roles = ["policy"] * len(gathered.rules) + ["baseline"] * len(rivals)
        rows = [
            Entrant.single(name, "policy" if role == "policy" else "baseline", rule)
            for name, role, rule in zip((*gathered.rules, *rivals), roles, found, strict=True)
        ]
        optimum = OptimumOptions(cache / "optimum" if cache else None) if effort.optimum else None
        entrants = [*gathered.entrants, *rows]
        fields.append(with_references(ground.data, ground.params, entrants, optimum=optimum, executor=executor))
    samples = on[0].config.evaluation.bootstrap_samples
    comparisons, failed = judge_fields(fields, executor, bootstrap_samples=samples, store=store, step_log=effort.step_log)
    return compare_suite(comparisons, failed=gathered.failed | failed, bootstrap_samples=samples)


def compete_by_return(
    gathered: Gathered, *, baselines: Sequence[str] | None, num_episodes: int, executor: Executor
) -> ReturnComparison:
    """Policies for an environment that has no price in money, on the same seeds beside its rules.

    Args:
        gathered: policies of one environment, and rules that take part.
        baselines: names of rules; None for every one that fits, ("none",) for none.
        num_episodes: test episodes of each.
        executor: flies them.

    Raises:
        InputError: a rule that does not fit, or nobody can be flown.
    """
    spec = gathered.policies[0].spec
    env = describe_env(spec, spec.name)
    named = rules_for(env) if baselines is None else [name for name in baselines if name != "none"]
    rules = [Entrant.single(name, "policy", rule_from_text(name, env)) for name in gathered.rules]
    rivals = [Entrant.single(name, "baseline", rule_from_text(name, env)) for name in named if name not in gathered.rules]
    rows = [*gathered.entrants, *rules, *rivals]
    arguments = {**({"params": spec.env_params} if spec.env_params else {}), **spec.env_options}
    jobs = [
        ReturnsJob(t.name, packed(t.actor), spec.env_id, num_episodes, arguments, TEST_SEED)
        for row in rows
        for t in row.trained
        if isinstance(t.actor, Policy)
    ]
    progress, flown = Progress("evaluating", "policies"), {}
    progress.begin(len(jobs))
    for index, outcome in executor.run(fly_returns, jobs):
        flown[index] = outcome
        progress.update(len(flown))
    progress.end()
    outcomes = iter(flown[i] for i in range(len(jobs)))
    collected, failed = [], dict(gathered.failed)
    for row in rows:
        good = []
        for trained in row.trained:
            outcome = next(outcomes)
            if isinstance(outcome, InputError):
                failed[trained.name] = str(outcome)
            else:
                good.append(ReturnMember(trained.name, trained.seed, outcome))
        if good:
            several = len(row.trained) > 1
            results = EpisodeReturns.mean_of([m.results for m in good]) if several else good[0].results
            members = tuple(good) if several else ()
            role: Literal["policy", "baseline"] = "policy" if row.role == "policy" else "baseline"
            collected.append(Collected(row.name, role, row.detail, results, {}, members))
    if not collected:
        raise InputError(f"policies: no policy could be evaluated; the first: {next(iter(failed.values()))}")
    return replace(compare_collected(spec.env_id, collected, arguments=arguments), failed=failed)
