"""The whole loop with real parts: the twin's page, a real Prometheus, the controller, a real API server, and back to the twin.

By hand, for longer than a test: `python -m tests.live_loop DECISIONS INTERVAL RULE_OR_POLICY [SCRAPES_PER_INTERVAL]`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests import real_kubernetes, real_prometheus
from tests.real_kubernetes import Kubernetes

from scalepilot.operate.config import Service, load_service, operate_config
from scalepilot.operate.controller import Controller
from scalepilot.operate.ledger import Ledger, sentence
from scalepilot.operate.targets import TargetContext, make_target
from scalepilot.operate.telemetry import TelemetryContext, make_telemetry
from scalepilot.operate.trial import sample_ages, simulated
from scalepilot.operate.twin import Clock, Twin, exporter, living
from scalepilot.policy import Policy, Shown, load_policy, pack_policy
from scalepilot.policy.spec import env_of
from scalepilot_envs.autoscale import AutoscaleParams

SELECTOR = 'app="web"'
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}},
    },
}


@dataclass
class Loop:
    """What is running.

    Attributes:
        service, controller, twin: of it.
    """

    service: Service
    controller: Controller
    twin: Twin


def rates_of(decisions: int, interval: float) -> NDArray[np.float64]:
    """A wave with the noise of a real service and a burst."""
    rng, at = np.random.default_rng(5), np.arange(decisions)
    wave = 180 + 90 * np.sin(at / 18.0) + 25 * rng.standard_normal(len(at)).cumsum() / np.sqrt(np.arange(1, len(at) + 1))
    wave[40:46] *= 1.5
    return np.clip(wave, 20, None)


def _params(interval: float, window_steps: int) -> dict[str, Any]:
    return {
        "window_steps": window_steps,
        "interval_seconds": interval,
        "startup_seconds": 4 * interval,
        "max_replicas": 40,
        "max_wait_seconds": 2 * interval,
    }


def service_of(policy: str, interval: float, window_steps: int = 40) -> Service:
    """A rule on the service, or a trained policy as if it had been trained for its interval."""
    # What the limits change is not in the simulator: here only what is measured is compared.
    open_limits = {"up_factor": 100, "down_share": 1, "reversals_per_hour": 10_000, "harm_ticks": 1000}
    config = operate_config({"policy": "hpa", "service": _params(interval, window_steps), "limits": open_limits})
    service = load_service(config)
    if not Path(policy).exists():
        return load_service(replace(config, policy=policy))
    packed = pack_policy(load_policy(policy))
    params = {**packed.spec.env_params, **_params(interval, window_steps)}
    fitted = replace(packed, spec=replace(packed.spec, env_params=params, signature=None)).unpack()
    return replace(service, env=env_of(fitted.spec), deciders=replace(service.deciders, policy=fitted))


@contextlib.contextmanager
def live_loop(
    kubernetes: Kubernetes, folder: Path, service: Service, decisions: int, *, namespace: str = "shop", scrapes: int = 4
) -> Iterator[Loop]:
    """Everything running; the twin has lived for its window before the controller begins."""
    params = service.env.params
    assert isinstance(params, AutoscaleParams)
    clock, interval = Clock(), params.interval_seconds
    before = params.window_steps + 5
    start = (clock() // interval + 2) * interval
    # Steady before the controller begins, so that the simulator, which runs its policy from the first moment, gets there alike.
    rates = rates_of(decisions, interval)
    twin = Twin(params, np.concatenate([np.full(before, rates[0]), rates]), start)
    kubernetes.namespace(namespace)
    asked = twin.replicas(start).spec
    kubernetes.apply({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": asked}}, namespace)
    scale = f"/apis/apps/v1/namespaces/{namespace}/deployments/web/scale"
    ended = threading.Event()

    def kubelet() -> None:
        while not ended.wait(interval / 10):
            with contextlib.suppress(Exception):
                pods = kubernetes.ask("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3Dweb")["items"]
                ready = sum(bool((pod.get("status") or {}).get("conditions")) for pod in pods)
                more = (twin.replicas(clock()).ready or 0) - ready
                if more > 0:
                    kubernetes.make_ready(namespace, "app%3Dweb", more)

    threads = [threading.Thread(target=kubelet, daemon=True)]
    scrape = {"job_name": "web", "scrape_interval": f"{int(1000 * interval / scrapes)}ms", "honor_labels": True}
    with (
        exporter(twin, clock) as page,
        living(twin, clock, lambda: int(kubernetes.ask("GET", scale)["spec"]["replicas"])),
        real_prometheus.running(
            {"scrape_configs": [{**scrape, "static_configs": [{"targets": [page.split("/")[2]]}]}]}, folder, {}
        ) as prometheus,
    ):
        for thread in threads:
            thread.start()
        telemetry = make_telemetry(
            {
                "kind": "prometheus",
                "url": str(prometheus._client.base_url).rstrip("/"),
                "requests": {"selector": SELECTOR, "per_replica": False},
                "latency": {"selector": SELECTOR},
                "cpu": {"selector": 'namespace="shop"'},
                "backlog": {"gauge": "http_requests_queued", "selector": SELECTOR},
                "capacity_rps": params.replica_capacity_rps,
            },
            TelemetryContext(service.env, service.deciders.fields),
        )
        target = make_target(
            {"kind": "kubernetes", "namespace": namespace, "name": "web", "kubeconfig": kubernetes.kubeconfig},
            TargetContext("loop", False, interval),
        )
        controller = Controller(service, telemetry, target, Ledger(folder / f"records-{namespace}"), clock=clock)
        try:
            time.sleep(max(0.0, start + before * interval - clock()))
            yield Loop(service, controller, twin)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
            target.close()
            telemetry.close()


def seen_in_cluster(policy: Policy) -> Policy:
    """The policy as it sees the simulator's replicas when they are pods of this cluster.

    A pod is there when it is ordered, an interval before the twin begins to start it (its birth is told in whole seconds), and
    what becomes ready when a decision is made is seen by the next one.
    """
    names = [f.name for f in policy.spec.observation_fields]
    ready, quarters = names.index("ready_replicas"), [names.index(f"starting_replicas_{i}") for i in range(4)]
    before = list[NDArray[Any]]()

    def show(observation: NDArray[Any]) -> NDArray[Any]:
        shown, last = observation.copy(), before.pop() if before else observation
        before.append(observation.copy())
        soonest, *later = observation[:, quarters].T
        new = np.clip(observation[:, ready] - last[:, ready], 0, last[:, quarters[0]])
        shown[:, ready] -= new
        shown[:, quarters] = np.stack([soonest + later[0] + new, later[1], later[2], 0 * new], axis=1)
        return shown

    return Shown(policy, show)


def summary(loop: Loop) -> dict[str, Any]:
    """J as lived and as simulated on the same arrivals, over the time the controller ran; and what it took."""
    entries = list(loop.controller.entries)
    modes = [entry.record.mode for entry in entries]
    policy, ages = loop.service.deciders.policy, sample_ages(entries, len(loop.twin.intervals))
    in_simulator = simulated("as it is seen", seen_in_cluster(policy), loop.twin, ages)
    exactly = simulated("as it is", policy, loop.twin, 0.0 * ages)
    reading = [entry.record.milliseconds["read"] for entry in entries]
    return {
        "decisions": len(entries),
        "modes": {mode: modes.count(mode) for mode in sorted(set(modes))},
        "J_live": loop.twin.J_per_hour,
        "J_simulator": in_simulator.J_per_hour,
        "ratio": loop.twin.J_per_hour / in_simulator.J_per_hour,
        "J_simulator_seen_exactly": exactly.J_per_hour,
        "age_intervals": float(ages.mean()),
        "read_ms_median": float(np.median(reading)),
        "outcomes": {o: sum(e.record.outcome == o for e in entries) for o in {e.record.outcome for e in entries}},
    }


def errors(loop: Loop) -> dict[str, Any]:
    """How far fields were from the truth, when all is over: replicas at most, all others as shares of their mean."""
    entries = loop.controller.entries
    told: dict[str, list[tuple[float, float]]] = {}
    empty = set()
    for entry, interval in zip(entries, loop.twin.intervals[-len(entries) :], strict=True):
        for name, truth in interval.fields.items():
            reading = entry.record.snapshot.readings.get(name)
            if reading is None or reading.value is None:
                empty.add(name)
            else:
                told.setdefault(name, []).append((reading.value, truth))
    found: dict[str, Any] = {}
    for name, pairs in told.items():
        value, truth = np.array(pairs).T
        away = np.abs(value - truth)
        found[name] = float(away.max() if "replicas" in name else away.mean() / max(float(np.abs(truth).mean()), 1e-9))
    return {**found, "unknown_at_times": sorted(empty)}


def run_for(loop: Loop, until: Callable[[], bool]) -> None:
    """Decide until then, or until the traffic has ended."""
    loop.controller.run(lambda: loop.twin.over or until())


def main() -> None:
    decisions, interval, policy = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    scrapes = int(sys.argv[4]) if len(sys.argv) > 4 else 4
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o700)
        with (
            real_kubernetes.running(folder / "cluster", folder / "cache") as kubernetes,
            live_loop(kubernetes, folder, service_of(policy, interval), decisions, scrapes=scrapes) as loop,
        ):
            run_for(loop, lambda: False)
            lived = loop.twin.intervals[-len(loop.controller.entries) :]
            for entry, interval_of in zip(loop.controller.entries, lived, strict=True):
                truth = {name: round(value, 2) for name, value in interval_of.fields.items() if "_0" in name or "cpu" in name}
                print(sentence(entry.record), truth)
            print(json.dumps(summary(loop) | {"errors": errors(loop)}, indent=1))


if __name__ == "__main__":
    main()
