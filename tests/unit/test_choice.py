"""Which policy a run keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scalepilot.config import config_from_mapping
from scalepilot.learn.choice import Candidate, Finalists, mean_arrays
from scalepilot.learn.task import Measured, Task


class Fake:
    """A policy whose true score is its weight; one validation of it says something else."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def policy(self, spec: Any) -> Fake:
        return self

    def arrays(self) -> dict[str, Any]:
        return {"weight": np.array([self.weight], np.float32), "count": np.array(int(self.weight))}

    def load(self, arrays: Any) -> None:
        self.weight = float(arrays["weight"][0])


class Lucky:
    """Validates; early policies seem 5 better than they are."""

    def __init__(self) -> None:
        self.again: list[float] = []

    def measure(self, policy: Any, *, again: bool = False) -> Measured:
        if again:
            self.again.append(policy.weight)
        return Measured(-policy.weight, policy.weight)


def kept(scores: list[tuple[float, float]], task: Any = None) -> Candidate:
    """Of policies with (what validation said, what is true), in order; the first is the one that training began with."""
    finalists = Finalists()
    for at, (said, true) in enumerate(scores):
        finalists.add(Candidate(Fake(true), Measured(-said, said), at * 100))
    return finalists.choose(task or Lucky(), None, lambda: Fake(0.0))


def test_the_best_of_the_whole_run_is_kept_not_only_of_its_end():
    assert kept([(9, 9), (1, 1), (5, 5), (4, 4)]).env_steps == 100


def test_luck_at_one_validation_does_not_decide():
    found = kept([(9, 9), (0, 8), (2, 2), (4, 4)])
    assert found.env_steps == 200
    assert found.measured.score == 2


def test_what_training_began_with_always_takes_part():
    task = Lucky()
    found = kept([(6, 0.5), (1, 1), (2, 2), (3, 3), (4, 4)], task)
    assert found.env_steps == 0
    assert len(task.again) <= 5


def test_the_average_of_the_last_ones_takes_part_where_it_is_any_good():
    # Around 3 and −3, which measure 3 and −3 here, the average is 0.6.
    scores = [(9.0, 9.0), *[(3.0, 3.0)] * 5, (0.9, 3.0)]
    assert kept(scores).measured.score == 3
    found = kept([(20.0, 20.0), *[(11.0, 11.0), (12.0, 12.0), (10.0, 10.0), (12.0, 12.0), (0.0, 0.0)], (11.0, 30.0)])
    assert found.measured.score == 0


def test_averages_are_of_weights_not_of_counts():
    mean = mean_arrays([Fake(1).arrays(), Fake(4).arrays()])
    assert mean["weight"].tolist() == [2.5]
    assert mean["weight"].dtype == np.float32
    assert mean["count"] == 4


@pytest.mark.parametrize(
    "mapping",
    [
        {
            "workload": {"kind": "diurnal", "days": 2},
            "evaluation": {"window_steps": 60, "drawn_windows": 2, "test_seeds": [0]},
        },
        {"env": {"id": "QueueScaling-v0"}, "evaluation": {"validation_episodes": 3}},
    ],
)
def test_fresh_episodes_are_as_many_and_nobody_has_met_them(mapping: dict[str, Any]):
    first = Task(config_from_mapping(mapping)).scenario.validation
    again = first.fresh()
    assert len(again) == len(first)
    assert not set(again.index.seed.tolist()) & set(first.index.seed.tolist())
    assert again.digest() != first.digest()
    assert again.digest() == first.fresh().digest(), "the same ones for every candidate"
    if hasattr(first, "episodes"):
        assert np.array_equal(again.episodes.rates_rps, first.episodes.rates_rps)
