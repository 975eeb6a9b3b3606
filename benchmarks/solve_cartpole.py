"""How long PPO and DQN train until CartPole-v1 is solved: 100 greedy episodes on seeds unseen in training average 475.

Ours with `tune_configs/cartpole-{ppo,dqn}.yaml` against Stable-Baselines3 with RL Zoo's hyperparameters: for PPO 8 environments
× 32 steps, batch 256, 20 epochs, γ 0.98, λ 0.8, learning rate 1e-3 and clip 0.2 both falling linearly over 100,000 steps; for
DQN learning rate 2.3e-3, batch 64, 128 gradient steps every 256 steps, target copied every 10 steps, ε to 0.04 over 16 % of
50,000 steps. Ten training seeds each for PPO, five for DQN, in turns. All are examined every 2,048 steps or so, off the clock;
the clock runs while they sample and learn, on one torch thread each. A seed unsolved at the end of its budget counts with
infinite time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scalepilot.cluster.connection import connected
from scalepilot.config import load_config
from scalepilot.policy import Decision
from scalepilot.simulate import run_returns

# Not those the hyperparameters were chosen on.
SEEDS = {"ppo": range(100, 110), "dqn": range(100, 105)}
SOLVED, EPISODES, FIRST_SEED = 475.0, 100, 2_000_000
EXAMINE_EVERY_STEPS = 2048
ZOO_PPO_STEPS, ZOO_DQN_STEPS, ZOO_DQN_ROLLOUT = 100_000, 50_000, 256
CONFIGS = Path(__file__).resolve().parents[1] / "tune_configs"


class Greedy:
    """What `run_returns` flies: a function from observations to actions."""

    spec: Any = None

    def __init__(self, choose: Callable[[Any], Any]) -> None:
        self.choose = choose

    def act(self, observation: Any, state: Any = None, **kwargs: Any) -> tuple[Decision, None]:
        """The function's action."""
        return Decision(action=np.asarray(self.choose(observation))), None


def solves(choose: Callable[[Any], Any]) -> bool:
    """Whether the greedy policy averages 475."""
    returns = run_returns(Greedy(choose), "CartPole-v1", EPISODES, first_seed=FIRST_SEED)["return"]
    return bool(returns.mean() >= SOLVED)


def until_solved(iterate: Callable[[], object], rollout_size: int, budget: int, choose: Callable[[], Any]) -> tuple[float, int]:
    """(seconds of training, environment steps) until solved; infinite seconds where the budget does not suffice."""
    seconds, every = 0.0, max(1, EXAMINE_EVERY_STEPS // rollout_size)
    for iteration in range(1, math.ceil(budget / rollout_size) + 1):
        began = time.perf_counter()
        iterate()
        seconds += time.perf_counter() - began
        if iteration % every == 0 and solves(choose()):
            return seconds, iteration * rollout_size
    return math.inf, budget


def ours(algorithm: str, seed: int) -> tuple[float, int]:
    """Our engine with the shipped configuration."""
    import torch

    from scalepilot.learn.algorithms import make_trainer
    from scalepilot.learn.task import Task

    config = load_config(CONFIGS / f"cartpole-{algorithm}.yaml", [f"seed={seed}"])
    trainer = make_trainer(config, Task(config))

    def choose() -> Callable[[Any], Any]:
        network = trainer.snapshot().network.eval()  # type: ignore[attr-defined]
        return lambda observation: network(torch.from_numpy(observation)).argmax(dim=1).numpy()

    try:
        with torch.no_grad():
            choose()(np.zeros((1, 4), np.float32))
        return until_solved(trainer.iterate, config.learning.rollout_size, config.learning.total_env_steps, choose)
    finally:
        trainer.close()


def zoo_ppo(seed: int) -> tuple[float, int]:
    """Stock Stable-Baselines3 with RL Zoo's hyperparameters."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", 8, seed=seed),
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        ent_coef=0.0,
        learning_rate=lambda remaining: 1e-3 * remaining,
        clip_range=lambda remaining: 0.2 * remaining,
        seed=seed,
        device="cpu",
    )
    _, callback = model._setup_learn(ZOO_PPO_STEPS, callback=None, progress_bar=False)

    def iterate() -> None:
        # The body of its `learn`, which cannot be paused for an examination without losing its schedules.
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)  # type: ignore[arg-type]
        model._update_current_progress_remaining(model.num_timesteps, ZOO_PPO_STEPS)
        model.train()

    def choose() -> Callable[[Any], Any]:
        return lambda observation: model.predict(observation, deterministic=True)[0]

    return until_solved(iterate, 256, ZOO_PPO_STEPS, choose)


def zoo_dqn(seed: int) -> tuple[float, int]:
    """Stock Stable-Baselines3 with RL Zoo's hyperparameters."""
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    model = DQN(
        "MlpPolicy",
        make_vec_env("CartPole-v1", 1, seed=seed),
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=ZOO_DQN_ROLLOUT,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
    )
    _, callback = model._setup_learn(ZOO_DQN_STEPS, callback=None, progress_bar=False)

    def iterate() -> None:
        # The body of its `learn`, which cannot be paused for an examination without losing its schedules.
        model.collect_rollouts(
            model.env,  # type: ignore[arg-type]
            callback,
            model.train_freq,  # type: ignore[arg-type]
            model.replay_buffer,  # type: ignore[arg-type]
            learning_starts=model.learning_starts,
        )
        if model.num_timesteps > model.learning_starts:
            model.train(model.gradient_steps, model.batch_size)

    def choose() -> Callable[[Any], Any]:
        return lambda observation: model.predict(observation, deterministic=True)[0]

    return until_solved(iterate, ZOO_DQN_ROLLOUT, ZOO_DQN_STEPS, choose)


def figures_of(name: str, results: list[tuple[float, int]]) -> dict[str, float]:
    """Medians over seeds; −1 where the median seed, or every seed, is unsolved."""
    seconds = [s for s, _ in results]
    solved = [s for s in seconds if math.isfinite(s)]
    middle = statistics.median_high(seconds)
    return {
        f"{name}_median_seconds": middle if math.isfinite(middle) else -1.0,
        f"{name}_slowest_seconds": max(solved, default=-1.0),
        f"{name}_median_env_steps": statistics.median(steps for _, steps in results),
        f"{name}_unsolved_seeds": float(len(seconds) - len(solved)),
    }


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Figures in seconds and the ratio of the medians; unsolved seeds are counted."""
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    with connected(load_config(CONFIGS / "cartpole-ppo.yaml").resources):
        for algorithm, zoo in (("ppo", zoo_ppo), ("dqn", zoo_dqn)):
            times: dict[str, list[tuple[float, int]]] = {"ours": [], "sb3": []}
            for seed in SEEDS[algorithm]:
                times["ours"].append(ours(algorithm, seed))
                times["sb3"].append(zoo(seed))
            found = figures_of(f"{algorithm}_ours", times["ours"]) | figures_of(f"{algorithm}_sb3", times["sb3"])
            figures |= found
            mine, theirs = found[f"{algorithm}_ours_median_seconds"], found[f"{algorithm}_sb3_median_seconds"]
            if mine > 0 and theirs > 0:
                ratios["vs_sb3" if algorithm == "ppo" else "vs_sb3_dqn"] = mine / theirs
    return figures, ratios
