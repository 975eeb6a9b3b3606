"""One SIGTERM ends a run within seconds, whatever it is doing, even where its environment does not come back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Phase → what training.log or run.json says once it has begun, and the first of its seeds.
PHASES = {"validation": 1_000_000, "test": 2_000_000, "export": 4_000_000, "training": -1}
CONFIG = """
name: stopped
algorithm: q_learning
output: {output}
env: {{id: FailingTarget-v0, options: {{fault: {fault}, at: {at}}}}}
tabular: {{total_env_steps: 4000, num_envs: 8, bins: {{observation_0: 2, observation_1: 2}}}}
evaluation: {{validation_episodes: 4, test_episodes: 4, videos: 0, validate_every_share: 0.5}}
"""


@pytest.mark.slow
def test_one_signal_ends_a_run_in_every_phase(tmp_path: Path):
    # Side by side: what they do most of the time is to hang.
    with contextlib.ExitStack() as stack:
        runs = {phase: stack.enter_context(started(tmp_path / phase, phase)) for phase in PHASES}
        logs = {phase: wait_for_log(tmp_path / phase, "training begins") for phase in PHASES}
        # Into the step that hangs.
        time.sleep(8)
        for phase, run in runs.items():
            assert run.poll() is None, (phase, run.stdout.read() if run.stdout else "")
            began = time.monotonic()
            run.send_signal(signal.SIGTERM)
            output, _ = run.communicate(timeout=60)
            seconds = time.monotonic() - began
            # On a machine with more to do than it has cores everything takes longer.
            assert seconds < 5 * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1)), (phase, output)
            assert run.returncode == 130, (phase, output)
            assert "Traceback" not in output, phase
            folder = logs[phase].parents[1]
            assert json.loads((folder / "run.json").read_text())["status"] == "interrupted", phase
            if phase != "training":
                assert list((folder / "checkpoints").iterdir()), phase
                assert (folder / "policy" / "policy.json").exists(), phase


@contextlib.contextmanager
def started(folder: Path, phase: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose environment hangs in a phase; killed in the end."""
    folder.mkdir()
    at = PHASES[phase]
    fault = ("hangs", 30) if phase == "training" else ("hangs_in", at)
    (folder / "config.yaml").write_text(CONFIG.format(output=folder, fault=fault[0], at=fault[1]))
    environment = {**os.environ, "SCALEPILOT_ENV_MODULES": "tests.failing_envs", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scalepilot.cli", "train", str(folder / "config.yaml")]
    with subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            yield run
        finally:
            run.kill()


def wait_for_log(folder: Path, text: str) -> Path:
    for _ in range(600):
        for log in folder.glob("stopped/*/logs/training.log"):
            if text in log.read_text():
                return log
        time.sleep(0.1)
    raise AssertionError("training did not begin")
