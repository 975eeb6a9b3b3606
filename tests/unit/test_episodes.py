"""Whole episodes: rules and planners score what the specification's own protocol scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scalepilot.errors import ArtifactError, InputError
from scalepilot.policy.rules import Hpa, HpaParameters, LookAhead, Static, StaticParameters
from scalepilot.simulate import EpisodeSet, poisson_episodes, protocol_v1, run_episodes
from scalepilot_envs.autoscale import AutoscaleBatch, AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload, RateSeries, TraceWorkload

DATA = Path(__file__).parents[1] / "data" / "golden_protocol.npz"
PARAMS = AutoscaleParams()
SHORT = DiurnalWorkload(days=2)


def hpa(metric, target, tolerance, down_seconds, up_seconds):
    return Hpa(HpaParameters(metric, target, tolerance, down_seconds, up_seconds), PARAMS)


class WithoutFirstSync(Hpa):
    """The specification's HPA records no recommendation before its first."""

    def _first(self, current):
        return super()._first(current) | {"recommendation_seconds": np.full((len(current), self._remembered), -1e6)}


def rule_of(description):
    if "hpa" not in description:
        return LookAhead(description["look_ahead"])
    return WithoutFirstSync(HpaParameters(*description["hpa"]), PARAMS)


@pytest.fixture
def exact_percent(monkeypatch):
    """CPU utilisation as the specification reads it, where Kubernetes cuts it off to whole percents."""
    monkeypatch.setattr("scalepilot.policy.rules.hpa_replicas.percent", lambda share: 100.0 * share)


@pytest.fixture(scope="module")
def stored():
    with np.load(DATA, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def episodes(stored):
    windows, arrived = stored["windows"], stored["arrived"].astype(float)
    seeds, count = len(arrived), len(windows)
    return EpisodeSet(
        "synthetic",
        np.tile(windows, (seeds, 1)),
        arrived.reshape(-1, windows.shape[1]),
        np.tile(np.arange(count), seeds),
        np.repeat(np.arange(seeds), count),
        np.zeros(seeds * count),
    )


ANY_RULE = pytest.mark.parametrize("name", ["hpa_default", "hpa_cpu", "hpa_rps", "hpa_rps_quick", "look_ahead"])


@ANY_RULE
@pytest.mark.usefixtures("exact_percent")
def test_stored_scores_of_the_specifications_protocol_are_reproduced_but_for_rare_ties(stored, episodes, name):
    # The transition rounds nothing the specification does not, so an episode's J agrees to 1e-9 unless a decision differs.
    # Decisions differ at ties only: integer arrivals meet a threshold exactly now and then (171 requests in 15 s are one
    # replica at 57 % of 20 rps), the specification's float64 then falls to either side by accident (14.000000000000002
    # becomes 15), ours forgives a millionth. One replica more or less at the edge of an overload moves that episode's J by
    # a per cent, a rule's mean by a thousandth.
    rule = rule_of(json.loads(str(stored["rules"]))[name])
    results, _ = run_episodes(rule, episodes, PARAMS)
    difference = np.abs(results["J_per_hour"] / stored[f"J/{name}"].ravel() - 1)
    assert (difference < 1e-9).mean() >= 0.75
    assert difference.max() < 0.02
    assert difference.mean() < 2e-3


@pytest.mark.parametrize("name", ["hpa_default", "hpa_cpu", "hpa_rps", "hpa_rps_quick"])
def test_float32_observations_decide_as_float64_readings_do(stored, episodes, name):
    rule = rule_of(json.loads(str(stored["rules"]))[name])
    env = AutoscaleBatch(len(episodes), workload=RateSeries(episodes.rates_rps[0], 15.0), episode_steps=episodes.num_steps)
    env.reset_batch(None, {"rates_rps": episodes.rates_rps, "arrived": episodes.arrived})
    state = None
    for _ in range(episodes.num_steps):
        from_float32, _ = rule.act(env.observe(), state)
        decision, state = rule.act(env.state.observe().T, state)
        np.testing.assert_array_equal(from_float32.desired_replicas, decision.desired_replicas)
        env.advance(decision.desired_replicas)


def test_another_rule_does_not_reproduce_the_stored_scores(stored, episodes):
    results, _ = run_episodes(hpa("cpu", 0.71, 0.1, 300, 0), episodes, PARAMS)
    assert not np.allclose(results["J_per_hour"], stored["J/hpa_default"].ravel(), rtol=1e-3)


def test_arrivals_are_drawn_as_the_specification_draws_them(stored):
    windows = stored["windows"]
    series = RateSeries(windows.ravel(), PARAMS.interval_seconds)
    drawn = poisson_episodes("synthetic", series, np.arange(len(windows)) * windows.shape[1], windows.shape[1], (0, 1, 2))
    np.testing.assert_array_equal(drawn.arrived, stored["arrived"].reshape(-1, windows.shape[1]))
    np.testing.assert_array_equal(drawn.rates_rps, np.tile(windows, (3, 1)))
    assert drawn.window.tolist() == [0, 1, 2, 3] * 3
    assert drawn.seed.tolist() == [0] * 4 + [1] * 4 + [2] * 4


# RESULTS.md, NASA July. The tuned targets are printed there with two digits only, so their scores are met to 2 %. Whole
# percents and the first sync, which the specification leaves out, move the HPA on CPU by up to 3 % (docs/protocol.md).
NASA_JULY = {
    "hpa default": (("cpu", 0.7, 0.1, 300, 0), 27.394, 13.17, 3.112),
    "hpa tuned on cpu": (("cpu", 0.57, 0.02, 600, 60), 18.585, 15.88, 0.592),
    "hpa tuned on rps": (("rps", 0.57, 0.02, 600, 60), 17.970, 15.81, 0.473),
    "look-ahead": (0.85, 10.664, 8.98, 0.368),
}


@pytest.fixture(scope="module")
def nasa_july(traces):
    workload = TraceWorkload(path=str(traces / "nasa_http_1995_07_1min.csv"), peak_rps=500.0)
    return protocol_v1("nasa_http_1995_07", workload, PARAMS)


@pytest.mark.parametrize("name", NASA_JULY)
@pytest.mark.usefixtures("exact_percent")
def test_published_scores_on_nasa_july_are_met_within_two_per_cent(nasa_july, name):
    arguments, J, replicas, late_percent = NASA_JULY[name]
    rule = LookAhead(arguments) if name == "look-ahead" else hpa(*arguments)
    results, _ = run_episodes(rule, nasa_july.test, PARAMS)
    assert len(nasa_july.test) == 36
    assert results["J_per_hour"].mean() == pytest.approx(J, rel=0.02)
    assert results["replicas_mean"].mean() == pytest.approx(replicas, rel=0.02)
    assert 100 * results["late_requests"].sum() / results["arrived_requests"].sum() == pytest.approx(late_percent, rel=0.06)


def test_windows_of_nasa_july_are_the_specifications(nasa_july, golden):
    reference = golden("protocol").windows_of("nasa_http_1995_07_1min")
    np.testing.assert_allclose(nasa_july.train.rates_rps, reference["train"], rtol=1e-12)
    np.testing.assert_allclose(nasa_july.validation.rates_rps, reference["validation"], rtol=1e-12)
    np.testing.assert_allclose(nasa_july.test.rates_rps[:12], reference["test"], rtol=1e-12)


def test_train_validation_and_test_windows_never_overlap():
    data = protocol_v1("short", SHORT, PARAMS, window_steps=100, drawn_windows=50)
    span = 100 * PARAMS.interval_seconds
    end_of_train = data.train.start_unix_seconds.max() + span
    end_of_validation = data.validation.start_unix_seconds.max() + span
    assert end_of_train <= data.validation.start_unix_seconds.min()
    assert end_of_validation <= data.test.start_unix_seconds.min()
    starts = np.unique(data.test.start_unix_seconds)
    assert (np.diff(starts) == span).all()
    assert len(data.test) == 3 * len(starts)


def test_a_workload_too_short_for_a_window_says_how_long_it_must_be():
    with pytest.raises(InputError, match=r"the validation part of short has 1727 steps .* allowed: at least 2\.3 days, or"):
        protocol_v1("short", SHORT, PARAMS)
    assert len(protocol_v1("long enough", DiurnalWorkload(days=2.3), PARAMS).test) == 3


UNUSABLE = [("-1", "trace.csv:3: requests_per_second '-1'"), ("0", "it cannot be scaled to 500"), ("1", "has 1 steps; allowed")]


@pytest.mark.parametrize(("rate", "message"), UNUSABLE)
def test_a_trace_that_cannot_be_used_is_the_users_error(tmp_path, rate, message):
    path = tmp_path / "trace.csv"
    path.write_text(f"timestamp,requests_per_second\n2024-01-01T00:00:00Z,0\n2024-01-01T00:00:01Z,{rate}\n")
    with pytest.raises(InputError) as caught:
        protocol_v1("mine", TraceWorkload(path=str(path), peak_rps=500.0), PARAMS)
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def small():
    data = protocol_v1("short", SHORT, PARAMS, window_steps=120, drawn_windows=4)
    return data.validation


def test_results_add_up_and_agree_with_the_environment_step_by_step(small):
    rule = hpa("cpu", 0.6, 0.1, 60, 0)
    results, playback = run_episodes(rule, small, PARAMS, playback_of=2)
    parts = results["replica_cost"] + results["late_cost"] + results["move_cost"]
    np.testing.assert_allclose(results["J_per_hour"], parts, rtol=1e-12)
    np.testing.assert_allclose(results["arrived_requests"], small.arrived.sum(axis=1))
    np.testing.assert_allclose(results["replica_cost"], results["replicas_mean"], rtol=1e-12)
    assert (results["dropped_requests"] <= results["late_requests"]).all()

    env = AutoscaleBatch(1, workload=RateSeries(small.rates_rps[2], 15.0), episode_steps=small.num_steps)
    observation = env.reset_batch(None, {"rates_rps": small.rates_rps[2:3], "arrived": small.arrived[2:3]})
    state, total, replicas, p95, changes = None, 0.0, [], [], 0
    for _ in range(small.num_steps):
        decision, state = rule.act(observation, state)
        step = env.step_targets(decision.desired_replicas)
        observation = step.observation
        total += step.info["J"][0]
        replicas.append(step.info["billed_replicas"][0])
        changes += int(step.info["change_replicas"][0] != 0)
        p95.append(env.state.latency_p95_seconds[0])
    assert results["J_per_hour"][2] == pytest.approx(total / (small.num_steps / 240), rel=1e-12)
    assert results["actions"][2] == changes
    assert results["replicas_peak"][2] == max(replicas)
    np.testing.assert_array_equal(playback.replicas, replicas)
    np.testing.assert_array_equal(playback.latency_p95_seconds, p95)
    np.testing.assert_allclose(playback.arrival_rate_rps, small.arrived[2] / 15.0)
    assert results["latency_p95_seconds"][2] == pytest.approx(np.average(p95, weights=small.arrived[2]))


def test_an_episode_scores_the_same_alone_and_among_others(small):
    together, _ = run_episodes(hpa("rps", 0.6, 0.0, 60, 30), small, PARAMS)
    for i in range(len(small)):
        names = ("rates_rps", "arrived", "window", "seed", "start_unix_seconds")
        alone = replace(small, **{name: getattr(small, name)[i : i + 1] for name in names})
        results, _ = run_episodes(hpa("rps", 0.6, 0.0, 60, 30), alone, PARAMS)
        for name, column in results.columns.items():
            assert column[0] == together[name][i], name


def test_a_repeated_set_gives_each_copy_the_same_results(small):
    once, _ = run_episodes(Static(StaticParameters(12), PARAMS), small, PARAMS)
    twice, _ = run_episodes(Static(StaticParameters(12), PARAMS), small.repeated(2), PARAMS)
    np.testing.assert_array_equal(twice["J_per_hour"], np.tile(once["J_per_hour"], 2))
    np.testing.assert_array_equal(twice.window, np.tile(small.window, 2))


def test_a_silent_service_has_no_late_share_and_costs_its_replicas():
    silence = EpisodeSet("silence", np.zeros((1, 10)), np.zeros((1, 10)), np.zeros(1, int), np.zeros(1, int), np.zeros(1))
    results, _ = run_episodes(Static(StaticParameters(1), PARAMS), silence, PARAMS)
    assert results["late_share"].tolist() == [0.0]
    assert results["J_per_hour"].tolist() == pytest.approx([1.0])
    assert np.isfinite([c[0] for c in results.columns.values()]).all()


def test_a_network_made_for_another_observation_space_is_refused(small, tiny_network):
    made = tiny_network()
    made.spec = replace(made.spec, observation_fields=made.spec.observation_fields[:-1])
    with pytest.raises(ArtifactError, match=r"tiny: made for another observation space .*it does not know replica_capacity_rps"):
        run_episodes(made, small, PARAMS)


def test_a_network_is_shown_what_it_was_made_to_see_whatever_the_service_shows_by_default(small, tiny_network):
    here, _ = run_episodes(tiny_network(), small, PARAMS)
    there, _ = run_episodes(tiny_network(), small, replace(PARAMS, observe_clock=True, observe_service=True, history_steps=3))
    np.testing.assert_array_equal(here["J_per_hour"], there["J_per_hour"])


def test_a_network_flies_greedily_and_repeatably(small, tiny_network):
    first, _ = run_episodes(tiny_network(), small, PARAMS)
    second, _ = run_episodes(tiny_network(), small, PARAMS)
    np.testing.assert_array_equal(first["J_per_hour"], second["J_per_hour"])


def test_the_look_ahead_knows_the_coming_rates_and_no_more():
    rates = np.array([[10.0, 10.0, 10.0, 90.0, 10.0, 10.0]])
    plan = LookAhead(0.5).plan(rates, replica_capacity_rps=20.0, startup_steps=2)
    assert plan.tolist() == [[1, 9, 9, 9, 1, 1]]
