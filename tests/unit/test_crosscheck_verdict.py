"""The verdict on two engines, and its picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from scalepilot.evaluate.curve import Curve
from scalepilot.evaluate.statistics.aggregate import interquartile_mean
from scalepilot.evaluate.statistics.nested import nested_difference, nested_iqm, nested_mean
from scalepilot.experiments.study.agreement import agreement
from scalepilot.report.charts.curves import band, curves_svg
from scalepilot.report.charts.svg import nice_ticks

EPISODES = np.arange(50)


def engine(mean: float, *, between_seeds: float, num_seeds: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (num_seeds, len(EPISODES)))
    return mean + rng.normal(0, between_seeds, (num_seeds, 1)) + noise


@pytest.mark.parametrize(
    ("other", "spread", "lower_is_better", "outcome", "reason"),
    [
        (100.0, 0.5, False, "agree", "within ±5%"),
        (102.0, 0.1, False, "agree", "within ±5%"),
        (100.0, 20.0, False, "agree", "may be 0"),
        (150.0, 1.0, False, "SB3 better", "leaves out 0"),
        (150.0, 1.0, True, "RLlib better", "leaves out 0"),
        (50.0, 1.0, False, "RLlib better", "leaves out 0"),
        (50.0, 1.0, True, "SB3 better", "leaves out 0"),
    ],
)
def test_the_verdict_follows_the_interval(other: float, spread: float, lower_is_better: bool, outcome: str, reason: str):
    first, second = engine(100.0, between_seeds=spread), engine(other, between_seeds=spread, seed=1)
    verdict = agreement(first, second, EPISODES, lower_is_better=lower_is_better)
    assert verdict.outcome == outcome
    assert reason in verdict.reason
    assert verdict.difference.low < first.mean() - second.mean() < verdict.difference.high


def test_one_seed_decides_nothing():
    verdict = agreement(engine(1.0, between_seeds=0, num_seeds=1), engine(9.0, between_seeds=0), EPISODES, lower_is_better=False)
    assert verdict.outcome == "undecided"
    assert not verdict.difference.is_known


def test_spread_between_seeds_widens_the_interval_where_episodes_alone_would_not():
    calm, wild = (nested_mean(engine(0.0, between_seeds=s), EPISODES) for s in (0.0, 5.0))
    assert wild.high - wild.low > 5 * (calm.high - calm.low)


def test_intervals_of_five_seeds_cover_a_difference_of_zero_about_nineteen_times_in_twenty():
    covered = 0
    for seed in range(200):
        first, second = (engine(0.0, between_seeds=3.0, seed=2 * seed + k) for k in (0, 1))
        interval = nested_difference(first, second, EPISODES, samples=300)
        covered += interval.low <= 0 <= interval.high
    assert 184 <= covered <= 200


def test_days_are_drawn_whole():
    # Two kinds of days: whole days vary far more than their episodes drawn one by one.
    values = np.tile(np.repeat([0.0, 10.0, 0.0, 10.0, 0.0], 10), (3, 1))
    by_day = nested_mean(values, np.repeat(np.arange(5), 10))
    by_episode = nested_mean(values, EPISODES)
    assert by_day.high - by_day.low > 2 * (by_episode.high - by_episode.low)


def test_the_interquartile_mean_leaves_a_quarter_out_at_either_end():
    assert interquartile_mean(np.array([[9.0, 1.0, 2.0, 3.0], [4.0, -50.0, 900.0, 5.0]])) == (2 + 3 + 4 + 5) / 4


def test_the_interval_of_the_interquartile_mean_is_that_of_the_mean_where_all_seeds_are_alike_and_ignores_an_outlier():
    values = engine(0.0, between_seeds=1.0, num_seeds=8)
    iqm, mean = nested_iqm(values, EPISODES), nested_mean(values, EPISODES)
    assert iqm.low < 0 < iqm.high
    assert iqm.high - iqm.low == pytest.approx(mean.high - mean.low, rel=0.5)
    values[0, 0] = 1e6
    assert nested_iqm(values, EPISODES).mean == pytest.approx(iqm.mean, abs=0.1)


def test_different_episodes_are_refused():
    with pytest.raises(ValueError, match="same episodes"):
        nested_difference(np.zeros((2, 3)), np.zeros((2, 4)), np.arange(3))


def test_a_band_spans_the_seeds_where_all_have_values():
    steps, mean, lowest, highest = band(
        [Curve(np.array([0.0, 10.0]), np.array([0.0, 10.0])), Curve(np.array([5.0, 20.0]), np.array([7.0, 7.0]))]
    )
    assert (steps[0], steps[-1]) == (5.0, 10.0)
    assert (lowest[0], mean[0], highest[0]) == (5.0, 6.0, 7.0)
    assert (lowest[-1], mean[-1], highest[-1]) == (7.0, 8.5, 10.0)


def test_the_picture_is_sound_xml_with_a_line_and_a_band_an_engine():
    curve = Curve(np.array([100.0, 200.0]), np.array([1.0, 2.0]))
    svg = curves_svg({"rllib": [curve], "sb3": [curve]}, title="a < b & c", value_label="return")
    root = ET.fromstring(svg)
    names = [element.tag.split("}")[1] for element in root]
    assert names.count("polyline") == names.count("polygon") == 2
    assert "a < b & c" in [element.text for element in root]


def test_a_flat_curve_and_a_single_point_can_be_drawn():
    flat = Curve(np.array([100.0]), np.array([500.0]))
    assert "NaN" not in curves_svg({"rllib": [flat], "sb3": [flat]}, title="t", value_label="v")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-93, 512), (0, 2e6), (0.012, 0.013)])
def test_ticks_are_few_round_and_within(low: float, high: float):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high * (1 + 1e-9)
