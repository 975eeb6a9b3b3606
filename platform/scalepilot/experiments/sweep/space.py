"""The space as Ray Tune searches it, for the searches that draw while they run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from scalepilot.experiments.sweep.config import RangeConfig
from scalepilot.experiments.sweep.plan import Point

_PLAIN = (bool, int, float, str, type(None))


def decode(space: Mapping[str, list[Any] | RangeConfig], config: Mapping[str, Any]) -> Point:
    """The point that a configuration of Tune's stands for: where choices are lists or mappings, they travel as JSON."""
    return {
        key: _chosen(choices, config[key]) if isinstance(choices, list) and not _all_plain(choices) else config[key]
        for key, choices in space.items()
    }


def domains(space: Mapping[str, list[Any] | RangeConfig]) -> dict[str, Any]:
    """What Tune draws from, by key."""
    from ray import tune

    found: dict[str, Any] = {}
    for key, choices in space.items():
        if isinstance(choices, list):
            found[key] = tune.choice(_options(choices))
        elif choices.integer:
            low, high = int(choices.low), int(choices.high) + 1
            found[key] = tune.lograndint(low, high) if choices.log else tune.randint(low, high)
        elif choices.log:
            found[key] = tune.loguniform(choices.low, choices.high)
        else:
            found[key] = tune.uniform(choices.low, choices.high)
    return found


def mutations(space: Mapping[str, list[Any] | RangeConfig]) -> dict[str, Any]:
    """What population-based training resamples from: as `domains`, but choices in their order, to step between neighbours."""
    drawn = domains(space)
    return {key: _options(choices) if isinstance(choices, list) else drawn[key] for key, choices in space.items()}


def clipped(space: Mapping[str, list[Any] | RangeConfig], config: dict[str, Any]) -> dict[str, Any]:
    """A perturbed configuration, within the ranges again."""
    for key, choices in space.items():
        if isinstance(choices, RangeConfig):
            value = min(choices.high, max(choices.low, config[key]))
            config[key] = math.floor(value + 0.5) if choices.integer else value
    return config


def _chosen(choices: list[Any], value: Any) -> Any:
    # Sweeps of earlier versions hold the place among the choices.
    return json.loads(value) if isinstance(value, str) else choices[value]


def _all_plain(choices: list[Any]) -> bool:
    return all(isinstance(choice, _PLAIN) for choice in choices)


def _options(choices: list[Any]) -> list[Any]:
    # Text, as who searches or mutates must be able to tell equal values; and a person reads it in Tune's files.
    return list(choices) if _all_plain(choices) else [json.dumps(choice) for choice in choices]
