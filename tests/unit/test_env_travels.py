"""An environment of somebody else's: a run remembers its module, and its policy needs it only where it is to play."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scalepilot.cli import main
from scalepilot.config import config_from_mapping, load_config
from scalepilot.errors import ConfigError
from scalepilot.experiments.run import run_experiment
from scalepilot.runs.folder import RunFolder, find_modules

MODULE = """
import gymnasium as gym, numpy as np
class Steps(gym.Env):
    '''Action 1 in state 1, and 0 in state 0, is right; ten steps.'''
    observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2, start=-1)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.x = 0, int(self.np_random.integers(2))
        return self.x, {}
    def step(self, action):
        reward, self.t, self.x = float(action + 1 == self.x), self.t + 1, int(self.np_random.integers(2))
        return self.x, reward, False, self.t >= 10, {}
gym.register("TravelSteps-v0", entry_point=Steps)
"""
# What a machine without the environment does with its policy; imports nothing of it, whatever the folder names.
ELSEWHERE = """
import asyncio, contextlib, io, json, sys
import httpx
from pathlib import Path
from scalepilot.cli import main
from scalepilot.serve import PolicyApi, PolicyStore

policy, copy = sys.argv[1:]
said = {}
for name, arguments in {
    "show": ["policy", "show", policy], "list": ["policy", "list", policy], "export": ["policy", "export", policy, copy],
    "verify": ["verify", copy], "compare": ["compare", copy], "demo": ["demo", copy, "--no-render"],
}.items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    said[name] = [code, out.getvalue(), err.getvalue()]

async def ask():
    api = PolicyApi(PolicyStore.load([Path(copy)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        (one,) = (await client.get("/v1/policies")).json()["policies"]
        answers = {"policy": one, "page": (await client.get("/")).status_code}
        answers["oip"] = (await client.get(f"/v2/models/{one['name']}")).json()
        answers["actions"] = []
        for state in (0, 1):
            asked = await client.post(one["decide_url"], json={"observation": {one["observation_fields"][0]["name"]: state}})
            answers["actions"].append(asked.json()["action"])
        return answers

said["served"] = asyncio.run(ask())
said["imported"] = sorted({"travel_steps", "gymnasium.envs.nothing"} & set(sys.modules))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the environment's module, and a finished run on it."""
    base = tmp_path_factory.mktemp("travel")
    modules = base / "modules"
    modules.mkdir()
    (modules / "travel_steps.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(modules))
        patch.setenv("SCALEPILOT_ENV_MODULES", "travel_steps")
        config = config_from_mapping(
            {
                "name": "steps",
                "algorithm": "q_learning",
                "env": {"id": "TravelSteps-v0"},
                "tabular": {"total_env_steps": 2000, "num_envs": 1},
                "evaluation": {"validation_episodes": 2, "test_episodes": 2, "videos": 0},
                "output": str(base / "runs"),
            }
        )
        folder = RunFolder.create(config)
        run_experiment(config, folder)
        sys.modules.pop("travel_steps")
    return modules, folder.path


def test_a_run_and_its_policy_name_the_module_that_a_variable_named(places: tuple[Path, Path]):
    modules, run = places
    assert yaml.safe_load((run / "config.yaml").read_text())["env"]["id"] == "travel_steps:TravelSteps-v0"
    spec = json.loads((run / "policy" / "policy.json").read_text())
    assert spec["env_id"] == spec["provenance"]["config"]["env"]["id"] == "travel_steps:TravelSteps-v0"
    assert json.loads((run / "run.json").read_text())["modules"] == {"travel_steps": str(modules)}
    assert str(modules) not in json.dumps(spec), "a policy that goes to others names no folder of this machine"


def test_a_policy_is_shown_copied_verified_and_served_where_its_environment_is_not(places: tuple[Path, Path], tmp_path: Path):
    _, run = places
    policy = shutil.copytree(run / "policy", tmp_path / "policy")
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SCALEPILOT_ENV_MODULES")}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(policy), str(tmp_path / "copy")],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for name in ("show", "list", "export", "verify"):
        assert said[name][0] == 0, said[name]
    assert "travel_steps:TravelSteps-v0" in said["show"][1]
    assert "'travel_steps' cannot be imported" in said["verify"][1]
    for name in ("compare", "demo"):
        code, _, line = said[name]
        assert code == 2
        assert line.count("\n") == 1
        assert "'travel_steps' cannot be imported (No module named 'travel_steps'); is it installed, or" in line
    assert said["served"]["policy"]["env_id"] == "travel_steps:TravelSteps-v0"
    assert said["served"]["actions"] == [-1, 0]
    assert said["served"]["page"] == 200
    assert said["served"]["oip"]["inputs"]
    assert said["imported"] == []


@pytest.mark.slow
def test_a_run_finds_its_module_again_where_it_was(places: tuple[Path, Path], tmp_path: Path):
    modules, run = places
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SCALEPILOT_ENV_MODULES")}
    script = (
        "import sys; from scalepilot.cli import main\n"
        "for command in (['report'], ['verify'], ['compare'], ['train', '--no-evaluation', '--resume']):\n"
        "    assert main([*command, sys.argv[1]]) == 0, command\n"
        "assert sys.modules['travel_steps'].__file__ == sys.argv[2]"
    )
    given = [str(run), str(modules / "travel_steps.py")]
    done = subprocess.run(
        [sys.executable, "-c", script, *given], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_code_beside_a_run_of_a_stranger_is_not_imported(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    modules, run = places
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [*sys.path]
    stranger = shutil.copytree(run, tmp_path / "run")
    shutil.copy(modules / "travel_steps.py", stranger)
    status = json.loads((stranger / "run.json").read_text())
    for folder in (str(stranger), ".", str(tmp_path / "none"), "x" * 5000, "\0"):
        (stranger / "run.json").write_text(json.dumps(status | {"modules": {"travel_steps": folder}}))
        find_modules(stranger)
        assert sys.path == before
    (stranger / "run.json").write_text(json.dumps(status))
    (stranger / "run.json").chmod(0o666)
    find_modules(stranger)
    assert sys.path == before, "another user may have written which folder it is"
    (stranger / "run.json").chmod(0o600)
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    find_modules(stranger / "policy")
    assert sys.path == [*before, str(modules)]
    assert os.environ["PYTHONPATH"] == f"elsewhere{os.pathsep}{modules}", "processes that are started later find it, too"


def test_a_module_in_the_current_folder_is_found_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "travel_here.py").write_text(MODULE.replace("TravelSteps", "TravelHere"))
    (tmp_path / "config.yaml").write_text("algorithm: q_learning\nenv: {id: CartPole-v1}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(ConfigError, match="'travel_here' cannot be imported"):
        config_from_mapping({"env": {"id": "travel_here:TravelHere-v0"}})
    (tmp_path / "travel_here.py").chmod(0o666)
    assert main(["env", "show", "travel_here:TravelHere-v0"]) == 2
    assert "env: travel_here: " in (said := capsys.readouterr().err)
    assert "others may write there" in said
    (tmp_path / "travel_here.py").chmod(0o600)
    assert main(["env", "show", "travel_here:TravelHere-v0"]) == 0
    config = load_config(tmp_path / "config.yaml", ["env.id=travel_here:TravelHere-v0"])
    assert "travel_here:TravelHere-v0" in capsys.readouterr().out
    assert config.env.id == "travel_here:TravelHere-v0"
