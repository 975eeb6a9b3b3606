"""What `scalepilot submit` sends: every recorded workload under its own name, and the modules of environments."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import scalepilot.cluster.jobs
from scalepilot.cli import main
from scalepilot.cluster.jobs import JobRequest, missing_traces, working_dir
from scalepilot.errors import InputError
from scalepilot.files import ownership
from scalepilot.files.ownership import check_module

HEADER = "timestamp,requests_per_second\n"
MODULE = """
import gymnasium as gym, numpy as np
import {helper}
class Coin(gym.Env):
    observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {{}}
    def step(self, action):
        return 0, 0.0, True, False, {{}}
gym.register("{env_id}", entry_point=Coin)
"""


class Sent:
    """In place of a cluster: keeps what would have been sent."""

    files: dict[str, bytes]
    request: JobRequest

    def __init__(self, address: str) -> None:
        self.address = address

    def submit(self, request: JobRequest) -> str:
        with working_dir(request) as folder:
            Sent.files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        Sent.request = request
        return "job-1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with nothing in it; submits go to `Sent`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(scalepilot.cluster.jobs, "Jobs", Sent)
    return tmp_path


def submitted(config: dict[str, Any], *more: str) -> dict[str, Any]:
    """What arrives there as config.yaml."""
    Path("given.yaml").write_text(yaml.safe_dump(config))
    assert main(["submit", "given.yaml", "--address", "http://nowhere:1", "--no-wait", *more]) == 0
    sent: dict[str, Any] = yaml.safe_load(Sent.files["config.yaml"])
    return sent


def test_a_trace_keeps_its_name_and_bytes_whatever_it_is_called(here: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("mine.csv", "mine.parquet", "mine.csv.gz", "prometheus.json", "access.log", "no-suffix", "Mai 2026 (ä).csv"):
        (here / name).write_bytes(name.encode())
        sent = submitted({"workload": {"kind": "trace", "path": str(here / name)}})
        assert sent["workload"]["path"] == f"traces/{name}"
        assert Sent.files == {"config.yaml": Sent.files["config.yaml"], f"traces/{name}": name.encode()}
    assert capsys.readouterr().err.count("note:") == 0
    sent = submitted({"workload": {"kind": "trace", "path": "/mnt/there.csv"}})
    assert sent["workload"]["path"] == "/mnt/there.csv"
    assert [*Sent.files] == ["config.yaml"]
    assert "note: workload.path: /mnt/there.csv is not here; every node of the cluster must have it" in capsys.readouterr().err


def test_a_sweep_brings_every_input(here: Path):
    for name in ("a", "b"):
        (here / name).mkdir()
        (here / name / "week.csv").write_text(HEADER + name)
    (here / "base.csv.gz").write_bytes(b"base")
    (here / "base.yaml").write_text("algorithm: ppo\nworkload: {kind: trace, path: base.csv.gz}\n")
    sweep = {"experiment": "base.yaml", "name": "s", "space": {"workload.path": ["a/week.csv", "b/week.csv", "base.csv.gz"]}}
    sent = submitted(sweep)
    assert Sent.request.command == "tune"
    assert sent["experiment"]["algorithm"] == "ppo"
    assert sent["experiment"]["workload"]["path"] in Sent.files
    paths = sent["space"]["workload.path"]
    assert [Path(path).name for path in paths] == ["week.csv", "week.csv", "base.csv.gz"]
    assert [Sent.files[path] for path in paths] == [(HEADER + "a").encode(), (HEADER + "b").encode(), b"base"]
    whole = [{"kind": "trace", "path": "a/week.csv"}, {"kind": "diurnal"}]
    sent = submitted(sweep | {"space": {"workload": whole}})
    assert Sent.files[sent["space"]["workload"][0]["path"]] == (HEADER + "a").encode()
    assert sent["space"]["workload"][1] == {"kind": "diurnal"}


def test_modules_and_what_they_import_from_their_folder_travel(here: Path, monkeypatch: pytest.MonkeyPatch):
    mine = here / "src"
    (mine / "job_pack" / "deep").mkdir(parents=True)
    (mine / "job_pack" / "__pycache__").mkdir()
    (mine / "job_pack" / "__pycache__" / "x.pyc").write_bytes(b"")
    (mine / "job_pack" / ".gitignore").write_text("*.json")
    (mine / "job_pack" / "deep" / "table.json").write_text("{}")
    (mine / "job_pack" / "__init__.py").write_text(MODULE.format(helper="job_helper", env_id="JobPack-v0"))
    (mine / "job_helper.py").write_text("import json, numpy")
    (mine / "job_unused.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(str(mine))
    config = {"algorithm": "q_learning", "env": {"id": "job_pack:JobPack-v0"}}
    assert submitted(config)["env"]["id"] == "job_pack:JobPack-v0"
    assert sorted(Sent.files) == ["config.yaml", "job_helper.py", "job_pack/__init__.py", "job_pack/deep/table.json"]
    # Found by a variable here: there by its name, which needs no variable.
    other = here / "other"
    other.mkdir()
    monkeypatch.syspath_prepend(str(other))
    (other / "job_single.py").write_text(MODULE.format(helper="json", env_id="JobSingle-v0"))
    monkeypatch.setenv("SCALEPILOT_ENV_MODULES", "job_single")
    assert submitted({"algorithm": "q_learning", "env": {"id": "JobSingle-v0"}})["env"]["id"] == "job_single:JobSingle-v0"
    assert sorted(Sent.files) == ["config.yaml", "job_single.py"]
    sweep = {"experiment": {"algorithm": "q_learning", "env": {"id": "JobSingle-v0"}}, "space": {"tabular.gamma": [0.9, 0.99]}}
    assert submitted(sweep)["experiment"]["env"]["id"] == "job_single:JobSingle-v0"
    assert sorted(Sent.files) == ["config.yaml", "job_single.py"]
    # What is installed beside Python is the image's, or --pip's.
    submitted({"algorithm": "q_learning", "env": {"id": "gymnasium.envs.toy_text:FrozenLake-v1"}})
    assert sorted(Sent.files) == ["config.yaml"]
    # In the current folder, as for `train`.
    (here / "job_here.py").write_text(MODULE.format(helper="json", env_id="JobHere-v0"))
    submitted({"algorithm": "q_learning", "env": {"id": "job_here:JobHere-v0"}})
    assert sorted(Sent.files) == ["config.yaml", "job_here.py"]


def test_what_came_with_the_job_is_as_safe_as_our_own_code(here: Path, monkeypatch: pytest.MonkeyPatch):
    session = here / "session"
    sent = session / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    sent.mkdir(parents=True)
    (sent / "job_sent.py").write_text("")
    session.chmod(0o777)
    monkeypatch.syspath_prepend(str(sent))
    with pytest.raises(InputError, match=r"env: job_sent: .*others may write there"):
        check_module("job_sent", "env")
    monkeypatch.setattr(ownership, "_OWN_CODE", str(here / "elsewhere" / "runtime_resources" / "x" / "scalepilot" / "a.py"))
    with pytest.raises(InputError, match=r"env: job_sent: .*others may write there"):
        check_module("job_sent", "env")
    ours = session / "runtime_resources" / "py_modules_files" / "_ray_pkg_2" / "scalepilot" / "files" / "ownership.py"
    monkeypatch.setattr(ownership, "_OWN_CODE", str(ours))
    check_module("job_sent", "env")


def test_a_wrapper_of_a_users_own_travels(here: Path):
    (here / "job_wrap.py").write_text("import gymnasium as gym\nclass Same(gym.Wrapper):\n    pass\n")
    submitted({"algorithm": "dqn", "env": {"id": "CartPole-v1", "wrappers": ["job_wrap:Same"]}})
    assert sorted(Sent.files) == ["config.yaml", "job_wrap.py"]


def test_traces_are_looked_for_in_sections_alone():
    assert missing_traces({"name": "/none/a.csv", "output": "/none", "workload": {"kind": "spike", "path": "/none/b"}}) == []
    assert missing_traces({"space": {"workload.path": ["/none/c"]}, "x": [{"kind": "trace", "path": "/none/d"}]}) == [
        "/none/c",
        "/none/d",
    ]


@pytest.fixture
def dashboard() -> Iterator[tuple[str, list[str | None]]]:
    """A dashboard that asks for the token `secret`, and what it was told."""
    told: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            told.append(given)
            allowed = given == "Bearer secret"
            body = json.dumps({"version": "4", "ray_version": "2", "ray_commit": "x"}).encode() if allowed else b"Unauthorized"
            self.send_response(200 if allowed else 401 if given is None else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    thread.join()
    server.server_close()


TOKENS = """
import os, sys
from pathlib import Path
from scalepilot.errors import InputError
from scalepilot.cluster.jobs import Jobs

address, home = sys.argv[1:]
os.environ["HOME"] = home
for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
    os.environ.pop(name, None)
import ray
try:
    Jobs(address)
except InputError as error:
    print("none:", error)
token = Path(home, ".ray", "auth_token")
token.parent.mkdir()
token.write_text("secret")
token.chmod(0o666)
try:
    Jobs(address)
except InputError as error:
    print("open:", error)
token.chmod(0o600)
Jobs(address)
print("mode:", os.environ["RAY_AUTH_MODE"])
"""


def test_the_token_that_ray_made_is_sent_without_a_variable(dashboard: tuple[str, list[str | None]], tmp_path: Path):
    address, told = dashboard
    given = [sys.executable, "-c", TOKENS, address, str(tmp_path)]
    done = subprocess.run(given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    none, others, mode = done.stdout.splitlines()
    assert none.startswith(f"none: --address: {address}: the token is missing or wrong; allowed: RAY_AUTH_MODE=token with")
    assert "RAY_AUTH_TOKEN_PATH" in none
    assert others.startswith("open: Ray's token: ")
    assert "others may write there" in others
    assert mode == "mode: token"
    assert told[-1] == "Bearer secret"
