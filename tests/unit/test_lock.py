"""A folder that is written into by one process at a time."""

import json
import os
import platform
import signal
import subprocess
import sys

import pytest

from scalepilot.cli import main
from scalepilot.errors import InputError
from scalepilot.files.lock import LOCK_FILE, locked

HOLD = "import sys, time; from pathlib import Path; from scalepilot.files.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1]), 'the run'):\n    print('held', flush=True)\n    time.sleep(60)"


def test_a_second_process_is_refused_with_the_first_ones_pid_and_host_and_a_dead_one_lets_go(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("name: x\nalgorithm: q_learning\nenv: {id: GridWorld-v0}\n")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert main(["train", "--resume", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert f"is being written by process {holder.pid} on {platform.node()}" in said
        assert said.count("\n") == 1
        assert not (tmp_path / "run.json").exists()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    # What it wrote is still there, and it is dead.
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == holder.pid
    with locked(tmp_path, "the run"):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_two_in_one_process_exclude_each_other(tmp_path):
    with locked(tmp_path, "the sweep"):
        with pytest.raises(InputError, match="the sweep is being written by process"), locked(tmp_path, "the sweep"):
            pass
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_the_process_of_another_host_may_live_and_is_named(tmp_path):
    (tmp_path / LOCK_FILE).write_text('{"pid": 7, "host": "elsewhere", "since": "yesterday"}')
    with pytest.raises(InputError, match=r"process 7 on elsewhere since yesterday.*remove .*\.lock"), locked(tmp_path, "the run"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": "x"}', "\0"])
def test_a_damaged_lock_file_is_nobodys(tmp_path, text):
    (tmp_path / LOCK_FILE).write_text(text)
    if text == '{"pid": "x"}':
        with pytest.raises(InputError, match="an unknown host"), locked(tmp_path, "the run"):
            pass
        return
    with locked(tmp_path, "the run"):
        pass


def test_an_error_inside_stays_what_it_is_and_lets_go(tmp_path):
    with pytest.raises(OSError, match="disk"), locked(tmp_path, "the run"):
        raise OSError("disk")
    with locked(tmp_path, "the run"):
        pass
