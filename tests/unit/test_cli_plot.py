"""`scalepilot plot`: the run's own pictures again, byte for byte, from whatever is left of it."""

from __future__ import annotations

import io
import json
import shutil

import pytest

from scalepilot.cli import main
from scalepilot.config import config_from_mapping
from scalepilot.evaluate import Comparison
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.algorithms import make_trainer, policy_spec
from scalepilot.learn.loop import TrainingLoop
from scalepilot.learn.task import Task
from scalepilot.progress import Progress
from scalepilot.runs.folder import RunFolder
from scalepilot.runs.stored_metrics import LOGGED, logged_metrics, stored_metrics


def config(output, **changes):
    return config_from_mapping(
        {
            "name": "queue",
            "algorithm": "q_learning",
            "env": {"id": "QueueScaling-v0"},
            "tabular": {"total_env_steps": 8000, "num_envs": 4, "bins": {"load_share": 5, "instances_share": 4}},
            "evaluation": {"validation_episodes": 2, "test_episodes": 4, "bootstrap_samples": 10, "videos": 0},
            "output": str(output),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    experiment = config(tmp_path_factory.mktemp("runs"))
    folder = RunFolder.create(experiment)
    run_experiment(experiment, folder)
    return folder.path


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def plotted(capsys, *arguments, code=0):
    assert main(["plot", *[str(a) for a in arguments], "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if out else err


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_plot_is_drawn_again_byte_for_byte(capsys, run, tmp_path):
    own = files(run / "plots")
    assert sorted(own) == [
        "action_probabilities.svg", "action_shares.svg", "learning_curve.svg", "policy_map.svg", "q_table.svg",
    ]  # fmt: skip
    shutil.rmtree(run / "plots")
    said = plotted(capsys, run)
    assert files(run / "plots") == own
    assert said["left_out"] == {}
    assert said["metrics"] == "progress.csv"
    plotted(capsys, run, "--out", tmp_path / "elsewhere")
    assert files(tmp_path / "elsewhere") == own


def test_the_parquet_gives_the_same_bytes_and_the_log_the_same_validations(capsys, run):
    own = (run / "plots" / "learning_curve.svg").read_bytes()
    folder, experiment = RunFolder.open(run)
    rows, _ = stored_metrics(folder, experiment)
    (run / "progress.csv").unlink()
    assert plotted(capsys, run)["metrics"] == "metrics.parquet"
    assert (run / "plots" / "learning_curve.svg").read_bytes() == own
    (run / "metrics.parquet").write_bytes((run / "metrics.parquet").read_bytes()[:200])
    assert plotted(capsys, run)["metrics"] == "logs/training.log"
    validated = [{name: row[name] for name in LOGGED} for row in rows if row["validation_return"] is not None]
    logged, _ = stored_metrics(folder, experiment)
    assert [{name: row[name] for name in LOGGED} for row in logged] == validated
    assert len(validated) >= 10
    assert b">validation<" in (run / "plots" / "learning_curve.svg").read_bytes()
    assert b">training<" in (run / "plots" / "learning_curve.svg").read_bytes()


def test_an_older_log_without_numbers_for_machines_still_gives_the_validations(run):
    folder, experiment = RunFolder.open(run)
    (run / "progress.csv").unlink()
    (run / "metrics.parquet").unlink()
    told, _ = stored_metrics(folder, experiment)
    log = run / "logs" / "training.log"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if " metrics {" not in line))
    older, source = stored_metrics(folder, experiment)
    assert source == "logs/training.log"
    assert [row["env_steps"] for row in older] == [row["env_steps"] for row in told]
    for mine, theirs in zip(older, told, strict=True):
        assert mine["validation_return"] == pytest.approx(theirs["validation_return"], abs=1e-4)


def test_what_ran_again_after_a_resumption_counts_once(tmp_path):
    experiment = config(tmp_path)
    folder = RunFolder.create(experiment)
    (folder.path / "logs").mkdir()

    def line(iteration, value):
        row = {"iteration": iteration, "env_steps": 4 * iteration, "validation_return": value}
        return f"2026-01-01 00:00:00,000 INFO scalepilot.training: {logged_metrics(row)}\n"

    resumed = "2026-01-01 00:00:00,000 INFO scalepilot.training: resumed at iteration 2, with an empty replay buffer\n"
    text = line(1, 1.0) + line(2, 2.0) + line(3, 3.0) + line(4, 4.0) + resumed + line(4, 40.0) + line(5, 50.0)[:-4]
    (folder.path / "logs" / "training.log").write_text(text)
    rows, _ = stored_metrics(folder, experiment)
    assert [(row["iteration"], row["validation_return"]) for row in rows] == [(1, 1.0), (2, 2.0), (4, 40.0)]


def test_an_interrupted_run_shows_what_it_has(capsys, tmp_path):
    experiment = config(tmp_path)
    folder, task = RunFolder.create(experiment), Task(experiment)
    spec, progress = policy_spec(experiment, folder, task), Progress("test", stream=io.StringIO())
    loop = TrainingLoop(experiment, make_trainer(experiment, task), folder, task, spec, progress)
    loop.run(lambda: loop.iteration >= 30)
    said = plotted(capsys, folder.path)
    assert len(said["drawn"]) == 5
    assert b"test, 95 % interval" not in (folder.plots / "learning_curve.svg").read_bytes()


def test_what_cannot_be_drawn_is_named_and_the_rest_drawn(capsys, run):
    (run / "policy" / "table.npz").write_bytes(b"cut off")
    said = plotted(capsys, run)
    assert said["drawn"] == ["learning_curve.svg"]
    assert "the file was changed or cut off" in said["left_out"]["q_table.svg"]
    shutil.rmtree(run / "policy")
    for name in ("progress.csv", "metrics.parquet"):
        (run / name).unlink()
    shutil.rmtree(run / "logs")
    nothing = plotted(capsys, run, code=1)
    assert nothing["drawn"] == []
    assert nothing["left_out"]["policy_map.svg"] == "the run has no policy yet"
    assert "no metrics" in nothing["left_out"]["learning_curve.svg"]


def test_the_map_is_of_the_fields_asked_for(capsys, run):
    before = (run / "plots" / "policy_map.svg").read_text()
    plotted(capsys, run, "--field", "queue_requests", "load_share")
    after = (run / "plots" / "policy_map.svg").read_text()
    assert ">queue_requests (" in after
    assert after != before
    assert "is not allowed" in plotted(capsys, run, "--field", "nonsense", "load_share")["left_out"]["policy_map.svg"]


def test_a_folder_that_is_no_run_is_refused(capsys, tmp_path):
    assert main(["plot", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


def test_a_run_of_autoscale_shows_the_window_played_back(capsys, tmp_path):
    windows = {"window_steps": 240, "drawn_windows": 2, "tuning_evaluations": 4, "optimum": False, "bootstrap_samples": 20}
    experiment = config(
        tmp_path,
        env={"id": "Autoscale-v0", "episode_steps": 60},
        workload={"kind": "diurnal", "days": 2},
        tabular={"total_env_steps": 3000, "num_envs": 4, "bins": {"cpu_utilisation": 4}},
        evaluation={**windows, "videos": 0},
    )
    folder = RunFolder.create(experiment)
    result = run_experiment(experiment, folder)
    assert isinstance(result.comparison, Comparison)
    own = files(folder.plots)
    assert {"playback.svg", "policy_map.svg"} <= set(own)
    assert b">hpa-" in own["playback.svg"]
    shutil.rmtree(folder.plots)
    plotted(capsys, folder.path)
    assert files(folder.plots) == own
