"""`scalepilot submit` in small: a job on a Ray of one node here, where tests/integration/test_jobs.py has no nodes elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from benchmarks.nodes import ray_nodes
from benchmarks.ports import free_port
from ray.job_submission import JobSubmissionClient
from tests.commands import said
from tests.namespaces import allowed

from scalepilot.policy import load_policy
from scalepilot.runs.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]
# Without RLlib, which a job that trains on Ray imports: what is looked at is the way there and back.
CONFIG = """
name: away
algorithm: q_learning
env: {id: GridWorld-v0}
tabular: {num_envs: 8, total_env_steps: 2000}
evaluation: {validate_every_share: 0.5, validation_episodes: 2, test_episodes: 2, bootstrap_samples: 20, videos: 0}
"""


def wait_for_agent(address: str) -> None:
    """Wait until the node takes jobs: a while after it has started."""
    client, deadline = JobSubmissionClient(address), time.monotonic() + 120
    while True:
        try:
            client.submit_job(entrypoint="true")
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_a_job_trains_elsewhere_and_its_run_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], cli_env: dict[str, str]
):
    if allowed():
        pytest.skip("tests/integration/test_jobs.py does this, and more, on two nodes elsewhere")
    (tmp_path / "config.yaml").write_text(CONFIG)
    port = free_port()
    # A job's `python` is the first on the node's path.
    with ray_nodes([1], [{"PATH": cli_env["PATH"]}], dashboard_port=port):
        address = f"http://127.0.0.1:{port}"
        wait_for_agent(address)
        printed = said(capfd, "submit", tmp_path / "config.yaml", "--address", address, "--out", tmp_path / "runs")
    run = Path(next(line for line in printed.splitlines() if line.startswith("run:")).split()[-1])
    assert run.parent.parent == tmp_path / "runs"
    folder, config = RunFolder.open(run)
    assert folder.read_status()["status"] == "finished"
    assert config.name == "away"
    assert load_policy(folder.policy).spec.kind == "table"
    assert folder.report.is_file()
