"""Spaces with an offset, masks and several choices at once, through RLlib's own processes: each to its known best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalepilot.config import config_from_mapping
from scalepilot.experiments.run import run_experiment
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

PPO = {"total_env_steps": 5120, "num_envs": 8, "rollout_steps": 40, "minibatch_size": 64, "lr": 3e-3, "gamma": 0.5}
DQN = {"total_env_steps": 4800, "num_envs": 8, "learning_starts": 200, "lr": 3e-3, "gamma": 0.5, "updates_per_step": 0.5}
EVALUATION = {"validation_episodes": 4, "test_episodes": 4, "videos": 0, "validate_every_share": 0.25}


@pytest.mark.parametrize(
    ("algorithm", "engine", "env"),
    [
        *(("ppo", "rllib", env) for env in ("DiscreteStart", "Masked", "MultiAct", "DictObs")),
        *(("dqn", "rllib", env) for env in ("DiscreteStart", "Masked", "MultiAct", "DictObs")),
        # RLlib's own sampling sees the same flattened spaces: an offset and a mask are what it could lose.
        ("ppo", "rllib-stock", "DiscreteStart"),
        ("ppo", "rllib-stock", "Masked"),
    ],
)
def test_the_best_return_is_reached(tmp_path, monkeypatch, env, algorithm, engine):
    # Each of the first two has one right action a state, a wrong one raises or earns nothing: only 40 of 40 steps right is 40.
    # The others have nothing to learn: that what is chosen arrives, and lasts for 40 steps, is seen at once.
    short = {} if env in ("DiscreteStart", "Masked") else {"total_env_steps": 640}
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    config = config_from_mapping(
        {
            "name": "t",
            "algorithm": algorithm,
            "engine": engine,
            "env": {"id": f"field_envs:{env}-v0"},
            "ppo": {**PPO, "envs_per_input": 1, **short},
            "dqn": {**DQN, **short},
            "evaluation": EVALUATION,
            "output": str(tmp_path),
        }
    )
    folder = RunFolder.create(config)
    run_experiment(config, folder)
    summary = json.loads((folder.evaluation / "summary.json").read_text())
    assert summary["policies"][f"t-{algorithm}"]["return"]["mean"] == 40.0
    values = [action.value for action in load_policy(folder.policy).spec.actions]
    assert values[-1] == {"DiscreteStart": 1, "MultiAct": [2, 1]}.get(env)
