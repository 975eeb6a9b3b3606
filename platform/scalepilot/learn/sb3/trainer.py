"""Stable-Baselines3's PPO and DQN as `Trainer`s with the same configuration as our own.

What has no counterpart there and is left out (`unmatched` names what a configuration uses of it):

| key | instead |
|---|---|
| ppo.envs_per_input | every environment meets traffic of its own; advantages are compared with the value network alone |
| ppo.value_clip | the squared value error is not cut |
| ppo.grad_clip | the norm of policy and value gradients together, not apart |
| ppo.target_kl | looked at after every minibatch, not every epoch |
| dqn.double, dqn.dueling | the target network chooses and values; one stream |
| dqn.prioritised_alpha, dqn.prioritised_beta | drawn uniformly |
| dqn.target_update_steps | counted in environment steps that cause as many gradient steps |
| resources.num_env_runners | environments are stepped in the trainer's process |

A step that fails cannot be left out: it is cut short, with reward 0 and the value of what was seen before it.

Rewards reach PPO scaled by 1 − γ as in our learner, so that its joint gradient clipping meets values of the same size.
"""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from scalepilot.config import DQNConfig, ExperimentConfig, PPOConfig
from scalepilot.config.sections import NetworkConfig
from scalepilot.errors import InputError
from scalepilot.files.atomic import write_bytes, write_json
from scalepilot.files.stop import Stopped
from scalepilot.files.stored import read_mapping
from scalepilot.learn.devices import choose_device
from scalepilot.learn.encoder import Tanh
from scalepilot.learn.network_snapshot import NetworkSnapshot
from scalepilot.learn.reward_scale import RewardScale
from scalepilot.learn.sb3.networks import EncodedFeatures, scores_network
from scalepilot.learn.sb3.randomness import load_randomness, save_randomness
from scalepilot.learn.sb3.replay import load_replay, newest_observations, save_replay
from scalepilot.learn.sb3.vec_env import RowsVecEnv, make_same_step_env
from scalepilot.learn.task import Task
from scalepilot.simulate.env_notes import EnvNotes

logger = logging.getLogger(__name__)
_MIN_VALUE_SCALE = 1e-3
_PARAMETERS, _COUNTERS, _REPLAY = "parameters.pt", "counters.json", "replay.npz"
_RANDOMNESS, _SCALE = "randomness.json", "reward_scale.json"


def unmatched(config: ExperimentConfig) -> list[str]:
    """Settings in use that Stable-Baselines3 knows nothing of, as "key=value"."""
    learning = config.learning
    if isinstance(learning, PPOConfig):
        return [f"ppo.envs_per_input={learning.envs_per_input}"] if learning.envs_per_input > 1 else []
    assert isinstance(learning, DQNConfig)
    dqn = learning
    used = {"double": dqn.double, "dueling": dqn.dueling, "prioritised_alpha": dqn.prioritised_alpha}
    return [f"dqn.{name}={value}" for name, value in used.items() if value]


class Sb3Trainer(ABC):
    """One Stable-Baselines3 algorithm in training.

    Args:
        config: the experiment.
        task: what it trains on.
    """

    counters: tuple[str, ...] = ("num_timesteps", "_n_updates", "_episode_num")

    def __init__(self, config: ExperimentConfig, task: Task) -> None:
        if config.resources.torch_threads is not None:
            torch.set_num_threads(config.resources.torch_threads)
        for setting in unmatched(config):
            logger.info("%s has no counterpart in Stable-Baselines3 and is left out", setting)
        self.config = config
        section = config.learning
        assert isinstance(section, NetworkConfig)
        env = make_same_step_env(task.env_id, config.learning.num_envs, task.training_arguments())
        self.env = RowsVecEnv(
            env,
            len(task.description.fields),
            seed=config.seed,
            reward_clip=section.reward_clip,
            size=RewardScale(section.reward_scale),
            reward_scale=self.reward_factor,
            env_id=config.env.id,
            step_seconds=config.resources.env_timeout_seconds,
        )
        self._names = [f.name for f in task.description.fields]
        self._kwargs = {
            "features_extractor_class": EncodedFeatures,
            "features_extractor_kwargs": {"inputs": task.network_inputs()},
            # Elementwise the same function as torch's, in a fifth of the time.
            "activation_fn": Tanh,
        }
        device = choose_device(replace(config.resources, num_learners=0))
        logger.info("%s", device.reason)
        self._device = device.name
        with warnings.catch_warnings():
            # A last smaller minibatch, and MLPs on a GPU: both are the configuration's choice.
            warnings.filterwarnings("ignore", category=UserWarning, module="stable_baselines3")
            self.model = self.make_model()
        self.model.set_logger(Logger(folder=None, output_formats=[]))
        with self.env.watched.limited():
            self.total_env_steps, self._callback = self.model._setup_learn(config.learning.env_steps, callback=None)

    @property
    def reward_factor(self) -> float:
        """On rewards before learning."""
        return 1.0

    @abstractmethod
    def make_model(self) -> Any:
        """The algorithm with the experiment's hyperparameters."""

    @abstractmethod
    def iterate(self) -> dict[str, float]:
        """Sample and learn once; metrics under the documented names."""

    @abstractmethod
    def snapshot(self) -> NetworkSnapshot:
        """A copy of what acts."""

    def collect(self, *arguments: Any, **options: Any) -> None:
        """Sample; where a signal ends it, steps that nothing was learnt from do not count."""
        before = self.model.num_timesteps
        try:
            with self.env.watched.limited():
                self.model.collect_rollouts(self.env, self._callback, *arguments, **options)
        except Stopped:
            self.model.num_timesteps = before
            raise

    def start_from(self, weights: Mapping[str, Any]) -> None:
        """Not possible: it is the cross-check of our own engine.

        Raises:
            InputError: always.
        """
        raise InputError(f"--init: algorithm {self.config.algorithm} cannot start from a policy")

    def take_notes(self) -> EnvNotes:
        """What was odd about the environments since the last call."""
        return self.env.watched.take_notes().named(self._names)

    def logged(self, names: dict[str, str]) -> dict[str, float]:
        """Finite values that Stable-Baselines3 logged, under our names; forgets them."""
        values = {ours: self.model.logger.name_to_value.get(theirs) for theirs, ours in names.items()}
        self.model.logger.name_to_value.clear()
        return {name: float(v) for name, v in values.items() if v is not None and math.isfinite(float(v))}

    def save(self, folder: Path) -> None:
        """Weights, optimiser, counters and generators: tensors and JSON, so that reading them back runs no code."""
        folder.mkdir(parents=True)
        # By way of memory: torch reports a full disk as a bug of its own.
        parameters = io.BytesIO()
        torch.save(self.model.get_parameters(), parameters)
        write_bytes(folder / _PARAMETERS, parameters.getvalue())
        save_randomness(self.model, folder / _RANDOMNESS)
        write_json(folder / _COUNTERS, {name: int(getattr(self.model, name)) for name in self.counters})
        write_json(folder / _SCALE, self.env.size.get_state())

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote; environments begin new episodes on streams of their own."""
        self.model.set_parameters(torch.load(folder / _PARAMETERS, map_location=self.model.device, weights_only=True))
        for name, value in read_mapping(folder / _COUNTERS).items():
            if name not in self.counters:
                raise ValueError(f"{_COUNTERS}: {name} is not allowed; allowed: {', '.join(self.counters)}")
            setattr(self.model, name, int(value))
        if os.path.lexists(folder / _SCALE):
            self.env.size.set_state(read_mapping(folder / _SCALE))
        else:
            self.env.size.stay()
        self.model._update_current_progress_remaining(self.model.num_timesteps, self.total_env_steps)
        # Beginning with the old streams would show the same traffic twice.
        self.env.restart(int(np.random.SeedSequence((self.config.seed, self.model.num_timesteps)).generate_state(1)[0]))
        self.model._last_obs = self.env.reset()
        self.model._last_episode_starts = np.ones(self.env.num_envs, dtype=np.bool_)
        load_randomness(self.model, folder / _RANDOMNESS)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


class Sb3Ppo(Sb3Trainer):
    """Stable-Baselines3's PPO."""

    @property
    def settings(self) -> PPOConfig:
        """The experiment's hyperparameters."""
        assert isinstance(self.config.learning, PPOConfig)
        return self.config.learning

    @property
    def reward_factor(self) -> float:
        """1 − γ, as in our learner."""
        return max(1.0 - self.settings.gamma, _MIN_VALUE_SCALE)

    def make_model(self) -> Any:
        """PPO from the `ppo` section."""
        ppo = self.settings
        return PPO(
            "MlpPolicy",
            self.env,
            # Stable-Baselines3 gives the share of the budget that remains.
            learning_rate=lambda remaining: ppo.lr * (ppo.lr_final_share + (1.0 - ppo.lr_final_share) * remaining),
            n_steps=ppo.rollout_steps,
            batch_size=ppo.minibatch_size,
            n_epochs=ppo.num_epochs,
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
            clip_range=lambda remaining: ppo.clip * (ppo.clip_final_share + (1.0 - ppo.clip_final_share) * remaining),
            # Stable-Baselines3 stops at 1.5 times what it is told, and in the middle of an epoch.
            target_kl=None if ppo.target_kl is None else ppo.target_kl / 1.5,
            ent_coef=ppo.entropy_coefficient,
            vf_coef=ppo.value_coefficient,
            max_grad_norm=ppo.grad_clip,
            policy_kwargs=self._kwargs | {"net_arch": {"pi": list(ppo.hidden), "vf": list(ppo.hidden)}},
            seed=self.config.seed,
            device=self._device,
        )

    def iterate(self) -> dict[str, float]:
        """One rollout and its epochs."""
        model = self.model
        self.collect(model.rollout_buffer, model.n_steps)
        model._update_current_progress_remaining(model.num_timesteps, self.total_env_steps)
        model.ent_coef = self.settings.entropy_coefficient * max(0.0, model._current_progress_remaining)
        model.train()
        buffer = model.rollout_buffer
        rows = torch.from_numpy(buffer.observations.reshape(-1, *self.env.observation_space.shape))
        model.policy.features_extractor.learn_statistics(rows.to(model.device))
        metrics = self.logged(
            {
                "train/policy_gradient_loss": "policy_loss",
                "train/value_loss": "value_loss",
                "train/explained_variance": "explained_variance",
                "train/entropy_loss": "entropy",
                "train/approx_kl": "kl",
                "train/clip_range": "clip",
                "train/learning_rate": "learning_rate",
            }
        )
        # Theirs is the loss: the negative entropy.
        scale = {"reward_scale": self.env.size.scale}
        return metrics | {"entropy": -metrics["entropy"]} | scale | self.env.take_episodes()

    def snapshot(self) -> NetworkSnapshot:
        """The policy head behind its features."""
        policy = self.model.policy
        layers = (policy.mlp_extractor.policy_net, policy.action_net)
        return NetworkSnapshot(scores_network(policy.features_extractor, *layers))


class Sb3Dqn(Sb3Trainer):
    """Stable-Baselines3's DQN."""

    counters = (*Sb3Trainer.counters, "_n_calls")
    # Those before a resumption without the replay buffer.
    _forgotten_env_steps = 0

    @property
    def settings(self) -> DQNConfig:
        """The experiment's hyperparameters."""
        assert isinstance(self.config.learning, DQNConfig)
        return self.config.learning

    def make_model(self) -> Any:
        """DQN from the `dqn` section."""
        dqn = self.settings
        return DQN(
            "MlpPolicy",
            self.env,
            learning_rate=dqn.lr,
            buffer_size=dqn.buffer_size,
            learning_starts=dqn.learning_starts,
            batch_size=dqn.batch_size,
            tau=dqn.tau,
            gamma=dqn.gamma,
            n_steps=dqn.n_step,
            target_update_interval=max(1, round(dqn.target_update_steps / dqn.updates_per_step)),
            exploration_fraction=max(dqn.epsilon_decay_share, 1e-9),
            exploration_initial_eps=dqn.epsilon_start,
            exploration_final_eps=dqn.epsilon_end,
            max_grad_norm=dqn.grad_clip,
            policy_kwargs=self._kwargs | {"net_arch": list(dqn.hidden)},
            seed=self.config.seed,
            device=self._device,
        )

    def iterate(self) -> dict[str, float]:
        """Some steps of every environment, then the gradient steps they are worth."""
        model, dqn = self.model, self.settings
        self.collect(
            TrainFreq(dqn.rollout_steps, TrainFrequencyUnit.STEP),
            replay_buffer=model.replay_buffer,
            learning_starts=dqn.learning_starts,
        )
        features = model.q_net.features_extractor
        rows = torch.from_numpy(newest_observations(model.replay_buffer, dqn.rollout_steps)).to(model.device)
        features.learn_statistics(rows)
        model.q_net_target.features_extractor.normaliser.load_state_dict(features.normaliser.state_dict())
        # Counted from the beginning, so that fractions of a gradient step are not lost from one iteration to the next.
        past, now = ((model.num_timesteps - n) * dqn.updates_per_step for n in (dqn.rollout_size, 0))
        updates = math.floor(now) - math.floor(past)
        if updates and model.num_timesteps - self._forgotten_env_steps > dqn.learning_starts:
            model.train(updates, dqn.batch_size)
        metrics = self.logged({"train/loss": "q_loss", "train/learning_rate": "learning_rate"})
        counted = {"epsilon": float(model.exploration_rate), "gradient_updates": float(model._n_updates)}
        return metrics | counted | {"reward_scale": self.env.size.scale} | self.env.take_episodes()

    def snapshot(self) -> NetworkSnapshot:
        """The Q-network."""
        q_net = self.model.q_net
        network = scores_network(q_net.features_extractor, q_net.q_net)
        network.scale_scores(self.env.size.scale)
        return NetworkSnapshot(network)

    def save(self, folder: Path) -> None:
        """Also the replay buffer, unless the configuration does without."""
        super().save(folder)
        if self.settings.save_replay:
            save_replay(self.model.replay_buffer, folder / _REPLAY)

    def restore(self, folder: Path) -> None:
        """Also the replay buffer; without one nothing is learnt until `learning_starts` transitions are in it again."""
        super().restore(folder)
        if (folder / _REPLAY).exists():
            load_replay(self.model.replay_buffer, folder / _REPLAY)
        else:
            self._forgotten_env_steps = self.model.num_timesteps
