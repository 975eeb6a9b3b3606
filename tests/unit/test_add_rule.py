"""docs/develop/add-a-rule.md, done as it says: a file and one line, and the rule compares, is stored and serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "develop" / "add-a-rule.md"
REGISTRY = "_REGISTERED = (\n"
# Every command in one process: each would import the same again.
COMMANDS = """
from scalepilot.cli import main

quick = ["--jobs", "1", "--seeds", "1", "--windows", "1", "--steps", "120", "--no-optimum"]
entries = ["queue_length", "queue_length:clear_steps=1"]
assert main(["compare", *entries, "--baseline", "hpa-default", "--workload", "spike", *quick, "--out", "compared"]) == 0
{stored}
from scalepilot.serve import PolicyStore

(served,) = PolicyStore.load([Path("policies/queue_length")])
assert served.spec.rule["name"] == "queue_length"
"""


def code(language: str) -> list[str]:
    """The page's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_a_rule_is_a_file_and_one_line(tmp_path: Path) -> None:
    platform = shutil.copytree(ROOT / "platform" / "scalepilot", tmp_path / "platform" / "scalepilot")
    (module, stored), (line,) = code("python"), code("text")
    rules = platform / "policy" / "rules"
    (rules / "queue_length.py").write_text(module)
    assert line.count("\n") == 1
    registry = (rules / "__init__.py").read_text()
    assert REGISTRY in registry
    (rules / "__init__.py").write_text(registry.replace(REGISTRY, REGISTRY + line))
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "platform")}
    script = COMMANDS.replace("{stored}", stored)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stderr
    policies = json.loads((tmp_path / "compared" / "summary.json").read_text())["policies"]
    assert sum(name.startswith("queue_length") for name in policies) == 2
