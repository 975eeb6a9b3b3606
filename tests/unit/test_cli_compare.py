"""`scalepilot compare` as a person types it: small workloads, cells kept, damaged policies named, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from tests.commands import said

from scalepilot.cli import main
from scalepilot.policy import save_policy
from scalepilot.policy.rules import Static, StaticParameters
from scalepilot_envs.autoscale import AutoscaleParams

PARAMS = AutoscaleParams(max_replicas=60)
QUICK = ["--arrival-seeds", "2", "--steps", "120", "--windows", "2", "--jobs", "1", "--no-optimum"]
QUICK += ["--set", "evaluation.drawn_windows=2"]
BARE = [*QUICK, "--baseline", "hpa-default"]


def compare(*arguments, code=0):
    assert main(["compare", *map(str, arguments)]) == code


@pytest.fixture
def fixed(tmp_path):
    """Makes the folder of a rule that asks for so many replicas."""

    def make(replicas, name=None):
        folder = tmp_path / f"fixed-{replicas}"
        save_policy(Static(StaticParameters(replicas), PARAMS, name=name or f"fixed-{replicas}"), folder)
        return folder

    return make


@pytest.fixture
def trained(tmp_path, tiny_network):
    """Makes run folders of one experiment that differ in their training seed."""

    def make(*seeds, lr=3e-4, evaluation=None):
        folders = []
        for seed in seeds:
            config = {"name": "shop", "seed": seed, "ppo": {"lr": lr}, "workload": {"kind": "spike", "peak_rps": 400}}
            config |= {"evaluation": evaluation} if evaluation else {}
            provenance = {"algorithm": "ppo", "seed": seed, "env_steps": 1_000_000, "config": config}
            folder = tmp_path / "runs" / "shop" / f"{lr:g}-{seed}"
            save_policy(tiny_network(seed=seed, name="shop-ppo", provenance=provenance), folder / "policy")
            folders.append(folder)
        return folders

    return make


def test_rules_by_name_on_two_workloads_are_ranked_on_each_and_over_both(capsys):
    compare("kpa", "tracking", "--workload", "spike", "--workload", "diurnal", *BARE)
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines() if "test windows of" in line] == ["spike", "diurnal"]
    assert "2 workloads: spike, diurnal" in out
    for name in ("kpa", "tracking", "hpa-default", "look-ahead"):
        assert out.count(f" {name} ") >= 3, name
    assert max(len(line) for line in out.splitlines()) <= 100


def test_the_summary_has_every_workload_and_their_means(capsys):
    compare("kpa", "--workload", "spike", "--workload", "sinusoidal", "--json", *BARE)
    summary = json.loads(capsys.readouterr().out)
    assert summary["workloads"] == ["spike", "sinusoidal"]
    assert summary["episodes"] == 8
    J = [summary["by_workload"][w]["policies"]["kpa"]["J"]["mean"] for w in summary["workloads"]]
    assert summary["policies"]["kpa"]["J"]["mean"] == pytest.approx(sum(J) / 2)
    assert set(summary["gap_closed"]["kpa"]) == {"hpa-default"}
    assert summary["failed"] == {}


def test_training_seeds_of_one_experiment_are_one_row_on_their_own_workload(capsys, trained, tmp_path):
    trained(0, 1, 2)
    trained(0, lr=1e-3)
    compare(tmp_path / "runs", "--json", *BARE)
    summary = json.loads(capsys.readouterr().out)
    assert summary["workloads"] == ["shop"]
    policies = {name for name, role in summary["roles"].items() if role == "policy"}
    assert len(policies) == 2
    members = summary["by_workload"]["shop"]["members"]
    ((name, seeds),) = members.items()
    assert [m["training_seed"] for m in seeds] == [0, 1, 2]
    assert summary["details"][name] == "ppo, seeds 0, 1, 2, 1.0 M steps"


def test_how_runs_were_judged_later_makes_no_row_of_its_own_how_they_were_chosen_does(capsys, trained, tmp_path):
    trained(0)
    trained(1, evaluation={"videos": 0, "tuning_evaluations": 2})
    trained(2, evaluation={"validate_every_share": 0.5})
    compare(tmp_path / "runs", "--json", *BARE)
    details = json.loads(capsys.readouterr().out)["details"].values()
    assert sorted(d for d in details if d.startswith("ppo")) == ["ppo, seed 2, 1.0 M steps", "ppo, seeds 0, 1, 1.0 M steps"]


def test_a_pattern_finds_the_same_runs_as_their_folder(capsys, trained, tmp_path):
    trained(0, 1)
    compare(tmp_path / "runs", "--json", *BARE)
    by_folder = json.loads(capsys.readouterr().out)
    compare(f"{tmp_path}/runs/shop/*", "--json", *BARE)
    assert json.loads(capsys.readouterr().out) == by_folder


def test_a_corrupt_policy_among_eight_is_named_and_the_others_are_compared(capsys, fixed, tmp_path, tiny_network):
    folders = [fixed(n) for n in range(3, 10)]
    save_policy(tiny_network(name="broken"), tmp_path / "broken")
    model = tmp_path / "broken" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-10])
    compare(*folders[:4], tmp_path / "broken", *folders[4:], "--workload", "spike", "--out", tmp_path / "out", *BARE, code=1)
    captured = capsys.readouterr()
    assert captured.err.count("left out") == 1
    assert str(model) in captured.err
    assert "was changed or cut off" in captured.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert sum(role == "policy" for role in summary["roles"].values()) == 7
    assert list(summary["failed"]) == [str(tmp_path / "broken")]


def test_a_policy_that_fails_only_when_it_flies_is_left_out_of_every_workload(capsys, fixed, tmp_path, tiny_network):
    policy = tiny_network(name="moody")
    fields = policy.spec.observation_fields
    spec = replace(policy.spec, observation_fields=(replace(fields[0], name="mood"), *fields[1:]))
    save_policy(type(policy)(spec, policy.model), tmp_path / "moody")
    compare(tmp_path / "moody", fixed(5), "--workload", "spike", "--workload", "steady", "--json", *BARE, code=1)
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert "mood" in summary["failed"]["moody"]
    assert "moody" not in summary["policies"]
    assert captured.err.count("left out: moody") == 1


def test_policies_made_for_another_service_are_named_with_what_differs(capsys, tmp_path):
    other = AutoscaleParams(max_replicas=40, startup_seconds=30.0, reward_per_currency=1.0)
    save_policy(Static(StaticParameters(5), other, name="foreign"), tmp_path / "foreign")
    save_policy(Static(StaticParameters(5), PARAMS, name="local"), tmp_path / "local")
    out = tmp_path / "out"
    compare(tmp_path / "foreign", tmp_path / "local", "--workload", "spike", "--workload", "steady", "--out", out, *BARE)
    line = (
        "foreign was made for another service than that of spike, steady: startup_seconds 30, here 60; max_replicas 40, here 60"
    )
    notes = [said for said in capsys.readouterr().err.splitlines() if "note:" in said]
    assert notes == [f"scalepilot compare: note: {line}"]
    assert line in (out / "report.html").read_text(encoding="utf-8")


def test_policies_that_see_their_service_differently_are_compared_on_the_same_one(capsys, fixed, tmp_path):
    other = AutoscaleParams(history_steps=4, observe_clock=True)
    save_policy(Static(StaticParameters(5), other, name="short"), tmp_path / "short")
    compare(tmp_path / "short", fixed(5), "--workload", "spike", "--json", *BARE)
    rows = json.loads(capsys.readouterr().out)["policies"]
    assert rows["short"]["J"] == next(row["J"] for name, row in rows.items() if name != "short" and row["J"])


def test_with_nothing_but_corrupt_policies_nothing_is_compared(capsys, fixed):
    folder = fixed(3)
    (folder / "policy.json").write_text("{")
    compare(folder, "--workload", "spike", *BARE, code=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "scalepilot compare: no policy is left to compare"


def test_what_is_written_is_shown_again_without_flying(capsys, fixed, tmp_path):
    out = tmp_path / "out"
    compare(fixed(5), "--workload", "spike", "--out", out, *BARE)
    first = capsys.readouterr().out
    report = out / "report.html"
    assert report.is_file()
    report.unlink()
    for cell in (out / "cells").iterdir():
        cell.unlink()
    compare("--plot-only", out)
    assert capsys.readouterr().out == first
    assert report.is_file()


def test_cells_on_disk_are_used_again_only_when_asked(capsys, fixed, tmp_path):
    out = tmp_path / "out"
    arguments = [fixed(5), fixed(6), "--workload", "spike", "--out", out, *BARE]
    compare(*arguments)
    first = capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert len(times) == 4
    compare(*arguments, "--resume")
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == times
    compare(*arguments)
    assert all(path.stat().st_mtime_ns > before for path, before in times.items())


@pytest.mark.slow
def test_a_killed_comparison_goes_on_without_repeating_finished_cells(capsys, fixed, tmp_path):
    out = tmp_path / "out"
    folders = [str(fixed(n)) for n in range(3, 9)]
    arguments = [*folders, "--workload", "spike", "--workload", "steady", "--out", str(out), *BARE, "--steps", "1500"]
    command = [sys.executable, "-m", "scalepilot.cli", "compare", *arguments]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    deadline = time.monotonic() + 300
    while len(list((out / "cells").glob("*.npz"))) < 3:
        assert first.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.npz")}
    assert 3 <= len(kept) < 16
    assert not (out / "summary.json").exists()
    done = said(capsys, *command[3:], "--resume", "--json")
    after = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.npz")}
    assert len(after) == 16
    assert {path: after[path] for path in kept} == kept
    assert said(capsys, "compare", *arguments, "--json", "--out", tmp_path / "whole") == done


def test_a_step_log_is_written_for_every_cell(fixed, tmp_path):
    out = tmp_path / "out"
    compare(fixed(5), "--workload", "spike", "--out", out, "--step-log", *BARE)
    logs = {path.stem for path in (out / "steps" / "spike").iterdir()}
    assert logs == {"fixed-5", "hpa-default", "look-ahead"}
    table = pq.read_table(out / "steps" / "spike" / "fixed-5.parquet")
    assert table.num_rows == 2 * 2 * 120
    assert {"window", "seed", "step", "unix_seconds", "desired_replicas", "late_requests"} <= set(table.column_names)


def test_tuned_baselines_are_kept_in_the_cache_and_found_again(capsys, fixed, tmp_path):
    arguments = [fixed(5), "--workload", "spike", "--cache", tmp_path / "cache", "--evaluations", "4", "--json", *QUICK]
    compare(*arguments)
    first = capsys.readouterr()
    roles = set(json.loads(first.out)["roles"]) - {"general"}
    assert roles == {"fixed-5", "hpa-default", "hpa-tuned-cpu", "hpa-tuned-rps", "look-ahead"}
    compare(*arguments)
    assert capsys.readouterr().out == first.out
    assert len(list((tmp_path / "cache" / "rules").iterdir())) == 1


def test_policies_for_another_environment_are_judged_by_return(capsys, tmp_path):
    from scalepilot.policy.rules import make_rule
    from scalepilot_envs.registration import find_env

    env = find_env("QueueScaling-v0").describe()
    save_policy(make_rule("threshold", env, name="mine"), tmp_path / "mine")
    compare(tmp_path / "mine", "random", "--episodes", "4", "--jobs", "1", "--out", tmp_path / "out", "--json")
    summary = json.loads(capsys.readouterr().out)
    assert summary["episodes"] == 4
    roles = summary["roles"]
    assert (roles["mine"], roles["random"], roles["never"]) == ("policy", "policy", "baseline")
    compare("--plot-only", tmp_path / "out")
    assert "QueueScaling-v0" in capsys.readouterr().out
    for option in ("--steps", "--windows", "--arrival-seeds"):
        compare(tmp_path / "mine", option, "5", code=2)
        assert f"{option}: is not used on scalepilot/QueueScaling-v0; allowed: --episodes" in capsys.readouterr().err
    (tmp_path / "other.yaml").write_text("env: {id: ResourceManager-v0}\n")
    compare(tmp_path / "mine", "--workload", tmp_path / "other.yaml", code=2)
    assert "mine is for scalepilot/QueueScaling-v0, other for scalepilot/ResourceManager-v0" in capsys.readouterr().err
    save_policy(make_rule("random", find_env("CartPole-v1").describe(), name="cart"), tmp_path / "cart")
    compare(tmp_path / "cart", "--workload", "spike", code=2)
    assert "--workload spike: is not used on CartPole-v1, which takes no workload" in capsys.readouterr().err
    compare("kpa", "--episodes", "5", "--workload", "spike", code=2)
    assert "--episodes: is not used on Autoscale-v0" in capsys.readouterr().err


def test_another_environment_has_everything_that_autoscale_has(capsys, tmp_path):
    from scalepilot.policy.rules import make_rule
    from scalepilot_envs.registration import find_env

    save_policy(make_rule("threshold", find_env("ResourceManager-v0").describe(), name="mine"), tmp_path / "mine")
    for name, change in (("calm", 0.05), ("wild", 0.3)):
        config = f"name: {name}\nenv: {{id: ResourceManager-v0, params: {{rate_change: {change}}}}}\n"
        (tmp_path / f"{name}.yaml").write_text(config)
    both = ["--workload", tmp_path / "calm.yaml", "--workload", tmp_path / "wild.yaml"]
    out = tmp_path / "out"
    arguments = [tmp_path / "mine", *both, "--episodes", "6", "--jobs", "1", "--step-log", "--out", out]
    compare(*arguments)
    shown = capsys.readouterr().out
    assert "2 workloads: calm, wild" in shown
    summary = json.loads((out / "summary.json").read_text())
    # The optimum is known: a bound, which its own plan reaches.
    for where in summary["by_workload"].values():
        assert where["gap_reference"] == {"name": "optimum", "is_bound": True}
        best = where["policies"]["optimum"]["return"]["mean"]
        assert all(row["return"]["mean"] <= best for row in where["policies"].values())
        assert where["gap_closed"]["mine"]["never"]["mean"] <= 1
    table = pq.read_table(out / "steps" / "calm" / "mine.parquet")
    assert table.num_rows == 6 * 100
    assert {"window", "seed", "step", "action", "reward", "cpu_percent"} <= set(table.column_names)
    times = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    compare(*arguments, "--resume")
    assert capsys.readouterr().out == shown
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == times
    compare("--plot-only", out)
    assert capsys.readouterr().out == shown
    assert "2 workloads" in (out / "report.html").read_text(encoding="utf-8")


def test_training_seeds_are_one_row_by_return_too(capsys, tmp_path):
    from scalepilot.policy.rules import make_rule
    from scalepilot_envs.registration import find_env

    env = find_env("QueueScaling-v0").describe()
    for seed in (0, 1):
        provenance = {"algorithm": "ppo", "seed": seed, "config": {"name": "queue", "seed": seed}}
        rule = make_rule("threshold", env, name="queue-ppo")
        rule.spec = replace(rule.spec, provenance=provenance)
        save_policy(rule, tmp_path / "runs" / str(seed) / "policy")
    compare(tmp_path / "runs", "--episodes", "4", "--jobs", "1", "--baseline", "random", "--out", tmp_path / "out", "--json")
    summary = json.loads(capsys.readouterr().out)
    assert summary["roles"] == {"queue-ppo": "policy", "random": "baseline", "optimum": "reference"}
    assert [m["training_seed"] for m in summary["members"]["queue-ppo"]] == [0, 1]
    assert summary["details"]["queue-ppo"] == "ppo, seeds 0, 1"
    figure = summary["policies"]["queue-ppo"]["return"]
    # No reward of this environment is above 0.
    assert figure["low"] <= figure["mean"] <= figure["high"] <= 0.0
    rows = pq.read_table(tmp_path / "out" / "episodes.parquet").to_pylist()
    assert len([row for row in rows if row["policy"] == "queue-ppo"]) == 2 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "POLICY: nowhere: no such folder"),
        (["no*where"], "matches nothing"),
        (["kpa", "kpa"], "kpa is given twice"),
        (["kpa", "--workload", "spikes"], "'spikes' is not allowed; allowed: steady"),
        (["kpa", "--workload", "spike", "--workload", "spike"], "spike is given twice"),
        (["kpa", "--workload", "spike", "--baseline", "hpa-tunde"], "did you mean hpa-tuned"),
        (["kpa", "--windows", "none"], "--windows: 'none' is not allowed"),
        (["kpa", "--arrival-seeds", "0"], "--arrival-seeds: 0 is not allowed"),
        (["kpa", "--resume"], "--resume: needs --out"),
        (["kpa", "--step-log"], "--step-log: needs --out"),
        (["--plot-only", "nowhere"], "nowhere"),
        (["kpa", "--plot-only", "nowhere"], "runs nothing"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    compare(*arguments, code=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
