"""A run goes on for longer, and a new one starts from a policy: what may differ, and what is refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalepilot.cli import main
from scalepilot.config import config_from_mapping, resumed_with
from scalepilot.errors import ConfigError, InputError
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.algorithms import policy_spec
from scalepilot.learn.encoder import ScoresNetwork, make_encoder, make_normaliser, mlp
from scalepilot.learn.export import exported_policy
from scalepilot.learn.initial_weights import check_fits, completed, taken_over, weights_of
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot_envs.autoscale import AutoscaleParams


def grid_world(tmp_path: Path, **tabular: Any) -> Any:
    values = {
        "name": "grid",
        "algorithm": "q_learning",
        "output": str(tmp_path),
        "env": {"id": "GridWorld-v0"},
        "tabular": {"total_env_steps": 3200, **tabular},
        "evaluation": {"validation_episodes": 4, "test_episodes": 4, "videos": 0},
    }
    return config_from_mapping(values)


def test_a_networks_weights_are_those_that_were_exported(tmp_path: Path):
    config = config_from_mapping({"env": {"id": "CartPole-v1"}, "ppo": {"hidden": [8, 8]}, "output": str(tmp_path)})
    task = Task(config)
    encoder = make_encoder(task.network_inputs())
    network = ScoresNetwork(encoder, make_normaliser(encoder), mlp(encoder.num_features, [8, 8], 2, 1.0))
    with torch.no_grad():
        network.head[0].bias.uniform_()
    network.normaliser.update(torch.randn(50, 4) * 3 + 1)
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    policy = exported_policy(policy_spec(config, RunFolder(tmp_path), task), network, rows)

    weights = weights_of(policy)
    weights.pop("reward_scale")
    own = {name: value.numpy() for name, value in network.state_dict().items()}
    found = completed(weights, own, set(own) - {"normaliser.count"})
    for name in set(own) - {"normaliser.count"}:
        np.testing.assert_allclose(found[name], own[name], rtol=1e-5, atol=1e-6, err_msg=name)
    small = {**own, "head.2.weight": np.zeros((4, 8), np.float32)}
    with pytest.raises(InputError, match=r"head\.2\.weight is \(8, 8\) in the policy, \(4, 8\) in this"):
        completed(weights, small, set())
    with pytest.raises(InputError, match=r"the policy has head\.4\.\w+ "):
        completed(weights, {name: a for name, a in own.items() if not name.startswith("head.4")}, set())


def test_a_table_goes_on_for_longer_and_starts_another_run(tmp_path: Path, capsys: Any):
    config = grid_world(tmp_path)
    folder = RunFolder.create(config)
    run_experiment(config, folder, evaluate=False)
    rows = len(folder.read_metrics())

    longer = main(["train", "--resume", str(folder.path), "--set", "tabular.total_env_steps=6400", "--no-evaluation"])
    assert longer == 0
    assert len(folder.read_metrics()) == 2 * rows
    assert RunFolder.open(folder.path)[1].tabular.total_env_steps == 6400
    assert json.loads((folder.path / "run.json").read_text())["status"] == "finished"

    parent = load_policy(folder.policy)
    other = grid_world(tmp_path, total_env_steps=1600)
    started = RunFolder.create(other)
    run_experiment(other, started, evaluate=False, init=folder.path)
    provenance = load_policy(started.policy).spec.provenance
    assert provenance["init"]["version"] == parent.spec.version
    assert provenance["init"]["files"] == parent.spec.files
    assert (load_policy(started.policy).q != 0).sum() >= (parent.q != 0).sum()

    capsys.readouterr()
    for arguments, said in (
        (["--resume", str(folder.path), "--set", "tabular.alpha=0.5"], "--set tabular.alpha: cannot change in a resumed run"),
        (["--resume", str(folder.path), "--set", "ppo.total_env_steps=9"], "--set ppo.total_env_steps: cannot change"),
        (["--resume", str(folder.path), "--set", "tabular.total_env_steps=100"], "100 is less than the run's own 6400"),
        (["--resume", str(folder.path), "--init", str(folder.path)], "--init: a resumed run has its own weights"),
    ):
        assert main(["train", *arguments]) == 2
        assert said in (error := capsys.readouterr().err)
        assert len(error.strip().splitlines()) == 1


def test_a_policy_that_does_not_fit_is_refused_with_what_differs(tmp_path: Path, capsys: Any):
    config = grid_world(tmp_path)
    folder = RunFolder.create(config)
    run_experiment(config, folder, evaluate=False)
    spec = load_policy(folder.policy).spec
    cartpole = config_from_mapping({"env": {"id": "CartPole-v1"}, "output": str(tmp_path)})
    with pytest.raises(InputError, match=r"has 1 observation fields, this experiment has 4"):
        check_fits(spec, policy_spec(cartpole, folder, Task(cartpole)))
    (tmp_path / "cartpole.yaml").write_text("env: {id: CartPole-v1}\n")
    assert main(["train", str(tmp_path / "cartpole.yaml"), "--init", str(folder.path)]) == 2
    assert "a table with decision rule argmax_q cannot start ppo" in capsys.readouterr().err
    set_to = f"output={tmp_path}"
    assert main(["train", str(tmp_path / "cartpole.yaml"), "--set", set_to, "--init", str(tmp_path / "nothing")]) == 2
    assert not (tmp_path / "experiment").exists()


def test_only_what_may_change_in_the_middle_of_a_run_does(tmp_path: Path):
    config = grid_world(tmp_path)
    changed = resumed_with(config, ["tabular.total_env_steps=99999", "evaluation.test_episodes=7", "checkpoints.num_to_keep=3"])
    assert (changed.tabular.total_env_steps, changed.evaluation.test_episodes) == (99999, 7)
    assert resumed_with(config, []) is config
    with pytest.raises(ConfigError, match=r"did you mean tabular\.total_env_steps"):
        resumed_with(config, ["tabular.total_env_step=99999"])


def test_a_run_takes_over_what_a_policy_sees_and_its_networks_shape(tiny_network: Any):
    seen = AutoscaleParams(observe_clock=True, window_steps=80, startup_seconds=300.0)
    network = {"ppo": {"hidden": [8, 8]}}
    parent = replace(tiny_network().spec, env_params=asdict(seen), provenance={"config": network})
    config, changed = taken_over(config_from_mapping({}), parent)
    assert changed == {
        "env.params.observe_clock": True,
        "env.params.window_steps": 80,
        "ppo.hidden": [8, 8],
        "ppo.policy_waits_share": 0.1,
    }
    assert config.autoscale.params == AutoscaleParams(observe_clock=True, window_steps=80)
    assert taken_over(config, parent) == (config, {})


def test_a_run_is_never_worse_on_validation_than_where_it_began(tmp_path: Path):
    config = grid_world(tmp_path, total_env_steps=4800)
    first = RunFolder.create(config)
    run_experiment(config, first, evaluate=False)
    # A discount of 0 unlearns that the goal is worth a way.
    worse = grid_world(tmp_path, total_env_steps=4800, gamma=0.0, alpha=1.0)
    second = RunFolder.create(worse)
    run_experiment(worse, second, evaluate=False, init=first.path)

    parent, kept, last = (load_policy(path) for path in (first.policy, second.policy, second.policy_final))
    assert np.array_equal(kept.q, parent.q)
    assert not np.array_equal(last.q, parent.q)
    assert kept.spec.provenance["init"]["unchanged"] is True
    assert last.spec.provenance["init"]["unchanged"] is False
    assert load_policy(second.init).spec == parent.spec
