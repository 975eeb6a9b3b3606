"""Rules: one dictionary, name → class."""

from __future__ import annotations

import importlib
from typing import Any

from scalepilot.errors import ArtifactError, did_you_mean
from scalepilot.policy.rules.base import MoveRule, Rule, parameters_from_json
from scalepilot.policy.rules.forecast import Forecast, fit_forecast
from scalepilot.policy.rules.forecast_mpc import ForecastMpc, ForecastMpcParameters
from scalepilot.policy.rules.hpa import Hpa, HpaParameters
from scalepilot.policy.rules.kpa import Kpa, KpaParameters
from scalepilot.policy.rules.look_ahead import LookAhead
from scalepilot.policy.rules.never import Never, NeverParameters
from scalepilot.policy.rules.random import Random, RandomParameters
from scalepilot.policy.rules.reactive import ReactiveAverage, ReactiveMaximum, ReactiveParameters
from scalepilot.policy.rules.static import Static, StaticParameters
from scalepilot.policy.rules.threshold import Threshold, ThresholdParameters
from scalepilot.policy.rules.tracking import Tracking, TrackingParameters
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.autoscale.description import describe as describe_autoscale
from scalepilot_envs.description import EnvDescription

__all__ = [
    "RULES",
    "Forecast",
    "ForecastMpc",
    "ForecastMpcParameters",
    "Hpa",
    "HpaParameters",
    "Kpa",
    "KpaParameters",
    "LookAhead",
    "MoveRule",
    "Never",
    "NeverParameters",
    "Random",
    "RandomParameters",
    "ReactiveAverage",
    "ReactiveMaximum",
    "ReactiveParameters",
    "Rule",
    "Static",
    "StaticParameters",
    "Threshold",
    "ThresholdParameters",
    "Tracking",
    "TrackingParameters",
    "fit_forecast",
    "make_rule",
    "rules_for",
]

# One line a rule: its module in this folder, and its class.
_REGISTERED = (
    ("random", "Random"),
    ("static", "Static"),
    ("never", "Never"),
    ("threshold", "Threshold"),
    ("tracking", "Tracking"),
    ("hpa", "Hpa"),
    ("kpa", "Kpa"),
    ("forecast_mpc", "ForecastMpc"),
    ("reactive", "ReactiveAverage"),
    ("reactive", "ReactiveMaximum"),
)


def _by_name() -> dict[str, type[Rule[Any]]]:
    found: dict[str, type[Rule[Any]]] = {}
    for module, kind in _REGISTERED:
        rule = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
        if rule.rule_name in found:
            raise ValueError(f"rule: {rule.rule_name} is registered twice; allowed: once")
        found[rule.rule_name] = rule
    return found


RULES = _by_name()


def make_rule(
    rule_name: str, env: EnvDescription | AutoscaleParams, parameters: dict[str, Any] | None = None, /, **naming: Any
) -> Rule[Any]:
    """Build a rule by name; `parameters` left out are the environment's or the rule's defaults.

    Args:
        rule_name: key in RULES.
        env: what it scales; `AutoscaleParams` stand for Autoscale-v0.
        parameters: of the rule.
        naming: `name`, `version` and `provenance`.

    Raises:
        ArtifactError: unknown rule, unfit parameters, or an environment that does not show what the rule reads.
    """
    if rule_name not in RULES:
        hint = did_you_mean(rule_name, RULES)
        raise ArtifactError(f"rule: {rule_name!r} is not allowed; allowed: {', '.join(RULES)}{hint}")
    rule = RULES[rule_name]
    description = env if isinstance(env, EnvDescription) else describe_autoscale(env)
    if not isinstance(parameters or {}, dict):
        raise ArtifactError(f"rule.parameters: {parameters!r} is not allowed; allowed: names and values")
    values = {**description.rule_defaults.get(rule_name, {}), **(parameters or {})}
    return rule(parameters_from_json(rule.parameters_type, rule.parameters_from_json(values)), description, **naming)


def rules_for(env: EnvDescription) -> list[str]:
    """Names of the rules an environment can be scaled with."""
    fitting = []
    for name in RULES:
        try:
            make_rule(name, env)
        except ArtifactError:
            continue
        fitting.append(name)
    return fitting
