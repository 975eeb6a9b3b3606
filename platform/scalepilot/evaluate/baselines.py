"""Baselines by name: rules as they come and, on Autoscale, tuned on the workload that a policy is evaluated on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scalepilot.errors import ArtifactError, InputError, did_you_mean
from scalepilot.evaluate.rule_search import SPACES, Search, fitted_forecast, hpa_search, rule_search, run_searches, tuned_rule
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import RULES, Hpa, HpaParameters, Rule, rules_for
from scalepilot.policy.rules.command_line import has_settings, rule_from_text, settings_from_text
from scalepilot.policy.rules.hpa import METRICS
from scalepilot.progress import Progress
from scalepilot.simulate import Executor, ProtocolData, Scenario, SerialExecutor
from scalepilot_envs.autoscale import AutoscaleParams

HPA_DEFAULT, HPA_TUNED = "hpa-default", "hpa-tuned"
HPA_TUNED_BY_METRIC = tuple(f"{HPA_TUNED}-{metric}" for metric in METRICS)
USUAL = (HPA_DEFAULT, *HPA_TUNED_BY_METRIC)
# With nothing to set, and so neither default nor tuned.
_PLAIN = ("random", "never")
# The order of their rows.
BASELINES = (
    *USUAL,
    *_PLAIN,
    *(f"{name}-default" for name in ("static", "threshold", "tracking", "kpa", "forecast_mpc")),
    *(f"{name}-tuned" for name in ("static", *SPACES)),
)
_DEFAULT, _TUNED = "-default", "-tuned"


def rules_folder(scenario: Scenario, evaluations: int, cache: Path | None) -> Path | None:
    """A folder under `cache` that holds rules tuned for this training and validation data, service and effort alone."""
    data = scenario.traffic
    if cache is None or data is None:
        return None
    # A trace may be recorded anew under its old name.
    digest = hashlib.sha256(json.dumps([asdict(scenario.env.params), evaluations], sort_keys=True).encode())
    for array in (data.train_series.rates_rps, data.train.arrived, data.validation.arrived):
        digest.update(array.tobytes())
    return cache / "rules" / f"{data.train.workload}-{digest.hexdigest()[:12]}"


def baseline_names(asked: Sequence[str], scenario: Scenario, where: str = "--baseline") -> list[str]:
    """Names of baselines that were asked for, and rules with settings as they were given behind them.

    `all`, `none`, and on Autoscale `hpa-tuned` for both of its metrics, are understood.

    Args:
        asked: names.
        scenario: rules are tuned on its traffic; without any, they are taken as they come.
        where: what to name in an error.

    Raises:
        InputError: an unknown name or setting.
    """
    every = BASELINES if scenario.traffic is not None else tuple(rules_for(scenario.env))
    # Chance on a real deployment teaches nobody anything, unless it is asked for by name.
    usual = tuple(name for name in every if not (scenario.is_live and name == "random"))
    short = {"all": usual, "none": ()} | ({HPA_TUNED: HPA_TUNED_BY_METRIC} if scenario.traffic is not None else {})
    names: list[str] = []
    for name in asked:
        if has_settings(name):
            settings_from_text(name)
            names.append(name)
            continue
        if name not in short and name not in every:
            raise InputError(f"{where}: {_unknown(name, (*short, *every))}")
        names += short.get(name, (name,))
    return [name for name in every if name in names] + [name for name in dict.fromkeys(names) if name not in every]


def is_rule_name(text: str) -> bool:
    """Whether a policy is given by the name of a rule: `kpa`, `kpa-default`, `hpa-tuned-rps`, `hpa:target=0.8` and so on."""
    return has_settings(text) or text in RULES or text in BASELINES or text == HPA_TUNED or text.removesuffix(_DEFAULT) in RULES


def find_rules(
    names: Sequence[str],
    scenarios: Sequence[Scenario],
    evaluations: int,
    executor: Executor,
    folders: Sequence[Path | None] | None = None,
) -> list[list[Rule[Any]]]:
    """Rules by name for each scenario, those to be tuned all searched at once.

    Args:
        names: as `is_rule_name` knows them; `hpa-tuned` is the better of its two metrics on the validation windows.
        scenarios: their training and validation parts are searched; test is not touched.
        evaluations: points a search draws; half of it for HPA on each metric.
        executor: runs the candidates.
        folders: of each scenario: what it holds is not searched again, what is found is stored there; None keeps nothing.

    Returns:
        For each scenario, the rules in the order of the names.

    Raises:
        InputError: a rule does not fit the environment, or cannot be tuned there.
    """
    wanted = [part for name in names for part in (HPA_TUNED_BY_METRIC if name == HPA_TUNED else (name,))]
    kept = folders or [None] * len(scenarios)
    known: dict[tuple[int, str], Rule[Any]] = {}
    searches: dict[tuple[int, str], Search] = {}
    for i, scenario in enumerate(scenarios):
        for name in dict.fromkeys(wanted):
            if scenario.traffic is None:
                if name.endswith(_TUNED) or name in HPA_TUNED_BY_METRIC:
                    allowed = ", ".join(rules_for(scenario.env))
                    raise InputError(f"{name}: rules are tuned on the traffic of Autoscale-v0; allowed here: {allowed}")
                known[i, name] = rule_from_text(name, scenario.env)
            elif name in HPA_TUNED_BY_METRIC or name.endswith(_TUNED):
                stored = _stored(name, kept[i])
                if stored is None:
                    searches[i, name] = _search(name, scenario.traffic, scenario.env.params, evaluations)
                else:
                    known[i, name] = stored
            else:
                known[i, name] = _as_it_comes(name, scenario.traffic, scenario.env.params)
    if searches:
        progress = Progress("tuning " + ", ".join(dict.fromkeys(name for _, name in searches)), "evaluations")
        progress.begin(sum(len(s.candidates) for s in searches.values()))
        found = run_searches(list(searches.values()), executor, progress.update)
        progress.end()
        for ((i, name), search), result in zip(searches.items(), found, strict=True):
            rule = known[i, name] = tuned_rule(search.rule_name, result, search.params, name)
            folder = kept[i]
            if folder is not None:
                save_policy(rule, folder / name)
    return [[_chosen(name, i, known) for name in names] for i in range(len(scenarios))]


def experiment_baselines(
    scenario: Scenario, names: Sequence[str], evaluations: int, folder: Path | None, executor: Executor | None = None
) -> list[Rule[Any]]:
    """What a run's policy is compared against: on Autoscale the default HPA and those named, elsewhere every rule that fits.

    Args:
        scenario: of the run.
        names: `evaluation.baselines`.
        evaluations: as `find_rules`.
        folder: where tuned ones are kept; None keeps nothing.
        executor: as `find_rules`; here, one after the other, if None.

    Raises:
        InputError: an unknown name.
    """
    if scenario.traffic is None:
        wanted = rules_for(scenario.env)
    else:
        others = baseline_names(names, scenario, "evaluation.baselines")
        wanted = [HPA_DEFAULT, *(name for name in others if name != HPA_DEFAULT)]
    return find_rules(wanted, [scenario], evaluations, executor or SerialExecutor(), [folder])[0]


def _chosen(name: str, at: int, known: dict[tuple[int, str], Rule[Any]]) -> Rule[Any]:
    if name != HPA_TUNED:
        return known[at, name]
    return min((known[at, n] for n in HPA_TUNED_BY_METRIC), key=lambda rule: rule.spec.provenance["validation_J_per_hour"])


def _as_it_comes(name: str, data: ProtocolData, params: AutoscaleParams) -> Rule[Any]:
    text = name.removesuffix(_DEFAULT)
    if text == "hpa":
        return Hpa(HpaParameters(), params, name=name)
    # Fitted but not searched.
    planned = text.partition(":")[0] == "forecast_mpc"
    fitted = {"forecast": fitted_forecast(data, params)} if planned else None
    return rule_from_text(text, params, fitted, name=None if ":" in text else name)


def _search(name: str, data: ProtocolData, params: AutoscaleParams, evaluations: int) -> Search:
    if name in HPA_TUNED_BY_METRIC:
        metric = name.removeprefix(f"{HPA_TUNED}-")
        return hpa_search(data, params, metric=metric, evaluations=evaluations // len(METRICS))
    return rule_search(name.removesuffix(_TUNED), data, params, evaluations=evaluations)


def _stored(name: str, folder: Path | None) -> Rule[Any] | None:
    if folder is not None and (folder / name).exists():
        with contextlib.suppress(ArtifactError):
            stored = load_policy(folder / name)
            # What was found for a rule that decided otherwise is searched anew.
            if isinstance(stored, Rule) and stored.made_with_revision == stored.revision:
                return stored
    return None


def _unknown(name: str, allowed: Sequence[str]) -> str:
    return f"{name!r} is not allowed; allowed: {', '.join(allowed)}{did_you_mean(name, allowed)}"
