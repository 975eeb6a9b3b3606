"""docs/develop/add-an-algorithm.md, done as it says: a package and one line, and the algorithm trains, compares and serves."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scalepilot.config import config_from_mapping
from scalepilot.config.algorithm import Algorithm
from scalepilot.config.algorithms import ALGORITHMS, by_name
from scalepilot.config.sections import DQNConfig, LearningConfig
from scalepilot.errors import ConfigError
from scalepilot.policy import load_policy

PAGE = Path(__file__).parents[2] / "docs" / "develop" / "add-an-algorithm.md"
# Every command in one process: each would import the same again.
COMMANDS = """
import json, sys
from pathlib import Path
from scalepilot.cli import main
from scalepilot.serve import PolicyStore

assert main(["train", "climbed.yaml", "--no-evaluation"]) == 0
run = next(Path("runs/climbed").iterdir())
assert main(["train", "--resume", str(run), "--set", "hill_climb.total_env_steps=17600"]) == 0
assert main(["compare", str(run), "--json", "--out", "compared"]) == 0
assert [served.spec.name for served in PolicyStore.load([run])] == ["climbed-hill_climb"]
assert main(["train", "--schema"]) == 0
"""


def code(language: str) -> list[str]:
    """The page's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The page's package, installed in a folder of its own; the environment in which Python finds it."""
    package, metadata = tmp_path / "site" / "hill_climb", tmp_path / "site" / "hill_climb-1.0.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    record, trainer = code("python")
    (package / "__init__.py").touch()
    (package / "algorithm.py").write_text(record)
    (package / "trainer.py").write_text(trainer)
    # What pip writes of the page's line in pyproject.toml.
    (line,) = re.findall(r'^hill_climb = "(.*)"$', code("toml")[0], re.MULTILINE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hill-climb\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[scalepilot.algorithms]\nhill_climb = {line}\n")
    (tmp_path / "climbed.yaml").write_text(
        code("yaml")[0] + "evaluation: {validation_episodes: 4, test_episodes: 8, bootstrap_samples: 50, videos: 0}\n"
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path / "site")}


def python(folder: Path, env: dict[str, str], script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, env=env, check=False)


def test_an_algorithm_of_a_package_trains_resumes_compares_and_serves(tmp_path: Path, installed: dict[str, str]):
    done = python(tmp_path, installed, COMMANDS)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "climbed").iterdir()
    rows = list(csv.DictReader((run / "progress.csv").open()))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 45)), "40 iterations, and 4 more after it was resumed"
    rewards = [float(row["best_mean_reward"]) for row in rows]
    assert rewards == sorted(rewards)
    assert rewards[-1] > rewards[0], "it has learnt something"
    status = json.loads((run / "run.json").read_text())
    assert status["status"] == "finished"
    assert status["resumed"][0]["iteration"] == 40
    assert (run / "report.html").is_file()
    spec = load_policy(run).spec
    assert (spec.kind, spec.decision_rule, spec.provenance["algorithm"]) == ("table", "argmax_q", "hill_climb")
    assert "climbed-hill_climb" in (tmp_path / "compared" / "summary.json").read_text()
    schema = json.loads(done.stdout[done.stdout.rindex("\n{\n") :])
    assert schema["properties"]["hill_climb"]["description"] == "hyperparameters of `algorithm: hill_climb`."
    assert schema["$defs"]["HillClimbConfig"]["properties"]["noise"]["description"] == "standard deviation of a change."
    assert "hill_climb" in schema["properties"]["algorithm"]["enum"]


def test_a_key_of_its_own_is_checked_and_a_key_of_another_algorithm_refused(tmp_path: Path, installed: dict[str, str]):
    refusals = {
        "hill_climb.noise=0": "hill_climb.noise: 0.0 is not allowed; allowed: above 0",
        "hill_climb.noize=1": "noize: unknown key; allowed: total_env_steps, num_envs, noise, bins; did you mean noise",
        "tabular.alpha=0.2": "tabular: is not used by algorithm hill_climb; allowed: hill_climb",
        "env.id=Pendulum-v1": "algorithm: hill_climb is not allowed on Pendulum-v1, which takes continuous actions; allowed: ppo",
    }
    script = "import sys; from scalepilot.cli import main\n"
    script += f"print([main(['train', 'climbed.yaml', '--set', override]) for override in {list(refusals)}])"
    done = python(tmp_path, installed, script)
    assert done.stdout == "[2, 2, 2, 2]\n", done.stderr
    for line, said in zip(done.stderr.splitlines(), refusals.values(), strict=True):
        assert said in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("first", ["hill_climb.algorithm", "hill_climb.trainer", "scalepilot.config"])
def test_a_package_may_be_imported_before_or_after_the_registry(tmp_path: Path, installed: dict[str, str], first: str):
    script = f"import {first}; from scalepilot.config import ALGORITHMS; print(*ALGORITHMS)"
    done = python(tmp_path, installed, script)
    assert done.stdout.split() == [*ALGORITHMS, "hill_climb"], done.stderr


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, installed: dict[str, str]):
    (tmp_path / "site" / "hill_climb" / "algorithm.py").write_text("import nowhere")
    done = python(tmp_path, installed, "import sys; from scalepilot.cli import main; sys.exit(main(['train', 'climbed.yaml']))")
    assert done.returncode == 2
    assert "scalepilot.algorithms: hill_climb.algorithm:HILL_CLIMB cannot be imported (ModuleNotFoundError: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('trainer="hill_climb.trainer:Climb"', "is trained by hill_climb.trainer:Climb, and hill_climb.trainer has no Climb"),
        ('trainer="hill_climb.climber:HillClimb"', "algorithm: hill_climb needs hill_climb.climber"),
        ('section="env"', "algorithm: hill_climb has the section env, a key of every experiment"),
        ('own_metrics={"q_loss": ("1", "best")}', "algorithm: hill_climb measures q_loss, which means something else already"),
    ],
)
def test_a_record_that_is_wrong_is_one_line(tmp_path: Path, installed: dict[str, str], wrong: str, said: str):
    file = tmp_path / "site" / "hill_climb" / "algorithm.py"
    key = wrong.partition("=")[0]
    file.write_text(re.sub(rf"\b{key}=.*(?=,\n)", wrong, file.read_text()))
    done = python(tmp_path, installed, "import sys; from scalepilot.cli import main; sys.exit(main(['train', 'climbed.yaml']))")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_of_another_algorithm_is_readable_without_the_package(tmp_path: Path, installed: dict[str, str]):
    script = "from scalepilot.config import ExperimentConfig, config_from_mapping\n"
    script += "c = ExperimentConfig(); print(c.to_yaml(), config_from_mapping(c.to_mapping()) == c)"
    done = python(tmp_path, installed, script)
    assert "tabular:" in done.stdout
    assert "hill_climb" not in done.stdout
    assert done.stdout.endswith("True\n"), done.stderr


def test_a_run_of_an_algorithm_whose_package_is_gone_says_what_is_missing():
    with pytest.raises(
        ConfigError, match=r"algorithm: 'climb' is not allowed; allowed: ppo, .*install the package that brings it"
    ):
        config_from_mapping({"algorithm": "climb", "climb": {"noise": 1.0}})


def record(name: str, section: str = "own", settings: type[LearningConfig] = LearningConfig) -> Algorithm:
    return Algorithm(name, section, settings, "nowhere:Trainer", "table", "argmax_q")


def test_two_algorithms_of_one_name_or_two_meanings_of_one_section_are_refused():
    assert list(by_name([record("a"), record("b")])) == ["a", "b"]
    with pytest.raises(ConfigError, match="algorithm: a is registered twice"):
        by_name([record("a"), record("a", "other")])
    with pytest.raises(ConfigError, match="algorithm: b and a read own as different classes"):
        by_name([record("a"), record("b", settings=DQNConfig)])


def test_every_record_holds_what_its_trainer_and_its_section_have():
    for algorithm in ALGORITHMS.values():
        keys = set(algorithm.settings.__dataclass_fields__)
        assert {*algorithm.ignored, *algorithm.changeable} <= keys, algorithm.name
        assert algorithm.counterpart in ("", *ALGORITHMS), algorithm.name
