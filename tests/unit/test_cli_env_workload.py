"""`scalepilot env` and `scalepilot workload`, as a person types them."""

from __future__ import annotations

import json

import pytest

from scalepilot.cli import main
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields


def said(capsys, *arguments, code=0):
    """What a command prints, on standard output where it succeeds and on standard error where it does not."""
    assert main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    if code:
        assert out == ""
        assert err.count("\n") == 1
        return err
    return out


def csv(tmp_path, minutes=10, name="mine.csv", text=None):
    path = tmp_path / name
    stamps = [f"2024-01-{1 + i // 1440:02d}T{i // 60 % 24:02d}:{i % 60:02d}:00Z,{i % 17}\n" for i in range(minutes)]
    path.write_text(text or "timestamp,requests_per_second\n" + "".join(stamps))
    return path


def test_every_environment_is_listed_in_one_line(capsys):
    assert said(capsys, "env", "list").splitlines()[0].startswith("scalepilot/Autoscale-v0  a replicated HTTP service")
    assert json.loads(said(capsys, "env", "list", "--json"))[0]["id"] == "scalepilot/Autoscale-v0"


def test_an_environment_is_shown_with_every_field_action_and_parameter(capsys):
    text = said(capsys, "env", "show")
    for f in observation_fields(AutoscaleParams(observe_clock=True)):
        assert f.name in text
        if f.promql:
            assert f"    {f.promql}\n" in text
    for words in ("Box(21)", "Discrete(8)", "+25 %, +100 %", "price_per_late_request", "0.001", "option observe_clock"):
        assert words in text
    lines = text[: text.index("PromQL")].splitlines()
    assert max(len(line) for line in lines) <= 100


def test_an_environment_as_json_holds_units_bounds_queries_and_defaults(capsys):
    shown = json.loads(said(capsys, "env", "show", "Autoscale-v0", "--json"))
    assert shown["observation_space"]["shape"] == [21]
    assert shown["action_space"]["n"] == len(shown["actions"]) == 8
    fields = {f["name"]: f for f in shown["fields"]}
    assert len(fields) == 25
    assert fields["cpu_utilisation"]["unit"] == "share"
    assert (fields["cpu_utilisation"]["low"], fields["cpu_utilisation"]["high"]) == (0, 1)
    assert fields["request_rate_rps_3"]["promql"] == "sum(rate(http_requests_total{$selector}[15s] offset 45s))"
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
