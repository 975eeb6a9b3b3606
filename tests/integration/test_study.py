"""`scalepilot study`, small: trained in worker processes, gone on with, stopped, failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from tests.commands import refused, said

from scalepilot.cli import main
from scalepilot.evaluate import read_evaluation
from scalepilot.policy import load_policy

Q = "tabular: {num_envs: 8, alpha: 0.3, epsilon_decay: 0.99, total_env_steps: 4000}"
STUDY = f"""
name: grid
seeds: [0, 1]
set: {{evaluation.videos: 0, evaluation.test_episodes: 10, evaluation.validation_episodes: 4, evaluation.bootstrap_samples: 50}}
tasks:
  Grid:
    success_return: 90
    arms:
      Q-learning: {{config: {{algorithm: q_learning, env: {{id: GridWorld-v0}}, {Q}}}}}
      SARSA: {{config: {{algorithm: sarsa, env: {{id: GridWorld-v0}}, {Q}}}}}
"""


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "scalepilot.cli", "study", str(folder / "study.yaml"), *arguments]


def study(folder: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *arguments), capture_output=True, text=True, env=env, cwd=folder, check=False)


@pytest.mark.slow
def test_a_study_trains_measures_writes_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    summary = json.loads(said(capsys, "study", "study.yaml", "--jobs", 2, "--out", "out", "--json"))
    out = tmp_path / "out"
    assert json.loads((out / "summary.json").read_text()) == summary
    arms = summary["tasks"]["Grid"]["arms"]
    assert set(arms) == {"Q-learning", "SARSA"}
    for arm in arms.values():
        assert set(arm["per_seed"]) == {"0", "1"}
        assert sum(arm["actions"].values()) == pytest.approx(1.0)
        for run in arm["runs"].values():
            assert json.loads((out / run / "run.json").read_text())["status"] == "finished"
            assert load_policy(out / run).spec.kind == "table"
    assert summary["tasks"]["Grid"]["random"]["mean"] < max(arm["return_mean"]["mean"] for arm in arms.values())
    for plot in (out / "plots").iterdir():
        ET.fromstring(plot.read_text())
    assert {p.stem for p in (out / "plots").iterdir()} >= {"Grid-learning_curves", "Grid-final", "Grid-stability", "Grid-actions"}
    page = (out / "study.html").read_text()
    assert summary["tasks"]["Grid"]["verdict"] in page
    assert summary["tasks"]["Grid"]["analysis"]["Final performance"] in (out / "analysis.md").read_text()

    assert "--out: out holds runs; allowed: a new folder, or --resume" in refused(capsys, "study", "study.yaml", "--out", "out")

    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("run.json")}
    assert main(["study", "study.yaml", "--out", "out", "--resume", "--seeds", "0", "1", "2", "--jobs", "2"]) == 0
    assert "4 of 6 runs are finished already" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("run.json")}
    assert len(after) == 6
    assert {path: after[path] for path in before} == before, "finished runs are not touched"
    assert json.loads((out / "summary.json").read_text())["seeds"] == [0, 1, 2]


COST = """
name: shop
seeds: [0, 1]
set: {evaluation.videos: 0, evaluation.window_steps: 120, evaluation.drawn_windows: 2, evaluation.test_seeds: [0]}
tasks:
  Shop:
    success_return: 60
    arms:
      Q-learning: {config: {algorithm: q_learning, EXPERIMENT}}
      SARSA: {config: {algorithm: sarsa, EXPERIMENT}}
""".replace(
    "EXPERIMENT",
    "env: {id: Autoscale-v0, episode_steps: 60, params: {max_replicas: 30}}, workload: {kind: diurnal, days: 2, high_rps: 200},"
    " tabular: {total_env_steps: 2000, num_envs: 4, bins: {cpu_utilisation: 5}}",
)


@pytest.mark.slow
def test_a_study_of_autoscale_speaks_of_its_cost_with_a_minus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "study.yaml").write_text(COST)
    monkeypatch.chdir(tmp_path)
    task = json.loads(said(capsys, "study", "study.yaml", "--jobs", 2, "--out", "out", "--json"))["tasks"]["Shop"]
    for arm in task["arms"].values():
        costs = [read_evaluation(tmp_path / "out" / run / "evaluation").figure(name).mean for name, run in named(arm)]
        assert arm["return_mean"]["mean"] == pytest.approx(-sum(costs) / 2)
        assert arm["success_rate"]["mean"] == pytest.approx(sum(cost <= 60 for cost in costs) / 2, abs=0.5)
    assert task["random"]["mean"] < 0


def named(arm: dict[str, Any]) -> list[tuple[str, str]]:
    """Policy and run folder of each seed."""
    return [(json.loads((Path("out") / run / "policy" / "policy.json").read_text())["name"], run) for run in arm["runs"].values()]


@pytest.mark.slow
def test_ctrl_c_ends_the_runs_in_order_and_reuse_resumes_them(tmp_path: Path, cli_env: dict[str, str]):
    (tmp_path / "study.yaml").write_text(STUDY.replace("4000", "100000"))
    running = subprocess.Popen(
        command(tmp_path, "--out", "out", "--seeds", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=cli_env, cwd=tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/runs/*/*/progress.csv")):
        assert time.monotonic() < deadline, "no run began"
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    stdout, _ = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Stopped. Resume:" in stdout
    assert not _children_of(running.pid), "no worker is left"
    status = [json.loads(path.read_text())["status"] for path in tmp_path.glob("out/runs/*/*/run.json")]
    assert "interrupted" in status
    done = study(tmp_path, cli_env, "--out", "out", "--resume", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    resumed = [json.loads(path.read_text()) for path in tmp_path.glob("out/runs/*/*/run.json")]
    assert [run["status"] for run in resumed].count("finished") == 2
    assert any(run.get("resumed") for run in resumed)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_stay(tmp_path: Path, cli_env: dict[str, str]):
    (tmp_path / "broken_env.py").write_text(
        "import gymnasium as gym, numpy as np\n"
        "class Broken(gym.Env):\n"
        "    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)\n"
        "    action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return np.zeros(1, np.float32), {}\n"
        "    def step(self, action):\n"
        "        raise RuntimeError('out of order')\n"
        "gym.register('Broken-v0', Broken)\n"
    )
    broken = "  Broken:\n    arms:\n      PPO: {config: {env: {id: Broken-v0}, ppo: {envs_per_input: 1}}}\n"
    (tmp_path / "study.yaml").write_text(STUDY + broken)
    path = os.pathsep.join([str(tmp_path), cli_env.get("PYTHONPATH", "")])
    env = {**cli_env, "PYTHONPATH": path, "SCALEPILOT_ENV_MODULES": "broken_env"}
    done = study(tmp_path, env, "--out", "out", "--seeds", "0")
    assert done.returncode == 1
    assert "1 of 3 runs failed, first Broken · PPO · seed 0: " in done.stderr
    assert "out of order" in done.stderr.splitlines()[-1]
    finished = [path for path in tmp_path.glob("out/runs/Grid-*/*/run.json") if "finished" in path.read_text()]
    assert len(finished) == 2


def test_a_bad_argument_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    for arguments, expected in (
        (["--jobs", "0"], "--jobs: 0 is not allowed; allowed: whole numbers from 1 to 1000"),
        (["--seeds", "3", "3"], "--seeds: [3, 3] is not allowed"),
    ):
        assert expected in refused(capsys, "study", "study.yaml", *arguments)
        assert not (tmp_path / "runs").exists()


def _children_of(pid: int) -> list[str]:
    """Processes whose parent is, or was, this one: workers are ended with their study."""
    listed = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if line.strip().startswith(f"{pid} ")]


TRANSFER = """
name: two
seeds: [0]
set: {evaluation.window_steps: 40, evaluation.drawn_windows: 2, evaluation.test_seeds: [0], evaluation.videos: 0}
arms:
  PPO:
    config:
      algorithm: sb3_ppo
      env: {episode_steps: 40}
      ppo: {total_env_steps: 1024, num_envs: 8, rollout_steps: 32, minibatch_size: 64}
transfer: {calibrated: [hpa-tuned], tuning_evaluations: 4}
tasks:
  calm: {set: {workload: {kind: steady, num_steps: 1500, interval_seconds: 60}}}
  spiky: {set: {workload: {kind: spike, num_steps: 1500, interval_seconds: 60}}}
"""


@pytest.mark.slow
def test_a_study_with_transfer_runs_every_policy_on_every_task_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "study.yaml").write_text(TRANSFER)
    monkeypatch.chdir(tmp_path)
    summary = json.loads(said(capsys, "study", "study.yaml", "--budget", 0.5, "--out", "out", "--json"))
    rows = {(row["label"], row["learnt_on"]): row["on"] for row in summary["transfer"]["rows"]}
    assert set(rows) == {("PPO", "calm"), ("PPO", "spiky"), ("hpa-tuned", "calm"), ("hpa-tuned", "spiky"), ("hpa-default", None)}
    # On the task it was trained on a policy does what its own run says.
    assert rows["PPO", "calm"]["calm"]["J"]["mean"] == pytest.approx(
        -summary["tasks"]["calm"]["arms"]["PPO"]["return_mean"]["mean"]
    )
    assert summary["tasks"]["calm"]["arms"]["PPO"]["env_steps"] == 512
    out = tmp_path / "out"
    ET.fromstring((out / "plots" / "transfer.svg").read_text())
    assert "Transfer" in (out / "study.html").read_text()
    assert "--budget 0.5" in (out / "analysis.md").read_text()
    cells = {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*.npz")}
    assert len(cells) >= 10  # five rows on two tasks
    again = said(capsys, "study", "study.yaml", "--budget", 0.5, "--out", "out", "--resume")
    assert "In replicas alone" in again
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    assert json.loads((out / "summary.json").read_text())["transfer"] == summary["transfer"]
