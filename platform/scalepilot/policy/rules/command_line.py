"""A rule with its settings in one word, as the command line takes it: `hpa:target=0.8,down=600`."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from scalepilot.errors import ArtifactError, InputError, did_you_mean
from scalepilot.policy.rules import RULES, Rule, make_rule
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.description import EnvDescription

_SECONDS = "_seconds"
_LONGEST_NAME = 64


def has_settings(text: str) -> bool:
    """Whether a rule with settings is meant, right or wrong: a rule's name, a colon and something behind it."""
    name, colon, _ = text.partition(":")
    return bool(colon) and name in RULES


def rule_from_text(
    text: str, env: EnvDescription | AutoscaleParams, fitted: dict[str, Any] | None = None, *, name: str | None = None
) -> Rule[Any]:
    """A rule by its name, with the settings behind a colon, if any.

    Args:
        text: NAME or NAME:KEY=VALUE,KEY=VALUE …; a key is a parameter's name, its short name, or it without `_seconds`.
        env: what it scales.
        fitted: parameters that are not set by hand.
        name: of the policy; made from the text if None.

    Raises:
        InputError: an unknown key, or a value that is not allowed; the message begins with the text.
    """
    rule_name = text.partition(":")[0]
    settings = settings_from_text(text) if ":" in text else {}
    try:
        return make_rule(rule_name, env, {**(fitted or {}), **settings}, name=name or policy_name(text))
    except ArtifactError as error:
        raise InputError(f"{text}: {str(error).removeprefix('rule.parameters: ')}" if settings else str(error)) from None


def settings_from_text(text: str) -> dict[str, Any]:
    """The parameters that a rule's text sets.

    Raises:
        InputError: an unknown rule or key, a key given twice, or a value of another kind.
    """
    rule_name, _, listed = text.partition(":")
    if rule_name not in RULES:
        raise InputError(f"{text}: {rule_name!r} is not allowed; allowed: {', '.join(RULES)}{did_you_mean(rule_name, RULES)}")
    kinds, names = _kinds(rule_name), _names(rule_name)
    if not names:
        raise InputError(f"{text}: {rule_name} has nothing to set; allowed: {rule_name}")
    found: dict[str, Any] = {}
    for item in listed.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or key not in names:
            told = f"{key!r} is not a setting of {rule_name}" if equals else f"{item!r} is not KEY=VALUE"
            raise InputError(f"{text}: {told}; allowed: {_allowed(rule_name)}{did_you_mean(key, names)}")
        parameter = names[key]
        if parameter in found:
            raise InputError(f"{text}: {parameter} is given twice; allowed: once")
        found[parameter] = _value(f"{text}: {key}", value, kinds[parameter])
    return found


def policy_name(text: str) -> str:
    """The text as the name of a policy: letters, digits, '.', '_' and '-' alone."""
    worded = text.replace("%", "pct").replace("/", "per")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", worded)[:_LONGEST_NAME]


def _kinds(rule_name: str) -> dict[str, Any]:
    """Parameter → its type, of those that a person can write."""
    parameters_type = RULES[rule_name].parameters_type
    hints = get_type_hints(parameters_type)
    return {f.name: hints[f.name] for f in fields(parameters_type) if any(map(_is_simple, _members(hints[f.name])))}


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, the words of a literal, or the type alone."""
    return get_args(kind) or (kind,)


def _is_simple(member: Any) -> bool:
    return member in (int, float, str) or isinstance(member, str)


def _names(rule_name: str) -> dict[str, str]:
    """What a key may be called → the parameter."""
    kinds = _kinds(rule_name)
    without_unit = {name.removesuffix(_SECONDS): name for name in kinds}
    return {**without_unit, **{name: name for name in kinds}, **RULES[rule_name].short_names}


def _allowed(rule_name: str) -> str:
    short = {parameter: name for name, parameter in RULES[rule_name].short_names.items()}
    return ", ".join(short.get(name, name.removesuffix(_SECONDS)) for name in _kinds(rule_name))


def _value(where: str, text: str, kind: Any) -> Any:
    members = _members(kind)
    if type(None) in members and text in ("null", "none"):
        return None
    if float not in members and int not in members:
        return text
    whole = float not in members
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: {text!r} is not allowed; allowed: {'whole numbers' if whole else 'numbers'}")
    return number
