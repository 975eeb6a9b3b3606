"""`scalepilot workload`, as a person types it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from tests.commands import said

from scalepilot.cli import build_parser
from scalepilot.config import load_config, with_trace
from scalepilot.simulate import protocol_v1
from scalepilot_envs.workloads import WORKLOADS, PoissonWorkload, SpikeWorkload, read_csv, read_trace


def csv(tmp_path, minutes=10, name="mine.csv", text=None):
    path = tmp_path / name
    stamps = [f"2024-01-{1 + i // 1440:02d}T{i // 60 % 24:02d}:{i % 60:02d}:00Z,{i % 17}\n" for i in range(minutes)]
    path.write_text(text or "timestamp,requests_per_second\n" + "".join(stamps))
    return path


def test_a_csv_is_shown_with_statistics_split_and_a_plot(capsys, tmp_path):
    text = said(capsys, "workload", "show", csv(tmp_path, 3000))
    for words in ("trace, 3,000 points every 60 s", "2.1 days", "min", "p99", "train", "validation", "test", "█", "└validation"):
        assert words in text
    # The first line holds the path as it was given; everything below keeps to 100 columns.
    assert max(len(line) for line in text.splitlines()[1:]) <= 100


def test_a_configs_workload_is_shown_too(capsys, repo):
    shown = json.loads(said(capsys, "workload", "show", repo / "tune_configs" / "demo.yaml", "--json"))
    assert shown["kind"] == "diurnal"
    assert shown["days"] == 48
    assert [shown["parts"][p]["days"] for p in ("train", "validation", "test")] == [33.6, 7.2, 7.2]
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
    config = with_trace(load_config(repo / arguments.config, arguments.set), Path(arguments.workload), arguments.peak_rps)
    window = config.evaluation.window_steps
    data = protocol_v1("mine", config.workload, config.env.params, window_steps=window)
    assert len(data.train_series) >= config.env.episode_steps
    assert (window == 1920) == (days == 3)


def test_an_imported_trace_is_written_in_utc_on_a_regular_grid(capsys, tmp_path):
    text = "timestamp,value\r\n" + "".join(
        f"2024-01-01T0{2 + i // 60}:{i % 60:02d}:00+02:00,{i}.5\r\n" for i in range(100) if i != 40
    )
    out = tmp_path / "out.csv"
    shown = said(capsys, "workload", "import", csv(tmp_path, text=text), "--unit", "rps", "--gaps", "linear", "-o", out)
    assert f"written: {out}" in shown
    assert f"--workload {out}" in shown
    assert out.read_text().splitlines()[:2] == ["timestamp,requests_per_second", "2024-01-01T00:00:00Z,0.5"]
    assert read_csv(out).rates_rps.tolist() == [i + 0.5 for i in range(100)]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_importing_as_json_says_the_command(capsys, tmp_path):
    path = csv(tmp_path, 3000)
    shown = json.loads(said(capsys, "workload", "import", path, "--json"))
    assert shown["train"].startswith(f"scalepilot train tune_configs/autoscale-ppo.yaml --workload {path}")
    assert shown["written"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", ": looks like text that begins 'a,b', not like a trace; allowed: CSV such as timestamp"),
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
    assert "exists already; allowed: a new file" in said(capsys, "workload", "import", csv(tmp_path, 3000), "-o", path, code=2)
    absent = tmp_path / "no" / "folder.csv"
    assert "cannot be written" in said(capsys, "workload", "import", path, "-o", absent, code=2)


@pytest.mark.parametrize("kind", [kind for kind in WORKLOADS if kind != "trace"])
def test_a_kind_is_shown_by_its_name(capsys, kind):
    text = said(capsys, "workload", "show", kind)
    assert text.startswith(f"{kind}: {kind}, ")
    assert "└train" in text


def test_settings_change_a_kind_or_a_config(capsys, repo):
    shown = json.loads(
        said(capsys, "workload", "show", "spike", "--set", "num_steps=600", "--set", "max_requests=5000", "--json")
    )
    assert shown["num_points"] == 600
    expected = SpikeWorkload(max_requests=5000).series().rates_rps.max()
    assert shown["requests_per_second"]["max"] == pytest.approx(expected, abs=1e-6)
    config = repo / "tune_configs" / "demo.yaml"
    assert json.loads(said(capsys, "workload", "show", config, "--set", "workload.days=3", "--json"))["days"] == 3
    phases = "phases=[{low: 2, high: 2, seconds: 30}]"
    assert json.loads(said(capsys, "workload", "show", "phases", "--set", phases, "--json"))["num_points"] == 30


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_generated_workload_is_read_back_unchanged(capsys, tmp_path, name):
    out = tmp_path / name
    text = said(capsys, "workload", "generate", "poisson", "--seed", 4, "--peak-rps", 300, "--set", "num_steps=500", "-o", out)
    assert text.endswith(f"written: {out}\n")
    expected = PoissonWorkload(seed=4, num_steps=500, peak_rps=300.0).series()
    written = read_trace(out)
    np.testing.assert_array_equal(written.rates_rps, expected.rates_rps)
    assert (written.interval_seconds, written.start_unix_seconds) == (300, 0)


def test_a_configs_workload_is_generated_and_said_as_json(capsys, tmp_path, repo):
    out = tmp_path / "demo.csv"
    config = repo / "tune_configs" / "demo.yaml"
    shown = json.loads(said(capsys, "workload", "generate", config, "-o", out, "--json"))
    assert (shown["kind"], shown["written"]) == ("diurnal", str(out))
    np.testing.assert_array_equal(read_csv(out).rates_rps, load_config(config).workload.series().rates_rps)


def test_importing_averages_and_restarts_counters_only_into_a_new_file(capsys, tmp_path):
    text = "timestamp,requests_total\n" + "".join(
        f"2024-01-01T{i // 60:02d}:{i % 60:02d}:00Z,{600 * (i % 50)}\n" for i in range(121)
    )
    path, out = csv(tmp_path, text=text), tmp_path / "rates.parquet"
    options = ("--counter-resets", "restart", "--interval-seconds", 300)
    assert ":52: requests_total 0 is below 29400 before it" in said(capsys, "workload", "import", path, code=2)
    write = f"scalepilot workload import {path} --interval-seconds 300 --counter-resets restart --out trace.csv"
    assert write in said(capsys, "workload", "import", path, *options)
    assert f"written: {out}" in said(capsys, "workload", "import", path, *options, "-o", out)
    rates = read_trace(out).rates_rps
    assert len(rates) == 24
    assert rates[0] == 10
    # A restart is counted from zero: the minute of the reset itself shows none.
    assert rates[9] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "spik"), "spik: is neither a file nor a kind; allowed: a file, or steady, "),
        (("show", "spik"), "did you mean spike?"),
        (("show", "trace"), "workload.path: is empty"),
        (("show", "spike", "--set", "num_step=5"), "spike: workload.num_step: unknown key; allowed: kind, max_requests"),
        (("show", "spike", "--set", "num_step=5"), "did you mean num_steps?"),
        (("show", "spike", "--set", "num_steps"), "--set num_steps: allowed: key=value, such as num_steps=500"),
        (("show", "spike", "--set", "num_steps=abc"), "workload.num_steps: 'abc' is not allowed"),
        (("show", "mine.csv", "--set", "a=1"), "--set a=1: mine.csv is a trace's file"),
        (("generate", "mine.csv", "-o", "x.csv"), "mine.csv: is a trace; allowed: a kind or an experiment's YAML"),
        (("generate", "steady", "--seed", "1", "-o", "x.csv"), "a workload of kind steady draws nothing"),
        (("generate", "random", "--seed", "-1", "-o", "x.csv"), "workload.seed: -1 is not allowed; allowed: integers from 0"),
        (("generate", "random", "--peak-rps", "nan", "-o", "x.csv"), "workload.peak_rps: nan is not allowed; allowed: above 0"),
        (("generate", "random", "-o", "no/x.csv"), "no/x.csv: cannot be written"),
    ],
)
def test_what_cannot_be_shown_or_generated_is_refused_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in said(capsys, "workload", *arguments, code=2)
    assert list(tmp_path.iterdir()) == []
