"""What a study measures of curves and test episodes, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.study_results import arm, task

from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.study_metrics import area, largest_fall, late_deviation, steps_to

RISING = Curve(np.array([100.0, 200.0, 300.0, 400.0]), np.array([0.0, 10.0, 4.0, 12.0]))


def test_the_largest_fall_is_from_the_best_so_far():
    assert largest_fall(RISING) == 6.0
    assert largest_fall(Curve(RISING.env_steps, np.array([1.0, 2.0, 2.0, 5.0]))) == 0.0
    assert largest_fall(Curve(RISING.env_steps, np.array([9.0, 1.0, 5.0, 0.0]))) == 9.0


def test_the_area_is_the_mean_over_the_budget():
    ramp = Curve(np.array([0.0, 1000.0]), np.array([0.0, 100.0]))
    assert area(ramp, 1000) == pytest.approx(50.0)
    # What came before the first value and after the last is held.
    assert area(Curve(np.array([500.0]), np.array([7.0])), 1000) == pytest.approx(7.0)


def test_late_values_are_those_of_the_last_quarter():
    assert late_deviation(RISING) == pytest.approx(np.std([4.0, 12.0]))


def test_steps_to_a_threshold_are_those_of_the_first_value_that_reaches_it():
    assert steps_to(RISING, 10.0) == 200
    assert steps_to(RISING, 12.5) is None


def test_success_is_the_share_of_test_episodes_at_the_threshold():
    found = arm("DQN", 475.0, between_seeds=0.0)
    share = float((found.values >= 475.0).mean())
    assert found.success_rate is not None
    assert found.success_rate.mean == pytest.approx(share)
    assert 0 <= found.success_rate.low <= share <= found.success_rate.high <= 1


def test_the_median_of_steps_counts_seeds_that_never_reach_it_as_longest():
    mixed = arm("DQN", 474.0, between_seeds=8.0, seeds=7)
    reached = [s for s in mixed.steps_to_success if s is not None]
    assert 0 < len(reached) < 7
    assert (mixed.median_steps_to_success is None) == (len(reached) < 4)


def test_arms_are_ranked_and_the_leader_is_held_against_the_others():
    found = task("T", arm("low", 100.0), arm("high", 300.0, draw=1), arm("middle", 200.0, draw=2))
    assert [a.name for a in found.arms] == ["high", "middle", "low"]
    assert set(found.versus) == {"middle", "low"}
    assert found.versus["low"].final.low > 190
    assert found.random.low < 22 < found.random.high
