"""Rules: one dictionary, name → class."""

from __future__ import annotations

import difflib
from typing import Any

from scalepilot.errors import ArtifactError
from scalepilot.policy.rules.base import Rule, parameters_from_json
from scalepilot.policy.rules.hpa import Hpa, HpaParameters
from scalepilot.policy.rules.look_ahead import LookAhead
from scalepilot.policy.rules.static import Static, StaticParameters
from scalepilot.policy.rules.threshold import Threshold, ThresholdParameters
from scalepilot_envs.autoscale import AutoscaleParams

__all__ = [
    "RULES",
    "Hpa",
    "HpaParameters",
    "LookAhead",
    "Rule",
    "Static",
    "StaticParameters",
    "Threshold",
    "ThresholdParameters",
    "make_rule",
]

RULES: dict[str, type[Rule[Any]]] = {rule.rule_name: rule for rule in (Static, Threshold, Hpa)}


def make_rule(
    rule_name: str, env_params: AutoscaleParams, parameters: dict[str, Any] | None = None, /, **naming: Any
) -> Rule[Any]:
    """Build a rule by name; `parameters` left out are the rule's defaults, `naming` is `name`, `version` and `provenance`.

    Raises:
        ArtifactError: unknown rule or unfit parameters.
    """
    if rule_name not in RULES:
        near = difflib.get_close_matches(rule_name, RULES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ArtifactError(f"rule: {rule_name!r} is not allowed; allowed: {', '.join(RULES)}{hint}")
    rule = RULES[rule_name]
    return rule(parameters_from_json(rule.parameters_type, parameters or {}), env_params, **naming)
