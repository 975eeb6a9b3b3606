"""Which algorithms train on which observations and actions."""

from __future__ import annotations

from scalepilot.config.algorithm import Trait
from scalepilot.config.algorithms import ALGORITHMS
from scalepilot.config.sections import CNNS
from scalepilot_envs.description import EnvDescription


def check_trainable(algorithm: str, engine: str, env: EnvDescription, cnn: str | None) -> None:
    """Refuse an algorithm that cannot train on an environment.

    Args:
        algorithm: as in the configuration.
        engine: likewise.
        env: the environment.
        cnn: name in `CNNS`, where the algorithm has one.

    Raises:
        ValueError: naming the field, the value and what is allowed.
    """
    if env.num_masked:
        # Stable-Baselines3 knows no action masks, and would choose actions that are not valid.
        _allow(algorithm, "masks", env, "says which actions are valid", None)
    if env.components:
        _allow(algorithm, "continuous", env, "takes continuous actions", engine)
    if env.image is None:
        return
    _allow(algorithm, "images", env, "shows images", engine)
    assert cnn is not None
    smallest = smallest_side(cnn)
    sides = [n for n, axis in zip(env.image.shape, env.image.axes, strict=True) if axis in ("height", "width")]
    if min(sides) < smallest:
        raise ValueError(
            f"{algorithm}.cnn: {cnn} is not allowed on {env.env_id}, whose images are {sides[0]} × {sides[1]};"
            f" allowed: images from {smallest} × {smallest}"
        )


def _allow(algorithm: str, trait: Trait, env: EnvDescription, why: str, engine: str | None) -> None:
    if trait not in ALGORITHMS[algorithm].takes:
        allowed = ", ".join(name for name, other in ALGORITHMS.items() if trait in other.takes)
        raise ValueError(f"algorithm: {algorithm} is not allowed on {env.env_id}, which {why}; allowed: {allowed}")
    if engine not in (None, "rllib"):
        raise ValueError(f"engine: {engine} is not allowed on {env.env_id}, which {why}; allowed: rllib")


def smallest_side(cnn: str) -> int:
    """Pixels of the smallest image that the convolutions leave anything of."""
    side = 1
    for _, kernel, stride in reversed(CNNS[cnn]):
        side = (side - 1) * stride + kernel
    return side
