"""The search for a rule's parameters: on training windows, chosen on validation, never touching the test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot.simulate import protocol_v1, run_episodes
from scalepilot.tuning import describe_parameters, draw_hpa, mean_J, tune_hpa, tune_look_ahead, tuned_rule
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload

PARAMS = AutoscaleParams()


@pytest.fixture(scope="module")
def data():
    return protocol_v1("short", DiurnalWorkload(days=2), PARAMS, window_steps=120, drawn_windows=4)


def make(group, rows):
    return Hpa([candidate for candidate in group for _ in range(rows)], PARAMS)


def test_candidates_side_by_side_score_as_each_alone(data):
    rng = np.random.default_rng(0)
    candidates = [draw_hpa(rng, ["cpu", "rps"]) for _ in range(9)]
    together = mean_J(make, candidates, data.train, PARAMS)
    alone = [float(run_episodes(Hpa(c, PARAMS), data.train, PARAMS)[0].J_per_hour.mean()) for c in candidates]
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
        scores[float(utilisation)] = results.J_per_hour.mean()
    assert best.utilisation == min(scores, key=scores.get)


def test_the_look_ahead_of_nasa_july_is_tuned_to_the_published_utilisation(traces):
    from scalepilot_envs.workloads import TraceWorkload

    workload = TraceWorkload(path=str(traces / "nasa_http_1995_07_1min.csv"), peak_rps=500.0)
    assert tune_look_ahead(protocol_v1("nasa", workload, PARAMS), PARAMS).utilisation == pytest.approx(0.85)


def test_parameters_are_described_in_one_phrase():
    assert describe_parameters(HpaParameters("rps", 0.567, 0.02, 600, 60)) == "rps 0.57, tolerance 0.02, down 600 s, up 60 s"
