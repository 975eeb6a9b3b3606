"""The HPA rule against a plain transcription of Kubernetes' controller (tests/hpa_reference.py), over random histories."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.hpa_reference import REQUEST, Cluster, Controller, Decider, Rules, Spec

from scalepilot.evaluate.evaluation import describe_policy
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields

NAMES = [f.name for f in observation_fields(AutoscaleParams())]
CPU, READY, STARTING, RATE, CAPACITY = (
    NAMES.index(name)
    for name in (
        "cpu_utilisation",
        "ready_replicas",
        "starting_replicas_3",
        "request_rate_rps_0",
        "replica_capacity_rps",
    )
)
DECISIONS = 24


def policies(rng):
    """One to three policies of `behavior`, as (kind, value, period)."""
    return [
        (kind, int(rng.integers(1, 9) if kind == "Pods" else rng.choice([5, 10, 25, 50, 100, 200])), int(period))
        for kind, period in zip(rng.choice(["Pods", "Percent"], 3), rng.choice([1, 15, 20, 30, 60, 90, 180, 300], 3), strict=True)
    ][: rng.integers(1, 4)]


def text(chosen):
    return "+".join(f"{value}{'%' if kind == 'Percent' else ''}/{period}" for kind, value, period in chosen)


def drawn(rng, minimum, maximum):
    """The same random HPA twice: as the rule's parameters and as the reference's spec."""
    # With 0 as the fewest Kubernetes refuses an HPA on CPU alone.
    metric = str(rng.choice(["cpu", "rps", "cpu+rps"] if minimum else ["rps", "cpu+rps"]))
    cpu_percent, rate_percent = int(rng.integers(20, 130)), int(rng.integers(20, 110))
    tolerance, down_tolerance, up_tolerance = (float(x) for x in rng.choice([0.0, 0.02, 0.05, 0.1, 0.2], 3))
    own_tolerance = bool(rng.random() < 0.5)
    usual = rng.random() < 0.3
    up, down = ([("Pods", 4, 15), ("Percent", 100, 15)], [("Percent", 100, 15)]) if usual else (policies(rng), policies(rng))
    select_up, select_down = (str(rng.choice(["Max", "Max", "Min", "Disabled"])) for _ in range(2))
    down_seconds, up_seconds = (float(rng.choice(choice)) for choice in ([0, 15, 40, 60, 300], [0, 0, 15, 30, 50, 120]))
    target = {"cpu": cpu_percent, "rps": rate_percent, "cpu+rps": cpu_percent}[metric] / 100
    parameters = HpaParameters(
        metric,
        target,
        tolerance,
        down_seconds,
        up_seconds,
        rate_percent / 100 if metric == "cpu+rps" else None,
        down_tolerance if own_tolerance else None,
        up_tolerance if own_tolerance else None,
        text(up),
        text(down),
        select_up,
        select_down,
    )
    spec = Spec(
        minimum=minimum,
        maximum=maximum,
        up=Rules(up, select_up, up_seconds, up_tolerance if own_tolerance else tolerance),
        down=Rules(down, select_down, down_seconds, down_tolerance if own_tolerance else tolerance),
        cpu_percent=cpu_percent if "cpu" in metric else None,
        rate_milli=rate_percent * 200 if "rps" in metric else None,
    )
    return parameters, spec


def differences(interval_seconds, histories, seed, minimum=2, maximum=60):
    """Decisions of the rule that differ from the reference's, and how many were compared and moved."""
    rng = np.random.default_rng(seed)
    pairs = [drawn(rng, minimum, maximum) for _ in range(histories)]
    env = AutoscaleParams(interval_seconds=float(interval_seconds), min_replicas=minimum, max_replicas=maximum)
    rule = Hpa([parameters for parameters, _ in pairs], env)
    references = [Decider(Controller(spec), interval_seconds) for _, spec in pairs]
    totals = rng.integers(minimum, maximum + 1, histories)
    state, differing, moved = None, [], 0
    for step in range(DECISIONS):
        # Somebody else may have scaled, also out of the bounds.
        totals = np.where(rng.random(histories) < 0.03, rng.integers(0, maximum + 9, histories), totals)
        ready = np.minimum(totals, np.rint(totals * rng.choice([0.0, 0.5, 0.9, 1.0, 1.0, 1.0, 1.0], histories)).astype(int))
        cpu_milli = np.rint(ready * REQUEST * np.clip(rng.normal(0.6, 0.3, histories), 0, 1)).astype(int)
        rate_milli = np.rint(totals * 20_000 * np.clip(rng.normal(0.6, 0.4, histories), 0, 3)).astype(int)
        rate_milli += (totals == 0) * rng.integers(0, 200_000, histories) * (rng.random(histories) < 0.5)
        seen = np.zeros((histories, len(NAMES)), dtype=np.float32)
        seen[:, CPU] = cpu_milli / (np.maximum(ready, 1) * REQUEST)
        seen[:, READY], seen[:, STARTING] = ready, totals - ready
        seen[:, RATE], seen[:, CAPACITY] = rate_milli / 1000, 20.0
        desired, state = rule.desired(seen, state)
        for i, reference in enumerate(references):
            expected = reference.decide(Cluster(int(totals[i]), int(ready[i]), int(cpu_milli[i]), float(rate_milli[i])))
            moved += expected != totals[i]
            if expected != desired[i]:
                differing.append((interval_seconds, seed, i, step, int(totals[i]), expected, desired[i], pairs[i][0]))
        totals = np.array([min(max(int(x), 0), 200) for x in desired])
    return differing, histories * DECISIONS, moved


def test_the_rule_equals_the_published_algorithm_at_every_interval_over_random_histories():
    for interval in (5, 15, 30, 60):
        differing, compared, moved = differences(interval, 150, seed=interval)
        assert not differing, differing[:3]
        assert moved > compared / 20


@pytest.mark.slow
def test_the_rule_equals_the_published_algorithm_over_four_thousand_histories():
    for seed in range(2):
        for interval in (5, 15, 30, 60):
            differing, compared, moved = differences(interval, 500, seed=100 + seed)
            assert not differing, differing[:3]
            assert moved > compared / 20


def readings(total=10, ready=None, cpu=0.0, rate=0.0):
    """One observation (1, fields); everything is ready if not said otherwise."""
    seen = np.zeros((1, len(NAMES)), dtype=np.float32)
    ready = total if ready is None else ready
    seen[:, [READY, STARTING, CPU, RATE, CAPACITY]] = ready, total - ready, cpu, rate, 20.0
    return seen


def played(seconds, interval, start=4, *, rate=1e6, **parameters):
    """Replicas over so many seconds of a steady rate; what is asked for is there at the next decision."""
    env = AutoscaleParams(interval_seconds=float(interval), max_replicas=100_000)
    rule, state, totals = Hpa(HpaParameters("rps", 0.5, 0.0, **parameters), env), None, [start]
    for _ in range(seconds // interval + 1):
        decision, state = rule.act(readings(totals[-1], rate=rate), state)
        totals.append(int(decision.desired_replicas[0]))
    return totals[1:]


@pytest.mark.parametrize("interval", [5, 15, 30, 60])
def test_growth_doubles_every_fifteen_seconds_at_every_interval(interval):
    totals = played(120, interval)
    assert [totals[seconds // interval] for seconds in (0, 60, 120)] == [8, 128, 2048]
    if interval == 5:
        assert totals[:7] == [8, 8, 8, 16, 16, 16, 32]


@pytest.mark.parametrize("interval", [5, 15, 30, 60])
def test_a_policy_of_ten_pods_a_minute_adds_ten_a_minute_at_every_interval(interval):
    totals = played(180, interval, policies_up="10/60")
    assert [totals[seconds // interval] for seconds in (0, 60, 120, 180)] == [14, 24, 34, 44]


@pytest.mark.parametrize("interval", [5, 15, 30, 60])
def test_a_fall_of_ten_percent_a_minute_takes_a_minute_at_every_interval(interval):
    totals = played(180, interval, 100, rate=10.0, policies_down="10%/60", stabilisation_down_seconds=60)
    # The first sync holds the count for the window; then int(100 × 0.9), int(90 × 0.9), int(81 × 0.9).
    assert [totals[seconds // interval] for seconds in (0, 60, 120, 180)] == [100, 90, 81, 72]


def test_the_smaller_change_counts_where_it_is_selected_and_no_change_where_it_is_disabled():
    assert played(30, 15, 10, policies_up="4/15+100%/15", select_up="Min") == [14, 18, 22]
    assert played(30, 15, 10, select_up="Disabled") == [10, 10, 10]
    quick = {"stabilisation_down_seconds": 0, "rate": 10.0}
    assert played(30, 15, 10, policies_down="4/15+50%/15", select_down="Min", **quick) == [6, 3, 1]
    assert played(30, 15, 10, select_down="Disabled", **quick) == [10, 10, 10]


def test_the_larger_of_two_metrics_wins_and_one_alone_never_shrinks():
    rule = Hpa(HpaParameters("cpu+rps", 0.5, 0.0, 0.0, target_rps=0.25), AutoscaleParams())

    def asked(**seen):
        return float(rule.act(readings(10, **seen))[0].desired_replicas[0])

    assert asked(cpu=0.6, rate=50.0) == 12
    assert asked(cpu=0.5, rate=90.0) == 18
    assert asked(cpu=0.1, rate=20.0) == 4
    assert asked(ready=0, cpu=0.0, rate=20.0) == 10
    assert asked(ready=0, cpu=0.0, rate=60.0) == 12


def test_tolerances_may_differ_by_direction():
    rule = Hpa(HpaParameters("cpu", 0.5, 0.1, 0.0, tolerance_up=0.0, tolerance_down=0.3), AutoscaleParams())
    wanted = [float(rule.act(readings(10, cpu=cpu))[0].desired_replicas[0]) for cpu in (0.51, 0.35, 0.34)]
    assert wanted == [11, 10, 7]


def test_the_first_sync_records_the_count_as_it_is():
    rule, state, wanted = Hpa(HpaParameters("cpu", 0.5, 0.0, 60.0, 30.0), AutoscaleParams()), None, []
    for cpu in (0.2, 0.2, 0.2, 0.2, 0.2):
        decision, state = rule.act(readings(10, cpu=cpu), state)
        wanted.append(float(decision.desired_replicas[0]))
    assert wanted == [10, 10, 10, 10, 4]
    state, wanted = None, []
    for cpu in (0.8, 0.8, 0.8):
        decision, state = rule.act(readings(10, cpu=cpu), state)
        wanted.append(float(decision.desired_replicas[0]))
    assert wanted == [10, 10, 16]


def test_without_memory_the_rule_says_what_it_recommends_now():
    rule = Hpa(HpaParameters("cpu", 0.5), AutoscaleParams())
    assert rule.act(readings(10, cpu=0.2))[0].desired_replicas.tolist() == [10]
    assert rule.without_memory().act(readings(10, cpu=0.2))[0].desired_replicas.tolist() == [4]


def test_a_days_interval_costs_no_more_than_an_hours_syncs():
    rule = Hpa(HpaParameters("rps", 0.5), AutoscaleParams(interval_seconds=1e7, startup_seconds=1.0))
    _, state = rule.act(readings(10, rate=100.0))
    decision, state = rule.act(readings(10, rate=200.0), state)
    assert decision.desired_replicas.tolist() == [20]


def test_a_state_is_plain_json_with_times_in_seconds():
    rule = Hpa(HpaParameters(policies_up="4/60", stabilisation_down_seconds=30), AutoscaleParams())
    state = None
    for _ in range(3):
        _, state = rule.act(readings(10, cpu=1.0), state)
    assert {name: column[0].tolist() for name, column in state.items()} == {
        "seconds": 30.0,
        "recommendations": [15.0, 15.0],
        "recommendation_seconds": [15.0, 30.0],
        "ups": [4.0, 0.0, 0.0, 0.0, 0.0],
        "up_seconds": [0.0, 0.0, 0.0, 0.0, 0.0],
        "downs": [0.0, 0.0],
        "down_seconds": [0.0, 0.0],
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "rps+cpu"}, "metric: 'rps+cpu' is not allowed; allowed: cpu, rps, cpu+rps"),
        ({"target_rps": 0.5}, "target_rps: goes with metric cpu+rps alone, not with cpu; allowed: target"),
        (
            {"policies_up": "4"},
            "policies_up: '4' is not allowed; allowed: PODS/SECONDS or PERCENT%/SECONDS (1 to 1800 s), several",
        ),
        ({"policies_up": "0/15"}, "policies_up: '0/15' is not allowed"),
        ({"policies_down": "10%/1801"}, "policies_down: '10%/1801' is not allowed"),
        ({"policies_down": 5}, "policies_down: 5 is not allowed"),
        ({"select_up": "max"}, "select_up: 'max' is not allowed; allowed: Max, Min, Disabled"),
        ({"tolerance_up": 1.0}, "tolerance_up: 1.0 is not allowed; allowed: 0 to below 1"),
        ({"target_rps": 0.0, "metric": "cpu+rps"}, "target_rps: 0.0 is not allowed; allowed: above 0 to 10"),
    ],
)
def test_unfit_settings_are_refused_by_name(parameters, message):
    with pytest.raises(ValueError) as caught:
        HpaParameters(**parameters)
    assert str(caught.value).startswith(message)


def test_an_artifact_of_an_earlier_revision_loads_decides_as_today_and_says_so(tmp_path):
    folder = tmp_path / "p"
    save_policy(Hpa(HpaParameters("rps", 0.6), AutoscaleParams(), name="old"), folder)
    spec = json.loads((folder / "policy.json").read_text())
    assert spec["rule"].pop("revision") == Hpa.revision
    kept = ("metric", "target", "tolerance", "stabilisation_down_seconds", "stabilisation_up_seconds")
    spec["rule"]["parameters"] = {name: spec["rule"]["parameters"][name] for name in kept}
    (folder / "policy.json").write_text(json.dumps(spec))
    loaded = load_policy(folder)
    assert loaded.parameters == HpaParameters("rps", 0.6)
    assert loaded.act(readings(10, rate=200.0))[0].desired_replicas.tolist() == [17]
    assert describe_policy(loaded).endswith(", found with an earlier revision of the rule")
    assert "revision" not in describe_policy(Hpa(HpaParameters(), AutoscaleParams()))
