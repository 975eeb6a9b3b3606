"""Who a policy must beat: every rule for Autoscale as it comes, and tuned on the workload it is judged on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalepilot.errors import ArtifactError, InputError, did_you_mean
from scalepilot.evaluate.rule_search import SPACES, Search, fitted_forecast, hpa_search, rule_search, run_searches, tuned_rule
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import RULES, Hpa, HpaParameters, Rule
from scalepilot.policy.rules.command_line import has_settings, rule_from_text, settings_from_text
from scalepilot.policy.rules.hpa import METRICS
from scalepilot.progress import Progress
from scalepilot.simulate import Executor, ProtocolData, SerialExecutor
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


@dataclass(frozen=True)
class Ground:
    """A workload that rules are tuned for.

    Attributes:
        data: the protocol's episodes; test is not touched.
        params: the service.
        folder: what it holds is not searched again, what is found is stored there; None keeps nothing.
    """

    data: ProtocolData
    params: AutoscaleParams
    folder: Path | None = None

    @classmethod
    def cached(cls, data: ProtocolData, params: AutoscaleParams, evaluations: int, cache: Path | None) -> Ground:
        """With a folder under `cache` that holds for this training and validation data, service and effort alone."""
        if cache is None:
            return cls(data, params)
        # A trace may be recorded anew under its old name.
        digest = hashlib.sha256(json.dumps([asdict(params), evaluations], sort_keys=True).encode())
        for array in (data.train_series.rates_rps, data.train.arrived, data.validation.arrived):
            digest.update(array.tobytes())
        return cls(data, params, cache / "rules" / f"{data.train.workload}-{digest.hexdigest()[:12]}")


def baseline_names(asked: Sequence[str], where: str = "--baseline") -> list[str]:
    """Names of BASELINES that were asked for, and rules with settings as they were given behind them.

    `all`, `none`, and `hpa-tuned` for both of its metrics, are understood.

    Raises:
        InputError: an unknown name or setting.
    """
    short = {"all": BASELINES, "none": (), HPA_TUNED: HPA_TUNED_BY_METRIC}
    names: list[str] = []
    for name in asked:
        if has_settings(name):
            settings_from_text(name)
            names.append(name)
            continue
        if name not in short and name not in BASELINES:
            raise InputError(f"{where}: {_unknown(name, (*short, *BASELINES))}")
        names += short.get(name, (name,))
    return [name for name in BASELINES if name in names] + [name for name in dict.fromkeys(names) if name not in BASELINES]


def is_rule_name(text: str) -> bool:
    """Whether a policy is given by the name of a rule: `kpa`, `kpa-default`, `hpa-tuned-rps`, `hpa:target=0.8` and so on."""
    return has_settings(text) or text in RULES or text in BASELINES or text == HPA_TUNED or text.removesuffix(_DEFAULT) in RULES


def find_rules(names: Sequence[str], grounds: Sequence[Ground], evaluations: int, executor: Executor) -> list[list[Rule[Any]]]:
    """Rules by name for each workload, those to be tuned all searched at once.

    Args:
        names: as `is_rule_name` knows them; `hpa-tuned` is the better of its two metrics on the validation windows.
        grounds: one a workload.
        evaluations: points a search draws; half of it for HPA on each metric.
        executor: flies the candidates.

    Returns:
        For each ground, the rules in the order of the names.
    """
    wanted = [part for name in names for part in (HPA_TUNED_BY_METRIC if name == HPA_TUNED else (name,))]
    known: dict[tuple[int, str], Rule[Any]] = {}
    searches: dict[tuple[int, str], Search] = {}
    for i, ground in enumerate(grounds):
        for name in dict.fromkeys(wanted):
            if name in HPA_TUNED_BY_METRIC or name.endswith(_TUNED):
                stored = _stored(name, ground.folder)
                if stored is None:
                    searches[i, name] = _search(name, ground, evaluations)
                else:
                    known[i, name] = stored
            else:
                known[i, name] = _as_it_comes(name, ground)
    if searches:
        progress = Progress("tuning " + ", ".join(dict.fromkeys(name for _, name in searches)), "evaluations")
        progress.begin(sum(len(s.candidates) for s in searches.values()))
        found = run_searches(list(searches.values()), executor, progress.update)
        progress.end()
        for ((i, name), search), result in zip(searches.items(), found, strict=True):
            rule = known[i, name] = tuned_rule(search.rule_name, result, search.params, name)
            folder = grounds[i].folder
            if folder is not None:
                save_policy(rule, folder / name)
    return [[_chosen(name, i, known) for name in names] for i in range(len(grounds))]


def tuned_rivals(
    data: ProtocolData,
    params: AutoscaleParams,
    evaluations: int,
    folder: Path | None,
    executor: Executor | None = None,
    names: Sequence[str] = (HPA_TUNED,),
) -> list[Rule[Any]]:
    """The baselines of an experiment but for the default HPA; arguments as `Ground` and `find_rules` have them.

    Raises:
        InputError: an unknown name.
    """
    wanted = [name for name in baseline_names(names, "evaluation.baselines") if name != HPA_DEFAULT]
    return find_rules(wanted, [Ground(data, params, folder)], evaluations, executor or SerialExecutor())[0]


def _chosen(name: str, ground: int, known: dict[tuple[int, str], Rule[Any]]) -> Rule[Any]:
    if name != HPA_TUNED:
        return known[ground, name]
    return min((known[ground, n] for n in HPA_TUNED_BY_METRIC), key=lambda rule: rule.spec.provenance["validation_J_per_hour"])


def _as_it_comes(name: str, ground: Ground) -> Rule[Any]:
    text = name.removesuffix(_DEFAULT)
    if text == "hpa":
        return Hpa(HpaParameters(), ground.params, name=name)
    # Fitted but not searched.
    planned = text.partition(":")[0] == "forecast_mpc"
    fitted = {"forecast": fitted_forecast(ground.data, ground.params)} if planned else None
    return rule_from_text(text, ground.params, fitted, name=None if ":" in text else name)


def _search(name: str, ground: Ground, evaluations: int) -> Search:
    if name in HPA_TUNED_BY_METRIC:
        metric = name.removeprefix(f"{HPA_TUNED}-")
        return hpa_search(ground.data, ground.params, metric=metric, evaluations=evaluations // len(METRICS))
    return rule_search(name.removesuffix(_TUNED), ground.data, ground.params, evaluations=evaluations)


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
