"""Continuous actions from training to the artifact that flies, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tests.commands import refused

from scalepilot.config import config_from_mapping
from scalepilot.errors import ConfigError
from scalepilot.experiments.run import run_experiment
from scalepilot.experiments.study.crosscheck import crosscheck
from scalepilot.learn.network_snapshot import NetworkSnapshot
from scalepilot.learn.rllib.trainer import RLlibTrainer
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.serve.catalogue.store import PolicyStore
from scalepilot.serve.decide.strict import decide, parse_request
from scalepilot.simulate import run_returns

PENDULUM: dict[str, Any] = {
    "name": "pendulum",
    "env": {"id": "Pendulum-v1"},
    "ppo": {
        "total_env_steps": 512,
        "num_envs": 4,
        "rollout_steps": 64,
        "minibatch_size": 64,
        "envs_per_input": 1,
        "hidden": [16],
    },
    "evaluation": {"validation_episodes": 2, "test_episodes": 4, "bootstrap_samples": 20, "videos": 0},
}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_continuous_action_is_trained_exported_and_flown_in_the_environments_units(tmp_path: Path):
    config = config_from_mapping({**PENDULUM, "output": str(tmp_path)})
    folder = run_experiment(config, RunFolder.create(config)).folder
    policy = load_policy(folder.path)
    stored = json.loads((folder.policy / "policy.json").read_text())
    assert stored["decision_rule"] == "box"
    assert stored["actions"] == []
    assert stored["components"] == [{"name": "action_0", "unit": "1", "low": -2.0, "high": 2.0}]
    observation = np.random.default_rng(0).normal(0, 30, (500, 3)).astype(np.float32)
    decision, _ = policy.act(observation)
    assert decision.action.shape == (500, 1)
    assert decision.action.dtype == np.float32
    assert np.abs(decision.action).max() <= 2.0
    assert len(np.unique(decision.action)) > 100
    assert run_returns(policy, "Pendulum-v1", 3)["length"].tolist() == [200, 200, 200]
    assert {"pendulum-ppo", "random"} == set(json.loads((folder.evaluation / "summary.json").read_text())["policies"])
    served = PolicyStore.load([folder.policy]).get("pendulum-ppo")
    answer = decide(served, parse_request(json.dumps({"observation": served.example}).encode())).answers[0]
    assert list(answer["action"]) == ["action_0"]
    assert "desired_replicas" not in answer


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_what_is_sampled_may_lie_beyond_the_bounds_and_what_acts_greedily_is_the_mean():
    config = config_from_mapping(PENDULUM)
    trainer = RLlibTrainer(config, Task(config))
    try:
        rollout = trainer.algorithm.env_runner_group.local_env_runner.sample()
        assert rollout.action.shape == (64, 4, 1)
        assert np.abs(rollout.action).max() > 1.0, "the noise's deviation is 1 in the beginning"
        mean, log_deviation = np.split(rollout.action_dist_inputs, 2, axis=-1)
        z = (rollout.action - mean) / np.exp(log_deviation)
        expected = (-0.5 * z**2 - log_deviation - 0.5 * np.log(2 * np.pi))[..., 0]
        assert rollout.action_logp == pytest.approx(expected, abs=1e-5)
        before = float(log_deviation[0, 0, 0])
        trainer.iterate()
        trained = trainer.algorithm.learner_group._learner.module["default_policy"].unwrapped().log_deviation
        assert trained.detach().item() != before
        snapshot = trainer.snapshot()
        assert isinstance(snapshot, NetworkSnapshot)
        assert not [name for name in snapshot.arrays() if "output" in name], "bounds are the environment's, not weights"
    finally:
        trainer.close()


def test_other_algorithms_are_refused_in_one_line_before_a_run_folder_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config_file = tmp_path / "config.yaml"
    config_file.write_text(config_from_mapping({**PENDULUM, "output": str(tmp_path / "runs")}).to_yaml())
    for setting, expected in (
        ("algorithm=dqn", "algorithm: dqn is not allowed on Pendulum-v1, which takes continuous actions; allowed: ppo"),
        ("algorithm=sb3_ppo", "algorithm: sb3_ppo is not allowed on Pendulum-v1"),
        ("engine=rllib-stock", "engine: rllib-stock is not allowed on Pendulum-v1"),
    ):
        assert expected in refused(capsys, "train", config_file, "--set", setting), setting
        assert not (tmp_path / "runs").exists(), setting


def test_a_cross_check_that_only_one_engine_can_train_is_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="algorithm: sb3_ppo is not allowed on Pendulum-v1, which takes continuous actions"):
        crosscheck(config_from_mapping({**PENDULUM, "output": str(tmp_path / "runs")}), [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            gym.spaces.Box(-np.inf, np.inf, (2,)),
            r"id: test/Space\d+-v0: action: action_0 is a number from -inf to inf; allowed: finite bounds",
        ),
        (gym.spaces.Text(3), "action is Text, which is not allowed; allowed: Box, Discrete, MultiDiscrete, MultiBinary"),
        (gym.spaces.MultiDiscrete([40, 40]), "action is MultiDiscrete with 1,600 combinations; allowed: up to 1,024"),
    ],
)
def test_other_action_spaces_are_one_line(space: gym.Space[Any], expected: str):
    env_id = f"test/Space{len(gym.registry)}-v0"
    attributes = {"observation_space": gym.spaces.Box(-1, 1, (3,)), "action_space": space}
    gym.register(env_id, type("Spaced", (gym.Env,), attributes))
    with pytest.raises(ConfigError, match=expected):
        config_from_mapping({"env": {"id": env_id}})
