"""Environments of others meet every part of the platform through one adapter: flat fields, valid actions, real actions."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from scalepilot.config import config_from_mapping
from scalepilot.errors import ArtifactError, ConfigError, InputError
from scalepilot.experiments.run import run_experiment
from scalepilot.learn.preflight import check_environment
from scalepilot.learn.task import Task
from scalepilot.policy import load_policy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.runs.folder import RunFolder
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.decide.strict import decide, parse_request
from scalepilot.simulate import run_returns
from scalepilot_envs.registration import find_env

FIELD_ENVS = "field_envs"
BINS = {f"observation_{i}": 2 for i in range(3)}
TABULAR = {"total_env_steps": 4800, "num_envs": 8, "alpha": 0.3, "gamma": 0.5, "epsilon_decay": 0.95}
EVALUATION = {"validation_episodes": 4, "test_episodes": 4, "videos": 0, "validate_every_share": 0.5}


@pytest.fixture(autouse=True)
def field_envs(monkeypatch):
    """Where `field_envs:Id` finds its module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    return importlib.import_module(FIELD_ENVS)


class Wide(gym.Env):
    """Shows and takes what only wrappers make fit: a number far beyond its bounds, and a word."""

    observation_space = spaces.Dict({"word": spaces.Text(5), "number": spaces.Box(0, 1, (1,), np.float32)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return {"word": "a", "number": np.array([50.0])}, {}

    def step(self, action):
        self.t += 1
        return {"word": "b", "number": np.array([50.0])}, 1.0, False, self.t >= 5, {}


class Mended(gym.ObservationWrapper):
    """A wrapper that makes one flat number of it."""

    def __init__(self, env, scale=1.0):
        super().__init__(env)
        self.observation_space, self.scale = spaces.Box(0, 1, (1,), np.float32), scale

    def observation(self, observation):
        return (observation["number"] * self.scale).astype(np.float32)


@pytest.fixture
def wide():
    gym.register("WideForTests-v0", entry_point=Wide)
    yield "WideForTests-v0"
    del gym.registry["WideForTests-v0"]


MEND = {f"{__name__}:Mended": {"scale": 0.01}}


def trained(tmp_path, algorithm="q_learning", env="DiscreteStart", **tabular):
    config = config_from_mapping(
        {
            "name": "t",
            "algorithm": algorithm,
            "env": {"id": env if "-v" in env else f"{FIELD_ENVS}:{env}-v0"},
            "tabular": {**TABULAR, **tabular},
            "evaluation": EVALUATION,
            "output": str(tmp_path),
        }
    )
    folder = RunFolder.create(config)
    run_experiment(config, folder)
    return folder


def served(folder):
    return ServedPolicy.load(folder)


def ask(policy, **request):
    return decide(policy, parse_request(json.dumps(request).encode())).to_json()


def row(state):
    return {f"observation_{i}": float(i == state) for i in range(3)}


@pytest.mark.parametrize("algorithm", ["q_learning", "sarsa"])
def test_actions_that_start_below_zero_reach_the_environment_and_the_client(tmp_path, algorithm):
    folder = trained(tmp_path, algorithm, bins=BINS)
    summary = json.loads((folder.evaluation / "summary.json").read_text())
    assert summary["policies"][f"t-{algorithm}"]["return"]["mean"] == 40.0
    policy = served(folder.policy)
    for state, wanted in enumerate((-1, 0, 1)):
        answer = ask(policy, observation=row(state))
        assert (answer["action"], answer["move"]) == (wanted, str(wanted))


def test_a_masked_action_is_chosen_by_no_path(tmp_path):
    # The environment raises at an invalid action, and 40 is the most: every state has its own right action.
    for algorithm in ("q_learning", "sarsa"):
        folder = trained(tmp_path, algorithm, "Masked", bins=BINS)
        summary = json.loads((folder.evaluation / "summary.json").read_text())
        assert summary["policies"][f"t-{algorithm}"]["return"]["mean"] == 40.0
        assert "random" in summary["policies"]
        progress = (folder.path / "logs" / "training.log").read_text()
        assert "invalid action" not in progress
    policy = served(folder.policy)
    best = ask(policy, observation=row(1))
    assert best["action"] == 1
    answer = ask(policy, observation=row(1), action_mask=[True, False, True, True], explain=True)
    assert answer["action"] != 1
    assert answer["q_values"]["1"] is None
    assert answer["explanation"]["valid_actions"] == {"0": True, "1": False, "2": True, "3": True}
    assert answer["explanation"]["runner_up"]["move"] != "1"
    only = ask(policy, observation=[row(0), row(1)], action_mask=[[0, 0, 0, 1], [0, 0, 1, 0]])
    assert [a["action"] for a in only] == [3, 2]
    within = ask(policy, observation={**row(0), "action_mask": [0, 1, 0, 0]})
    assert within["action"] == 1
    assert [a["action"] for a in ask_whole(policy)] == [2, 1]


def ask_whole(policy):
    """A list of whole requests."""
    requests = [{"observation": row(0), "action_mask": [0, 0, 1, 0]}, {"observation": row(0), "action_mask": [0, 1, 0, 0]}]
    return decide(policy, parse_request(json.dumps(requests).encode())).to_json()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([0, 0, 0, 0], "action_mask: no action is valid; allowed: at least one"),
        ([1, 1], "action_mask: a list of 2 is not allowed; allowed: a list of 4 times true or false"),
        ([1, 1, 1, "x"], "action_mask: .* is not allowed"),
        ("1111", "action_mask: '1111' is not allowed"),
        ([2, 1, 1, 1], "action_mask: .* is not allowed"),
    ],
)
def test_a_mask_that_cannot_be_is_refused_by_name(field_envs, tmp_path, mask, message):
    env = find_env(f"{FIELD_ENVS}:Masked-v0").describe()
    save_policy(make_rule("random", env), tmp_path / "random")
    policy = served(tmp_path / "random")
    with pytest.raises(InputError, match=f"^{message}"):
        ask(policy, observation=row(0), action_mask=mask)


def test_a_policy_without_a_mask_is_told_of_none(tmp_path):
    save_policy(make_rule("random", find_env(f"{FIELD_ENVS}:DiscreteStart-v0").describe()), tmp_path / "random")
    policy = served(tmp_path / "random")
    with pytest.raises(InputError, match=r"^action_mask: unknown field"):
        ask(policy, observation=row(0), action_mask=[1, 1, 1])
    assert ask(policy, observation=row(0))["action"] in (-1, 0, 1)


@pytest.mark.parametrize(("env", "length"), [("MultiAct", 40), ("DictObs", 40), ("TwoDim", 40), ("DiscreteStart", None)])
def test_random_play_finishes_everywhere(env, length):
    env_id = f"{FIELD_ENVS}:{env}-v0"
    results = run_returns(make_rule("random", find_env(env_id).describe()), env_id, 3)
    assert results["length"].tolist() == [40, 40, 40]
    if length is not None:
        assert results["return"].tolist() == [length] * 3


def test_taxi_is_a_numbered_state_with_valid_actions():
    task = Task(config_from_mapping({"algorithm": "q_learning", "env": {"id": "Taxi-v3"}}))
    inputs = task.network_inputs()
    assert (inputs["num_states"], inputs["num_masked"], inputs["field_names"]) == (500, 6, ["observation"])
    # The one mask that says something: pick-up and drop-off only where a passenger is.
    env = find_env("Taxi-v3").maker()()
    shown, _ = env.reset(seed=0)
    assert shown.shape == (7,)
    assert shown[1:].tolist() == env.unwrapped.action_mask(env.unwrapped.s).tolist()


def test_stable_baselines_is_refused_where_there_is_a_mask():
    with pytest.raises(ConfigError, match="algorithm: sb3_ppo is not allowed on field_envs:Masked-v0, which says which actions"):
        config_from_mapping({"algorithm": "sb3_ppo", "env": {"id": f"{FIELD_ENVS}:Masked-v0"}})


def test_a_module_in_front_of_an_id_is_imported(monkeypatch, tmp_path):
    (tmp_path / "fresh_env_module.py").write_text(
        "import gymnasium\ngymnasium.register('FreshForTests-v0', entry_point='field_envs:TwoDim')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = find_env("fresh_env_module:FreshForTests-v0")
    assert entry.env_id == entry.describe().env_id == "fresh_env_module:FreshForTests-v0"
    del gym.registry["FreshForTests-v0"]
    with pytest.raises(
        ValueError, match=r"^env: 'no_such_module_here:X-v0' is not allowed: 'no_such_module_here' cannot be imported"
    ):
        find_env("no_such_module_here:X-v0")
    with pytest.raises(ValueError, match=r"^env: 'field_envs:Nope-v0' is not allowed"):
        find_env(f"{FIELD_ENVS}:Nope-v0")


def test_an_environment_that_wrappers_mend_passes_and_travels(wide, tmp_path):
    with pytest.raises(ConfigError, match=r"id: WideForTests-v0: word is Text, which is not allowed; .*FilterObservation"):
        config_from_mapping({"env": {"id": wide}})
    config = config_from_mapping(
        {
            "name": "mended",
            "algorithm": "q_learning",
            "env": {"id": wide, "wrappers": [MEND]},
            "tabular": {"total_env_steps": 800, "num_envs": 8, "bins": {"observation_0": 2}},
            "evaluation": EVALUATION,
            "output": str(tmp_path),
        }
    )
    check_environment(wide, config.env.arguments)
    folder = RunFolder.create(config)
    run_experiment(config, folder)
    spec = load_policy(folder.policy).spec
    assert spec.env_options == {"wrappers": [MEND]}
    assert [f.name for f in spec.observation_fields] == ["observation_0"]
    # What the wrapper leaves wrong is still refused: 50 is far outside its bounds.
    with pytest.raises(InputError, match=r"reset\(\) returns an observation outside its space"):
        check_environment(wide, {"wrappers": [f"{__name__}:Mended"]})


def test_a_part_that_breaks_a_promise_is_named(wide):
    keep = {"gymnasium.wrappers:FilterObservation": {"filter_keys": ["number"]}}
    with pytest.raises(InputError, match=r"reset\(\) returns an observation whose number has dtype float64; allowed: float32"):
        check_environment(wide, {"wrappers": [keep]})


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        ("os:system", r"wrappers\.0: 'os:system' is no gymnasium\.Wrapper"),
        ("gymnasium.wrappers.FlattenObservation", r"wrappers\.0: .* is not allowed; allowed: module:Class"),
        ("no_such_module_here:Thing", r"wrappers\.0: 'no_such_module_here' cannot be imported"),
        ({"gymnasium.wrappers:TimeLimit": {"steps": 3}}, r"wrappers\.0: gymnasium\.wrappers:TimeLimit: TypeError"),
        ({"a:b": {}, "c:d": {}}, r"wrappers\.0: .* is not allowed"),
    ],
)
def test_what_is_no_wrapper_is_refused(wrapper, message):
    with pytest.raises(ConfigError, match=f"env.{message}"):
        config_from_mapping({"env": {"id": "CartPole-v1", "wrappers": [wrapper]}})


def test_wrappers_belong_to_environments_of_others():
    with pytest.raises(ConfigError, match=r"env\.wrappers: are not allowed around scalepilot/GridWorld-v0"):
        config_from_mapping({"algorithm": "q_learning", "env": {"id": "GridWorld-v0", "wrappers": ["a:B"]}})


def test_loading_an_artifact_imports_nothing_that_it_names(tmp_path, monkeypatch):
    (tmp_path / "evil_env_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rule = make_rule("random", find_env(f"{FIELD_ENVS}:TwoDim-v0").describe())
    for changed in ({"env_id": "evil_env_module:X-v0"}, {"env_options": {"wrappers": ["evil_env_module:Y"]}}):
        folder = tmp_path / "rule"
        save_policy(rule, folder)
        stored = json.loads((folder / "policy.json").read_text())
        (folder / "policy.json").write_text(json.dumps({**stored, **changed}))
        with pytest.raises(ArtifactError, match="'evil_env_module', which is not imported"):
            load_policy(folder)


def test_a_network_of_an_environment_that_is_not_here_acts(tmp_path, field_envs):
    folder = trained(tmp_path, bins=BINS)
    stored = json.loads((folder.policy / "policy.json").read_text())
    (folder.policy / "policy.json").write_text(json.dumps({**stored, "env_id": "gone_package:Gone-v0"}))
    assert ask(served(folder.policy), observation=row(2))["action"] == 1
    assert "gone_package" not in sys.modules


def test_random_continuous_actions_are_served_by_name(tmp_path):
    save_policy(make_rule("random", find_env("Pendulum-v1").describe()), tmp_path / "random")
    answer = ask(served(tmp_path / "random"), observation={f"observation_{i}": 0.0 for i in range(3)})
    assert list(answer["action"]) == ["action_0"]
    assert -2 <= answer["action"]["action_0"] <= 2


@pytest.mark.slow
def test_minigrid_trains_compares_and_serves(tmp_path):
    # Not among the packages of development: its pygame-ce lies over pygame. pip install minigrid==3.2.0 in an environment apart.
    pytest.importorskip("minigrid", reason="minigrid is not installed")
    config = config_from_mapping(
        {
            "name": "grid",
            "algorithm": "sb3_ppo",
            "env": {
                "id": "minigrid:MiniGrid-Empty-5x5-v0",
                "wrappers": ["minigrid.wrappers:ImgObsWrapper", {"gymnasium.wrappers:TimeLimit": {"max_episode_steps": 40}}],
            },
            "ppo": {"total_env_steps": 512, "num_envs": 4, "rollout_steps": 64, "minibatch_size": 64, "envs_per_input": 1},
            "evaluation": EVALUATION,
            "output": str(tmp_path),
        }
    )
    folder = RunFolder.create(config)
    run_experiment(config, folder)
    summary = json.loads((folder.evaluation / "summary.json").read_text())
    assert set(summary["policies"]) == {"grid-sb3_ppo", "random"}
    policy = served(folder.policy)
    assert [f.name for f in policy.spec.observation_fields][:2] == ["observation_0_0_0", "observation_0_0_1"]
    assert policy.spec.env_options["wrappers"] == list(config.env.wrappers)
    assert ask(policy, observation=policy.example)["action"] in range(7)
