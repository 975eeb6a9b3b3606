"""Runs listed and, training seeds together, weighed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scalepilot.cli import main
from scalepilot.report.run_list import find_runs, worths
from scalepilot.report.run_tables import worth_markdown


def stored_run(
    folder: Path,
    *,
    seed: int = 0,
    env: str = "Autoscale-v0",
    J: float | None = 15.0,
    interval: tuple[float, float] = (-3.0, -1.0),
    lr: float = 1e-3,
) -> Path:
    """A run folder with what the list reads."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = {"name": "demo", "algorithm": "ppo", "engine": "rllib", "seed": seed, "env": {"id": env}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"ppo": {"lr": lr}, "output": str(folder)}))
    (folder / "run.json").write_text(
        json.dumps({"status": "finished", "training": {"env_steps": 2_000_000, "train_seconds": 50.0}})
    )
    if J is not None:
        metric = "J" if env == "Autoscale-v0" else "return"
        worse = J + 100 if metric == "J" else J - 100
        summary = {
            "workloads": ["week"],
            "roles": {"mine": "policy", "hpa": "baseline", "weak": "baseline", "optimum": "reference"},
            "policies": {
                "mine": {metric: {"mean": J}},
                "hpa": {metric: {"mean": 17.0}},
                "weak": {metric: {"mean": worse}},
                "optimum": {metric: {"mean": 1.0}},
            },
            "versus": {"mine": {"hpa": {"mean": J - 17.0, "low": interval[0], "high": interval[1]}}},
        }
        (folder / "evaluation").mkdir()
        (folder / "evaluation" / "summary.json").write_text(json.dumps(summary))
    return folder


def test_finds_runs_at_any_depth_and_each_once(tmp_path: Path) -> None:
    first = stored_run(tmp_path / "demo" / "1")
    stored_run(tmp_path / "sweep" / "x" / "trials" / "2", seed=1)
    assert [run.seed for run in find_runs([tmp_path, first, tmp_path / "demo"])] == [0, 1]


def test_reads_result_speed_and_the_best_baseline(tmp_path: Path) -> None:
    (run,) = find_runs([stored_run(tmp_path / "a")])
    assert (run.figure, run.rival, run.rival_figure, run.is_better) == (15.0, "hpa", 17.0, True)
    assert run.env_steps
    assert run.train_seconds
    assert run.env_steps / run.train_seconds == 40_000


def test_a_higher_return_is_better_and_a_higher_cost_is_worse(tmp_path: Path) -> None:
    (cost,) = find_runs([stored_run(tmp_path / "cost", J=19.0, interval=(1.0, 3.0))])
    (collected,) = find_runs([stored_run(tmp_path / "return", env="QueueScaling-v0", J=19.0, interval=(1.0, 3.0))])
    (unsure,) = find_runs([stored_run(tmp_path / "unsure", interval=(-3.0, 1.0))])
    assert (cost.is_better, collected.is_better, unsure.is_better) == (False, True, None)


def test_seeds_of_one_experiment_are_weighed_together_and_others_apart(tmp_path: Path) -> None:
    stored_run(tmp_path / "a", seed=0, J=15.0)
    stored_run(tmp_path / "b", seed=1, J=16.0, interval=(-2.0, 0.5))
    stored_run(tmp_path / "c", seed=0, lr=3e-4, J=18.0, interval=(0.5, 1.5))
    stored_run(tmp_path / "d", seed=2, J=None)
    together, apart = worths(find_runs([tmp_path]))
    assert (together.mean, together.lowest, together.highest, together.better, together.worse) == (15.5, 15.0, 16.0, 1, 0)
    assert (apart.mean, apart.worse) == (18.0, 1)
    table = worth_markdown([together, apart])
    assert "better with 1 of 2 seeds, undecided with 1 of 2 seeds" in table
    assert "worse with its one seed" in table


@pytest.mark.parametrize("damaged", ["run.json", "config.yaml", "evaluation/summary.json"])
def test_a_damaged_file_makes_a_run_unknown_not_the_list_fail(tmp_path: Path, damaged: str) -> None:
    stored_run(tmp_path / "good")
    (stored_run(tmp_path / "bad", seed=1) / damaged).write_text("{ half")
    assert len(find_runs([tmp_path])) == 2


def test_the_command_prints_json_and_says_in_a_line_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(tmp_path / "runs" / "a")
    assert main(["runs", str(tmp_path / "runs"), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["figure"] == 15.0
    assert entry["advantage"] == {"mean": -2.0, "low": -3.0, "high": -1.0}
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        assert main(["runs", str(tmp_path / folder)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
