"""Jobs from a third machine on a cluster of two Ray nodes, in network namespaces of their own, without Scalepilot installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.namespaces import Machine, RayNode, machines, ray_cluster

from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
# Each node's Python: this checkout is not installed there, and what a file names is missing.
AS_IF_NOT_INSTALLED = """
import pathlib, sys

repo = {repo!r}
sys.path[:] = [path for path in sys.path if path not in (repo + "/platform", repo + "/envs")]
sys.modules.update(dict.fromkeys(pathlib.Path({missing!r}).read_text().split()))
"""
CONFIG = """
name: away
env: {{id: CartPole-v1}}
resources: {{num_env_runners: 2}}
ppo: {{total_env_steps: {steps}, num_envs: 16, rollout_steps: 64, minibatch_size: 256, envs_per_input: 1, hidden: [16]}}
evaluation: {{validate_every_share: 0.5, validation_episodes: 4, test_episodes: 4, videos: 0}}
"""
# Without RLlib, whose start costs a job most of its time.
TABULAR = """
name: away
algorithm: q_learning
env: {id: DiscreteStart-v0}
tabular: {total_env_steps: 2048, num_envs: 8, bins: {observation_0: 2, observation_1: 2, observation_2: 2}}
evaluation: {validate_every_share: 0.5, validation_episodes: 4, test_episodes: 4, videos: 0}
"""


@dataclass(frozen=True)
class Away:
    """The cluster, and the machine that jobs come from.

    Attributes:
        client: the third machine.
        address: of the cluster's dashboard.
        nodes: head and worker, a core each: two env runners are on both.
        missing: file of the modules that the nodes lack.
        environment: of the client's processes.
        folder: for the client's files.
    """

    client: Machine
    address: str
    nodes: list[RayNode]
    missing: Path
    environment: dict[str, str]
    folder: Path

    def run(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.client.command([sys.executable, "-m", *command]),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    def with_own_environments(self, repo: Path) -> Away:
        """The same machine with a module of environments that no node has."""
        mine = self.folder / "mine"
        mine.mkdir(exist_ok=True)
        text = (repo / "tests" / "data" / "field_envs.py").read_text()
        (mine / "only_here.py").write_text(text.replace("field_envs:", "only_here:"))
        modules = {"PYTHONPATH": str(mine), "SCALEPILOT_ENV_MODULES": "only_here"}
        return replace(self, environment={**self.environment, **modules})

    def config(self, steps: int) -> Path:
        path = self.folder / f"config-{steps}.yaml"
        path.write_text(CONFIG.format(steps=steps))
        return path


@pytest.fixture(scope="module")
def away(repo: Path) -> Iterator[Away]:
    with machines(3) as (head, worker, client), tempfile.TemporaryDirectory(prefix="sp", dir="/tmp") as temporary:
        folder = Path(temporary)
        missing = folder / "missing"
        missing.write_text("")
        (folder / "sitecustomize.py").write_text(AS_IF_NOT_INSTALLED.format(repo=str(repo), missing=str(missing)))
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        base = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS", "RAY_TMPDIR")}
        base |= {"PATH": path, "PYTHONUNBUFFERED": "1"}
        with ray_cluster([head, worker], [1, 1], folder, base | {"PYTHONPATH": temporary}) as nodes:
            yield Away(client, f"http://{head.address}:8265", nodes, missing, base, folder)


def test_the_clusters_python_has_no_scalepilot(away: Away):
    done = subprocess.run(
        [sys.executable, "-c", "import scalepilot"],
        env=away.environment | {"PYTHONPATH": str(away.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'scalepilot'" in done.stderr


# What env runners import, on every node, without what they cost; then a training that needs none.
FROM_A_CHECKOUT = """
import ray, runpy, sys
from scalepilot.cluster.connection import on_each_node
ray.init()
found = on_each_node(lambda: __import__('scalepilot.learn.rllib.env_runner').__file__, 100)
print(*(answer for _, answer in found), sep='\\n')
ray.shutdown()
sys.argv = ['scalepilot', 'train', 'tune_configs/gridworld-q.yaml', '--set', 'tabular.total_env_steps=2000']
runpy.run_module('scalepilot.cli', run_name='__main__')
"""


def test_ray_job_submit_of_a_checkout_has_it_on_both_nodes_and_trains(away: Away, repo: Path):
    words = ["ray.scripts.scripts", "job", "submit", "--address", away.address, "--working-dir", "."]
    code = FROM_A_CHECKOUT.strip().replace("\n", "; ")
    done = away.run(*words, "--runtime-env", "cluster/runtime-env.yaml", "--", sys.executable, "-c", code, cwd=repo)
    assert done.returncode == 0, done.stdout + done.stderr
    places = [line for line in done.stdout.splitlines() if line.endswith("platform/scalepilot/__init__.py")]
    assert len(places) == 2, done.stdout
    assert not [place for place in places if place.startswith(str(repo))], "each node's copy"
    assert "gridworld" in done.stdout
    assert "succeeded" in done.stdout


def test_submit_brings_the_run_of_an_environment_that_only_this_machine_has(away: Away, repo: Path, tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(TABULAR)
    client = away.with_own_environments(repo)
    done = client.run("scalepilot.cli", "submit", str(path), "--address", away.address, "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    run = Path(next(line for line in done.stdout.splitlines() if line.startswith("run:")).split()[-1])
    assert run.parent.parent == tmp_path / "runs"
    assert RunFolder(run).read_status()["status"] == "finished"
    assert RunFolder(run).report.is_file()
    assert not RunFolder(run).checkpoints.exists()
    spec = load_policy(run).spec
    assert spec.name == "away-q_learning"
    assert spec.env_id == "only_here:DiscreteStart-v0"
    assert [action.value for action in spec.actions] == [-1, 0, 1]


@pytest.fixture
def lacking(away: Away) -> Iterator[Callable[[str], None]]:
    yield lambda name: away.missing.write_text(name) and None
    away.missing.write_text("")


def test_a_dependency_that_the_cluster_lacks_is_one_clear_line_within_a_minute(away: Away, lacking: Callable[[str], None]):
    lacking("onnxruntime")
    began = time.monotonic()
    done = away.run("scalepilot.cli", "submit", str(away.config(2048)), "--address", away.address)
    assert time.monotonic() - began < 60
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if "onnxruntime" in line]
    assert len(said) == 1, done.stdout + done.stderr
    assert "cannot import scalepilot (No module named 'onnxruntime'); install" in said[0]
    assert "Traceback" not in done.stdout


def test_a_wrong_token_and_a_wrong_address_are_a_line(away: Away):
    wrong = replace(away, environment={**away.environment, "RAY_AUTH_TOKEN": "wrong-0123456789abcdef01"})
    done = wrong.run("scalepilot.cli", "submit", str(away.config(2048)), "--address", away.address)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"scalepilot submit: --address: {away.address}: the token is missing or wrong")
    done = away.run("scalepilot.cli", "submit", str(away.config(2048)), "--address", f"http://{away.client.address}:8265")
    assert done.returncode == 2, done.stderr
    assert "--address" in done.stderr.splitlines()[-1]


def test_a_node_that_is_lost_in_training_does_not_end_it_and_a_storage_takes_the_run(away: Away, repo: Path, tmp_path: Path):
    # On an environment that only this machine has, too: both nodes' runners get it.
    path = away.config(24_000)
    path.write_text(path.read_text().replace("CartPole-v1", "DiscreteStart-v0"))
    words = ["submit", str(path), "--address", away.address, "--storage", f"file://{tmp_path}/kept"]
    others = set(metrics_on_the_head(away))
    job = subprocess.Popen(
        away.client.command([sys.executable, "-m", "scalepilot.cli", *words]),
        env=away.with_own_environments(repo).environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 150
    while not any(file.read_text().count("\n") > 3 for file in set(metrics_on_the_head(away)) - others):
        assert time.monotonic() < deadline
        assert job.poll() is None, job.communicate()
        time.sleep(0.2)
    away.nodes[1].kill()
    said, _ = job.communicate(timeout=200)
    assert job.returncode == 0, said
    (run,) = (tmp_path / "kept" / "away").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert load_policy(run / "policy").spec.kind == "network"
    rows = RunFolder(run).read_metrics()
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["env_steps"] >= 24_000
    assert "it is restarted" in (run / "logs" / "training.log").read_text()


def metrics_on_the_head(away: Away) -> list[Path]:
    """progress.csv of every job's run, where Ray unpacked the job."""
    return [*(away.folder / "0").rglob("progress.csv")]
