"""The search for a rule's parameters: on training windows, chosen on validation, never touching the test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.evaluate.rule_search import (
    HORIZONS,
    SPACES,
    describe_parameters,
    draw_hpa,
    fitted_forecast,
    hpa_search,
    mean_J,
    rule_search,
    run_searches,
    tune_look_ahead,
    tuned_rule,
)
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import (
    RULES,
    ForecastMpcParameters,
    Hpa,
    HpaParameters,
    KpaParameters,
    NeverParameters,
    Static,
    StaticParameters,
    ThresholdParameters,
    TrackingParameters,
    make_rule,
)
from scalepilot.policy.rules.forecast import persistence
from scalepilot.simulate import SerialExecutor, protocol_v1, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload

PARAMS = AutoscaleParams()


def tune_hpa(data, params, **options):
    return run_searches([hpa_search(data, params, **options)], SerialExecutor())[0]


def tune_rule(name, data, params, progress=None, **options):
    return run_searches([rule_search(name, data, params, **options)], SerialExecutor(), progress)[0]


@pytest.fixture(scope="module")
def data():
    return protocol_v1("short", DiurnalWorkload(days=2), PARAMS, window_steps=120, drawn_windows=4)


def make(group, rows):
    return Hpa([candidate for candidate in group for _ in range(rows)], PARAMS)


def test_candidates_side_by_side_score_as_each_alone(data):
    rng = np.random.default_rng(0)
    candidates = [draw_hpa(rng, ["cpu", "rps"]) for _ in range(9)]
    together = mean_J(make, candidates, data.train, PARAMS)
    alone = [float(run_episodes(Hpa(c, PARAMS), data.train, PARAMS)[0]["J_per_hour"].mean()) for c in candidates]
    assert together == pytest.approx(alone, rel=1e-12)


def test_scores_do_not_depend_on_how_candidates_fall_into_batches(data):
    rng = np.random.default_rng(1)
    candidates = [draw_hpa(rng, ["rps"]) for _ in range(250)]
    seen = []
    scores = mean_J(make, candidates, data.train, PARAMS, seen.append)
    assert len(seen) > 1
    assert seen[-1] == 250
    assert mean_J(make, candidates[240:], data.train, PARAMS) == pytest.approx(scores[240:], rel=1e-12)


@pytest.fixture(scope="module")
def tuned(data):
    return tune_hpa(data, PARAMS, metric="rps", evaluations=40, seed=3)


class Counting(SerialExecutor):
    """As many workers as it says; keeps how many candidates each job has."""

    def __init__(self, workers):
        self.workers, self.sizes = workers, []

    def run(self, work, jobs):
        self.sizes.append([len(job.candidates) for job in jobs])
        return super().run(work, jobs)


@pytest.mark.parametrize(("workers", "jobs"), [(1, [12]), (4, [3, 3, 3, 3])])
def test_a_search_is_shared_by_all_workers_of_its_executor(data, workers, jobs):
    executor = Counting(workers)
    (found,) = run_searches([rule_search("threshold", data, PARAMS, evaluations=12)], executor)
    assert executor.sizes[0] == jobs
    assert found == tune_rule("threshold", data, PARAMS, evaluations=12), "however it is shared"


def test_the_winner_is_the_best_of_the_ten_best_on_validation(data, tuned):
    rng = np.random.default_rng(3)
    candidates = [draw_hpa(rng, ["rps"]) for _ in range(40)]
    train = mean_J(make, candidates, data.train, PARAMS)
    finalists = np.argsort(train)[:10]
    validation = mean_J(make, [candidates[i] for i in finalists], data.validation, PARAMS)
    winner = candidates[finalists[int(np.argmin(validation))]]
    assert tuned.best == winner
    assert tuned.validation_J == min(validation)
    assert tuned.train_J == train[candidates.index(winner)]
    assert tuned.evaluations == 40


def test_the_test_windows_are_never_looked_at(data, tuned):
    blind = replace(data, test=None)
    assert tune_hpa(blind, PARAMS, metric="rps", evaluations=40, seed=3) == tuned


def test_tuning_beats_the_default_where_it_was_chosen(data, tuned):
    assert tuned.validation_J < mean_J(make, [HpaParameters()], data.validation, PARAMS)[0]


def test_the_same_seed_finds_the_same_and_another_draws_others(data, tuned):
    assert tune_hpa(data, PARAMS, metric="rps", evaluations=40, seed=3) == tuned
    assert tune_hpa(data, PARAMS, metric="rps", evaluations=40, seed=4).best != tuned.best


def test_draws_cover_the_whole_space_of_the_specification():
    rng = np.random.default_rng(0)
    drawn = [draw_hpa(rng, ["cpu", "rps"]) for _ in range(2000)]
    assert {d.metric for d in drawn} == {"cpu", "rps"}
    assert {d.tolerance for d in drawn} == {0.0, 0.02, 0.05, 0.1}
    assert {d.stabilisation_down_seconds for d in drawn} == {15, 60, 120, 180, 300, 600}
    assert {d.stabilisation_up_seconds for d in drawn} == {0, 30, 60}
    targets = np.array([d.target for d in drawn])
    assert (targets.min(), targets.max()) == (pytest.approx(0.3, abs=0.01), pytest.approx(0.95, abs=0.01))


def test_a_tuned_rule_keeps_how_it_was_found_in_its_artifact(tuned, tmp_path):
    save_policy(tuned_rule("hpa", tuned, PARAMS, "hpa-rps-tuned"), tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert loaded.spec.name == "hpa-rps-tuned"
    assert loaded.parameters == tuned.best
    assert loaded.spec.provenance["evaluations"] == 40
    assert loaded.spec.provenance["validation_J_per_hour"] == tuned.validation_J


def test_the_look_aheads_utilisation_is_the_best_on_training_windows(data):
    best = tune_look_ahead(data, PARAMS)
    scores = {}
    for utilisation in np.arange(0.5, 0.96, 0.05):
        results, _ = run_episodes(replace(best, utilisation=float(utilisation)), data.train, PARAMS)
        scores[float(utilisation)] = results["J_per_hour"].mean()
    assert best.utilisation == min(scores, key=scores.get)


def test_the_look_ahead_of_nasa_july_is_tuned_to_the_published_utilisation(traces):
    from scalepilot_envs.workloads import TraceWorkload

    workload = TraceWorkload(path=str(traces / "nasa_http_1995_07_1min.csv"), peak_rps=500.0)
    assert tune_look_ahead(protocol_v1("nasa", workload, PARAMS), PARAMS).utilisation == pytest.approx(0.85)


def test_parameters_are_described_in_one_phrase():
    assert describe_parameters(HpaParameters("rps", 0.567, 0.02, 600, 60)) == "rps 0.57, tolerance 0.02, down 600 s, up 60 s"


@pytest.mark.parametrize(
    ("parameters", "phrase"),
    [
        (StaticParameters(7), "replicas 7"),
        (NeverParameters(), ""),
        (TrackingParameters(0.8512), "utilisation 0.851"),
        (ThresholdParameters(), "defaults"),
        (ThresholdParameters(step=2, cooldown_seconds=120.0, upper_backlog=50.0), "step 2, cooldown 120 s, upper backlog 50"),
        (KpaParameters(target=0.6, scale_down_delay_seconds=300.0), "target 0.6, scale down delay 300 s"),
        (ForecastMpcParameters(1.234, horizon_steps=5, forecast=persistence(12, 8)), "caution 1.23, horizon steps 5"),
        (ForecastMpcParameters(forecast=persistence(12, 8)), "defaults"),
    ],
)
def test_every_rules_parameters_are_a_phrase_without_the_fitted_forecast(parameters, phrase):
    assert describe_parameters(parameters) == phrase


# What each space spans: parameter → lowest and highest, or all of its values.
SPANS = {
    "threshold": {
        "upper": (0.1, 0.95),
        "lower": (0.1, 0.95),
        "step": {1, 2, 3, 4, 5},
        "cooldown_seconds": {0, 15, 30, 60, 120, 300},
    },
    "tracking": {"utilisation": (0.3, 0.95)},
    "kpa": {
        "target": (0.3, 0.95),
        "stable_window_seconds": {15, 30, 60, 120, 300, 600},
        "panic_threshold": (1.1, 4.0),
        "max_scale_down_rate": {1.1, 1.5, 2.0, 10.0},
        "scale_down_delay_seconds": {0, 60, 120, 300, 600},
    },
    "forecast_mpc": {
        "caution": (0.7, 1.6),
        "late_weight": (0.5, 4.0),
        "horizon_steps": set(range(2, 13)),
        "drain_steps": {1.0, 2.0, 4.0},
    },
}


@pytest.mark.parametrize("name", SPACES)
def test_each_space_draws_parameters_its_rule_takes_over_their_whole_range(name):
    rng = np.random.default_rng(0)
    drawn = [SPACES[name](rng) for _ in range(3000)]
    assert {type(d) for d in drawn} == {RULES[name].parameters_type}
    for parameter, span in SPANS[name].items():
        values = [getattr(d, parameter) for d in drawn]
        if isinstance(span, set):
            assert set(values) == span, parameter
        else:
            margin = 0.03 * (span[1] - span[0])
            assert span[0] <= min(values) <= span[0] + margin, parameter
            assert span[1] - margin <= max(values) <= span[1], parameter
    # What is not searched stays as it comes.
    for other in set(RULES[name].parameters_type.__dataclass_fields__) - set(SPANS[name]):
        assert {repr(getattr(d, other)) for d in drawn} == {repr(getattr(RULES[name].parameters_type(), other))}


def test_every_space_is_spanned_above():
    assert set(SPANS) == set(SPACES)


@pytest.mark.parametrize("name", ["static", *SPACES])
def test_a_search_is_repeatable_and_never_looks_at_the_test_windows(data, name):
    blind = replace(data, test=None)
    found = tune_rule(name, blind, PARAMS, evaluations=12, seed=5)
    assert tune_rule(name, blind, PARAMS, evaluations=12, seed=5) == found
    assert tune_rule(name, blind, PARAMS, evaluations=12, seed=6).best != found.best
    assert found.evaluations == 12
    rule = RULES[name](found.best, PARAMS)
    assert run_episodes(rule, data.validation, PARAMS)[0]["J_per_hour"].mean() == pytest.approx(found.validation_J, rel=1e-12)
    assert run_episodes(rule, data.train, PARAMS)[0]["J_per_hour"].mean() == pytest.approx(found.train_J, rel=1e-12)


def test_a_static_count_is_searched_over_the_whole_range_where_it_fits(data):
    service = replace(PARAMS, min_replicas=2, max_replicas=30)
    found = tune_rule("static", data, service, evaluations=400)
    assert found.evaluations == 29
    scores = {
        n: run_episodes(Static(StaticParameters(n), service), data.train, service)[0]["J_per_hour"].mean() for n in range(2, 31)
    }
    finalists = sorted(scores, key=scores.get)[:10]
    assert found.best.replicas in finalists
    validated = {
        n: run_episodes(Static(StaticParameters(n), service), data.validation, service)[0]["J_per_hour"].mean() for n in finalists
    }
    assert found.best.replicas == min(validated, key=validated.get)


def test_a_static_count_is_drawn_without_repeats_where_it_does_not_fit(data):
    seen = []
    assert tune_rule("static", data, PARAMS, evaluations=20, progress=seen.append).evaluations == 20
    assert seen[-1] == 20


def test_the_forecast_is_fitted_on_the_training_part_and_reaches_the_longest_horizon(data):
    forecast = fitted_forecast(data, PARAMS)
    assert len(forecast.weights) == PARAMS.startup_steps + HORIZONS[1]
    assert forecast.season == ()
    other = replace(data, train_series=data.train_series.between(0, 2000))
    assert fitted_forecast(other, PARAMS) != forecast
    found = tune_rule("forecast_mpc", data, PARAMS, evaluations=2)
    assert found.best.forecast == forecast


def test_a_training_part_too_short_for_a_forecast_is_the_users_error_in_one_line(data):
    short = replace(data, train_series=data.train_series.between(0, 900))
    with pytest.raises(InputError) as caught:
        tune_rule("forecast_mpc", short, PARAMS, evaluations=2)
    assert str(caught.value) == "short: forecast: the training part has 900 steps; allowed: from 1024"


@pytest.mark.parametrize("name", ["static", *SPACES])
def test_every_tuned_rule_is_stored_with_how_it_was_found_and_without_the_forecast_in_it(data, name, tmp_path):
    found = tune_rule(name, data, PARAMS, evaluations=2)
    save_policy(tuned_rule(name, found, PARAMS, f"{name}-tuned"), tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    assert loaded.parameters == found.best
    provenance = loaded.spec.provenance
    assert (provenance["algorithm"], provenance["evaluations"]) == ("random_search", 2)
    assert "forecast" not in provenance["parameters"]
    assert make_rule(name, PARAMS, provenance["parameters"]).rule_name == name
