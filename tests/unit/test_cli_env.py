"""`scalepilot env`, as a person types it."""

from __future__ import annotations

import json

import pytest
from tests.commands import said

from scalepilot.cli import main
from scalepilot_envs import ENVS
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields


def test_every_environment_is_listed_in_one_line(capsys):
    lines = said(capsys, "env", "list").splitlines()
    assert [line.split()[0] for line in lines] == list(ENVS)
    assert "a replicated HTTP service" in lines[0]
    assert json.loads(said(capsys, "env", "list", "--json"))[0]["id"] == "scalepilot/Autoscale-v0"


def test_an_environment_is_shown_with_every_field_action_and_parameter(capsys):
    text = said(capsys, "env", "show")
    for f in observation_fields(AutoscaleParams(observe_clock=True, observe_service=True, long_window_steps=960)):
        assert f.name in text
        if f.promql:
            assert f"    {f.promql}\n" in text
    for words in ("Box(21)", "Discrete(8)", "6 +25 %, 7 +100 %", "price_per_late_request", "0.001"):
        assert words in text
    for option in ("observe_clock", "observe_service", "long_window_steps"):
        assert f"(option {option})" in " ".join(text.split())
    lines = text[: text.index("PromQL")].splitlines()
    assert max(len(line) for line in lines) <= 100


def test_an_environment_as_json_holds_units_bounds_queries_and_defaults(capsys):
    shown = json.loads(said(capsys, "env", "show", "Autoscale-v0", "--json"))
    assert shown["observation_space"]["shape"] == [21]
    assert shown["action_space"]["n"] == len(shown["actions"]) == 8
    fields = {f["name"]: f for f in shown["fields"]}
    assert len(fields) == 44
    assert fields["cpu_utilisation"]["unit"] == "share"
    assert (fields["cpu_utilisation"]["low"], fields["cpu_utilisation"]["high"]) == (0, 1)
    assert fields["request_rate_rps_3"]["promql"] == "sum(rate(http_requests_total{$selector}[$window] offset 45s))"
    assert fields["clock_day_sin"]["option"] == "observe_clock"
    assert fields["ready_replicas"]["option"] is None
    assert shown["params"]["startup_seconds"] == {"default": 60, "description": "time from ordering a replica until it serves."}
    assert all(entry["description"] for entry in shown["params"].values())


def test_an_unknown_environment_is_refused_with_the_nearest(capsys):
    assert said(capsys, "env", "show", "Autoscal-v0", code=2).endswith("did you mean Autoscale-v0?\n")


def test_a_command_without_its_verb_is_refused_in_one_line(capsys):
    for command in ("env", "workload"):
        with pytest.raises(SystemExit) as caught:
            main([command])
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("env_id", ENVS)
def test_every_environment_is_described_in_full(capsys, env_id):
    described = json.loads(said(capsys, "env", "show", env_id, "--json"))
    assert described["id"] == env_id
    assert {"fields", "actions", "reward", "end", "rules", "params", "observation_space", "action_space"} <= set(described)
    assert all(entry["description"] for entry in described["params"].values())
    text = said(capsys, "env", "show", env_id)
    for f in described["fields"]:
        assert f["name"] in text
        assert f["unit"] in text or " " in f["unit"]


def test_the_page_of_environments_is_what_the_code_says(capsys, repo):
    page = (repo / "docs" / "environments.md").read_text(encoding="utf-8")
    assert page == said(capsys, "env", "list", "--markdown"), "run: scalepilot env list --markdown > docs/environments.md"
