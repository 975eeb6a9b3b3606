"""Stable-Baselines3 behind our `Trainer`: the adapter's episode ends, schedules, resuming, export."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.learn.algorithms import make_trainer
from scalepilot.learn.task import Task
from scalepilot.runs.metrics import METRICS

pytest.importorskip("stable_baselines3")

from scalepilot.learn.sb3.trainer import Sb3Trainer, unmatched
from scalepilot.learn.sb3.vec_env import RowsVecEnv, make_same_step_env

PPO = {"total_env_steps": 256, "num_envs": 4, "rollout_steps": 16, "minibatch_size": 32, "num_epochs": 2, "hidden": [8]}
PPO |= {"envs_per_input": 1, "entropy_coefficient": 0.1}
DQN = {"total_env_steps": 256, "num_envs": 4, "rollout_steps": 4, "batch_size": 8, "learning_starts": 16, "hidden": [8]}
DQN |= {"buffer_size": 128, "updates_per_step": 0.3, "target_update_steps": 12}


def config(algorithm: str = "sb3_ppo", env: str = "CartPole-v1", **changes: Any) -> ExperimentConfig:
    return config_from_mapping({"algorithm": algorithm, "env": {"id": env}, "ppo": PPO, "dqn": DQN, **changes})


def trainer_of(experiment: ExperimentConfig) -> Sb3Trainer:
    trainer = make_trainer(experiment, Task(experiment))
    assert isinstance(trainer, Sb3Trainer)
    return trainer


def weights(trainer: Sb3Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.policy.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def short_resource_manager(steps: int, **options: Any) -> RowsVecEnv:
    env = make_same_step_env("scalepilot/ResourceManager-v0", 3, {"episode_steps": steps})
    return RowsVecEnv(env, 3, seed=0, **{"reward_clip": 100.0, **options})


def test_a_truncated_episode_gives_its_true_last_observation_and_the_next_ones_first():
    env = short_resource_manager(4)
    first = env.reset()
    for _ in range(3):
        before, _, ended, infos = env.step(np.zeros(3, np.int64))
        assert not ended.any()
        assert infos == [{}, {}, {}]
    after, _, ended, infos = env.step(np.zeros(3, np.int64))
    assert ended.all()
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["terminal_observation"].shape == (3,)
        # The rate moves by at most a fifth from the last but one observation; a new episode begins at 100.
        assert 0.79 < info["terminal_observation"][2] / before[i, 2] < 1.21
        assert info["terminal_observation"][2] != after[i, 2]
    np.testing.assert_array_equal(after, first)


def test_a_terminal_state_is_not_bootstrapped_from():
    env = RowsVecEnv(make_same_step_env("CartPole-v1", 2, {}), 4, seed=0, reward_clip=100.0)
    env.reset()
    for _ in range(100):
        _, _, ended, infos = env.step(np.ones(2, np.int64))
        if ended.any():
            break
    (i, *_) = np.flatnonzero(ended)
    assert infos[i]["TimeLimit.truncated"] is False
    assert abs(infos[i]["terminal_observation"][2]) > 0.2


def test_rewards_are_clipped_and_scaled_for_learning_but_not_in_the_episodes_returns():
    env = short_resource_manager(4, reward_clip=4.0, reward_scale=0.5)
    env.reset()
    rewards = np.stack([env.step(np.zeros(3, np.int64))[1] for _ in range(4)])
    assert rewards.max() == 2.0
    means = env.take_episodes()
    assert (means["episode_return_mean"], means["episode_length_mean"]) == (pytest.approx(40.0), 4.0)
    assert means["episode_in_band_share_mean"] == 1.0
    assert means["episode_moves_mean"] + means["episode_no_ops_mean"] == 4.0
    assert env.take_episodes() == {}


def test_numbered_states_reach_the_network_as_one_column_and_are_encoded_there():
    trainer = trainer_of(config(env="GridWorld-v0"))
    assert trainer.env.observation_space.shape == (1,)
    assert trainer.model.policy.features_extractor(torch.tensor([[2.0]])).shape == (1, 9)


@pytest.mark.parametrize("algorithm", ["sb3_ppo", "sb3_dqn"])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(algorithm: str):
    runs = []
    for seed in (0, 0, 1):
        trainer = trainer_of(config(algorithm, seed=seed))
        metrics = [trainer.iterate() for _ in range(4)]
        runs.append((weights(trainer), metrics))
        trainer.close()
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not same(runs[0][0], runs[2][0])
    assert all(set(row) <= set(METRICS) for row in runs[0][1])


def test_ppos_learning_rate_and_entropy_bonus_fall_to_nothing_over_the_budget():
    trainer = trainer_of(config())
    rates = [trainer.iterate()["learning_rate"] for _ in range(4)]
    np.testing.assert_allclose(rates, 1e-3 * np.array([0.75, 0.5, 0.25, 0.0]), atol=1e-12)
    assert trainer.model.ent_coef == 0.0


def test_statistics_are_learnt_from_rollouts_and_shared_with_the_target_network():
    trainer = trainer_of(config("sb3_dqn"))
    trainer.iterate()
    online, target = (q.features_extractor.normaliser for q in (trainer.model.q_net, trainer.model.q_net_target))
    assert online.count == 16
    assert online.mean.abs().sum() > 0
    torch.testing.assert_close(online.mean, target.mean)
    rows = trainer.model.replay_buffer.observations[:4].reshape(-1, 4)
    np.testing.assert_allclose(online.mean.numpy(), rows.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_dqn_takes_as_many_gradient_steps_as_its_environment_steps_are_worth():
    trainer = trainer_of(config("sb3_dqn"))
    counts = [trainer.iterate()["gradient_updates"] for _ in range(5)]
    # 16 transitions are worth 4.8 gradient steps; the first 16 are only remembered.
    assert counts == [0, 5, 10, 15, 20]
    assert trainer.model.target_update_interval == 40


@pytest.mark.parametrize("algorithm", ["sb3_ppo", "sb3_dqn"])
def test_resuming_continues_weights_optimiser_counters_and_schedules_and_holds_no_python_objects(algorithm: str, tmp_path: Path):
    first = trainer_of(config(algorithm))
    for _ in range(3):
        first.iterate()
    first.save(tmp_path / "saved")
    drawn = [(torch.rand(3), np.random.random(3), first.model.action_space.sample())]  # noqa: NPY002 - theirs
    second = trainer_of(config(algorithm))
    second.restore(tmp_path / "saved")
    drawn.append((torch.rand(3), np.random.random(3), second.model.action_space.sample()))  # noqa: NPY002 - theirs
    assert torch.equal(drawn[0][0], drawn[1][0]), "the generators go on, bit for bit"
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
    assert drawn[0][2] == drawn[1][2]
    assert same(weights(first), weights(second))
    assert second.model.num_timesteps == first.model.num_timesteps
    moments = [t.model.policy.optimizer.state_dict()["state"][0]["exp_avg"] for t in (first, second)]
    assert torch.equal(*moments)
    assert not same({"obs": torch.from_numpy(first.model._last_obs)}, {"obs": torch.from_numpy(second.model._last_obs)})
    expected, resumed = first.iterate(), second.iterate()
    for name in ("learning_rate", "epsilon", "gradient_updates"):
        assert resumed.get(name) == expected.get(name)
    if algorithm == "sb3_dqn":
        assert second.model.replay_buffer.pos == first.model.replay_buffer.pos
    with zipfile.ZipFile(tmp_path / "saved" / "parameters.pt") as archive:
        (pickled,) = (archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
    named = {str(argument).split()[0] for op, argument, _ in pickletools.genops(pickled) if op.name == "GLOBAL"}
    assert named <= {"collections", "torch._utils", "torch"}


@pytest.mark.parametrize(("algorithm", "env"), [("sb3_ppo", "GridWorld-v0"), ("sb3_dqn", "CartPole-v1")])
def test_a_snapshot_is_a_copy_and_decides_as_stable_baselines3_itself(algorithm: str, env: str):
    trainer = trainer_of(config(algorithm, env))
    trainer.iterate()
    snapshot = trainer.snapshot()
    kept = {name: value.copy() for name, value in snapshot.arrays().items()}
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 9, (200, 1)) if env.startswith("Grid") else rng.normal(size=(200, 4))
    rows = rows.astype(np.float32)
    with torch.inference_mode():
        scores = snapshot.network(torch.from_numpy(rows)).numpy()
    theirs, _ = trainer.model.policy.predict(rows, deterministic=True)
    np.testing.assert_array_equal(scores.argmax(axis=1), theirs)
    for _ in range(2):
        trainer.iterate()
    assert all(np.array_equal(kept[name], value) for name, value in snapshot.arrays().items())


def test_what_has_no_counterpart_is_named():
    assert unmatched(config("sb3_ppo")) == []
    assert unmatched(config("sb3_ppo", ppo=PPO | {"num_envs": 8, "envs_per_input": 4})) == ["ppo.envs_per_input=4"]
    assert unmatched(config("sb3_dqn")) == ["dqn.double=True"]
