"""Which keys of a configuration decide anything: one that is given and not used is refused, not passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from scalepilot.config.algorithms import ALGORITHMS, SECTIONS, names
from scalepilot.config.sections import NetworkConfig

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
}
# A configuration that holds these is a run's own, with every key there is and those that it does not use.
_OF_A_RUN = {"engine", "seed", "workload", "resources", "evaluation", "output", "checkpoints"}


def unused_key(given: Mapping[str, Any], config: Any, ignored: Sequence[str] = (), *, strict: bool = False) -> str | None:
    """The first key that is given, with another value than its default, and not used.

    Args:
        given: plain data, as written; keys that are left out are not given.
        config: what was built from it.
        ignored: sections that are used elsewhere.
        strict: refuse a key with its default value, too: somebody has typed it.

    Returns:
        Key, reason and what is allowed, in one line; None where every key is used.
    """
    if {*given} > _OF_A_RUN:
        # Unused keys have the defaults of the version that wrote it.
        return None
    for key, reason in _unused(config):
        path = key.split(".")
        if path[0] not in ignored and _is_written(given, path) and (strict or not _is_default(config, path)):
            return f"{key}: {reason}"
    return None


def _unused(config: Any) -> Iterator[tuple[str, str]]:
    """(key, why it decides nothing) of every such key."""
    algorithm, learning = ALGORITHMS[config.algorithm], config.learning
    own = algorithm.section
    is_money = not hasattr(config.env, "options")
    for section in SECTIONS:
        if section != own:
            yield section, f"is not used by algorithm {algorithm.name}; allowed: {own}"
    judged = "is not used on Autoscale-v0" if is_money else f"is not used on {config.env.id}"
    if not is_money:
        yield "workload", f"{judged}; allowed: with Autoscale-v0"
    for name in _OF_RETURNS if is_money else _OF_MONEY:
        yield f"evaluation.{name}", f"{judged}; allowed: {', '.join(_OF_MONEY if is_money else _OF_RETURNS)}"
    if not algorithm.needs_ray:
        with_ray = " and ".join(names(needs_ray=True))
        for name in _OF_RAY:
            # A job on a cluster is told `auto`, whatever it runs.
            if not (name == "address" and config.resources.address == "auto"):
                reason = f"is not used by algorithm {algorithm.name}, which needs no Ray; allowed: with {with_ray}"
                yield f"resources.{name}", reason
    for name in algorithm.ignored:
        others = ", ".join(a.name for a in ALGORITHMS.values() if a.section == own and name not in a.ignored)
        yield f"{own}.{name}", f"is not used by algorithm {algorithm.name}; allowed: with {others}"
    if isinstance(learning, NetworkConfig) and (is_money or config.env.description.image is None):
        yield f"{own}.cnn", f"{judged}, which shows no images"
    for name, reason in learning.unused():
        yield f"{own}.{name}", reason
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
