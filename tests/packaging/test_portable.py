"""`make demo` needs nothing that only Linux has: it is typed for macOS, and runs without what macOS lacks."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scalepilot.cli import COMMANDS

REPO = Path(__file__).resolve().parents[2]
ROOTS = (REPO / "platform", REPO / "envs")
ENTRY = "scalepilot.cli.train"
# Folders of Linux's kernel, and what a type checker does not see: functions of the C library, and of psutil, that macOS lacks.
LINUX_FOLDER = re.compile(r"/(proc|sys|run)/|/dev/shm\b")
LINUX_NAMES = {
    "cpu_affinity",
    "eventfd",
    "gettid",
    "io_counters",
    "ionice",
    "memory_maps",
    "prctl",
    "renameat2",
    "rlimit",
    "syscall",
}
# Used behind a question, with something else to do on macOS.
GUARDED = {("scalepilot.runs.folder", "/proc/cpuinfo"), ("scalepilot.files.atomic", "renameat2")}
# Of the standard library, and not on macOS; what Python itself and the libraries use of it, they ask for first.
ONLY_LINUX = {
    "os": (
        "copy_file_range eventfd getrandom getxattr listxattr memfd_create pidfd_open posix_fadvise posix_fallocate removexattr "
        "sched_getaffinity sched_setaffinity setns setxattr splice unshare O_DIRECT O_PATH O_TMPFILE"
    ),
    "select": "epoll",
    "signal": "SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT sigtimedwait sigwaitinfo pidfd_send_signal",
    "resource": "prlimit",
    "time": "CLOCK_BOOTTIME",
}
SMALL = (
    "workload.days=8",
    "ppo.total_env_steps=8192",
    "ppo.num_envs=32",
    "ppo.rollout_steps=32",
    "ppo.hidden=[16]",
    "evaluation.window_steps=120",
    "evaluation.drawn_windows=2",
    "evaluation.test_seeds=[0]",
    "evaluation.tuning_evaluations=4",
    "evaluation.validate_every_share=0.5",
    "evaluation.bootstrap_samples=100",
    "evaluation.videos=1",
    "evaluation.baselines=[hpa-tuned]",
)


def module_path(name):
    """The file of one of our modules; None where the name is not one."""
    for root in ROOTS:
        base = root.joinpath(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def imported(name, tree):
    """Names that a module may import, wherever in it, and those it mentions to import later."""
    package = name if module_path(name).name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"scalepilot[\w.:]+", node.value):
            yield node.value.partition(":")[0]


def path_of(entry):
    """Every module of ours that importing one may import, now or later, with its syntax tree."""
    found, waiting = {}, [entry]
    while waiting:
        name = waiting.pop()
        path = module_path(name)
        if name in found or path is None:
            continue
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
        parts = name.split(".")
        waiting += [".".join(parts[:i]) for i in range(1, len(parts))]
        # What the command line may call is named there, but is not on the path of one command.
        called = set(COMMANDS.values()) if name == "scalepilot.cli" else set()
        waiting += set(imported(name, found[name])) - called
    return found


def linux_uses(tree):
    """What only Linux has, by the sight of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and LINUX_FOLDER.search(node.value):
            # A docstring tells, it does not open.
            if not any(character.isspace() for character in node.value):
                yield node.value
        elif isinstance(node, ast.Attribute) and node.attr in LINUX_NAMES:
            yield node.attr


@pytest.fixture(scope="module")
def demo_path():
    return path_of(ENTRY)


def test_the_path_is_that_of_train_evaluate_report(demo_path):
    known = {
        "scalepilot.experiments.run",
        "scalepilot.learn.rllib.ppo",
        "scalepilot.report.html.report",
        "scalepilot_envs.autoscale",
    }
    assert known <= set(demo_path)
    assert not [name for name in demo_path if name.startswith("scalepilot.serve")]
    code = (
        f"import json, sys, {ENTRY}, scalepilot.experiments.run; print(json.dumps([n for n in sys.modules if 'scalepilot' in n]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert set(json.loads(answer.stdout)) <= set(demo_path)


def test_nothing_on_the_path_names_what_only_linux_has(demo_path):
    uses = {(name, use) for name, tree in demo_path.items() for use in linux_uses(tree)}
    assert uses == GUARDED


@pytest.mark.parametrize(
    "code", ["open('/proc/self/status')", "Path('/dev/shm')", "libc.prctl(1, 9)", "psutil.Process().cpu_affinity([0])"]
)
def test_what_only_linux_has_is_found(code):
    assert list(linux_uses(ast.parse(code)))


# The system leaves its mark on nothing but the standard library, of which these modules differ. Nothing else is read, as
# `make check` holds our types to each other: what is then unknown is complained of alike for every system.
DIFFER = re.compile(
    r"^\s*(?:import|from) (?:asyncio|ctypes|fcntl|grp|mmap|multiprocessing|os|pwd|resource|select|shutil|signal|socket|stat|"
    r"subprocess|sys|termios|threading|time|tty)\b",
    re.MULTILINE,
)
TYPES = """
[mypy]
python_version = 3.11
mypy_path = platform:envs
explicit_package_bases = True
ignore_missing_imports = True
follow_imports = skip
"""


@pytest.fixture(scope="module")
def types(tmp_path_factory):
    """Folder of mypy's configuration and its cache."""
    folder = tmp_path_factory.mktemp("types")
    (folder / "mypy.ini").write_text(TYPES, encoding="utf-8")
    return folder


def typed_for(platform, types, *arguments):
    command = [sys.executable, "-m", "mypy", "--platform", platform, "--config-file", str(types / "mypy.ini")]
    command += ["--cache-dir", str(types / "cache"), *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_packages_type_check_for_macos(types):
    files = [str(path) for root in ROOTS for path in root.rglob("*.py") if DIFFER.search(path.read_text(encoding="utf-8"))]
    assert len(files) > 80
    on_linux, on_macos = (typed_for(system, types, *files).stdout.splitlines() for system in ("linux", "darwin"))
    assert f"(checked {len(files)} source files)" in on_macos[-1]
    assert [line for line in on_macos if line not in on_linux] == []


@pytest.mark.slow
def test_the_type_checker_knows_what_macos_lacks(types, tmp_path):
    lines = {
        "affinity": "import os; cores = len(os.sched_getaffinity(0))",
        "epoll": "import select; poll = select.epoll()",
        "asked": "import os; cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1",
    }
    for name, line in lines.items():
        (tmp_path / f"{name}.py").write_text(line + "\n", encoding="utf-8")
    files = [str(tmp_path / f"{name}.py") for name in lines]
    assert typed_for("linux", types, *files).returncode == 0
    found = typed_for("darwin", types, *files).stdout
    assert [name for name in lines if f"{name}.py" in found] == ["affinity", "epoll"], found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_with_spawned_processes_and_without_what_macos_lacks(tmp_path):
    settings = [f"--set={setting}" for setting in (*SMALL, f"output={tmp_path / 'runs'}")]
    code = f"""
import importlib, json, multiprocessing, os, sys

multiprocessing.set_start_method("spawn")

def refuse():
    raise OSError("fork: this is not done on macOS")

os.fork = refuse
for module, names in {ONLY_LINUX!r}.items():
    # Some came with later Pythons.
    for name in set(names.split()) & set(dir(importlib.import_module(module))):
        delattr(importlib.import_module(module), name)

from scalepilot.cli import main

import scalepilot.experiments.run

assert not hasattr(os, "sched_getaffinity")
# As little as this is would be judged without other processes.
scalepilot.experiments.run._WORTH_PROCESSES = 0
sys.exit(main(["train", "tune_configs/demo.yaml", "--json", *{settings!r}]))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(root) for root in ROOTS)}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=environment, capture_output=True, text=True, timeout=800, check=False
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    (run,) = (tmp_path / "runs" / "demo").iterdir()
    assert (run / "report.html").is_file()
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "finished"
