"""`scalepilot compare` on recorded traffic: small traces written here, rules and optima kept and found again."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tests import commands

from scalepilot.cli import main
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import Static, StaticParameters
from scalepilot_envs.autoscale import AutoscaleParams

# 8 hours of minutes are 1,916 intervals: a test part of 288, one window of 250.
MINUTES, WINDOW_STEPS = 480, 250
SMALL = (
    "--set",
    f"evaluation.window_steps={WINDOW_STEPS}",
    "--set",
    "evaluation.drawn_windows=2",
    "--set",
    "evaluation.test_seeds=[0]",
    "--set",
    "evaluation.bootstrap_samples=20",
    "--set",
    "env.params.max_replicas=20",
    "--peak-rps",
    "150",
)


def write_trace(path, level=100.0, minutes=MINUTES, seed=0):
    rng = np.random.default_rng(seed)
    rates = [level * (1.3 + math.sin(i / 40)) * math.exp(0.1 * rng.normal()) for i in range(minutes)]
    stamps = (f"2024-01-{1 + i // 1440:02d}T{i // 60 % 24:02d}:{i % 60:02d}:00Z" for i in range(minutes))
    lines = [f"{stamp},{rate:.3f}\n" for stamp, rate in zip(stamps, rates, strict=True)]
    path.write_text("timestamp,requests_per_second\n" + "".join(lines))
    return path


@pytest.fixture
def traces(tmp_path):
    return [write_trace(tmp_path / f"{name}.csv", seed=seed) for seed, name in enumerate(("shop", "mail"))]


def said(capsys, *arguments, code=0):
    """What `scalepilot compare …` prints: on standard output, or one line on standard error where it fails."""
    return commands.said(capsys, "compare", *arguments, code=code)


def on(*paths):
    return [part for path in paths for part in ("--workload", path)]


def small(*arguments, evaluations=4):
    return [*arguments, "--evaluations", evaluations, "--jobs", 1, *SMALL]


def test_two_traces_are_two_tables_with_every_baseline_and_a_verdict(capsys, traces):
    out = said(capsys, *small(*on(*traces), "--no-optimum"))
    tables = [line for line in out.splitlines() if "1 test window of" in line]
    assert [line.split(":")[0].strip() for line in tables] == ["shop", "mail"]
    for name in ("hpa-default", "hpa-tuned-cpu", "hpa-tuned-rps", "look-ahead"):
        assert out.count(f" {name} ") >= 2, name
    assert " ".join(out.split()).count("there is no policy to compare") == 2
    assert max(len(line) for line in out.splitlines()) <= 100


def test_json_of_a_trace_alone_has_all_of_it_on_top(capsys, traces):
    one = json.loads(said(capsys, *small(*on(traces[0]), "--no-optimum", "--json")))
    assert one["workloads"] == ["shop"]
    assert one["gap_reference"] == {"name": "look-ahead", "is_bound": False}
    assert (one["test_set"]["windows"], one["test_set"]["window_steps"], one["episodes"]) == (1, WINDOW_STEPS, 1)
    both = json.loads(said(capsys, *small(*on(*traces), "--no-optimum", "--json")))
    assert both["by_workload"]["shop"] == one["by_workload"]["shop"]


def test_markdown_is_one_table_of_all_traces_and_nothing_else(capsys, traces):
    lines = said(capsys, *small(*on(*traces), "--no-optimum", "--markdown")).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 2 * 5
    assert {line.count("|") for line in table} == {9}
    assert "look-ahead (shop), look-ahead (mail)" in lines[-1]


def test_evaluate_is_the_former_name_for_one_release(capsys, traces):
    wanted = json.loads(said(capsys, *small(*on(traces[0]), "--no-optimum", "--json")))
    assert main(["evaluate", *map(str, small("--trace", traces[0], "--rules", "hpa", "--no-optimum", "--json"))]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == wanted
    assert captured.err.splitlines()[0].startswith("scalepilot evaluate: is called scalepilot compare now")


def test_with_the_optimum_the_gap_is_closed_towards_its_bound(capsys, traces):
    summary = json.loads(said(capsys, *small(*on(traces[0]), "--json")))
    assert summary["gap_reference"] == {"name": "optimum", "is_bound": True}
    assert summary["roles"]["optimum"] == "reference"
    means = {name: row["J"]["mean"] for name, row in summary["policies"].items()}
    assert min(means, key=means.get) == "optimum"
    assert all(gap["mean"] <= 1 for against in summary["gap_closed"].values() for gap in against.values() if gap["pairs"])


def files_of(folder):
    """Path → (content, time of the last change) of every file."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_what_the_cache_holds_is_used_again_and_left_as_it_is(capsys, traces, tmp_path):
    cache = tmp_path / "cache"
    arguments = small(*on(*traces), "--cache", cache, "--json")
    first = said(capsys, *arguments)
    kept = files_of(cache)
    assert len(list((cache / "optimum").glob("*.npz"))) == 2
    assert sorted(path.name.rsplit("-", 1)[0] for path in (cache / "rules").iterdir()) == ["mail", "shop"]
    assert said(capsys, *arguments) == first
    assert files_of(cache) == kept
    # A rule exchanged in the cache shows that it is taken from there and not searched again.
    folder = next(path for path in (cache / "rules").iterdir() if path.name.startswith("shop")) / "hpa-tuned-rps"
    marked = load_policy(folder)
    save_policy(type(marked)(marked.parameters.__class__("rps", 0.123), marked.env, name="hpa-tuned-rps"), folder)
    again = json.loads(said(capsys, *arguments))
    assert "0.12" in again["by_workload"]["shop"]["details"]["hpa-tuned-rps"]
    assert again["by_workload"]["mail"] == json.loads(first)["by_workload"]["mail"]


@pytest.mark.slow
def test_another_effort_service_or_recording_is_not_taken_from_the_cache(capsys, traces, tmp_path):
    cache = tmp_path / "cache"

    def folders(*extra, evaluations=2):
        said(capsys, *small(*on(traces[0]), "--cache", cache, "--no-optimum", "--json", *extra, evaluations=evaluations))
        return len(list((cache / "rules").iterdir()))

    assert folders() == 1
    assert folders() == 1
    assert folders(evaluations=4) == 2
    assert folders("--set", "env.params.price_per_late_request=0.01") == 3
    write_trace(traces[0], seed=9)
    assert folders() == 4


def test_every_rule_is_a_baseline_when_asked(capsys, tmp_path):
    trace = write_trace(tmp_path / "shop.csv")
    summary = json.loads(said(capsys, *small(*on(trace), "--baseline", "all", "--no-optimum", "--json", evaluations=2)))
    searched = {f"{name}-tuned" for name in ("static", "threshold", "tracking", "kpa", "forecast_mpc")}
    assert searched <= {name for name, role in summary["roles"].items() if role == "baseline"}


def test_policies_of_one_name_have_labels_that_differ(capsys, traces, tmp_path):
    params = AutoscaleParams(max_replicas=20)
    for i, replicas in enumerate((6, 9, 12)):
        save_policy(Static(StaticParameters(replicas), params, name="fixed"), tmp_path / f"p{i}")
    out = said(capsys, *(tmp_path / f"p{i}" for i in range(3)), *small(*on(traces[0]), "--no-optimum"))
    assert all(f"{label} " in out for label in ("fixed·1", "fixed·1#2", "fixed·1#3"))


def test_bad_arguments_are_one_line_and_exit_2(capsys, traces, tmp_path):
    def refused(*arguments):
        return said(capsys, *arguments, code=2)

    (tmp_path / "other").mkdir()
    twin = write_trace(tmp_path / "other" / "shop.csv")
    assert "workload: shop is given twice; allowed: each once" in refused(*on(traces[0], twin))
    assert "--evaluations: 1 is not allowed; allowed: whole numbers from 2" in refused(*on(traces[0]), "--evaluations", "1")
    assert "nowhere.csv" in refused(*small(*on(tmp_path / "nowhere.csv")))
    assert "nowhere" in refused(tmp_path / "nowhere", *small(*on(traces[0])))
    assert "windows_steps" in refused(*on(traces[0]), "--set", "evaluation.windows_steps=3")
    assert "--peak-rps" in refused(*on(traces[0]), "--peak-rps", "-5")


def test_traces_that_cannot_be_judged_are_one_line_and_exit_2(capsys, tmp_path):
    short = write_trace(tmp_path / "short.csv", minutes=60)
    assert "a smaller evaluation.window_steps" in said(capsys, *small(*on(short)), code=2)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("timestamp,requests_per_second\n2024-01-01T00:00:00Z,1\n2024-01-01T00:01:00Z,-3\n")
    assert "wrong.csv" in said(capsys, *small(*on(wrong)), code=2)
    few = write_trace(tmp_path / "few.csv", minutes=240)
    quick = [*small(*on(few), "--baseline", "all", "--no-optimum", evaluations=2), "--set", "evaluation.window_steps=50"]
    # What was tuned before has said so already.
    assert main(["compare", *map(str, quick)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "scalepilot compare: few: forecast: the training part has 669 steps; allowed: from 1024"


@pytest.mark.parametrize("arguments", [["--workload"], ["--evaluations", "many"], ["--json", "--markdown"]])
def test_what_argparse_refuses_is_one_line_and_exit_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(["compare", *arguments])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
