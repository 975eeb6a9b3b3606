"""What watches training: trackers by injection, TensorBoard's files, videos when they are due, and failures that end nothing."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.commands import refused

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.config.running import TrackingConfig
from scalepilot.errors import ConfigError, RunError
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.callbacks import Callback, Guarded, TensorBoard, Videos, check_tracking, trackers
from scalepilot.learn.loop import TrainingLoop
from scalepilot.learn.task import Task
from scalepilot.progress import Progress
from scalepilot.runs.folder import RunFolder


def config(output: Path, **changes: Any) -> ExperimentConfig:
    return config_from_mapping(
        {
            "name": "grid",
            "algorithm": "q_learning",
            "env": {"id": "GridWorld-v0"},
            "tabular": {"total_env_steps": 2000, "num_envs": 2},
            "evaluation": {"validation_episodes": 2, "validate_every_share": 0.5, "videos": 0},
            "output": str(output),
            **changes,
        }
    )


def train(experiment: ExperimentConfig, folder: RunFolder, callbacks: list[Callback], iterations: int = 10) -> str:
    """Ten iterations; what was said to the person."""
    task, said = Task(experiment), io.StringIO()
    spec, progress = policy_spec(experiment, folder, task), Progress("test", stream=said)
    loop = TrainingLoop(experiment, make_trainer(experiment, task), folder, task, spec, progress, callbacks)
    loop.run(lambda: loop.iteration >= iterations)
    return said.getvalue()


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_begin(self, env_steps):
        self.calls.append(("begin", env_steps))

    def on_iteration(self, row, policy):
        self.calls.append(("iteration", row["iteration"], row["env_steps"]))

    def on_validation(self, env_steps, value, kept):
        self.calls.append(("validation", env_steps, kept))

    def on_end(self, finished):
        self.calls.append(("end", finished))


def test_a_callback_is_told_everything_in_order(tmp_path: Path):
    recorder, experiment = Recorder(), config(tmp_path)
    train(experiment, RunFolder.create(experiment), [recorder])
    kinds = [call[0] for call in recorder.calls]
    assert kinds == ["begin", *["iteration"] * 4, "validation", *["iteration"] * 5, "validation", "iteration", "end"]
    assert recorder.calls[0] == ("begin", 0)
    assert recorder.calls[-1] == ("end", True)
    stopped = Recorder()
    train(experiment, RunFolder.create(experiment), [stopped], iterations=3)
    assert stopped.calls[-1] == ("end", False)


@pytest.mark.parametrize("where", ["on_begin", "on_iteration", "on_validation", "on_end"])
def test_a_callback_that_fails_is_named_once_and_left_out_and_the_run_goes_on(tmp_path: Path, where: str):
    class Broken(Recorder):
        pass

    def fail(self, *arguments):
        self.calls.append(("failed",))
        raise ConnectionError("no route to host\nand much more")

    setattr(Broken, where, fail)
    broken, other, experiment = Broken(), Recorder(), config(tmp_path)
    folder = RunFolder.create(experiment)
    said = train(experiment, folder, [broken, other])
    assert said.count("Broken has failed and is left out: ConnectionError: no route to host\n") == 1
    assert "and much more" not in said
    assert broken.calls.count(("failed",)) == 1
    assert broken.calls[-1] == ("failed",), "not asked again"
    assert len(folder.read_metrics()) == 10
    assert other.calls[-1] == ("end", True)


def test_a_run_that_cannot_write_its_metrics_ends(tmp_path: Path):
    experiment = config(tmp_path)
    folder = RunFolder.create(experiment)
    folder.progress_csv.mkdir()
    recorder = Recorder()
    with pytest.raises(RunError, match=r"progress.csv: cannot be written .*scalepilot train --resume"):
        train(experiment, folder, [recorder])
    assert recorder.calls[-1] == ("end", False), "trackers are told"


class FakeWandb:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.began: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.ended: list[int] = []

    def init(self, **arguments):
        self.began.append(arguments)
        return self

    def log(self, metrics, step):
        self.rows.append((step, metrics))

    def finish(self, exit_code):
        self.ended.append(exit_code)


class FakeMlflow:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self.began: list[dict[str, Any]] = []
        self.parameters: dict[str, str] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.ended: list[str] = []

    def set_experiment(self, name):
        self.experiments.append(name)

    def start_run(self, **arguments):
        self.began.append(arguments)
        info = type("Info", (), {"run_id": "abc"})
        return type("Run", (), {"info": info})

    def log_params(self, parameters):
        self.parameters |= parameters

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))

    def end_run(self, status):
        self.ended.append(status)


def test_wandb_gets_the_config_validated_rows_and_the_end_under_one_id(tmp_path: Path):
    fake = FakeWandb()
    experiment = config(tmp_path, tracking={"wandb_project": "scaling"})
    folder = RunFolder.create(experiment)
    for _ in range(2):
        train(experiment, folder, trackers(experiment, experiment.tracking, folder.path, {"wandb": fake}.__getitem__))
    first, again = fake.began
    assert (first["project"], first["dir"], first["resume"]) == ("scaling", str(folder.path), "allow")
    assert first["config"]["tabular"]["num_envs"] == 2
    assert first["id"] == again["id"], "a resumed run is the same run there"
    assert set(first["id"]) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    steps = [step for step, _ in fake.rows]
    assert {1000, 2000} <= set(steps), "validations are always sent"
    assert all(value is not None for _, row in fake.rows for value in row.values())
    assert fake.ended == [0, 0]


def test_mlflow_gets_flat_parameters_once_and_goes_on_with_its_run(tmp_path: Path):
    fake = FakeMlflow()
    experiment = config(tmp_path, tracking={"mlflow_experiment": "scaling"})
    folder = RunFolder.create(experiment)
    train(experiment, folder, trackers(experiment, experiment.tracking, folder.path, {"mlflow": fake}.__getitem__), iterations=3)
    train(experiment, folder, trackers(experiment, experiment.tracking, folder.path, {"mlflow": fake}.__getitem__))
    assert fake.experiments == ["scaling", "scaling"]
    assert [began["run_id"] for began in fake.began] == [None, "abc"]
    assert fake.parameters["tabular.num_envs"] == "2"
    assert fake.parameters["env.id"] == "GridWorld-v0"
    assert fake.ended == ["KILLED", "FINISHED"]


def test_a_missing_tracker_is_one_line_with_the_pip_command_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    none = TrackingConfig()
    check_tracking(none, lambda name: False)
    with pytest.raises(ConfigError, match=r"tracking.mlflow_experiment: mlflow is not installed; pip install mlflow"):
        check_tracking(TrackingConfig(mlflow_experiment="x"), lambda name: False)
    check_tracking(TrackingConfig("a", "b"), lambda name: True)
    file = tmp_path / "config.yaml"
    file.write_text(config(tmp_path / "runs").to_yaml())
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert refused(capsys, "train", file, "--set", "tracking.wandb_project=x") == (
        "scalepilot train: tracking.wandb_project: wandb is not installed; pip install wandb, or leave the key out\n"
    )
    assert not (tmp_path / "runs").exists()


def test_tensorboard_reads_what_is_written_and_a_resumed_run_replaces_its_end(tmp_path: Path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first, resumed = TensorBoard(tmp_path / "tensorboard"), TensorBoard(tmp_path / "tensorboard")
    first.on_begin(0)
    for step in (10, 20, 30):
        first.on_iteration({"iteration": step / 10, "env_steps": step, "q_loss": float(step), "epsilon": None}, lambda: None)
    first.on_end(False)
    resumed.on_begin(20)
    resumed.on_iteration({"iteration": 3, "env_steps": 30, "q_loss": -1.0}, lambda: None)
    resumed.on_end(True)
    accumulator = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert accumulator.Tags()["scalars"] == ["learner/q_loss"]
    assert [(event.step, event.value) for event in accumulator.Scalars("learner/q_loss")] == [(10, 10.0), (20, 20.0), (30, -1.0)]


@pytest.mark.parametrize(("count", "filmed"), [(1, [50]), (4, [20, 40, 60, 80]), (9, list(range(10, 91, 10)))])
def test_videos_are_spread_over_the_budget_the_end_has_one_of_its_own(tmp_path: Path, count: int, filmed: list[int]):
    made: list[Path] = []
    videos = Videos(tmp_path / "videos", count, 100, lambda policy, path: made.append(path))
    videos.on_begin(0)
    for env_steps in range(10, 101, 10):
        videos.on_iteration({"env_steps": env_steps}, lambda: None)
    assert [path.name for path in made] == [f"{n}.gif" for n in filmed]


def test_a_resumed_run_films_only_what_was_not_due_before(tmp_path: Path):
    made: list[str] = []
    videos = Videos(tmp_path / "videos", 4, 100, lambda policy, path: made.append(path.name))
    videos.on_begin(50)
    for env_steps in (60, 70, 80, 90, 100):
        videos.on_iteration({"env_steps": env_steps}, lambda: None)
    assert made == ["60.gif", "80.gif"]


def test_guarded_passes_everything_on():
    recorder = Recorder()
    guarded = Guarded(recorder, lambda text: None)
    guarded.on_begin(5)
    guarded.on_validation(10, 1.0, True)
    guarded.on_end(True)
    assert recorder.calls == [("begin", 5), ("validation", 10, True), ("end", True)]
