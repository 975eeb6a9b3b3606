"""Knative's autoscaler, worked out by hand and against a plain port of its loop.

A replica serves 20 requests/s and the target is half of that, so the rate over 10 is what is wanted.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.policy.rules import Kpa, KpaParameters
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields

PARAMS = AutoscaleParams()
NAMES = [f.name for f in observation_fields(PARAMS)]


def observed(rates, ready, starting=0):
    """Observations (n, fields) of rates and replicas (n,)."""
    rates = np.atleast_1d(rates)
    out = np.zeros((len(rates), len(NAMES)), dtype=np.float32)
    columns = {
        "replica_capacity_rps": 20.0,
        "request_rate_rps_0": rates,
        "ready_replicas": ready,
        "starting_replicas_3": starting,
    }
    for name, values in columns.items():
        out[:, NAMES.index(name)] = values
    return out


def kpa(env_params=PARAMS, **parameters):
    return Kpa(KpaParameters(target=0.5, **parameters), env_params)


def play(rule, rates, ready=10):
    """Targets along rates while the ready replicas are as given: one number, or one a step."""
    state, targets = None, []
    for rate, serving in zip(rates, np.broadcast_to(ready, len(rates)), strict=True):
        decision, state = rule.act(observed(rate, serving), state)
        targets.append(float(decision.desired_replicas[0]))
    return targets


def test_the_stable_window_averages_a_minute():
    assert play(kpa(), [100, 140, 140, 140, 140, 140]) == [10, 11, 12, 13, 14, 14]


def test_before_a_minute_has_passed_the_first_rate_stands_for_what_was_not_seen():
    assert play(kpa(), [100, 60, 60, 60, 60]) == [10, 9, 8, 7, 6]


def test_a_longer_stable_window_averages_longer():
    assert play(kpa(stable_window_seconds=120.0), [100, 180, 180, 180, 180, 180, 180, 180, 180]) == [10, 11, 12, *range(13, 19)]


@pytest.mark.parametrize(
    ("rate", "desired", "why"),
    [
        (190.0, 13, "19 / 10 is below the threshold: the stable ⌈(3 × 100 + 190) / 40⌉"),
        (190.1, 20, "⌈19.01⌉ = 20 = 2 × 10 meets it"),
        (200.0, 20, "2 × 10 meets it"),
        (350.0, 35, "panic follows the short window, not the stable one (17)"),
    ],
)
def test_panic_begins_when_the_short_window_asks_for_twice_the_ready_replicas(rate, desired, why):
    assert play(kpa(), [100, rate]) == [10, desired], why


def test_another_threshold_is_another_beginning():
    assert play(kpa(panic_threshold=3.0), [100, 290]) == [10, 15]
    assert play(kpa(panic_threshold=3.0), [100, 300]) == [10, 30]


def test_in_panic_nothing_falls_and_after_a_minute_of_calm_it_is_over():
    assert play(kpa(), [100, 200, 100, 100, 100, 100, 100, 100]) == [10, 20, 20, 20, 20, 20, 10, 10]


def test_panic_lasts_as_long_as_the_stable_window():
    assert play(kpa(stable_window_seconds=30.0), [100, 200, 100, 100, 100, 100]) == [10, 20, 20, 20, 10, 10]


def test_a_new_surge_begins_the_calm_anew_and_raises_what_is_held():
    assert play(kpa(), [100, 200, 100, 100, 250, 100, 100, 100, 100, 100]) == [10, 20, 20, 20, 25, 25, 25, 25, 25, 10]


def test_in_panic_the_target_still_rises():
    assert play(kpa(), [100, 200, 240, 220, 260]) == [10, 20, 24, 24, 26]


def test_a_second_panic_does_not_remember_the_first():
    first = [100, 400, *[100] * 5]
    assert play(kpa(), [*first, 220]) == [10, 40, 40, 40, 40, 40, 10, 22]


def test_panic_never_asks_for_fewer_than_are_ready():
    assert play(kpa(), [100, 200, 100], ready=[10, 10, 30]) == [10, 20, 30]


@pytest.mark.parametrize(("ready", "fewest"), [(60, 30), (11, 5), (10, 5), (5, 2), (2, 1), (1, 1)])
def test_a_fall_stops_at_half_of_the_ready_replicas_rounded_down(ready, fewest):
    assert play(kpa(), [0.0], ready) == [fewest]


def test_the_fall_may_be_limited_otherwise():
    assert play(kpa(max_scale_down_rate=1.5), [0.0]) == [6]


def test_a_rise_stops_at_a_thousand_times_the_ready_replicas_rounded_up():
    large = AutoscaleParams(max_replicas=5000)
    assert play(kpa(large), [20_000.0], ready=1) == [1000]
    assert play(kpa(large), [20_000.0], ready=2) == [2000]
    assert play(kpa(max_scale_up_rate=1.5), [400.0], ready=3) == [5]


def test_without_a_ready_replica_one_is_assumed():
    assert play(kpa(), [30.0], ready=0) == [3]


def test_targets_stay_within_the_services_bounds():
    assert play(kpa(), [5000.0], ready=30) == [60]
    assert play(kpa(AutoscaleParams(min_replicas=4)), [0.0], ready=5) == [4]


def test_a_fall_waits_for_the_delay_and_a_rise_does_not():
    rule = kpa(stable_window_seconds=15.0, scale_down_delay_seconds=45.0)
    assert play(rule, [100, 60, 50, 50, 50, 150]) == [10, 10, 10, 6, 5, 15]


def test_without_a_delay_a_fall_is_at_once():
    assert play(kpa(stable_window_seconds=15.0), [100, 60, 50, 80]) == [10, 6, 5, 8]


def test_at_longer_intervals_a_window_is_one_interval_at_least():
    slow = AutoscaleParams(interval_seconds=60.0, startup_seconds=60.0)
    rule = kpa(slow)
    _, state = rule.act(observed(100.0, 10))
    assert {name: column.shape for name, column in state.items()} == {
        "rates": (1, 1),
        "calm_steps": (1,),
        "panic_replicas": (1,),
        "wanted": (1, 1),
    }
    assert play(rule, [100, 140, 60]) == [10, 14, 6]


@pytest.mark.parametrize("interval", [5, 15, 30, 60])
def test_panic_ends_and_a_fall_waits_for_as_many_seconds_at_every_interval(interval):
    env = AutoscaleParams(interval_seconds=float(interval), startup_seconds=60.0)
    calm = [100.0] * (300 // interval)
    panicking = kpa(env, stable_window_seconds=50.0, panic_window_seconds=1.0)
    targets = play(panicking, [100, 400, *calm])
    # The end comes with the first decision more than 50 s after the last one over the threshold.
    held = next(k for k, target in enumerate(targets[1:]) if target < 40)
    assert held * interval == (50 // interval + 1) * interval
    delayed = play(kpa(env, stable_window_seconds=1.0, scale_down_delay_seconds=100.0), [100, *[60.0] * len(calm)])
    fallen = next(k for k, target in enumerate(delayed) if target < 10)
    assert fallen * interval == -(-100 // interval) * interval


class Knative:
    """`autoscaler.go`: panic since when, and the most it asked for; a fall below the ready replicas is refused in panic."""

    def __init__(self, parameters, interval_seconds=15.0):
        self.p, self.interval, self.rates, self.wanted = parameters, interval_seconds, [], []
        self.now, self.panic_since, self.most_in_panic = 0.0, None, 0

    def mean(self, seconds):
        steps = max(1, int(seconds / self.interval))
        seen = [self.rates[0]] * (steps - len(self.rates)) + self.rates[-steps:]
        return sum(seen) / steps

    def scale(self, rate, ready):
        p, ready = self.p, max(1, ready)
        self.now += self.interval
        self.rates.append(rate)
        target = 20.0 * p.target
        stable, panic = (math.ceil(self.mean(s) / target) for s in (p.stable_window_seconds, p.panic_window_seconds))
        most, fewest = math.ceil(p.max_scale_up_rate * ready), math.floor(ready / p.max_scale_down_rate)
        over = panic / ready >= p.panic_threshold
        stable, panic = (min(max(wanted, fewest), most) for wanted in (stable, panic))
        if over:
            self.panic_since = self.now
        elif self.panic_since is not None and self.now > self.panic_since + p.stable_window_seconds:
            self.panic_since, self.most_in_panic = None, 0
        wanted = stable
        if self.panic_since is not None:
            wanted = self.most_in_panic = max(stable, panic, self.most_in_panic, ready)
        self.wanted.append(wanted)
        return max(self.wanted[-max(1, int(p.scale_down_delay_seconds / self.interval)) :])


@pytest.mark.parametrize(
    "parameters",
    [
        KpaParameters(),
        KpaParameters(target=0.45, stable_window_seconds=120.0, panic_threshold=1.5),
        KpaParameters(target=0.9, panic_window_seconds=30.0, max_scale_up_rate=1.25, max_scale_down_rate=1.5),
        KpaParameters(scale_down_delay_seconds=300.0),
    ],
)
def test_a_port_of_knatives_loop_decides_the_same_along_random_histories(parameters):
    rng = np.random.default_rng(1)
    rows, steps = 5, 200
    ports, rule, state = [Knative(parameters) for _ in range(rows)], Kpa(parameters, PARAMS), None
    panicked = 0
    for _ in range(steps):
        surge = np.where(rng.random(rows) < 0.06, 8.0, 1.0)
        # Eighths are exact in single precision.
        rates, ready = np.round(rng.uniform(20, 150, rows) * surge * 8) / 8, rng.integers(15, 25, rows)
        decision, state = rule.act(observed(rates, ready), state)
        expected = [port.scale(float(rate), int(count)) for port, rate, count in zip(ports, rates, ready, strict=True)]
        assert decision.desired_replicas.tolist() == np.clip(expected, 1, 60).tolist()
        panicked += sum(port.panic_since is not None for port in ports)
    assert 0.02 < panicked / (rows * steps) < 0.9


PARAMETERS = st.builds(
    KpaParameters,
    target=st.floats(0.3, 0.95),
    stable_window_seconds=st.sampled_from([15, 30, 60, 300]),
    panic_threshold=st.floats(1.1, 4.0),
    max_scale_down_rate=st.sampled_from([1.1, 2.0, 10.0]),
    scale_down_delay_seconds=st.sampled_from([0, 60, 300]),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(PARAMETERS, min_size=2, max_size=4), st.integers(0, 2**32 - 1))
def test_candidates_with_different_windows_decide_side_by_side_as_each_alone(candidates, seed):
    rng = np.random.default_rng(seed)
    together, state = Kpa(candidates, PARAMS), None
    alone, states = [Kpa(c, PARAMS) for c in candidates], [None] * len(candidates)
    for _ in range(25):
        rows = observed(rng.random(len(candidates)) * 500, rng.integers(1, 40, len(candidates)))
        decision, state = together.act(rows, state)
        for i, rule in enumerate(alone):
            own, states[i] = rule.act(rows[i : i + 1], states[i])
            assert own.desired_replicas[0] == decision.desired_replicas[i]
