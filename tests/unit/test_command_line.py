"""Wrong arguments × commands, and streams that take nothing: one line and exit code 2, or it works."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scalepilot.cli import main
from scalepilot.cli.streams import unexpected
from scalepilot.config import load_config
from scalepilot.errors import ConfigError

CARTPOLE = "name: c\nalgorithm: ppo\nenv: {id: CartPole-v1}\nppo: {envs_per_input: 1}\n"
GRID = "name: g\nalgorithm: q_learning\nenv: {id: GridWorld-v0}\n"
SHOP = "name: s\nworkload: {kind: diurnal, days: 3}\n"
SWEEP = "name: s\nexperiment: grid.yaml\nspace: {tabular.alpha: [0.1, 0.2]}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in (("cartpole", CARTPOLE), ("grid", GRID), ("shop", SHOP), ("sweep", SWEEP)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "trace.csv").write_text("timestamp,requests_per_second\n2026-01-01T00:00:00Z,1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(line: str) -> tuple[int, str]:
    """Exit code and standard error of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line.split())
        except SystemExit as error:
            code = int(error.code or 0)
    return code, err.getvalue()


# Command line → what its one line says.
UNUSED = {
    "train cartpole.yaml --workload nope.csv": "--workload nope.csv: is not used on CartPole-v1",
    "train shop.yaml --peak-rps 5": "--peak-rps: is not used without a trace as --workload",
    "train shop.yaml --workload trace.csv --set workload.days=3": "--set workload.days: is not used with --workload",
    "train --resume . --peak-rps 5": "--peak-rps: is not used with --resume",
    "train --resume . --address auto": "--address: is not used with --resume",
    "train --schema cartpole.yaml": "CONFIG: is not used with --schema",
    "train --schema --set seed=1": "--set: is not used with --schema",
    "train cartpole.yaml --set dqn.lr=1e-4": "--set dqn: is not used by algorithm ppo",
    "train cartpole.yaml --set tabular.alpha=0.1": "--set tabular: is not used by algorithm ppo",
    "train cartpole.yaml --set workload.kind=spike": "--set workload: is not used on CartPole-v1",
    "train cartpole.yaml --set evaluation.window_steps=30": "--set evaluation.window_steps: is not used on CartPole-v1",
    "train cartpole.yaml --set evaluation.test_seeds=[1]": "--set evaluation.test_seeds: is not used on CartPole-v1",
    "train cartpole.yaml --set ppo.cnn=small": "--set ppo.cnn: is not used on CartPole-v1, which shows no images",
    "train grid.yaml --set resources.num_env_runners=2": "--set resources.num_env_runners: is not used by algorithm q_learning",
    "train grid.yaml --set resources.dashboard=true": "--set resources.dashboard: is not used by algorithm q_learning",
    "train grid.yaml --set tabular.trace_decay=0.5": "--set tabular.trace_decay: is not used by algorithm q_learning",
    "train shop.yaml --set evaluation.test_episodes=9": "--set evaluation.test_episodes: is not used on Autoscale-v0",
    "train shop.yaml --set env.randomisation.surge_factor=[2,3]": "surge_factor: is not used with surges_per_hour: 0.0",
    "train shop.yaml --set env.randomisation.peak_share=0.7": "peak_share: is not used with peak_rps: null",
    "tune --schema sweep.yaml": "SWEEP: is not used with --schema",
    "tune sweep.yaml --set seed=3": "--set seed: is not used; the sweep has its own seeds",
    "tune sweep.yaml --set output=x": "--set output: is not used; the sweep has its own output",
    "study cartpole.yaml --set seed=3": "--set seed: is not used here; allowed: --seeds",
    "compare kpa --peak-rps 5": "--peak-rps: is not used without --workload",
    "compare hpa --peak-rps 5": "--peak-rps: is not used without --workload",
    "compare --plot-only x --seeds 3": "--seeds: is not used with --plot-only",
    "compare --plot-only x --out y": "--out: is not used with --plot-only",
    "compare --plot-only x --no-optimum": "--no-optimum: is not used with --plot-only",
    "compare hpa --address auto --jobs 2": "--jobs: is not used with --address",
    "demo hpa --no-render --delay 1": "--delay: is not used with --no-render",
    "demo random --env GridWorld-v0 --peak-rps 5": "--peak-rps: is not used on scalepilot/GridWorld-v0",
    "demo random --env GridWorld-v0 --workload spike": "--workload spike",
    "submit --attach x --set a=b --address http://127.0.0.1:9": "--set: is not used with --attach",
    "submit --attach x --no-wait --address http://127.0.0.1:9": "--no-wait: is not used with --attach",
    "submit grid.yaml --no-wait --out x --address http://127.0.0.1:9": "--out: is not used with --no-wait",
    "serve status --watch x": "--watch: is not used with `status`",
    "serve status --replicas 2": "--replicas: is not used with `status`",
    "serve x --url http://127.0.0.1:9": "--url: is not used here",
    "serve --watch x --rollback y --port 1": "--port: is not used with --rollback",
    "serve x --address 127.0.0.1:9 --ingress haproxy": "--ingress: is not used with --address",
    "workload show spike --gaps linear": "--gaps: is not used with spike",
    "workload show shop.yaml --interval-seconds 60": "--interval-seconds: is not used with shop.yaml",
    "env list --json --markdown": "--markdown: is not used with --json",
}
OUT_OF_BOUNDS = {
    "train cartpole.yaml --set ppo.num_envs=999999999999": "ppo.num_envs: 999999999999 is not allowed; allowed: from 1 to 65536",
    "train cartpole.yaml --set ppo.num_envs=" + "9" * 500: "ppo.num_envs: a whole number of 1661 bits is not allowed",
    "train cartpole.yaml --set ppo.rollout_steps=999999999": "ppo.rollout_steps: 999999999 is not allowed",
    "train cartpole.yaml --set ppo.num_envs=65536 --set ppo.rollout_steps=9999": "transitions an iteration",
    "train cartpole.yaml --set seed=1e400": "seed: inf is not allowed",
    "train cartpole.yaml --set seed=2026-01-01": "seed: '2026-01-01' is not allowed",
    "train cartpole.yaml --set ppo.lr=.nan": "ppo.lr: nan is not allowed",
    "train cartpole.yaml --set resources.num_env_runners=9999": "more processes than one machine runs",
    "train shop.yaml --set env.randomisation.surges_per_hour=1e11": "surges_per_hour: 100000000000.0 is not allowed",
    "train shop.yaml --set env.randomisation.startup_scale=[1,1e11]": "startup_scale",
    "train shop.yaml --set workload.peak_rps=1e308": "workload.peak_rps: 1e+308 is not allowed; allowed: up to 1e+12",
    "train shop.yaml --workload trace.csv --peak-rps nan": "--peak-rps: nan is not allowed",
    "train shop.yaml --workload trace.csv --peak-rps 1e400": "--peak-rps: inf is not allowed",
    "compare --evaluations 999999999999": "--evaluations: 999999999999 is not allowed; allowed: whole numbers from 2 to 1000000",
    "compare kpa --arrival-seeds 99999": "--arrival-seeds: 99999 is not allowed; allowed: whole numbers from 1 to 10000",
    "compare kpa --episodes 0": "--episodes: 0 is not allowed; allowed: whole numbers from 1 to 100000",
    "compare --evaluations -1": "--evaluations: -1 is not allowed",
    "compare hpa --seeds 999999999": "--seeds: 999999999 is not allowed",
    "compare hpa --steps 999999999999": "--steps: 999999999999 is not allowed",
    "compare hpa --jobs 999999999": "--jobs: 999999999 is not allowed; allowed: whole numbers from 1 to 1000",
    "compare hpa --windows 1.5": "--windows: '1.5' is not allowed",
    "compare hpa --seeds 1e400": "argument --seeds: invalid int value: '1e400'",
    "demo hpa --steps 999999999999": "--steps: 999999999999 is not allowed",
    "demo hpa --seed -1": "--seed: -1 is not allowed",
    "demo hpa --peak-rps inf": "--peak-rps: inf is not allowed",
    "demo hpa --delay nan": "--delay: nan is not allowed",
    "study cartpole.yaml --seeds 99999999999": "--seeds: [99999999999] is not allowed",
    "study cartpole.yaml --seeds 1 1": "--seeds: [1, 1] is not allowed",
    "study nowhere.yaml --jobs 99999": "--jobs: 99999 is not allowed",
    "tune sweep.yaml --jobs 99999": "--jobs: 99999 is not allowed",
}
WRONG = {
    "train": "give either CONFIG or --resume RUN",
    "train /dev/null": "/dev/null: cannot be read (is a device)",
    "train nowhere.yaml": "nowhere.yaml: cannot be read",
    "train cartpole.yaml --resume .": "give either CONFIG or --resume RUN",
    "train --resume .": "holds no config.yaml",
    "train --resume nowhere": "holds no config.yaml",
    "train cartpole.yaml --set": "expected one argument",
    "train cartpole.yaml --set =1": "allowed: key=value",
    "train cartpole.yaml --set ppo.lr": "allowed: key=value",
    "train cartpole.yaml --set ppo.lr.x=1": "ppo",
    "train cartpole.yaml --set ..=1": "unknown key",
    "train cartpole.yaml --set ppo..lr=1": "unknown key",
    "train cartpole.yaml --set .ppo=1": "unknown key",
    "train cartpole.yaml --set ppo=3": "ppo",
    "train cartpole.yaml --set ppo.lr=!!python/name:os": "tags (!name) are not allowed",
    "train cartpole.yaml --set ppo.lr=[[[[[[[[[[[[[[[[[[[[[[[[[[": "nested more than 20 deep",
    "train cartpole.yaml --set env.id=Nothing-v0": "Nothing-v0",
    "train cartpole.yaml --address 127.0.0.1:9": "resources.address: '127.0.0.1:9' cannot be reached",
    "train cartpole.yaml --address ray://127.0.0.1:9": "cannot be reached",
    "train cartpole.yaml --address nonsense": "resources.address: 'nonsense' is not allowed",
    "compare hpa --address ray://127.0.0.1:9": "cannot be reached",
    "tune sweep.yaml --address 127.0.0.1:9": "cannot be reached",
    "submit grid.yaml --address http://127.0.0.1:9": "no cluster's dashboard answers",
    "submit grid.yaml --address ftp://x": "allowed: the dashboard's",
    "runs nowhere": "nowhere: is not a directory",
    "runs cartpole.yaml": "cartpole.yaml: is not a directory",
    "report nowhere": "holds neither config.yaml nor summary.json",
    "report --plots nowhere": "holds no config.yaml",
    "verify nowhere": "no such folder",
    "verify .": "is neither a run nor a policy folder",
    "compare nowhere": "no such folder",
    "compare --plot-only nowhere": "summary.json: cannot be read",
    "demo nowhere": "is neither a folder nor a rule",
    "policy list nowhere": "is not a directory",
    "policy show nowhere": "no such folder",
    "policy export nowhere x": "no such folder",
    "policy": "the following arguments are required",
    "study nowhere.yaml": "cannot be read",
    "study sweep.yaml": "tasks: is missing",
    "tune grid.yaml": "space: is missing",
    "study grid.yaml": "is not allowed in a cross-check",
    "workload show nowhere.csv": "nowhere.csv",
    "workload show nothing": "is neither a file nor a kind",
    "serve": "policies: none given",
    "serve nowhere": "no such folder",
    "serve x --port 99999": "is not allowed",
    "env show Nothing-v0": "Nothing-v0",
    "nonsense": "invalid choice: 'nonsense'",
    "tain cartpole.yaml": "did you mean train?",
    "train --nonsense": "unrecognized arguments: --nonsense",
}


@pytest.mark.parametrize("table", [UNUSED, OUT_OF_BOUNDS, WRONG])
def test_a_wrong_command_line_is_one_line_with_the_option_and_exit_code_2(folder, table):
    problems = []
    for line, says in table.items():
        began = time.process_time()
        code, err = ended(line)
        seconds = time.process_time() - began
        if code != 2 or err.count("\n") != 1 or says not in err or "Traceback" in err or seconds > 5:
            problems.append(f"{line[:80]}: {code}, {seconds:.1f} s: {err[:300]}")
    assert problems == []
    assert not (folder / "runs").exists()


def test_what_a_file_holds_and_does_not_use_is_refused_and_a_stored_configuration_is_not(folder):
    (folder / "x.yaml").write_text(CARTPOLE + "dqn: {lr: 1.0e-4}\n")
    with pytest.raises(ConfigError, match=r"x.yaml: dqn: is not used by algorithm ppo; allowed: ppo"):
        load_config(Path("x.yaml"))
    # Whoever changes the algorithm means both sections.
    assert load_config(Path("x.yaml"), ["algorithm=dqn"]).dqn.lr == 1e-4
    whole = load_config(Path("cartpole.yaml")).to_mapping()
    whole["dqn"]["lr"] = 0.5
    (folder / "stored.yaml").write_text(json.dumps(whole))
    assert load_config(Path("stored.yaml")).dqn.lr == 0.5


def test_arguments_command_no_terminal_and_must_be_text(capsys):
    for arguments in (["report", "a\x1b[31mb\nc"], ["train", "\x1b]0;x\x07.yaml"], ["runs", "a\0b"], ["runs", "\udcff"]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert err[:-1].isprintable()
    with pytest.raises(SystemExit):
        main(["train", "--\x1b[31m"])
    assert "\x1b" not in capsys.readouterr().err


def test_a_listener_that_is_no_cluster_is_told_apart_within_seconds(folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        code, err = ended(f"train cartpole.yaml --address 127.0.0.1:{listener.getsockname()[1]}")
        assert time.monotonic() - began < 60
    assert (code, "what answers is not Ray" in err) == (2, True)


def test_a_bug_is_one_line_and_its_traceback_is_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        raise ZeroDivisionError("of all things")
    except ZeroDivisionError as error:
        said = unexpected(error)
    (file,) = tmp_path.iterdir()
    assert said == f"internal error: ZeroDivisionError: of all things; what led to it: {file}"
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


# What is done to a process → exit code; `env list` prints characters beyond ASCII.
STREAMS = {
    "> /dev/full": 1,
    "2> /dev/full": 0,
    ">&-": 0,
    "2>&-": 0,
    "<&- >&- 2>&-": 0,
    "| head -1": 0,
}
ENVIRONMENTS = ({"PYTHONIOENCODING": "ascii"}, {"HOME": "/proc", "TMPDIR": "/nonexistent"}, {"COLUMNS": "40", "LC_ALL": "C"})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_streams_that_take_nothing_and_poor_surroundings_are_one_line_or_it_works(tmp_path):
    command = f"{sys.executable} -m scalepilot.cli env list"
    problems = []
    for redirection, wanted in STREAMS.items():
        done = subprocess.run(["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True)
        if done.returncode != wanted or done.stderr.count("\n") > 1 or "Traceback" in done.stderr:
            problems.append((redirection, done.returncode, done.stderr[:300]))
    for changed in ENVIRONMENTS:
        done = subprocess.run([*command.split(), "--json"], capture_output=True, text=True, env={**os.environ, **changed})
        if done.returncode or done.stderr or ("·" in done.stdout and "PYTHONIOENCODING" in changed):
            problems.append((changed, done.returncode, done.stderr[:300]))
        # Whatever the encoding, JSON says the same.
        json.loads(done.stdout)
    assert problems == []
