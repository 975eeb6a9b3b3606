"""Learning regressions of tables (`make learn`): the shipped QueueScaling setting, and a table that sees nothing as control."""

from __future__ import annotations

import numpy as np
import pytest

from scalepilot.config import load_config
from scalepilot.experiments.run import run_experiment
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import run_returns

pytestmark = pytest.mark.learning
# What the source project published for Q-learning, and what it costs never to scale.
PUBLISHED_Q_LEARNING, NEVER_SCALING = -7.62, -14.025


def kept_return(path, output, *settings):
    """What the kept policy collects on the sine wave."""
    config = load_config(path, [f"output={output}", *settings])
    folder = run_experiment(config, RunFolder.create(config)).folder
    results = run_returns(load_policy(folder.path), config.env.id, 1, arguments=config.env.arguments)
    return float(results["return"][0])


def test_q_learning_beats_the_published_result_over_three_seeds(repo, tmp_path):
    path = repo / "tune_configs" / "queue-scaling-q.yaml"
    returns = [kept_return(path, tmp_path, f"seed={seed}") for seed in range(3)]
    assert max(returns) > min(returns), "seeds differ"
    assert np.mean(returns) > PUBLISHED_Q_LEARNING, returns


def test_negative_control_a_table_that_sees_nothing_must_not(repo, tmp_path):
    path = repo / "tune_configs" / "queue-scaling-q.yaml"
    blind = kept_return(path, tmp_path, "tabular.bins={instances_share: 1}", "tabular.edges={}", "tabular.total_env_steps=200000")
    assert blind <= NEVER_SCALING + 1e-3
