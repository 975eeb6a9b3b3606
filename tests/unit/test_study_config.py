"""A study's YAML: what it may hold, and what experiments come of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalepilot.errors import ConfigError
from scalepilot.experiments.study import load_study, with_seeds

ENV = "env: {id: ResourceManager-v0}"


def study(tmp_path: Path, arms: str, *, top: str = "", task: str = "") -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: small\n{top}\ntasks:\n  Small:\n    {task or 'success_return: 5'}\n    arms:\n{arms}\n")
    return path


def test_settings_of_study_task_and_arm_reach_the_experiment_the_nearest_last(tmp_path: Path):
    (tmp_path / "base.yaml").write_text(f"algorithm: ppo\n{ENV}\nppo: {{lr: 1.0e-2, envs_per_input: 1}}\n")
    path = study(
        tmp_path,
        "      A: {config: base.yaml, set: {ppo.lr: 3.0e-3}}\n      B: {config: base.yaml}",
        top="set: {ppo.lr: 1.0e-4, ppo.gamma: 0.5}",
        task="set: {ppo.gamma: 0.6}",
    )
    _, (task,) = load_study(path)
    assert (task.arms["A"].ppo.lr, task.arms["A"].ppo.gamma) == (3e-3, 0.6)
    assert (task.arms["B"].ppo.lr, task.arms["B"].ppo.gamma) == (1e-4, 0.6)
    assert task.arms["A"].name == "Small-A"


def test_a_grid_is_an_arm_for_every_combination(tmp_path: Path):
    config = "{algorithm: dqn, env: {id: ResourceManager-v0}}"
    arm = f"      DQN: {{config: {config}, grid: {{dqn.lr: [1.0e-3, 2.0e-3], dqn.batch_size: [32, 64, 128]}}}}"
    _, (task,) = load_study(study(tmp_path, arm))
    assert len(task.arms) == 6
    assert task.arms["DQN lr=0.002 batch_size=64"].dqn.lr == 2e-3
    assert task.arms["DQN lr=0.002 batch_size=64"].dqn.batch_size == 64


@pytest.mark.parametrize(
    ("arms", "changes", "expected"),
    [
        (
            "      A: {confg: x.yaml}",
            {},
            "tasks.Small.arms.A.confg: unknown key; allowed: config, set, grid; did you mean config?",
        ),
        ("      A: {config: nowhere.yaml}", {}, "nowhere.yaml: cannot be read"),
        ("      A: {config: {algorithm: pbo, env: {id: ResourceManager-v0}}}", {}, "algorithm: 'pbo' is not allowed"),
        ("      A: {config: {env: {id: ResourceManager-v0}}, grid: {ppo.lr: []}}", {}, "grid.ppo.lr: is empty"),
        ("      A: {config: {seed: 1}, set: {seed.x: 1}}", {}, "set.seed.x: seed is a value, not a section"),
        (
            "      A: {config: {env: {id: ResourceManager-v0}}}\n      B: {config: {env: {id: CartPole-v1}}}",
            {},
            "arms.B: env differs from A's; allowed: the same in every arm",
        ),
        ("      A: {config: {env: {id: CartPole-v1}}}", {"top": "seeds: [1, 1]"}, "seeds: [1, 1] is not allowed"),
        ("      A: {config: {env: {id: CartPole-v1}}}", {"top": "axis: wall"}, "axis: 'wall' is not allowed; allowed: env_steps"),
        (
            "      A: {config: {env: {id: ResourceManager-v0}}}",
            {"task": "map_fields: [cpu, load]"},
            "map_fields: 'cpu' is not allowed; allowed:",
        ),
        ("      A: {config: {env: {id: CartPole-v1}}}", {"task": "success_return: .inf"}, "success_return: inf is not allowed"),
        ("      A/B: {config: {env: {id: CartPole-v1}}}", {}, "arms: 'A/B' is not allowed"),
    ],
)
def test_what_is_not_allowed_is_one_line(tmp_path: Path, arms: str, changes: dict[str, str], expected: str):
    with pytest.raises(ConfigError) as refused:
        load_study(study(tmp_path, arms, **changes))
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_seeds_of_the_command_line_replace_those_of_the_study(tmp_path: Path):
    loaded, _ = load_study(study(tmp_path, "      A: {config: {env: {id: ResourceManager-v0}}}"))
    assert loaded.seeds == (0, 1, 2, 3, 4)
    assert with_seeds(loaded, [7, 8]).seeds == (7, 8)
    with pytest.raises(ConfigError, match="--seeds"):
        with_seeds(loaded, [-1])
