"""`scalepilot env` and `scalepilot workload`, as a person types them."""

from __future__ import annotations

import json
import shlex

import pytest

from scalepilot.cli import build_parser, main
from scalepilot.config import load_config, with_trace
from scalepilot.simulate import protocol_v1
from scalepilot_envs.autoscale import AutoscaleParams, observation_fields
from scalepilot_envs.workloads import read_csv


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


def test_a_csv_is_shown_with_statistics_split_and_a_plot(capsys, tmp_path):
    text = said(capsys, "workload", "show", csv(tmp_path, 3000))
    for words in ("trace, 3,000 points every 60 s", "2.1 days", "min", "p99", "train", "validation", "test", "█", "└validation"):
        assert words in text
    # The first line holds the path as it was given; everything below keeps to 100 columns.
    assert max(len(line) for line in text.splitlines()[1:]) <= 100


def test_a_configs_workload_is_shown_too(capsys, repo):
    shown = json.loads(said(capsys, "workload", "show", repo / "tune_configs" / "demo.yaml", "--json"))
    assert shown["kind"] == "diurnal"
    assert shown["days"] == 14
    assert [shown["parts"][p]["days"] for p in ("train", "validation", "test")] == [9.8, 2.1, 2.1]
    rates = shown["requests_per_second"]
    assert list(rates) == ["min", "p50", "mean", "p95", "p99", "max"]
    assert rates["min"] < rates["p50"] < rates["p95"] < rates["p99"] < rates["max"]


def test_the_statistics_are_those_of_the_file(capsys, tmp_path):
    text = "timestamp,requests_per_second\n" + "".join(f"2024-01-01T00:00:{i:02d}Z,{i}\n" for i in range(11))
    shown = json.loads(said(capsys, "workload", "show", csv(tmp_path, text=text), "--json"))
    assert shown["requests_per_second"] == {"min": 0, "p50": 5, "mean": 5, "p95": 9.5, "p99": 9.9, "max": 10}
    assert (shown["num_points"], shown["interval_seconds"]) == (11, 1)
    assert (shown["start"], shown["end"]) == ("2024-01-01T00:00:00Z", "2024-01-01T00:00:11Z")


@pytest.mark.parametrize("minutes", [2, 3, 7])
def test_even_the_shortest_trace_can_be_shown(capsys, tmp_path, minutes):
    assert "requests/s" in said(capsys, "workload", "show", csv(tmp_path, minutes))


def test_a_silent_trace_can_be_shown(capsys, tmp_path):
    text = "timestamp,requests_per_second\n" + "".join(f"2024-01-01T00:0{i}:00Z,0\n" for i in range(9))
    assert "└train" in said(capsys, "workload", "show", csv(tmp_path, text=text))


@pytest.mark.parametrize("days", [1, 2, 3])
def test_importing_prints_a_command_that_works(capsys, tmp_path, repo, days):
    path = csv(tmp_path, 1440 * days, name="my trace.csv")
    command = said(capsys, "workload", "import", path).splitlines()[-1].strip()
    words = shlex.split(command)
    assert words[:3] == ["scalepilot", "train", "tune_configs/autoscale-ppo.yaml"]
    arguments = build_parser().parse_args(words[1:])
    config = with_trace(load_config(repo / arguments.config, arguments.set), arguments.trace, arguments.peak_rps)
    window = config.evaluation.window_steps
    data = protocol_v1("mine", config.workload, config.env.params, window_steps=window)
    assert len(data.train_series) >= config.env.episode_steps
    assert (window == 1920) == (days == 3)


def test_an_imported_trace_is_written_in_utc_on_a_regular_grid(capsys, tmp_path):
    text = "timestamp,value\r\n" + "".join(
        f"2024-01-01T0{2 + i // 60}:{i % 60:02d}:00+02:00,{i}.5\r\n" for i in range(100) if i != 40
    )
    out = tmp_path / "out.csv"
    shown = said(capsys, "workload", "import", csv(tmp_path, text=text), "--gaps", "linear", "-o", out)
    assert f"written: {out}" in shown
    assert f"--trace {out}" in shown
    assert out.read_text().splitlines()[:2] == ["timestamp,requests_per_second", "2024-01-01T00:00:00Z,0.5"]
    assert read_csv(out).rates_rps.tolist() == [i + 0.5 for i in range(100)]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_importing_as_json_says_the_command(capsys, tmp_path):
    path = csv(tmp_path, 3000)
    shown = json.loads(said(capsys, "workload", "import", path, "--json"))
    assert shown["train"].startswith(f"scalepilot train tune_configs/autoscale-ppo.yaml --trace {path}")
    assert shown["written"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", ":1: header 'a,b' is not allowed; allowed: timestamp,requests_per_second"),
        ("timestamp,requests_per_second\n2024-01-01T00:00:00Z,1\n2024-01-01T00:01:00Z,-3\n", ":3: requests_per_second '-3'"),
        (
            "timestamp,requests_per_second\n2024-01-01T00:00:00Z,1\n2024-01-01T00:01:00Z,1\n2024-01-01T00:02:00Z,1\n"
            "2024-01-01T00:09:00Z,1\n",
            ":5: 420 s after the row before it",
        ),
        (
            "timestamp,requests_per_second\n2024-01-01T00:00:00Z,1\n2024-01-01T00:01:00Z,1\n",
            "allowed: at least 30, better 2.3 days",
        ),
    ],
)
def test_a_bad_trace_is_one_line_with_its_line_number_and_exit_code_2(capsys, tmp_path, text, message):
    path = csv(tmp_path, text=text)
    error = said(capsys, "workload", "import", path, code=2)
    assert error.startswith(f"scalepilot workload: {path}")
    assert message in error


def test_unfit_arguments_are_refused_in_one_line(capsys, tmp_path):
    path = csv(tmp_path)
    assert "no such file" in said(capsys, "workload", "show", tmp_path / "absent.csv", code=2)
    assert "cannot be read" in said(capsys, "workload", "show", tmp_path / "absent.yaml", code=2)
    assert "--gaps linear: needs --out CSV" in said(capsys, "workload", "import", path, "--gaps", "linear", code=2)
    assert "exists already; allowed: a new file" in said(capsys, "workload", "import", csv(tmp_path, 3000), "-o", path, code=2)
    absent = tmp_path / "no" / "folder.csv"
    assert "cannot be written" in said(capsys, "workload", "import", path, "-o", absent, code=2)


def test_a_command_without_its_verb_is_refused_in_one_line(capsys):
    for command in ("env", "workload"):
        with pytest.raises(SystemExit) as caught:
            main([command])
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
