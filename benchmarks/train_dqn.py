"""DQN on CartPole: gradient updates a second against stock RLlib and Stable-Baselines3, at an equal update ratio.

All three: 8 environments, one gradient step for each two environment steps, 2×64 ReLU, uniform replay of 50,000, target copied
every 250 gradient steps, one torch thread, no remote env runner; sampling is included. Ours and Stable-Baselines3 alternate
between 256 environment steps and 128 gradient steps; stock RLlib takes a gradient step after each two environment steps, its
natural way. Engines alternate; each figure is the median over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from scalepilot.cluster.connection import connected
from scalepilot.config import ExperimentConfig, config_from_mapping

ROUNDS = 5
BATCH_SIZES = (32, 256)
NUM_ENVS, ROLLOUT_STEPS, UPDATES_PER_STEP = 8, 32, 0.5
STEPS = NUM_ENVS * ROLLOUT_STEPS
BUFFER_SIZE, LEARNING_STARTS, LEARNING_RATE, TARGET_UPDATE_STEPS = 50_000, 1000, 1e-3, 250
WARM_UP_STEPS = LEARNING_STARTS + 2 * STEPS
MEASURED_SECONDS = 3.0
# Called again and again, each time trains some more and returns its gradient updates so far.
Engine = Callable[[], int]


def config(batch_size: int) -> ExperimentConfig:
    """The benchmark's experiment."""
    dqn = {
        "total_env_steps": 10_000_000,
        "num_envs": NUM_ENVS,
        "rollout_steps": ROLLOUT_STEPS,
        "updates_per_step": UPDATES_PER_STEP,
        "batch_size": batch_size,
        "buffer_size": BUFFER_SIZE,
        "learning_starts": LEARNING_STARTS,
        "lr": LEARNING_RATE,
        "target_update_steps": TARGET_UPDATE_STEPS,
        "hidden": [64, 64],
        # ε falls over the first 30,000 steps, as for the others.
        "epsilon_decay_share": 0.003,
    }
    resources = {"torch_threads": 1}
    return config_from_mapping(
        {"name": "bench", "algorithm": "dqn", "env": {"id": "CartPole-v1"}, "dqn": dqn, "resources": resources}
    )


def ours(batch_size: int) -> tuple[Engine, Callable[[], None]]:
    """Scalepilot."""
    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.learn.task import Task

    experiment = config(batch_size)
    trainer = RLlibTrainer(experiment, Task(experiment))
    return lambda: int(trainer.iterate().get("gradient_updates", 0)), trainer.close


def stock(batch_size: int) -> tuple[Engine, Callable[[], None]]:
    """RLlib as it is: its own module, episodes, replay buffer and learner."""
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    rllib = DQNConfig().environment("CartPole-v1").debugging(seed=0, log_level="ERROR")
    # A rollout of one step of all environments, replayed as often as the ratio says.
    rllib.env_runners(num_env_runners=0, num_envs_per_env_runner=NUM_ENVS, rollout_fragment_length=1)
    rllib.training(
        lr=LEARNING_RATE,
        gamma=0.99,
        train_batch_size_per_learner=batch_size,
        training_intensity=UPDATES_PER_STEP * batch_size,
        target_network_update_freq=int(TARGET_UPDATE_STEPS / UPDATES_PER_STEP),
        num_steps_sampled_before_learning_starts=LEARNING_STARTS,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": BUFFER_SIZE},
        epsilon=[(0, 1.0), (30_000, 0.05)],
        double_q=True,
        dueling=False,
        grad_clip=10.0,
    )
    rllib.reporting(min_sample_timesteps_per_iteration=STEPS, min_time_s_per_iteration=None)
    model = DefaultModelConfig(fcnet_hiddens=[64], fcnet_activation="relu", head_fcnet_hiddens=[64], head_fcnet_activation="relu")
    rllib.rl_module(model_config=model)
    algorithm = rllib.build_algo()
    learner: Any = algorithm.learner_group._learner
    done = 0
    update = learner.update

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal done
        done += 1
        return update(*arguments, **keywords)

    learner.update = counted

    def train() -> int:
        algorithm.train()
        return done

    return train, algorithm.stop


def sb3(batch_size: int) -> tuple[Engine, Callable[[], None]]:
    """Stable-Baselines3."""
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    # It counts the target's interval in environment steps and looks at it between rollouts only.
    model = DQN(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=NUM_ENVS, seed=0),
        learning_rate=LEARNING_RATE,
        buffer_size=BUFFER_SIZE,
        learning_starts=LEARNING_STARTS,
        batch_size=batch_size,
        gamma=0.99,
        train_freq=ROLLOUT_STEPS,
        gradient_steps=int(STEPS * UPDATES_PER_STEP),
        target_update_interval=int(TARGET_UPDATE_STEPS / UPDATES_PER_STEP),
        exploration_fraction=0.003,
        exploration_final_eps=0.05,
        max_grad_norm=10.0,
        seed=0,
        device="cpu",
    )
    total = 0

    def train() -> int:
        nonlocal total
        total += STEPS
        model.learn(STEPS, reset_num_timesteps=False)
        return model._n_updates

    return train, model.env.close


ENGINES = {"ours": ours, "stock": stock, "sb3": sb3}


def updates_per_second(engine: str, batch_size: int) -> float:
    """Gradient updates a second, sampling included, for some seconds after a warm-up."""
    import torch

    torch.set_num_threads(1)
    train, close = ENGINES[engine](batch_size)
    try:
        for _ in range(WARM_UP_STEPS // STEPS + 1):
            train()
        done, began = train(), time.perf_counter()
        while True:
            now = train()
            seconds = time.perf_counter() - began
            if seconds >= MEASURED_SECONDS:
                return (now - done) / seconds
    finally:
        close()


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in gradient updates/s by engine and batch size, and their ratios."""
    rates: dict[tuple[str, int], list[float]] = {(e, b): [] for b in BATCH_SIZES for e in ENGINES}
    with connected(config(32).resources):
        for _ in range(ROUNDS):
            for (engine, batch_size), measured in rates.items():
                measured.append(updates_per_second(engine, batch_size))
    medians = {key: statistics.median(measured) for key, measured in rates.items()}
    figures = {f"{engine}_updates_per_second_batch_{size}": rate for (engine, size), rate in medians.items()}
    ratios = {
        f"vs_{name}_batch_{size}": medians["ours", size] / medians[engine, size]
        for size in BATCH_SIZES
        for engine, name in (("stock", "rllib_stock"), ("sb3", "sb3"))
    }
    return figures, ratios
