"""Pools: each training episode draws one of many workloads, by weight."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.simulate.protocol import protocol_v1
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.workloads import DrawnWorkload, PoolWorkload, pool_of, workload_from_mapping
from scalepilot_envs.workloads.drawn import Family

FLAT = {"num_steps": 400, "interval_seconds": 15.0}


def steady(requests, **member):
    return {"workload": {"kind": "steady", "max_requests": requests, "offset_requests": requests, **FLAT}, **member}


def test_each_episode_serves_one_member_and_members_come_by_their_weights():
    pool = {"kind": "pool", "members": [steady(150, weight=3), steady(1500)]}
    batch = AutoscaleBatch(400, workload=pool, arrivals="exact", episode_steps=20)
    batch.seed_streams(range(400))
    batch.reset_batch()
    for _ in range(3):
        batch.step_targets(np.full(400, 10.0))
    rates = batch.observe()[:, :3]
    assert (rates == rates[:, :1]).all()
    share = float((rates[:, 0] == 10.0).mean())
    assert set(np.unique(rates)) == {10.0, 100.0}
    assert share == pytest.approx(0.75, abs=0.07)


def test_a_member_that_is_drawn_often_is_as_many_services_that_share_its_weight():
    pool = workload_from_mapping({"kind": "pool", "members": [{"count": 5, "workload": {"kind": "drawn", "days": 1}}, steady(9)]})
    assert isinstance(pool, PoolWorkload)
    found = pool_of(pool, "all", 15.0)
    assert found.weights == (0.2, 0.2, 0.2, 0.2, 0.2, 1.0)
    firsts = {float(series.rates_rps[0]) for series in found.members}
    assert len(firsts) == 6
    assert workload_from_mapping(asdict(pool)) == pool


@pytest.mark.parametrize("family", Family.__args__)
@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_service_is_finite_never_silent_and_reaches_its_peak(family, seed):
    series = DrawnWorkload(family=family, days=2, seed=seed, peak_rps=300).series()
    assert np.isfinite(series.rates_rps).all()
    assert series.rates_rps.min() > 0
    assert np.quantile(series.rates_rps, 0.995) == pytest.approx(300)
    assert len(series) * series.interval_seconds == pytest.approx(2 * 86_400, rel=0.01)


def test_families_differ_in_how_restless_they_are():
    def restlessness(family):
        changes = [np.diff(np.log(DrawnWorkload(family=family, seed=s).series().resampled(60.0).rates_rps)) for s in range(8)]
        return float(np.median([change.std() for change in changes]))

    assert restlessness("calm") < 0.3 * restlessness("diurnal")
    assert restlessness("few") > restlessness("diurnal")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([], r"workload\.members: 0 members are not allowed"),
        ([{"count": 3, "workload": {"kind": "spike"}}], r"workload\.members\.0\.seed: a workload of kind spike draws nothing"),
        ([{"weight": 0}], r"workload\.members\.0\.weight: 0 is not allowed"),
        ([{"workload": {"kind": "pool"}}], r"workload\.members\.0\.workload\.kind: 'pool' is not allowed"),
        ([steady(9), {"wieght": 2}], r"workload\.members\.1\.wieght: unknown key"),
        ([{"workload": {"kind": "drawn", "family": "bursy"}}], r"workload\.members\.0\.workload\.family: 'bursy' .*mean bursty"),
    ],
)
def test_a_bad_member_is_named_by_its_place(members, said):
    with pytest.raises(ValueError, match=said):
        workload_from_mapping({"kind": "pool", "members": members})


def test_a_member_that_cannot_be_read_or_is_too_short_is_named(tmp_path):
    pool = {"kind": "pool", "members": [steady(9), {"workload": {"kind": "trace", "path": str(tmp_path / "none.csv")}}]}
    with pytest.raises(ValueError, match=r"workload\.members\.1: .*none\.csv"):
        pool_of(workload_from_mapping(pool), "train", 15.0)
    short = workload_from_mapping({"kind": "pool", "members": [{"count": 2, "workload": {"kind": "drawn", "days": 0.02}}]})
    with pytest.raises(ValueError, match=r"workload\.members\.0 \(draw 0 of 2\): episode_steps: 240 is longer"):
        AutoscaleBatch(1, workload=short, episode_steps=240)
    with pytest.raises(InputError, match=r"part of shops, workload\.members\.0 \(draw 0 of 2\), has \d+ steps of 15 s"):
        protocol_v1("shops", short, AutoscaleParams())


def test_the_protocol_takes_windows_of_every_member_and_tests_all_of_them():
    members = [{"weight": 3, "count": 2, "workload": {"kind": "drawn", "days": 3}}, {"workload": {"kind": "drawn", "days": 5}}]
    data = protocol_v1("shops", workload_from_mapping({"kind": "pool", "members": members}), AutoscaleParams(), window_steps=480)
    assert len(data.validation) == 24
    # Two of three days have five such windows in their last 15 %, the one of five days nine.
    in_test = len(np.unique(data.test.window))
    assert in_test == 5 + 5 + 8 or in_test == 5 + 5 + 9
    again = protocol_v1("shops", workload_from_mapping({"kind": "pool", "members": members}), AutoscaleParams(), window_steps=480)
    np.testing.assert_array_equal(data.test.arrived, again.test.arrived)
