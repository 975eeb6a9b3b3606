"""Training on a cluster whose node cannot import what it has to: a raylet of its own on this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.nodes import ray_nodes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]
WITHOUT_THE_PACKAGE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "scalepilot":
            raise ModuleNotFoundError("No module named 'scalepilot'", name="scalepilot")

sys.meta_path.insert(0, Blocker())
"""


def test_a_node_that_lacks_the_package_is_one_clear_line_within_a_minute(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_THE_PACKAGE)
    config = tmp_path / "config.yaml"
    runs = tmp_path / "runs"
    config.write_text(
        f"env: {{id: CartPole-v1}}\noutput: {runs}\nresources: {{num_env_runners: 2}}\nppo: {{envs_per_input: 1}}\n"
    )
    # The driver is on no node of it, and has the package.
    with ray_nodes([2], [{"PYTHONPATH": str(tmp_path)}]) as address:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "scalepilot.cli", "train", str(config), "--address", address],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        seconds = time.monotonic() - began
    assert done.returncode == 1, done.stderr
    assert "cannot import scalepilot (No module named 'scalepilot'); install scalepilot" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert seconds < 60
