import math

import numpy as np
import pytest

from scalepilot.evaluate.statistics.bootstrap import widening
from scalepilot.evaluate.statistics.intervals import Interval, block_bootstrap, gap_closed, paired_difference
from scalepilot_envs.objective import FROM_ZERO, SHARE


def test_the_mean_is_that_of_all_episodes_however_many_a_day_has():
    interval = block_bootstrap(np.array([1.0, 2.0, 3.0, 10.0]), np.array([0, 0, 0, 1]))
    assert interval.mean == 4.0


def test_with_weights_the_estimate_is_a_ratio_of_sums():
    late, arrived = np.array([1.0, 30.0]), np.array([100.0, 300.0])
    assert block_bootstrap(late, np.array([0, 1]), weights=arrived).mean == 31 / 400


def test_two_days_reach_from_one_to_the_other_widened_as_students_t_asks():
    # Resamples of two days are day 0 twice, day 1 twice or one of each: 2.5 % and 97.5 % are the two days, 1 and 3.
    interval = block_bootstrap(np.array([1.0, 1.0, 3.0, 3.0]), np.array([5, 5, 9, 9]))
    reach = 12.7062 * math.sqrt(2) / 1.959964
    assert interval.mean == 2.0
    np.testing.assert_allclose([interval.low, interval.high], [2 - reach, 2 + reach])


def test_the_widening_follows_students_t_and_tends_to_one():
    # t(0.975) for 1, 2, 9, 10, 11, 29 and 199 degrees of freedom, from the tables.
    for blocks, t in ((2, 12.7062), (3, 4.3027), (10, 2.2622), (11, 2.2281), (12, 2.2010), (30, 2.0452), (200, 1.9720)):
        expected = t * math.sqrt(blocks / (blocks - 1)) / 1.959964
        assert widening(blocks) == pytest.approx(expected, rel=1e-3)
    assert 1 < widening(1000) < 1.01


def test_values_without_spread_have_an_interval_without_width():
    interval = block_bootstrap(np.full(6, 7.0), np.repeat([0, 1, 2], 2))
    assert interval == Interval(7.0, 7.0, 7.0)


def test_one_day_has_a_mean_but_no_interval():
    interval = block_bootstrap(np.array([1.0, 3.0]), np.array([4, 4]))
    assert interval.mean == 2.0
    assert not interval.is_known


def test_the_interval_ends_where_what_is_possible_ends():
    values, days = np.array([0.0, 0.0, 1.0]), np.array([0, 1, 2])
    free = block_bootstrap(values, days)
    assert free.low < 0 < 1 < free.high
    assert block_bootstrap(values, days, bounds=FROM_ZERO) == Interval(free.mean, 0.0, free.high)
    assert block_bootstrap(values, days, bounds=SHARE) == Interval(free.mean, 0.0, 1.0)


def test_the_same_seed_gives_the_same_interval():
    values, days = np.random.default_rng(3).normal(size=30), np.arange(30) // 3
    assert block_bootstrap(values, days, seed=1) == block_bootstrap(values, days, seed=1)
    assert block_bootstrap(values, days, seed=1) != block_bootstrap(values, days, seed=2)


@pytest.mark.parametrize(
    ("values", "blocks", "samples"), [([], [], 10), ([1.0], [0, 1], 10), ([1.0, 2.0], [0, 1], 0), ([[1.0]], [[0]], 10)]
)
def test_what_cannot_be_resampled_is_refused(values, blocks, samples):
    with pytest.raises(ValueError, match="allowed"):
        block_bootstrap(np.array(values), np.array(blocks), samples=samples)


def episodes_of_days(rng, days, per_day=6, members=1):
    """Values around 0 whose episodes share most of a day's chance, with several training seeds also a seed's."""
    day = np.repeat(np.arange(days), per_day)
    values = rng.normal(size=days)[day] + 0.5 * rng.normal(size=(members, days * per_day))
    return (values + rng.normal(size=(members, 1)) if members > 1 else values[0]), day


def coverage(days, *, by_day=True, repetitions=500, members=1):
    """How often the 95 % interval holds the true mean, 0."""
    rng = np.random.default_rng(0)
    held = 0
    for repetition in range(repetitions):
        values, day = episodes_of_days(rng, days, members=members)
        interval = block_bootstrap(values, day if by_day else np.arange(len(day)), samples=300, seed=repetition)
        held += interval.low <= 0 <= interval.high
    return held / repetitions


@pytest.mark.parametrize(("days", "members"), [(3, 1), (5, 1), (8, 1), (15, 1), (30, 1), (8, 3), (15, 3)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(days, members):
    assert 0.92 <= coverage(days, members=members) <= 0.98


def test_without_training_seeds_as_the_outer_level_the_interval_is_far_too_narrow():
    rng, held = np.random.default_rng(1), 0
    for repetition in range(200):
        values, day = episodes_of_days(rng, 15, members=3)
        interval = block_bootstrap(values.mean(axis=0), day, samples=200, seed=repetition)
        held += interval.low <= 0 <= interval.high
    assert held / 200 < 0.75


def test_the_interval_of_the_gap_closed_holds_the_truth_as_often():
    rng, held, repetitions = np.random.default_rng(2), 0, 500
    for repetition in range(repetitions):
        day = np.repeat(np.arange(8), 6)
        reference = 10 * np.exp(0.3 * rng.normal(size=8)[day])
        baseline = 1.3 * reference * np.exp(0.05 * rng.normal(size=48))
        share = 0.6 + 0.2 * rng.normal(size=8)[day]
        policy = baseline - share * (baseline - reference)
        interval = gap_closed(policy, baseline, reference, day, samples=300, seed=repetition).share
        held += interval.low <= 0.6 <= interval.high
    assert 0.92 <= held / repetitions <= 0.98


def test_without_days_as_blocks_the_interval_is_far_too_narrow():
    assert coverage(15, by_day=False) < 0.75


def test_a_paired_difference_is_much_sharper_than_the_policies_own_intervals():
    rng = np.random.default_rng(0)
    days = np.repeat(np.arange(12), 3)
    traffic = rng.normal(20, 5, size=12)[days]
    first, second = traffic - 1 + 0.2 * rng.normal(size=36), traffic + 0.2 * rng.normal(size=36)
    paired = paired_difference(first, second, days)
    alone = block_bootstrap(first, days)
    assert paired.difference.low == pytest.approx(-1, abs=0.3)
    assert paired.difference.high < 0
    assert alone.high - alone.low > 5 * (paired.difference.high - paired.difference.low)


def test_the_relative_difference_and_the_probability_go_with_the_difference():
    days = np.arange(8)
    paired = paired_difference(np.full(8, 9.0), np.full(8, 10.0), days)
    assert (paired.difference.mean, paired.relative, paired.probability_lower) == (-1.0, -0.1, 1.0)
    same = paired_difference(np.full(8, 9.0), np.full(8, 9.0), days)
    assert (same.difference.mean, same.probability_lower) == (0.0, 0.5)


def test_pairs_of_different_episodes_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        paired_difference(np.ones(3), np.ones(4), np.arange(3))


def test_the_gap_closed_is_a_ratio_of_sums_over_pairs():
    # Gains 2 and 6 of gaps 4 and 16: 8 / 20, not the mean of 1/2 and 3/8.
    closed = gap_closed(np.array([8.0, 14.0]), np.array([10.0, 20.0]), np.array([6.0, 4.0]), np.array([0, 1]))
    assert closed.share.mean == pytest.approx(0.4)
    assert (closed.pairs, closed.left_out) == (2, 0)


def test_the_baseline_closes_nothing_the_reference_all_and_a_worse_policy_less_than_nothing():
    base, reference, days = np.array([10.0, 12.0, 14.0]), np.array([5.0, 6.0, 7.0]), np.arange(3)
    assert gap_closed(base, base, reference, days).share.mean == 0
    assert gap_closed(reference, base, reference, days).share.mean == 1
    assert gap_closed(base + 1, base, reference, days).share.mean < 0


def test_pairs_with_next_to_no_gap_are_left_out_and_counted():
    base, reference = np.array([10.0, 10.0, 10.0, 0.0]), np.array([9.6, 9.5, 11.0, 0.0])
    closed = gap_closed(np.array([9.0, 9.5, 9.0, 0.0]), base, reference, np.arange(4))
    assert (closed.pairs, closed.left_out) == (1, 3)
    assert closed.share.mean == pytest.approx(1.0)


def test_without_any_gap_there_is_no_share():
    closed = gap_closed(np.ones(3), np.ones(3), np.ones(3), np.arange(3))
    assert math.isnan(closed.share.mean)
    assert (closed.pairs, closed.left_out) == (0, 3)
