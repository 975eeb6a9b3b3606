"""Learners beside the best causal policy, on traffic where it is known: briefly in `make test-slow`, in full in `make learn`."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.causal_optimum import ALGORITHMS, WORKLOADS, compared

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
# PPO, the shipped learner, and DQN.
MOST_PERCENT_ABOVE = {"ppo": 2.0, "dqn": 4.0}


@pytest.mark.slow
def test_a_short_training_comes_near_the_optimum(tmp_path: Path):
    found = compared("markov-warning", ["ppo"], [0], tmp_path, budget=0.06, rules=())
    assert -0.5 < found["ppo-0_percent_above"] < 25


@pytest.mark.learning
@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_learner_is_within_its_bar_above_the_optimum(tmp_path: Path, workload: str, algorithm: str):
    found = compared(workload, [algorithm], [0], tmp_path, rules=())
    assert found[f"{algorithm}-0_percent_above"] < MOST_PERCENT_ABOVE[algorithm]
