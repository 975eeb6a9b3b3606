"""Training on live deployments with real parts, as people start it: `scalepilot train`.

`python -m tests.live_training cluster ALGORITHM [STEPS] [INTERVAL]`: ClusterDeployment-v0's service behind a real Prometheus and
a real API server; the server hangs for a while, and for another while the right to scale is taken away.
`python -m tests.live_training workflow ALGORITHM [STEPS] [PACE] [STOP_AFTER]`: FunctionWorkflow-v0's queue in a real Redis, and
workers that are real processes; SIGINT after so many decisions.
`python -m tests.live_training same RULE_OR_POLICY [EPISODES] [PACE]`: the same policy there and in the simulator, same tasks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tests import openfaas_standin, real_kubernetes, real_prometheus, real_redis
from tests.live_loop import DEPLOYMENT
from tests.live_pods import Pods
from tests.openfaas_standin import Standin
from tests.real_kubernetes import Kubernetes

from scalepilot.operate.ledger import Entry, read_entries
from scalepilot.operate.targets import TargetContext, make_target
from scalepilot.operate.twin import Clock, exporter
from scalepilot.policy import load_policy
from scalepilot.policy.rules.command_line import rule_from_text
from scalepilot_envs.registration import find_env

SELECTOR, NAMESPACE = 'app="web"', "training"
ROLE = Path(__file__).parent.parent / "cluster/operate/rights"
OPEN = {"reversals_per_hour": 10_000, "harm_ticks": 1000}
LEARNING: Mapping[str, dict[str, Any]] = {
    "ppo": {"num_envs": 1, "envs_per_input": 1, "rollout_steps": 50, "minibatch_size": 50, "hidden": [32]},
    "dqn": {"num_envs": 1, "rollout_steps": 5, "hidden": [32], "learning_starts": 50, "batch_size": 32},
    "tabular": {"num_envs": 1},
}


@dataclass(frozen=True)
class Place:
    """A deployment to train on.

    Attributes:
        folder: for everything that is written.
        operate: path of its operate.yaml.
        env: section of an experiment.
    """

    folder: Path
    operate: Path
    env: dict[str, Any]

    @property
    def env_id(self) -> str:
        """With its module."""
        return f"scalepilot.operate.live:{self.env['id']}"

    def experiment(self, algorithm: str, steps: int, **sections: Any) -> Path:
        """A YAML for `scalepilot train`."""
        section = "tabular" if algorithm in ("sarsa", "q_learning") else algorithm
        learning = {**LEARNING[section], "total_env_steps": steps, **sections.pop(section, {})}
        config = {
            "name": "live",
            "algorithm": algorithm,
            "env": self.env,
            section: learning,
            "evaluation": {"validate_every_share": 1.0, "validation_episodes": 1, "test_episodes": 2},
            "output": str(self.folder / "runs"),
            **sections,
        }
        path = self.folder / f"{algorithm}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def entries(self) -> list[Entry]:
        """Every decision so far."""
        return list(read_entries(self.operate.parent / "records"))


def train(path: Path, *more: str, **options: Any) -> subprocess.Popen[str]:
    """`scalepilot train`, running."""
    command = [sys.executable, "-m", "scalepilot.cli", "train", str(path), *more]
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=path.parent, **piped, **options)


def account(kubernetes: Kubernetes) -> str:
    """A kubeconfig with the rights of our manifests."""
    role, binding = (yaml.safe_load((ROLE / f"{name}.yaml").read_text()) for name in ("role", "role-binding"))
    binding["subjects"][0]["namespace"] = NAMESPACE
    for rule in role["rules"]:
        if rule.get("resourceNames") == ["scalepilot-shop-web"]:
            rule["resourceNames"] = [f"scalepilot-{NAMESPACE}-web"]
    found = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operate-web"}}
    for one in (found, role, binding):
        kubernetes.apply(one, NAMESPACE)
    return kubernetes.kubeconfig_of(NAMESPACE, "operate-web")


@contextlib.contextmanager
def cluster(folder: Path, kubernetes: Kubernetes, interval: float, max_pods: int = 12) -> Iterator[tuple[Place, Pods]]:
    """ClusterDeployment-v0's service on a real cluster, watched by a real Prometheus."""
    kubernetes.namespace(NAMESPACE)
    kubernetes.apply({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 5}}, NAMESPACE)
    ended, asked = threading.Event(), [5]
    pods = Pods(interval, lambda: asked[0], time.time)

    def kubelet() -> None:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web/scale"
        while not ended.wait(interval / 5):
            # Whoever does not answer is asked again.
            with contextlib.suppress(Exception):
                asked[0] = int(kubernetes.ask("GET", path)["spec"]["replicas"])
                pods.advance(time.time())
                found = kubernetes.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3Dweb")["items"]
                ready = sum(bool((pod.get("status") or {}).get("conditions")) for pod in found)
                if pods.ready > ready:
                    kubernetes.make_ready(NAMESPACE, "app%3Dweb", pods.ready - ready)

    thread = threading.Thread(target=kubelet, daemon=True)
    scrape = {"job_name": "web", "scrape_interval": f"{int(1000 * interval / 4)}ms", "honor_labels": True}
    with exporter(pods, time.time) as page:  # type: ignore[arg-type]
        scraped = {"scrape_configs": [{**scrape, "static_configs": [{"targets": [page.split("/")[2]]}]}]}
        with real_prometheus.running(scraped, folder, {}) as prometheus:
            thread.start()
            operate = folder / "operate.yaml"
            swap = f'sum(container_memory_swap{{namespace="{NAMESPACE}"}}) / 200e6'
            telemetry = {
                "kind": "prometheus",
                "url": str(prometheus._client.base_url).rstrip("/"),
                "interval_seconds": interval,
                "requests": {"selector": SELECTOR},
                "latency": {"selector": SELECTOR},
                "cpu": {"selector": f'namespace="{NAMESPACE}"', "cores_per_replica": 1},
                "memory": {"gauge": "container_memory_working_set_bytes", "selector": f'namespace="{NAMESPACE}"'},
                "fields": {"swap_share": {"query": f"clamp_max({swap}, 1)"}},
            }
            target = {"kind": "kubernetes", "namespace": NAMESPACE, "name": "web", "kubeconfig": account(kubernetes)}
            config = {"telemetry": telemetry, "target": target, "limits": OPEN, "records": "records", "listen": None}
            operate.write_text(yaml.safe_dump(config))
            options = {"config": str(operate), "like": "ClusterDeployment-v0", "explore_on": f"deployment {NAMESPACE}/web"}
            env = {"id": "LiveScaling-v0", "params": {"max_pods": max_pods}, "options": {**options, "episode_steps": 50}}
            try:
                yield Place(folder, operate, env), pods
            finally:
                ended.set()
                thread.join()


@contextlib.contextmanager
def page(folder: Path, interval: float) -> Iterator[Place]:
    """The same service without a cluster: its page is scraped, and its pods are a number in a file."""
    replicas = folder / "replicas.txt"
    replicas.write_text("5\n")
    pods = Pods(interval, lambda: int(replicas.read_text() or 5), time.time)
    with exporter(pods, time.time) as url:  # type: ignore[arg-type]
        telemetry = {
            "kind": "scrape",
            "url": url,
            "scrape_seconds": interval / 4,
            "interval_seconds": interval,
            "requests": {"selector": SELECTOR},
            "latency": {"selector": SELECTOR},
            "cpu": {"selector": "", "cores_per_replica": 1},
            "memory": {"gauge": "container_memory_working_set_bytes"},
        }
        operate = folder / "operate.yaml"
        # Nothing here swaps; a page answers no expression that says so.
        config = {"telemetry": telemetry, "target": {"kind": "file", "path": str(replicas)}, "assume": {"swap_share": 0}}
        operate.write_text(yaml.safe_dump({**config, "limits": OPEN, "records": "records"}))
        options = {"config": str(operate), "like": "ClusterDeployment-v0", "explore_on": f"file {replicas}"}
        yield Place(folder, operate, {"id": "LiveScaling-v0", "options": {**options, "episode_steps": 10}})


@contextlib.contextmanager
def workflow(folder: Path, pace: float, *, episode_steps: int = 30, workers: int = 12) -> Iterator[tuple[Place, Standin]]:
    """FunctionWorkflow-v0's queue in a real Redis, and a farm of real workers behind a gateway."""
    password = folder / "password"
    password.write_text(openfaas_standin.PASSWORD)
    password.chmod(0o600)
    with real_redis.running(folder) as port:
        standin = Standin(("127.0.0.1", port, 0), Clock(pace, 0.0, 0.0))
        with openfaas_standin.running(standin):
            url = f"redis://127.0.0.1:{port}/0"
            gateway = {"kind": "openfaas", "url": standin.url, "password_file": str(password), "image": "worker:1"}
            target = {"kind": "redis_farm", "url": url, "workers": gateway}
            made = make_target(target, TargetContext("test", False, 1.0))
            made.write(workers, 0)
            real_kubernetes.until(lambda: made.read(time.time()).ready == workers)
            name = made.name
            made.close()
            operate = folder / "operate.yaml"
            telemetry = {"kind": "redis", "url": url}
            operate.write_text(yaml.safe_dump({"telemetry": telemetry, "target": target, "limits": OPEN, "records": "records"}))
            options = {"config": str(operate), "like": "FunctionWorkflow-v0", "explore_on": name, "episode_steps": episode_steps}
            yield Place(folder, operate, {"id": "LiveScaling-v0", "options": {**options, "tasks": {}, "pace": pace}}), standin


def scaled_to(place: Place, workers: int) -> None:
    """The farm with so many workers, as an episode of the simulator begins."""
    target = make_target(yaml.safe_load(place.operate.read_text())["target"], TargetContext("test", False, 1.0))
    have = target.read(time.time()).spec
    if have != workers:
        target.write(workers, have or 0)
    real_kubernetes.until(lambda: target.read(time.time()).ready == workers, 60.0)
    target.close()


def same(policy: str, episodes: int, pace: float, place: Place) -> dict[str, Any]:
    """Final qos and mean workers of a policy, here and in the simulator, on the same tasks."""
    entry, simulator = find_env(place.env_id), find_env("FunctionWorkflow-v0")
    described = simulator.describe()
    actor = load_policy(policy) if Path(policy).exists() else rule_from_text(policy, described)
    told: dict[str, list[dict[str, float]]] = {"live": [], "simulator": []}
    for seed in range(episodes):
        for name, make in (("live", lambda: entry.maker()(**place.env["options"])), ("simulator", simulator.maker())):
            if name == "live":
                scaled_to(place, 12)
            env: Any = make()
            observation, _ = env.reset(seed=seed)
            workers, state, ended = [], None, False
            while not ended:
                decision, state = actor.act(np.asarray(observation)[None], state)
                action = decision.action
                step = env.step(int(action[0])) if action is not None else env.step_targets(float(decision.desired_replicas[0]))
                observation, _, terminated, truncated, info = step
                workers.append(float(info["workers"]))
                ended = terminated or truncated
            env.close()
            told[name].append({"final_qos": float(info["final_qos"]), "workers": float(np.mean(workers)), "steps": len(workers)})
    means = {n: {key: float(np.mean([one[key] for one in of])) for key in ("final_qos", "workers")} for n, of in told.items()}
    return {"episodes": told, "mean": means}


@contextlib.contextmanager
def hanging(kubernetes: Kubernetes) -> Iterator[None]:
    """An API server that does not answer."""
    os.kill(kubernetes.server, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(kubernetes.server, signal.SIGCONT)


@contextlib.contextmanager
def forbidden(kubernetes: Kubernetes) -> Iterator[None]:
    """Without the right to scale."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/operate-web"
    rules = kubernetes.ask("GET", path)["rules"]
    taken = [{**rule, "verbs": [v for v in rule["verbs"] if v != "patch"]} for rule in rules]
    kubernetes.patch(path, {"rules": taken})
    try:
        yield
    finally:
        kubernetes.patch(path, {"rules": rules})


def told(place: Place, output: str) -> dict[str, Any]:
    """What the records say of a training."""
    entries = place.entries()
    outcomes = Counter(entry.record.outcome for entry in entries)
    replicas = [entry.record.snapshot.replicas.spec for entry in entries]
    found = [line for line in output.splitlines() if line.startswith(("policy:", "Stopped. Latest policy:"))]
    policy = found[-1].rpartition(": ")[2].strip() if found else None
    spec = load_policy(policy).spec if policy else None
    return {
        "decisions": len(entries),
        "modes": dict(Counter(entry.record.mode for entry in entries)),
        "outcomes": dict(outcomes),
        "replicas": [min(r for r in replicas if r is not None), max(r for r in replicas if r is not None)],
        "policy": policy,
        "env_id": spec and spec.env_id,
        "actions": spec and [action.label for action in spec.actions],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        {"cluster": _cluster, "workflow": _workflow, "same": _same}[sys.argv[1]](Path(temporary), *sys.argv[2:])


def _same(folder: Path, policy: str, episodes: str = "3", pace: str = "10") -> None:
    with workflow(folder, float(pace)) as (place, _):
        print(json.dumps(same(policy, int(episodes), float(pace), place), indent=1))


def _workflow(folder: Path, algorithm: str, steps: str = "90", pace: str = "10", stop_after: str = "0") -> None:
    bins = {"worker_queue": 8, "workers": 8, "qos": 3}
    with workflow(folder, float(pace)) as (place, standin):
        config = place.experiment(algorithm, int(steps), tabular={"bins": bins}) if algorithm == "sarsa" else None
        process = train(config or place.experiment(algorithm, int(steps)), "--no-evaluation")
        if int(stop_after):
            records = folder / "records"
            real_kubernetes.until(lambda: records.exists() and len(place.entries()) >= int(stop_after), 300.0)
            process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
        print(output)
        print(json.dumps({**told(place, output), "exit": process.returncode, "functions": len(standin.functions)}, indent=1))


def _cluster(folder: Path, algorithm: str, given_steps: str = "500", given_interval: str = "0.5") -> None:
    steps, interval = int(given_steps), float(given_interval)
    with (
        real_kubernetes.running(folder / "cluster", folder / "cache") as kubernetes,
        cluster(folder, kubernetes, interval) as (place, _),
    ):
        process = train(place.experiment(algorithm, steps), "--no-evaluation")
        done = threading.Event()

        def harm() -> None:
            while not done.wait(0.5) and (not (folder / "records").exists() or len(place.entries()) < steps / 5):
                pass
            for what in (hanging, forbidden):
                if not done.wait(5 * interval):
                    with what(kubernetes):
                        done.wait(max(10 * interval, 6.0))

        thread = threading.Thread(target=harm)
        thread.start()
        output = process.communicate()[0]
        done.set()
        thread.join()
        print(output)
        print(json.dumps({**told(place, output), "exit": process.returncode}, indent=1))


if __name__ == "__main__":
    main()
