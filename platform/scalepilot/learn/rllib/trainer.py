"""RLlib's PPO as a `Trainer`, batch-native or stock."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from scalepilot.config import ExperimentConfig
from scalepilot.learn.devices import check_gpus
from scalepilot.learn.rllib.env_runner import VectorEnvRunner
from scalepilot.learn.rllib.module import ActorCriticModule
from scalepilot.learn.rllib.ppo import RolloutPPO, RolloutPPOLearner, StockPPO
from scalepilot.learn.task import Task
from scalepilot.learn.trainer import NetworkSnapshot
from scalepilot_envs.registration import find_env

# RLlib's result key → ours.
_LEARNER_METRICS = {
    "policy_loss": "policy_loss",
    "vf_loss": "value_loss",
    "vf_explained_var": "explained_variance",
    "entropy": "entropy",
    "mean_kl_loss": "kl",
    "default_optimizer_learning_rate": "learning_rate",
}
_RUNNER_METRICS = {"episode_return_mean": "episode_return_mean", "episode_len_mean": "episode_length_mean"}
_TIMERS = {"env_runner_sampling_timer": "sample_seconds", "learner_update_timer": "learn_seconds"}
_RUNNER_RESTARTS, _RESTART_DELAY_SECONDS = 3, 1


def register_with_ray(env_id: str) -> str:
    """Register an environment with Ray, so that every worker of a cluster can make it; returns the name to train on."""
    entry = find_env(env_id)

    def create(context: Any) -> Any:
        arguments = dict(context)
        num_envs = arguments.pop("num_envs", None)
        return entry.maker()(**arguments) if num_envs is None else entry.vector_maker()(num_envs=num_envs, **arguments)

    tune.register_env(entry.env_id, create)
    return entry.env_id


def algorithm_config(config: ExperimentConfig, task: Task) -> RLlibPPOConfig:
    """The experiment as RLlib's configuration.

    Raises:
        InputError: GPUs asked for and none there.
    """
    ppo, resources = config.ppo, config.resources
    check_gpus(resources.num_gpus_per_learner)
    stock = config.engine == "rllib-stock"
    runners = resources.num_env_runners
    model = {**task.network_inputs(), "hidden": list(ppo.hidden)}
    horizon = ppo.num_iterations * ppo.batch_size
    rllib = RLlibPPOConfig(algo_class=StockPPO if stock else RolloutPPO)
    rllib.environment(register_with_ray(config.env.id), env_config=task.training_arguments())
    rllib.env_runners(
        num_env_runners=runners,
        num_envs_per_env_runner=ppo.num_envs // max(1, runners),
        rollout_fragment_length=ppo.rollout_steps,
        gym_env_vectorize_mode="vector_entry_point",
        **({} if stock else {"env_runner_cls": VectorEnvRunner}),
    )
    rllib.training(
        lr=[[0, ppo.lr], [horizon, ppo.lr * ppo.lr_final_share]],
        entropy_coeff=[[0, ppo.entropy_coefficient], [horizon, 0.0]],
        train_batch_size_per_learner=ppo.batch_size,
        minibatch_size=ppo.minibatch_size,
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
    rllib.learners(
        num_learners=0,
        num_gpus_per_learner=resources.num_gpus_per_learner,
        learner_config_dict={"reward_clip": ppo.reward_clip, "envs_per_input": ppo.envs_per_input},
    )
    rllib.rl_module(rl_module_spec=RLModuleSpec(module_class=ActorCriticModule, model_config=model))
    rllib.debugging(seed=config.seed, log_level="ERROR")
    # A deterministic bug in an environment must not burn hours in restarts (RLlib's defaults: 1,000, a minute apart).
    rllib.fault_tolerance(
        max_num_env_runner_restarts=_RUNNER_RESTARTS, delay_between_env_runner_restarts_s=_RESTART_DELAY_SECONDS
    )
    return rllib


class RLlibTrainer:
    """One RLlib algorithm in training. Ray must be up.

    Args:
        config: the experiment; `engine` chooses batch-native or stock sampling.
        task: what it trains on.
    """

    def __init__(self, config: ExperimentConfig, task: Task) -> None:
        if config.resources.torch_threads is not None:
            torch.set_num_threads(config.resources.torch_threads)
        # RLlib warns at each start that its new API stack is new.
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)
        rllib = algorithm_config(config, task)
        with warnings.catch_warnings():
            # RLlib registers its one environment id anew for every runner in a process, and gymnasium says so.
            warnings.filterwarnings("ignore", message=".*Overriding environment.*")
            self.algorithm = rllib.build_algo()

    def iterate(self) -> dict[str, float]:
        """One `Algorithm.train()`; absent values (no episode ended yet) are left out, never NaN."""
        result = self.algorithm.train()
        learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
        metrics: dict[str, float] = {}
        for source, names in (
            (learner, _LEARNER_METRICS),
            (result.get("env_runners", {}), _RUNNER_METRICS),
            (result.get("timers", {}), _TIMERS),
        ):
            for key, name in names.items():
                value = source.get(key)
                if value is not None and math.isfinite(float(value)):
                    metrics[name] = float(value)
        return metrics

    def snapshot(self) -> NetworkSnapshot:
        """A copy on the CPU of the learner's policy."""
        state = self.algorithm.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"][DEFAULT_MODULE_ID]
        network = copy.deepcopy(self._module().scores_network()).cpu()
        wanted = {
            name: torch.as_tensor(state[name.replace("head.", "policy_head.", 1) if name.startswith("head.") else name])
            for name in network.state_dict()
        }
        network.load_state_dict(wanted)
        return NetworkSnapshot(network)

    def _module(self) -> ActorCriticModule:
        module: ActorCriticModule = self.algorithm.env_runner_group.local_env_runner.module
        return module

    def save(self, folder: Path) -> None:
        """RLlib's own checkpoint: weights, optimiser, counters. It holds pickles: only for resuming one's own run."""
        self.algorithm.save_to_path(str(folder.resolve()))

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote."""
        self.algorithm.restore_from_path(str(folder.resolve()))

    def close(self) -> None:
        """Stop the algorithm's actors."""
        self.algorithm.stop()
