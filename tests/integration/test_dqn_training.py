"""DQN on a real local Ray: it learns, repeats itself, resumes exactly, samples in parallel, exports."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.rllib.runner_pool import sample_by_reference
from scalepilot.learn.rllib.trainer import RLlibTrainer
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.metrics import METRICS, TIME_COLUMNS
from scalepilot.simulate import run_returns

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SMALL: dict[str, Any] = {
    "name": "small",
    "algorithm": "dqn",
    "env": {"id": "CartPole-v1"},
    "dqn": {
        "total_env_steps": 2048,
        "num_envs": 8,
        "rollout_steps": 16,
        "learning_starts": 200,
        "lr_final_share": 0.5,
        "batch_size": 32,
        "target_update_steps": 50,
        "hidden": [32],
    },
    "resources": {"torch_threads": 1},
    "evaluation": {
        "validate_every_share": 0.5,
        "validation_episodes": 4,
        "test_episodes": 8,
        "bootstrap_samples": 50,
        "videos": 0,
    },
}


def small(tmp_path: Path, dqn: dict[str, Any] | None = None, **changes: Any) -> ExperimentConfig:
    merged = json.loads(json.dumps({**SMALL, "output": str(tmp_path), **changes}))
    merged["dqn"] |= dqn or {}
    return config_from_mapping(merged)


def trainer_of(config: ExperimentConfig) -> RLlibTrainer:
    return RLlibTrainer(config, Task(config))


def learner_of(trainer: RLlibTrainer) -> Any:
    return trainer.algorithm.learner_group._learner


def untimed(folder: RunFolder) -> list[dict[str, float | None]]:
    return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in folder.read_metrics()]


def test_a_run_trains_exports_q_values_and_repeats_itself_with_the_same_seed(tmp_path: Path):
    folders = []
    for seed, evaluate in ((0, True), (0, False), (1, False)):
        config = small(tmp_path, seed=seed)
        folders.append(run_experiment(config, RunFolder.create(config), evaluate=evaluate).folder)
    first, again, other = folders
    rows = untimed(first)
    assert set(rows[0]) == set(METRICS) - set(TIME_COLUMNS)
    assert rows == untimed(again)
    assert rows != untimed(other)
    assert rows[0]["epsilon"] == 1.0
    assert rows[-1]["epsilon"] == pytest.approx(0.05)
    assert rows[-1]["learning_rate"] == pytest.approx(0.5e-3)
    # A quarter of a gradient step for each transition after learning starts; reset steps are no transitions.
    assert rows[-1]["gradient_updates"] == pytest.approx(0.25 * (2048 - 200), rel=0.1)
    for name in ("q_loss", "q_mean", "learning_rate", "episode_return_mean", "episode_length_mean"):
        assert rows[-1][name] is not None, name
    policy = load_policy(first.path)
    assert policy.spec.decision_rule == "argmax_q"
    model = [(folder.policy / "model.onnx").read_bytes() for folder in folders]
    assert model[0] == model[1] != model[2]


@pytest.mark.parametrize("changes", [{}, {"n_step": 3, "prioritised_alpha": 0.6, "dueling": True, "buffer_size": 300}])
def test_saved_restored_and_continued_is_uninterrupted(tmp_path: Path, changes: dict[str, Any]):
    config = small(tmp_path, dqn=changes)
    whole, restored = trainer_of(config), trainer_of(small(tmp_path, dqn=changes, seed=7))
    try:
        for _ in range(4):
            whole.iterate()
        whole.save(tmp_path / "checkpoint")
        restored.restore(tmp_path / "checkpoint")
        runner = whole.algorithm.env_runner_group.local_env_runner
        later = [runner.sample(epsilon=0.5) for _ in range(3)]
        for trainer in (whole, restored):
            for rollout in later:
                trainer.algorithm.learner_group.update(batch=rollout, timesteps={})
        states = [learner_of(trainer).get_state() for trainer in (whole, restored)]
        assert states[0]["replay"]["gradient_updates"] > 100
        for part in ("rl_module", "optimizer", "replay"):
            assert_equal(states[0][part], states[1][part], part)
        # Schedules go on, not anew.
        assert restored.algorithm.sample_arguments() == whole.algorithm.sample_arguments()
        assert restored.algorithm.sample_arguments()["epsilon"] < 1.0
    finally:
        whole.close()
        restored.close()


def assert_equal(one: Any, other: Any, where: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}.{i}")
    elif isinstance(one, np.ndarray | torch.Tensor):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=where)
    else:
        assert one == other, where


@pytest.mark.slow
def test_parallel_env_runners_explore_differently_and_train(tmp_path: Path):
    trainer = trainer_of(small(tmp_path, resources={"num_env_runners": 2, "torch_threads": 1}))
    try:
        metrics = [trainer.iterate() for _ in range(4)]
        assert metrics[-1]["gradient_updates"] > 0
        group = trainer.algorithm.env_runner_group
        sample = partial(sample_by_reference, num_pieces=1)
        sampled = group.foreach_env_runner(sample, local_env_runner=False)
        rollouts = ray.get([piece for pieces, *_ in sampled for piece in pieces])
        assert [r.num_envs for r in rollouts] == [4, 4]
        assert rollouts[0].action_dist_inputs is None, "what an off-policy learner does not need is not sent"
        assert not np.array_equal(rollouts[0].observation, rollouts[1].observation)
    finally:
        trainer.close()


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_epsilon_decides_between_the_network_and_chance(tmp_path: Path, epsilon: float):
    trainer = trainer_of(small(tmp_path, dqn={"rollout_steps": 200}))
    try:
        runner = trainer.algorithm.env_runner_group.local_env_runner
        rollout = runner.sample(epsilon=epsilon)
        network = trainer.snapshot().network
        with torch.inference_mode():
            greedy = network(torch.from_numpy(rollout.observation[:-1].reshape(-1, 4))).argmax(dim=1).numpy()
        agreement = float((greedy == rollout.action.reshape(-1)).mean())
        assert agreement == 1.0 if epsilon == 0.0 else 0.45 < agreement < 0.55
    finally:
        trainer.close()


@pytest.mark.slow
def test_a_short_run_on_cartpole_is_far_better_than_chance(tmp_path: Path):
    schedule = {"total_env_steps": 8_000, "rollout_steps": 32, "updates_per_step": 0.5}
    dqn = {**schedule, "batch_size": 64, "target_update_steps": 1, "tau": 0.01, "n_step": 3, "hidden": [64, 64]}
    config = small(tmp_path, dqn=dqn, evaluation={**SMALL["evaluation"], "validate_every_share": 0.1})
    folder = run_experiment(config, RunFolder.create(config), evaluate=False).folder
    # Chance balances the pole for 22 steps.
    assert run_returns(load_policy(folder.path), "CartPole-v1", 50, first_seed=77)["return"].mean() > 80
