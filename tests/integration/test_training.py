"""Training on a real local Ray: determinism, runners, interruption, resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import torch
from tests.commands import refused

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.experiments.run import ExperimentResult, run_experiment
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.metrics import METRICS, TIME_COLUMNS

if TYPE_CHECKING:
    from scalepilot.learn.rllib.trainer import RLlibTrainer

pytestmark = pytest.mark.ray
SMALL: dict[str, Any] = {
    "name": "small",
    "workload": {"kind": "diurnal", "days": 2},
    "env": {"episode_steps": 60},
    "ppo": {"total_env_steps": 8192, "num_envs": 32, "rollout_steps": 32, "minibatch_size": 256, "hidden": [16]},
    "evaluation": {
        "window_steps": 240,
        "drawn_windows": 3,
        "test_seeds": [0],
        "tuning_evaluations": 4,
        "validate_every_share": 0.25,
        "bootstrap_samples": 50,
        "videos": 0,
    },
}


def small(tmp_path: Path, **changes: Any) -> ExperimentConfig:
    merged = json.loads(json.dumps({**SMALL, "output": str(tmp_path)}))
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) and key in merged else value
    return config_from_mapping(merged)


def train(config: ExperimentConfig, *, evaluate: bool = True) -> ExperimentResult:
    return run_experiment(config, RunFolder.create(config), evaluate=evaluate)


def untimed(folder: RunFolder) -> list[dict[str, float | None]]:
    return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in folder.read_metrics()]


@pytest.fixture(scope="module")
def whole(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> ExperimentResult:
    """A whole run of the small config."""
    return train(small(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def parallel(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RLlibTrainer, list[dict[str, Any]]]]:
    """A trainer on two env runners, and the metrics of its first four iterations."""
    from scalepilot.learn.rllib.trainer import RLlibTrainer

    config = small(tmp_path_factory.mktemp("parallel"), resources={"num_env_runners": 2})
    trainer = RLlibTrainer(config, Task(config))
    try:
        yield trainer, [trainer.iterate() for _ in range(4)]
    finally:
        trainer.close()


def test_a_run_leaves_everything_a_person_and_a_script_need(whole: ExperimentResult):
    assert whole.finished
    folder = whole.folder
    for made in (
        "config.yaml",
        "run.json",
        "logs/training.log",
        "metrics.parquet",
        "progress.csv",
        "policy/model.onnx",
        "policy-final/policy.json",
        "deploy/policy.json",
        "baselines/hpa-tuned-rps/policy.json",
        "evaluation/episodes.parquet",
        "evaluation/summary.json",
        "report.html",
    ):
        assert (folder.path / made).is_file(), made
    assert list((folder.path / "tensorboard").glob("events.out.tfevents.*"))
    assert json.loads((folder.path / "run.json").read_text())["status"] == "finished"
    summary = json.loads((folder.evaluation / "summary.json").read_text())
    assert {"small-ppo", "hpa-default", "hpa-tuned-cpu", "hpa-tuned-rps", "look-ahead"} <= set(summary["policies"])
    # Whoever serves the policy has its description alone.
    kept = load_policy(folder.path).spec.evaluation
    assert kept["policies"] == summary["policies"]
    assert kept["gap_closed"] == summary["gap_closed"]["small-ppo"]
    assert summary["deploy"]["reason"] in (folder.path / "report.html").read_text()
    rows = folder.read_metrics()
    assert [r["iteration"] for r in rows] == list(range(1, 9))
    assert all(r["entropy"] is not None for r in rows)
    assert load_policy(folder.path).spec.provenance["seed"] == 0


@pytest.mark.parametrize("num_env_runners", [0, 2])
def test_metrics_of_episodes_are_means_over_those_that_ended_in_the_iteration(
    request: pytest.FixtureRequest, num_env_runners: int
):
    if num_env_runners:
        _, rows = request.getfixturevalue("parallel")
    else:
        # Of the whole run, what was measured: a column that a row lacks is empty there.
        rows = [
            {name: value for name, value in row.items() if value is not None}
            for row in request.getfixturevalue("whole").folder.read_metrics()
        ]
    # Episodes of 60 steps end in the second rollout of 32 and in the fourth.
    episodes = [{name: value for name, value in row.items() if name.startswith("episode_")} for row in rows]
    assert episodes[0] == {}, "absent, not 0 or NaN, before the first episode ends"
    assert episodes[2] == {}
    for row in (episodes[1], episodes[3]):
        assert row["episode_length_mean"] == 60
        assert row["episode_moves_mean"] + row["episode_no_ops_mean"] == 60
        assert 1 <= row["episode_replicas_mean"] <= row["episode_peak_replicas_mean"] <= 60
        assert 0 <= row["episode_late_share_mean"] <= 1
    assert episodes[1] != episodes[3]


def test_the_same_seed_gives_the_same_metrics_and_the_same_model_and_another_seed_does_not(
    tmp_path: Path, whole: ExperimentResult
):
    first, (again, other) = whole.folder, (train(small(tmp_path, seed=seed), evaluate=False).folder for seed in (0, 1))
    assert untimed(first) == untimed(again)
    assert set(untimed(first)[0]) == set(METRICS) - set(TIME_COLUMNS)
    model = (first.policy / "model.onnx").read_bytes()
    assert model == (again.policy / "model.onnx").read_bytes()
    assert untimed(first) != untimed(other)
    assert model != (other.policy / "model.onnx").read_bytes()


def test_parallel_env_runners_sample_different_experience_and_train(parallel: tuple[RLlibTrainer, list[dict[str, Any]]]):
    import ray

    from scalepilot.learn.rllib.runner_pool import sample_by_reference

    trainer, metrics = parallel
    assert metrics[1]["entropy"] > 0
    sampled = trainer.algorithm.env_runner_group.foreach_env_runner(
        partial(sample_by_reference, num_pieces=1), local_env_runner=False
    )
    rollouts = ray.get([piece for pieces, *_ in sampled for piece in pieces])
    assert [r.num_envs for r in rollouts] == [16, 16]
    rates = [r.observation[0, :, 0] for r in rollouts]
    assert not set(rates[0].tolist()) & set(rates[1].tolist()), "runners must not share streams"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("num_env_runners", [0, 2])
def test_ppo_learns_from_actions_that_it_did_not_take_and_repeats_itself(tmp_path: Path, num_env_runners: int):
    from scalepilot.learn.rllib.trainer import RLlibTrainer

    config = small(tmp_path, ppo={"counterfactual_every": 8}, resources={"num_env_runners": num_env_runners})
    weights = []
    for _ in range(2):
        trainer = RLlibTrainer(config, Task(config))
        try:
            metrics = [trainer.iterate() for _ in range(2)]
            weights.append(trainer.snapshot().arrays())
        finally:
            trainer.close()
        assert all(0.0 < row["kl"] < 1.0 for row in metrics)
        assert all(np.isfinite(row["value_loss"]) for row in metrics)
    assert all(np.array_equal(array, weights[1][name]) for name, array in weights[0].items())


@pytest.mark.usefixtures("ray_session")
def test_stock_rllib_trains_the_same_config_for_comparison(tmp_path: Path):
    from scalepilot.learn.rllib.trainer import RLlibTrainer

    config = small(tmp_path, engine="rllib-stock")
    trainer = RLlibTrainer(config, Task(config))
    try:
        metrics = trainer.iterate()
        assert metrics["entropy"] > 0
        assert trainer.snapshot().network(torch.ones((2, 21))).shape == (2, 8)
    finally:
        trainer.close()


def test_a_stopped_run_goes_on_where_it_was_and_keeps_its_metrics(tmp_path: Path, whole: ExperimentResult):
    config = small(tmp_path, checkpoints={"every_share": 0.25})
    folder = RunFolder.create(config)
    stopped = run_until(config, folder, iterations=3)
    assert stopped == 3
    assert (folder.policy / "model.onnx").is_file(), "an early end keeps the best policy so far"
    before = untimed(folder)
    result = run_experiment(config, folder, resume=True, evaluate=False)
    assert result.finished
    after = untimed(folder)
    assert after[:3] == before
    assert [r["iteration"] for r in after] == list(range(1, 9))
    uninterrupted = untimed(whole.folder)
    assert [r["learning_rate"] for r in after] == [r["learning_rate"] for r in uninterrupted], "schedules go on, not anew"


def run_until(config: ExperimentConfig, folder: RunFolder, iterations: int) -> int:
    """Train some iterations and stop as Ctrl-C does; returns the iterations logged."""
    from scalepilot.learn.algorithms import policy_spec
    from scalepilot.learn.loop import TrainingLoop
    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.progress import Progress

    folder.start_logging()
    task = Task(config)
    trainer = RLlibTrainer(config, task)
    loop = TrainingLoop(config, trainer, folder, task, policy_spec(config, folder, task), Progress("test"))
    try:
        outcome = loop.run(lambda: loop.iteration >= iterations)
    finally:
        trainer.close()
        folder.close()
    assert not outcome.finished
    return len(folder.read_metrics())


def wait_for(condition, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


@pytest.mark.slow
def test_ctrl_c_keeps_the_policy_says_how_to_go_on_and_leaves_no_process(tmp_path: Path, cli_env: dict[str, str]):
    config_file = tmp_path / "config.yaml"
    config_file.write_text(small(tmp_path / "runs", ppo={"total_env_steps": 50_000_000}).to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-m", "scalepilot.cli", "train", str(config_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=cli_env,
        start_new_session=True,
    )
    try:
        wait_for(lambda: any(len(p.read_text().splitlines()) > 3 for p in (tmp_path / "runs").rglob("progress.csv")))
        children = psutil.Process(process.pid).children(recursive=True)
        assert children, "a local Ray has processes"
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "scalepilot train --resume" in output
    assert "Traceback" not in output
    run = next((tmp_path / "runs").rglob("run.json")).parent
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert load_policy(run).spec.kind == "network"
    wait_for(lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children), 30)


def test_a_bad_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config_file = tmp_path / "config.yaml"
    config_file.write_text(small(tmp_path / "runs").to_yaml())
    for words, expected in (
        ("train nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("train", "give either CONFIG or --resume RUN"),
        ("train --resume nowhere", "holds no config.yaml"),
        ("train config.yaml --set ppo.lr=abc", "ppo.lr: 'abc' is not allowed"),
        ("train config.yaml --set algorithm=pppo", "did you mean ppo?"),
        ("train config.yaml --workload nowhere.csv", "nowhere.csv: no such file"),
        ("train config.yaml --set resources.num_gpus_per_learner=1", "this machine has no CUDA GPU"),
        ("train config.yaml --set evaluation.window_steps=1920", "a window has 1920"),
        ("compare nowhere", "nowhere: no such folder"),
        ("compare --evaluations 1", "--evaluations: 1 is not allowed"),
        ("trian", "invalid choice"),
    ):
        assert expected in refused(capsys, *words.split()), words
        assert not list(tmp_path.glob("runs/*/*")), f"a refused config leaves no run behind: {words}"
