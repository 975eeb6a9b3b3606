"""Who a policy must beat: every rule default and tuned, the look-ahead and the optimum, over one tiny protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scalepilot.errors import InputError
from scalepilot.evaluate.baselines import HPA_DEFAULT, baseline_names, experiment_baselines, find_rules
from scalepilot.evaluate.evaluation import OPTIMUM, OptimumOptions, describe_policy, evaluate
from scalepilot.policy import Decision, load_policy
from scalepilot.policy.rules import ForecastMpcParameters, Hpa, HpaParameters, Static, StaticParameters, make_rule
from scalepilot.simulate import OptimumCache, SerialExecutor, autoscale_optimum, protocol_v1, run_episodes, traffic_scenario
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload

PARAMS = AutoscaleParams(max_replicas=15)
TINY = DiurnalWorkload(days=1, low_rps=30, high_rps=150)
SAMPLES = 50
SEARCHED = ("static", "threshold", "tracking", "kpa", "forecast_mpc")
EVERY_OTHER_RULE = {"random", "never", *(f"{name}-{kind}" for name in SEARCHED for kind in ("default", "tuned"))}


@pytest.fixture(scope="module")
def data():
    return protocol_v1("tiny", TINY, PARAMS, window_steps=120, drawn_windows=3, test_seeds=(0, 1))


@pytest.fixture(scope="module")
def scenario(data):
    return traffic_scenario(data, PARAMS)


@pytest.fixture(scope="module")
def rules_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="module")
def rivals(scenario, rules_folder):
    names = [name for name in baseline_names(["all"], scenario) if name != HPA_DEFAULT]
    return find_rules(names, [scenario], 8, SerialExecutor(), [rules_folder])[0]


@pytest.fixture(scope="module")
def judged(scenario, rivals, tmp_path_factory):
    cache = tmp_path_factory.mktemp("optimum")
    policies = [("mine", Static(StaticParameters(9), PARAMS))]
    everyone = [Hpa(HpaParameters(), PARAMS, name=HPA_DEFAULT), *rivals]
    return evaluate(scenario, policies, everyone, bootstrap_samples=SAMPLES, optimum=OptimumOptions(cache)), cache


def test_every_rule_for_the_service_is_a_rival_default_and_tuned(rivals):
    assert {rule.spec.name for rule in rivals} == {"hpa-tuned-cpu", "hpa-tuned-rps"} | EVERY_OTHER_RULE
    assert len(rivals) == len({rule.spec.name for rule in rivals})
    tuned = [rule for rule in rivals if "-tuned" in rule.spec.name]
    assert all(rule.spec.provenance["algorithm"] == "random_search" for rule in tuned)
    assert {rule.parameters.metric for rule in rivals if rule.rule_name == "hpa"} == {"cpu", "rps"}


def test_the_default_forecast_is_fitted_and_the_rest_are_defaults(rivals):
    by_name = {rule.spec.name: rule for rule in rivals}
    forecast = by_name["forecast_mpc-default"].parameters.forecast
    assert by_name["forecast_mpc-default"].parameters == ForecastMpcParameters(forecast=forecast)
    assert forecast == by_name["forecast_mpc-tuned"].parameters.forecast is not None
    for name in ("random", "never", "static-default", "threshold-default", "tracking-default", "kpa-default"):
        assert by_name[name].parameters == make_rule(name.removesuffix("-default"), PARAMS).parameters


def test_the_evaluations_are_shared_by_hpas_metrics_and_each_other_rule_has_all(rivals):
    counts = {rule.spec.name: rule.spec.provenance.get("evaluations") for rule in rivals}
    assert (counts["hpa-tuned-cpu"], counts["hpa-tuned-rps"], counts["kpa-tuned"], counts["kpa-default"]) == (4, 4, 8, None)


def test_what_the_folder_holds_is_not_searched_again(data, scenario, rivals, rules_folder):
    stored = {path.name for path in rules_folder.iterdir()}
    assert stored == {rule.spec.name for rule in rivals if "-tuned" in rule.spec.name}
    # With no training windows nothing could be searched.
    emptied = replace(scenario, traffic=type(data)(data.train_series, None, None, data.test))
    again = experiment_baselines(emptied, ["hpa-tuned"], 8, rules_folder)
    assert again[0].spec.name == HPA_DEFAULT
    assert [rule.parameters for rule in again[1:]] == [rule.parameters for rule in rivals[:2]]


def test_a_damaged_stored_rule_is_found_anew(scenario, tmp_path):
    first = experiment_baselines(scenario, ["hpa-tuned"], 2, tmp_path)
    path = tmp_path / "hpa-tuned-cpu" / "policy.json"
    path.write_text("{")
    assert [rule.parameters for rule in experiment_baselines(scenario, ["hpa-tuned"], 2, tmp_path)] == [
        rule.parameters for rule in first
    ]
    assert load_policy(path.parent).spec.name == "hpa-tuned-cpu"


def test_policies_rules_the_look_ahead_and_the_optimum_are_judged_in_their_roles(judged):
    comparison, _ = judged
    roles = {role: {c.name for c in comparison.of_role(role)} for role in ("policy", "baseline", "reference")}
    assert roles == {
        "policy": {"mine"},
        "baseline": {HPA_DEFAULT, "hpa-tuned-cpu", "hpa-tuned-rps"} | EVERY_OTHER_RULE,
        "reference": {OPTIMUM, "look-ahead"},
    }
    assert (comparison.scope.seeds, comparison.scope.windows) == (2, 7)


def test_nothing_costs_less_than_the_optimums_lower_bound_in_any_episode(judged, data):
    comparison, cache = judged
    best = autoscale_optimum(data.test, PARAMS, cache=OptimumCache(cache))
    for contender in comparison.contenders:
        assert (contender.results["J_per_hour"] >= best.lower_J_per_hour * (1 - 1e-9)).all(), contender.name
    plan = next(c for c in comparison.contenders if c.name == OPTIMUM)
    np.testing.assert_allclose(plan.results["J_per_hour"], best.upper_J_per_hour, rtol=1e-9)
    assert f"{best.lower_J_per_hour.mean():.3f}" in plan.detail
    assert comparison.best("reference") == plan
    # The gap is closed towards the lower bound itself.
    mine, base = (
        next(c for c in comparison.contenders if c.name == name).results["J_per_hour"] for name in ("mine", HPA_DEFAULT)
    )
    kept = base - best.lower_J_per_hour >= 0.05 * base
    share = (base - mine)[kept].sum() / (base - best.lower_J_per_hour)[kept].sum()
    assert comparison.gap_closed["mine"][HPA_DEFAULT].share.mean == pytest.approx(share, rel=1e-9)


def test_the_gap_is_closed_towards_the_bound_by_policies_and_rules_and_never_beyond_it(judged):
    comparison, _ = judged
    assert (comparison.gap_reference.name, comparison.gap_reference.is_bound) == (OPTIMUM, True)
    assert set(comparison.gap_closed["mine"]) == {c.name for c in comparison.of_role("baseline")}
    for name, against in comparison.gap_closed.items():
        for baseline, closed in against.items():
            cheaper = comparison.rows[name]["J"].mean < comparison.rows[baseline]["J"].mean
            if not closed.left_out:
                assert (closed.share.mean > 0) == cheaper, (name, baseline)
            assert closed.share.mean <= 1


def test_optima_are_kept_one_file_an_episode(judged, data):
    _, cache = judged
    assert len(list(cache.glob("*.npz"))) == len(data.test)


def test_without_the_optimum_the_look_ahead_is_the_reference_and_no_bound(scenario):
    comparison = evaluate(scenario, [], [Hpa(HpaParameters(), PARAMS, name=HPA_DEFAULT)], bootstrap_samples=SAMPLES)
    assert {c.name for c in comparison.contenders} == {HPA_DEFAULT, "look-ahead"}
    assert (comparison.gap_reference.name, comparison.gap_reference.is_bound) == ("look-ahead", False)


def test_everyone_plays_back_the_episode_whose_rate_varies_most(judged, data):
    comparison, _ = judged
    first_seed = data.test.seed == data.test.seed[0]
    busiest = int(data.test.rates_rps[first_seed].std(axis=1).argmax())
    assert comparison.played_back.window == busiest
    assert all(c.playback is not None and c.playback.replicas.shape == (120,) for c in comparison.contenders)


def test_a_rival_flies_as_it_would_alone(judged, data):
    comparison, _ = judged
    default = next(c for c in comparison.contenders if c.name == HPA_DEFAULT)
    alone, _ = run_episodes(Hpa(HpaParameters(), PARAMS), data.test, PARAMS)
    np.testing.assert_array_equal(default.results["J_per_hour"], alone["J_per_hour"])
    assert default.detail == "cpu 0.70, tolerance 0.1, down 300 s, up 0 s"


def test_two_of_one_name_are_refused(scenario):
    rule = Hpa(HpaParameters(), PARAMS, name=HPA_DEFAULT)
    with pytest.raises(InputError, match="the name 'hpa-default' is given twice"):
        evaluate(scenario, [], [rule, rule], bootstrap_samples=SAMPLES)


def test_a_policy_is_described_by_how_it_came_to_be(tiny_network):
    network = tiny_network(provenance={"algorithm": "ppo", "seed": 3, "env_steps": 4_000_000})
    assert describe_policy(network) == "ppo, seed 3, 4.0 M steps"
    assert describe_policy(tiny_network(provenance={})) == "network, seed ?"
    assert describe_policy(Static(StaticParameters(3), PARAMS)) == "replicas 3"

    class Stranger:
        spec = Static(StaticParameters(3), PARAMS).spec

        def act(self, observation, state=None, *, deterministic=True, rng=None):
            return Decision(np.ones(len(observation))), None

    assert describe_policy(Stranger()) == "rule"
