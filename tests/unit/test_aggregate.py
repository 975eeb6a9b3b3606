"""Interquartile mean and probability of improvement, held to figures of rliable.

The figures below are those of rliable 1.2.0 (`metrics.aggregate_iqm`, `metrics.probability_of_improvement`, and
`library.get_interval_estimates` with 50,000 and 2,000 resamples) for the scores of `scores()`.
"""

from __future__ import annotations

import numpy as np
import pytest

from scalepilot.evaluate import interquartile_mean, probability_of_improvement, stratified_bootstrap

IQM_FIRST, IQM_SECOND, IMPROVEMENT = 0.9186666666666665, 1.1143636363636364, 0.36547619047619045
IQM_INTERVAL, IMPROVEMENT_INTERVAL = (0.8215333333333334, 1.0177683333333336), (0.26309523809523805, 0.4773809523809524)
# Of a 2.5 % quantile from 2,000 resamples: a few percent of the interval's width.
MONTE_CARLO = 0.015


def scores():
    """(10, 6) and (7, 6) runs × tasks, some of the first task equal in both."""
    rng = np.random.default_rng(20261121)
    first, second = np.round(rng.lognormal(0.0, 0.5, (10, 6)), 3), np.round(rng.lognormal(0.1, 0.5, (7, 6)), 3)
    second[:3, 0] = first[:3, 0]
    return first, second


def test_the_interquartile_mean_is_rliables():
    first, second = scores()
    assert float(interquartile_mean(first)) == pytest.approx(IQM_FIRST, abs=1e-6)
    assert float(interquartile_mean(second)) == pytest.approx(IQM_SECOND, abs=1e-6)


def test_the_interquartile_mean_along_an_axis_is_that_of_each_row():
    first, _ = scores()
    np.testing.assert_allclose(interquartile_mean(first, axis=1), [float(interquartile_mean(row)) for row in first])


def test_the_probability_of_improvement_is_rliables_ties_included():
    first, second = scores()
    assert probability_of_improvement(first, second) == pytest.approx(IMPROVEMENT, abs=1e-6)
    assert probability_of_improvement(second, first) == pytest.approx(1 - IMPROVEMENT, abs=1e-6)
    assert probability_of_improvement(first, first) == 0.5


def test_the_stratified_bootstraps_interval_is_rliables_within_monte_carlo_error():
    interval = stratified_bootstrap(lambda values: float(interquartile_mean(values)), scores()[0], samples=5000)
    assert interval.mean == pytest.approx(IQM_FIRST, abs=1e-6)
    assert (interval.low, interval.high) == pytest.approx(IQM_INTERVAL, abs=MONTE_CARLO)


def test_the_improvements_interval_is_rliables_within_monte_carlo_error():
    first, second = scores()
    rng = np.random.default_rng(0)
    tasks = np.arange(6)
    found = [
        probability_of_improvement(first[rng.integers(10, size=(10, 6)), tasks], second[rng.integers(7, size=(7, 6)), tasks])
        for _ in range(5000)
    ]
    assert np.percentile(found, (2.5, 97.5)) == pytest.approx(IMPROVEMENT_INTERVAL, abs=MONTE_CARLO)


def test_one_run_has_no_interval():
    assert not stratified_bootstrap(lambda values: float(values.mean()), np.ones((1, 3))).is_known
