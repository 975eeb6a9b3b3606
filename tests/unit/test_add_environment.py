"""docs/develop/add-an-environment.md, done as it says: a folder and one line, and the environment trains, compares and serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "develop" / "add-an-environment.md"
# Every command in one process: each would import the same again.
COMMANDS = """
from pathlib import Path
from scalepilot.cli import main
from scalepilot.serve import PolicyStore
from scalepilot_envs import find_env
from scalepilot_envs.testing import check_scaling_env

entry = find_env("TicketDesk-v0")
check_scaling_env(entry.maker(), entry.vector_maker())
assert main(["env", "show", "TicketDesk-v0"]) == 0
assert main(["train", "desk.yaml", "--no-evaluation"]) == 0
run = next(Path("runs/desk").iterdir())
assert main(["compare", str(run), "--out", "compared", "--jobs", "1"]) == 0
assert [served.spec.env_id for served in PolicyStore.load([run])] == ["scalepilot/TicketDesk-v0"]
"""


def code(language: str) -> list[str]:
    """The page's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_an_environment_is_a_folder_and_one_line(tmp_path: Path) -> None:
    envs = shutil.copytree(ROOT / "envs" / "scalepilot_envs", tmp_path / "envs" / "scalepilot_envs")
    module, line = code("python")
    (envs / "ticket_desk").mkdir()
    (envs / "ticket_desk" / "__init__.py").write_text(module)
    assert line.count("\n") == 1
    with (envs / "registration.py").open("a") as file:
        file.write(line)
    quick = "evaluation: {validation_episodes: 2, test_episodes: 4, bootstrap_samples: 50, videos: 0}\n"
    (tmp_path / "desk.yaml").write_text(code("yaml")[0] + quick)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "envs")}
    done = subprocess.run([sys.executable, "-c", COMMANDS], capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "arriving_customers" in done.stdout
    policies = json.loads((tmp_path / "compared" / "summary.json").read_text())["policies"]
    assert {"desk-q_learning", "random", "threshold"} <= {name.removesuffix("-default") for name in policies}
