"""Jobs in this process and in others: every result once, failures and deaths named."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from scalepilot.errors import ArtifactError, InputError, RunError
from scalepilot.experiments.study.jobs import Ended, RunExecutor
from scalepilot.simulate import ProcessExecutor, SerialExecutor


def square(number):
    return number * number, os.getpid()


def refuse(number):
    raise ArtifactError(f"model {number}: was changed")


def stumble(number):
    raise ZeroDivisionError(f"at {number}")


def die_once(marker):
    """Kills its own process the first time it meets a marker file's name, as the kernel does when memory is short."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


def die(job):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_to_be_asked(seconds):
    time.sleep(seconds)


@pytest.fixture(scope="module")
def two():
    with ProcessExecutor(2) as executor:
        yield executor


def test_every_job_is_done_once_wherever_it_runs(two):
    for executor in (SerialExecutor(), two):
        found = dict(executor.run(square, list(range(7))))
        assert {i: value for i, (value, _) in found.items()} == {i: i * i for i in range(7)}


def test_the_jobs_are_shared_by_processes_that_stay_for_the_next(two):
    first = {pid for _, (_, pid) in two.run(square, list(range(20)))}
    again = {pid for _, (_, pid) in two.run(square, list(range(20)))}
    assert os.getpid() not in first | again
    assert len(first | again) <= 2


def test_one_job_is_not_worth_a_process(two):
    assert [pid for _, (_, pid) in two.run(square, [3])] == [os.getpid()]
    assert list(two.run(square, [])) == []


def test_what_a_job_raises_reaches_the_caller(two):
    with pytest.raises(ArtifactError, match=r"model \d: was changed"):
        list(two.run(refuse, [0, 1]))
    with pytest.raises(RunError, match=r"ZeroDivisionError: at \d"):
        list(two.run(stumble, [0, 1]))
    assert len(list(two.run(square, [1, 2, 3]))) == 3


def test_a_job_whose_worker_died_is_named_and_tried_again(tmp_path):
    notes = []
    jobs = [tmp_path / "a", Path(__file__), tmp_path / "b"]
    with ProcessExecutor(2, notes.append) as executor:
        assert sorted(name for _, name in executor.run(die_once, jobs)) == ["a", "b", "test_executor.py"]
    assert sorted(notes) == [f"{tmp_path / name}: its process died (SIGKILL); it is tried again" for name in "ab"]


def test_a_job_that_kills_its_worker_twice_is_given_up():
    with ProcessExecutor(2) as executor, pytest.raises(RunError, match=r"ppo on spike: its process died 2 times \(SIGKILL\)"):
        list(executor.run(die, ["ppo on spike", "ppo on spike"]))


def test_results_nobody_waited_for_are_not_taken_for_the_next(two):
    for _, _ in two.run(square, list(range(10))):
        break
    assert dict(two.run(square, [5, 6, 7])).keys() == {0, 1, 2}


def test_no_processes_are_refused():
    with pytest.raises(InputError, match="processes: 0 is not allowed"):
        ProcessExecutor(0)


def test_a_run_whose_process_dies_has_failed_and_the_others_go_on(tmp_path):
    with RunExecutor(1, tmp_path / "logs") as executor:
        ended = dict(executor.run(die_once, [tmp_path / "a", Path(__file__)]))
    assert ended == {0: Ended("failed", "its process ended with exit code -9"), 1: "test_executor.py"}
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"worker-0.log", "worker-1.log"}


def test_runs_that_nobody_waits_for_are_asked_to_end(tmp_path):
    with RunExecutor(2, tmp_path) as executor:
        next(executor.run(wait_to_be_asked, [0.0, 60.0]))
        began = time.monotonic()
    assert time.monotonic() - began < 30
