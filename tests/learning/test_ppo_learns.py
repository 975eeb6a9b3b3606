"""Learning regressions (`make learn`): an analytic value, and a policy that beats a rule over several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from scalepilot.config import load_config
from scalepilot.evaluate.statistics.intervals import block_bootstrap
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot.simulate import run_episodes
from scalepilot_envs import BatchEnv, BatchStep, BatchVectorEnv

pytestmark = [pytest.mark.learning, pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
GAMMA, EPISODE_STEPS = 0.95, 20


class ConstantReward(BatchEnv):
    """Pays 1 a step for ever, but for the first step of an episode, which costs 10 and is seen in the first field.

    Episodes are cut (or, as a control, end) every 20 steps. Nothing else in it tells the time.
    """

    single_observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def __init__(self, num_envs: int, *, terminates: bool) -> None:
        self.num_envs, self.terminates = num_envs, terminates
        self.steps = np.zeros(num_envs, np.int64)

    def seed_streams(self, seeds: list[int]) -> None:
        self.rng = np.random.default_rng(seeds[0])

    def observe(self) -> np.ndarray:
        observation = self.rng.uniform(-1, 1, (self.num_envs, 3)).astype(np.float32)
        observation[:, 0] = np.where(self.steps == 0, 1.0, 0.0)
        return observation

    def reset_batch(self, mask: np.ndarray | None = None, options: dict[str, Any] | None = None) -> np.ndarray:
        self.steps[slice(None) if mask is None else mask] = 0
        return self.observe()

    def step_batch(self, actions: np.ndarray) -> BatchStep:
        reward = np.where(self.steps == 0, -10.0, 1.0)
        self.steps += 1
        ended, never = self.steps >= EPISODE_STEPS, np.zeros(self.num_envs, np.bool_)
        terminated, truncated = (ended, never) if self.terminates else (never, ended)
        return BatchStep(self.observe(), reward, terminated, truncated)


def learnt_value(*, terminates: bool, autoreset: AutoresetMode, finals: bool = True) -> float:
    """Mean value, in units of reward, of what follows the first step, after training on the constant environment.

    Args:
        terminates: episodes end instead of being cut.
        autoreset: when it resets.
        finals: the learner gets the true last observations; without, the next episode's first ones stand in their place.
    """
    from ray import tune
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from scalepilot.config import PPOConfig as Settings
    from scalepilot.config import ResourcesConfig
    from scalepilot.learn.rllib.env_runner import VectorEnvRunner
    from scalepilot.learn.rllib.module import ActorCriticModule
    from scalepilot.learn.rllib.ppo import RolloutPPO, RolloutPPOLearner
    from scalepilot.learn.rllib.settings import EngineSettings

    class Forgetful(VectorEnvRunner):
        def sample(self, **kwargs: Any) -> Any:
            rollout = super().sample(**kwargs)
            rollout.final_index = rollout.final_index[:0]
            return rollout

    name = f"constant-{terminates}-{autoreset.value}-{finals}"
    tune.register_env(name, lambda context: BatchVectorEnv(ConstantReward(context["num_envs"], terminates=terminates), autoreset))
    config = PPOConfig(algo_class=RolloutPPO).environment(name)
    runner = VectorEnvRunner if finals else Forgetful
    config.env_runners(env_runner_cls=runner, num_env_runners=0, num_envs_per_env_runner=32, rollout_fragment_length=64)
    config.training(
        lr=3e-3, gamma=GAMMA, train_batch_size_per_learner=2048, minibatch_size=512, num_epochs=4,
        vf_clip_param=1e6, use_kl_loss=False, learner_class=RolloutPPOLearner,
    )  # fmt: skip
    model = {"field_names": ["x", "y", "z"], "num_states": None, "interval_seconds": 1.0, "max_replicas": 1, "hidden": [16]}
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=ActorCriticModule, model_config=model))
    settings = EngineSettings(Settings(envs_per_input=1, clip=0.3), ResourcesConfig(), "cpu")
    config.learners(num_learners=0, learner_config_dict=settings.to_rllib()).debugging(seed=0, log_level="ERROR")
    algorithm = config.build_algo()
    try:
        for _ in range(150):
            algorithm.train()
        learner = algorithm.learner_group._learner
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        with torch.no_grad():
            values = module.compute_values({"obs": (torch.rand((256, 3)) * 2 - 1) * torch.tensor([0.0, 1.0, 1.0])})
        return float(values.mean()) / learner.value_scale
    finally:
        algorithm.stop()


@pytest.mark.parametrize("autoreset", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_truncation_bootstraps_to_the_analytic_value_of_an_endless_service(autoreset: AutoresetMode):
    assert learnt_value(terminates=False, autoreset=autoreset) == pytest.approx(1 / (1 - GAMMA), rel=0.05)


@pytest.mark.parametrize("autoreset", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_negative_control_termination_must_not_reach_that_value(autoreset: AutoresetMode):
    assert learnt_value(terminates=True, autoreset=autoreset) < 0.75 / (1 - GAMMA)


def test_negative_control_nor_bootstrapping_from_the_beginning_of_the_next_episode():
    assert learnt_value(terminates=False, autoreset=AutoresetMode.SAME_STEP, finals=False) < 0.85 / (1 - GAMMA)


def test_ppo_swings_the_pendulum_up_and_holds_it(tmp_path: Path, repo: Path):
    from scalepilot.experiments.run import run_experiment
    from scalepilot.policy import load_policy
    from scalepilot.runs.folder import RunFolder
    from scalepilot.simulate import run_returns

    config = load_config(repo / "tune_configs" / "pendulum-ppo.yaml", [f"output={tmp_path}"])
    folder = run_experiment(config, RunFolder.create(config)).folder
    # Chance collects about −1,200; a pendulum that is up at once and stays there about −150.
    assert run_returns(load_policy(folder.path), "Pendulum-v1", 100, first_seed=5_000_000)["return"].mean() > -300


def test_ppo_beats_the_default_hpa_on_the_demo_over_three_seeds(tmp_path: Path, repo: Path):
    from scalepilot.learn.algorithms import policy_spec
    from scalepilot.learn.loop import TrainingLoop
    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.learn.task import Task
    from scalepilot.policy import load_policy
    from scalepilot.progress import Progress
    from scalepilot.runs.folder import RunFolder

    gains = []
    for seed in range(3):
        settings = [f"seed={seed}", f"output={tmp_path}", "ppo.total_env_steps=1500000"]
        config = load_config(repo / "tune_configs" / "demo.yaml", settings)
        task, folder = Task(config), RunFolder.create(config)
        trainer = RLlibTrainer(config, task)
        try:
            spec = policy_spec(config, folder, task)
            TrainingLoop(config, trainer, folder, task, spec, Progress("ppo")).run(lambda: False)
        finally:
            trainer.close()
        rule = Hpa(HpaParameters(), config.autoscale.params)
        # Every drawn validation window: the test windows are too few for a sharp interval here.
        learnt, default = (
            run_episodes(policy, task.scenario.traffic.validation, config.autoscale.params)[0]
            for policy in (load_policy(folder.path), rule)
        )
        gains.append(default["J_per_hour"] - learnt["J_per_hour"])
    blocks = np.tile(np.arange(len(gains[0])), len(gains))
    assert block_bootstrap(np.concatenate(gains), blocks).low > 0
