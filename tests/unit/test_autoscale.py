"""Autoscale-v0 against the executable specification, and what surrounds its transition."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from scalepilot_envs.autoscale import (
    DEFAULT_MOVES,
    AutoscaleBatch,
    AutoscaleParams,
    Move,
    MoveTable,
    Randomisation,
    observation_fields,
)
from scalepilot_envs.autoscale.env import make_env, make_vector_env
from scalepilot_envs.workloads import RateSeries

DATA = Path(__file__).parents[1] / "data" / "golden_autoscale.npz"
SCENARIOS = range(20)
STEADY = RateSeries(np.full(64, 100.0), 15.0)


@pytest.fixture(scope="module")
def stored():
    with np.load(DATA, allow_pickle=False) as arrays:
        return json.loads(str(arrays["scenarios"])), {name: arrays[name] for name in arrays.files if name != "scenarios"}


def replay(params, rates, arrived, controls, by_action, copies=1):
    """Fly given inputs through `copies` equal environments; fields (1 + steps, num_fields, copies), the rest (steps, copies)."""
    batch = AutoscaleBatch(copies, workload=RateSeries(rates, params.interval_seconds), params=params, episode_steps=len(rates))
    options = {"rates_rps": np.tile(rates, (copies, 1))}
    if arrived is not None:
        options["arrived"] = np.tile(arrived, (copies, 1))
    batch.reset_batch(None, options)
    fields, columns = [batch.state.observe()], []
    for control in controls:
        move = np.full(copies, control)
        info = (batch.step_batch(move) if by_action else batch.step_targets(move)).info
        columns.append([info[k] for k in ("J", "late_requests", "dropped_requests", "billed_replicas", "change_replicas")])
        fields.append(batch.state.observe())
    names = ("J", "late", "dropped", "billed_replicas", "change")
    return dict(zip(names, np.moveaxis(np.array(columns), 1, 0), strict=True)) | {"fields": np.array(fields)}


def assert_same_trajectory(ours, golden):
    for name, expected in golden.items():
        actual = ours[name]
        expected = np.broadcast_to(expected[..., None], actual.shape)
        if name in ("billed_replicas", "change"):
            np.testing.assert_array_equal(actual, expected, err_msg=name)
        else:
            np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_stored_trajectories_of_the_specification_are_replayed_to_1e_9(stored, scenario):
    descriptions, arrays = stored
    described, at = descriptions[scenario], lambda name: arrays[f"{scenario}/{name}"]
    params = AutoscaleParams(**described["params"])
    arrived = None if described["exact"] else at("arrived")
    ours = replay(params, at("rates"), arrived, at("controls"), described["by_action"], copies=2)
    assert_same_trajectory(ours, {name: at(name) for name in ("J", "late", "dropped", "billed_replicas", "change", "fields")})


def test_the_stored_trajectories_reach_overload_idleness_and_both_bounds(stored):
    descriptions, arrays = stored
    column = lambda name: np.concatenate([arrays[f"{i}/{name}"] for i in SCENARIOS])  # noqa: E731
    assert (column("dropped") > 0).any()
    assert (column("arrived") == 0).any()
    assert (column("change") < 0).any()
    assert (column("change") > 0).any()
    at_bounds = [
        {d["params"]["min_replicas"], d["params"]["max_replicas"]} <= set(arrays[f"{i}/billed_replicas"].tolist())
        for i, d in enumerate(descriptions)
    ]
    assert sum(at_bounds) >= 5


@pytest.mark.parametrize("seed", range(5))
def test_fresh_trajectories_of_the_live_specification_are_replayed_to_1e_9(golden, seed):
    reference, rng = golden("autoscale"), np.random.default_rng(1000 + seed)
    values = {
        "interval_seconds": float(rng.choice([5, 15, 60])),
        "startup_seconds": float(rng.uniform(1, 400)),
        "replica_capacity_rps": float(rng.uniform(2, 200)),
        "min_replicas": int(rng.integers(1, 6)),
        "max_replicas": int(rng.integers(6, 90)),
        "wait_slo_seconds": float(rng.uniform(0, 3)),
        "price_per_move": float(rng.uniform(0, 0.1)),
    }
    params = AutoscaleParams(**values)
    rates = rng.uniform(0, 1.2, 200) * params.replica_capacity_rps * params.max_replicas
    arrived = rng.poisson(rates * params.interval_seconds).astype(float)
    controls = rng.integers(0, 8, 200)
    service = reference.Autoscale(reference.Params(**values))
    fields, steps = [list(service.reset(float(rates[0])).values())], []
    for rate, count, action in zip(rates, arrived, controls, strict=True):
        steps.append(service.step(service.target_of(int(action)), float(rate), float(count)))
        fields.append(list(steps[-1]["observation"].values()))
    expected = {name: np.array([s[name] for s in steps]) for name in ("J", "late", "dropped", "billed_replicas", "change")}
    assert_same_trajectory(replay(params, rates, arrived, controls, True), expected | {"fields": np.array(fields, dtype=float)})


def test_parameter_names_defaults_and_moves_are_the_specifications(golden):
    reference = golden("autoscale")
    ours = asdict(AutoscaleParams())
    assert {name: ours[name] for name in asdict(reference.Params())} == asdict(reference.Params())
    assert tuple((m.kind, m.size) for m in DEFAULT_MOVES) == reference.MOVES


def test_field_names_and_their_order_are_the_specifications(golden):
    reference = golden("autoscale")
    names = list(reference.Autoscale().reset(100.0))
    assert [f.name for f in observation_fields(AutoscaleParams())] == names


def test_randomised_environments_each_follow_the_specification_with_their_own_draw(golden):
    reference = golden("autoscale")
    randomisation = Randomisation(workload_scale=(0.5, 1.5), capacity_scale=(0.5, 2.0), startup_scale=(0.25, 4.0))
    batch = AutoscaleBatch(8, workload=STEADY, randomisation=randomisation, episode_steps=60)
    batch.seed_streams(list(range(8)))
    batch.reset_batch()
    rates, arrived, state = batch._rates.copy(), batch._arrived.copy(), batch.state
    assert len(set(state.startup_steps.tolist())) > 2
    assert len(set(state.capacity_rps.tolist())) == 8
    services = []
    for i in range(8):
        params = reference.Params(
            replica_capacity_rps=float(state.capacity_rps[i]), startup_seconds=15.0 * int(state.startup_steps[i])
        )
        services.append(reference.Autoscale(params))
        services[i].reset(float(rates[0, i]))
    rng = np.random.default_rng(5)
    for t in range(60):
        targets = rng.integers(0, 62, 8)
        info = batch.step_targets(targets).info
        observed = state.observe()
        for i, service in enumerate(services):
            step = service.step(int(targets[i]), float(rates[t, i]), float(arrived[t, i]))
            np.testing.assert_allclose(observed[:, i], list(step["observation"].values()), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(info["J"][i], step["J"], rtol=1e-9)


def test_randomisation_draws_anew_each_episode_and_within_its_ranges():
    batch = AutoscaleBatch(16, workload=STEADY, randomisation={"capacity_scale": (0.5, 2.0)}, episode_steps=4)
    batch.seed_streams(list(range(16)))
    batch.reset_batch()
    first = batch.state.capacity_rps.copy()
    batch.reset_batch()
    assert (first != batch.state.capacity_rps).all()
    assert ((batch.state.capacity_rps >= 10) & (batch.state.capacity_rps <= 40)).all()
    assert (batch.state.startup_steps == 4).all()


def starts(**arguments):
    """Where 300 environments begin, and their state's draws."""
    batch = AutoscaleBatch(300, workload={"kind": "diurnal", "days": 2}, episode_steps=10, **arguments)
    batch.seed_streams(list(range(300)))
    batch.reset_batch()
    return batch._start_seconds, batch.state.capacity_rps


def test_randomness_of_one_kind_never_shifts_that_of_another():
    plain, _ = starts()
    np.testing.assert_array_equal(starts(arrivals="exact")[0], plain)
    np.testing.assert_array_equal(starts(randomisation={"capacity_scale": (0.5, 2.0)})[0], plain)


def test_every_environment_and_kind_of_randomness_has_a_stream_of_its_own():
    batch = AutoscaleBatch(50, workload=STEADY, episode_steps=10)
    batch.seed_streams(list(range(50)))
    kinds = ("window", "arrivals", "randomisation", "measurement")
    first = [batch._streams.of(kind, i).random() for kind in kinds for i in range(50)]
    assert len(first) == len(set(first)) == 200


def test_arrivals_never_depend_on_actions():
    seen = []
    for action in (0, 7):
        envs = make_vector_env(3, workload=STEADY, episode_steps=8)
        envs.reset(seed=5)
        seen.append([envs.step(np.full(3, action))[-1]["arrived_requests"] for _ in range(30)])
    np.testing.assert_array_equal(seen[0], seen[1])
    assert len(np.unique(seen[0])) > 20


def test_a_replica_ordered_now_serves_after_its_start_up_time():
    env = make_env(workload=STEADY, params={"startup_seconds": 60.0}, arrivals="exact", episode_steps=20)
    env.reset(seed=0)
    ready = [env.step_targets(12)[0][15] for _ in range(6)]
    assert ready == [8, 8, 8, 12, 12, 12]


def test_cancelling_takes_the_newest_orders_before_ready_replicas():
    batch = AutoscaleBatch(1, workload=STEADY, arrivals="exact", episode_steps=20)
    batch.reset_batch(None, {"rates_rps": np.full((1, 20), 100.0)})
    for target in (10, 13, 11):
        batch.step_targets(np.array([target]))
    assert batch.state.ready.tolist() == [8]
    assert batch.state.starting[:, 0].tolist() == [2, 1, 0, 0]
    batch.step_targets(np.array([5]))
    assert batch.state.ready.tolist() == [5]
    assert batch.state.starting.sum() == 0


def test_the_bill_adds_replicas_late_requests_and_moves():
    params = AutoscaleParams(price_per_replica_hour=3.6, price_per_late_request=0.5, price_per_move=2.0)
    env = make_env(workload=RateSeries(np.full(8, 5000.0), 15.0), params=params, arrivals="exact", episode_steps=4)
    env.reset(seed=0)
    *_, info = env.step_targets(57)
    assert info["replica_cost"] == pytest.approx(57 * 3.6 * 15 / 3600)
    assert info["move_cost"] == pytest.approx(3 * 2.0)
    assert info["late_cost"] == pytest.approx(0.5 * info["late_requests"])
    assert info["J"] == pytest.approx(info["replica_cost"] + info["late_cost"] + info["move_cost"])


def test_the_reward_is_minus_J_times_one_constant():
    env = make_env(workload=STEADY, params={"reward_per_currency": 7.0}, episode_steps=4)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(7)
    assert reward == pytest.approx(-7.0 * info["J"])


def test_relative_moves_round_away_from_zero_and_absolute_ones_add():
    table = MoveTable(DEFAULT_MOVES)
    totals = np.full(8, 10.0)
    assert table.targets(np.arange(8), totals).tolist() == [7, 8, 9, 10, 11, 12, 13, 20]
    assert table.targets(np.array([0, 6]), np.array([1.0, 1.0])).tolist() == [0, 2]


def test_move_labels_say_what_a_person_reads():
    assert [m.label for m in DEFAULT_MOVES] == ["−25 %", "−2", "−1", "hold", "+1", "+2", "+25 %", "+100 %"]


@pytest.mark.parametrize(("kind", "size"), [("absolute", 0.5), ("relative", float("nan")), ("sideways", 1)])
def test_a_move_that_means_nothing_is_refused(kind, size):
    with pytest.raises(ValueError, match=r"moves\.(kind|size).*allowed"):
        Move(kind, size)


def test_fractional_targets_are_rounded_to_whole_replicas():
    env = make_env(workload=STEADY, episode_steps=4)
    env.reset(seed=0)
    assert env.step_targets(9.4)[-1]["billed_replicas"] == 9
    assert env.step_targets(9.6)[-1]["billed_replicas"] == 10


@pytest.mark.parametrize("targets", [[float("nan"), 1.0], [1.0], [[1.0, 2.0]]])
def test_targets_that_are_not_one_number_an_environment_are_refused(targets):
    env = make_vector_env(2, workload=STEADY, episode_steps=4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"desired_replicas: .* is not allowed"):
        env.step_targets(np.array(targets))


@pytest.mark.parametrize("actions", [[0, 8], [-1, 0], [0.5, 1.0], [0], [[0, 1]]])
def test_actions_outside_the_table_are_refused_and_change_nothing(actions):
    env = make_vector_env(2, workload=STEADY, episode_steps=4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions: .* is not allowed; allowed: "):
        env.step(np.array(actions))
    assert env.batch.state.total.tolist() == [8, 8]


def test_given_rates_replace_the_draw_only_where_the_mask_is_true():
    env = make_vector_env(2, autoreset_mode="Disabled", workload=STEADY, arrivals="exact", episode_steps=4)
    env.reset(options={"rates_rps": np.array([[10.0] * 4, [20.0] * 4])})
    env.reset(options={"rates_rps": np.full((2, 4), 300.0), "reset_mask": np.array([True, False])})
    observation = env.step(np.array([3, 3]))[0]
    assert observation[:, 0].tolist() == [300.0, 20.0]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"rates_rps": np.ones((2, 3))}, "rates_rps"),
        ({"rates_rps": np.ones((1, 4)), "arrived": np.ones((1, 5))}, "arrived"),
        ({"rates_rps": np.array([[1.0, -1.0, 1.0, 1.0]])}, "rates_rps"),
        ({"rates_rps": np.array([[1.0, np.nan, 1.0, 1.0]])}, "rates_rps"),
    ],
)
def test_given_rates_of_the_wrong_shape_or_value_are_refused(options, field):
    env = make_env(workload=STEADY, episode_steps=4)
    with pytest.raises(ValueError, match=f"{field}: .*allowed"):
        env.reset(options=options)


def test_the_clock_shows_the_time_of_day_and_of_the_week():
    # 2024-01-01 was a Monday; at its noon the day is half over and the week a fourteenth.
    noon = 1_704_110_400.0
    env = make_env(workload=RateSeries(np.full(8, 50.0), 15.0), params={"observe_clock": True}, episode_steps=4)
    observation, _ = env.reset(options={"rates_rps": np.full((1, 4), 50.0), "start_unix_seconds": np.array([noon])})
    names = [f.name for f in env.batch.fields]
    clock = dict(zip(names, observation, strict=True))
    assert clock["clock_day_sin"] == pytest.approx(0, abs=1e-6)
    assert clock["clock_day_cos"] == pytest.approx(-1)
    assert clock["clock_week_sin"] == pytest.approx(np.sin(2 * np.pi / 14))
    assert clock["clock_week_cos"] == pytest.approx(np.cos(2 * np.pi / 14))
    later = dict(zip(names, env.step(3)[0], strict=True))
    assert later["clock_day_sin"] == pytest.approx(np.sin(np.pi + 2 * np.pi * 15 / 86_400), abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_replicas": 10, "max_replicas": 5}, "max_replicas: 5 is below min_replicas 10; allowed: from 10"),
        ({"min_replicas": -1}, "min_replicas: -1 is not allowed; allowed: whole numbers from 0"),
        ({"min_replicas": 0, "max_replicas": 0}, "max_replicas: 0 is not allowed; allowed: whole numbers from 1"),
        ({"interval_seconds": 0.0}, "interval_seconds: 0.0 is not allowed; allowed: finite numbers above 0"),
        ({"startup_seconds": float("nan")}, "startup_seconds: nan is not allowed"),
        ({"price_per_move": -1.0}, "price_per_move: -1.0 is not allowed; allowed: finite numbers from 0"),
        ({"max_replicas": 5.5}, "max_replicas: 5.5 is not allowed; allowed: whole numbers"),
        ({"max_replicas": 10**9}, "max_replicas: 1000000000 is not allowed; allowed: whole numbers from 1 to 1000000"),
        ({"window_steps": 10**9}, "window_steps: 1000000000 is not allowed; allowed: whole numbers from 1 to 10000"),
        ({"startup_seconds": 1e9}, "startup_seconds: 1000000000.0 is not allowed; allowed: up to 10000 intervals of 15 s"),
        ({"history_steps": 41}, "history_steps: 41 is not allowed; allowed: 1 to window_steps (40)"),
        ({"load_balancing": "round_robin"}, "load_balancing: 'round_robin' is not allowed; allowed: central, random"),
        ({"waiting_probability": "exact"}, "waiting_probability: 'exact' is not allowed; allowed: sakasegawa, erlang_c"),
        ({"metric_lag_steps": -1}, "metric_lag_steps: -1 is not allowed; allowed: whole numbers from 0 to 10000"),
        ({"metric_lag_steps": 1.5}, "metric_lag_steps: 1.5 is not allowed; allowed: whole numbers"),
        ({"max_replica": 3}, "params.max_replica: unknown key; allowed: "),
    ],
)
def test_physical_constants_out_of_range_are_named_with_what_is_allowed(values, message):
    with pytest.raises(ValueError) as caught:
        AutoscaleParams.from_mapping(values)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"episode_steps": 0}, "episode_steps"),
        ({"episode_steps": 1000}, "episode_steps"),
        ({"arrivals": "sometimes"}, "arrivals"),
        ({"moves": ()}, "moves"),
        ({"workload": {"kind": "diurnl"}}, r"workload\.kind"),
        ({"randomisation": {"capacity_scale": (2.0, 1.0)}}, "capacity_scale"),
    ],
)
def test_environment_arguments_out_of_range_are_named(arguments, field):
    with pytest.raises(ValueError, match=f"^{field}: .*(allowed|longer)"):
        AutoscaleBatch(**{"num_envs": 1, "workload": STEADY, "episode_steps": 8} | arguments)


def test_every_field_has_a_unit_bounds_a_description_and_a_query_or_is_a_constant():
    fields = observation_fields(AutoscaleParams(observe_clock=True))
    assert len({f.name for f in fields}) == len(fields) == 25
    for f in fields:
        assert f.unit, f.name
        assert f.low < f.high, f.name
        assert f.description, f.name
        assert f.promql or f.name == "replica_capacity_rps" or f.name.startswith("clock_"), f.name


def test_rendering_says_step_rate_and_replicas_in_one_line():
    env = make_env(render_mode="ansi", workload=STEADY, arrivals="exact", episode_steps=8)
    env.reset(seed=0)
    env.step(4)
    assert " ".join(env.render().split()) == "step 1 rate 100.0 rps ready 8 starting 1 late 0.000%"


@pytest.mark.parametrize("scenario", [0, 10])
def test_the_python_loop_that_benchmarks_are_measured_against_does_the_same_work(stored, repo, scenario):
    described, arrays = stored
    spec = importlib.util.spec_from_file_location("scalar_service", repo / "benchmarks" / "scalar_service.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    service, at = module.Autoscale(), lambda name: arrays[f"{scenario}/{name}"]
    service.reset(float(at("rates")[0]))
    costs = []
    for control, rate, arrived in zip(at("controls").tolist(), at("rates"), at("arrived"), strict=True):
        target = service.target_of(control) if described[scenario]["by_action"] else control
        costs.append(service.step(target, float(rate), float(arrived))["J"])
    np.testing.assert_allclose(costs, at("J"), rtol=1e-9)
    assert len(service.observe()) == 21


MEASURED = slice(0, 15)  # rates, their mean and deviation, utilisation, latency, late and error share, backlog
COUNTED = slice(15, 21)  # replicas and capacity


def flown(steps=60, **arguments):
    """(1 + steps, num_fields) fields of one environment whose targets wander, and what each step cost."""
    env = make_env(workload={"kind": "diurnal", "days": 1}, episode_steps=60, **arguments)
    seen, costs = [env.reset(seed=3)[0]], []
    targets = np.random.default_rng(0).integers(4, 30, 60)
    for target in targets[:steps]:
        observation, *_, info = env.step_targets(int(target))
        seen.append(observation)
        costs.append(info["J"])
    return np.array(seen), np.array(costs)


@pytest.mark.parametrize("lag", [1, 4, 50])
def test_a_metric_lag_shows_what_was_measured_so_many_steps_ago_and_current_replicas(lag):
    prompt, costs = flown()
    late, same_costs = flown(params={"metric_lag_steps": lag})
    np.testing.assert_array_equal(late[:, COUNTED], prompt[:, COUNTED])
    # Sums over a window are rounded by its order in memory.
    np.testing.assert_allclose(late[lag:, MEASURED], prompt[: len(prompt) - lag, MEASURED], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(late[:lag, MEASURED], np.tile(prompt[0, MEASURED], (lag, 1)), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(same_costs, costs)
    assert (prompt[lag:, 0] != late[lag:, 0]).all()


def test_a_metric_lag_forgets_the_last_episode_where_one_begins():
    envs = make_vector_env(2, autoreset_mode="Disabled", workload=STEADY, params={"metric_lag_steps": 3}, episode_steps=20)
    first = envs.reset(seed=[1, 2], options={"rates_rps": np.full((2, 20), 100.0)})[0]
    for _ in range(5):
        running = envs.step_targets(np.array([2, 2]))[0]
    again = envs.reset(
        options={"rates_rps": np.full((2, 20), 40.0), "reset_mask": np.array([True, False])},
    )[0]
    np.testing.assert_array_equal(again[1], running[1])
    assert again[0, :9].tolist() == [40.0] * 9
    assert again[0, 10:15] == pytest.approx([40 / 60, 0.05, 0, 0, 0])
    assert first[0, 0] == 100.0


def test_measurement_noise_blurs_rate_utilisation_and_latency_and_nothing_else():
    clear, costs = flown()
    noisy, same_costs = flown(randomisation={"measurement_noise": (0.2, 0.2)})
    np.testing.assert_array_equal(same_costs, costs)
    exact = [12, 13, 14, *range(15, 21)]  # late and error share, backlog, replicas, capacity
    np.testing.assert_array_equal(noisy[:, exact], clear[:, exact])
    for field in (0, 11):
        assert (noisy[:, field] != clear[:, field]).all(), field
    busy = clear[:, 10] < 0.99
    assert (noisy[busy, 10] != clear[busy, 10]).mean() > 0.8, "utilisation, up to its bound of 1"
    # A rate is measured once: it keeps its error while it grows old.
    np.testing.assert_array_equal(noisy[1:, 1], noisy[:-1, 0])


def test_measurement_noise_has_the_deviation_asked_for_mean_1_and_is_independent():
    batch = AutoscaleBatch(40, workload=STEADY, randomisation={"measurement_noise": (0.2, 0.2)}, episode_steps=60)
    batch.seed_streams(list(range(40)))
    batch.reset_batch()
    factors = np.moveaxis(batch.disturbances.noise, 1, 0).reshape(3, -1)
    assert factors.mean(axis=1) == pytest.approx([1, 1, 1], abs=0.015)
    assert factors.std(axis=1) == pytest.approx([0.2] * 3, abs=0.015)
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 0.06
    assert abs(np.corrcoef(factors[0, :-40], factors[0, 40:])[0, 1]) < 0.06, "from step to step"


def test_measurement_noise_is_drawn_apart_from_everything_else_and_anew_each_episode():
    plain, _ = starts()
    np.testing.assert_array_equal(starts(randomisation={"measurement_noise": (0.1, 0.3)})[0], plain)
    batch = AutoscaleBatch(2, workload=STEADY, randomisation={"measurement_noise": (0.1, 0.3)}, episode_steps=8)
    batch.seed_streams([0, 1])
    batch.reset_batch()
    first = batch.disturbances.noise.copy()
    batch.reset_batch()
    assert (first != batch.disturbances.noise).all()
    assert (first[..., 0] != first[..., 1]).all()


def test_given_episodes_are_measured_without_noise():
    env = make_env(workload=STEADY, randomisation={"measurement_noise": (0.5, 0.5)}, arrivals="exact", episode_steps=4)
    env.reset(seed=0)
    observation, _ = env.reset(options={"rates_rps": np.full((1, 4), 100.0)})
    assert observation[:9].tolist() == [100.0] * 9
    assert env.step_targets(8)[0][0] == 100.0


@pytest.mark.parametrize("wrong", [(-0.1, 0.1), (0.2, 0.1), (0.0, float("inf")), (float("nan"), 0.1)])
def test_an_unfit_range_of_measurement_noise_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"measurement_noise: .* is not allowed; allowed: (0 <= low <= high|up to 100)"):
        Randomisation(measurement_noise=wrong)
