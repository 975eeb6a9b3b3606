"""A run's folder: metrics, status and their survival."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scalepilot.config import config_from_mapping
from scalepilot.errors import InputError
from scalepilot.progress import Progress, duration
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.metrics import METRICS


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(config_from_mapping({"name": "x", "output": str(tmp_path)}))


def row(iteration: int, **more: float | None) -> dict[str, float | None]:
    return {"iteration": iteration, "env_steps": iteration * 10, **more}


def test_metrics_are_read_back_as_written_and_absent_is_not_zero(folder: RunFolder):
    folder.log_metrics(row(1, validation_J_per_hour=None))
    folder.log_metrics(row(2, validation_J_per_hour=0.1 + 0.2))
    first, second = folder.read_metrics()
    assert first["validation_J_per_hour"] is None
    assert second["validation_J_per_hour"] == 0.1 + 0.2
    folder.write_metrics_parquet()
    table = pq.read_table(folder.metrics_parquet)
    assert table.column_names == list(METRICS)
    assert table["validation_J_per_hour"].to_pylist() == [None, 0.1 + 0.2]


def test_iterations_after_a_checkpoint_are_forgotten_on_resume(folder: RunFolder):
    for i in (1, 2, 3, 4):
        folder.log_metrics(row(i))
    folder.truncate_metrics(2)
    folder.log_metrics(row(3))
    assert [r["iteration"] for r in folder.read_metrics()] == [1, 2, 3]


def test_an_undocumented_metric_is_refused(folder: RunFolder):
    with pytest.raises(ValueError, match="made_up"):
        folder.log_metrics(row(1, made_up=1.0))


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path: Path):
    config = config_from_mapping({"name": "x", "output": str(tmp_path)})
    assert len({RunFolder.create(config).path for _ in range(3)}) == 3


def test_a_run_opens_with_the_configuration_it_was_made_with(tmp_path: Path):
    config = config_from_mapping({"name": "x", "output": str(tmp_path), "ppo": {"lr": "2e-4", "hidden": [8]}})
    assert RunFolder.open(RunFolder.create(config).path)[1] == config


def test_another_folder_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds no config.yaml; allowed: a run folder"):
        RunFolder.open(tmp_path)


def test_status_keeps_what_was_known_before(folder: RunFolder):
    folder.write_status("running", training={"a": 1})
    folder.write_status("finished")
    run = json.loads((folder.path / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["training"] == {"a": 1}
    assert run["versions"]["numpy"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text


def test_progress_says_rate_time_left_and_the_number_that_matters(capsys: pytest.CaptureFixture[str]):
    progress = Progress("training ppo")
    progress.begin(1000)
    progress.update(1000, 52_000.0, 16.5, 16.1)
    progress.end()
    line = capsys.readouterr().err
    assert "100 %" in line
    assert "52 k steps/s" in line
    assert "validation J/h 16.50 (kept 16.10)" in line
    assert "\x1b" not in line, "no terminal codes when piped"
