"""Flash crowds that randomisation adds to training."""

from __future__ import annotations

import numpy as np
import pytest

from scalepilot_envs.autoscale import AutoscaleBatch, Randomisation
from scalepilot_envs.workloads import RateSeries

STEPS = 2400  # ten hours of 15 s
FLAT = RateSeries(np.full(STEPS + 1, 100.0), 15.0)


def rates(num_envs: int = 40, **randomisation) -> np.ndarray:
    """(num_envs, STEPS) mean rates that training meets on a flat workload."""
    batch = AutoscaleBatch(num_envs, workload=FLAT, episode_steps=STEPS, arrivals="exact", randomisation=randomisation)
    batch.seed_streams(list(range(num_envs)))
    batch.reset_batch()
    return np.stack([batch.step_targets(np.full(num_envs, 10.0)).info["arrived_requests"] / 15.0 for _ in range(STEPS)], axis=1)


def test_none_are_added_unless_asked_for():
    assert (rates(num_envs=3) == 100.0).all()


def test_they_come_as_often_multiply_as_much_and_last_as_long_as_asked():
    met = rates(surges_per_hour=0.1, surge_factor=(2.0, 2.0), surge_minutes=(10.0, 10.0))
    # About one a ten-hour episode: count rises from the flat rate.
    surged = met > 150.0
    begins = (np.diff(surged.astype(int), axis=1) == 1).sum()
    assert 25 <= begins <= 55
    alone = met[(met.max(axis=1) == 200.0)]
    assert len(alone) > 10, "a single surge doubles the rate"
    lengths = surged.sum() / begins / 4
    assert lengths == pytest.approx(10.0, abs=1.5), "minutes above one and a half times the rate"


def test_they_come_and_go_within_a_minute():
    met = rates(surges_per_hour=0.1, surge_factor=(2.0, 2.0), surge_minutes=(10.0, 10.0))
    single = met[np.flatnonzero(met.max(axis=1) == 200.0)]
    assert np.abs(np.diff(single, axis=1)).max() <= 100.0 / 4 + 1e-9


def test_every_environment_meets_its_own():
    met = rates(num_envs=8, surges_per_hour=0.5)
    assert len(np.unique(met, axis=0)) == 8


@pytest.mark.parametrize(
    "wrong",
    [{"surges_per_hour": -1.0}, {"surges_per_hour": float("nan")}, {"surge_factor": (2.0, 1.0)}, {"surge_minutes": (0.0, 1.0)}],
)
def test_unfit_ranges_are_refused_by_name(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Randomisation(**wrong)
