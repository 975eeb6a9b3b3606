"""A policy that sees what differs between services: operators say it, and hours of traffic are shown as in the simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scalepilot.errors import ConfigError
from scalepilot.operate.config import load_service, operate_config
from scalepilot.operate.controller import Controller
from scalepilot.operate.ledger import Ledger
from scalepilot.operate.replay import replayed
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import Written
from scalepilot.operate.telemetry import TelemetryContext
from scalepilot.operate.telemetry.counters import Samples
from scalepilot.operate.telemetry.prometheus import PrometheusTelemetry
from scalepilot.operate.telemetry.rate_history import RateHistory
from scalepilot.operate.telemetry.settings import prometheus_settings
from scalepilot.operate.tick import TickState, tick
from scalepilot.policy import FieldEntry, save_policy
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.autoscale.description import describe
from scalepilot_envs.autoscale.long_windows import long_window_names
from scalepilot_envs.autoscale.observation import SERVICE_FIELDS, observation_fields
from scalepilot_envs.workloads import RateSeries

STEP = 15.0
PARAMS = AutoscaleParams(long_window_steps=128, window_steps=16, observe_service=True, max_replicas=80)
START = 1_790_000_010.0


class Answering:
    """Answers ranges of one counter; counts the questions."""

    url = "recorded"

    def __init__(self, times, totals):
        self.times, self.totals, self.asked, self.broken = times, totals, [], False

    def ranges(self, query, now, seconds):
        if not query.startswith("http_requests_total"):
            return []
        if self.broken:
            raise ConfigError("away")
        self.asked.append(now)
        within = (self.times > now - float(query.rpartition("[")[2].removesuffix("ms]")) / 1000) & (self.times <= now)
        return [Samples({"pod": "a"}, self.times[within], self.totals[within])] if within.any() else []

    vector = ask = None

    def close(self):
        pass


def traffic(steps=400, known_from=0, phase=0.0):
    """Requests of each interval, and a counter of them scraped every 5 s, `phase` after the grid."""
    rng = np.random.default_rng(3)
    counts = rng.poisson(300 + 200 * np.sin(np.arange(steps) / 40)).astype(float)
    grid = START + STEP * np.arange(steps + 1)
    times = np.arange(grid[known_from], grid[-1] + 0.1, 5.0) + phase
    totals = np.interp(times, grid + phase, np.concatenate([[0.0], np.cumsum(counts)]))
    return counts, Answering(times, totals)


def telemetry_of(client, params=PARAMS):
    env = describe(params)
    context = TelemetryContext(env, [FieldEntry.of(f) for f in env.fields])
    return PrometheusTelemetry(
        prometheus_settings({"url": "http://recorded", "requests": {}, "capacity_rps": 20}), context, client
    )


def simulated(counts, names, params=PARAMS):
    """What the simulator shows after these intervals."""
    rates = counts / params.interval_seconds
    env = AutoscaleBatch(1, workload=RateSeries(rates, params.interval_seconds), params=params, episode_steps=len(rates))
    given = {"rates_rps": rates[None], "arrived": counts[None], "start_unix_seconds": np.array([START])}
    env.reset_batch(None, given)
    for _ in range(len(rates)):
        env.advance(np.array([10.0]))
    row = dict(zip([f.name for f in env.fields], env.observe()[0].tolist(), strict=True))
    return {name: row[name] for name in names}


def test_every_field_that_long_windows_add_is_known():
    names = [f.name for f in observation_fields(PARAMS)]
    without = [f.name for f in observation_fields(replace(PARAMS, long_window_steps=0))]
    assert [name for name in names if name not in without] == long_window_names(128)


RATES = ["request_rate_rps_0", "request_rate_mean_rps", *long_window_names(128)]


@pytest.mark.parametrize("phase", [0.0, -4.0])
def test_hours_of_traffic_are_shown_as_the_simulator_shows_them_from_the_first_moment(phase):
    counts, client = traffic(phase=phase)
    telemetry = telemetry_of(client)
    readings = telemetry.read(START + 400 * STEP, Replicas(2, 2, ())).readings
    telemetry.close()
    expected = simulated(counts, [*RATES, *SERVICE_FIELDS])
    assert {name: readings[name].value for name in expected} == pytest.approx(expected, rel=1e-5)
    assert not any(readings[name].problem or readings[name].assumed for name in RATES)
    # Hours are asked for in stretches as long as what every moment asks for.
    assert len(client.asked) <= 1 + 128 / 16 + 2


def test_what_was_asked_for_once_is_kept_and_goes_on():
    counts, client = traffic()
    telemetry = telemetry_of(client)
    for step in range(340, 401):
        if step in (350, 355, 356):
            continue
        client.broken = step == 351
        readings = telemetry.read(START + step * STEP, Replicas(2, 2, ())).readings
    telemetry.close()
    assert {name: readings[name].value for name in RATES} == pytest.approx(simulated(counts, RATES), rel=1e-5)
    assert len(client.asked) < 61 + 128 / 16 + 3


def test_a_young_service_is_taken_to_have_been_like_its_first_interval():
    counts, client = traffic(known_from=360)
    telemetry = telemetry_of(client)
    readings = telemetry.read(START + 400 * STEP, Replicas(2, 2, ())).readings
    telemetry.close()
    # The simulator begins its episodes in the same way, with the rate of the first step as the one before.
    expected = simulated(np.concatenate([[counts[360]], counts[360:]]), long_window_names(128))
    assert {name: readings[name].value for name in expected} == pytest.approx(expected, rel=1e-5)
    long = readings["request_rate_max_rps_128"]
    assert long.problem == "40 of 128 intervals are known, the others are taken to be like those before"
    assert long.assumed
    assert not readings["request_rate_max_rps_32"].problem


def test_without_the_newest_requests_nothing_is_made_up():
    _, client = traffic()
    client.broken = True
    telemetry = telemetry_of(client)
    readings = telemetry.read(START + 400 * STEP, Replicas(2, 2, ())).readings
    telemetry.close()
    assert {readings[name].value for name in RATES} == {None}
    assert readings["startup_seconds"].value == 60.0


def test_what_is_no_longer_counted_is_like_the_last_known_interval():
    history = RateHistory(8, 4, STEP)
    history.keep(100 * STEP, np.array([30.0, 20.0, np.nan, 10.0]), 2.0)
    history.keep(103 * STEP, np.array([30.0, 20.0, np.nan, 10.0]), 3 * STEP + 2.0)
    value, known, steps = history.window(103 * STEP, 1, 16)
    assert (value, known, steps) == (30.0, 1, 4)


@pytest.fixture
def folder(tmp_path, tiny_network):
    save_policy(tiny_network(params=PARAMS), tmp_path / "p")
    return tmp_path / "p"


def service(folder, **values):
    return load_service(operate_config({"policy": str(folder), "fallback": [], **values}))


def test_an_operator_says_what_the_service_is_and_the_policy_sees_it(folder):
    found = service(
        folder,
        service={"late_request_replica_hours": 0.004, "startup_seconds": 30, "price_per_replica_hour": 0.5},
        limits={"min_replicas": 2, "max_replicas": 20},
    )
    assert found.env.params == replace(
        PARAMS,
        startup_seconds=30,
        price_per_replica_hour=0.5,
        price_per_late_request=0.002,
        min_replicas=2,
        max_replicas=20,
    )
    _, client = traffic()
    telemetry = telemetry_of(client, found.env.params)
    snapshot = telemetry.read(START + 400 * STEP, Replicas(2, 2, ()))
    telemetry.close()
    seen = {name: snapshot.readings[name].value for name in SERVICE_FIELDS}
    assert seen == pytest.approx(dict(zip(SERVICE_FIELDS, (30, 0.2, 15, 0.004, 2, 20), strict=True)))
    assert {snapshot.readings[name].source for name in SERVICE_FIELDS} == {"config service"}


def test_another_interval_is_that_of_the_loop(folder):
    found = service(folder, service={"interval_seconds": 60})
    assert found.interval_seconds == 60
    assert found.env.params.interval_seconds == 60


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"late_request_replica_hour": 1}, "did you mean late_request_replica_hours"),
        ({"late_request_replica_hours": -1}, "service.late_request_replica_hours: -1 is not allowed; allowed: 0 to 1000"),
        ({"late_request_replica_hours": "high"}, "'high' is not allowed"),
        ({"late_request_replica_hours": 1, "price_per_late_request": 1}, "given beside price_per_late_request"),
        ({"max_replicas": 81}, "service.max_replicas: 81 is not allowed; allowed: 1 to 80, which the policy was made for"),
        ({"startup_seconds": 0}, "service.startup_seconds: 0 is not allowed"),
        ({"history_steps": 3}, "'history_steps' is not allowed beside a policy"),
    ],
)
def test_what_is_not_allowed_is_refused(folder, given, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        service(folder, service=given)


def test_a_policy_that_does_not_see_the_service_brings_its_own(tmp_path, tiny_network):
    save_policy(tiny_network(), tmp_path / "old")
    with pytest.raises(ConfigError, match="brings its own"):
        service(tmp_path / "old", service={"startup_seconds": 30})


def test_a_rule_may_be_told_the_price_in_replica_hours():
    found = load_service(
        operate_config({"policy": "hpa", "service": {"late_request_replica_hours": 0.004, "price_per_replica_hour": 2.0}})
    )
    assert found.env.params.price_per_late_request == pytest.approx(0.008)


def test_it_decides_on_what_it_is_told(folder):
    found = service(folder, limits={"max_replicas": 3})
    _, client = traffic()
    telemetry = telemetry_of(client, found.env.params)
    snapshot = telemetry.read(START + 400 * STEP, Replicas(3, 3, ()))
    telemetry.close()
    assumed = {**found.deciders.at_rest, "cpu_utilisation": 0.5, "backlog_requests": 0.0}
    record, _ = tick(snapshot, TickState(), replace(found.deciders, at_rest=assumed), found.limits, found.interval_seconds)
    assert record.mode == "degraded"
    assert record.target is not None
    assert record.target <= 3


def test_a_recorded_day_can_be_decided_again_at_another_price(tmp_path, folder):
    found = service(folder, service={"late_request_replica_hours": 0.001})
    _, client = traffic()
    telemetry = telemetry_of(client, found.env.params)
    quiet = replace(found.deciders, at_rest={**found.deciders.at_rest, "cpu_utilisation": 0.5, "backlog_requests": 0.0})
    found = replace(found, deciders=quiet)
    ledger = Ledger(tmp_path / "records")
    controller = Controller(found, telemetry, Fixed(), ledger, clock=lambda: START + 400 * STEP)
    recorded = controller.step().record
    telemetry.close()
    again = [record for _, record in replayed(tmp_path / "records", found)]
    assert [(r.target, r.scores) for r in again] == [(recorded.target, recorded.scores)]
    turned = service(folder, service={"late_request_replica_hours": 0.5})
    (other,) = [record for _, record in replayed(tmp_path / "records", replace(turned, deciders=quiet))]
    assert other.snapshot.readings["late_request_replica_hours"].value == 0.5
    assert other.scores != recorded.scores
    # What a configuration does not say is as it was recorded.
    (same,) = [record for _, record in replayed(tmp_path / "records", replace(service(folder), deciders=quiet))]
    assert same.scores == recorded.scores


class Fixed:
    """A target with three replicas, which takes everything."""

    name = "fixed"

    def read(self, now):
        return Replicas(3, 3, ())

    def write(self, target, spec):
        return Written("written")

    def tell(self, reason, sentence):
        pass
