"""Files and folders are there in full or not at all: after a kill, on a full disk, when the writer fails."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from scalepilot.files.atomic import remove_folder, remove_leftovers, replaced_folder, write_bytes, write_json
from scalepilot.runs.checkpoints import LAST_FILE, Checkpoints

KILLS = 50
# Checkpoint n holds three files of many times the number n, and small ones; the same folder is replaced in turns, too.
WRITER = """
import sys
from pathlib import Path
from scalepilot.files.atomic import replaced_folder, write_bytes
from scalepilot.runs.checkpoints import LAST_FILE, Checkpoints

checkpoints, n = Checkpoints(Path(sys.argv[1]) / "checkpoints", 2), int(sys.argv[2])

def fill(folder):
    (folder / "trainer").mkdir()
    for name in ("trainer/a.bin", "b.bin", LAST_FILE):
        with (folder / name).open("wb") as file:
            for _ in range(20):
                file.write(n.to_bytes(4, "big") * 500)
    for i in range(8):
        (folder / f"small_{i}").touch()

print("ready", flush=True)
while True:
    n += 1
    checkpoints.write(n, fill)
    with replaced_folder(Path(sys.argv[1]) / "policy") as aside:
        fill(aside)
    write_bytes(Path(sys.argv[1]) / "run.json", n.to_bytes(4, "big") * 5000)
"""


def writer(folder: Path, start: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(start)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def assert_whole(folder: Path) -> int:
    """Every file in full and of one version, which is returned."""
    parts = [(folder / name).read_bytes() for name in ("trainer/a.bin", "b.bin", LAST_FILE)]
    assert [len(part) for part in parts] == [40_000] * 3, folder
    assert len(list(folder.glob("small_*"))) == 8, folder
    versions = {part[i : i + 4] for part in parts for i in range(0, len(part), 4)}
    assert len(versions) == 1, folder
    return int.from_bytes(versions.pop(), "big")


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_only_whole_checkpoints_artifacts_and_files(tmp_path: Path):
    moments, last = random.Random(0), 0
    policy = 0
    for _ in range(KILLS):
        process = writer(tmp_path, last)
        time.sleep(moments.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        visible = [p for p in (tmp_path / "checkpoints").glob("*") if not p.name.startswith(".")]
        for checkpoint in visible:
            assert assert_whole(checkpoint) == int(checkpoint.name)
        # Nothing that was there is lost, however often it is killed.
        newest = max((int(checkpoint.name) for checkpoint in visible), default=0)
        assert newest >= last
        last = newest
        if (tmp_path / "policy").exists():
            policy, before = assert_whole(tmp_path / "policy"), policy
            assert before <= policy <= last
        if (tmp_path / "run.json").exists():
            assert len((tmp_path / "run.json").read_bytes()) == 20_000
    assert last > KILLS / 2, "the writer got somewhere"
    Checkpoints(tmp_path / "checkpoints", 2).write(last + 1, lambda folder: (folder / LAST_FILE).touch())
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(".")], "leftovers are cleared away"


def test_a_failed_write_leaves_what_was_there(tmp_path: Path):
    folder = tmp_path / "policy"
    for text in ("first", "second"):
        with replaced_folder(folder) as aside:
            (aside / "a").write_text(text)

    def fail() -> None:
        with replaced_folder(folder) as aside:
            (aside / "a").write_text("third")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (folder / "a").read_text() == "second"
    write_json(tmp_path / "run.json", {"status": "running"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "run.json", {"status": object()})
    assert "running" in (tmp_path / "run.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["policy", "run.json"]


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_aside(tmp_path: Path):
    script = """
        import resource, sys
        from pathlib import Path
        from scalepilot.files.atomic import replaced_folder, write_bytes
        folder = Path(sys.argv[1])
        write_bytes(folder / "a", b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for write in (lambda: write_bytes(folder / "a", bytes(5000)), lambda: fill(folder)):
            try:
                write()
            except OSError as error:
                print(error.strerror)
    """
    function = """
        def fill(folder):
            with replaced_folder(folder / "b") as aside:
                (aside / "c").write_bytes(bytes(5000))
    """
    code = textwrap.dedent(function) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [os.strerror(27)] * 2, done.stderr
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_leftovers_are_told_from_what_belongs_there(tmp_path: Path):
    (tmp_path / ".000003.77.new").mkdir()
    (tmp_path / ".000001.77.old").mkdir()
    write_bytes(tmp_path / ".hidden", b"a person's")
    (tmp_path / "000002").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "000002"]
    remove_folder(tmp_path / "000002")
    assert [p.name for p in tmp_path.iterdir()] == [".hidden"]
