"""Rules on the environments that take one replica more or less, against published scores and cases worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scalepilot.errors import ArtifactError
from scalepilot.policy.rules import ReactiveAverage, ReactiveMaximum, ReactiveParameters, make_rule, rules_for
from scalepilot_envs.queue_scaling import QueueScalingBatch
from scalepilot_envs.queue_scaling import describe as describe_queue
from scalepilot_envs.registration import ENVS, find_env

RULES_OF = {
    "Autoscale-v0": {"random", "static", "never", "threshold", "tracking", "hpa", "kpa", "forecast_mpc"},
    "QueueScaling-v0": {"random", "static", "never", "threshold", "tracking"},
    "ResourceManager-v0": {"random", "never", "threshold"},
    "FunctionWorkflow-v0": {"random", "static", "never", "threshold", "reactive_average", "reactive_maximum"},
    "ClusterDeployment-v0": {"random", "never", "threshold"},
    "GridWorld-v0": {"random"},
}
STORED = Path(__file__).parents[1] / "data" / "golden_function_workflow.npz"
WORKFLOW = find_env("FunctionWorkflow-v0").describe()


def test_every_environment_has_the_rules_that_can_read_it():
    found = {env_id.removeprefix("scalepilot/"): set(rules_for(entry.describe())) for env_id, entry in ENVS.items()}
    assert found == RULES_OF


@pytest.mark.parametrize(
    ("env_id", "rule", "parameters", "message"),
    [
        ("QueueScaling-v0", "hpa", {}, "rule: hpa reads ready_replicas, which scalepilot/QueueScaling-v0 does not show"),
        ("Autoscale-v0", "reactive_average", {}, "rule: reactive_average reads sojourn_mean_seconds, which scalepilot/Autoscale"),
        ("ResourceManager-v0", "static", {}, "rule: static reads total_replicas, which scalepilot/ResourceManager-v0 does not"),
        ("GridWorld-v0", "never", {}, "rule: never moves replicas, and scalepilot/GridWorld-v0 has none"),
        (
            "ResourceManager-v0",
            "threshold",
            {"upper_backlog": 5.0},
            "rule.parameters: upper_backlog, lower_backlog: scalepilot/ResourceManager-v0 shows no backlog",
        ),
        ("FunctionWorkflow-v0", "reactive_maximum", {"safety": 0}, "rule.parameters: safety: 0 is not allowed; allowed: above 0"),
    ],
)
def test_a_rule_an_environment_cannot_feed_is_refused_in_one_line(env_id, rule, parameters, message):
    with pytest.raises(ArtifactError) as caught:
        make_rule(rule, find_env(env_id).describe(), parameters)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def row_of(description, **values):
    """One observation (1, fields); what is not named is 0."""
    names = [f.name for f in description.fields]
    out = np.zeros((1, len(names)), dtype=np.float32)
    for name, value in values.items():
        out[0, names.index(name)] = value
    return out


def move_of(description, rule, state=None, **values):
    """Replicas that the action chosen adds, and the next state."""
    decision, state = rule.act(row_of(description, **values), state)
    return int(description.actions[int(decision.action[0])].size), state


# QueueScaling-v0


@pytest.mark.parametrize("bounded", [False, True], ids=["as published", "bounded"])
@pytest.mark.parametrize(
    ("name", "parameters", "published"),
    [
        ("threshold", {}, -27.9537),
        ("never", {}, -14.0250),
        ("threshold", {"upper": 0.95, "lower": 0.85}, -8.0330),
        ("tracking", {}, -6.9035),
    ],
)
def test_rules_return_what_the_specification_publishes_for_queue_scaling(name, parameters, published, bounded):
    rule = make_rule(name, describe_queue(bounded_observation=bounded), parameters)
    batch = QueueScalingBatch(2, bounded_observation=bounded)
    batch.seed_streams([0, 1])
    observation, state, total = batch.reset_batch(), None, np.zeros(2)
    for _ in range(200):
        decision, state = rule.act(observation, state)
        step = batch.step_batch(decision.action)
        observation, total = step.observation, total + step.reward
    assert total.tolist() == pytest.approx([published] * 2, abs=1e-4)


def test_static_walks_to_its_number_one_a_step_and_stays():
    description = describe_queue()
    rule = make_rule("static", description, {"replicas": 52})
    moves = [move_of(description, rule, instances_share=n / 100)[0] for n in (50, 51, 52, 53, 100)]
    assert moves == [1, 1, 0, -1, -1]
    decision, _ = rule.act(row_of(description, instances_share=0.5))
    assert (decision.desired_replicas.tolist(), decision.action.tolist()) == ([51.0], [2])


# ResourceManager-v0 and ClusterDeployment-v0: threshold on their own limits, 0.7 and 0.3


@pytest.mark.parametrize(
    ("env_id", "field", "scale"), [("ResourceManager-v0", "cpu_percent", 100.0), ("ClusterDeployment-v0", "cpu_share", 1.0)]
)
def test_threshold_moves_out_of_the_environments_own_band_whatever_its_actions_are_called(env_id, field, scale):
    description = find_env(env_id).describe()
    rule = make_rule("threshold", description)
    moves = [move_of(description, rule, **{field: share * scale})[0] for share in (0.1, 0.29, 0.3, 0.5, 0.7, 0.71, 1.0)]
    assert moves == [-1, -1, 0, 0, 0, 1, 1]


def test_a_cooldown_is_counted_in_seconds_of_the_environments_own_steps():
    rule = make_rule("threshold", WORKFLOW, {"cooldown_seconds": 17.0})
    state, moves = None, []
    for _ in range(5):
        move, state = move_of(WORKFLOW, rule, state, arrival_rate_per_second=12.0, workers=12)
        moves.append(move)
    assert rule.interval_seconds == 8.0
    assert moves == [1, 0, 0, 1, 0]


# FunctionWorkflow-v0


@pytest.mark.parametrize(
    ("rate", "workers", "queue", "move"),
    [
        (6.0, 12, 0, 0),
        (6.1, 12, 0, 1),
        (1.0, 12, 0, -1),
        (1.0, 12, 1, 0),
        (1.0, 12, 8, 0),
        (1.0, 12, 9, 1),
        (2.8, 12, 0, 0),
        (2.7, 12, 0, -1),
    ],
)
def test_threshold_on_workers_reads_their_load_and_the_queue(rate, workers, queue, move):
    rule = make_rule("threshold", WORKFLOW)
    assert move_of(WORKFLOW, rule, arrival_rate_per_second=rate, workers=workers, worker_queue=queue)[0] == move


# wanted = time · (rate + queue / horizon); busy = min(workers, active − 1) · time / horizon, half of it for the average.
CASES = [
    # mean, longest, rate, queue, output, workers, average, maximum
    (2.0, 4.0, 5.0, 0, 100, 12, -1, 1),  # wanted 10, busy 1.5: gap −0.5 exactly; longest: wanted 20, busy 6
    (2.0, 2.0, 5.0, 0, 100, 11, 0, 1),  # gap 10 − 9.625 = 0.375; not halved 10 − 8.25 = 1.75
    (2.0, 2.0, 5.0, 0, 100, 10, 1, 1),  # gap 10 − 8.75 = 1.25
    (1.5, 1.5, 0.0, 0, 40, 1, 0, 0),  # idle: one worker is the least
    (1.5, 1.5, 0.0, 0, 40, 2, -1, -1),
    (10.0, 10.0, 0.0, 20, 0, 20, 0, 0),  # a queue alone: horizon 10, wanted 20, nobody counted as busy
    (10.0, 10.0, 0.0, 20, 0, 21, -1, -1),
    (10.0, 10.0, 0.0, 20, 0, 19, 1, 1),
]


@pytest.mark.parametrize(("mean", "longest", "rate", "queue", "output", "workers", "average", "maximum"), CASES)
def test_the_reactive_rules_follow_littles_law(mean, longest, rate, queue, output, workers, average, maximum):
    values = {
        "sojourn_mean_seconds": mean,
        "sojourn_max_seconds": longest,
        "arrival_rate_per_second": rate,
        "worker_queue": queue,
        "output_queue": output,
        "workers": workers,
    }
    for rule_type, move in ((ReactiveAverage, average), (ReactiveMaximum, maximum)):
        assert move_of(WORKFLOW, rule_type(ReactiveParameters(), WORKFLOW), **values)[0] == move


def test_safety_scales_what_is_wanted():
    values = {"sojourn_mean_seconds": 2.0, "arrival_rate_per_second": 5.0, "output_queue": 100, "workers": 12}
    moves = [move_of(WORKFLOW, ReactiveAverage(ReactiveParameters(s), WORKFLOW), **values)[0] for s in (0.5, 1.0, 1.05, 1.1)]
    assert moves == [-1, -1, 0, 1]


def specified(golden, observation, *, maximum, safety=1.0):
    """Actions of golden.reactive_target for observations (n, 9)."""
    reactive_target = golden("function_workflow").reactive_target
    names = [f.name for f in WORKFLOW.fields]
    rows = [dict(zip(names, row, strict=True)) for row in observation.astype(np.float64).tolist()]
    return [reactive_target(row, maximum=maximum, safety=safety) for row in rows]


@pytest.mark.parametrize(("name", "maximum"), [("reactive_average", False), ("reactive_maximum", True)])
@pytest.mark.parametrize("safety", [1.0, 1.3])
def test_the_reactive_rules_are_the_specifications_over_random_observations(golden, name, maximum, safety):
    rng = np.random.default_rng(0)
    n = 3000
    low, high = (np.array([getattr(f, bound) for f in WORKFLOW.fields]) for bound in ("low", "high"))
    observation = low + (high - low) * rng.random((n, 9)) ** rng.choice([1, 3, 6], (n, 1))
    # Whole queues and workers, and times and rates on a coarse grid: gaps of exactly ±½ occur.
    observation[: n // 2] = np.round(observation[: n // 2] * 2) / 2
    observation[:, :5] = np.round(observation[:, :5])
    observation = observation.astype(np.float32)
    decision, _ = make_rule(name, WORKFLOW, {"safety": safety}).act(observation)
    expected = specified(golden, observation, maximum=maximum, safety=safety)
    assert decision.action.tolist() == expected
    assert set(expected) == {0, 1, 2}


@pytest.mark.parametrize(("name", "maximum"), [("reactive_average", False), ("reactive_maximum", True)])
def test_the_reactive_rules_are_the_specifications_along_stored_trajectories(golden, name, maximum):
    with np.load(STORED, allow_pickle=False) as arrays:
        stored = np.concatenate([arrays[key] for key in arrays.files if key.endswith("/observation")])
    observation = stored[~np.isnan(stored).any(axis=1)].astype(np.float32)
    decision, _ = make_rule(name, WORKFLOW).act(observation)
    expected = specified(golden, observation, maximum=maximum)
    assert decision.action.tolist() == expected
    assert len(expected) > 400
    assert len(set(expected)) == 3


# GridWorld-v0


def test_random_walks_the_grid_in_every_direction_alike():
    rule = make_rule("random", find_env("GridWorld-v0").describe())
    cells = np.zeros((4000, 1))
    decision, state = rule.act(cells, rng=np.random.default_rng(0))
    assert decision.desired_replicas is None
    assert np.bincount(decision.action, minlength=4).min() > 900
    walk = []
    for _ in range(400):
        decision, state = rule.act(cells[:5], state and {name: column[:5] for name, column in state.items()})
        assert len(set(decision.action.tolist())) == 1
        walk.append(int(decision.action[0]))
    assert np.bincount(walk, minlength=4).min() > 70
