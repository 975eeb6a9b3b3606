"""The env runner on a tiny environment whose every transition is known: what it samples, however the environment resets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES

from scalepilot.config import DQNConfig, ResourcesConfig
from scalepilot.config import PPOConfig as Settings
from scalepilot.errors import ConfigError
from scalepilot.learn.rllib.env_runner import VectorEnvRunner
from scalepilot.learn.rllib.module import ActorCriticModule
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot.learn.rllib.settings import EngineSettings, learning_of
from scalepilot.learn.rllib.transitions import NStepBuilder
from scalepilot_envs import BatchEnv, BatchStep, BatchVectorEnv, SingleEnv

ENVS, FRAGMENT, FRAGMENTS, GAMMA = 3, 5, 8, 0.9
Transition = tuple[tuple[float, ...], float, float, tuple[float, ...]]


class Numbered(BatchEnv):
    """Observes (environment, episode, step); episodes of environment i last 2 + i steps and terminate and are cut by turns."""

    single_observation_space = gym.spaces.Box(-1, 1000, (3,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def __init__(self, num_envs: int, first: int = 0) -> None:
        self.num_envs = num_envs
        self.number = first + np.arange(num_envs)
        self.episode, self.steps = np.full(num_envs, -1), np.zeros(num_envs, np.int64)

    def seed_streams(self, seeds: Sequence[int | None]) -> None: ...

    def observe(self) -> np.ndarray:
        return np.stack([self.number, self.episode, self.steps], axis=1).astype(np.float32)

    def reset_batch(self, mask: np.ndarray | None = None, options: dict[str, Any] | None = None) -> np.ndarray:
        chosen = np.ones(self.num_envs, np.bool_) if mask is None else mask
        self.episode[chosen] += 1
        self.steps[chosen] = 0
        return self.observe()

    def step_batch(self, actions: np.ndarray) -> BatchStep:
        self.steps += 1
        ended, terminates = self.steps >= 2 + self.number, self.episode % 2 == 0
        return BatchStep(self.observe(), 10.0 * self.episode + self.steps, ended & terminates, ended & ~terminates)


def expected_transitions(n_step: int) -> set[Transition]:
    """Of the first episodes of every environment, one step after the other."""
    found: set[Transition] = set()
    for env in range(ENVS):
        for episode in range(40):
            length = 2 + env
            for step in range(length):
                count = min(n_step, length - step)
                reward = sum(GAMMA**k * (10.0 * episode + step + k + 1) for k in range(count))
                terminated = step + count == length and episode % 2 == 0
                after = (env, episode, step + count)
                found.add(((env, episode, step), round(reward, 3), 0.0 if terminated else round(GAMMA**count, 5), after))
    return found


def native(mode: AutoresetMode) -> gym.vector.VectorEnv[Any, Any, Any]:
    return BatchVectorEnv(Numbered(ENVS), mode)


def one_by_one(mode: AutoresetMode) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.vector.SyncVectorEnv([lambda i=i: SingleEnv(Numbered(1, i)) for i in range(ENVS)], autoreset_mode=mode)


def runner_of(env: gym.vector.VectorEnv[Any, Any, Any]) -> VectorEnvRunner:
    model = {"field_names": ["env", "episode", "step"], "num_states": None, "hidden": [4]}
    config = PPOConfig().environment(lambda context: env)
    config.env_runners(
        env_runner_cls=VectorEnvRunner, num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=FRAGMENT
    )
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=ActorCriticModule, model_config=model))
    config.learners(learner_config_dict=EngineSettings(Settings(envs_per_input=1), ResourcesConfig(), "cpu").to_rllib())
    single = (env.single_observation_space, env.single_action_space)
    spaces = {INPUT_ENV_SPACES: (env.observation_space, env.action_space), INPUT_ENV_SINGLE_SPACES: single}
    return VectorEnvRunner(config=config, worker_index=0, spaces={**spaces, DEFAULT_MODULE_ID: single})


def rows(rollouts: Sequence[Rollout], n_step: int) -> list[Transition]:
    builder = NStepBuilder(n_step, GAMMA, 1e9, torch.device("cpu"))
    found: list[Transition] = []
    for rollout in rollouts:
        t = builder(rollout)
        columns = (t.observation.tolist(), t.reward.tolist(), t.discount.tolist(), t.next_observation.tolist())
        found += [(tuple(o), round(r, 3), round(d, 5), tuple(a)) for o, r, d, a in zip(*columns, strict=True)]
    return found


@pytest.mark.parametrize("make", [native, one_by_one])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("n_step", [1, 3])
def test_transitions_are_those_of_the_environment_however_it_resets(make: Any, mode: AutoresetMode, n_step: int):
    runner = runner_of(make(mode))
    rollouts = [runner.sample() for _ in range(FRAGMENTS)]
    found = rows(rollouts, n_step)
    assert len(set(found)) == len(found)
    assert set(found) <= expected_transitions(n_step)
    sampled = sum(int(rollout.valid.sum()) for rollout in rollouts)
    assert sampled - len(found) <= ENVS * (n_step - 1), "only the last steps may still wait"
    if mode is AutoresetMode.SAME_STEP:
        assert all(rollout.valid.all() for rollout in rollouts), "no step only resets"
        assert sum(len(rollout.final_index) for rollout in rollouts) == sum(
            int((rollout.terminated | rollout.truncated).sum()) for rollout in rollouts
        )


@pytest.mark.slow
def test_negative_control_without_the_final_observations_same_step_transitions_are_wrong():
    rollouts = [runner_of(native(AutoresetMode.SAME_STEP)).sample() for _ in range(FRAGMENTS)]
    for rollout in rollouts:
        rollout.final_index, rollout.final_observation = rollout.final_index[:0], rollout.final_observation[:0]
    assert not set(rows(rollouts, 1)) <= expected_transitions(1)


def test_final_observations_of_several_runners_stay_with_their_environments():
    rollouts = [runner_of(native(AutoresetMode.SAME_STEP)).sample() for _ in range(2)]
    rollouts[1].final_observation = rollouts[1].final_observation + 100
    together = Rollout.concatenate(rollouts)
    assert len(together.final_index) == sum(len(r.final_index) for r in rollouts)
    for (t, env), last in zip(together.final_index, together.final_observation, strict=True):
        assert (last[0] >= 100) == (env >= ENVS)
        assert together.terminated[t, env] or together.truncated[t, env]
    for piece, rollout in zip(together.split(len(rollouts)), rollouts, strict=True):
        for name in Rollout.__slots__:
            np.testing.assert_array_equal(getattr(piece, name), getattr(rollout, name))


def test_an_environment_that_does_not_reset_itself_is_refused():
    with pytest.raises(ConfigError, match="autoreset_mode Disabled is not allowed; allowed: NextStep, SameStep"):
        runner_of(native(AutoresetMode.DISABLED))


def test_settings_that_are_missing_unknown_or_another_algorithms_are_refused():
    config = PPOConfig()
    with pytest.raises(TypeError, match=r"learner_config_dict: \[\] is not allowed"):
        EngineSettings.of(config)
    settings = EngineSettings(Settings(), ResourcesConfig(), "cpu")
    config.learners(learner_config_dict={**settings.to_rllib(), "reward_clip": 1.0})
    with pytest.raises(TypeError, match="reward_clip"):
        EngineSettings.of(config)
    config = PPOConfig().learners(learner_config_dict=settings.to_rllib())
    assert learning_of(config, Settings) == Settings()
    with pytest.raises(TypeError, match="PPOConfig is not allowed; allowed: DQNConfig"):
        learning_of(config, DQNConfig)
