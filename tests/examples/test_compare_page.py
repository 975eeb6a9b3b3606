"""The blocks of docs/compare.md, run as they stand there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.examples.test_learning import as_script


@pytest.fixture(scope="module")
def ran(repo: Path, tmp_path_factory: pytest.TempPathFactory, cli_env: dict[str, str]) -> tuple[Path, str]:
    """Folder in which the page's blocks were run, and what they printed."""
    folder = tmp_path_factory.mktemp("compare")
    page = (repo / "docs" / "compare.md").read_text(encoding="utf-8")
    done = subprocess.run(["bash", "-c", as_script(page)], cwd=folder, env=cli_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "results" / "rules", done.stdout


@pytest.mark.slow
def test_the_second_command_goes_on_from_the_first(ran: tuple[Path, str]):
    folder, _ = ran
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["workloads"] == ["spike", "sinusoidal"]
    policies = {name for name, role in summary["roles"].items() if role == "policy"}
    assert policies == {"kpa", "tracking", "threshold"}
    # Five rows on two workloads: those of the first command were not flown again under another key.
    assert len(list((folder / "cells").glob("*.npz"))) == 2 * 5


def test_the_stored_comparison_is_printed_again_as_it_was(ran: tuple[Path, str]):
    _, printed = ran
    first, second, again = printed.split("written: results/rules\n")[:3]
    assert again == second != first


def test_every_file_that_the_page_promises_is_there(ran: tuple[Path, str]):
    folder, _ = ran
    for name in ("summary.json", "episodes.parquet", "playback.parquet", "report.html"):
        assert (folder / name).stat().st_size > 0, name
