"""What operate's telemetry makes of samples: no request is lost or counted twice, and unknown stays unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.errors import ConfigError
from scalepilot.operate.config import operate_config
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.telemetry import TelemetryContext, make_telemetry
from scalepilot.operate.telemetry.asking import Asking, Problem
from scalepilot.operate.telemetry.client import PrometheusError
from scalepilot.operate.telemetry.counters import Counters, Samples, newest_values, risen
from scalepilot.operate.telemetry.fields import plan_of, starting_quarters
from scalepilot.operate.telemetry.histograms import Buckets, buckets_of
from scalepilot.operate.telemetry.memory import Memory
from scalepilot.operate.telemetry.prometheus import PrometheusTelemetry
from scalepilot.operate.telemetry.selectors import joined, selectors
from scalepilot.operate.telemetry.settings import prometheus_settings
from scalepilot.operate.telemetry.sources import sources_of
from scalepilot.policy.spec import env_fields
from scalepilot_envs import ENVS
from scalepilot_envs.registration import find_env

I = 15.0  # noqa: E741


def samples(times, values, **labels):
    return Samples(labels, np.asarray(times, dtype=float), np.asarray(values, dtype=float))


def rates_of(counters, now, number, interval=I):
    return counters.counted(counters.ends(now, interval, number), interval) / interval


# Counters


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_pods_count_is_conserved_whatever_their_phases_and_restarts(data):
    scrape = data.draw(st.sampled_from([5.0, 15.0]))
    series, total = [], 0.0
    for pod in range(data.draw(st.integers(1, 4))):
        phase = data.draw(st.floats(0, 0.99)) * scrape
        times = 1000 + phase + scrape * np.arange(60)
        rises = np.array(data.draw(st.lists(st.integers(0, 400), min_size=60, max_size=60)), dtype=float)
        values = np.cumsum(rises) + data.draw(st.integers(0, 10**9))
        if data.draw(st.booleans()):
            # A restart: what was counted since is what is shown.
            at = data.draw(st.integers(2, 59))
            values[at:] -= values[at - 1]
        series.append(samples(times, values, pod=str(pod)))
        total += rises[1:].sum()
    counters = Counters(series, I)
    newest, oldest = counters.newest, max(one.times[0] for one in series)
    number = int((newest - oldest) // I)
    within = counters.counted(counters.ends(newest + 3, I, number), I)
    assert not np.isnan(within).any()
    # The newest intervals together, and the rest before them, are all there is but the edges of other phases.
    edge = (newest - number * I) - 1000
    longest = max(np.diff(risen(one.values)).max() for one in series) * len(series)
    assert within.sum() == pytest.approx(total, abs=longest * (edge / scrape + 3) + 1e-6)
    lone = Counters(series[:1], I)
    span = lone.newest - series[0].times[0]
    assert lone.counted(np.array([lone.newest]), span)[0] == pytest.approx(risen(series[0].values)[-1])


@settings(max_examples=20, deadline=None)
@given(
    rate=st.floats(0, 1000),
    scrape=st.sampled_from([1.0, 5.0, 15.0]),
    phases=st.lists(st.floats(0, 0.99), min_size=1, max_size=5),
    now=st.floats(0, 14),
)
def test_a_steady_rate_is_read_as_it_is_at_every_moment(rate, scrape, phases, now):
    series = []
    for pod, phase in enumerate(phases):
        times = np.arange(phase * scrape, 900 + now, scrape)
        series.append(samples(times, 7e6 + rate * times / len(phases), pod=str(pod)))
    found = rates_of(Counters(series, I), 900 + now, 40)
    np.testing.assert_allclose(found, rate, rtol=1e-6, atol=1e-6)


def test_scraping_at_the_interval_itself_is_enough():
    times = np.arange(0, 700, 15.0)
    found = rates_of(Counters([samples(times, 100 * times)], I), 700.0, 40)
    np.testing.assert_allclose(found, 100)


def test_what_no_samples_bracket_is_unknown_and_not_zero():
    times = np.arange(0, 95, 5.0)
    found = rates_of(Counters([samples(times, 10 * times)], I), 95.0, 10)
    np.testing.assert_allclose(found[:6], 10)
    assert np.isnan(found[6:]).all()
    # Nothing was scraped for long: what was counted meanwhile is not that of any one interval.
    gone = np.concatenate([np.arange(0, 300, 5.0), np.arange(400, 700, 5.0)])
    found = rates_of(Counters([samples(gone, 10 * gone)], I), 700.0, 40)
    assert np.isnan(found[20:26]).all()
    known = found[~np.isnan(found)]
    assert len(known) >= 30
    np.testing.assert_allclose(known, 10)
    # A short pause is spread evenly.
    brief = np.delete(np.arange(0, 700, 5.0), [70, 71, 72, 73])
    np.testing.assert_allclose(rates_of(Counters([samples(brief, 10 * brief)], I), 700.0, 40), 10)


def test_what_came_while_nothing_was_scraped_is_known_in_all():
    times = 1000 + 5.0 * np.arange(80)
    gone = (times > 1150) & (times < 1240)
    counters = Counters([samples(times[~gone], 200.0 * (times[~gone] - 1000) / 5.0)], I)
    ends = counters.ends(1395.0, I, 20)
    assert np.isnan(counters.counted(ends, I)).any()
    assert counters.spread(ends, I) == pytest.approx(np.full(20, 600.0))
    assert np.isnan(counters.spread(np.array([1010.0, 1400.0]), I)).all()


def test_a_new_pod_counts_from_zero_and_one_that_is_gone_no_more():
    old = np.arange(0, 700, 5.0)
    new = np.arange(603, 700, 5.0)
    gone = np.arange(1, 602, 5.0)
    series = [
        samples(old, 1e6 + 50 * old, pod="old"),
        samples(gone, 50 * gone, pod="gone"),
        samples(new, 50 * (new - 600), pod="new"),
    ]
    found = rates_of(Counters(series, I, ready=2), 698.0, 20)
    np.testing.assert_allclose(found, 100, rtol=0.08)
    assert found.mean() == pytest.approx(100, rel=0.01)


def test_an_old_pod_that_is_scraped_again_is_no_burst():
    old, back = np.arange(0, 700, 5.0), np.arange(602, 700, 5.0)
    series = [samples(old, 50 * old, pod="old"), samples(back, 9e6 + 50 * back, pod="back")]
    found = rates_of(Counters(series, I), 698.0, 40)
    assert np.nanmax(found) < 101
    # With one sample as well: what it counted so far is compared with the others.
    series[1] = samples(back[:1], [9e6], pod="back")
    assert np.nanmax(rates_of(Counters(series, I), 605.0, 30)) < 51


def test_a_first_error_counts_although_its_series_is_new():
    times = np.arange(0, 700, 5.0)
    series = [samples(times, 50 * times, pod="a", code="200"), samples([695.0], [30.0], pod="a", code="500")]
    counters = Counters(series, I)
    failed = counters.counted(counters.ends(695.0, I, 3), I, lambda labels: labels["code"] == "500")
    np.testing.assert_allclose(failed, [30, 0, 0])
    absent = counters.counted(counters.ends(695.0, I, 3), I, lambda labels: labels["code"] == "503")
    np.testing.assert_allclose(absent, 0)


def test_a_late_sample_is_not_a_replica_less_but_one_too_many_is():
    times = np.arange(0, 700, 15.0)
    series = [samples(times + phase, 10 * times, pod=str(phase)) for phase in (0, 4, 8)]
    late = samples(times[:-2] + 1, 10 * times[:-2], pod="late")
    with_late = Counters([*series, late], I, ready=4)
    assert with_late.num_live == 4
    assert rates_of(with_late, 700.0, 1)[0] == pytest.approx(40)
    assert Counters([*series, late], I, ready=3).num_live == 3


# Replicas that serve and are not scraped


def fleet(live, gone=0, until=400.0):
    times = np.arange(0, 700, 5.0)
    return Counters(
        [samples(times, 10 * times, pod=f"live-{i}") for i in range(live)]
        + [samples(times[times < until], 10 * times[times < until], pod=f"gone-{i}") for i in range(gone)],
        I,
    )


def test_replicas_that_are_not_scraped_any_more_are_told_from_those_that_are_gone():
    memory = Memory()
    memory.see(680.0, 10)
    memory.see(695.0, 10)
    assert memory.unseen(fleet(10), 10, None) == 0
    assert memory.unseen(fleet(5, 5), 10, None) == 5
    # As long as it lasts: the samples no longer tell of those that were lost.
    assert memory.unseen(fleet(5), 10, None) == 5
    assert memory.unseen(fleet(10), 10, None) == 0
    # A process that begins meanwhile knows from the samples.
    fresh = Memory()
    assert fresh.unseen(fleet(5, 5), 10, None) == 5
    # Scaled down, nothing is missing.
    assert Memory().unseen(fleet(5, 5), 5, None) == 0


def test_an_ingress_counts_for_all_replicas():
    memory = Memory()
    for now in range(0, 600, 15):
        memory.see(float(now), 2 if now < 60 else 10)
        assert memory.unseen(fleet(2), 2 if now < 60 else 10, None) == 0
    # It was not the replicas' own counter: one less of the ingress is no loss.
    assert memory.unseen(fleet(1, 1), 10, None) == 0
    assert memory.unseen(fleet(1, 1), 10, False) == 0
    assert memory.unseen(fleet(1), 10, True) == 9


def test_a_replica_may_serve_before_it_is_scraped():
    memory = Memory()
    memory.see(640.0, 10)
    memory.see(694.0, 12)
    assert memory.unseen(fleet(10), 12, True) == 0


def test_what_the_unseen_serve_is_as_much_as_the_others_since_they_were_lost():
    counters = fleet(3, 1, until=600.0)
    ends = counters.ends(695.0, I, 40)
    both = counters.counted(ends, I) + counters.of_unseen(ends, I, 1)
    np.testing.assert_allclose(both[:39], 4 * 10 * I, rtol=1e-9)
    # One of which the samples no longer tell was missing all the time.
    np.testing.assert_allclose(fleet(3).of_unseen(ends, I, 1)[:39], 10 * I)


def test_the_replicas_of_an_interval_are_those_of_then():
    memory = Memory()
    assert memory.ready_between(0.0, 15.0) is None
    for at, ready in ((15.0, 4), (30.0, 10), (45.0, 6)):
        memory.see(at, ready)
    assert memory.ready_between(15.0, 30.0) == 4
    assert memory.ready_between(22.5, 37.5) == 7
    assert memory.ready_between(0.0, 15.0) == 4
    assert memory.ready_between(45.0, 60.0) == 6
    # A clock that was set back.
    memory.see(20.0, 8)
    assert memory.ready_between(20.0, 30.0) == 8


# Histograms


def histogram(counts, bounds=(0.1, 0.25, 1.0, math.inf)):
    return Buckets(np.array(bounds), np.array(counts, dtype=float))


def test_late_requests_are_those_above_a_bucket_or_between_two():
    buckets = histogram([40, 80, 90, 100])
    assert buckets.share_above(0.25) == pytest.approx(0.2)
    assert buckets.share_above(0.625) == pytest.approx(0.15)
    assert buckets.share_above(0.05) == pytest.approx(0.8)
    # Beyond the last bucket nobody knows, unless there is nothing.
    assert buckets.share_above(2.0) is None
    assert histogram([40, 80, 100, 100]).share_above(2.0) == 0
    assert histogram([0, 0, 0, 0]).share_above(0.25) is None


def test_quantiles_are_those_of_prometheus():
    buckets = histogram([40, 80, 90, 100])
    assert buckets.quantile(0.5) == pytest.approx(0.1 + 0.15 * 10 / 40)
    assert buckets.quantile(0.2) == pytest.approx(0.05)
    assert buckets.quantile(0.95) == 1.0
    assert histogram([0, 0, 0, 0]).quantile(0.95) is None
    assert Buckets(np.array([math.inf]), np.array([5.0])).quantile(0.95) is None


@pytest.mark.parametrize("written", ["1", "1.0", "1e0"])
def test_bounds_are_the_same_however_they_are_written(written):
    times = np.arange(0, 100, 5.0)
    series = [samples(times, times * share, le=le) for le, share in (("0.1", 2), (written, 3), ("+Inf", 4))]
    buckets = buckets_of(Counters(series, I), 95.0, I)
    assert buckets.share_above(1.0) == pytest.approx(0.25)
    assert buckets.total == pytest.approx(60)
    in_ms = buckets_of(Counters(series, I), 95.0, I, 0.001)
    assert in_ms.bounds[0] == pytest.approx(1e-4)
    assert buckets_of(Counters(series[:2], I), 95.0, I) is None


def test_the_newest_value_of_a_gauge_is_of_those_still_there():
    series = [samples([0, 5, 10], [1, 2, 3], pod="a"), samples([0, 5], [7, 7], pod="b"), samples([-30, -25], [9, 9], pod="c")]
    values, newest = newest_values(series)
    assert [value for _, value in values] == [3, 7]
    assert newest == 10


# Starting replicas


def test_starting_replicas_are_counted_by_what_is_left_of_their_start():
    assert starting_quarters([20.0, 90.0], 60.0, I) == [1, 0, 1, 0]
    assert starting_quarters([0.0, 0.0], 60.0, I) == [0, 0, 0, 2]
    # Made a moment after they were asked for, as the simulator shows them at the next decision.
    assert starting_quarters([14.7], 60.0, I) == [0, 0, 1, 0]
    assert starting_quarters([29.6, 44.9, 59.8], 60.0, I) == [2, 1, 0, 0]
    assert starting_quarters([], 60.0, I) == [0, 0, 0, 0]


# Selectors


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up", ["up"]),
        ('sum(rate(http_requests_total{app="a b",code=~"5.."}[1m] offset 5m))', ['http_requests_total{app="a b",code=~"5.."}']),
        ("sum by (pod, x) (a) / on (pod) group_left (y) b", ["a", "b"]),
        ("sum(a) by (pod) or vector(0) unless ignoring(z) c:d_total{}", ["a", "c:d_total{}"]),
        ('{__name__=~"a|b"} > 5 and a @ end()', ['{__name__=~"a|b"}', "a"]),
        ("max_over_time(sum(x)[5m:1m]) * 2e3 # comment of y", ["x"]),
        ('label_replace(a, "b", "$1", "c", "(.*)")', ["a"]),
        ("vector(1)", []),
        ('a{b="}"} + a{b="}"}', ['a{b="}"}']),
    ],
)
def test_an_expression_looks_at_these_series(expression, found):
    assert selectors(expression) == found


def test_selectors_are_joined_however_they_are_written():
    assert joined('{a="1",}', "", ' b="2" ') == 'a="1",b="2"'
    assert joined("") == ""


def test_what_is_asked_for_is_long_enough_and_of_the_containers_alone():
    plan = plan_of(find_env("scalepilot/Autoscale-v0").describe())
    given = {"requests": {"counter": "http.server.requests", "selector": 'app="web"'}, "cpu": {"selector": '{pod=~"web-.*"}'}}
    sources = sources_of(prometheus_settings({"url": "http://p", **given}), I, plan)
    # 40 intervals, and for a sample before them at a scrape as long as the interval, left-open as Prometheus 3 has it.
    assert sources["requests"].query == '{__name__="http.server.requests",app="web"}[650000ms]'
    assert sources["cpu"].query.startswith('container_cpu_usage_seconds_total{pod=~"web-.*",container!="",container!="POD"}[')


# Asking


def test_who_never_answers_costs_the_time_and_no_more():
    import threading
    import time

    release = threading.Event()
    asking = Asking()
    started = time.monotonic()
    answers = asking.ask({"slow": lambda left: release.wait(20), "fast": lambda left: left}, 0.3)
    assert time.monotonic() - started < 2
    assert isinstance(answers["slow"], Problem)
    assert "within 0.3 s" in answers["slow"].reason
    assert 0 < answers["fast"] <= 0.3
    again = asking.ask({"slow": lambda left: 1, "bad": lambda left: 1 / 0}, 0.3)
    assert "still not answered" in again["slow"].reason
    assert "ZeroDivisionError" in again["bad"].reason
    release.set()
    asking.close()


# Settings

URL = {"kind": "prometheus", "url": "http://127.0.0.1:9"}


def context_of(env_id="scalepilot/Autoscale-v0"):
    env = find_env(env_id).describe()
    return TelemetryContext(env, env_fields(env))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "promethius"}, "did you mean prometheus"),
        ({}, "telemetry.requests: is missing; request_rate_rps_0 comes from it"),
        ({"url": "prometheus:9090", "requests": {}}, "url: 'prometheus:9090' is not allowed"),
        ({"url": "http://p:9090/api/v1/query", "requests": {}}, "allowed: http://p:9090, up to its /api/v1"),
        ({"url": "http://me:secret@x", "requests": {}}, "allowed: user and password_file"),
        ({"user": "me", "requests": {}}, "user, password_file"),
        ({"requests": {"conter": "x"}}, "requests.conter"),
        ({"requests": {}, "memory": {"gauge": "x"}}, "telemetry.memory: no field of scalepilot/Autoscale-v0 comes from it"),
        ({"requests": {}, "fields": {"cpu_utilization": {"query": "1"}}}, "did you mean cpu_utilisation"),
        ({"requests": {}, "cpu": {"cores_per_replica": 0}}, "cores_per_replica"),
        ({"requests": {}, "cpu": {"cores_per_replica": 1, "requests": "x"}}, "beside cores_per_replica"),
        ({"requests": {}, "latency": {"unit": "h"}}, "unit"),
        ({"errors": {}}, "errors"),
        ({"requests": {}, "interval_seconds": 30}, "allowed: 15, that of the policy"),
        ({"requests": {}, "ca_file": "/x"}, "ca_file: is not used"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(given, words):
    with pytest.raises(ConfigError) as caught:
        make_telemetry({**URL, **given}, context_of())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_are_looked_for_beside_the_configuration(tmp_path):
    telemetry = {**URL, "token_file": "token", "ca_file": "/etc/ca.pem"}
    found = operate_config({"policy": "hpa", "telemetry": telemetry}, folder=tmp_path).telemetry
    assert (found["token_file"], found["ca_file"]) == (str(tmp_path / "token"), "/etc/ca.pem")


SOURCES = {
    "scalepilot/QueueScaling-v0": {"requests": {}, "backlog": {"gauge": "queue"}},
    "scalepilot/ClusterDeployment-v0": {
        "requests": {},
        "latency": {},
        "cpu": {},
        "memory": {"gauge": "m"},
        "interval_seconds": 15,
    },
    "scalepilot/FunctionWorkflow-v0": {"requests": {}, "latency": {}, "backlog": {"gauge": "queue"}},
}


@pytest.mark.parametrize("env_id", ENVS)
def test_every_field_of_every_environment_can_be_configured(env_id):
    context = context_of(env_id)
    if context.env.image is not None:
        return
    by_name = {f.name: {"query": "1"} for f in context.fields}
    make_telemetry({**URL, "fields": by_name}, context).close()
    if env_id in SOURCES:
        make_telemetry({**URL, **SOURCES[env_id]}, context).close()


# A moment, without a Prometheus


class Recorded:
    """Answers ranges of the samples it is given, by metric."""

    url = "recorded"

    def __init__(self, **series):
        self.series = series

    def ranges(self, query, now, seconds):
        span = float(query.rpartition("[")[2].removesuffix("ms]")) / 1000
        found = []
        for one in self.series.get(query.partition("{")[0], ()):
            within = (one.times > now - span) & (one.times <= now)
            if within.any():
                found.append(Samples(one.labels, one.times[within], one.values[within]))
        return found

    def vector(self, query, now, seconds):
        raise PrometheusError("no expressions here")

    ask = vector

    def close(self):
        pass


def moment(now=3000.0, replicas=None, sources=None, **series):
    """The readings of one moment; a replica or two with a request rate of 10/s each unless series say otherwise."""
    given = {**URL, "requests": {}, **(sources or {})}
    given.pop("kind")
    telemetry = PrometheusTelemetry(prometheus_settings(given), context_of(), Recorded(**series))
    snapshot = telemetry.read(now, replicas or Replicas(2, 2, ()))
    telemetry.close()
    return snapshot.readings


def counting(times, rps=10.0, **labels):
    return samples(times, rps * np.asarray(times), **labels)


STEADY = np.arange(0, 3000.1, 5.0)


def test_after_a_time_without_samples_the_earlier_rates_are_assumed_and_the_newest_is_measured():
    away = np.concatenate([np.arange(0, 2500, 5.0), np.arange(2980, 3000.1, 5.0)])
    found = moment(http_requests_total=[counting(away, pod="a"), counting(away, pod="b")])
    assert found["request_rate_rps_0"].value == pytest.approx(20)
    assert not found["request_rate_rps_0"].assumed
    for name in ("request_rate_rps_3", "request_rate_mean_rps"):
        assert found[name].value == pytest.approx(20)
        assert found[name].assumed
        assert "spread evenly over a time without samples" in found[name].problem
    # As long as the newest interval is not known, nothing is.
    found = moment(now=2984.0, http_requests_total=[counting(away, pod="a")])
    assert [found[f"request_rate_rps_{i}"].value for i in (0, 3)] == [None, None]


def test_what_no_samples_tell_of_is_neither_all_nor_nothing():
    # Scraped every 5 s, but for 50 s up to just now.
    away = np.concatenate([np.arange(0, 2935, 5.0), np.arange(2985, 2996.0, 5.0)])
    pods = [counting(away, 0.3, pod=str(i), container="web") for i in range(2)]
    found = moment(
        now=2996.0,
        http_requests_total=[counting(away, pod="a", code="200")],
        container_cpu_usage_seconds_total=pods,
        sources={"cpu": {}},
    )
    for name in ("cpu_utilisation", "request_rate_rps_0", "error_share"):
        assert found[name].value is None, name


def test_a_service_that_has_just_begun_has_no_history():
    young = np.arange(2950, 3000.1, 5.0)
    found = moment(http_requests_total=[counting(young, pod="a"), counting(young, pod="b")])
    assert found["request_rate_rps_2"].value == pytest.approx(20)
    assert found["request_rate_rps_3"].value is None
    assert found["request_rate_mean_rps"].problem == "3 of 40 intervals are known"


def test_what_is_not_configured_says_how_to():
    found = moment(http_requests_total=[counting(STEADY, pod="a", code="200")])
    assert "telemetry.cpu is not set" in found["cpu_utilisation"].problem
    assert "telemetry.latency is not set" in found["late_share"].problem
    assert found["error_share"].value == 0
    unlabelled = moment(http_requests_total=[counting(STEADY, pod="a")])
    assert "set telemetry.errors" in unlabelled["error_share"].problem


def test_errors_may_be_counted_elsewhere():
    total = counting(STEADY, pod="a")
    own = {"sources": {"errors": {"counter": "failures_total"}}}
    assert moment(**own, http_requests_total=[total])["error_share"].value == 0
    failed = counting(STEADY, 1.0, pod="a")
    assert moment(**own, http_requests_total=[total], failures_total=[failed])["error_share"].value == pytest.approx(0.1)
    # The very first.
    first = samples([3000.0], [15.0], pod="a")
    assert moment(**own, http_requests_total=[total], failures_total=[first])["error_share"].value == pytest.approx(0.1)


def test_cpu_is_of_those_that_served_and_were_seen():
    pods = [counting(STEADY, 0.3, pod=str(i), container="web") for i in range(4)]
    requests = {"http_requests_total": [counting(STEADY, pod="a")], "sources": {"cpu": {}}}

    def cpu(replicas, series):
        return moment(replicas=Replicas(replicas, replicas, ()), container_cpu_usage_seconds_total=series, **requests)[
            "cpu_utilisation"
        ]

    assert cpu(4, pods).value == pytest.approx(0.3)
    # A fifth that cAdvisor has not shown yet does not thin it out; most of them missing does not tell.
    assert cpu(5, pods).value == pytest.approx(0.3)
    assert "4 of 10 replicas" in cpu(10, pods).problem
    # Without pods' names it is that of all.
    assert cpu(10, [counting(STEADY, 3.0, job="x")]).value == pytest.approx(0.3)
    assert cpu(4, [counting(STEADY, 9.0, pod=str(i)) for i in range(4)]).value == 1


def test_a_histogram_without_its_last_bucket_is_unknown():
    buckets = [counting(STEADY, 8.0, pod="a", le="0.25")]
    found = moment(
        sources={"latency": {}}, http_requests_total=[counting(STEADY, pod="a")], http_request_duration_seconds_bucket=buckets
    )
    assert 'le="+Inf"' in found["late_share"].problem
    buckets.append(counting(STEADY, 10.0, pod="a", le="+Inf"))
    found = moment(
        sources={"latency": {}}, http_requests_total=[counting(STEADY, pod="a")], http_request_duration_seconds_bucket=buckets
    )
    assert found["late_share"].value == pytest.approx(0.2)
    assert found["backlog_requests"].value == 0
    assert found["backlog_requests"].assumed
