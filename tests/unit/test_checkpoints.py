"""Checkpoints of a run: kept, refused to strangers, survived by a full disk, and exact where nothing is random beyond a seed."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.errors import InputError, RunError
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.loop import TrainingLoop
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy
from scalepilot.progress import Progress
from scalepilot.runs.checkpoints import LAST_FILE, Checkpoints
from scalepilot.runs.folder import RunFolder


def config(output: Path, **changes: Any) -> ExperimentConfig:
    return config_from_mapping(
        {
            "name": "grid",
            "algorithm": "q_learning",
            "env": {"id": "GridWorld-v0"},
            "tabular": {"total_env_steps": 2000, "num_envs": 2},
            "evaluation": {"validation_episodes": 2, "test_episodes": 2, "bootstrap_samples": 10, "videos": 0},
            "checkpoints": {"every_share": 0.2},
            "output": str(output),
            **changes,
        }
    )


def loop_of(experiment: ExperimentConfig, folder: RunFolder, stream: io.StringIO | None = None) -> TrainingLoop:
    task = Task(experiment)
    spec = policy_spec(experiment, folder, task)
    progress = Progress("test", stream=stream or io.StringIO())
    return TrainingLoop(experiment, make_trainer(experiment, task), folder, task, spec, progress)


def write(checkpoints: Checkpoints, *iterations: int) -> None:
    for i in iterations:
        checkpoints.write(i, lambda folder: (folder / LAST_FILE).write_text("{}") and None)


@pytest.mark.parametrize("num_to_keep", [1, 2, 5])
def test_the_newest_are_kept_by_their_number_not_their_name(tmp_path: Path, num_to_keep: int):
    checkpoints = Checkpoints(tmp_path / "checkpoints", num_to_keep)
    assert checkpoints.newest() is None
    write(checkpoints, 2, 999_999, 1_000_000, 1_000_001)
    assert [int(p.name) for p in checkpoints.all()] == [2, 999_999, 1_000_000, 1_000_001][-num_to_keep:]
    assert checkpoints.newest() == tmp_path / "checkpoints" / "1000001"


def test_half_written_checkpoints_are_never_visible(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, 2)
    (tmp_path / ".000009.1.new").mkdir()
    (tmp_path / ".000009.1.new" / LAST_FILE).write_text("{}")
    (tmp_path / "000003").mkdir()
    assert checkpoints.newest() is None
    (tmp_path / "000003" / LAST_FILE).write_text("{}")
    assert checkpoints.newest() == tmp_path / "000003"


def test_a_run_of_somebody_elses_is_not_resumed_for_it_could_run_any_code(tmp_path: Path):
    experiment = config(tmp_path)
    folder = RunFolder.create(experiment)
    loop_of(experiment, folder).run(lambda: False)
    checkpoints = Checkpoints(folder.checkpoints, 2)
    checkpoints.check_owner()
    newest = checkpoints.newest()
    assert newest is not None
    for path, mode in (
        (newest / LAST_FILE, 0o666),
        (newest / "trainer", 0o777),
        (folder.path, 0o777),
        (folder.config_file, 0o646),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(InputError, match=rf"resume: {path}: others may write there \(mode {mode:o}\)"):
            run_experiment(experiment, folder, resume=True)
        path.chmod(before)
    checkpoints.check_owner()
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(newest / LAST_FILE, 12345, -1)
    with pytest.raises(InputError, match="belongs to user 12345, you are user 0"):
        run_experiment(experiment, folder, resume=True)


def test_a_resumed_table_is_the_saved_one_bit_for_bit_and_draws_on(tmp_path: Path):
    experiment = config(tmp_path)
    task = Task(experiment)
    first, second = make_trainer(experiment, task), make_trainer(experiment, task)
    for _ in range(3):
        first.iterate()
    first.save(tmp_path / "saved")
    second.restore(tmp_path / "saved")
    np.testing.assert_array_equal(first.q, second.q)
    assert first._rng.bit_generator.state == second._rng.bit_generator.state
    assert (first.iterations, first.episodes_ended) == (second.iterations, second.episodes_ended)


def test_run_json_says_where_a_run_went_on(tmp_path: Path):
    experiment = config(tmp_path)
    folder = RunFolder.create(experiment)
    loop = loop_of(experiment, folder)
    loop.run(lambda: loop.iteration >= 3)
    again = loop_of(experiment, folder)
    again.resume()
    assert again.iteration == 3
    (noted,) = json.loads((folder.path / "run.json").read_text())["resumed"]
    assert (noted["iteration"], noted["replay_refilled"]) == (3, False)
    again.run(lambda: False)
    assert [row["iteration"] for row in folder.read_metrics()] == list(range(1, 11))


def test_a_line_cut_short_by_a_kill_is_no_iteration(tmp_path: Path):
    experiment = config(tmp_path)
    folder = RunFolder.create(experiment)
    loop = loop_of(experiment, folder)
    loop.run(lambda: loop.iteration >= 4)
    text = folder.progress_csv.read_text()
    folder.progress_csv.write_text(text[:-9])
    assert [row["iteration"] for row in folder.read_metrics()] == [1, 2, 3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system needs root: {done.stderr.decode().strip()}")
    yield folder
    logging.shutdown()
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_a_full_disk_costs_a_checkpoint_is_said_in_one_line_and_the_one_before_loads(small_disk: Path):
    experiment = config(small_disk)
    folder = RunFolder.create(experiment)
    said = io.StringIO()
    loop = loop_of(experiment, folder, said)
    loop.callbacks.clear()
    loop.trainer.iterate()
    loop.iteration = 1
    loop.checkpoint()
    kept = np.array(loop.trainer.q)
    ballast = fill_up(small_disk)
    loop.trainer.iterate()
    loop.iteration = 2
    loop.checkpoint()
    assert said.getvalue() == "checkpoint 000002 cannot be written (No space left on device); 000001 stays\n"
    assert [p.name for p in loop.checkpoints.all()] == ["000001"]
    assert not list(folder.checkpoints.glob(".*")), "nothing half-written is left aside"
    ballast.unlink()
    resumed = loop_of(experiment, folder)
    resumed.resume()
    assert resumed.iteration == 1
    np.testing.assert_array_equal(resumed.trainer.q, kept)
    loop.checkpoint()
    assert [p.name for p in loop.checkpoints.all()] == ["000001", "000002"], "with room again it goes on"


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
):
    experiment = config(small_disk, tabular={"total_env_steps": 40_000, "num_envs": 2})
    folder = RunFolder.create(experiment)
    folder.start_logging()
    loop = loop_of(experiment, folder)
    loop.run(lambda: loop.iteration >= 50)
    ballast = fill_up(small_disk)
    with pytest.raises(
        RunError, match=r"cannot be written \(No space left on device\); make room, then: scalepilot train --resume"
    ):
        loop.run(lambda: False)
    folder.close()
    ballast.unlink()
    assert "Traceback" not in capsys.readouterr().err
    resumed = loop_of(experiment, folder)
    resumed.resume()
    assert resumed.iteration == 50
    resumed.run(lambda: False)
    assert [row["iteration"] for row in folder.read_metrics()] == list(range(1, 201))
    assert load_policy(folder.policy).spec.kind == "table"
