"""Environments that fail, give what is no number, leave their space or pay in millions: in every algorithm the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests import failing_envs

from scalepilot.config import config_from_mapping
from scalepilot.errors import EnvironmentFailedError
from scalepilot.experiments.run import run_experiment
from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import run_returns

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
BINS = {f"observation_{i}": 2 for i in range(3)}
SECTIONS = {
    "ppo": {"num_envs": 8, "rollout_steps": 40, "minibatch_size": 64, "lr": 3e-3, "gamma": 0.5, "envs_per_input": 1},
    "dqn": {"num_envs": 8, "rollout_steps": 40, "gamma": 0.5, "lr": 3e-3, "updates_per_step": 0.5, "learning_starts": 320},
    "tabular": {"num_envs": 8, "gamma": 0.5, "bins": BINS},
}
ALGORITHMS = {"ppo": "ppo", "dqn": "dqn", "q_learning": "tabular", "sb3_ppo": "ppo"}
# One runner of episodes is behind all of them: of most faults two show it at once, and all do in `make test-slow`.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("dqn", "sb3_ppo")]
EACH = ["ppo", "q_learning", *SLOW]


@pytest.fixture(autouse=True)
def _registered(request: pytest.FixtureRequest) -> None:
    failing_envs.register()
    # The others do without.
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("algorithm") in ("ppo", "dqn"):
        request.getfixturevalue("ray_session")


def train(
    tmp_path: Path, algorithm: str, env: dict[str, Any], steps: int = 3200, section: dict[str, Any] | None = None, **changes: Any
) -> RunFolder:
    name = ALGORITHMS[algorithm]
    values = {
        "name": "failing",
        "algorithm": algorithm,
        "output": str(tmp_path),
        "env": {"id": "FailingTarget-v0", **env},
        name: {"total_env_steps": steps, **SECTIONS[name], **(section or {})},
        "evaluation": {"validate_every_share": 0.25, "validation_episodes": 8, "test_episodes": 10, "videos": 0},
        **changes,
    }
    config = config_from_mapping(values)
    folder = RunFolder.create(config)
    run_experiment(config, folder)
    return folder


def column(folder: RunFolder, name: str) -> list[float]:
    return [row[name] for row in folder.read_metrics() if row[name] is not None]


@pytest.mark.parametrize("algorithm", EACH)
def test_no_return_is_above_what_an_episode_can_give_where_steps_raise(tmp_path: Path, algorithm: str, capfd: Any):
    folder = train(tmp_path, algorithm, {"options": {"fault": "flaky"}}, 2560)

    assert column(folder, "episode_return_mean") == [40.0] * len(column(folder, "episode_return_mean"))
    assert column(folder, "validation_return") == [40.0] * len(column(folder, "validation_return"))
    assert sum(column(folder, "env_failures")) > 10
    summary = json.loads((folder.evaluation / "summary.json").read_text())
    assert all(row["return"]["mean"] == 40.0 for row in summary["policies"].values())
    assert min(noted["failures"] for noted in summary["notes"].values()) > 0
    said, log = capfd.readouterr().err, (folder.path / "logs" / "training.log").read_text()
    for text in (said, log):
        assert "episodes failed and do not count" in text
        assert "raised ConnectionError: simulator gone" in text


@pytest.mark.parametrize("algorithm", EACH)
@pytest.mark.parametrize("spoilt", ["reward", "observation"])
def test_one_value_that_is_no_number_costs_its_episode_and_is_said(tmp_path: Path, algorithm: str, spoilt: str, capfd: Any):
    value = math.nan if spoilt == "reward" else [0.0, math.nan, 0.0]
    env = {"id": "Spoilt-v0", "options": {spoilt: value, "every": 700}}
    folder = train(tmp_path, algorithm, env, 1920)

    assert (folder.policy / "policy.json").exists()
    assert sum(column(folder, "env_failures")) >= 1
    shown = "the reward nan" if spoilt == "reward" else "observation_1 = nan"
    assert shown in (said := capfd.readouterr().err)
    assert "env Spoilt-v0: step " in said
    assert "lr" not in said


@pytest.mark.parametrize("algorithm", EACH)
def test_an_environment_that_always_fails_ends_the_run_and_keeps_the_policy(tmp_path: Path, algorithm: str):
    env = {"id": "Spoilt-v0", "options": {"reward": "none", "every": 1}}
    failing_envs.Spoilt.ok_for = 1200
    with pytest.raises(
        EnvironmentFailedError, match=r"^env Spoilt-v0: step .* gave the reward 'none'.*; the policy so far: "
    ) as e:
        train(tmp_path, algorithm, env, 6400)
    assert e.value.exit_code == 2
    assert "\n" not in str(e.value)
    (folder,) = (tmp_path / "failing").iterdir()
    assert load_policy(folder / "policy").spec.kind in ("network", "table")
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("algorithm", ["ppo", *SLOW])
def test_rewards_of_a_million_are_learnt_and_the_best_possible_is_reached(tmp_path: Path, algorithm: str):
    folder = train(tmp_path, algorithm, {"options": {"fault": "big"}}, 8000)

    summary = json.loads((folder.evaluation / "summary.json").read_text())
    assert summary["policies"][f"failing-{algorithm}"]["return"]["mean"] == -38_000_000
    assert column(folder, "reward_scale")[-1] == 2.0**20


@pytest.mark.parametrize("algorithm", ["ppo", *SLOW])
def test_rewards_that_are_cut_are_counted_and_said(tmp_path: Path, algorithm: str, capfd: Any):
    folder = train(tmp_path, algorithm, {}, 640, {"reward_clip": 0.5, "reward_scale": 1.0})

    assert all(0.1 < share <= 1.0 for share in column(folder, "rewards_clipped_share"))
    assert "of the rewards are cut at ±0.5 before learning (up to 1 in size)" in capfd.readouterr().err


@pytest.mark.parametrize("algorithm", EACH)
def test_observations_outside_their_space_are_named_and_served(tmp_path: Path, algorithm: str, capfd: Any):
    folder = train(tmp_path, algorithm, {"options": {"fault": "outside"}}, 1280)

    said = capfd.readouterr().err
    assert "observation observation_0 leaves its declared bounds 0 to 1 in " in said
    assert "the policy's bounds are widened to what was seen: observation_" in said
    spec = load_policy(folder.policy).spec
    assert [(f.low, f.high) for f in spec.observation_fields] == [(0.0, 3.0)] * 3
    assert spec.provenance["observations_outside"]["observation_0"]["highest"] == 3.0
    assert "leaves its declared bounds" in folder.report.read_text()


def test_what_a_kept_policy_collected_is_collected_again(tmp_path: Path):
    folder = train(tmp_path, "q_learning", {"options": {"fault": "flaky"}}, 1600)
    policy, arguments = load_policy(folder.policy), {"fault": "flaky"}
    few, many = (run_returns(policy, "FailingTarget-v0", n, arguments=arguments, first_seed=2_000_000) for n in (4, 10))
    assert many["length"][:4].tolist() == few["length"].tolist() == [40] * 4
