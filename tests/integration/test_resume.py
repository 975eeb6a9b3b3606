"""Resuming: exact to the last bit where nothing new is sampled, after SIGKILL of the driver, after Ctrl-C, once and twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.commands import said

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.learn.task import Task
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.metrics import TIME_COLUMNS

pytestmark = pytest.mark.ray
PPO = {"total_env_steps": 4096, "num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "hidden": [16], "envs_per_input": 1}
DQN = {
    "total_env_steps": 4096,
    "num_envs": 4,
    "rollout_steps": 8,
    "learning_starts": 64,
    "batch_size": 16,
    "updates_per_step": 0.3,
    "prioritised_alpha": 0.6,
    "n_step": 3,
    "hidden": [16],
}
JUDGED = {"validation_episodes": 2, "test_episodes": 2, "bootstrap_samples": 10, "videos": 0}


def config(output: Path, algorithm: str = "ppo", **changes: Any) -> ExperimentConfig:
    values: dict[str, Any] = {"name": "resume", "algorithm": algorithm, "env": {"id": "CartPole-v1"}, "output": str(output)}
    values |= {"ppo": PPO, "dqn": DQN, "evaluation": JUDGED}
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
    return config_from_mapping(values)


def leaves(state: Any, path: str = "") -> dict[str, Any]:
    """Every number and array of nested state, by its place."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in leaves(value, f"{path}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, value in enumerate(state) for k, v in leaves(value, f"{path}/{i}").items()}
    return {path: np.asarray(state)} if isinstance(state, np.ndarray | int | float | bool) or hasattr(state, "numpy") else {}


def state_of(trainer: Any) -> dict[str, Any]:
    state = trainer.algorithm.learner_group.get_state()["learner"]
    return leaves({key: value for key, value in state.items() if key != "metrics_logger"})


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("algorithm", "streams"),
    [
        pytest.param("ppo", ["shuffle/shuffle"], marks=pytest.mark.slow),
        ("dqn", ["replay/generator", "replay/ring/columns/0"]),
    ],
)
def test_weights_moments_statistics_replay_and_generators_are_the_saved_ones_bit_for_bit(
    tmp_path: Path, algorithm: str, streams: list[str]
):
    from scalepilot.learn.rllib.trainer import RLlibTrainer

    experiment = config(tmp_path, algorithm)
    task = Task(experiment)
    first, second = RLlibTrainer(experiment, task), RLlibTrainer(experiment, task)
    try:
        for _ in range(5):
            metrics = first.iterate()
        first.save(tmp_path / "saved")
        saved = state_of(first)
        second.restore(tmp_path / "saved")
        restored = state_of(second)
        assert set(saved) == set(restored)
        for place, value in saved.items():
            np.testing.assert_array_equal(value, restored[place], err_msg=place)
        for wanted in ("exp_avg", "exp_avg_sq", "mean", "variance", *streams):
            assert any(wanted in place and np.any(saved[place]) for place in saved), wanted
        # The same experience again would teach nothing new.
        ended, begun = (t.algorithm.env_runner_group.local_env_runner for t in (first, second))
        expected, resumed = first.iterate(), second.iterate()
        assert resumed["learning_rate"] == expected["learning_rate"] <= metrics["learning_rate"]
        assert resumed.get("epsilon") == expected.get("epsilon")
        faster = config(tmp_path, algorithm, **{algorithm: {"lr": 10 * getattr(experiment, algorithm).lr}})
        fresh = RLlibTrainer(faster, task)
        fresh.iterate()
        runner = fresh.algorithm.env_runner_group.local_env_runner
        seeds = [r._generator.initial_seed() for r in (ended, runner, begun)]
        assert seeds[0] == seeds[1] != seeds[2], "a resumed runner has streams of its own"
        fresh.restore(tmp_path / "saved")
        assert fresh.iterate()["learning_rate"] == pytest.approx(10 * expected["learning_rate"]), "the rate that is set now"
        fresh.close()
    finally:
        first.close()
        second.close()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("algorithm", ["dqn", "sb3_dqn"])
def test_without_the_replay_a_resumed_run_fills_it_before_it_learns_on(tmp_path: Path, algorithm: str):
    from scalepilot.learn.algorithms import make_trainer

    lean = {"save_replay": False, "learning_starts": 96, "prioritised_alpha": 0.0}
    experiment = config(tmp_path, algorithm, dqn=lean)
    task = Task(experiment)
    first, second = make_trainer(experiment, task), make_trainer(experiment, task)
    try:
        before = [first.iterate() for _ in range(8)][-1]["gradient_updates"]
        assert before > 0
        first.save(tmp_path / "saved")
        size = sum(path.stat().st_size for path in (tmp_path / "saved").rglob("*") if path.is_file())
        assert size < 400_000, "no replay inside"
        second.restore(tmp_path / "saved")
        counts = [second.iterate().get("gradient_updates", before) for _ in range(6)]
        # 96 transitions are three iterations (a little more with 3-step returns).
        assert counts[:2] == [before] * 2, "nothing is learnt from a nearly empty ring"
        assert counts[-1] > before
        epsilons = [second.iterate()["epsilon"], first.iterate()["epsilon"]]
        assert epsilons[0] < 0.9, "ε goes on from where it was"
    finally:
        first.close()
        second.close()


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in rows]


def start(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scalepilot.cli", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True)


def wait_for(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
    return found


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.fixture
def driver(tmp_path: Path, cli_env: dict[str, str]) -> Iterator[Callable[..., tuple[subprocess.Popen[str], RunFolder]]]:
    """Starts `scalepilot train` on its own Ray and waits until it trains; ends it whatever happens."""
    started: list[subprocess.Popen[str]] = []

    def begin(experiment: ExperimentConfig) -> tuple[subprocess.Popen[str], RunFolder]:
        file = tmp_path / "config.yaml"
        file.write_text(experiment.to_yaml())
        started.append(start([str(file)], cli_env))
        found = wait_for(lambda: list((tmp_path / "runs").rglob("training.log")))
        return started[0], RunFolder(found[0].parents[1])

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_driver_killed_outright_is_resumed_with_at_most_one_interval_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], driver: Callable[..., Any]
):
    share, total = 0.1, 40
    experiment = config(
        tmp_path / "runs", ppo={"total_env_steps": 256 * total, "num_epochs": 10}, checkpoints={"every_share": share}
    )
    process, folder = driver(experiment)
    wait_for(lambda: len(list(folder.checkpoints.glob("[0-9]*"))) == 2)
    wait_for(lambda: len(folder.read_metrics()) > 8)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = folder.read_metrics()
    assert 8 < len(before) < total, "killed under way"
    wait_for(lambda: gone([child for child in children if "agent" not in cmdline(child).lower()]), 60)
    # Ray's own agents outlive a killed raylet for a while.
    for child in children:
        if child.is_running():
            child.kill()
    said(capsys, "train", "--resume", folder.path)
    run = json.loads((folder.path / "run.json").read_text())
    kept = run["resumed"][0]["iteration"]
    assert run["status"] == "finished"
    assert 0 <= len(before) - kept <= share * total, "at most one interval is lost"
    after = folder.read_metrics()
    assert [row["iteration"] for row in after] == list(range(1, total + 1)), "one curve without a gap"
    assert untimed(after[:kept]) == untimed(before[:kept])
    steps = [row["env_steps"] for row in after]
    assert steps == sorted(set(steps))
    assert after[kept]["learning_rate"] < after[kept - 1]["learning_rate"]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_leaves_no_process(tmp_path: Path, driver: Callable[..., Any]):
    # The first Ctrl-C ends learning after a few of these passes; checkpoint and export are still to come then.
    experiment = config(tmp_path / "runs", ppo={"num_epochs": 1000, "total_env_steps": 4_096_000})
    process, folder = driver(experiment)
    log = folder.path / "logs" / "training.log"
    wait_for(lambda: "training begins" in log.read_text())
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in children)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.1)
    assert process.poll() is None, "it writes what there is"
    os.kill(process.pid, signal.SIGINT)
    asked = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - asked < 20
    assert process.returncode == 130, output
    assert "press Ctrl-C again to stop immediately" in output
    assert "Traceback" not in output
    assert json.loads((folder.path / "run.json").read_text())["status"] == "interrupted"
    wait_for(lambda: gone(children), 30)


@pytest.mark.usefixtures("ray_session")
def test_rllibs_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path: Path):
    """What Arrow raises is an OSError like any other."""
    import io

    from scalepilot.learn.algorithms import policy_spec
    from scalepilot.learn.loop import TrainingLoop
    from scalepilot.learn.rllib.trainer import RLlibTrainer
    from scalepilot.progress import Progress

    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small file system needs root")
    try:
        experiment = config(disk, "dqn")
        task, folder, said = Task(experiment), RunFolder.create(config(disk)), io.StringIO()
        spec, progress = policy_spec(experiment, folder, task), Progress("test", stream=said)
        trainer = RLlibTrainer(experiment, task)
        try:
            loop = TrainingLoop(experiment, trainer, folder, task, spec, progress)
            for loop.iteration in (1, 2):
                trainer.iterate()
                if loop.iteration == 2:
                    with (disk / "ballast").open("wb") as file:
                        file.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 16 * 4096))
                loop.checkpoint()
        finally:
            trainer.close()
        assert said.getvalue().startswith("checkpoint 000002 cannot be written (")
        assert said.getvalue().endswith("; 000001 stays\n")
        assert said.getvalue().count("\n") == 1
        assert [p.name for p in folder.checkpoints.iterdir()] == ["000001"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
