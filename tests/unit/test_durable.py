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
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalepilot.files.atomic import remove_folder, remove_leftovers, replaced_folder, write_bytes, write_json
from scalepilot.runs.checkpoints import LAST_FILE, Checkpoints

KILLS = 25
# Checkpoint n holds three files of many times the number n, and small ones; the same folder is replaced in turns, too.
WRITER = """
import os
import sys
from pathlib import Path
from scalepilot.files.atomic import replaced_folder, write_bytes
from scalepilot.runs.checkpoints import LAST_FILE, Checkpoints

# Imported once: each line begins a process that writes on from a number.
for line in sys.stdin:
    n, pid = int(line), os.fork()
    if not pid:
        break
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
else:
    sys.exit()
checkpoints = Checkpoints(Path(sys.argv[1]) / "checkpoints", 2)

def fill(folder):
    (folder / "trainer").mkdir()
    for name in ("trainer/a.bin", "b.bin", LAST_FILE):
        with (folder / name).open("wb") as file:
            for _ in range(20):
                file.write(n.to_bytes(4, "big") * 500)
    for i in range(8):
        (folder / f"small_{i}").touch()

while True:
    n += 1
    checkpoints.write(n, fill)
    with replaced_folder(Path(sys.argv[1]) / "policy") as aside:
        fill(aside)
    write_bytes(Path(sys.argv[1]) / "run.json", n.to_bytes(4, "big") * 5000)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Callable[[int, float], None]]:
    """Has a process write on from a number, and kills it after so many seconds."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        lines, answers = starter.stdin, starter.stdout

        def write_and_kill(start: int, seconds: float) -> None:
            lines.write(f"{start}\n")
            lines.flush()
            pid = int(answers.readline())
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
            assert answers.readline() == "ended\n"

        yield write_and_kill


def assert_whole(folder: Path) -> int:
    """Every file in full and of one version, which is returned."""
    parts = [(folder / name).read_bytes() for name in ("trainer/a.bin", "b.bin", LAST_FILE)]
    assert [len(part) for part in parts] == [40_000] * 3, folder
    assert len(list(folder.glob("small_*"))) == 8, folder
    versions = {part[i : i + 4] for part in parts for i in range(0, len(part), 4)}
    assert len(versions) == 1, folder
    return int.from_bytes(versions.pop(), "big")


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_only_whole_checkpoints_artifacts_and_files(
    tmp_path: Path, killed: Callable[[int, float], None]
):
    moments, last = random.Random(0), 0
    policy = 0
    for _ in range(KILLS):
        killed(last, moments.uniform(0.0, 0.15))
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
