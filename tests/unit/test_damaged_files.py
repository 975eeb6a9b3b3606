"""Damaged files × the commands that read them: each ends within five seconds, in at most two lines, with exit code 2."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from scalepilot.cli import main
from scalepilot.evaluate import Contender, compare, write_evaluation
from scalepilot.policy.rules import Hpa, HpaParameters
from scalepilot.report.html.report import LearningCurve, ReportData
from scalepilot.report.run_report import store_about
from scalepilot.simulate import protocol_v1, run_episodes
from scalepilot_envs.autoscale import AutoscaleParams
from scalepilot_envs.workloads import DiurnalWorkload

# Of the processor; a busy machine may take some times as long.
SECONDS, WALL_SECONDS = 5.0, 60.0
EXPERIMENT = """
name: grid
algorithm: q_learning
env: {id: GridWorld-v0}
tabular: {total_env_steps: 3200}
evaluation: {test_episodes: 4, validation_episodes: 2, videos: 0, bootstrap_samples: 20}
"""
SWEEP = "name: s\nexperiment: {algorithm: q_learning, env: {id: GridWorld-v0}}\nspace: {tabular.alpha: [0.1, 0.2]}\n"


def link(target: str) -> Callable[[Path, bytes], None]:
    return lambda path, _: path.symlink_to(target)


def write(*parts: bytes) -> Callable[[Path, bytes], None]:
    return lambda path, _: path.write_bytes(b"".join(parts)) and None


def cut(share: float) -> Callable[[Path, bytes], None]:
    return lambda path, data: path.write_bytes(data[: int(share * len(data))]) and None


def sparse(path: Path, _: bytes) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 2**30)


# What stands in a file's place, whatever the file is.
ANY: dict[str, Callable[[Path, bytes], None]] = {
    "empty": write(b""),
    "not UTF-8": write(b"\xff\xfe\x00a"),
    "NUL bytes": write(b"\0" * 64),
    "huge": sparse,
    "pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "device": link("/dev/zero"),
    "dangling": link("nowhere"),
    "loop": lambda path, _: path.symlink_to(path.name),
    "list": write(b"[1, 2]\n"),
    "one word": write(b"word\n"),
}
YAML = {
    "tag": write(b"name: !!python/object/apply:os.system [id]\n"),
    "date for a mapping": write(b"name: x\nenv: 2026-01-01\n"),
    "alias bomb": write(b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    "deep": write(b"a: " + b"[" * 5000),
    "cut": write(b"name: x\nenv: {id: Grid"),
    "key of a number": write(b"1: 2\n"),
    "key twice": write(b"name: a\nname: b\n"),
}
JSON = {
    "half": cut(0.5),
    "all but the end": cut(0.97),
    "deep": write(b'{"status": ' + b"[" * 100_000),
    "whole and deep": write(b'{"roles": ' + b"[" * 200 + b"]" * 200 + b"}"),
    "NaN": write(b'{"training": {"env_steps": NaN}, "workloads": [NaN]}'),
    "1e400": write(b'{"status": "finished", "training": {"train_seconds": 1e400}, "title": 1e400}'),
    "a later version": write(b'{"schema_version": 99}'),
    "long number": write(b'{"schema_version": ' + b"9" * 6000 + b"}"),
    "lone surrogate": write(b'{"status": "\\ud800", "title": "\\ud800"}'),
}
STATUS = {
    "wrong status": write(b'{"status": ["finished"]}'),
    "training is a list": write(b'{"status": "finished", "training": [1]}'),
    "negative": write(b'{"status": "finished", "training": {"env_steps": -5}}'),
    "text for a number": write(b'{"status": "finished", "training": {"env_steps": "many"}}'),
    "huge number": write(b'{"status": "finished", "training": {"env_steps": ' + b"9" * 40 + b"}}"),
    "versions are a list": write(b'{"status": "finished", "versions": ["a"]}'),
    "resumed is a word": write(b'{"status": "finished", "resumed": "often"}'),
    "true for a number": write(b'{"status": "finished", "training": {"env_steps": true}}'),
}
SUMMARY = {
    "policies are a list": write(b'{"workloads": ["x"], "policies": [], "roles": {}}'),
    "workloads are none": write(b'{"workloads": [], "policies": {}, "roles": {}}'),
    "role unknown": write(b'{"workloads": ["x"], "policies": {}, "roles": {"a": "king"}}'),
    "figure is a word": write(b'{"workloads": ["x"], "policies": {"a": {"return": {"mean": "high"}}}, "roles": {"a": "policy"}}'),
    "figure is a number": write(b'{"workloads": ["x"], "policies": {"a": {"return": 3}}, "roles": {"a": "policy"}}'),
    "versus is a list": write(b'{"workloads": ["x"], "policies": {}, "roles": {}, "versus": [1]}'),
}
BINARY = {"half": cut(0.5), "all but the end": cut(0.97), "foreign": write(b"PAR1 and more, but no table PAR1")}
# For commands that do much beside reading.
FEW = {kind: ANY[kind] for kind in ("empty", "pipe", "loop")} | {"half": cut(0.5)}
HEADER = b"iteration,env_steps,validation_return\n"
PROGRESS = {
    "a column nobody knows": write(b"iteration,env_steps,colour\n1,2,3\n"),
    "text for a number": write(HEADER + b"1,two,3\n"),
    "too many values": write(HEADER + b"1,2,3,4\n"),
    "too few values": write(HEADER + b"1,2\n2,4,3\n"),
    "NaN steps": write(HEADER + b"1,nan,3\n"),
    "negative steps": write(HEADER + b"1,-2,3\n"),
    "endless steps": write(HEADER + b"1,1e400,3\n"),
    "half an iteration": write(HEADER + b"1.5,2,3\n"),
    "an open quote": write(HEADER + b'1,"2,3\n'),
}
NOT_PROGRESS = ("empty", "list", "one word")


class Place:
    """Stored things, made once, and what stands in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (folder / "grid.yaml").write_text(EXPERIMENT)
            for seed in (0, 1):
                assert (
                    main(["train", str(folder / "grid.yaml"), "--set", f"output={folder / 'runs'}", "--set", f"seed={seed}"]) == 0
                )
        self.run, self.other = sorted((folder / "runs" / "grid").iterdir(), key=lambda path: path.name[-1])
        (folder / "sweep").mkdir()
        (folder / "sweep" / "sweep.yaml").write_text(SWEEP)
        self.compared = folder / "compared"
        params = AutoscaleParams()
        test = protocol_v1("shop", DiurnalWorkload(days=3), params, window_steps=240, drawn_windows=1, test_seeds=(0,)).test
        results, playback = run_episodes(Hpa(HpaParameters(), params), test, params, playback_of=0)
        comparison = compare("shop", test, [Contender("mine", "policy", "", results, playback)], bootstrap_samples=20)
        write_evaluation(comparison, self.compared)
        store_about(ReportData("title", comparison, [LearningCurve("mine", 3, [{"env_steps": 10.0}])]), self.compared)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("stored"))


@contextlib.contextmanager
def damaged(path: Path, damage: Callable[[Path, bytes], None]) -> Iterator[None]:
    """Something else in a file's place, for the length of a `with` block."""
    data = path.read_bytes()
    path.unlink()
    try:
        damage(path, data)
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(data)


class Hangs(BaseException):
    """Not caught on its way."""


def told(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code and what a command says; one that takes too long fails."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"{arguments}: is not over after {WALL_SECONDS:g} s")

    began = time.process_time()
    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - began < SECONDS, arguments
    return code, out.getvalue(), err.getvalue()


def refused(arguments: list[str], where: str = "", *, codes: tuple[int, ...] = (2,)) -> list[str]:
    """What is wrong with how a command ends that is to be refused; nothing where it ends as it should."""
    code, out, err = told(arguments)
    lines, problems = err.splitlines(), []
    if code not in codes:
        problems.append(f"exit code {code}")
    if len(lines) > 2 or (code and not lines and not out):
        problems.append(f"{len(lines)} lines")
    if "Traceback" in out + err or "internal error" in err:
        problems.append("a traceback")
    if where and code == 2 and where not in err:
        problems.append(f"does not name {where}")
    return [f"{' '.join(arguments)}: {', '.join(problems)}: {err[:400]}"] if problems else []


def commands_of(place: Place, name: str) -> list[list[str]]:
    """Commands that read a file of a run and must refuse a damaged one."""
    run, out = str(place.run), str(place.folder / "out")
    every = {
        "runs": ["runs", str(place.folder / "runs")],
        "report": ["report", run],
        "plot": ["plot", run, "--out", out],
        "resume": ["train", "--resume", run],
        "policy show": ["policy", "show", run],
        "policy list": ["policy", "list", run],
        "policy export": ["policy", "export", run, str(place.folder / "exported")],
    }
    readers = {
        "config.yaml": ("runs", "report", "plot", "resume"),
        "run.json": ("runs", "report", "resume"),
        "progress.csv": ("report", "resume"),
        "evaluation/summary.json": ("runs", "report"),
        "evaluation/episodes.parquet": ("report",),
        "policy/policy.json": ("policy show", "policy list", "policy export"),
    }
    return [every[command] for command in readers[name]]


@pytest.mark.parametrize(
    ("name", "damages"),
    [
        ("config.yaml", ANY | YAML),
        ("run.json", ANY | JSON | STATUS),
        ("progress.csv", {k: v for k, v in ANY.items() if k not in NOT_PROGRESS} | PROGRESS),
        ("evaluation/summary.json", ANY | JSON | SUMMARY),
        ("evaluation/episodes.parquet", ANY | BINARY),
    ],
)
def test_a_damaged_file_of_a_run_is_named_by_every_command_that_reads_it(place, name, damages):
    problems = []
    for kind, damage in damages.items():
        with damaged(place.run / name, damage):
            for command in commands_of(place, name):
                problems += [f"[{kind}] {problem}" for problem in refused(command, Path(name).name)]
    assert problems == []


def test_the_runs_beside_a_damaged_one_are_listed(place):
    for name in ("config.yaml", "run.json", "evaluation/summary.json"):
        for kind in ("empty", "pipe", "list"):
            with damaged(place.run / name, ANY[kind]):
                code, out, err = told(["runs", str(place.folder / "runs")])
            assert code == 2
            assert name in err
            assert "unreadable" in out
            assert sum("finished" in line for line in out.splitlines()) == 1


def test_checks_of_a_damaged_run_end_in_findings(place):
    problems = []
    for name in ("config.yaml", "run.json", "progress.csv", "metrics.parquet", "evaluation/summary.json", "policy/policy.json"):
        for kind, damage in FEW.items():
            with damaged(place.run / name, damage):
                problems += [f"[{name} {kind}] {p}" for p in refused(["verify", str(place.run)], codes=(1,))]
    assert problems == []


def test_what_is_drawn_again_is_drawn_from_what_is_left(place):
    for name in ("progress.csv", "run.json", "metrics.parquet", "evaluation/summary.json", "policy/policy.json"):
        for kind, damage in FEW.items():
            with damaged(place.run / name, damage):
                assert refused(["plot", str(place.run), "--out", str(place.folder / "out")], codes=(0,)) == [], (name, kind)


@pytest.mark.parametrize("name", ["loop.json", "trainer/trainer.json", "trainer/table.npz", "best.npz"])
def test_a_damaged_checkpoint_is_named(place, name):
    checkpoint = max((place.run / "checkpoints").iterdir())
    problems = []
    damages = ANY | (BINARY if name.endswith("npz") else JSON)
    for kind, damage in damages.items():
        with damaged(checkpoint / name, damage):
            problems += [f"[{kind}] {p}" for p in refused(["train", "--resume", str(place.run)], checkpoint.name)]
    assert problems == []


@pytest.mark.parametrize(
    ("name", "damages"),
    [
        ("summary.json", ANY | JSON | SUMMARY),
        ("episodes.parquet", ANY | BINARY),
        ("playback.parquet", ANY | BINARY),
        ("report.json", ANY | JSON | {"curves": write(b'{"title": "x", "learning_curves": [{"name": 3}]}')}),
    ],
)
def test_a_damaged_file_of_a_stored_comparison_is_named(place, name, damages):
    problems = []
    for kind, damage in damages.items():
        with damaged(place.compared / name, damage):
            for command in (["report", str(place.compared)], ["compare", "--plot-only", str(place.compared)]):
                problems += [f"[{kind}] {problem}" for problem in refused(command, name)]
    assert problems == []


def test_a_damaged_configuration_is_refused_by_every_command_that_takes_one(place):
    file = place.folder / "given.yaml"
    file.write_text(EXPERIMENT)
    commands = [
        ["train", str(file)],
        ["study", str(file)],
        ["crosscheck", str(file)],
        ["tune", str(file)],
        ["submit", str(file), "--address", "http://127.0.0.1:9"],
        ["compare", "--config", str(file)],
        ["compare", "--config", str(file), "hpa"],
        ["workload", "show", str(file)],
        ["serve", "--config", str(file)],
    ]
    problems = []
    for kind, damage in (ANY | YAML).items():
        with damaged(file, damage):
            for command in commands:
                where = "" if command[0] == "serve" and kind == "empty" else "given.yaml"
                problems += [f"[{kind}] {problem}" for problem in refused(command, where)]
    assert problems == []


def test_a_damaged_sweep_is_named_in_the_list_and_not_resumed(place):
    problems = []
    for kind, damage in (ANY | {k: v for k, v in YAML.items() if k != "date for a mapping"}).items():
        with damaged(place.folder / "sweep" / "sweep.yaml", damage):
            for command in (["runs", str(place.folder / "sweep")], ["tune", "--resume", str(place.folder / "sweep")]):
                problems += [f"[{kind}] {problem}" for problem in refused(command, "sweep.yaml")]
    assert problems == []


@pytest.mark.parametrize("name", ["policy/policy.json", "policy/table.npz"])
def test_a_damaged_policy_is_refused_by_every_command_that_runs_it(place, name):
    run = str(place.run)
    commands = [["demo", run, "--no-render"], ["policy", "show", run], ["serve", run, "--port", "0"]]
    commands += [["policy", "sign", run, "--key", run]]
    problems = []
    for kind, damage in (ANY | {"half": cut(0.5)}).items():
        with damaged(place.run / name, damage):
            for command in commands:
                problems += [f"[{kind}] {problem}" for problem in refused(command, codes=(2,))]
            # A comparison goes on without it, as its documentation says.
            problems += [f"[{kind}] {problem}" for problem in refused(["compare", run], codes=(1, 2))]
    assert problems == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_files_without_permission_are_named(place):
    for parent in (place.folder, *place.folder.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    problems = []
    for name in ("config.yaml", "run.json", "progress.csv", "evaluation/summary.json", "policy/policy.json"):
        (place.run / name).chmod(0)
        os.seteuid(65534)
        try:
            for command in commands_of(place, name):
                if "--resume" not in command:
                    problems += refused(command, Path(name).name)
        finally:
            os.seteuid(0)
            (place.run / name).chmod(0o644)
    assert problems == []


def test_cut_off_anywhere_a_file_is_read_or_named(place):
    problems = []
    for name, command in (("run.json", "runs"), ("config.yaml", "runs"), ("evaluation/summary.json", "runs")):
        length = (place.run / name).stat().st_size
        for at in range(0, length, max(7, length // 15)):
            with damaged(place.run / name, lambda path, data, at=at: path.write_bytes(data[:at]) and None):
                problems += refused([command, str(place.run)], codes=(0, 2))
    assert problems == []


def test_a_configuration_cut_off_at_any_line_is_not_gone_on_with_by_defaults(place):
    file = place.run / "config.yaml"
    lines = file.read_bytes().splitlines(keepends=True)
    problems = []
    for count in range(1, len(lines), 6):
        with damaged(file, lambda path, _, count=count: path.write_bytes(b"".join(lines[:count])) and None):
            problems += refused(["train", "--resume", str(place.run)], "config.yaml")
    assert problems == []
