"""Which keys of a configuration decide anything: one that is given and not used is refused, not passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

_OF_RAY = ("num_env_runners", "num_learners", "num_gpus_per_learner", "dashboard", "address")
_OF_MONEY = ("window_steps", "drawn_windows", "test_seeds", "tuning_evaluations", "optimum", "baselines")
_OF_RETURNS = ("validation_episodes", "test_episodes")
# Key → (another key of the same section, the value of that which leaves this one without a say).
_MOOT: dict[str, dict[str, tuple[str, Any]]] = {
    "env.randomisation": {
        "peak_share": ("peak_rps", None),
        "smoothing_minutes": ("peak_rps", None),
        "surge_factor": ("surges_per_hour", 0.0),
        "surge_minutes": ("surges_per_hour", 0.0),
    },
    "env.params": {"waiting_probability": ("load_balancing", "random")},
    "dqn": {"prioritised_beta": ("prioritised_alpha", 0.0)},
}


def unused_key(
    given: Mapping[str, Any], config: Any, sections: Mapping[str, str], ignored: Sequence[str] = (), *, strict: bool = False
) -> str | None:
    """The first key that is given, with another value than its default, and not used.

    Args:
        given: plain data, as written; keys that are left out are not given.
        config: what was built from it.
        sections: algorithm → its section.
        ignored: sections that are used elsewhere.
        strict: refuse a key with its default value, too: somebody has typed it.

    Returns:
        Key, reason and what is allowed, in one line; None where every key is used.
    """
    if {*sections.values()} < {*given}:
        # A run's own config.yaml, which holds every key, and unused ones with the defaults of the version that wrote it.
        return None
    for key, reason in _unused(config, sections):
        path = key.split(".")
        if path[0] not in ignored and _is_written(given, path) and (strict or not _is_default(config, path)):
            return f"{key}: {reason}"
    return None


def _unused(config: Any, sections: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(key, why it decides nothing) of every such key."""
    algorithm, own = config.algorithm, sections[config.algorithm]
    is_money = not hasattr(config.env, "options")
    for section in dict.fromkeys(sections.values()):
        if section != own:
            yield section, f"is not used by algorithm {algorithm}; allowed: {own}"
    judged = "is not used on Autoscale-v0" if is_money else f"is not used on {config.env.id}"
    if not is_money:
        yield "workload", f"{judged}; allowed: with Autoscale-v0"
    for name in _OF_RETURNS if is_money else _OF_MONEY:
        yield f"evaluation.{name}", f"{judged}; allowed: {', '.join(_OF_MONEY if is_money else _OF_RETURNS)}"
    if algorithm not in ("ppo", "dqn"):
        for name in _OF_RAY:
            # A job on a cluster is told `auto`, whatever it runs.
            if not (name == "address" and config.resources.address == "auto"):
                yield f"resources.{name}", f"is not used by algorithm {algorithm}, which needs no Ray; allowed: with ppo and dqn"
    if algorithm == "q_learning":
        for name in ("trace_decay", "trace_threshold"):
            yield f"tabular.{name}", "is not used by algorithm q_learning; allowed: with sarsa"
    if own in ("ppo", "dqn") and (is_money or config.env.description.image is None):
        yield f"{own}.cnn", f"{judged}, which shows no images"
    if own == "dqn" and config.dqn.epsilon_decay_per_episode is not None:
        yield "dqn.epsilon_decay_share", "is not used with epsilon_decay_per_episode; allowed: one of both"
    for section, moot in _MOOT.items():
        at = _at(config, section.split("."))
        for name, (other, value) in moot.items():
            if is_dataclass(at) and getattr(at, other) == value:
                yield f"{section}.{name}", f"is not used with {other}: {'null' if value is None else value}"


def _at(config: Any, path: Sequence[str]) -> Any:
    for part in path:
        config = getattr(config, part, None)
    return config


def _is_written(given: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(given, Mapping) or part not in given:
            return False
        given = given[part]
    # A section without keys says nothing.
    return given != {} and given is not None


def _is_default(config: Any, path: Sequence[str]) -> bool:
    """Whether a key has its default: a stored configuration holds every key, used or not."""
    owner = _at(config, path[:-1])
    field = next(f for f in fields(owner) if f.name == path[-1])
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return bool(getattr(owner, path[-1]) == default)
