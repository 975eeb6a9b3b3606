"""Training's metrics with a real Ray and Prometheus: every expression of the dashboard and the alerts, and their causes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.ports import free_port
from tests.real_prometheus import HOST, Prometheus, binary, check_rules, running
from tests.serving_dashboard import Query, alert_queries, alerts, annotation_queries, panel_queries, without_threshold
from tests.training_dashboard import DASHBOARD, GPU_SERIES, KUBERNETES_SCRAPE, RULES, SCRAPE

from scalepilot.config import config_from_mapping
from scalepilot.experiments.training import make_callbacks
from scalepilot.learn.task import Task
from scalepilot.runs.folder import RunFolder

# Ray tells its nodes about metrics this often, and a value lives for two of these.
REPORT_MILLISECONDS = 1000
# A Ray of its own with a metrics port, and a run that goes on until standard input is closed.
TRAINING = """
import sys, threading, time
import ray
from scalepilot.learn.rllib.prometheus import RayMetrics
from tests.training_dashboard import full_row

port, folder, report = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False, _temp_dir=folder,
         _metrics_export_port=port, _system_config={"metrics_report_interval_ms": report})
metrics = RayMetrics("20261120-120000-0", "demo", "ppo")
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
metrics.on_begin(0)
print("begun", flush=True)
iteration = 0
while not over.wait(0.2):
    iteration += 1
    metrics.on_iteration(full_row(iteration), None)
metrics.on_end(True)
ray.shutdown()
"""


@pytest.fixture
def port(repo: Path, ray_tmpdir: Path) -> Iterator[int]:
    """Where the metrics of a training on Ray are exported."""
    port = free_port()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repo), str(repo / "platform"), str(repo / "envs")])}
    command = [sys.executable, "-c", TRAINING, str(port), str(ray_tmpdir / "m"), str(REPORT_MILLISECONDS)]
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        yield port
    finally:
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture
def prometheus(repo: Path, tmp_path: Path, port: int) -> Iterator[Prometheus]:
    # The example as it is, but for the list of nodes, which Ray's head writes for a dashboard only.
    nodes = tmp_path / "nodes.json"
    nodes.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": [f"{HOST}:{port}"]}]))
    config = yaml.safe_load((repo / SCRAPE).read_text(encoding="utf-8"))
    config["rule_files"] = [str(repo / RULES)]
    (job,) = config["scrape_configs"]
    job["file_sd_configs"][0]["files"] = [str(nodes)]
    variables = {"run": ".+", "experiment": ".+", "algorithm": "ppo", "__rate_interval": "8s", "datasource": "prometheus"}
    with running(config, tmp_path, variables) as asked:
        yield asked


@pytest.mark.slow
def test_every_expression_has_data_on_a_real_prometheus(repo: Path, prometheus: Prometheus) -> None:
    prometheus.check(Query("the target", 'up{job="scalepilot-ray"} == 1'))
    prometheus.check(Query("the first counts", "ray_scalepilot_train_env_steps > 0"))
    queries = panel_queries(repo, DASHBOARD) + annotation_queries(repo, DASHBOARD)
    queries += [without_threshold(query) for query in alert_queries(repo, RULES)]
    asked = [query for query in queries if not query.metrics & GPU_SERIES]
    assert len(queries) - len(asked) == 2, "two panels need a GPU's own series"
    for query in asked:
        # No alert fires here, so that annotation has nothing to show.
        if not query.expr.startswith("ALERTS"):
            prometheus.check(query)
    for query in queries:
        prometheus.numbers(query)
    check_values(prometheus)
    query = panel_queries(repo, DASHBOARD)[0]
    with pytest.raises(AssertionError, match="no data"):
        prometheus.check(Query(query.where, query.expr.replace("_train_running", "_train_runing")), wait_seconds=1)


def check_values(prometheus: Prometheus) -> None:
    """Numbers, in base units, that the rows make certain."""

    def latest(name: str) -> float:
        labels = '{run="20261120-120000-0", experiment="demo", algorithm="ppo"}'
        return prometheus.check(Query(name, f"ray_scalepilot_train_{name}{labels}"))[-1]

    assert latest("running") == 1
    assert latest("memory_bytes") == 500_000
    assert latest("cpu_ratio") == 0.005
    assert latest("kl") == 0.5
    # One a row, so that no scrape can miss any.
    restarts, iterations = latest("env_runner_restarts"), latest("iteration")
    assert abs(restarts - iterations) <= 10
    assert latest("env_steps") % 4096 == 0


@pytest.mark.parametrize(("algorithm", "shown"), [("ppo", True), ("dqn", True), ("sb3_ppo", False)])
def test_runs_on_ray_are_shown_and_others_are_not(tmp_path: Path, algorithm: str, shown: bool) -> None:
    values: dict[str, Any] = {"algorithm": algorithm, "output": str(tmp_path), "env": {"id": "CartPole-v1"}}
    config = config_from_mapping(values)
    folder = RunFolder.create(config)
    names = {type(callback).__name__ for callback in make_callbacks(config, folder, Task(config))}
    assert ("RayMetrics" in names) is shown


def test_showing_a_row_costs_less_than_a_hundredth_of_an_iteration(ray_session: None) -> None:
    from tests.training_dashboard import full_row

    from scalepilot.learn.rllib.prometheus import RayMetrics

    metrics = RayMetrics("run", "demo", "ppo")
    metrics.on_begin(0)
    metrics.on_iteration(full_row(1), lambda: pytest.fail("no policy is asked for"))
    spent = []
    for iteration in range(2, 52):
        row, began = full_row(iteration), time.thread_time()
        metrics.on_iteration(row, lambda: pytest.fail("no policy is asked for"))
        spent.append(time.thread_time() - began)
    # The shortest iterations, of 4,096 steps of CartPole, take some 130 ms; this thread's own time, as others may be busy.
    assert sorted(spent)[len(spent) // 2] < 0.0013


RUN = "run='a',experiment='demo',algorithm='ppo'"
STEPS, RUNNING = f"ray_scalepilot_train_env_steps{{{RUN}}}", f"ray_scalepilot_train_running{{{RUN}}}"
FAULT = "ray_scalepilot_train_%s{" + RUN + "}"
KL = FAULT % "kl"
NODE = "{job='scalepilot-ray',instance='n'}"
# An hour in which nothing is wrong, a sample a minute.
GOOD_HOUR = {
    RUNNING: "1x60",
    STEPS: "0+100000x60",
    FAULT % "learner_restarts": "0x60",
    FAULT % "env_runner_restarts": "0x60",
    FAULT % "lost_rollouts": "0x60",
    FAULT % "env_failures": "0x60",
    KL: "0.02x60",
    f"up{NODE}": "1x60",
    f"ray_node_mem_used{NODE}": "4x60",
    f"ray_node_mem_total{NODE}": "10x60",
    f"ray_node_disk_utilization_percentage{NODE}": "40x60",
}
CAUSES: list[tuple[str, dict[str, str], set[str]]] = [
    ("nothing", {}, set()),
    ("an environment hangs", {STEPS: "100000x60"}, {"ScalepilotTrainingStalled"}),
    ("a run is evaluated", {STEPS: "100000x60", RUNNING: "1x5 0x55"}, set()),
    ("a learner dies", {FAULT % "learner_restarts": "0x30 1x30"}, {"ScalepilotTrainingLearnerRestarts"}),
    ("one env runner dies", {FAULT % "env_runner_restarts": "0x40 1x20"}, set()),
    ("env runners die", {FAULT % "env_runner_restarts": "0x40 0+1x20"}, {"ScalepilotTrainingEnvRunnerRestarts"}),
    ("nodes come and go", {FAULT % "lost_rollouts": "0x30 0+2x30"}, {"ScalepilotTrainingLostRollouts"}),
    ("a fault of a day ago", {FAULT % "learner_restarts": "3x60", FAULT % "env_failures": "7x60"}, set()),
    ("an environment raises", {FAULT % "env_failures": "0x50 1x10"}, {"ScalepilotTrainingEnvironmentFails"}),
    ("too high a learning rate", {KL: "0.5x60"}, {"ScalepilotTrainingDiverges"}),
    ("one large step", {KL: "0.02x50 0.5 0.02x9"}, set()),
    ("a node does not answer", {f"up{NODE}": "1x50 0x10"}, {"ScalepilotRayNodeDown"}),
    ("memory runs out", {f"ray_node_mem_used{NODE}": "9.5x60"}, {"ScalepilotRayMemory"}),
    ("the disk is full", {f"ray_node_disk_utilization_percentage{NODE}": "95x60"}, {"ScalepilotRayDisk"}),
]


@pytest.mark.parametrize(("cause", "series", "fired"), CAUSES, ids=[cause for cause, _, _ in CAUSES])
def test_each_cause_raises_its_alerts_and_no_others(
    repo: Path, tmp_path: Path, cause: str, series: dict[str, str], fired: set[str]
) -> None:
    check_rules(repo / RULES, tmp_path, GOOD_HOUR | series, fired)


def test_promtool_accepts_the_scrape_config_for_kubernetes(repo: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((repo / KUBERNETES_SCRAPE).read_text(encoding="utf-8"))
    config["rule_files"] = [str(repo / "cluster" / "prometheus" / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        # Debian's Prometheus is built without this discovery.
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["scalepilot"]}}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = os.devnull
    path = tmp_path / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    ran = subprocess.run([binary("promtool"), "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_has_a_cause(repo: Path) -> None:
    assert {rule["alert"] for rule in alerts(repo, RULES)} == set().union(*(fired for _, _, fired in CAUSES))
