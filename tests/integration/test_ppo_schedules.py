"""PPO's schedules on a real learner: the clip falls with training and goes on after resuming, a KL limit ends updates early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.learn.rllib.trainer import RLlibTrainer
from scalepilot.learn.task import Task

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ITERATIONS = 4


def cartpole(**ppo: Any) -> ExperimentConfig:
    sizes = {"total_env_steps": ITERATIONS * 128, "num_envs": 4, "rollout_steps": 32, "minibatch_size": 64}
    return config_from_mapping(
        {"env": {"id": "CartPole-v1"}, "ppo": {**sizes, "envs_per_input": 1, "hidden": [16], "num_epochs": 8, **ppo}}
    )


def iterations(
    config: ExperimentConfig, count: int, checkpoint: Path | None = None, *, save: bool = False
) -> list[dict[str, float]]:
    """Metrics of some iterations, after restoring `checkpoint` or before saving it."""
    trainer = RLlibTrainer(config, Task(config))
    try:
        if checkpoint is not None and not save:
            trainer.restore(checkpoint)
        metrics = [trainer.iterate() for _ in range(count)]
        if checkpoint is not None and save:
            trainer.save(checkpoint)
        return metrics
    finally:
        trainer.close()


def test_the_clip_falls_linearly_and_goes_on_after_resuming(tmp_path: Path):
    config = cartpole(clip=0.4, clip_final_share=0.5)
    expected = [0.4, 0.35, 0.3, 0.25]
    assert [m["clip"] for m in iterations(config, ITERATIONS)] == pytest.approx(expected)
    first = iterations(config, 2, tmp_path / "checkpoint", save=True)
    rest = iterations(config, 2, tmp_path / "checkpoint")
    assert [m["clip"] for m in first + rest] == pytest.approx(expected)


def test_an_update_ends_after_the_epoch_in_which_the_policy_has_gone_too_far():
    # Steps so large that the first epoch moves the policy far away.
    (far,) = iterations(cartpole(lr=0.05, target_kl=1e-4), 1)
    assert far["epochs"] == 1
    (near,) = iterations(cartpole(lr=1e-6, target_kl=1e-4), 1)
    assert near["epochs"] == 8
    (free,) = iterations(cartpole(lr=0.05), 1)
    assert free["epochs"] == 8
