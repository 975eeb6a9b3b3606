"""A sweep's YAML: what is allowed, which points it stands for, and one line for what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scalepilot.config import load_config
from scalepilot.errors import ConfigError
from scalepilot.experiments.sweep.config import RangeConfig
from scalepilot.experiments.sweep.plan import label, load_sweep, trial_folder, whole_mapping
from scalepilot.experiments.sweep.space import clipped, decode, domains

EXPERIMENT = {
    "env": {"id": "CartPole-v1"},
    "ppo": {"num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "envs_per_input": 1},
}
SPACE = {"ppo.lr": [1e-4, 1e-3], "ppo.hidden": [[8], [16, 16]]}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"name": "s", "experiment": EXPERIMENT, "space": SPACE, **changes}, sort_keys=False))
        return path

    return write


def test_a_grid_is_every_combination_of_lists_and_numbers(written: Callable[..., Path]):
    plan = load_sweep(written())
    assert [label(point) for point in plan.points] == [
        "lr=0.0001 hidden=8",
        "lr=0.0001 hidden=16x16",
        "lr=0.001 hidden=8",
        "lr=0.001 hidden=16x16",
    ]
    config = plan.config(plan.points[3], 7)
    assert (config.ppo.lr, config.ppo.hidden, config.seed, config.name) == (1e-3, (16, 16), 7, "s")
    assert config.evaluation.videos == 0


def test_the_experiment_may_be_a_file_and_is_changed_by_set_and_by_the_command_line(written: Callable[..., Path]):
    path = written(experiment="other.yaml", set={"ppo.gamma": 0.9})
    (path.parent / "other.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    plan = load_sweep(path, ["ppo.clip=0.3"], 5)
    assert (plan.example.ppo.gamma, plan.example.ppo.clip, plan.sweep.concurrency) == (0.9, 0.3, 5)


def test_what_a_folder_keeps_needs_no_other_file_and_is_the_same_plan(written: Callable[..., Path]):
    path = written(
        search={"kind": "random", "num_samples": 3, "seed": 4}, space={"ppo.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    )
    plan = load_sweep(path, ["ppo.gamma=0.5"])
    kept = path.with_name("kept.yaml")
    kept.write_text(yaml.safe_dump(whole_mapping(plan)))
    again = load_sweep(kept)
    assert again.points == plan.points
    assert again.config(again.points[0], 0) == plan.config(plan.points[0], 0)


def test_random_points_are_the_same_for_the_same_seed_and_in_their_ranges(written: Callable[..., Path]):
    space = {"ppo.lr": {"low": 1e-5, "high": 1e-1, "log": True}, "ppo.num_epochs": {"low": 1, "high": 3, "integer": True}}
    plans = [load_sweep(written(search={"kind": "random", "num_samples": 200, "seed": seed}, space=space)) for seed in (0, 0, 1)]
    assert plans[0].points == plans[1].points != plans[2].points
    drawn = np.array([point["ppo.lr"] for point in plans[0].points])
    assert ((drawn >= 1e-5) & (drawn <= 1e-1)).all()
    # Even in the logarithm: half of them below the geometric middle.
    assert 0.4 < (drawn < 1e-3).mean() < 0.6
    assert {point["ppo.num_epochs"] for point in plans[0].points} == {1, 2, 3}


def test_draws_that_are_not_allowed_together_are_drawn_anew(written: Callable[..., Path]):
    space = {"ppo.num_envs": [2, 64], "ppo.minibatch_size": [64, 2048]}
    plan = load_sweep(written(search={"kind": "random", "num_samples": 40}, space=space))
    drawn = {(point["ppo.num_envs"], point["ppo.minibatch_size"]) for point in plan.points}
    assert len(plan.points) == 40
    assert drawn == {(2, 64), (64, 64), (64, 2048)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"ppo.learning_rate": [1e-3]}}, "ppo.learning_rate: unknown key"),
        ({"space": {"ppo.lr": [1e-3, -1]}}, "at lr=-1"),
        ({"space": {"ppo.lr": []}}, "space.ppo.lr: is empty"),
        ({"space": {"ppo.lr": [1e-3, 1e-3]}}, "each value once"),
        ({"space": {}}, "space: is empty"),
        ({"space": {"seed": [1, 2]}}, "give seeds"),
        ({"space": {"ppo.lr": {"low": 1e-4, "high": 1e-3}}}, "a range does not go with kind grid"),
        ({"space": {"ppo.lr": {"low": 1, "high": 0}}, "search": {"kind": "random", "num_samples": 2}}, "low below high"),
        ({"search": {"kind": "genetic"}}, "allowed: grid, random, asha, pbt, optuna"),
        ({"search": {"kind": "random"}}, "num_samples: is missing"),
        ({"search": {"kind": "grid", "num_samples": 3}}, "takes every combination"),
        ({"search": {"kind": "pbt", "num_samples": 4}}, "space.ppo.hidden: cannot change while training"),
        ({"search": {"kind": "pbt", "num_samples": 4}, "space": {"ppo.lr": [1e-3, 1e-4]}, "seeds": [0, 1]}, "allowed: one"),
        ({"space": {"ppo.lr": 1e-3}}, "allowed: a list of values, or a range"),
        ({"space": {"ppo.lr": {"low": 1e-3, "high": 1, "hihg": 1}}}, "hihg: unknown key"),
        ({"space": [1]}, "space: holds a list"),
        ({"seeds": [0, 0]}, "each once"),
        ({"concurrency": 0}, "concurrency: 0"),
        ({"retries": -1}, "retries: -1"),
        ({"typo": 1}, "typo: unknown key"),
        ({"experiment": {"algorithm": "ppp"}}, "did you mean ppo"),
        ({"name": "../x"}, "name: '../x' is not allowed"),
    ],
)
def test_what_is_not_allowed_is_one_line(written: Callable[..., Path], changes: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as raised:
        load_sweep(written(**changes))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_without_a_space_is_told_so(tmp_path: Path, repo: Path):
    with pytest.raises(ConfigError, match="space: is missing"):
        load_sweep(repo / "tune_configs" / "demo.yaml")
    load_config(repo / "tune_configs" / "demo.yaml")


def test_seeds_are_of_every_point_or_of_the_best_only(written: Callable[..., Path]):
    every = load_sweep(written(seeds=[0, 1, 2])).sweep
    assert (every.seeds_of_search, every.seeds_of_confirmation) == ((0, 1, 2), ())
    best = load_sweep(written(seeds=[0, 1, 2], confirm_top=2)).sweep
    assert (best.seeds_of_search, best.seeds_of_confirmation, best.num_confirmed) == ((0,), (1, 2), 2)
    asha = load_sweep(written(seeds=[3, 4], search={"kind": "asha"})).sweep
    assert (asha.seeds_of_search, asha.seeds_of_confirmation, asha.num_confirmed) == ((3,), (4,), 3)


def test_a_trials_folder_names_its_point_and_is_a_versions_length(written: Callable[..., Path]):
    plan = load_sweep(written())
    names = [trial_folder(i, point, seed) for i, point in enumerate(plan.points) for seed in (0, 1)]
    assert len({*names}) == len(names)
    assert names[0].startswith("0000-lr-0.0001-hidden-8-")
    assert names[0] == trial_folder(0, plan.points[0], 0)
    long = {f"ppo.{'x' * 40}{i}": 0.123456789 for i in range(9)}
    assert len(trial_folder(9999, long, 0)) <= 64


def test_points_that_tune_draws_come_back_as_they_were_meant():
    space = {"ppo.hidden": [[8], [16, 16]], "ppo.lr": [1e-3, 1e-4], "ppo.gamma": RangeConfig(0.9, 0.99)}
    # As JSON; its place among the choices in sweeps of earlier versions.
    for hidden in ("[16, 16]", 1):
        assert decode(space, {"ppo.hidden": hidden, "ppo.lr": 1e-4, "ppo.gamma": 0.95}) == {
            "ppo.hidden": [16, 16],
            "ppo.lr": 1e-4,
            "ppo.gamma": 0.95,
        }
    assert domains(space)["ppo.hidden"].categories == ["[8]", "[16, 16]"]
    epochs = {"ppo.num_epochs": RangeConfig(1, 10, integer=True)}
    assert clipped(epochs, {"ppo.num_epochs": 12.4}) == {"ppo.num_epochs": 10}
    assert clipped(epochs, {"ppo.num_epochs": 2.6}) == {"ppo.num_epochs": 3}
    assert math.isclose(clipped({"ppo.gamma": RangeConfig(0.9, 0.99)}, {"ppo.gamma": 1.2})["ppo.gamma"], 0.99)
