"""What is found beside training: the same as without, and nothing is left running."""

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
from typing import Any

import numpy as np
import psutil
import pytest

from scalepilot.config import ExperimentConfig, config_from_mapping
from scalepilot.errors import InputError
from scalepilot.evaluate.evaluation import OptimumOptions, optimum_of
from scalepilot.experiments import beside
from scalepilot.experiments.beside import Preparation, prepared, tuned_baselines
from scalepilot.runs.folder import RunFolder
from scalepilot.simulate import SerialExecutor, scenario_of


def config_of(folder: Path, **evaluation: Any) -> ExperimentConfig:
    values = {"window_steps": 240, "drawn_windows": 2, "test_seeds": [0], "tuning_evaluations": 4, "videos": 0}
    return config_from_mapping(
        {"workload": {"kind": "diurnal", "days": 2}, "output": str(folder), "evaluation": {**values, **evaluation}}
    )


@pytest.fixture(autouse=True)
def _large_enough_and_a_core_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_WORTH_PROCESSES", 0)
    monkeypatch.setattr(beside, "usable_cores", lambda: 2)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Preparation]]:
    """Those that were; of each, no process may be left."""
    all_of_them, sessions, begin = [], set(), Preparation.begin

    def noted(self: Preparation, *arguments: Any) -> None:
        begin(self, *arguments)
        all_of_them.append(self)
        sessions.add(self._process.pid)

    monkeypatch.setattr(Preparation, "begin", noted)
    yield all_of_them
    assert all_of_them
    # It leads a session, in which its own processes stay whoever their parent is.
    left = [process for process in psutil.process_iter() if sessions & {process.pid, _session(process.pid)}]
    # Those are killed, not waited for.
    _, alive = psutil.wait_procs(left, timeout=5)
    assert not alive


def _session(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return None


def test_figures_are_those_without_it(tmp_path: Path, started: list[Preparation]):
    config = config_of(tmp_path)
    scenario = scenario_of(config)
    data = scenario.traffic
    folders = [RunFolder.create(config) for _ in range(2)]
    with prepared(config, scenario, folders[0]) as preparation:
        assert not preparation.or_stop(lambda: False)()
        preparation.wait()
        started[0]._process.join(60)
        plans = sorted(preparation.optima.iterdir())
        assert len(plans) == len(data.test)
        written = [plan.stat().st_mtime_ns for plan in plans]
        found = optimum_of(data, config.autoscale.params, OptimumOptions(preparation.optima), SerialExecutor())
        assert [plan.stat().st_mtime_ns for plan in plans] == written, "none is planned twice"
    assert not preparation.optima.exists()
    alone = optimum_of(data, config.autoscale.params, OptimumOptions(), SerialExecutor())
    assert np.array_equal(found.targets, alone.targets)
    assert np.array_equal(found.upper_J_per_hour, alone.upper_J_per_hour)
    tuned_baselines(config, scenario, folders[1])
    stored = [{p.parent.name: json.loads(p.read_text()) for p in f.baselines.glob("*/policy.json")} for f in folders]
    assert len(stored[0]) == 2
    assert stored[0] == stored[1]


def test_what_cannot_be_tuned_ends_the_training(tmp_path: Path, started: list[Preparation]):
    config = config_of(tmp_path)
    scenario, folder = scenario_of(config), RunFolder.create(config)
    # Where its rules should be stored.
    folder.baselines.write_text("")
    with prepared(config, scenario, folder) as preparation:
        stop = preparation.or_stop(lambda: False)
        assert started[0]._pipe.poll(60)
        with pytest.raises(OSError, match="baselines") as beside_training:
            stop()
    with pytest.raises(OSError, match="baselines") as here:
        tuned_baselines(config, scenario, folder)
    assert str(beside_training.value) == str(here.value)


def test_a_run_that_is_stopped_ends_it_at_once(tmp_path: Path, started: list[Preparation]):
    config = config_of(tmp_path)
    with prepared(config, scenario_of(config), RunFolder.create(config)) as preparation:
        process = psutil.Process(started[0]._process.pid)
        assert preparation.or_stop(lambda: True)()
        assert not process.is_running()
        # The signal came after the last iteration: what is missing is tuned then.
        preparation.wait()


def test_what_is_misspelt_is_said_before_anything_begins(tmp_path: Path):
    config = config_of(tmp_path, baselines=["kpa-tund"])
    with pytest.raises(InputError, match="kpa-tund"), prepared(config, scenario_of(config), RunFolder.create(config)):
        raise AssertionError


def test_killed_it_is_done_after_training(tmp_path: Path, started: list[Preparation], caplog: pytest.LogCaptureFixture):
    config = config_of(tmp_path)
    with prepared(config, scenario_of(config), RunFolder.create(config)) as preparation:
        started[0]._process.kill()
        preparation.wait()
    assert "ended early; what is missing is tuned after training" in caplog.text


HOST = """
import signal, sys, time
from pathlib import Path
from scalepilot.experiments import beside
from tests.unit.test_beside import config_of, scenario_of, RunFolder

if __name__ == "__main__":
    # Whoever runs these tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    beside._WORTH_PROCESSES, beside.usable_cores = 0, lambda: 3
    config = config_of(Path(sys.argv[1]), tuning_evaluations=6_000)
    with beside.prepared(config, scenario_of(config), RunFolder.create(config)):
        print("begun", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_it_ends_with_who_started_it(tmp_path: Path, repo: Path, number: signal.Signals):
    (tmp_path / "host.py").write_text(HOST)
    command = [sys.executable, str(tmp_path / "host.py"), str(tmp_path)]
    with subprocess.Popen(
        command, env={"PYTHONPATH": str(repo)}, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    ) as host:
        try:
            assert host.stdout is not None
            assert host.stdout.readline() == "begun\n"
            deadline = time.monotonic() + 60
            # Its first process, that one's two, and a helper of Python's.
            while len(running := psutil.Process(host.pid).children(recursive=True)) < 4:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            host.send_signal(number)
            _, alive = psutil.wait_procs(running, timeout=10)
            assert not alive
            _, said = host.communicate(timeout=10)
        finally:
            host.kill()
    assert said.count("Traceback") == (number == signal.SIGINT)
