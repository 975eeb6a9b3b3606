"""The blocks of docs/learning.md, run as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def as_script(page: str) -> str:
    """All blocks, in the page's order, as one shell script: what one exports the next has."""
    parts = []
    for language, text in _BLOCK.findall(page):
        parts.append(text if language == "sh" else f"python -W error - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n")
    return "set -e\n" + "\n".join(parts)


@pytest.fixture(scope="module")
def ran(repo: Path, tmp_path_factory: pytest.TempPathFactory, cli_env: dict[str, str]) -> Path:
    """Folder in which the page's blocks were run."""
    folder = tmp_path_factory.mktemp("learning")
    shutil.copytree(repo / "docs" / "examples", folder / "docs" / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    page = (repo / "docs" / "learning.md").read_text(encoding="utf-8")
    done = subprocess.run(["bash", "-c", as_script(page)], cwd=folder, env=cli_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_page_has_blocks_of_both_kinds(repo: Path):
    languages = [language for language, _ in _BLOCK.findall((repo / "docs" / "learning.md").read_text(encoding="utf-8"))]
    assert languages.count("sh") == 3
    assert languages.count("python") == 2


@pytest.mark.learning
def test_the_environment_of_the_page_is_learnt(ran: Path):
    (path,) = ran.glob("runs/thermostat/*/evaluation/summary.json")
    policies = json.loads(path.read_text())["policies"]
    assert policies["thermostat-ppo"]["return"]["low"] > policies["random"]["return"]["high"]


@pytest.mark.learning
def test_the_study_of_the_page_says_who_learnt(ran: Path):
    summary = json.loads((ran / "thermostat-study" / "summary.json").read_text())
    arms = summary["tasks"]["Thermostat"]["arms"]
    assert set(arms) == {"PPO", "DQN"}
    assert arms["PPO"]["return_mean"]["mean"] > summary["tasks"]["Thermostat"]["random"]["mean"]
    assert (ran / "thermostat-study" / "study.html").stat().st_size > 10_000


def test_every_picture_and_page_that_the_lessons_link_is_there(repo: Path):
    page = (repo / "docs" / "learning.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", page) if "://" not in link]
    assert links
    for link in links:
        assert (repo / "docs" / link).is_file(), link
