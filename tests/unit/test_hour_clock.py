"""The time within the hour: shown by the environment, learnt by networks, forecast by forecast_mpc; scheduled bursts."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from scalepilot.errors import ArtifactError
from scalepilot.learn.encoder import ScaleFreeEncoder
from scalepilot.policy.rules import ForecastMpcParameters, fit_forecast
from scalepilot.policy.rules.forecast import HOUR_BINS, season_at
from scalepilot.policy.rules.forecast_mpc import ForecastMpc
from scalepilot_envs.autoscale import ENV_ID, AutoscaleParams
from scalepilot_envs.autoscale.observation import observation_fields
from scalepilot_envs.workloads import DiurnalWorkload

CALM = DiurnalWorkload(days=3, low_rps=200, high_rps=200, noise_sigma=0, flash_crowd_every_hours=0)
BURSTS = replace(CALM, burst_every_minutes=30, burst_minutes=5, burst_factor=2.0)


def test_bursts_begin_on_the_minute_and_only_in_their_hours():
    rates = replace(BURSTS, burst_hours=(8.0, 9.0)).series().rates_rps.reshape(3, 1440)
    during = np.flatnonzero(rates[0] > 200)
    assert during.tolist() == [*range(480, 485), *range(510, 515)]
    np.testing.assert_allclose(rates[:, during], 400)
    assert (rates[0] == rates[2]).all()
    assert len(np.flatnonzero(BURSTS.series().rates_rps > 200)) == 3 * 48 * 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"burst_every_minutes": 1441}, "workload.burst_every_minutes: 1441 is not allowed; allowed: integers from 0 to 1440"),
        (
            {"burst_every_minutes": 30, "burst_minutes": 31},
            "workload.burst_minutes: 31 is not allowed; allowed: integers from 1 to 30",
        ),
        ({"burst_factor": 0.0}, "workload.burst_factor: 0.0 is not allowed; allowed: above 0"),
        ({"burst_hours": (9.0, 8.0)}, "workload.burst_hours: (9.0, 8.0) is not allowed; allowed: 0 <= first < end <= 24"),
    ],
)
def test_bursts_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match="burst") as refused:
        replace(CALM, **wrong)
    assert str(refused.value) == message


@pytest.mark.parametrize("with_day", [False, True])
def test_the_environment_shows_the_end_of_the_interval_within_the_hour(with_day):
    params = AutoscaleParams(observe_clock=with_day, observe_hour=True)
    names = [field.name for field in observation_fields(params)]
    assert names[-2:] == ["clock_hour_sin", "clock_hour_cos"]
    assert ("clock_day_sin" in names) is with_day
    env = gym.make(ENV_ID, workload=CALM, params=params, episode_steps=250).unwrapped
    first, _ = env.reset(seed=0)
    assert first.shape == (len(names),)
    rows = [first[-2:]] + [env.step(3)[0][-2:] for _ in range(240)]
    turns = np.unwrap(np.arctan2(*np.array(rows).T))
    np.testing.assert_allclose(np.diff(turns), 2 * np.pi / 240, atol=1e-5)
    np.testing.assert_allclose(rows[0], rows[240], atol=1e-5)


def test_a_network_sees_waves_of_half_a_quarter_and_an_eighth_of_an_hour():
    params = AutoscaleParams(observe_clock=True, observe_hour=True)
    names = [field.name for field in observation_fields(params)]
    encoder = ScaleFreeEncoder(names, params.interval_seconds, params.max_replicas)
    without = ScaleFreeEncoder(names[:-2], params.interval_seconds, params.max_replicas)
    turn = torch.linspace(0, 6, 7)
    observation = torch.ones(7, len(names))
    observation[:, -2], observation[:, -1] = torch.sin(turn), torch.cos(turn)
    features = encoder(observation)
    assert features.shape == (7, encoder.num_features)
    assert encoder.num_features == without.num_features + 8
    expected = [wave(2**k * turn) for k in range(4) for wave in (torch.sin, torch.cos)]
    torch.testing.assert_close(features[:, -8:], torch.stack(expected, dim=1), atol=1e-5, rtol=0)


def test_a_forecast_knows_what_is_scheduled_within_the_hour():
    series = BURSTS.series().resampled(15.0)
    settings = {"history_steps": 8, "window_steps": 40, "num_leads": 8}
    forecast = fit_forecast(series, with_hour=True, **settings)
    hour = np.array(forecast.hour)
    assert hour.shape == (HOUR_BINS,)
    # Between its minutes the rate is linear: it rises in minute 29 and falls in minute 34.
    minute = np.arange(HOUR_BINS) % 30
    during, quiet = (minute > 0) & (minute < 4), (minute > 6) & (minute < 29)
    np.testing.assert_allclose(hour[during].mean() - hour[quiet].mean(), np.log(2), atol=0.02)
    assert fit_forecast(series, **settings).hour == ()
    # Two minutes before the burst its replicas are ordered; without the hour the rule learns of it from its requests.
    params = AutoscaleParams(observe_hour=True, min_replicas=1)
    parameters = ForecastMpcParameters(horizon_steps=4, forecast=forecast)
    rule = ForecastMpc(parameters, params)
    at = {field.name: i for i, field in enumerate(observation_fields(params))}
    observation = np.zeros((1, len(at)))
    for name in at:
        if name.startswith("request_rate"):
            observation[0, at[name]] = 200.0
    observation[0, at["request_rate_std_rps"]] = 4.0
    observation[0, at["ready_replicas"]], observation[0, at["replica_capacity_rps"]] = 13.0, 20.0

    def target(minute: float) -> float:
        turn = 2 * np.pi * minute / 60
        observation[0, at["clock_hour_sin"]], observation[0, at["clock_hour_cos"]] = np.sin(turn), np.cos(turn)
        return float(rule.act(observation, None)[0].desired_replicas[0])

    assert target(29.0) >= 1.5 * target(15.0)
    assert season_at(hour, np.array([0.52]))[0] > season_at(hour, np.array([0.25]))[0]


def test_a_forecast_of_the_hour_needs_the_clock():
    forecast = fit_forecast(BURSTS.series().resampled(15.0), with_hour=True, history_steps=8, window_steps=40, num_leads=16)
    with pytest.raises(ArtifactError, match=r"forecast\.hour: needs the clock; allowed: none, or observe_hour: true"):
        ForecastMpc(ForecastMpcParameters(forecast=forecast), AutoscaleParams())
