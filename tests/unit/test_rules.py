"""Rules against cases worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalepilot.errors import ArtifactError
from scalepilot.policy import Planner, Policy, state_from_json, state_to_json
from scalepilot.policy.rules import (
    RULES,
    Hpa,
    HpaParameters,
    Kpa,
    KpaParameters,
    LookAhead,
    Never,
    NeverParameters,
    Random,
    RandomParameters,
    Static,
    StaticParameters,
    Threshold,
    ThresholdParameters,
    Tracking,
    TrackingParameters,
    make_rule,
    rules_for,
)
from scalepilot.policy.rules.hpa import cpu_recommendation
from scalepilot_envs.autoscale import DEFAULT_MOVES, AutoscaleParams, observation_fields
from scalepilot_envs.autoscale.description import describe

PARAMS = AutoscaleParams()
AUTOSCALE_RULES = rules_for(describe(PARAMS))
NAMES = [f.name for f in observation_fields(PARAMS)]


def observed(*rows):
    """Observations (n, fields) from named readings; what is not named is 0, a replica serves 20 requests/s."""
    out = np.zeros((len(rows), len(NAMES)), dtype=np.float32)
    out[:, NAMES.index("replica_capacity_rps")] = 20.0
    for i, row in enumerate(rows):
        for name, value in row.items():
            out[i, NAMES.index(name)] = value
    return out


def reading(cpu=0.0, ready=10, starting=0, rate=0.0, backlog=0.0):
    return {
        "cpu_utilisation": cpu,
        "ready_replicas": ready,
        "starting_replicas_3": starting,
        "request_rate_rps_0": rate,
        "backlog_requests": backlog,
    }


def decide(rule, *rows, state=None):
    decision, state = rule.act(observed(*rows), state)
    return decision.desired_replicas.tolist(), state


def hpa(env_params=PARAMS, **parameters):
    return Hpa(HpaParameters(**{"stabilisation_down_seconds": 0, **parameters}), env_params)


@pytest.mark.parametrize(
    ("cpu", "ready", "starting", "desired", "why"),
    [
        (0.50, 10, 0, 10, "on target"),
        (0.54, 10, 0, 10, "8 % above, inside the tolerance"),
        (0.46, 10, 0, 10, "8 % below, inside the tolerance"),
        (0.60, 10, 0, 12, "⌈1.2 × 10⌉"),
        (0.61, 10, 0, 13, "⌈12.2⌉ rounds up"),
        (0.41, 10, 0, 9, "⌈8.2⌉ rounds up when shrinking too"),
        (0.20, 10, 0, 4, "⌈0.4 × 10⌉"),
        (0.00, 10, 0, 1, "an idle service falls to the minimum, never to 0"),
        (1.00, 10, 0, 20, "⌈2 × 10⌉ is just inside the doubling"),
        (0.90, 10, 10, 20, "10 starting count as idle: 0.45 / 0.5 < 1, so growing is off"),
        (0.90, 10, 5, 18, "0.9 × 10 / 15 / 0.5 = 1.2, × 15"),
        (0.80, 10, 5, 15, "0.8 × 10 / 15 / 0.5 = 1.067 is inside the tolerance"),
        (0.20, 10, 5, 4, "starting replicas are left out when shrinking: ⌈0.4 × 10⌉"),
        (0.00, 0, 4, 4, "nothing ready yet: what starts is left alone"),
        (0.40, 10, 0, 8, "⌈0.8 × 10⌉"),
    ],
)
def test_hpa_on_cpu_recommends_what_the_documentation_says(cpu, ready, starting, desired, why):
    assert decide(hpa(target=0.5), reading(cpu, ready, starting))[0] == [desired], why


@pytest.mark.parametrize(
    ("rate", "ready", "starting", "desired", "why"),
    [
        (100.0, 10, 0, 10, "10 rps a replica is the target"),
        (105.0, 10, 0, 10, "5 % above, inside the tolerance"),
        (125.0, 10, 0, 13, "⌈125 / 10⌉"),
        (125.0, 8, 4, 12, "starting replicas count: 125 / 120 is inside the tolerance"),
        (51.0, 10, 0, 6, "⌈5.1⌉"),
        (0.0, 10, 0, 1, "no requests: the minimum"),
        (600.0, 10, 0, 20, "60 wanted, doubled at most"),
    ],
)
def test_hpa_on_requests_recommends_the_rate_over_the_target(rate, ready, starting, desired, why):
    assert decide(hpa(metric="rps", target=0.5), reading(rate=rate, ready=ready, starting=starting))[0] == [desired], why


@pytest.mark.parametrize(
    ("cpu", "ready", "starting", "tolerance", "desired", "why"),
    [
        (0.55, 10, 0, 0.1, 10, "exactly 10 % above is inside"),
        (0.5599, 10, 0, 0.1, 10, "whole percents: 55"),
        (0.56, 10, 0, 0.1, 12, "a percent more is not: ⌈11.2⌉"),
        (0.45, 10, 0, 0.1, 10, "exactly 10 % below is inside"),
        (0.4499, 10, 0, 0.1, 9, "a little less is not: 44 %, ⌈8.8⌉"),
        (0.5099, 10, 0, 0.0, 10, "without a tolerance the least excess is a percent"),
        (0.51, 10, 0, 0.0, 11, "of which ⌈10.2⌉"),
        (0.4995, 10, 0, 0.0, 10, "and the least lack rounds back up: 49 %, ⌈9.8⌉"),
        (0.49, 100, 0, 0.0, 60, "the bound, whatever is recommended"),
        (0.825, 10, 5, 0.1, 15, "with the starting ones 0.55 / 0.5: exactly 10 % above"),
        (0.8256, 10, 5, 0.1, 15, "55 % of all: inside"),
        (0.84, 10, 5, 0.1, 17, "56 %: ⌈1.12 × 15⌉"),
        (0.56, 10, 1, 0.1, 11, "1.12 alone, 1.018 with the starting one: inside"),
        (0.46, 10, 5, 0.1, 15, "inside the tolerance the starting ones stay"),
        (0.44, 10, 5, 0.1, 9, "shrinking forgets the starting ones: ⌈0.88 × 10⌉"),
    ],
)
def test_hpas_tolerance_has_sharp_edges_on_both_sides(cpu, ready, starting, tolerance, desired, why):
    assert decide(hpa(target=0.5, tolerance=tolerance), reading(cpu, ready, starting))[0] == [desired], why


@pytest.mark.parametrize(
    ("rate", "desired"), [(110.0, 10), (110.1, 12), (111.0, 12), (90.0, 10), (89.9, 9), (81.0, 9), (80.0, 8)]
)
def test_hpas_tolerance_on_requests_has_the_same_edges(rate, desired):
    assert decide(hpa(metric="rps", target=0.5), reading(rate=rate))[0] == [desired]
    assert decide(hpa(metric="rps", target=0.5), reading(rate=rate, ready=4, starting=6))[0] == [desired]


@pytest.mark.parametrize(
    ("cpu", "ready", "starting", "missing", "target", "desired", "why"),
    [
        (0.60, 10, 0, 0, 0.5, 12, "nothing missing"),
        (0.80, 10, 0, 2, 0.5, 13, "two missing count as idle: 0.8 × 8 / 10 / 0.5 = 1.28"),
        (0.68, 10, 0, 2, 0.5, 10, "1.088 is inside the tolerance"),
        (0.60, 10, 0, 2, 0.5, 10, "0.96: the direction flips, no move"),
        (0.90, 10, 5, 2, 0.5, 15, "the starting ones too: 0.96 flips"),
        (1.00, 10, 2, 2, 0.5, 16, "⌈8 / 12 / 0.5 × 12⌉"),
        (0.20, 10, 0, 2, 0.5, 8, "when shrinking they are fully used: ⌈(1.6 + 2) / 0.5⌉"),
        (0.20, 10, 4, 2, 0.5, 8, "and the starting ones are left out"),
        (0.20, 10, 0, 4, 0.5, 10, "(1.2 + 4) / 10 / 0.5 = 1.04: the direction flips"),
        (0.35, 10, 4, 2, 0.5, 14, "0.96 is inside the tolerance"),
        (1.00, 10, 0, 5, 2.0, 8, "a target above 1 is what a missing one is taken to use: ⌈(5 + 10) / 2⌉"),
        (float("nan"), 10, 3, 10, 0.5, 13, "nothing measured, nothing moved"),
        (0.0, 0, 4, 0, 0.5, 4, "nothing ready, nothing moved"),
    ],
)
def test_hpa_assumes_the_worst_of_replicas_that_are_not_measured(cpu, ready, starting, missing, target, desired, why):
    columns = (np.array([float(x)]) for x in (cpu, ready, ready + starting, target, 0.1, missing))
    assert cpu_recommendation(*columns).tolist() == [desired], why


def kubernetes(used, missing, starting, target, tolerance):
    """`GetResourceReplicas` of Kubernetes' replica_calculator.go, pod by pod; `used` has the measured ones' utilisation."""
    current = len(used) + missing + starting
    target = round(100 * target)
    ratio = int(100 * sum(used) / len(used) + 1e-9) / target
    grows_with_unready = starting > 0 and ratio > 1
    within = 1.0 - tolerance <= ratio <= 1.0 + tolerance
    if not grows_with_unready and not missing:
        return current if within else int(np.ceil(ratio * len(used)))
    pods = list(used)
    if ratio < 1:
        pods += [max(1.0, target / 100)] * missing
    elif ratio > 1:
        pods += [0.0] * missing
    if grows_with_unready:
        pods += [0.0] * starting
    again = int(100 * sum(pods) / len(pods) + 1e-9) / target
    if 1.0 - tolerance <= again <= 1.0 + tolerance or (ratio < 1 < again) or (again < 1 < ratio):
        return current
    wanted = int(np.ceil(again * len(pods)))
    turned = (again < 1 and wanted > current) or (again > 1 and wanted < current)
    return current if turned else wanted


def test_hpa_recommends_what_kubernetes_own_algorithm_does_pod_by_pod():
    rng = np.random.default_rng(5)
    moved = set()
    for _ in range(3000):
        ready, starting = int(rng.integers(1, 30)), int(rng.choice([0, 0, 1, 5, 20]))
        missing = int(rng.choice([0, 0, 1, ready // 2]))
        missing = min(missing, ready - 1)
        used = rng.integers(0, 1001, ready - missing) / 1000
        target, tolerance = int(rng.integers(30, 120)) / 100, float(rng.choice([0.0, 0.05, 0.1]))
        expected = kubernetes(used.tolist(), missing, starting, target, tolerance)
        columns = [np.array([float(x)]) for x in (used.mean(), ready, ready + starting, target, tolerance)]
        assert cpu_recommendation(*columns, np.array([float(missing)])).tolist() == [expected]
        if not missing:
            assert cpu_recommendation(*columns).tolist() == [expected]
        moved.add((int(np.sign(expected - ready - starting)), starting > 0, missing > 0))
    assert len(moved) == 12


@pytest.mark.parametrize(("ready", "limit"), [(1, 5), (2, 6), (3, 7), (4, 8), (5, 10), (20, 40), (40, 60)])
def test_hpa_grows_by_four_or_doubles_and_stops_at_the_maximum(ready, limit):
    assert decide(hpa(metric="rps", target=0.5), reading(rate=1e5, ready=ready))[0] == [limit]


def test_hpa_stops_at_the_minimum():
    assert decide(hpa(AutoscaleParams(min_replicas=3)), reading(cpu=0.0))[0] == [3]


def play(rule, rates, ready=10):
    """Targets of a rule that gets what it wants at once."""
    state, targets = None, []
    for rate in rates:
        desired, state = decide(rule, reading(rate=rate, ready=ready), state=state)
        ready = desired[0]
        targets.append(ready)
    return targets


def test_hpa_falls_only_to_the_highest_recommendation_of_its_window():
    rule = hpa(metric="rps", target=0.5, tolerance=0.0, stabilisation_down_seconds=45)
    assert play(rule, [100, 60, 80, 50, 50, 50, 50]) == [10, 10, 10, 8, 8, 5, 5]


def test_hpa_rises_only_to_the_lowest_recommendation_of_its_window():
    rule = hpa(metric="rps", target=0.5, tolerance=0.0, stabilisation_up_seconds=45)
    assert play(rule, [100, 140, 130, 120, 120, 150, 110, 160]) == [10, 10, 10, 12, 12, 12, 11, 11]


def test_hpas_two_windows_hold_together():
    rule = hpa(metric="rps", target=0.5, tolerance=0.0, stabilisation_up_seconds=30, stabilisation_down_seconds=45)
    assert play(rule, [100, 150, 140, 60, 70, 60, 90, 80]) == [10, 10, 14, 14, 14, 7, 7, 8]


def test_hpas_growth_is_limited_after_its_window_and_counts_starting_replicas():
    rule = hpa(metric="rps", target=0.5, tolerance=0.0, stabilisation_up_seconds=30)
    _, state = decide(rule, reading(rate=500.0, ready=3))
    _, state = decide(rule, reading(rate=500.0, ready=3), state=state)
    assert decide(rule, reading(rate=400.0, ready=3, starting=4), state=state)[0] == [14]


def test_windows_that_are_whole_intervals_are_not_cut_short_by_rounding():
    # 3.3 / 1.1 is 2.9999999999999996.
    odd = AutoscaleParams(interval_seconds=1.1, startup_seconds=4.0)
    _, state = decide(Kpa(KpaParameters(stable_window_seconds=3.3, panic_window_seconds=1.1), odd), reading(rate=50.0))
    assert state["rates"].shape == (1, 3)


def test_hpa_without_an_up_window_rises_at_once_and_with_the_default_down_window_waits_five_minutes():
    rule = Hpa(HpaParameters(metric="rps", target=0.5, tolerance=0.0), PARAMS)
    targets = play(rule, [100, 150] + [60] * 25)
    assert targets[:2] == [10, 15]
    assert targets[2:21] == [15] * 19
    assert targets[21:] == [6] * 6


def test_hpa_agrees_with_the_specification_over_random_histories(golden):
    # The specification has neither the first sync nor whole percents: readings are whole percents of
    # replicas that are all ready, and compared after the window.
    protocol = golden("protocol")

    class Shown:
        def __init__(self, cpu, ready, starting, rate):
            self.cpu, self.ready, self.total, self.rate = cpu, ready, ready + starting, rate

    rng = np.random.default_rng(0)
    for metric in ("cpu", "rps"):
        arguments = (metric, 0.55, 0.05, 120, 45)
        reference = protocol.hpa(*arguments)()
        rule, state = Hpa(HpaParameters(*arguments), PARAMS), None
        for step in range(300):
            cpu, rate = rng.integers(0, 101, 7) / 100, rng.random(7).astype(np.float32).astype(float) * 600
            ready, starting = rng.integers(1, 50, 7).astype(float), rng.integers(0, 10, 7).astype(float)
            starting *= metric == "rps"
            rows = [reading(*row) for row in zip(cpu, ready, starting, rate, strict=True)]
            rate32 = observed(*rows)[:, 0].astype(float)
            desired, state = decide(rule, *rows, state=state)
            expected = np.clip(reference(Shown(cpu, ready, starting, rate32)), 1, 60)
            assert step < 8 or desired == expected.tolist()


def test_threshold_steps_out_of_its_band_and_then_pauses():
    rule = Threshold(ThresholdParameters(upper=0.8, lower=0.4, step=2, cooldown_seconds=30), PARAMS)
    state, targets = None, []
    for cpu in (0.5, 0.9, 0.9, 0.9, 0.9, 0.3, 0.5, 0.3, 0.3):
        desired, state = decide(rule, reading(cpu=cpu), state=state)
        targets += desired
    assert targets == [10, 12, 10, 12, 10, 8, 10, 8, 10]


@pytest.mark.parametrize("interval", [5, 15, 30, 60])
def test_a_cooldown_lasts_as_long_at_every_decision_interval(interval):
    slow = AutoscaleParams(interval_seconds=float(interval))
    rule, state, moved = Threshold(ThresholdParameters(cooldown_seconds=60), slow), None, []
    for step in range(300 // interval):
        desired, state = decide(rule, reading(cpu=0.9), state=state)
        moved += [step * interval] if desired[0] > 10 else []
    assert moved == [0, 60, 120, 180, 240]


def test_threshold_without_a_cooldown_moves_every_time_and_counts_starting_replicas():
    rule = Threshold(ThresholdParameters(cooldown_seconds=0), PARAMS)
    first, state = decide(rule, reading(cpu=0.9, ready=10, starting=3))
    second, _ = decide(rule, reading(cpu=0.9, ready=10, starting=4), state=state)
    assert (first, second) == ([14], [15])


def backlog_rule(**parameters):
    return Threshold(ThresholdParameters(upper=0.8, lower=0.4, **{"cooldown_seconds": 0, **parameters}), PARAMS)


@pytest.mark.parametrize(
    ("cpu", "backlog", "both", "upper_only", "neither"),
    [
        (0.5, 100, 10, 10, 10),
        (0.5, 101, 11, 11, 10),
        (0.8, 0, 10, 10, 10),
        (0.81, 0, 11, 11, 11),
        (0.4, 0, 10, 10, 10),
        (0.39, 0, 9, 9, 9),
        (0.39, 1, 10, 9, 9),
        (0.39, 101, 11, 11, 9),
    ],
)
def test_threshold_adds_for_a_backlog_and_removes_only_without_one(cpu, backlog, both, upper_only, neither):
    row = reading(cpu=cpu, backlog=backlog)
    assert decide(backlog_rule(upper_backlog=100.0, lower_backlog=0.0), row)[0] == [both]
    assert decide(backlog_rule(upper_backlog=100.0), row)[0] == [upper_only]
    assert decide(backlog_rule(), row)[0] == [neither]


def test_thresholds_with_and_without_a_backlog_decide_side_by_side():
    rows = [backlog_rule(upper_backlog=100.0).parameters, backlog_rule().parameters]
    both = Threshold(rows, PARAMS)
    assert decide(both, reading(cpu=0.5, backlog=101), reading(cpu=0.5, backlog=101))[0] == [11, 10]


@pytest.mark.parametrize(("cooldown", "skipped"), [(0, 0), (1, 0), (15, 0), (16, 1), (31, 2), (60, 3)])
def test_a_move_for_the_backlog_cools_down_for_so_many_seconds_too(cooldown, skipped):
    rule, state, targets = backlog_rule(upper_backlog=100.0, cooldown_seconds=cooldown), None, []
    for _ in range(skipped + 2):
        desired, state = decide(rule, reading(cpu=0.5, backlog=500), state=state)
        targets += desired
    assert targets == [11] + [10] * skipped + [11]


def test_threshold_stays_within_the_bounds():
    at_top, at_bottom = reading(cpu=0.9, ready=60), reading(cpu=0.1, ready=1)
    assert decide(Threshold(ThresholdParameters(step=5), PARAMS), at_top, at_bottom)[0] == [60, 1]


@pytest.mark.parametrize(
    ("rate", "backlog", "ready", "starting", "desired", "why"),
    [
        (100.0, 0, 10, 0, 10, "10 wanted, 10 there"),
        (101.0, 0, 10, 0, 11, "⌈10.1⌉"),
        (95.0, 0, 10, 0, 10, "9.5 is less than one below"),
        (90.0, 0, 10, 0, 10, "9 is exactly one below"),
        (89.0, 0, 10, 0, 9, "8.9 is more than one below: ⌊8.9⌋ + 1"),
        (80.0, 0, 10, 0, 9, "⌊8⌋ + 1"),
        (100.0, 300, 10, 0, 12, "the backlog is to be served too: (1500 + 300) / 150"),
        (101.0, 0, 8, 3, 11, "what starts counts"),
        (0.0, 0, 10, 0, 1, "nothing wanted"),
        (5000.0, 0, 10, 0, 60, "500 wanted, the bound"),
        (120.00002, 0, 10, 0, 12, "what single precision added is forgiven"),
        (89.99999, 0, 10, 0, 10, "and what it took away"),
        (79.99999, 0, 10, 0, 9, "below too"),
    ],
)
def test_tracking_asks_for_what_the_demand_needs_at_its_utilisation(rate, backlog, ready, starting, desired, why):
    rule = Tracking(TrackingParameters(utilisation=0.5), PARAMS)
    assert decide(rule, reading(rate=rate, backlog=backlog, ready=ready, starting=starting))[0] == [desired], why


def test_never_keeps_what_there_is_ready_or_starting():
    rule = Never(NeverParameters(), PARAMS)
    assert decide(rule, reading(cpu=1.0, ready=7, starting=3, backlog=9e5), reading(ready=5)) == ([10, 5], None)


def test_random_with_a_generator_draws_every_action_alike_from_it():
    rule, rows = Random(RandomParameters(), PARAMS), observed(*[reading()] * 8000)
    decision, _ = rule.act(rows, rng=np.random.default_rng(2))
    np.testing.assert_array_equal(decision.action, np.random.default_rng(2).integers(0, 8, 8000))
    assert np.bincount(decision.action, minlength=8).min() > 850


def test_random_without_a_generator_is_uniform_over_observations_and_over_time():
    rule = Random(RandomParameters(seed=1), PARAMS)
    rng = np.random.default_rng(0)
    rows = observed(*[reading(rng.random(), int(rng.integers(1, 60)), 0, 500 * rng.random()) for _ in range(4000)])
    over_rows = np.bincount(rule.act(rows)[0].action, minlength=8)
    state, over_time = None, []
    for _ in range(2000):
        decision, state = rule.act(observed(reading()), state)
        over_time.append(int(decision.action[0]))
    # 7 degrees of freedom: chi-square exceeds 24.3 once in a thousand.
    for counts in (over_rows, np.bincount(over_time, minlength=8)):
        expected = counts.sum() / 8
        assert ((counts - expected) ** 2 / expected).sum() < 24.3


def test_random_is_a_pure_function_of_seed_observation_and_decisions_before():
    rows = observed(*[reading(cpu=i / 100) for i in range(100)])

    def actions(seed=0, state=None, of=rows):
        return Random(RandomParameters(seed), PARAMS).act(of, state)[0].action

    np.testing.assert_array_equal(actions(), actions())
    later = {"draws": np.ones(100)}
    for other in (actions(seed=1), actions(state=later), actions(of=rows[::-1])):
        assert 0.6 < (other != actions()).mean() < 1
    mixed = Random([RandomParameters(i % 2) for i in range(100)], PARAMS).act(rows)[0].action
    np.testing.assert_array_equal(mixed, np.where(np.arange(100) % 2, actions(seed=1), actions()))


def test_randoms_target_is_what_its_action_means_within_the_bounds():
    rows = observed(*[reading(ready=ready) for ready in (1, 10, 60)] * 50)
    decision, state = Random(RandomParameters(3), PARAMS).act(rows)
    total = np.tile([1, 10, 60], 50)
    for action, before, desired in zip(decision.action, total, decision.desired_replicas, strict=True):
        move = DEFAULT_MOVES[action]
        size = move.size if move.kind == "absolute" else np.sign(move.size) * np.ceil(abs(move.size) * before)
        assert desired == np.clip(before + size, 1, 60)
    assert state["draws"].tolist() == [1.0] * 150


def test_static_asks_for_the_same_whatever_it_sees_within_the_bounds():
    assert decide(Static(StaticParameters(7), PARAMS), reading(cpu=1.0), reading(cpu=0.0))[0] == [7, 7]
    assert decide(Static(StaticParameters(700), PARAMS), reading())[0] == [60]


HPA_PARAMETERS = st.builds(
    HpaParameters,
    metric=st.sampled_from(["cpu", "rps"]),
    target=st.floats(0.3, 0.95),
    tolerance=st.sampled_from([0.0, 0.02, 0.1]),
    stabilisation_down_seconds=st.sampled_from([0, 15, 60, 120]),
    stabilisation_up_seconds=st.sampled_from([0, 30, 60]),
)
THRESHOLD_PARAMETERS = st.builds(
    ThresholdParameters,
    upper=st.floats(0.6, 1.0),
    lower=st.floats(0.0, 0.5),
    step=st.integers(1, 5),
    cooldown_seconds=st.sampled_from([0.0, 15.0, 100.0]),
)


@pytest.mark.parametrize(
    ("rule_type", "strategy"),
    [(Hpa, HPA_PARAMETERS), (Threshold, THRESHOLD_PARAMETERS), (Static, st.builds(StaticParameters, st.integers(1, 80)))],
)
def test_candidates_side_by_side_decide_as_each_alone(rule_type, strategy):
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.lists(strategy, min_size=2, max_size=5), st.integers(0, 2**32 - 1))
    def agrees(candidates, seed):
        rng = np.random.default_rng(seed)
        together, states = rule_type(candidates, PARAMS), None
        alone, alone_states = [rule_type(c, PARAMS) for c in candidates], [None] * len(candidates)
        for _ in range(12):
            rows = [reading(rng.random(), rng.integers(1, 40), rng.integers(0, 9), rng.random() * 500) for _ in candidates]
            desired, states = decide(together, *rows, state=states)
            for i, rule in enumerate(alone):
                own, alone_states[i] = decide(rule, rows[i], state=alone_states[i])
                assert own == [desired[i]]

    agrees()


def rule_of(name):
    return make_rule(name, PARAMS)


@pytest.mark.parametrize("name", AUTOSCALE_RULES)
def test_a_rules_state_survives_json_and_decides_on(name):
    rule, rng = rule_of(name), np.random.default_rng(3)
    rows = [[reading(rng.random(), 10, 2, rng.random() * 400) for _ in range(3)] for _ in range(30)]
    state, through_json = None, [None] * 3
    for step in rows:
        desired, state = decide(rule, *step, state=state)
        stacked = state_from_json(through_json)
        again, next_state = decide(rule, *step, state=stacked)
        assert again == desired
        split = [None if next_state is None else {k: v[i : i + 1] for k, v in next_state.items()} for i in range(3)]
        through_json = [json.loads(json.dumps(state_to_json(s), allow_nan=False)) for s in split]


@pytest.mark.parametrize("name", AUTOSCALE_RULES)
def test_a_rule_neither_changes_its_inputs_nor_remembers_by_itself(name):
    rule = rule_of(name)
    observation = observed(reading(0.95, 10, 2, 300.0), reading(0.1, 10, 0, 20.0))
    _, state = rule.act(observation)
    before = observation.copy(), None if state is None else {k: v.copy() for k, v in state.items()}
    first, _ = rule.act(observation, state)
    second, _ = rule.act(observation, state)
    np.testing.assert_array_equal(first.desired_replicas, second.desired_replicas)
    np.testing.assert_array_equal(observation, before[0])
    for key, column in (state or {}).items():
        np.testing.assert_array_equal(column, before[1][key])


def test_states_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="state: give one for every observation"):
        state_from_json([{"recommendations": [1.0]}, None])
    with pytest.raises(ValueError, match="state: give one for every observation"):
        state_from_json([{"recommendations": [1.0]}, {"cooldown_left_seconds": 1.0}])
    assert state_from_json([None, None]) is None


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("hpa", {"recommendations": np.zeros((1, 3))}),
        ("hpa", {}),
        ("hpa", {"recommendations": np.full((1, 20), np.nan)}),
        ("threshold", {}),
        ("threshold", {"cooldown_left_seconds": np.zeros((1, 2))}),
        ("threshold", {"cooldown_left_seconds": np.array([np.nan])}),
        ("random", {"draws": np.zeros((1, 2))}),
        ("kpa", {"rates": np.zeros((1, 4)), "calm_steps": np.zeros(1), "panic_replicas": np.zeros(1)}),
        ("kpa", {"rates": np.zeros((1, 4)), "calm_steps": np.full(1, np.inf), "panic_replicas": np.zeros(1)}),
        ("forecast_mpc", {"slow": np.zeros((1, 2)), "expected": np.zeros((1, 5)), "deviations": np.zeros((1, 4))}),
    ],
)
def test_a_clients_unfit_state_is_refused_by_name(name, state):
    with pytest.raises(ValueError, match=r"^state\.\w+: .*allowed"):
        rule_of(name).act(observed(reading()), state)


def test_candidates_need_one_row_each():
    rule = Static([StaticParameters(1), StaticParameters(2)], PARAMS)
    with pytest.raises(ValueError, match="observation: 3 rows for 2 parameter sets"):
        rule.act(observed(reading(), reading(), reading()))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("hpaa", {}, f"rule: 'hpaa' is not allowed; allowed: {', '.join(RULES)}; did you mean hpa?"),
        ("hpa", {"metric": "memory"}, "rule.parameters: metric: 'memory' is not allowed; allowed: cpu, rps"),
        ("hpa", {"target": 0}, "rule.parameters: target: 0 is not allowed; allowed: above 0 to 10"),
        ("hpa", {"target": "abc"}, "rule.parameters: "),
        ("hpa", {"tolerance": float("nan")}, "rule.parameters: tolerance: nan is not allowed"),
        ("hpa", {"stabilisation_down_seconds": -1}, "rule.parameters: stabilisation_down_seconds: -1 is not allowed"),
        ("hpa", {"goal": 0.5}, "rule.parameters: {'goal': 0.5} is not allowed; allowed keys: "),
        ("threshold", {"lower": 0.9}, "rule.parameters: lower, upper: 0.9, 0.8 are not allowed"),
        ("threshold", {"step": 0}, "rule.parameters: step: 0 is not allowed; allowed: whole numbers from 1"),
        ("threshold", {"step": 1.5}, "rule.parameters: step: 1.5 is not allowed"),
        ("threshold", {"cooldown_seconds": float("inf")}, "rule.parameters: cooldown_seconds: inf is not allowed"),
        ("threshold", {"upper_backlog": -1}, "rule.parameters: upper_backlog: -1 is not allowed; allowed: from 0, or null"),
        ("threshold", {"lower_backlog": float("nan")}, "rule.parameters: lower_backlog: nan is not allowed"),
        ("tracking", {"utilisation": 0}, "rule.parameters: utilisation: 0 is not allowed; allowed: above 0 to 10"),
        ("kpa", {"target": -1}, "rule.parameters: target: -1 is not allowed; allowed: above 0 to 10"),
        ("kpa", {"panic_threshold": 1}, "rule.parameters: panic_threshold: 1 is not allowed; allowed: finite numbers above 1"),
        ("kpa", {"stable_window_seconds": 1e9}, "rule.parameters: stable_window_seconds: 1000000000.0 is not allowed"),
        ("random", {"seed": -1}, "rule.parameters: seed: -1 is not allowed; allowed: whole numbers from 0"),
        ("never", {"seed": 1}, "rule.parameters: {'seed': 1} is not allowed; allowed keys: "),
        ("static", [1], "rule.parameters: [1] is not allowed; allowed: names and values"),
        ("static", {"replicas": 0}, "rule.parameters: replicas: 0 is not allowed; allowed: whole numbers from 1"),
        ("static", {"replicas": 2.5}, "rule.parameters: replicas: 2.5 is not allowed"),
        ("static", {"replicas": "import os"}, "rule.parameters: replicas: 'import os' is not allowed"),
    ],
)
def test_unfit_rules_and_parameters_are_refused_in_one_line(name, parameters, message):
    with pytest.raises(ArtifactError) as caught:
        make_rule(name, PARAMS, parameters)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", AUTOSCALE_RULES)
def test_every_rule_is_a_policy_whose_description_rebuilds_it(name):
    rule = rule_of(name)
    assert isinstance(rule, Policy)
    assert not isinstance(rule, Planner)
    revised = {"revision": rule.revision} if rule.revision > 1 else {}
    assert rule.spec.rule == {"name": name, "parameters": asdict(rule.parameters)} | revised
    again = make_rule(name, PARAMS, rule.spec.rule["parameters"])
    assert again.parameters == rule.parameters
    assert [f.name for f in rule.spec.observation_fields] == NAMES


def test_the_look_ahead_is_a_planner_and_never_a_policy():
    assert isinstance(LookAhead(), Planner)
    assert not isinstance(LookAhead(), Policy)


def test_the_look_aheads_utilisation_may_differ_by_row():
    plan = LookAhead(np.array([[0.5], [1.0]])).plan(np.full((2, 3), 100.0), 20.0, 4)
    assert plan.tolist() == [[10, 10, 10], [5, 5, 5]]
