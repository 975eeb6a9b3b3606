"""How evenly requests come, readiness probes that an overloaded replica fails, and queues that stay where they are."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import asdict, replace

import numpy as np
import pytest

from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams, Randomisation
from scalepilot_envs.autoscale.arrivals import drawn_arrivals, variability
from scalepilot_envs.autoscale.dynamics import AutoscaleState
from scalepilot_envs.autoscale.env import make_env
from scalepilot_envs.workloads import RateSeries

ALL = np.ones(1, dtype=np.bool_)
# One replica serves 20 requests a second: a queue of 20 takes a second.
PROBED = AutoscaleParams(
    interval_seconds=1.0,
    startup_seconds=1.0,
    wait_slo_seconds=0.5,
    max_wait_seconds=60.0,
    arrival_dispersion=0.0,
    service_variation=0.0,
    load_balancing="random",
    readiness_timeout_seconds=1.0,
    readiness_period_seconds=1.0,
    readiness_failures=2,
)


def run(params, rates, targets=1, first_rate=14.0):
    """A service of one replica second by second: (steps,) of each that is asked for below."""
    state = AutoscaleState(params, 1)
    state.reset(ALL, np.array([first_rate]))
    out = {name: [] for name in ("backlog", "dropped", "late", "out", "shown_ready", "starting", "cpu")}
    for rate, target in zip(rates, np.broadcast_to(targets, len(rates)), strict=True):
        outcome = state.step(np.array([float(target)]), np.array([float(rate)]) * params.interval_seconds)
        shown = state.observe()[:, 0]
        out["backlog"].append(float(state.backlog[0]))
        out["dropped"].append(float(outcome.dropped[0]))
        out["late"].append(float(outcome.late[0]))
        out["out"].append(0.0 if state.overload is None else float(state.overload.out_replicas[0]))
        out["shown_ready"].append(shown[params.history_steps + 7])
        out["starting"].append(shown[params.history_steps + 8 : params.history_steps + 12].sum())
        out["cpu"].append(float(state.cpu[0]))
    return {name: np.array(values) for name, values in out.items()}


@pytest.mark.parametrize("dispersion", [0.0, 0.3, 1.0, 4.0, 50.0])
def test_the_variance_of_the_arrivals_is_the_dispersion_times_their_mean(dispersion):
    drawn = drawn_arrivals(np.full(200_000, 150.0), dispersion, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(150.0, rel=0.005)
    assert drawn.var() == pytest.approx(dispersion * 150.0, rel=0.02, abs=1e-9)
    assert (drawn >= 0).all()
    assert (drawn_arrivals(np.zeros(5), dispersion, np.random.default_rng(0)) == 0).all()


def test_a_dispersion_of_1_draws_as_before_and_0_is_exact():
    mean = np.linspace(0, 500, 50)
    assert (drawn_arrivals(mean, 1.0, np.random.default_rng(3)) == np.random.default_rng(3).poisson(mean)).all()
    assert (drawn_arrivals(mean, 0.0, np.random.default_rng(3)) == mean).all()


def test_variability_is_the_mean_of_both_and_1_without_either():
    assert variability(1.0, 1.0) == 1.0
    assert variability(1.0, 0.0) == 0.5  # M/D/1 waits half as long as M/M/1
    assert variability(9.0, 1.0) == 1.0  # the rest of the dispersion is in the counts
    # Spread over ten queues at random, what comes evenly is nearly Poisson at each.
    assert variability(0.0, 0.0, np.array([10.0]))[0] == pytest.approx(0.45)


@pytest.mark.parametrize("options", [{"arrival_dispersion": 1}, {"readiness_timeout_seconds": 31.0}])
def test_what_changes_nothing_leaves_every_figure_as_it_was(options):
    """A probe that waits longer than any request can never fails."""

    def figures(**params):
        env = make_env(workload={"kind": "diurnal", "days": 1}, params=params, episode_steps=200)
        seen = [env.reset(seed=1)[0]]
        for target in np.random.default_rng(0).integers(1, 20, 200):
            observation, reward, *_ = env.step_targets(int(target))
            seen.append(np.append(observation, np.float32(reward)))
        return np.concatenate(seen)

    np.testing.assert_allclose(figures(**options), figures(), rtol=1e-6)


def test_evenly_spaced_requests_at_three_quarters_of_the_load_are_never_late():
    even = run(replace(PROBED, wait_slo_seconds=0.2), np.full(20, 15.0))
    assert even["late"].max() < 1e-6
    poisson = run(replace(PROBED, wait_slo_seconds=0.2, arrival_dispersion=1.0, service_variation=1.0), np.full(20, 15.0))
    assert poisson["late"].min() > 0.2 * 15


def test_an_overloaded_replica_fails_its_probes_sheds_what_comes_and_returns():
    probed = run(PROBED, np.full(40, 40.0))
    # The queue grows by 20 a second: too long from second 1 on, probed at 1.5 and 2.5, found out at 3.5.
    assert probed["out"][:8].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert probed["backlog"][:3].tolist() == [20, 40, 60]
    # What it serves is its capacity, whatever comes: half of the requests fail in the long run.
    assert probed["dropped"].sum() == pytest.approx(40 * 40 - 40 * 20 - probed["backlog"][-1])
    assert probed["backlog"].max() == pytest.approx(70.0, abs=10.0)
    # As Kubernetes counts it is not ready, and may be at any moment.
    assert probed["shown_ready"][:5].tolist() == [1, 1, 1, 0, 0]
    assert probed["starting"][:5].tolist() == [0, 0, 0, 1, 1]
    patient = run(replace(PROBED, readiness_timeout_seconds=None), np.full(40, 40.0))
    assert patient["dropped"].sum() == 0
    assert patient["backlog"][-1] == 800.0


def test_the_backlog_is_shed_and_the_service_recovers_sooner():
    rates = np.array([40.0] * 10 + [15.0] * 50)
    probed, patient = run(PROBED, rates), run(replace(PROBED, readiness_timeout_seconds=None), rates)
    assert np.flatnonzero(probed["late"] > 0.1).max() < 20
    assert np.flatnonzero(patient["late"] > 0.1).max() > 45
    assert (probed["dropped"][25:] == 0).all()


def test_a_probe_every_ten_seconds_takes_its_time_and_a_short_peak_is_not_noticed():
    slow = replace(PROBED, interval_seconds=15.0, readiness_period_seconds=10.0, readiness_failures=3)
    # Probes at 5, 15 and 25 s: out from 26 s on, so the second interval drops some.
    assert (run(slow, [40.0] * 4)["dropped"] > 0).tolist() == [False, True, True, True]
    assert (run(slow, [24.0, 2.0, 2.0, 24.0])["dropped"] == 0).all()


def test_the_requests_of_an_interval_are_served_waiting_or_failed():
    rng = np.random.default_rng(0)
    for stays in (False, True):
        for probe in (None, 0.3, 2.0):
            params = replace(PROBED, interval_seconds=7.0, readiness_timeout_seconds=probe, backlog_stays=stays)
            rates, targets = rng.uniform(0, 300, 25), rng.integers(1, 12, 25)
            got = run(params, rates, targets)
            assert (got["dropped"] >= -1e-9).all()
            assert (got["cpu"] <= 1 + 1e-9).all()
            assert (got["cpu"] >= -1e-9).all()
            served = got["cpu"].sum()
            assert served > 5
            assert (got["late"] <= rates * 7.0 * (1 + 1e-9)).all()


def test_replicas_that_come_late_do_not_help_with_the_queue():
    rates, targets = np.array([60.0] * 12), np.array([1, 1, 1, 4, 4, 4, 4, 4, 4, 4, 4, 4])
    own = replace(PROBED, readiness_timeout_seconds=None, backlog_stays=True)
    shared, kept = run(replace(own, backlog_stays=False), rates, targets), run(own, rates, targets)
    # 160 wait before the first one; it gets 15 a second and serves 20, all four together would serve 80.
    assert shared["backlog"][3] == kept["backlog"][3] == 160.0
    assert shared["backlog"][4:].tolist() == [140, 120, 100, 80, 60, 40, 20, 0]
    assert np.diff(kept["backlog"][3:]).tolist() == pytest.approx([-5.0] * 8)
    # Only its share of the requests is late.
    assert kept["late"][5] == pytest.approx(15.0, abs=0.1)
    assert shared["late"][5] == pytest.approx(60.0)


def test_a_replica_that_is_out_leaves_its_traffic_to_those_that_came_later():
    rates, targets = np.array([60.0] * 20), np.array([1, 1, 4] + [4] * 17)
    got = run(replace(PROBED, backlog_stays=True), rates, targets)
    assert got["out"].max() == 1.0, "the old one alone"
    assert got["dropped"][4:].max() == 0.0
    assert got["backlog"][-1] == 0.0


def test_removed_replicas_hand_their_queue_to_the_others():
    own = replace(PROBED, readiness_timeout_seconds=None, backlog_stays=True)
    got = run(own, [60.0, 60.0, 60.0, 200.0, 0.0], [1, 1, 3, 3, 1])
    assert got["backlog"][3] > got["backlog"][2] > 0
    assert got["backlog"][4] == pytest.approx(got["backlog"][3] - 20.0)


EVERYTHING = {
    "arrival_dispersion": (0.0, 20.0),
    "readiness_timeout_seconds": (0.2, 40.0),
    "readiness_period_seconds": (1.0, 20.0),
    "actuation_lag_steps": (0, 2),
    "startup_scale": (0.25, 3.0),
}


def test_a_batch_is_the_single_environment_many_times():
    told = {
        "workload": {"kind": "diurnal", "days": 1},
        "params": {"load_balancing": "random", "backlog_stays": True, "max_replicas": 20},
        "randomisation": EVERYTHING,
        "episode_steps": 40,
    }
    targets = np.random.default_rng(0).integers(1, 20, (40, 3))
    batch = AutoscaleBatch(3, **told)
    batch.seed_streams(range(3))
    seen = [batch.reset_batch()]
    seen += [batch.step_targets(row).observation for row in targets]
    assert batch.state.overload is not None
    for i in range(3):
        env = make_env(**told)
        alone = [env.reset(seed=i)[0]]
        alone += [env.step_targets(int(row[i]))[0] for row in targets]
        np.testing.assert_array_equal(np.array(alone), np.array(seen)[:, i])


def test_training_draws_them_anew_for_each_episode_and_given_episodes_have_the_services_own():
    batch = AutoscaleBatch(50, workload=RateSeries(np.full(64, 100.0), 15.0), randomisation=EVERYTHING, episode_steps=20)
    batch.seed_streams(range(50))
    batch.reset_batch()
    drawn = batch.disturbances.service
    first = {name: getattr(drawn, name).copy() for name in list(EVERYTHING)[:3]}
    for name, values in first.items():
        low, high = EVERYTHING[name]
        assert low <= values.min() < low + 0.2 * (high - low) < high - 0.2 * (high - low) < values.max() <= high
    # The counts of restless episodes vary more.
    index = batch._arrived.var(axis=0) / batch._arrived.mean(axis=0)
    assert np.corrcoef(index, first["arrival_dispersion"])[0, 1] > 0.8
    batch.reset_batch()
    assert all((getattr(drawn, name) != values).all() for name, values in first.items())
    batch.reset_batch(None, {"rates_rps": np.full((50, 20), 100.0)})
    assert set(drawn.arrival_dispersion) == {1.0}
    assert set(drawn.readiness_timeout_seconds) == {math.inf}


def test_asking_for_them_leaves_the_other_draws_as_they_were():
    def first(**randomisation):
        batch = AutoscaleBatch(3, workload={"kind": "diurnal", "days": 1}, randomisation=randomisation, episode_steps=20)
        batch.seed_streams(range(3))
        batch.reset_batch()
        return batch._arrived.copy(), batch.disturbances.lag_steps.copy()

    lags = {"actuation_lag_steps": (0, 9)}
    plain, probed = first(**lags), first(**lags, readiness_timeout_seconds=(1.0, 2.0), arrival_dispersion=(1.0, 1.0))
    for a, b in zip(plain, probed, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (
            AutoscaleParams,
            {"arrival_dispersion": -1.0},
            "arrival_dispersion: -1.0 is not allowed; allowed: finite .* from 0",
        ),
        (AutoscaleParams, {"service_variation": math.nan}, "service_variation: nan is not allowed"),
        (
            AutoscaleParams,
            {"readiness_timeout_seconds": 0.0},
            "readiness_timeout_seconds: 0.0 is not allowed; .* above 0",
        ),
        (AutoscaleParams, {"readiness_period_seconds": 0.0}, "readiness_period_seconds: 0.0 is not allowed; .* from 0.1 to 3600"),
        (AutoscaleParams, {"readiness_failures": 0}, "readiness_failures: 0 is not allowed; allowed: whole numbers from 1"),
        (AutoscaleParams, {"backlog_stays": True}, "backlog_stays: true is not allowed with load_balancing 'central'; .* random"),
        (
            Randomisation,
            {"arrival_dispersion": (2.0, 1.0)},
            r"arrival_dispersion: \[2.0, 1.0\] is not allowed; .* 0 <= low",
        ),
        (Randomisation, {"readiness_timeout_seconds": (0.0, 1.0)}, "readiness_timeout_seconds: .* 0 < low <= high"),
    ],
)
def test_a_bad_value_is_one_clear_line(kind, given, said):
    with pytest.raises(ValueError, match=said) as caught:
        kind(**given)
    assert "\n" not in str(caught.value)


def test_more_probes_than_can_be_simulated_are_refused():
    with pytest.raises(
        ValueError, match=r"readiness_period_seconds: 0.1 is not allowed; allowed: from 3.6, 1,000 probes an interval"
    ):
        AutoscaleState(replace(PROBED, interval_seconds=3600.0, readiness_period_seconds=0.1), 1)


def test_a_period_without_probes_is_refused():
    with pytest.raises(ValueError, match="readiness_period_seconds: is drawn, but nothing is probed"):
        AutoscaleBatch(1, randomisation={"readiness_period_seconds": (1.0, 2.0)})


def test_parameters_travel_through_an_artifact():
    assert AutoscaleParams.from_mapping(asdict(PROBED)) == PROBED


def millisecond_by_millisecond(params, rates, targets):
    """Failed requests of each second: one replica's queue after the other in small steps, each probe one by one."""
    step, failed = 0.001, []
    queues = [{"since": 0.0, "waits": 0.0, "out": False, "failures": 0}]
    next_probe, coming = 0.5 * params.readiness_period_seconds, []  # (when the answer comes, queue, fails)
    for second, (rate, target) in enumerate(zip(rates, targets, strict=True)):
        queues += [{"since": second, "waits": 0.0, "out": False, "failures": 0} for _ in range(int(target) - len(queues))]
        lost = 0.0
        for k in range(round(1 / step)):
            now = second + k * step
            taking = [q for q in queues if not q["out"]]
            lost += 0.0 if taking else rate * step
            for q in queues:
                comes = rate / len(taking) * step if q in taking else 0.0
                q["waits"] = max(0.0, q["waits"] + comes - params.replica_capacity_rps * step)
            if now + step >= next_probe:
                for q in queues:
                    wait = q["waits"] / params.replica_capacity_rps
                    coming.append(
                        (next_probe + min(wait, params.readiness_timeout_seconds), q, wait > params.readiness_timeout_seconds)
                    )
                next_probe += params.readiness_period_seconds
            for _, q, fails in [c for c in coming if c[0] <= now + step]:
                q["failures"] = q["failures"] + 1 if fails else 0
                q["out"] = q["failures"] >= params.readiness_failures
            coming = [c for c in coming if c[0] > now + step]
        failed.append(lost)
    return np.array(failed)


@pytest.mark.parametrize(("period", "failures"), [(1.0, 2), (3.0, 3)])
def test_from_probe_to_probe_is_what_small_steps_come_to(period, failures):
    params = replace(PROBED, backlog_stays=True, readiness_period_seconds=period, readiness_failures=failures)
    rates = np.array([15.0] * 3 + [50.0] * 20 + [15.0] * 10)
    one, late = np.ones(33), np.array([1.0] * 15 + [3.0] * 18)
    # An order serves from the next interval.
    for targets in (one, late):
        ready = np.concatenate([[1.0], targets[:-1]])
        expected = millisecond_by_millisecond(params, rates, ready)
        assert expected.sum() > 100
        got = run(params, rates, targets)["dropped"]
        assert got.sum() == pytest.approx(expected.sum(), rel=0.02)
        assert np.abs(got - expected).max() < 3.0


def test_services_with_drawn_constants_and_probes_can_be_pickled_and_copied_in_an_episode():
    ranges = {**EVERYTHING, "services": {"interval_multiples": (1, 3), "wait_slo_seconds": (0.1, 1.0)}}
    batch = AutoscaleBatch(2, workload=RateSeries(np.full(99, 300.0), 15.0), randomisation=ranges, episode_steps=20)
    batch.seed_streams(range(2))
    batch.reset_batch()
    batch.step_targets(np.full(2, 3))
    others = pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)
    for target in (3, 20, 5, 1, 9):
        expected = batch.step_targets(np.full(2, target))
        for other in others:
            np.testing.assert_array_equal(other.step_targets(np.full(2, target)).observation, expected.observation)
