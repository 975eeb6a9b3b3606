"""Ray's algorithms go on for longer, and start from a policy's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import failing_envs

from scalepilot.config import config_from_mapping, resumed_with
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.initial_weights import load_parent, weights_of
from scalepilot.learn.task import Task
from scalepilot.runs.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]
SECTIONS = {
    "ppo": {"num_envs": 8, "rollout_steps": 40, "minibatch_size": 64, "envs_per_input": 1, "hidden": [8]},
    "dqn": {"num_envs": 8, "rollout_steps": 40, "learning_starts": 320, "hidden": [8], "dueling": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", SECTIONS)
def test_a_finished_run_goes_on_and_another_starts_from_its_policy(tmp_path: Path, algorithm: str):
    failing_envs.register()
    values: dict[str, Any] = {
        "name": "longer",
        "algorithm": algorithm,
        "output": str(tmp_path),
        # Rewards of a million: what is learnt in another unit is given back in this one.
        "env": {"id": "FailingTarget-v0", "options": {"fault": "big"}},
        algorithm: {"total_env_steps": 960, **SECTIONS[algorithm]},
        "evaluation": {"validation_episodes": 2, "test_episodes": 2, "videos": 0},
    }
    config = config_from_mapping(values)
    folder = RunFolder.create(config)
    run_experiment(config, folder, evaluate=False)
    longer = resumed_with(config, [f"{algorithm}.total_env_steps=1600"])
    run_experiment(longer, folder, resume=True, evaluate=False)
    rows = folder.read_metrics()
    assert [row["env_steps"] for row in rows] == [320 * (i + 1) for i in range(5)]
    assert RunFolder.open(folder.path)[1] == longer
    # The schedule runs over the new budget.
    assert (rows[-1]["learning_rate"] or 0) < (rows[-2]["learning_rate"] or 0) or algorithm == "dqn"

    task, parent = Task(config), load_parent(folder.path, algorithm)
    trainer = make_trainer(config, task)
    try:
        trainer.start_from(weights_of(parent))
        observation = np.eye(3, dtype=np.float32)
        started = trainer.snapshot().policy(policy_spec(config, folder, task)).act(observation)[0].scores
        scores = parent.act(observation)[0].scores
        assert started is not None
        assert scores is not None
        scale = float(parent.spec.provenance["reward_scale"]) if algorithm == "dqn" else 1.0
        np.testing.assert_allclose(started * scale, scores, rtol=1e-4, atol=1e-4 * scale)
    finally:
        trainer.close()
