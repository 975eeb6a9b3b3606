"""Every YAML in tune_configs is an experiment, in studies/ a study, or in sweeps/ a sweep, that could start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scalepilot.config import EnvConfig, config_from_mapping, load_config
from scalepilot.experiments.study import load_study
from scalepilot.experiments.sweep.plan import load_sweep
from scalepilot.simulate import protocol_v1
from scalepilot_envs.registration import find_env
from scalepilot_envs.workloads import PoolWorkload

FOLDER = Path(__file__).parents[2] / "tune_configs"
STUDIES = sorted((FOLDER / "studies").glob("*.y*ml"))
SWEEPS = sorted((FOLDER / "sweeps").glob("*.y*ml"))
CONFIGS = sorted({*FOLDER.rglob("*.y*ml")} - {*STUDIES, *SWEEPS})
AUTOSCALE_CONFIGS = [path for path in CONFIGS if isinstance(load_config(path).env, EnvConfig)]
ANY_CONFIG = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(FOLDER)))


def test_there_is_a_demo():
    assert FOLDER / "demo.yaml" in CONFIGS


@ANY_CONFIG
def test_a_shipped_config_loads_and_says_what_it_is(path):
    config = load_config(path)
    assert config.name
    assert find_env(config.env.id)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert config_from_mapping(config.to_mapping()) == config


@ANY_CONFIG
def test_a_shipped_config_learns_with_one_thread(path):
    # With more, waiting threads spin: one busy process beside a training slows it tenfold.
    assert load_config(path).resources.torch_threads == 1


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.name)
def test_a_shipped_study_builds_every_experiment_of_it(path):
    study, tasks = load_study(path)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert study.name == path.stem
    assert {task.name for task in tasks} == set(study.tasks)
    assert all(len(task.arms) >= 2 for task in tasks)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.name)
def test_a_shipped_sweep_builds_every_experiment_of_it(path):
    plan = load_sweep(path)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert plan.sweep.name.startswith(path.stem)
    assert plan.num_trials > 1
    assert find_env(plan.example.env.id)


def test_the_grid_on_resource_manager_is_the_sources():
    plan = load_sweep(FOLDER / "sweeps" / "resource-manager.yaml")
    assert plan.num_trials == 18
    assert plan.example.ppo.total_env_steps == 20_000


@pytest.mark.parametrize("path", AUTOSCALE_CONFIGS, ids=lambda p: str(p.relative_to(FOLDER)))
def test_a_shipped_configs_workload_has_a_window_in_every_part(path):
    config = load_config(path)
    if config.workload.kind == "trace" and not Path(config.workload.path).is_file():
        pytest.skip(f"{config.workload.path} is absent: the trace is not part of the repository")
    evaluation, workload = config.evaluation, config.workload
    if isinstance(workload, PoolWorkload):
        # Hundreds of draws are as long as a few of them.
        workload = replace(workload, members=tuple(replace(member, count=min(3, member.count)) for member in workload.members))
    data = protocol_v1(
        config.name,
        workload,
        config.env.params,
        window_steps=evaluation.window_steps,
        drawn_windows=evaluation.drawn_windows,
        test_seeds=evaluation.test_seeds,
    )
    assert len(data.test) >= len(evaluation.test_seeds)
    assert len(data.train_series) > config.env.episode_steps
