"""A whole comparison: policies × scenarios, each beside its baselines, the look-ahead and the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalepilot.config import ExperimentConfig, config_from_mapping, load_config, with_trace, with_workload
from scalepilot.errors import InputError, did_you_mean
from scalepilot.evaluate.baselines import USUAL, baseline_names, find_rules, rules_folder
from scalepilot.evaluate.evaluation import LineupRow, OptimumOptions, evaluate_lineups, with_references
from scalepilot.evaluate.lineup import Gathered, shipped_beside
from scalepilot.evaluate.suite import SuiteComparison, compare_suite
from scalepilot.policy import shipped_names
from scalepilot.simulate import CellStore, Executor, Scenario, SerialExecutor, scenario_name, scenario_of
from scalepilot.simulate.workload_data import workload_name
from scalepilot_envs.registration import find_env, same_id
from scalepilot_envs.workloads import WORKLOADS, PoolWorkload

_CONFIGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Effort:
    """How thorough a comparison is.

    Attributes:
        evaluations: points a search for a rule's parameters draws.
        optimum: plan the clairvoyant optimum where it can be known.
        step_log: keep every step of every episode; needs a store.
    """

    evaluations: int = 600
    optimum: bool = True
    step_log: bool = False


@dataclass(frozen=True)
class Extent:
    """How much is run, where an experiment does not say; None for what it says.

    Attributes:
        windows, steps, arrival_seeds: of Autoscale: test windows of each workload, steps of a window, seeds of its arrivals.
        peak_rps: of Autoscale: scale kinds and traces so that their 99.5 % quantile is this; 0 keeps the rates, None is protocol
            v1's 500.
        episodes: of any other environment.
        seeds_of_either: arrival seeds or episodes, whichever the environment has; the former name of both.
    """

    windows: int | None = None
    steps: int | None = None
    arrival_seeds: int | None = None
    peak_rps: float | None = None
    episodes: int | None = None
    seeds_of_either: int | None = None

    def of(self, config: ExperimentConfig) -> ExperimentConfig:
        """An experiment with this much to run.

        Raises:
            InputError: something is given that its environment has no use for.
        """
        traffic = config.env.takes_workload
        unused = ("episodes",) if traffic else ("windows", "steps", "arrival_seeds", "peak_rps")
        for name in unused:
            if getattr(self, name) is not None:
                allowed = "--arrival-seeds, --windows, --steps" if traffic else "--episodes"
                raise InputError(f"--{name.replace('_', '-')}: is not used on {config.env.id}; allowed: {allowed}")
        seeds = self.arrival_seeds or self.seeds_of_either
        changes = {"window_steps": self.steps, "test_seeds": tuple(range(seeds)) if seeds else None} if traffic else {}
        given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        try:
            return replace(config, evaluation=replace(config.evaluation, **given)) if given else config
        except ValueError as error:
            raise InputError(f"--steps, --arrival-seeds: evaluation.{error}") from None


def scenarios(
    gathered: Gathered,
    workloads: Sequence[str],
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    extent: Extent | None = None,
) -> list[Scenario]:
    """Where to compare.

    Args:
        gathered: whose own experiments are taken if nothing is named.
        workloads: kinds of workload, traces, and experiments' YAML files.
        config: experiment that names the environment, and the workload if none is named; a policy's own if None.
        overrides: "a.b=c" settings of every experiment.
        extent: how much; what the experiments say if None.

    Raises:
        InputError: a workload that does not exist, two of one name or of different environments, or an option that is not used.
    """
    extent = extent or Extent()
    own = [] if config else [_overridden(c, overrides) for c in gathered.configs]
    # A policy for any service was made on a pool, which is no place to compare others on.
    of_one = [c for c in own if not isinstance(c.workload, PoolWorkload)]
    own = of_one if of_one or workloads else own
    named = [load_config(config, overrides)] if config else []
    base = (named or own or [config_from_mapping({}, overrides)])[0]
    chosen: list[tuple[str | None, ExperimentConfig]] = [_named(text, base, overrides, extent.peak_rps) for text in workloads]
    chosen = chosen or [(None, c) for c in named or own or [base]]
    episodes = extent.episodes or extent.seeds_of_either
    names = [name or scenario_name(c) for name, c in chosen]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"workload: {name} is given twice; allowed: each once, under different names")
    found = [
        scenario_of(extent.of(c), name=name, windows=extent.windows, episodes=episodes)
        for name, (_, c) in zip(names, chosen, strict=True)
    ]
    for scenario in found:
        if scenario.env.env_id != found[0].env.env_id:
            theirs = f"{names[0]} is for {found[0].env.env_id}, {scenario.name} for {scenario.env.env_id}"
            raise InputError(f"workload: {theirs}; allowed: one environment")
    for policy in gathered.policies:
        own_id = find_env(policy.spec.env_id).env_id
        if not same_id(own_id, found[0].env.env_id):
            theirs = f"{policy.spec.name} is for {own_id}, {found[0].name} for {found[0].env.env_id}"
            raise InputError(f"workload: {theirs}; allowed: one environment")
    return found


def _overridden(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    return config_from_mapping(config.to_mapping(), overrides) if overrides else config


def _named(
    text: str, base: ExperimentConfig, overrides: Sequence[str], peak_rps: float | None
) -> tuple[str | None, ExperimentConfig]:
    """Name, where it is not the experiment's own, and config of a workload that was asked for."""
    path = Path(text)
    if path.suffix in _CONFIGS:
        config = load_config(path, overrides)
        return workload_name(config, path.stem), config
    if text in WORKLOADS and text != "trace":
        return text, with_workload(base, text, peak_rps)
    if path.suffix or path.is_file():
        return path.stem, with_trace(base, path, peak_rps)
    kinds = [kind for kind in WORKLOADS if kind != "trace"]
    raise InputError(
        f"workload: {text!r} is not allowed; allowed: {', '.join(kinds)}, a trace's file or an experiment's YAML"
        f"{did_you_mean(text, kinds)}"
    )


def _shipped(gathered: Gathered, scenario: Scenario, asked: Sequence[str] | None) -> list[LineupRow]:
    """Policies that come with Scalepilot, as baselines: all of them if nothing is asked for, those that are not given anyway."""
    if scenario.traffic is None:
        return []
    found = shipped_beside(gathered.policies, None if asked is None or "all" in asked else asked)
    return [LineupRow.single(name, "baseline", policy) for name, policy in found.items()]


def run_comparison(
    gathered: Gathered,
    on: Sequence[Scenario],
    *,
    baselines: Sequence[str] | None,
    effort: Effort,
    executor: Executor,
    bootstrap_samples: int = 2000,
    store: CellStore | None = None,
    cache: Path | None = None,
) -> SuiteComparison:
    """Tune the rules, plan the optima, run everyone and compare.

    Args:
        gathered: policies and rules that take part.
        on: scenarios of one environment.
        baselines: as `baseline_names` understands them; None for the usual ones.
        effort: how thorough.
        executor: does what can be done side by side.
        bootstrap_samples: resamples behind the intervals.
        store: where finished cells are kept.
        cache: folder of tuned rules and optima found before; None keeps nothing.
    """
    if any(scenario.is_live for scenario in on):
        # There is one deployment.
        executor = SerialExecutor()
    usual = USUAL if on[0].traffic is not None else ("all",)
    shipped = _shipped(gathered, on[0], baselines)
    asked = usual if baselines is None else [name for name in baselines if name not in shipped_names()]
    names = baseline_names(asked, on[0])
    others = [name for name in names if name not in gathered.rules]
    folders = [rules_folder(scenario, effort.evaluations, cache) for scenario in on]
    rules = find_rules([*gathered.rules, *others], on, effort.evaluations, executor, folders)
    optimum = OptimumOptions(cache / "optimum" if cache else None) if effort.optimum else None
    lineups = []
    for scenario, found in zip(on, rules, strict=True):
        rows = [LineupRow.single(name, "policy", rule) for name, rule in zip(gathered.rules, found, strict=False)]
        rows += [LineupRow.single(name, "baseline", rule) for name, rule in zip(others, found[len(rows) :], strict=True)]
        lineups.append(with_references(scenario, [*gathered.rows, *rows, *shipped], optimum=optimum, executor=executor))
    comparisons, failed = evaluate_lineups(
        lineups, executor, bootstrap_samples=bootstrap_samples, store=store, step_log=effort.step_log
    )
    return compare_suite(comparisons, failed=gathered.failed | failed, bootstrap_samples=bootstrap_samples)
