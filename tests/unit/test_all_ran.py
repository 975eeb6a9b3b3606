"""A worker of pytest that dies makes the run fail, whenever it dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What a worker does to itself in the middle of its second test, and after its last.
TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(4))
def test_one(number):
    if "{when}" == "within" and number == 1:
        os._exit(9)
"""
AT_THE_END = """
import os
import pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if "{when}" == "after" and os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        os._exit(9)
"""


@pytest.mark.parametrize(
    ("when", "code", "counted"), [("never", 0, "4 passed"), ("within", 1, "1 failed, 3 passed"), ("after", 1, "4 passed")]
)
def test_a_worker_that_dies_makes_the_run_fail(tmp_path: Path, repo: Path, when: str, code: int, counted: str):
    (tmp_path / "test_some.py").write_text(TESTS.format(when=when))
    (tmp_path / "conftest.py").write_text(AT_THE_END.format(when=when))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(repo), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "xdist.plugin", "-p", "tests.all_ran", "."]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1]
    assert (done.returncode, counted in last) == (code, True), done.stdout
    assert ("error" in last) == (code != 0), last
    assert ("a worker died" in done.stdout) == (code != 0), done.stdout
