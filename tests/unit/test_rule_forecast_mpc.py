"""The forecast, the plan and the rule that joins them: known processes, brute force, and the HPA it must beat."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from statistics import NormalDist

import numpy as np
import pytest

from scalepilot.errors import ArtifactError
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import Forecast, ForecastMpc, ForecastMpcParameters, Hpa, HpaParameters, fit_forecast, make_rule
from scalepilot.policy.rules.forecast import (
    NODE_WEIGHTS,
    SEASON_BINS,
    averaged,
    features,
    persistence,
    season_at,
    variabilities,
)
from scalepilot.policy.rules.plan import LateCosts, plan_target
from scalepilot.simulate import poisson_episodes, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields
from scalepilot_envs.autoscale.latency import waiting_for
from scalepilot_envs.workloads import DiurnalWorkload, RateSeries

MINUTE = 60.0
LEVELS = np.cumsum(NODE_WEIGHTS) - np.array(NODE_WEIGHTS) / 2
SERVICE = AutoscaleParams(max_replicas=30)


# The forecast


def autoregressive(coefficients, steps, *, level=2.5, shock=0.4, seed=0):
    """A series whose logarithm of 1 + rate is a known autoregressive process about a level."""
    rng = np.random.default_rng(seed)
    values = np.zeros(steps)
    for t in range(len(coefficients), steps):
        past = values[t - len(coefficients) : t][::-1]
        values[t] = past @ coefficients + shock * rng.normal()
    return RateSeries(np.maximum(np.expm1(level + values), 0.0), MINUTE)


def lag_weights(forecast, lead):
    """Weights of the newest rates at a lead."""
    return np.array(forecast.weights[lead])[1:3]


@pytest.mark.parametrize("coefficients", [(0.8, 0.0), (0.5, 0.3), (1.2, -0.4)])
def test_the_fit_recovers_a_known_process_at_the_next_step_and_at_the_one_after(coefficients):
    first, second = coefficients
    series = autoregressive(np.array(coefficients), 12_000)
    forecast = fit_forecast(series, history_steps=2, window_steps=40, num_leads=2)
    np.testing.assert_allclose(lag_weights(forecast, 0), coefficients, atol=0.08)
    np.testing.assert_allclose(lag_weights(forecast, 1), (first**2 + second, first * second), atol=0.08)
    # What is left over is spread over the slower features and the constant: little.
    assert np.abs(np.array(forecast.weights)[:, 3:]).max() < 0.2


def test_the_fit_does_not_find_what_is_not_there():
    forecast = fit_forecast(autoregressive(np.array([0.0]), 12_000), history_steps=2, window_steps=40, num_leads=1)
    assert np.abs(lag_weights(forecast, 0)).max() < 0.06


def forecasts_along(forecast, series, history_steps, window_steps, seed=1):
    """Errors and deviations (steps, leads) of a forecast on the counts of a series, after a run-in."""
    interval = series.interval_seconds
    rates = np.random.default_rng(seed).poisson(series.rates_rps * interval) / interval
    logs, leads = np.log1p(rates), len(forecast.weights)
    slow, errors, deviations = np.full((1, 2), logs[0]), [], []
    for t in range(len(rates) - leads):
        slow = averaged(slow, logs[t : t + 1])
        if t < 300:
            continue
        newest = rates[t - history_steps + 1 : t + 1][::-1][None]
        window = rates[t - window_steps + 1 : t + 1]
        mean, deviation = window.mean(keepdims=True), window.std(keepdims=True)
        expected = features(newest, mean, slow, np.zeros(1)) @ np.array(forecast.weights).T
        errors.append(logs[t + 1 : t + 1 + leads] - expected[0])
        deviations.append(np.sqrt(variabilities(newest, mean, deviation) @ np.array(forecast.spread).T)[0])
    return np.array(errors), np.array(deviations)


@pytest.fixture(scope="module")
def calm_days():
    return [DiurnalWorkload(days=7, flash_crowd_every_hours=0, low_rps=100, high_rps=400, seed=seed).series() for seed in (0, 1)]


@pytest.fixture(scope="module")
def held_out(calm_days):
    forecast = fit_forecast(calm_days[0], history_steps=4, window_steps=40, num_leads=4)
    errors, deviations = forecasts_along(forecast, calm_days[1], 4, 40)
    return forecast, errors, deviations


@pytest.mark.parametrize(("level", "within"), [(0.5, 0.05), (0.7, 0.05), (0.85, 0.03), (0.985, 0.007), (0.9925, 0.005)])
def test_on_traffic_never_seen_as_many_errors_exceed_a_node_as_it_says(held_out, level, within):
    forecast, errors, deviations = held_out
    node = forecast.nodes[int(np.abs(LEVELS - level).argmin())]
    beyond = (errors / deviations > node)[:, 1:].mean()
    assert beyond == pytest.approx(1 - level, abs=within)


def test_the_spread_grows_with_the_lead_as_the_errors_do(held_out):
    _, errors, deviations = held_out
    said, seen = np.sqrt((deviations**2).mean(axis=0)), errors.std(axis=0)
    assert (np.diff(said) > 0).all()
    np.testing.assert_allclose(said, seen, rtol=0.1)


def test_restless_traffic_is_forecast_with_more_spread():
    """Shocks that double in size for a while: the deviation said there is larger."""
    rng = np.random.default_rng(0)
    restless = np.arange(9000) // 500 % 2 == 1
    rates = 200 * np.exp(np.where(restless, 0.4, 0.05) * rng.normal(size=9000))
    forecast = fit_forecast(RateSeries(rates, MINUTE), history_steps=8, window_steps=40, num_leads=2)
    _, deviations = forecasts_along(forecast, RateSeries(rates, MINUTE), 8, 40)
    where = restless[300:][: len(deviations)]
    assert deviations[where].mean() > 2 * deviations[~where].mean()


def test_a_season_is_learnt_from_days_and_says_when_the_rate_is_high(calm_days):
    forecast = fit_forecast(calm_days[0], history_steps=2, window_steps=40, num_leads=2, with_season=True)
    season = np.array(forecast.season)
    assert season.shape == (SEASON_BINS,)
    assert season.mean() == pytest.approx(0, abs=1e-12)
    middles = (np.arange(SEASON_BINS) + 0.5) / SEASON_BINS
    true = np.log1p(250 - 150 * np.cos(2 * np.pi * middles))
    np.testing.assert_allclose(season, true - true.mean(), atol=0.12)
    assert season_at(season, np.array([0.5]))[0] > 0.4 > -0.5 > season_at(season, np.array([0.0]))[0]


def test_the_season_is_interpolated_over_midnight():
    season = np.zeros(SEASON_BINS)
    season[0], season[-1] = 1.0, 3.0
    half = 0.5 / SEASON_BINS
    np.testing.assert_allclose(season_at(season, np.array([half, 0.0, 1 - half, 1 - 1e-9])), [1.0, 2.0, 3.0, 2.0], atol=1e-4)
    assert season_at(np.empty(0), np.array([0.2])).tolist() == [0.0]


def test_without_three_days_or_unasked_there_is_no_season(calm_days):
    two_days = calm_days[0].between(0, 2 * 1440)
    assert fit_forecast(two_days, history_steps=2, window_steps=40, num_leads=1, with_season=True).season == ()
    assert fit_forecast(calm_days[0], history_steps=2, window_steps=40, num_leads=1).season == ()


def test_the_same_series_is_fitted_alike(calm_days):
    short = calm_days[0].between(0, 1500)
    arguments = {"history_steps": 2, "window_steps": 10, "num_leads": 2}
    assert fit_forecast(short, **arguments) == fit_forecast(short, **arguments)
    assert fit_forecast(short, **arguments, seed=1) != fit_forecast(short, **arguments)


@pytest.mark.parametrize("steps", [10, 4 * (240 + 3) - 1])
def test_a_series_too_short_to_fit_is_refused(calm_days, steps):
    with pytest.raises(ValueError, match=f"forecast: the training part has {steps} steps; allowed: from 972"):
        fit_forecast(calm_days[0].between(0, steps), history_steps=2, window_steps=40, num_leads=3)


def test_a_series_just_long_enough_or_without_any_request_is_fitted(calm_days):
    fit_forecast(calm_days[0].between(0, 972), history_steps=2, window_steps=40, num_leads=3)
    silent = fit_forecast(RateSeries(np.zeros(1000), MINUTE), history_steps=2, window_steps=40, num_leads=3)
    assert np.isfinite(np.array(silent.weights)).all()


def test_persistence_forecasts_what_is_now_with_normal_errors():
    forecast = persistence(5, 8)
    newest, slow = np.full((1, 8), 120.0), np.zeros((1, 2))
    log_rate = features(newest, np.array([30.0]), slow, np.zeros(1)) @ np.array(forecast.weights).T
    np.testing.assert_allclose(np.expm1(log_rate), [[120.0] * 5])
    np.testing.assert_allclose(forecast.nodes, [NormalDist().inv_cdf(level) for level in LEVELS], atol=2e-4)
    assert math.fsum(NODE_WEIGHTS) == pytest.approx(1.0)
    # Only the newest four count; with fewer shown, those.
    newest[0, 4:] = 1e6
    np.testing.assert_allclose(features(newest, np.array([9.0]), slow, np.zeros(1)) @ np.array(forecast.weights).T, log_rate)
    assert np.array(persistence(1, 2).weights).tolist() == [[0.0, 0.5, 0.5, 0.0, 0.0, 0.0]]


GOOD = asdict(persistence(12, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": ()}, "forecast.weights: a row of equal length"),
        ({"weights": ((1.0,), (1.0, 2.0)), "spread": ((1.0,) * 5,) * 2}, "forecast.weights: a row of equal length"),
        ({"spread": ((1.0,) * 5,)}, "forecast.weights: a row of equal length for every lead is needed, and one of spread"),
        ({"spread": ((1.0,) * 4,) * 12}, "forecast: allowed: 5 columns of spread and 13 nodes"),
        ({"nodes": (0.0,)}, "forecast: allowed: 5 columns of spread and 13 nodes"),
        ({"season": (0.0,) * 7}, "forecast.season: 7 bins are not allowed; allowed: none or 48"),
        ({"nodes": (math.nan,) * 13}, "forecast: holds a value that is not finite"),
        ({"nodes": tuple(range(13, 0, -1))}, "forecast: a negative spread or falling nodes"),
        ({"spread": ((-1.0,) * 5,) * 12}, "forecast: a negative spread or falling nodes"),
    ],
)
def test_a_forecast_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError) as caught:
        Forecast(**{**GOOD, **change})
    assert str(caught.value).startswith(message)


# The plan


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("rate", [15.0, 55.0, 130.0])
def test_late_requests_cost_what_the_simulators_latency_expects(rate, sigma):
    p = AutoscaleParams(max_replicas=8)
    nodes = persistence(1, 8).nodes
    replicas = np.arange(1, 9.0)
    expected = np.zeros(8)
    for node, weight in zip(nodes, NODE_WEIGHTS, strict=True):
        came, served = np.full(8, rate * math.exp(sigma * node)), replicas * p.replica_capacity_rps
        carried = np.clip((came - served) * p.interval_seconds, 0, p.max_wait_seconds * served)
        with np.errstate(all="ignore"):
            late = waiting_for(p, came, served, replicas, carried).late_share * came * p.interval_seconds
        expected += weight * late * p.price_per_late_request
    late = LateCosts(p, nodes)
    found = late.expected(*late.places(np.array([rate]), np.array([sigma])))[0]
    # The table's grid is a few per cent wide.
    np.testing.assert_allclose(found, expected, rtol=0.25, atol=0.02 * expected[0])
    assert (np.diff(found) <= 0).all()


def brute_force(p, late, rates, sigma, total, horizon, weight):
    """Cost of the best plan for every first target, over all plans of ready replicas.

    An order takes effect at lead `actuation_lag_steps`: fewer leave then, more serve after the start-up and are paid meanwhile.
    One target cannot do both, so a plan that orders now keeps what there is until then.
    """
    choices = range(p.min_replicas, p.max_replicas + 1)
    replica_cost = p.price_per_replica_hour * p.interval_seconds / 3600
    up = replica_cost * p.startup_steps + p.price_per_move
    leaves, serves = p.actuation_lag_steps, p.actuation_lag_steps + p.startup_steps
    held = [
        late.expected(*late.places(rates[None, lead], sigma[None, lead]))[0].astype(float) * weight
        + replica_cost * np.array(choices)
        for lead in range(horizon)
    ]
    best = {}
    for plan in itertools.product(choices, repeat=horizon):
        cost, before, allowed = 0.0, total, True
        for lead, count in enumerate(plan):
            allowed &= count <= before or lead > serves or (lead == serves and before == total)
            allowed &= lead >= leaves or count == total
            cost += up * max(0, count - before) + p.price_per_move * max(0, before - count)
            cost += held[lead][count - p.min_replicas]
            before = count
        if not allowed:
            continue
        target = max(total, plan[serves]) if plan[leaves] == total else plan[leaves]
        best[target] = min(best.get(target, math.inf), cost)
    return best


@pytest.mark.parametrize(
    ("service", "horizon"),
    [
        ({"startup_seconds": 15.0, "max_replicas": 4, "price_per_late_request": 0.0005}, 4),
        ({"startup_seconds": 15.0, "max_replicas": 4, "price_per_move": 0.004}, 4),
        ({"startup_seconds": 30.0, "max_replicas": 3, "price_per_move": 0.001}, 5),
        ({"startup_seconds": 30.0, "min_replicas": 2, "max_replicas": 4}, 5),
        ({"startup_seconds": 15.0, "max_replicas": 4, "price_per_move": 0.002, "actuation_lag_steps": 1}, 5),
        ({"startup_seconds": 15.0, "max_replicas": 3, "actuation_lag_steps": 2}, 6),
    ],
)
def test_the_target_begins_a_plan_that_no_other_plan_beats(service, horizon):
    p = AutoscaleParams(**service)
    late = LateCosts(p, persistence(1, 8).nodes)
    rng = np.random.default_rng(7)
    n = 40
    # From idle to overload, rising and falling.
    level = np.exp(rng.uniform(0, np.log(30 * p.max_replicas), (n, 1)))
    rates = level * np.exp(rng.normal(0, 0.4, (n, 1)) * np.arange(horizon)) * rng.uniform(0.8, 1.2, (n, horizon))
    sigma = rng.uniform(0.02, 0.3, (n, horizon))
    total = rng.integers(p.min_replicas, p.max_replicas + 1, n)
    weight = rng.uniform(0.3, 2.0, n)
    targets = plan_target(p, late, rates, sigma, total, np.array([horizon]), weight)
    directions = set()
    for i in range(n):
        best = brute_force(p, late, rates[i], sigma[i], int(total[i]), horizon, weight[i])
        assert best[int(targets[i])] <= min(best.values()) * (1 + 1e-4), (i, best, targets[i])
        directions.add(int(np.sign(targets[i] - total[i])))
    assert directions == {-1, 0, 1}


def test_a_row_with_a_shorter_horizon_plans_as_it_would_alone():
    p = AutoscaleParams(startup_seconds=30.0, max_replicas=10)
    late = LateCosts(p, persistence(1, 8).nodes)
    rng = np.random.default_rng(0)
    # Wide enough that the rows together go through the other running minimum.
    n = 150
    rates, sigma, total = rng.uniform(5, 200, (n, 9)), np.full((n, 9), 0.2), rng.integers(1, 11, n)
    horizons, weight = rng.integers(3, 10, n), np.ones(1)
    together = plan_target(p, late, rates, sigma, total, horizons, weight)
    for i in range(n):
        row = slice(i, i + 1)
        alone = plan_target(p, late, rates[row], sigma[row], total[row], horizons[row], weight)
        assert alone[0] == together[i]


# The rule


def observed(*, rates, ready, starting=0, backlog=0.0, params=SERVICE):
    """One observation (1, fields) of the newest rates, newest first."""
    names = [f.name for f in observation_fields(params)]
    out = np.zeros((1, len(names)), dtype=np.float32)
    values = {f"request_rate_rps_{i}": rate for i, rate in enumerate(rates)}
    values |= {"request_rate_mean_rps": np.mean(rates), "request_rate_std_rps": np.std(rates), "ready_replicas": ready}
    values |= {"starting_replicas_3": starting, "backlog_requests": backlog, "replica_capacity_rps": 20.0}
    values["cpu_utilisation"] = min(1.0, rates[0] / (ready * 20.0))
    for name, value in values.items():
        out[0, names.index(name)] = value
    return out


def target_of(rule, **values):
    return float(rule.act(observed(**values))[0].desired_replicas[0])


@pytest.fixture(scope="module")
def plain():
    return ForecastMpc(ForecastMpcParameters(), SERVICE)


def test_steady_traffic_is_served_with_some_room_and_idleness_with_the_least(plain):
    assert 11 <= target_of(plain, rates=[200.0] * 8, ready=12) <= 16
    assert target_of(plain, rates=[0.0] * 8, ready=12) == 1


def test_overload_orders_more_and_what_starts_already_is_not_ordered_twice(plain):
    alone = target_of(plain, rates=[300.0] * 8, ready=8)
    assert alone >= 15
    assert target_of(plain, rates=[300.0] * 8, ready=8, starting=int(alone) - 8) == alone


def test_a_backlog_orders_more_and_the_more_the_larger(plain):
    targets = [target_of(plain, rates=[200.0] * 8, ready=11, backlog=b) for b in (0.0, 1500.0, 6000.0)]
    assert targets[0] < targets[1] < targets[2]


def test_replicas_that_work_a_backlog_off_are_kept_until_it_is_gone(plain):
    targets = [target_of(plain, rates=[100.0] * 8, ready=14, backlog=b) for b in (0.0, 3000.0)]
    assert targets[0] < 10 <= targets[1]


def test_caution_the_price_of_lateness_and_patience_with_a_backlog_each_move_the_target():
    def target(backlog=0.0, **parameters):
        return target_of(ForecastMpc(ForecastMpcParameters(**parameters), SERVICE), rates=[200.0] * 8, ready=12, backlog=backlog)

    assert target(caution=0.3) < target(caution=3.0)
    assert target(late_weight=0.05) < target(late_weight=20.0)
    assert target(backlog=3000.0, drain_steps=20.0) < target(backlog=3000.0, drain_steps=1.0)


def fitted(params, series, num_leads):
    return fit_forecast(
        series,
        history_steps=params.history_steps,
        window_steps=params.window_steps,
        num_leads=num_leads,
        with_season=params.observe_clock,
    )


@pytest.fixture(scope="module")
def diurnal():
    """A service with a clock, training series and test episodes of days with noise."""
    params = AutoscaleParams(observe_clock=True)
    series = DiurnalWorkload(days=6, seed=3, flash_crowd_every_hours=0).series().resampled(params.interval_seconds)
    test = series.part("test")
    episodes = poisson_episodes("diurnal", test, test.window_starts(600), 600, (0,))
    return params, series.part("train"), episodes


@pytest.fixture(scope="module")
def forecast_of_diurnal(diurnal):
    params, train, _ = diurnal
    return fitted(params, train, params.startup_steps + 8)


def test_it_beats_the_default_hpa_clearly_on_traffic_it_was_not_fitted_on(diurnal, forecast_of_diurnal):
    params, _, episodes = diurnal
    assert forecast_of_diurnal.season
    rule = ForecastMpc(ForecastMpcParameters(forecast=forecast_of_diurnal), params)
    ours, hpa = (run_episodes(policy, episodes, params)[0]["J_per_hour"] for policy in (rule, Hpa(HpaParameters(), params)))
    assert ours.mean() < 0.95 * hpa.mean()
    assert (ours < hpa).mean() > 0.75


def test_the_fitted_forecast_is_worth_more_than_that_nothing_changes(diurnal, forecast_of_diurnal):
    params, _, episodes = diurnal
    rules = [ForecastMpc(ForecastMpcParameters(forecast=f), params) for f in (forecast_of_diurnal, None)]
    fitted_J, plain_J = (run_episodes(rule, episodes, params)[0]["J_per_hour"].mean() for rule in rules)
    assert fitted_J < 0.95 * plain_J


@pytest.mark.parametrize("lag", [1, 2])
def test_orders_that_take_effect_late_are_planned_for(diurnal, lag):
    params, train, episodes = diurnal
    late = replace(params, actuation_lag_steps=lag)
    forecast = fitted(params, train, params.startup_steps + lag + 8)
    # With so little caution, an order that comes too late is seen.
    aware, unaware = (ForecastMpc(ForecastMpcParameters(caution=0.7, forecast=forecast), p) for p in (late, params))
    ours, before = (run_episodes(rule, episodes, late)[0]["J_per_hour"].mean() for rule in (aware, unaware))
    assert ours < 0.9 * before


def test_an_artifact_keeps_the_fitted_forecast_and_decides_the_same(diurnal, forecast_of_diurnal, tmp_path):
    params, _, episodes = diurnal
    rule = ForecastMpc(ForecastMpcParameters(caution=1.2, forecast=forecast_of_diurnal), params, name="mpc")
    save_policy(rule, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert loaded.parameters == rule.parameters
    assert isinstance(loaded.parameters.forecast, Forecast)
    assert isinstance(loaded.parameters.forecast.weights[0], tuple)
    short = replace(episodes, rates_rps=episodes.rates_rps[:, :60], arrived=episodes.arrived[:, :60])
    np.testing.assert_array_equal(*(run_episodes(r, short, params)[0]["J_per_hour"] for r in (rule, loaded)))


def test_lists_as_json_has_them_become_the_forecast_again(forecast_of_diurnal, diurnal):
    parameters = ForecastMpcParameters(horizon_steps=5, forecast=forecast_of_diurnal)
    through_json = json.loads(json.dumps(asdict(parameters)))
    assert isinstance(through_json["forecast"]["weights"], list)
    assert make_rule("forecast_mpc", diurnal[0], through_json).parameters == parameters


def test_parameter_sets_side_by_side_fly_as_each_alone(diurnal, forecast_of_diurnal):
    params, _, episodes = diurnal
    first = replace(
        episodes,
        **{name: getattr(episodes, name)[:2] for name in ("window", "seed", "start_unix_seconds")},
        rates_rps=episodes.rates_rps[:2, :120],
        arrived=episodes.arrived[:2, :120],
    )
    candidates = [
        ForecastMpcParameters(forecast=forecast_of_diurnal),
        ForecastMpcParameters(1.5, 0.5, 2, 4.0, forecast_of_diurnal),
        ForecastMpcParameters(0.7, 3.0, 8, 1.0, forecast_of_diurnal),
    ]
    together, _ = run_episodes(ForecastMpc([c for c in candidates for _ in range(2)], params), first.repeated(3), params)
    alone = [run_episodes(ForecastMpc(c, params), first, params)[0]["J_per_hour"] for c in candidates]
    np.testing.assert_allclose(together["J_per_hour"], np.concatenate(alone), rtol=1e-12)
    assert len(set(together["J_per_hour"].tolist())) == 6


def test_forecasts_that_fail_widen_the_next_ones():
    rule, state = ForecastMpc(ForecastMpcParameters(), SERVICE), None
    for t in range(40):
        rate = 100.0 if t % 10 else 400.0
        _, state = rule.act(observed(rates=[rate] + [100.0] * 7, ready=10), state)
    assert state["calibration"][0] > 1.5
    calm = None
    for _ in range(40):
        _, calm = rule.act(observed(rates=[100.0] * 8, ready=10), calm)
    assert calm["calibration"][0] < 1.0


def with_forecast(**change):
    return {"forecast": {**json.loads(json.dumps(GOOD)), **change}}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"caution": 0}, "rule.parameters: caution: 0 is not allowed; allowed: above 0 to 10"),
        ({"caution": "x"}, "rule.parameters: "),
        ({"late_weight": math.inf}, "rule.parameters: late_weight: inf is not allowed; allowed: above 0 to 1000"),
        ({"drain_steps": -1}, "rule.parameters: drain_steps: -1 is not allowed"),
        ({"horizon_steps": 0}, "rule.parameters: horizon_steps: 0 is not allowed; allowed: whole numbers from 1 to 240"),
        ({"horizon_steps": 2.5}, "rule.parameters: horizon_steps: 2.5 is not allowed"),
        ({"forecast": "import os"}, "rule.parameters: forecast: 'import os' is not allowed; allowed: a fitted forecast, or null"),
        ({"forecast": [1.0]}, "rule.parameters: forecast: "),
        ({"forecast": {"weights": [[1.0]]}}, "rule.parameters: "),
        (
            {"forecast": {"code": 1}},
            "rule.parameters: {'code': 1} is not allowed; allowed keys: hour, nodes, season, spread, weights",
        ),
        ({"horizon_steps": 9, **with_forecast()}, "rule.parameters: forecast.weights: 12 leads of 12 features; allowed: 13"),
        (with_forecast(weights=[[0.0] * 9] * 12), "rule.parameters: forecast.weights: 12 leads of 9 features; allowed: 12"),
        (with_forecast(season=[0.0] * 48), "rule.parameters: forecast.season: needs the clock; allowed: none, or observe_clock"),
        (with_forecast(spread=[[-1.0] * 5] * 12), "rule.parameters: forecast: a negative spread"),
    ],
)
def test_unfit_parameters_are_refused_in_one_line(parameters, message):
    with pytest.raises(ArtifactError) as caught:
        make_rule("forecast_mpc", SERVICE, parameters)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_parameter_sets_with_different_forecasts_are_refused():
    rows = [ForecastMpcParameters(), ForecastMpcParameters(forecast=persistence(12, 8))]
    with pytest.raises(ArtifactError, match="forecast: differs between parameter sets"):
        ForecastMpc(rows, SERVICE)


def test_a_service_too_large_to_plan_for_is_refused():
    with pytest.raises(ArtifactError, match="plans over at most 1000 replicas; max_replicas is 5000"):
        make_rule("forecast_mpc", AutoscaleParams(max_replicas=5000))
