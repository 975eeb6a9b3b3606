"""The registry of algorithms: one record each, which everything that differs between them is asked of.

A record names what trains instead of importing it: Ray and torch are loaded when training begins, and the configuration lies
below what it configures. Packages of others add theirs with an entry point of the group `scalepilot.algorithms`
(docs/develop/add-an-algorithm.md).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator

from scalepilot.config.algorithm import Algorithm
from scalepilot.config.sections import DQNConfig, PPOConfig, TabularConfig
from scalepilot.errors import ConfigError

GROUP = "scalepilot.algorithms"
_TIMES = ("sample_seconds", "learn_seconds")
_ON_RAY = ("env_runner_restarts", "lost_rollouts", *_TIMES, "transfer_seconds", "sync_seconds")
_PPO = ("policy_loss", "value_loss", "explained_variance", "entropy", "kl", "reward_scale", "learning_rate")
_CUT = ("value_clipped_share", "grad_clipped_share", "features_clamped_share")
_DQN = ("q_loss", "epsilon", "reward_scale", "gradient_updates", "learning_rate")
_COUNTERFACTUAL = ("counterfactual_every", "counterfactual_steps", "counterfactual_temperature")
_TABLE = ("q_loss", "q_mean", "epsilon", *_TIMES)

# One line an algorithm.
_BUILT_IN = (
    Algorithm(
        "ppo",
        "ppo",
        PPOConfig,
        "scalepilot.learn.rllib.trainer:RLlibTrainer",
        "network",
        "argmax_p",
        needs_ray=True,
        takes=frozenset({"masks", "images", "continuous"}),
        engines=("rllib", "rllib-stock"),
        starts_from_policy=True,
        changeable=(
            *("lr", "gamma", "gae_lambda", "clip", "target_kl", "entropy_coefficient", "value_coefficient", "value_clip"),
            *("grad_clip", "reward_clip", "num_epochs", "minibatch_size"),
        ),
        metrics=(*_PPO, "clip", "epochs", *_CUT, *_ON_RAY),
    ),
    Algorithm(
        "dqn",
        "dqn",
        DQNConfig,
        "scalepilot.learn.rllib.trainer:RLlibTrainer",
        "network",
        "argmax_q",
        needs_ray=True,
        takes=frozenset({"masks", "images"}),
        starts_from_policy=True,
        changeable=("lr", "gamma", "grad_clip", "reward_clip", "batch_size"),
        metrics=(*_DQN, "q_mean", *_ON_RAY),
    ),
    Algorithm(
        "q_learning",
        "tabular",
        TabularConfig,
        "scalepilot.learn.tabular:QLearningTrainer",
        "table",
        "argmax_q",
        takes=frozenset({"masks"}),
        starts_from_policy=True,
        ignored=("trace_decay", "trace_threshold"),
        metrics=_TABLE,
    ),
    Algorithm(
        "sarsa",
        "tabular",
        TabularConfig,
        "scalepilot.learn.tabular:SarsaTrainer",
        "table",
        "argmax_q",
        takes=frozenset({"masks"}),
        starts_from_policy=True,
        metrics=(*_TABLE, "active_traces", "largest_trace"),
    ),
    # Stable-Baselines3 takes the same hyperparameters as ours, so that both can be compared.
    Algorithm(
        "sb3_ppo",
        "ppo",
        PPOConfig,
        "scalepilot.learn.sb3.trainer:Sb3Ppo",
        "network",
        "argmax_p",
        extra="sb3",
        ignored=_COUNTERFACTUAL,
        counterpart="ppo",
        metrics=_PPO,
    ),
    Algorithm(
        "sb3_dqn",
        "dqn",
        DQNConfig,
        "scalepilot.learn.sb3.trainer:Sb3Dqn",
        "network",
        "argmax_q",
        extra="sb3",
        counterpart="dqn",
        metrics=_DQN,
    ),
)


def _registered() -> Iterator[Algorithm]:
    yield from _BUILT_IN
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            found = entry.load()
        except Exception as error:
            raise ConfigError(f"{GROUP}: {entry.value} cannot be imported ({type(error).__name__}: {error})") from error
        if not isinstance(found, Algorithm):
            raise ConfigError(f"{GROUP}: {entry.value} is a {type(found).__name__}; allowed: an Algorithm")
        yield found


def by_name(algorithms: Iterable[Algorithm]) -> dict[str, Algorithm]:
    """The registry.

    Raises:
        ConfigError: two of one name, or one section with two classes.
    """
    found: dict[str, Algorithm] = {}
    for algorithm in algorithms:
        if algorithm.name in found:
            raise ConfigError(f"algorithm: {algorithm.name} is registered twice; allowed: once")
        for other in found.values():
            if other.section == algorithm.section and other.settings is not algorithm.settings:
                raise ConfigError(f"algorithm: {algorithm.name} and {other.name} read {other.section} as different classes")
        found[algorithm.name] = algorithm
    return found


ALGORITHMS = by_name(_registered())
# Section → its class.
SECTIONS = {algorithm.section: algorithm.settings for algorithm in ALGORITHMS.values()}
BUILT_IN_SECTIONS = {algorithm.section for algorithm in _BUILT_IN}
ENGINES = tuple(dict.fromkeys(engine for algorithm in ALGORITHMS.values() for engine in algorithm.engines))


def names(**facts: object) -> list[str]:
    """Names of the algorithms whose records hold these facts."""
    return [a.name for a in ALGORITHMS.values() if all(getattr(a, key) == value for key, value in facts.items())]
