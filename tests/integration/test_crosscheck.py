"""`scalepilot crosscheck` with both engines, small."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from tests.commands import refused

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.experiments.run import run_experiment
from scalepilot.experiments.study.crosscheck import crosscheck
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder

pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.ray
PPO = {"total_env_steps": 512, "num_envs": 8, "rollout_steps": 16, "minibatch_size": 64, "num_epochs": 2, "hidden": [8]}


def config(tmp_path: Path, **changes: Any) -> ExperimentConfig:
    values: dict[str, Any] = {
        "name": "small",
        "env": {"id": "ResourceManager-v0", "options": {"episode_steps": 20}},
        "ppo": PPO | {"envs_per_input": 1},
        "evaluation": {
            "validation_episodes": 4,
            "test_episodes": 10,
            "validate_every_share": 0.5,
            "bootstrap_samples": 50,
            "videos": 0,
        },
        "output": str(tmp_path / "runs"),
        **changes,
    }
    return config_from_mapping(values)


@pytest.mark.usefixtures("ray_session")
def test_both_engines_leave_runs_a_verdict_and_a_picture(tmp_path: Path):
    check = crosscheck(config(tmp_path), [3, 4])
    assert check.folder.parent == tmp_path / "runs" / "small-crosscheck"
    summary = json.loads((check.folder / "summary.json").read_text())
    assert summary["verdict"] in ("agree", "RLlib better", "SB3 better")
    assert summary["env_steps"] == 512
    assert summary["seeds"] == [3, 4]
    for engine, algorithm in (("rllib", "ppo"), ("sb3", "sb3_ppo")):
        found = summary["engines"][engine]
        assert found["low"] <= found["mean"] <= found["high"]
        assert len(found["per_seed"]) == 2
        assert found["steps_per_second"] > 0
        for seed, run in zip((3, 4), found["runs"], strict=True):
            policy = load_policy(check.folder / run)
            assert policy.spec.provenance["algorithm"] == algorithm
            assert policy.spec.provenance["seed"] == seed
            assert json.loads((check.folder / run / "run.json").read_text())["status"] == "finished"
    ET.fromstring((check.folder / "plot.svg").read_text())
    before = {path: path.stat().st_mtime_ns for path in (check.folder / "runs").rglob("run.json")}
    assert len(before) == 4
    assert all((path.parent / "report.html").is_file() for path in before)
    again = crosscheck(config(tmp_path), [3, 4], check.folder)
    assert {path: path.stat().st_mtime_ns for path in (check.folder / "runs").rglob("run.json")} == before, "none is repeated"
    assert again.verdict == check.verdict


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_autoscale_is_compared_by_what_it_costs(tmp_path: Path):
    small = {"window_steps": 240, "drawn_windows": 2, "test_seeds": [0], "validate_every_share": 1.0, "bootstrap_samples": 50}
    small |= {"tuning_evaluations": 4, "videos": 0}
    autoscale = config(
        tmp_path,
        env={"id": "Autoscale-v0", "episode_steps": 60},
        workload={"kind": "diurnal", "days": 2},
        ppo=PPO | {"envs_per_input": 2},
        evaluation=small,
    )
    check = crosscheck(autoscale, [0, 1])
    assert check.lower_is_better
    assert check.metric == "J per hour"
    assert check.unmatched == ("ppo.envs_per_input=2",)
    assert check.engines["sb3"].interval.mean > 0


@pytest.mark.parametrize("algorithm", ["sb3_ppo", "sb3_dqn"])
def test_a_stable_baselines3_run_leaves_the_same_folder_and_resumes(tmp_path: Path, algorithm: str):
    dqn = {"total_env_steps": 256, "num_envs": 4, "rollout_steps": 8, "batch_size": 16, "learning_starts": 32, "hidden": [8]}
    experiment = config(tmp_path, algorithm=algorithm, dqn=dqn)
    result = run_experiment(experiment, RunFolder.create(experiment))
    assert result.finished
    folder = result.folder
    for made in ("metrics.parquet", "policy/model.onnx", "policy-final/policy.json", "evaluation/summary.json"):
        assert (folder.path / made).is_file(), made
    assert load_policy(folder.path).spec.decision_rule == ("argmax_p" if algorithm == "sb3_ppo" else "argmax_q")
    rows = folder.read_metrics()
    assert [row["iteration"] for row in rows] == list(range(1, experiment.learning.num_iterations + 1))
    assert run_experiment(experiment, folder, resume=True).finished, "a finished run has nothing left to do"
    assert folder.read_metrics() == rows


def test_a_bad_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config_file = tmp_path / "config.yaml"
    config_file.write_text(config(tmp_path).to_yaml())
    for words, expected in (
        ([tmp_path / "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        ([config_file, "--seeds", "1", "1"], "--seeds: [1, 1] is not allowed"),
        ([config_file, "--seeds", "-1"], "--seeds: [-1] is not allowed"),
        ([config_file, "--set", "algorithm=sarsa"], "algorithm: sarsa is not allowed in a cross-check; allowed: ppo, dqn"),
        ([config_file, "--set", "ppo.lr=fast"], "ppo.lr: 'fast' is not allowed"),
        ([config_file, "--resume", "--out", tmp_path], f"--out: {tmp_path} holds no runs/; allowed: a cross-check's folder"),
    ):
        assert expected in refused(capsys, "study", *words), words
        assert not (tmp_path / "runs").exists(), words
