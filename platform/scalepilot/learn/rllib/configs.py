"""An experiment as RLlib's configuration."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from scalepilot.config import DQNConfig, ExperimentConfig, PPOConfig
from scalepilot.learn.devices import choose_device
from scalepilot.learn.rllib.dqn import RolloutDQN, RolloutDQNLearner
from scalepilot.learn.rllib.env_runner import VectorEnvRunner
from scalepilot.learn.rllib.exploration import EpsilonGreedyRunner
from scalepilot.learn.rllib.module import ActorCriticModule
from scalepilot.learn.rllib.ppo import RolloutPPO, RolloutPPOLearner, StockPPO
from scalepilot.learn.rllib.q_module import QModule
from scalepilot.learn.rllib.settings import EngineSettings
from scalepilot.learn.task import Task
from scalepilot_envs.registration import find_env, split_id

logger = logging.getLogger("scalepilot.training")


def register_with_ray(env_id: str) -> str:
    """Register an environment with Ray, so that every worker of a cluster can make it; returns the name to train on."""
    entry = find_env(env_id)
    spec = gym.registry.get(split_id(entry.env_id)[1])

    def create(context: Any) -> Any:
        # What is registered in the driver only, a worker would not know.
        if spec is not None:
            gym.registry.setdefault(spec.id, spec)
        arguments = dict(context)
        num_envs = arguments.pop("num_envs", None)
        return entry.maker()(**arguments) if num_envs is None else entry.vector_maker()(num_envs=num_envs, **arguments)

    tune.register_env(entry.env_id, create)
    return entry.env_id


def algorithm_config(config: ExperimentConfig, task: Task) -> AlgorithmConfig:
    """The experiment as RLlib's configuration.

    Raises:
        InputError: GPUs asked for and none there.
    """
    resources, learning = config.resources, config.learning
    assert isinstance(learning, PPOConfig | DQNConfig)
    device = choose_device(resources, ray.cluster_resources().get("GPU", 0.0))
    logger.info("%s", device.reason)
    rllib = _dqn(learning, task) if isinstance(learning, DQNConfig) else _ppo(learning, config, task)
    rllib.env_runners(
        num_env_runners=resources.num_env_runners,
        num_envs_per_env_runner=learning.num_envs // max(1, resources.num_env_runners),
        rollout_fragment_length=learning.rollout_steps,
        gym_env_vectorize_mode="vector_entry_point",
    )
    rllib.learners(
        num_learners=resources.num_learners,
        num_gpus_per_learner=device.num_gpus,
        learner_config_dict=EngineSettings(learning, resources, device.name).to_rllib(),
    )
    rllib.environment(register_with_ray(config.env.id), env_config=task.training_arguments())
    rllib.debugging(seed=config.seed, log_level="ERROR")
    if config.engine == "rllib-stock":
        # A deterministic bug must not burn hours in restarts (RLlib's defaults: 1,000, a minute apart).
        rllib.fault_tolerance(max_num_env_runner_restarts=3, delay_between_env_runner_restarts_s=1)
    else:
        # `RunnerPool` counts the restarts in a row and ends the run; far apart they may be many.
        rllib.fault_tolerance(max_num_env_runner_restarts=-1, delay_between_env_runner_restarts_s=0)
    return rllib


def _ppo(ppo: PPOConfig, config: ExperimentConfig, task: Task) -> RLlibPPOConfig:
    stock, learners = config.engine == "rllib-stock", max(1, config.resources.num_learners)
    model = {**task.network_inputs(), "cnn": ppo.cnn, "hidden": list(ppo.hidden)}
    rllib = RLlibPPOConfig(algo_class=StockPPO if stock else RolloutPPO)
    if not stock:
        rllib.env_runners(env_runner_cls=VectorEnvRunner)
    rllib.training(
        lr=[[0, ppo.lr], [ppo.env_steps, ppo.lr * ppo.lr_final_share]],
        entropy_coeff=[[0, ppo.entropy_coefficient], [ppo.env_steps, 0.0]],
        train_batch_size_per_learner=ppo.batch_size // learners,
        minibatch_size=ppo.minibatch_size // learners,
        num_epochs=ppo.num_epochs,
        gamma=ppo.gamma,
        lambda_=ppo.gae_lambda,
        clip_param=ppo.clip,
        vf_clip_param=ppo.value_clip,
        vf_loss_coeff=ppo.value_coefficient,
        use_kl_loss=False,
        grad_clip=ppo.grad_clip,
        grad_clip_by="global_norm",
        **({} if stock else {"learner_class": RolloutPPOLearner}),
    )
    rllib.rl_module(rl_module_spec=RLModuleSpec(module_class=ActorCriticModule, model_config=model))
    return rllib


def _dqn(dqn: DQNConfig, task: Task) -> RLlibDQNConfig:
    rllib = RLlibDQNConfig(algo_class=RolloutDQN)
    rllib.env_runners(env_runner_cls=EpsilonGreedyRunner)
    # Replay, n steps, target and loss are the learner's own: RLlib's settings for them are out of use.
    rllib.training(
        lr=[[0, dqn.lr], [dqn.env_steps, dqn.lr * dqn.lr_final_share]],
        gamma=dqn.gamma,
        learner_class=RolloutDQNLearner,
        replay_buffer_config={"no_local_replay_buffer": True},
    )
    # RLlib's DQN would repeat training steps until it has 1,000 environment steps.
    rllib.reporting(min_sample_timesteps_per_iteration=0, min_time_s_per_iteration=None)
    model = {**task.network_inputs(), "cnn": dqn.cnn, "hidden": list(dqn.hidden), "dueling": dqn.dueling}
    rllib.rl_module(rl_module_spec=RLModuleSpec(module_class=QModule, model_config=model))
    return rllib
