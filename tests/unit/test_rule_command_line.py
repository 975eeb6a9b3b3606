"""Rules with settings in one word: `hpa:target=0.8,down=600`."""

from __future__ import annotations

import json

import pytest

from scalepilot.cli import main
from scalepilot.config import config_from_mapping
from scalepilot.errors import InputError
from scalepilot.evaluate.baselines import baseline_names, is_rule_name
from scalepilot.policy.rules import RULES, HpaParameters, KpaParameters, StaticParameters, ThresholdParameters
from scalepilot.policy.rules.command_line import policy_name, rule_from_text, settings_from_text
from scalepilot.policy.spec import NAME_PATTERN
from scalepilot.simulate import scenario_of
from scalepilot_envs.autoscale import AutoscaleParams


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("hpa", HpaParameters()),
        ("hpa:target=0.8,down=600", HpaParameters(target=0.8, stabilisation_down_seconds=600.0)),
        ("hpa:metric=rps,up=60,tolerance=0", HpaParameters("rps", tolerance=0.0, stabilisation_up_seconds=60.0)),
        ("hpa:stabilisation_up=60", HpaParameters(stabilisation_up_seconds=60.0)),
        ("hpa:stabilisation_up_seconds=60", HpaParameters(stabilisation_up_seconds=60.0)),
        (
            "hpa:policies_up=2/60+50%/60,select_up=Min,policies_down=10%/60,tolerance_up=0.05",
            HpaParameters(policies_up="2/60+50%/60", select_up="Min", policies_down="10%/60", tolerance_up=0.05),
        ),
        ("hpa:metric=cpu+rps,target_rps=0.6", HpaParameters("cpu+rps", target_rps=0.6)),
        ("hpa:tolerance_down=none", HpaParameters()),
        ("kpa:target=0.8,stable_window=120", KpaParameters(target=0.8, stable_window_seconds=120.0)),
        ("static: replicas = 7", StaticParameters(7)),
        ("threshold:upper=0.9,step=2,upper_backlog=50", ThresholdParameters(upper=0.9, step=2, upper_backlog=50.0)),
    ],
)
def test_settings_are_read_by_their_names_and_short_names(text, parameters):
    rule = rule_from_text(text, AutoscaleParams())
    assert rule.parameters == parameters
    assert NAME_PATTERN.fullmatch(rule.spec.name)
    assert is_rule_name(text)
    assert rule_from_text(text, AutoscaleParams(), name="x").spec.name == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "hpa:targt=0.8",
            "'targt' is not a setting of hpa; allowed: metric, target, tolerance, down, up, target_rps, tol",
        ),
        ("hpa:targt=0.8", "; did you mean target?"),
        ("hpa:0.8", "'0.8' is not KEY=VALUE; allowed: metric"),
        ("hpa:", "'' is not KEY=VALUE"),
        ("hpa:target=0.8,", "'' is not KEY=VALUE"),
        ("hpa:target=", "target: '' is not allowed; allowed: numbers"),
        ("hpa:target=high", "target: 'high' is not allowed; allowed: numbers"),
        ("hpa:target=nan", "target: 'nan' is not allowed; allowed: numbers"),
        ("hpa:target=11", "target: 11.0 is not allowed; allowed: above 0 to 10"),
        ("hpa:down=60,stabilisation_down=30", "stabilisation_down_seconds is given twice"),
        ("hpa:metric=memory", "metric: 'memory' is not allowed; allowed: cpu, rps, cpu+rps"),
        ("hpa:policies_up=ten", "policies_up: 'ten' is not allowed; allowed: PODS/SECONDS or PERCENT%/SECONDS"),
        ("static:replicas=2.5", "replicas: '2.5' is not allowed; allowed: whole numbers"),
        ("never:x=1", "never has nothing to set"),
        ("forecast_mpc:forecast=1", "'forecast' is not a setting of forecast_mpc; allowed: caution"),
    ],
)
def test_what_is_not_a_setting_is_refused_with_the_allowed_ones(text, message):
    with pytest.raises(InputError) as caught:
        rule_from_text(text, AutoscaleParams())
    assert str(caught.value).startswith(f"{text}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_rules_settings_can_be_written_and_read_back():
    for name, rule in RULES.items():
        defaults = rule.parameters_type()
        for key, value in vars(defaults).items():
            if isinstance(value, int | float | str):
                assert settings_from_text(f"{name}:{key}={value}") == {key: value}


def test_baselines_with_settings_stand_behind_the_others_as_they_were_written():
    asked = ["hpa:target=0.8", "kpa-default", "hpa-tuned", "hpa:target=0.8", "hpa:target=0.9"]
    expected = ["hpa-tuned-cpu", "hpa-tuned-rps", "kpa-default", "hpa:target=0.8", "hpa:target=0.9"]
    scenario = scenario_of(config_from_mapping({"evaluation": {"window_steps": 240}}))
    assert baseline_names(asked, scenario) == expected
    for wrong in ("hpa:targt=1", "hpa-default:target=0.8", "hpaa:target=0.8"):
        with pytest.raises(InputError, match="allowed"):
            baseline_names([wrong], scenario)
    assert policy_name("hpa:policies_up=10%/60") == "hpa-policies_up-10pctper60"


def test_a_comparison_takes_rules_with_settings_on_both_sides(capsys):
    given = ["kpa:target=0.6", "--baseline", "hpa:target=0.8,down=600", "--workload", "spike", "--json"]
    small = ["--windows", "1", "--seeds", "1", "--steps", "40", "--no-optimum", "--jobs", "1"]
    assert main(["compare", *given, *small]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"kpa:target=0.6", "hpa:target=0.8,down=600"} <= set(found["policies"])


def test_a_wrong_setting_ends_in_one_line(capsys):
    for command in (["compare", "hpa:targt=1"], ["compare", "kpa", "--baseline", "hpa:targt=1"], ["demo", "hpa:targt=1"]):
        assert main([*command, *(["--no-render"] if command[0] == "demo" else ["--no-optimum"])]) == 2
        told = capsys.readouterr()
        assert not told.out
        assert "'targt' is not a setting of hpa; allowed: metric" in told.err.strip().splitlines()[-1]
