"""Levels of traffic that randomisation draws for training episodes."""

from __future__ import annotations

import numpy as np
import pytest

from scalepilot_envs.autoscale import AutoscaleBatch, Randomisation
from scalepilot_envs.workloads import RateSeries

RISING = RateSeries(np.linspace(1.0, 100.0, 400), 15.0)
EPISODE_STEPS, NUM_ENVS = 20, 400


def peaks(series: RateSeries = RISING, **randomisation) -> np.ndarray:
    """(NUM_ENVS,) highest mean rate of each training episode."""
    return rates(series, **randomisation).max(axis=0)


def swing(series: RateSeries, **randomisation) -> float:
    """Mean change from step to step relative to the mean rate."""
    met = rates(series, **randomisation)
    return float(np.abs(np.diff(met, axis=0)).mean() / met.mean())


def rates(series: RateSeries, **randomisation) -> np.ndarray:
    """(EPISODE_STEPS, NUM_ENVS) mean rates that training meets."""
    batch = AutoscaleBatch(
        NUM_ENVS, workload=series, episode_steps=EPISODE_STEPS, arrivals="exact", randomisation=Randomisation(**randomisation)
    )
    batch.seed_streams(list(range(NUM_ENVS)))
    batch.reset_batch()
    arrived = [batch.step_targets(np.full(NUM_ENVS, 10.0)).info["arrived_requests"] for _ in range(EPISODE_STEPS)]
    return np.array(arrived) / 15.0


def test_the_recorded_level_is_kept_unless_asked_for():
    assert peaks().max() <= 100.0
    np.testing.assert_array_equal(peaks(), peaks(peak_rps=(300.0, 900.0), peak_share=0.0))


def test_every_peak_is_log_uniform_within_its_range_however_quiet_the_record():
    drawn = peaks(peak_rps=(300.0, 900.0), peak_share=1.0)
    assert (drawn > 299.999).all()
    assert (drawn < 900.001).all()
    # The middle of the logarithms, not of the rates (600); standard error of the share 0.025.
    assert np.mean(drawn < np.sqrt(300.0 * 900.0)) == pytest.approx(0.5, abs=0.1)


def test_the_share_of_episodes_moved_is_the_one_asked_for():
    assert np.mean(peaks(peak_rps=(300.0, 900.0), peak_share=0.25) > 200.0) == pytest.approx(0.25, abs=0.09)


def test_smoothing_steadies_the_episodes_whose_level_is_drawn_and_no_other():
    alternating = RateSeries(np.tile([0.0, 100.0], 200), 15.0)
    # Five minutes are twenty steps, all of the episode: next to the peak nothing is left of the ups and downs.
    steady = swing(alternating, peak_rps=(300.0, 300.0), peak_share=1.0, smoothing_minutes=(5.0, 5.0))
    assert steady < 0.2 * swing(alternating, peak_rps=(300.0, 300.0), peak_share=1.0)
    assert swing(alternating, peak_rps=(300.0, 300.0), peak_share=0.0, smoothing_minutes=(5.0, 5.0)) == swing(alternating)


def test_a_window_without_requests_stays_empty():
    assert (peaks(RateSeries(np.zeros(100), 15.0), peak_rps=(300.0, 900.0), peak_share=1.0) == 0.0).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peak_rps", (10.0, 1.0)),
        ("peak_rps", (0.0, 1.0)),
        ("peak_share", 1.5),
        ("peak_share", float("nan")),
        ("smoothing_minutes", (-1.0, 1.0)),
    ],
)
def test_levels_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"^{field}: .*allowed"):
        Randomisation(**{field: value})
