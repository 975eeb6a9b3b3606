"""`scalepilot verify`: every kind of damage has its own message, and an unharmed run has none."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import tiny_model_bytes

from scalepilot.cli import main
from scalepilot.config import config_from_mapping
from scalepilot.experiments.run import run_experiment
from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.runs.folder import RunFolder
from scalepilot.verify import verify_path
from scalepilot_envs.registration import find_env

SMALL = {"validation_episodes": 4, "test_episodes": 6, "bootstrap_samples": 10, "videos": 0}
WINDOWS = {"window_steps": 240, "drawn_windows": 2, "tuning_evaluations": 4, "bootstrap_samples": 20, "videos": 0}


def trained(output, **changes):
    experiment = config_from_mapping({"algorithm": "q_learning", "output": str(output), **changes})
    folder = RunFolder.create(experiment)
    run_experiment(experiment, folder)
    return folder.path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    tabular = {"total_env_steps": 20000, "num_envs": 4}
    return trained(tmp_path_factory.mktemp("runs"), name="grid", env={"id": "GridWorld-v0"}, tabular=tabular, evaluation=SMALL)


@pytest.fixture(scope="module")
def finished_autoscale(tmp_path_factory):
    return trained(
        tmp_path_factory.mktemp("runs"),
        name="shop",
        env={"id": "Autoscale-v0", "episode_steps": 60, "params": {"max_replicas": 30}},
        workload={"kind": "diurnal", "days": 2, "high_rps": 200},
        tabular={"total_env_steps": 4000, "num_envs": 4, "bins": {"cpu_utilisation": 5}},
        evaluation=WINDOWS,
    )


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def found(path):
    """(severity, where, what) of every finding."""
    return [(f.severity, f.where, f.what) for f in verify_path(path).findings]


def only(path, severity, where, *words):
    """The findings are all of one place, and the first says what it must."""
    findings = found(path)
    assert findings, "nothing was found"
    assert {f[:2] for f in findings} == {(severity, where)}, findings
    for word in words:
        assert word in findings[0][2], findings[0][2]


def test_an_unharmed_run_has_no_finding(capsys, run):
    assert found(run) == []
    assert main(["verify", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"ok       {run}  (config, status, files, metrics,")


def test_an_unharmed_run_of_autoscale_may_be_poor_but_not_wrong(finished_autoscale):
    findings = found(finished_autoscale)
    assert [f for f in findings if f[0] == "error"] in ([], [f for f in findings if "worse than random" in f[2]])


def test_a_tampered_network_is_named_with_its_hash(tiny_artifact):
    assert found(tiny_artifact) == []
    model = tiny_artifact / "model.onnx"
    data = bytearray(model.read_bytes())
    data[-20] ^= 1
    model.write_bytes(bytes(data))
    only(tiny_artifact, "error", "tiny", "model.onnx", "sha256", "changed or cut off")


def test_a_changed_field_bound_is_named_though_no_hash_tells(tiny_artifact):
    path = tiny_artifact / "policy.json"
    spec = json.loads(path.read_text())
    spec["observation_fields"][0]["high"] = 500.0
    path.write_text(json.dumps(spec))
    only(tiny_artifact, "error", "tiny/policy.json", "field request_rate_rps_0: bounds 0 to 500", "has 0 to 1e+06")


def test_a_network_that_gives_nan_is_found_by_asking_it(tmp_path, tiny_network):
    made = tiny_network()
    shape = (len(made.spec.observation_fields), len(made.spec.actions))
    model = tiny_model_bytes(np.full(shape, np.nan), np.zeros(shape[1]))
    save_policy(NetworkPolicy(replace(made.spec, name="broken"), model), tmp_path / "broken")
    only(tmp_path / "broken", "error", "broken", "512 of its 512 scores are not finite")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("evaluation/episodes.parquet", "evaluation/episodes.parquet"),
        ("evaluation/summary.json", "evaluation/summary.json"),
        ("progress.csv", "progress.csv"),
    ],
)
def test_a_missing_file_is_named(run, name, where):
    (run / name).unlink()
    assert ("error", where, "is missing") in found(run)


def test_a_missing_policy_is_an_error_and_a_missing_plot_a_warning(capsys, run):
    shutil.rmtree(run / "plots")
    only(run, "warning", "plots", "is missing")
    assert main(["verify", str(run)]) == 0
    assert f"scalepilot report --plots {run}" in capsys.readouterr().out
    shutil.rmtree(run / "policy")
    assert ("error", "policy", "is missing") in found(run)


def test_truncated_parquets_are_named(run):
    for name in ("metrics.parquet", "evaluation/episodes.parquet"):
        path = run / name
        path.write_bytes(path.read_bytes()[:300])
    findings = found(run)
    assert [f[:2] for f in findings] == [("error", "metrics.parquet"), ("error", "evaluation")]
    assert "cut off" in findings[0][2]
    assert "episodes.parquet: is not Parquet, or is cut off" in findings[1][2]


def rewritten(run, change):
    lines = (run / "progress.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    change(cells[0], cells)
    (run / "progress.csv").write_text("\n".join(",".join(row) for row in cells) + "\n")


def test_metrics_with_nan_are_named_by_line_and_column(run):
    rewritten(run, lambda names, rows: rows[5].__setitem__(names.index("episode_return_mean"), "nan"))
    only(run, "error", "progress.csv", "line 6: episode_return_mean is nan: training has diverged")


def test_steps_that_do_not_rise_and_shares_beyond_one_are_named(run):
    rewritten(run, lambda names, rows: rows[7].__setitem__(names.index("env_steps"), "1"))
    assert "env_steps does not rise: 1 after" in found(run)[0][2]
    rewritten(run, lambda names, rows: rows[4].__setitem__(names.index("epsilon"), "1.5"))
    assert "line 5: epsilon is 1.5; a share lies in [0, 1]" in found(run)[0][2]


def test_a_row_cut_off_in_a_finished_run_is_named(run):
    path = run / "progress.csv"
    path.write_text(path.read_text()[:-30])
    assert ("error", "progress.csv", "its last row is cut off") in found(run)


def status(run, **changes):
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_still_under_way_is_told_from_a_killed_one(run):
    alive = {"pid": os.getpid(), "host": platform.node()}
    status(run, status="running", process=alive)
    only(run, "warning", "run.json", "the run is still running")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    status(run, process=alive | {"pid": ended.pid})
    only(run, "error", "run.json", "says running, but the process is gone", "it was killed")
    # On another machine only its silence can tell.
    status(run, process=alive | {"host": "elsewhere"})
    only(run, "warning", "run.json", "still running")
    for path in (run / "run.json", run / "progress.csv", run / "logs" / "training.log"):
        os.utime(path, (0, 0))
    only(run, "error", "run.json", "it was killed")


def test_a_stopped_run_is_a_warning_a_failed_one_an_error(run):
    status(run, status="interrupted")
    only(run, "warning", "run.json", "stopped before its end")
    status(run, status="failed", error="out of\nmemory")
    only(run, "error", "run.json", "the run failed: out of memory")
    status(run, status="gone")
    assert "status: 'gone' is not allowed" in found(run)[0][2]
    (run / "run.json").write_text("{")
    assert "is not JSON" in found(run)[0][2]


def test_stored_returns_that_differ_when_run_again_are_named(run):
    path = run / "evaluation" / "episodes.parquet"
    table = pq.read_table(path)
    returns = table["episode_return"].to_numpy() + np.where(np.array(table["role"].to_pylist()) == "policy", -3.0, 0.0)
    pq.write_table(table.set_column(table.column_names.index("episode_return"), "episode_return", pa.array(returns)), path)
    only(run, "error", "evaluation", "return of test episode 0 is stored as", "run again it is")


def test_what_lies_beyond_the_first_episodes_is_found_thoroughly(run):
    path = run / "evaluation" / "episodes.parquet"
    table = pq.read_table(path)
    last = (np.array(table["role"].to_pylist()) == "policy") & (table["seed"].to_numpy() == table["seed"].to_numpy().max())
    returns = table["episode_return"].to_numpy() + np.where(last, -3.0, 0.0)
    pq.write_table(table.set_column(table.column_names.index("episode_return"), "episode_return", pa.array(returns)), path)
    assert verify_path(run).is_sound
    whats = [finding.what for finding in verify_path(run, thorough=True).findings]
    assert any("return of test episode 5 is stored as" in what for what in whats)


def test_a_cost_below_what_clairvoyance_can_reach_is_named(finished_autoscale, tmp_path):
    run = shutil.copytree(finished_autoscale, tmp_path / "run")
    path = run / "evaluation" / "episodes.parquet"
    table = pq.read_table(path)
    costs = table["J_per_hour"].to_numpy() * np.where(np.array(table["role"].to_pylist()) == "policy", 0.01, 1.0)
    pq.write_table(table.set_column(table.column_names.index("J_per_hour"), "J_per_hour", pa.array(costs)), path)
    whats = [what for severity, _, what in found(run) if severity == "error"]
    assert any("no policy does better than" in what for what in whats)
    assert any("J/h of test episode 0 is stored as" in what for what in whats)


def test_a_policy_worse_than_chance_and_a_validation_far_from_the_test_are_named(run):
    path = run / "evaluation" / "summary.json"
    summary = json.loads(path.read_text())
    name = next(n for n, role in summary["roles"].items() if role == "policy")
    summary["policies"][name]["return"]["mean"] = -1e6
    path.write_text(json.dumps(summary))
    findings = found(run)
    assert ("error", "policy") in [f[:2] for f in findings]
    assert any("is worse than random" in f[2] for f in findings)
    assert any("wildly apart" in f[2] for f in findings)


def test_a_config_that_cannot_be_read_is_named(run):
    (run / "config.yaml").write_text("algorithm: [unclosed")
    only(run, "error", "config.yaml", "allowed: plain YAML")
    (run / "config.yaml").unlink()
    only(run, "error", "config.yaml", "holds no config.yaml")


def test_a_rule_is_a_policy_like_any_other(tmp_path):
    save_policy(make_rule("threshold", find_env("QueueScaling-v0").describe()), tmp_path / "rule")
    assert found(tmp_path / "rule") == []


def test_all_runs_here_are_verified_where_none_is_named(capsys, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["verify"]) == 2
    assert "holds no runs" in capsys.readouterr().err
    for i in (1, 2):
        shutil.copytree(run, tmp_path / "runs" / "q" / str(i))
    (Path("runs") / "q" / "2" / "policy" / "table.npz").unlink()
    assert main(["verify", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [v["sound"] for v in said["verified"]] == [True, False]
    assert said["verified"][1]["findings"][0]["where"] == "policy"
    assert main(["verify"]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["ok", "error"]
    assert "2 checked, 1 with errors" in err


def test_what_is_neither_run_nor_policy_is_refused(capsys, tmp_path):
    assert main(["verify", str(tmp_path)]) == 2
    assert "is neither a run nor a policy folder" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "no")]) == 2
    assert "no such folder" in capsys.readouterr().err
