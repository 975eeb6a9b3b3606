"""What differs between services: drawn in training, shown in the observation, obeyed by a policy that sees it."""

from __future__ import annotations

import numpy as np
import pytest

from scalepilot.policy.fields import FieldView
from scalepilot.policy.spec import FieldEntry
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.autoscale.long_windows import CHANGE_STEPS, LongWindows
from scalepilot_envs.autoscale.observation import SERVICE_FIELDS
from scalepilot_envs.workloads import RateSeries

SHOWN = AutoscaleParams(observe_service=True, max_replicas=200)
DAY = RateSeries(200 + 150 * np.sin(np.arange(5760) / 300), 15.0, 1e9)
RANGES = {
    "startup_seconds": (15.0, 240.0),
    "replica_capacity_rps": (5.0, 80.0),
    "wait_slo_seconds": (0.1, 1.0),
    "price_per_late_request": (0.0002, 0.02),
    "interval_multiples": (1, 4),
    "min_replicas": (1, 5),
    "max_replicas": (20, 200),
}


def columns(batch):
    return dict(zip([f.name for f in batch.fields], batch.observe().T, strict=True))


def test_the_constants_of_the_parameters_are_shown_as_they_are():
    batch = AutoscaleBatch(2, workload=DAY, params=SHOWN, episode_steps=10)
    batch.seed_streams((0, 1))
    batch.reset_batch()
    shown = columns(batch)
    assert [float(shown[name][0]) for name in SERVICE_FIELDS] == pytest.approx([60.0, 0.2, 15.0, 0.001, 1.0, 200.0])


def test_drawn_services_are_shown_lie_in_their_ranges_and_cover_them():
    batch = AutoscaleBatch(600, workload=DAY, params=SHOWN, episode_steps=10, randomisation={"services": RANGES})
    batch.seed_streams(range(600))
    batch.reset_batch()
    shown = columns(batch)
    for field, name in (("late_request_replica_hours", "price_per_late_request"), *((n, n) for n in RANGES if n in shown)):
        low, high = RANGES[name]
        assert shown[field].min() >= low * 0.999
        assert shown[field].max() <= high * 1.001
        # Log-uniform: the middle of the logarithmic range is the median.
        assert np.median(shown[field]) == pytest.approx((low * high) ** 0.5, rel=0.25)
    assert set(np.unique(shown["interval_seconds"])) == {15.0, 30.0, 45.0, 60.0}


def test_a_drawn_service_costs_what_the_same_service_costs_as_a_parameter():
    ranges = {name: (value, value) for name, value in (("startup_seconds", 30.0), ("price_per_late_request", 0.01))}
    ranges |= {"wait_slo_seconds": (0.4, 0.4), "replica_capacity_rps": (40.0, 40.0), "max_replicas": (12, 12)}
    drawn = AutoscaleBatch(3, workload=DAY, params=SHOWN, episode_steps=40, randomisation={"services": ranges})
    own = AutoscaleParams(
        observe_service=True,
        max_replicas=12,
        startup_seconds=30.0,
        price_per_late_request=0.01,
        wait_slo_seconds=0.4,
        replica_capacity_rps=40.0,
    )
    plain = AutoscaleBatch(3, workload=DAY, params=own, episode_steps=40)
    for batch in (drawn, plain):
        batch.seed_streams((7, 8, 9))
        batch.reset_batch()
    targets = np.random.default_rng(0).integers(1, 20, (40, 3)).astype(float)
    for target in targets:
        one, other = drawn.step_targets(target), plain.step_targets(target)
        np.testing.assert_allclose(one.reward, other.reward, rtol=1e-12)
        np.testing.assert_allclose(one.observation, other.observation, rtol=1e-6)


def test_with_another_interval_the_same_day_passes_in_fewer_steps():
    ranges = {"interval_multiples": (4, 4)}
    batch = AutoscaleBatch(1, workload=DAY, params=SHOWN, episode_steps=100, arrivals="exact", randomisation={"services": ranges})
    batch.seed_streams((0,))
    batch.reset_batch()
    rates = [float(columns(batch)["request_rate_rps_0"][0])]
    for _ in range(50):
        info = batch.step_targets(np.array([20.0])).info
        rates.append(float(columns(batch)["request_rate_rps_0"][0]))
    assert info["arrived_requests"][0] == pytest.approx(60 * rates[-1], rel=1e-6)
    assert info["replica_cost"][0] == pytest.approx(20 * 60 / 3600)
    where = int(np.argmin(np.abs(DAY.rates_rps - rates[1]) + np.abs(np.roll(DAY.rates_rps, -4) - rates[2])))
    np.testing.assert_allclose(rates[1:], DAY.rates_rps[where : where + 200 : 4], rtol=1e-6)


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ({"max_replicas": (10, 500)}, r"services\.max_replicas: \[10, 500\] is not allowed; allowed: up to params\.max_replicas"),
        ({"min_replicas": (3, 30), "max_replicas": (20, 50)}, r"services\.min_replicas: \[3, 30\] is not allowed"),
        ({"startup_seconds": (0.0, 5.0)}, "startup_seconds"),
        ({"start_up": (1.0, 2.0)}, "start_up: unknown key"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(services, said):
    with pytest.raises(ValueError, match=said):
        AutoscaleBatch(1, workload=DAY, params=SHOWN, episode_steps=10, randomisation={"services": services})


def test_past_steps_fill_the_windows_with_what_really_came_before():
    params = AutoscaleParams(long_window_steps=64)
    batch = AutoscaleBatch(
        1, workload=DAY, params=params, episode_steps=50, arrivals="exact", randomisation={"past_steps": (200, 200)}
    )
    batch.seed_streams((3,))
    batch.reset_batch()
    shown = columns(batch)
    first = float(shown["request_rate_rps_0"][0])
    rising = float(shown["request_rate_rps_7"][0]) < first
    assert (float(shown["request_rate_mean_rps_64"][0]) < first) == rising
    assert float(shown["request_rate_change_rps_64"][0]) > 0


@pytest.mark.parametrize("num_envs", [1, 3])
def test_long_windows_are_those_of_the_last_rates_and_nothing_else(num_envs):
    rng = np.random.default_rng(0)
    windows = LongWindows(64, num_envs)
    past = rng.uniform(0, 10, (5, num_envs))
    windows.fill(np.ones(num_envs, bool), past)
    seen = [*np.repeat(past[:1], 100, axis=0), *past]
    for step in range(300):
        if step in (37, 120, 128):
            again = np.arange(num_envs) == 0
            new = rng.uniform(0, 10, (70 if step == 37 else 3, 1))
            windows.fill(again, new)
            history = np.array(seen)
            known = np.concatenate([np.repeat(new[:1], len(history), axis=0), new])[-len(history) :]
            history[:, 0] = known[:, 0]
            seen = list(history)
        rate = rng.uniform(0, 10, num_envs)
        windows.add(rate)
        seen.append(rate)
        history = np.array(seen)
        change = history[CHANGE_STEPS:] - history[:-CHANGE_STEPS]
        for row, steps in ((0, 16), (4, 64)):
            last, moved = history[-steps:], change[-steps:]
            right = [last.mean(axis=0), last.max(axis=0), np.sqrt((moved**2).mean(axis=0)), np.maximum(moved, 0).max(axis=0)]
            np.testing.assert_allclose(windows.values[row : row + 4], right, rtol=1e-12, atol=1e-12)


def test_a_policy_that_sees_the_bounds_keeps_to_those_it_sees(tiny_network):
    made = tiny_network(params=SHOWN)
    view = FieldView([FieldEntry.of(f) for f in AutoscaleBatch(1, workload=DAY, params=SHOWN, episode_steps=5).fields])
    rows = np.tile(np.array([(f.low + min(f.high, 50)) / 2 for f in made.spec.observation_fields], np.float32), (4, 1))
    names = [f.name for f in made.spec.observation_fields]
    rows[:, names.index("min_replicas")] = (1, 150, 1, 150)
    rows[:, names.index("max_replicas")] = (3, 160, 200, 200)
    desired = made.act(rows)[0].desired_replicas
    assert desired[0] <= 3
    assert desired[1] >= 150
    assert desired[3] >= 150
    assert view.shows_bounds
