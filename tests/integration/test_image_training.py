"""Training on images: uint8 all the way, a policy that sees, and Pong in small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalepilot.config import config_from_mapping, load_config
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.rllib.trainer import RLlibTrainer
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import run_returns

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
EVALUATION = {"validation_episodes": 4, "test_episodes": 8, "bootstrap_samples": 20, "validate_every_share": 0.5, "videos": 0}
SECTIONS: dict[str, dict[str, Any]] = {
    "ppo": {
        "total_env_steps": 3000, "num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "num_epochs": 4, "lr": 1e-3,
        "gamma": 0.5, "envs_per_input": 1, "cnn": "small", "hidden": [32],
    },
    "dqn": {
        "total_env_steps": 2000, "num_envs": 8, "rollout_steps": 4, "learning_starts": 200, "batch_size": 32, "lr": 1e-3,
        "buffer_size": 1000, "updates_per_step": 0.25, "gamma": 0.5, "cnn": "small", "hidden": [32], "n_step": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("algorithm", [pytest.param("ppo", marks=pytest.mark.slow), "dqn"])
def test_a_policy_learns_to_see_and_is_exported(blob: str, algorithm: str, tmp_path: Path):
    settings = {"algorithm": algorithm, algorithm: SECTIONS[algorithm], "evaluation": EVALUATION, "output": str(tmp_path)}
    config = config_from_mapping({"name": "blob", "env": {"id": blob}, **settings})
    folder = run_experiment(config, RunFolder.create(config), evaluate=False).folder
    # Chance collects 5 of 10.
    assert run_returns(load_policy(folder.path), blob, 20, first_seed=99)["return"].mean() > 9
    (field,) = json.loads((folder.policy / "policy.json").read_text())["observation_fields"]
    assert (field["dtype"], field["shape"], field["scale"]) == ("uint8", [40, 36, 3], 1 / 255)


@pytest.mark.parametrize("algorithm", list(SECTIONS))
def test_bytes_stay_bytes_until_the_network(blob: str, algorithm: str):
    config = config_from_mapping({"env": {"id": blob}, "algorithm": algorithm, algorithm: SECTIONS[algorithm]})
    trainer = RLlibTrainer(config, Task(config))
    seen: set[torch.dtype] = set()
    try:
        learner = trainer.algorithm.learner_group._learner
        convolutions = next(m for m in learner.module["default_policy"].modules() if type(m).__name__ == "ImageEncoder")
        convolutions.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
        for _ in range(10):
            trainer.iterate()
        assert seen == {torch.uint8}
        assert trainer.algorithm.env_runner_group.local_env_runner.sample().observation.dtype == np.uint8
        if algorithm == "dqn":
            assert learner.q.ring.columns.observation.dtype == torch.uint8
    finally:
        trainer.close()


@pytest.mark.slow
def test_pong_in_small(tmp_path: Path, repo: Path):
    pytest.importorskip("ale_py", reason="Atari games need ale_py: pip install 'scalepilot[atari]'")
    small = ["total_env_steps=256", "num_envs=4", "rollout_steps=32", "minibatch_size=64", "num_epochs=1"]
    settings = [f"output={tmp_path}", *(f"ppo.{s}" for s in small), "resources.torch_threads=1"]
    # A game takes a minute; the first seconds of one show all there is to see.
    settings += ["env.options.max_num_frames_per_episode=400", "evaluation.validation_episodes=1", "evaluation.test_episodes=2"]
    settings += ["evaluation.videos=0"]
    config = load_config(repo / "tune_configs" / "pong-ppo.yaml", settings)
    folder = run_experiment(config, RunFolder.create(config)).folder
    policy = load_policy(folder.path)
    (field,) = policy.spec.observation_fields
    assert (field.shape, field.axes) == ((4, 84, 84), ("frame_stack", "height", "width"))
    assert len(policy.spec.actions) == 6
    assert all(row["entropy"] is not None for row in folder.read_metrics())
