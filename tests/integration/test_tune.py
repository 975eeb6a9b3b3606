"""Sweeps with Ray Tune as a person runs them: searched, ranked, killed and resumed; a trial that fails is named and retried."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.commands import refused, said

from scalepilot.cli import main
from scalepilot.experiments.sweep.board import read_trials
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
EXPERIMENT: dict[str, Any] = {
    "env": {"id": "CartPole-v1"},
    "ppo": {
        "total_env_steps": 6144,
        "num_envs": 8,
        "rollout_steps": 64,
        "minibatch_size": 128,
        "num_epochs": 2,
        "envs_per_input": 1,
        "hidden": [8],
    },
    "evaluation": {"validate_every_share": 0.25, "validation_episodes": 4, "test_episodes": 10},
}

# Without RLlib, whose start costs a trial most of its time; twelve iterations.
TABLE: dict[str, Any] = {
    "algorithm": "q_learning",
    "env": {"id": "CartPole-v1"},
    "tabular": {"num_envs": 8, "total_env_steps": 9600, "bins": {"observation_0": 3, "observation_2": 8}},
    "evaluation": EXPERIMENT["evaluation"],
}


def sweep_file(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    values = {"name": "s", "experiment": EXPERIMENT, "output": str(folder / "runs"), "concurrency": 2, **changes}
    path.write_text(yaml.safe_dump(values))
    return path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "scalepilot.cli", *words]


def only_sweep(folder: Path) -> Path:
    (found,) = (folder / "runs" / "s").iterdir()
    return found


@pytest.fixture(scope="module")
def killed(
    ray_session: None, tmp_path_factory: pytest.TempPathFactory, cli_env: dict[str, str]
) -> tuple[Path, dict[str, int], str]:
    """A grid whose driver was killed (SIGKILL) when some trials were finished, and resumed: its folder, mtimes, output."""
    folder = tmp_path_factory.mktemp("grid")
    path = sweep_file(folder, experiment=TABLE, space={"tabular.alpha": [0.5, 0.05]}, seeds=[0, 1])
    process = subprocess.Popen(command("tune", str(path)), env=cli_env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(finished := _finished(folder)) < 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {name: (sweep / "policy" / "policy.json").stat().st_mtime_ns for name, sweep in _finished(folder).items()}
    assert len(finished) <= len(before) < 4
    with contextlib.redirect_stdout(io.StringIO()) as said_then:
        assert main(["tune", "--resume", str(only_sweep(folder)), "--json"]) == 0
    return only_sweep(folder), before, said_then.getvalue()


def _finished(folder: Path) -> dict[str, Path]:
    places = (folder / "runs").glob("s/*/trials/*/run.json")
    return {p.parent.name: p.parent for p in places if RunFolder(p.parent).read_status().get("status") == "finished"}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_trains_nothing_twice(killed: tuple[Path, dict[str, int], str]):
    sweep, before, _ = killed
    trials = read_trials(sweep / "trials")
    assert len(trials) == 4
    assert {trial.status for trial in trials} == {"finished"}
    for name, written in before.items():
        assert (sweep / "trials" / name / "policy" / "policy.json").stat().st_mtime_ns == written
        assert RunFolder(sweep / "trials" / name).read_status()["sweep"]["attempts"] == 1
    for trial in trials:
        rows = RunFolder(trial.folder).read_metrics()
        assert [row["iteration"] for row in rows] == list(range(1, 13))


@pytest.mark.slow
def test_a_sweep_that_lost_what_tune_had_yet_to_draw_finds_its_trials_again(
    killed: tuple[Path, dict[str, int], str], tmp_path: Path
):
    sweep = tmp_path / "sweep"
    shutil.copytree(killed[0], sweep)
    for state in (sweep / "trials").glob("basic-variant-state-*.json"):
        state.unlink()
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("trials/*/policy/policy.json")}
    assert len(before) == 4
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["tune", "--resume", str(sweep), "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("trials/*/policy/policy.json")} == before


@pytest.mark.slow
def test_its_leaderboard_has_intervals_over_seeds_and_its_best_policy_is_exported(killed: tuple[Path, dict[str, int], str]):
    sweep, _, printed = killed
    summary = json.loads(printed)
    assert summary == json.loads((sweep / "summary.json").read_text())
    assert len(summary["leaderboard"]) == 2
    assert [place["validation"] for place in summary["leaderboard"]] == sorted(
        (place["validation"] for place in summary["leaderboard"]), reverse=True
    )
    best = summary["best"]
    assert best["seeds"] == [0, 1]
    assert best["test"]["low"] <= best["test"]["mean"] <= best["test"]["high"] <= 500
    assert set(summary["importance"]) == {"tabular.alpha"}
    assert load_policy(sweep / "policy").spec.provenance["config"]["tabular"]["alpha"] == best["point"]["tabular.alpha"]
    assert "is best of 2 points by validation" in summary["verdict"]
    for name in ("leaders", "parallel_coordinates", "importance"):
        assert (sweep / "plots" / f"{name}.svg").read_text().startswith("<svg")
    page = (sweep / "report.html").read_text()
    assert "Leaderboard" in page
    assert "<script" not in page


@pytest.mark.slow
def test_rays_own_tools_find_hyperparameters_metrics_and_the_best_trial(killed: tuple[Path, dict[str, int], str]):
    from ray.tune import ExperimentAnalysis, Result, Tuner

    from scalepilot.experiments.sweep.trial import Trial

    sweep, _, _ = killed
    where = str((sweep / "trials").resolve())
    analysis, known = ExperimentAnalysis(where), {trial.folder.name: trial for trial in read_trials(sweep / "trials")}
    assert len(analysis.trials) == len(analysis.trial_dataframes) == 4
    for trial in analysis.trials:
        ours = known[Path(trial.path).name]
        assert ours.point.items() <= trial.config.items()
        assert trial.config["seed"] == ours.seed
        frame, rows = analysis.trial_dataframes[trial.trial_id], RunFolder(ours.folder).read_metrics()
        assert frame["training_iteration"].tolist() == [row["iteration"] for row in rows]
        assert frame["q_loss"].tolist() == [row["q_loss"] for row in rows]
        # Validated four times; in between there is no score.
        validated = frame["validation_return"].notna()
        assert validated.sum() == 4
        assert validated.iloc[-1]
        assert frame["score"].iloc[-1] == trial.last_result["score"]
        assert {"validation_return", "episode_return_mean", "env_steps"} <= trial.last_result.keys()
    best = min(known.values(), key=lambda trial: -trial.value)
    found = analysis.get_best_trial("score", "min")
    assert found.last_result["value"] == best.value
    assert analysis.get_best_trial("validation_return", "max", scope="all") is not None
    results = Tuner.restore(where, trainable=Trial).get_results()
    assert (len(results), results.num_terminated, results.num_errors) == (4, 4, 0)
    result = results.get_best_result()
    assert (result.metrics["value"], Path(result.path).name) == (best.value, Path(found.path).name)
    assert Result.from_path(result.path).metrics["config"]["tabular.alpha"] == result.config["tabular.alpha"]
    assert set(results.get_dataframe()["config/tabular.alpha"]) == {0.5, 0.05}


@pytest.mark.slow
def test_trials_are_runs_which_can_be_listed_and_the_sweep_is_one_line(
    killed: tuple[Path, dict[str, int], str], cli_env: dict[str, str]
):
    sweep, _, _ = killed
    words = command("runs", str(sweep), "--json")
    (listed,) = json.loads(subprocess.run(words, env=cli_env, capture_output=True, text=True, check=True).stdout)
    assert (listed["trials"], listed["status"], listed["algorithm"]) == ([4, 4], "finished", "q_learning, grid search")
    assert listed["env_steps"] == 4 * 9600
    words = command("runs", str(sweep / "trials"), "--json")
    assert len(json.loads(subprocess.run(words, env=cli_env, capture_output=True, text=True, check=True).stdout)) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_the_worse_are_stopped_early_and_the_best_train_again_on_another_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = sweep_file(
        tmp_path,
        experiment=TABLE,
        space={"tabular.alpha": {"low": 0.02, "high": 0.9, "log": True}},
        search={"kind": "asha", "num_samples": 4, "grace_share": 0.25, "reduction_factor": 2},
        seeds=[0, 1],
        confirm_top=1,
    )
    summary = json.loads(said(capsys, "tune", path, "--json"))
    statuses = [trial["status"] for trial in summary["trials"]]
    assert statuses.count("stopped") >= 1
    assert statuses.count("finished") >= 2
    assert summary["best"]["seeds"] == [0, 1]
    for trial in summary["trials"]:
        assert trial["env_steps"] == 9600 if trial["status"] == "finished" else 0 < trial["env_steps"] < 9600


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_population_copies_its_best_and_goes_on_with_other_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    iterations = 60
    path = sweep_file(
        tmp_path,
        space={"ppo.lr": {"low": 1e-5, "high": 1e-2, "log": True}},
        search={"kind": "pbt", "num_samples": 2, "perturb_share": 0.25, "quantile": 0.5},
        # Both at once, and for long enough that neither is done before the other has begun.
        experiment={**EXPERIMENT, "ppo": {**EXPERIMENT["ppo"], "total_env_steps": 512 * iterations}},
        concurrency=2,
    )
    trials = json.loads(said(capsys, "tune", path, "--json"))["trials"]
    assert {trial["status"] for trial in trials} == {"finished"}
    changed = [trial for trial in trials if trial["changes"]]
    assert changed
    for trial in changed:
        rows = RunFolder(only_sweep(tmp_path) / trial["folder"]).read_metrics()
        assert rows[-1]["iteration"] == iterations
        # A member that copied one that was ahead has no rows of the iterations between.
        rates = {row["iteration"]: row["learning_rate"] or 0.0 for row in rows}
        # Who copies a member that has already used its budget up learns no more.
        for at, given in [
            (int(c["env_steps"]) // 512, c["point"]["ppo.lr"]) for c in trial["changes"][-1:] if c["env_steps"] < 512 * iterations
        ]:
            # The rate falls linearly to 0 over the budget: what is learnt with right after the change is the new one's.
            looked = [i for i in range(at + 1, at + 4) if i in rates]
            assert looked, (at, sorted(rates))
            for i in looked:
                assert given * (1 - (i + 1) / iterations) <= rates[i] <= given * (1 - (i - 2) / iterations)


@pytest.mark.usefixtures("ray_session")
def test_optuna_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("optuna")
    experiment = {**TABLE, "tabular": {**TABLE["tabular"], "total_env_steps": 1600}}
    experiment["evaluation"] = {"validate_every_share": 0.5, "validation_episodes": 2, "test_episodes": 2, "videos": 0}
    # A range, numbers, and what travels as JSON.
    choices: dict[str, list[Any]] = {
        "tabular.epsilon_decay": [0.9, 0.99],
        "tabular.bins": [TABLE["tabular"]["bins"], {"observation_2": 4}],
    }
    del experiment["tabular"]["bins"]
    path = sweep_file(
        tmp_path,
        experiment=experiment,
        space={"tabular.alpha": {"low": 1e-4, "high": 1e-2, "log": True}, **choices},
        search={"kind": "optuna", "num_samples": 2},
    )
    summary = json.loads(said(capsys, "tune", path, "--json"))
    assert summary == json.loads((only_sweep(tmp_path) / "summary.json").read_text())
    assert len(summary["leaderboard"]) == 2
    best = load_policy(only_sweep(tmp_path) / "policy").spec.provenance["config"]["tabular"]
    assert best["alpha"] == summary["best"]["point"]["tabular.alpha"]
    assert best["bins"] == summary["best"]["point"]["tabular.bins"]
    from ray.tune import ExperimentAnalysis

    configs = ExperimentAnalysis(str((only_sweep(tmp_path) / "trials").resolve())).get_all_configs().values()
    assert {config["seed"] for config in configs} == {0}
    for key, values in choices.items():
        assert all(place["point"][key] in values for place in summary["leaderboard"])
        assert all(config[key] in values or json.loads(config[key]) in values for config in configs)


@pytest.mark.slow
def test_a_trial_whose_process_dies_goes_on_from_its_checkpoint_and_ctrl_c_ends_in_order(tmp_path: Path, cli_env: dict[str, str]):
    # Minutes, of which some seconds are used.
    tabular = {**TABLE["tabular"], "total_env_steps": 4_000_000}
    experiment = {**TABLE, "tabular": tabular, "checkpoints": {"every_share": 0.005}}
    experiment["evaluation"] = {**TABLE["evaluation"], "validate_every_share": 0.02}
    path = sweep_file(tmp_path, experiment=experiment, space={"tabular.alpha": [0.1]}, concurrency=1)
    process = subprocess.Popen(
        command("tune", str(path)), env=cli_env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    def trial() -> RunFolder:
        return RunFolder(next(only_sweep(tmp_path).glob("trials/0*")))

    _until(process, lambda: len([*trial().checkpoints.iterdir()]) >= 2)
    psutil.Process(trial().read_status()["process"]["pid"]).kill()
    at = trial().read_metrics()[-1]["iteration"] or 0
    _until(process, lambda: trial().read_status()["sweep"]["attempts"] == 2 and trial().read_status().get("resumed"))
    assert trial().read_status()["resumed"][-1]["iteration"] > 0
    _until(process, lambda: (trial().read_metrics()[-1]["iteration"] or 0) > at)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert f"scalepilot tune --resume {only_sweep(tmp_path)}" in out
    assert trial().read_status()["status"] == "stopped"
    rows = [row["iteration"] for row in trial().read_metrics()]
    assert rows == list(range(1, len(rows) + 1))


def _until(process: subprocess.Popen[str], true: Any, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except (OSError, StopIteration, ValueError, KeyError, IndexError):
            pass
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_impatient_person_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gpus = sweep_file(tmp_path, space={"ppo.lr": [1e-3]}, experiment={"resources": {"num_gpus_per_learner": 2}})
    for words, expected in (
        ([], "give either SWEEP or --resume FOLDER"),
        (["--resume", tmp_path / "runs"], "holds no sweep.yaml"),
        (["nowhere.yaml"], "cannot be read"),
        ([gpus], "no CUDA GPU"),
    ):
        assert expected in refused(capsys, "tune", *words)
    assert not [*(tmp_path / "runs").glob("s/*")]
