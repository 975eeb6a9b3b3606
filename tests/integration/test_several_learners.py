"""Several learners in step, on a real local Ray with gloo: never waiting for each other in vain, always with equal weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle

from scalepilot.config import DQNConfig, config_from_mapping
from scalepilot.errors import RunError
from scalepilot.learn.rllib.learner import RolloutsLostError
from scalepilot.learn.rllib.rollout import Rollout
from scalepilot.learn.rllib.settings import EngineSettings
from scalepilot.learn.rllib.trainer import RLlibTrainer
from scalepilot.learn.task import Task

# Learners that wait for each other in vain would wait for half an hour.
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(60, func_only=True)]
PPO = {"num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "num_epochs": 2, "envs_per_input": 2, "hidden": [16]}
DQN = {
    "num_envs": 8,
    "rollout_steps": 16,
    "learning_starts": 100,
    "batch_size": 32,
    "buffer_size": 1000,
    "updates_per_step": 0.25,
    "target_update_steps": 10,
    "n_step": 3,
    "hidden": [16],
}
# Functions of this module run on the learners, whose processes cannot import it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def trainer_of(algorithm: str, num_learners: int, num_env_runners: int = 0, **changes: Any) -> RLlibTrainer:
    hyperparameters = {**(PPO if algorithm == "ppo" else DQN), "total_env_steps": 1_000_000, **changes}
    resources = {"num_learners": num_learners, "num_env_runners": num_env_runners}
    values = {"algorithm": algorithm, "env": {"id": "CartPole-v1"}, algorithm: hyperparameters, "resources": resources}
    config = config_from_mapping(values)
    return RLlibTrainer(config, Task(config))


@pytest.fixture(scope="module", params=["ppo", pytest.param("dqn", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, ray_session: None) -> Iterator[RLlibTrainer]:
    """Two learners, and nothing else."""
    trainer = trainer_of(request.param, 2)
    yield trainer
    trainer.close()


def algorithm_of(trainer: RLlibTrainer) -> str:
    return "dqn" if isinstance(EngineSettings.of(trainer.algorithm.config).learning, DQNConfig) else "ppo"


def of_each(trainer: RLlibTrainer, function: Any) -> list[Any]:
    return [result.get() for result in trainer.algorithm.learner_group.foreach_learner(function)]


def weights(learner: Any) -> dict[str, np.ndarray]:
    return {name: value.cpu().numpy().copy() for name, value in learner.module["default_policy"].state_dict().items()}


def gradients(learner: Any) -> list[np.ndarray]:
    if hasattr(learner, "q"):
        return [learner.q.online.gradient.numpy().copy()]
    return [p.grad.numpy().copy() for p in learner._params.values()]


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def learn(trainer: RLlibTrainer, shares: list[list[Rollout]], **arguments: Any) -> list[Any]:
    """One update with these rollouts, a list for each learner."""
    remote = trainer.algorithm.config.num_learners > 0
    given = [[ray.put(rollout) for rollout in share] for share in shares] if remote else shares
    arguments = {**trainer.algorithm.update_arguments(), "timesteps": {"num_env_steps_sampled_lifetime": 1}, **arguments}
    return trainer.algorithm.learners.update(given, **arguments)


def mostly_masked(rollout: Rollout, valid_steps: int) -> Rollout:
    """The same with nothing valid after a while."""
    columns = {name: column.copy() for name, column in rollout.__getstate__().items() if column is not None}
    columns["valid"][valid_steps:] = False
    return Rollout(**columns)


def sampled(trainer: RLlibTrainer, **arguments: Any) -> Rollout:
    return trainer.algorithm.env_runner_group.local_env_runner.sample(**arguments)


def test_two_learners_train_with_equal_weights_and_a_policy_comes_out(pair: RLlibTrainer):
    metrics = [pair.iterate() for _ in range(4)]
    one, other = of_each(pair, weights)
    assert_equal(one, other)
    assert np.isfinite(metrics[-1]["policy_loss" if algorithm_of(pair) == "ppo" else "q_loss"])
    network = pair.snapshot().network
    assert network(torch.zeros((3, 4))).shape == (3, 2)
    head = "policy_head" if algorithm_of(pair) == "ppo" else "q_head"
    trained = next(v for name, v in network.state_dict().items() if name.startswith("head.") and name.endswith("weight"))
    learnt = next(v for name, v in one.items() if name.startswith(head) and name.endswith("weight"))
    np.testing.assert_array_equal(trained.numpy(), learnt)


@pytest.mark.parametrize("valid_steps", [0, 1, 9])
def test_two_learners_with_different_masks_finish_with_equal_weights(pair: RLlibTrainer, valid_steps: int):
    for _ in range(3):
        piece, masked = sampled(pair).split(2)
        learn(pair, [[piece], [mostly_masked(masked, valid_steps)]])
    one, other = of_each(pair, weights)
    assert_equal(one, other)
    assert all(np.isfinite(value).all() for value in one.values())


def test_a_gradient_of_two_learners_is_that_of_one_on_all_rows(pair: RLlibTrainer):
    if algorithm_of(pair) == "dqn":
        same_experience_is_learnt_as_one_learner_does(pair)
        return
    alone = trainer_of("ppo", 0)
    try:
        pair.algorithm.learner_group.set_state(alone.algorithm.learner_group.get_state())
        first, second = sampled(alone).split(2)
        second = mostly_masked(second, 11)
        learn(alone, [[first, second]], minibatch_size=256, num_epochs=1)
        learn(pair, [[first], [second]], minibatch_size=128, num_epochs=1)
        expected = of_each(alone, gradients)[0]
        for learner in of_each(pair, gradients):
            for gradient, wanted in zip(learner, expected, strict=True):
                np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-6)
        assert max(np.abs(gradient).max() for gradient in expected) > 1e-3
        for name, value in of_each(alone, weights)[0].items():
            np.testing.assert_allclose(of_each(pair, weights)[0][name], value, atol=1e-5, err_msg=name)
    finally:
        alone.close()


def same_experience_is_learnt_as_one_learner_does(pair: RLlibTrainer) -> None:
    alone = trainer_of("dqn", 0, batch_size=16, buffer_size=500, updates_per_step=0.5, num_envs=4, learning_starts=50)
    try:
        pair.algorithm.learner_group.set_state(alone.algorithm.learner_group.get_state())
        for _ in range(4):
            rollout = sampled(alone, epsilon=1.0)
            learn(alone, [[rollout]])
            learn(pair, [[rollout], [rollout]])
        counts = [of_each(trainer, lambda learner: learner.q.gradient_updates)[0] for trainer in (alone, pair)]
        assert counts[0] == counts[1] > 30
        expected = of_each(alone, gradients)[0][0]
        assert np.abs(expected).max() > 1e-3
        for learner in of_each(pair, gradients):
            np.testing.assert_allclose(learner[0], expected, atol=1e-5)
    finally:
        alone.close()


@ray.remote(num_cpus=0, max_retries=0)
def gone() -> None:
    """Its answer goes with its process."""
    os._exit(1)


def test_rollouts_that_one_learner_cannot_get_are_nobodys(pair: RLlibTrainer):
    first, second = sampled(pair).split(2)
    kept, lost = [ray.put(piece) for piece in (first, second, first)], gone.remote()
    before = of_each(pair, weights)[0]
    with pytest.raises(RolloutsLostError) as raised:
        pair.algorithm.learners.update([[kept[0], kept[1]], [kept[2], lost]], timesteps={}, **pair.algorithm.update_arguments())
    assert raised.value.positions == [1]
    for learner in of_each(pair, weights):
        assert_equal(before, learner)


def test_a_checkpoint_of_two_learners_restores_both(pair: RLlibTrainer, tmp_path: Path):
    for _ in range(2):
        pair.iterate()
    saved = of_each(pair, lambda learner: learner.get_state())
    pair.save(tmp_path / "checkpoint")
    pair.iterate()
    pair.restore(tmp_path / "checkpoint")
    for before, after in zip(saved, of_each(pair, lambda learner: learner.get_state()), strict=True):
        np.testing.assert_equal(after["rl_module"], before["rl_module"])
        np.testing.assert_equal(after["optimizer"], before["optimizer"])
        # Each learner has its own part of the replay.
        np.testing.assert_equal(after.get("replay"), before.get("replay"))
    pair.iterate()
    assert_equal(*of_each(pair, weights))


def test_a_gradient_that_is_not_finite_is_everybodys(pair: RLlibTrainer):
    one, broken = sampled(pair).split(2)
    broken.reward[3] = np.nan
    before = of_each(pair, weights)[0]
    if algorithm_of(pair) == "ppo":
        learn(pair, [[one], [broken]])
        after = of_each(pair, weights)
        assert_equal(*after)
        assert_equal({name: value for name, value in before.items() if "head" in name}, after[0])
    else:
        # Some draws later the broken transitions are met.
        with pytest.raises(RunError, match=r"dqn\.lr"):
            meet(pair, [[one], [broken]])


def meet(pair: RLlibTrainer, shares: list[list[Rollout]]) -> None:
    for _ in range(5):
        learn(pair, shares)
