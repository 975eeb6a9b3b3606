"""TensorBoard's scalars stand in groups, but in a run that was begun without."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalepilot.learn.callbacks import TensorBoard
from scalepilot.learn.callbacks import tensorboard as module
from scalepilot.runs.metrics import METRICS, TAGS

ROW = {"env_steps": 10, "steps_per_second": 3.0, "policy_loss": 0.5, "validation_return": 7.0, "cpu_percent": 90.0}


def written(folder: Path, env_steps: int = 0) -> list[str]:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoard(folder, {"seed": 3})
    board.on_begin(env_steps)
    board.on_iteration({**ROW, "env_steps": env_steps + 10}, lambda: None)
    board.on_end(True)
    return sorted(accumulators.EventAccumulator(str(folder)).Reload().Tags()["scalars"])


def test_every_metric_is_in_one_of_the_groups():
    assert set(TAGS) == set(METRICS)
    assert {tag.split("/")[0] for tag in TAGS.values()} == {"train", "evaluation", "learner", "time", "system"}
    for name, group in (
        ("validation_J_per_hour", "evaluation"),
        ("train_J_per_hour", "train"),
        ("episode_return_mean", "train"),
        ("env_failures", "train"),
        ("kl", "learner"),
        ("gradient_updates", "learner"),
        ("time_seconds", "time"),
        ("transfer_seconds", "time"),
        ("memory_megabytes", "system"),
        ("learner_restarts", "system"),
    ):
        assert TAGS[name] == f"{group}/{name}"


def test_scalars_are_written_in_groups(tmp_path: Path):
    grouped = ["evaluation/validation_return", "learner/policy_loss", "system/cpu_percent", "time/steps_per_second"]
    assert written(tmp_path) == grouped
    assert written(tmp_path, env_steps=10) == grouped


def test_a_run_that_was_begun_without_groups_goes_on_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TAGS", {name: name for name in METRICS})
    alone = written(tmp_path)
    assert "policy_loss" in alone
    monkeypatch.undo()
    assert written(tmp_path, env_steps=10) == alone
