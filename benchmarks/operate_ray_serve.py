"""Our policies and Ray Serve's own autoscaler on one replayed trace: real applications side by side, costs from real latencies.

Every contender scales an application of its own, with replicas that sleep for 4 s before they serve; all get the same requests at
the same moments. What costs is what the replicas and the late requests cost. Ray Serve's autoscaler has several settings of
`target_ongoing_requests`; the cheapest of them, chosen afterwards, is what ours are compared with: nobody could have known it.

`SCALEPILOT_SERVE_POLICY` names a trained policy for `PARAMS`; without it one is trained first (some minutes on two cores).
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRACE = Path(__file__).resolve().parents[2] / "shared" / "traces" / "nasa_http_1995_07_1min.csv"
PARAMS: dict[str, Any] = {
    "interval_seconds": 4.0,
    "replica_capacity_rps": 2.5,
    "service_time_seconds": 0.4,
    # 4 s of its own, and what Ray takes to start a process.
    "startup_seconds": 7.0,
    "min_replicas": 1,
    "max_replicas": 8,
    "wait_slo_seconds": 1.0,
    # Beside a replica's price what it is in the environment's defaults, where a replica serves eight times as many.
    "price_per_late_request": 0.008,
    "actuation_lag_steps": 1,
}
PEAK_RPS, STARTS_SECONDS = 8.0, 4.0
WARM_UP_SECONDS, SECONDS = 60.0, 360.0
SERVE_TARGETS = (0.4, 0.55)
RULE = "forecast_mpc"
PUSH = {f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5" for who in ("REPLICA", "HANDLE")}


def rates() -> NDArray[np.float64]:
    """(steps,) requests/s of an interval each: a minute of the trace is an interval here."""
    with TRACE.open(encoding="utf-8") as file:
        values = [float(row["requests_per_second"] or "nan") for row in csv.DictReader(file)]
    found = np.nan_to_num(np.array(values), nan=float(np.nanmean(values)))
    return found * (PEAK_RPS / np.quantile(found, 0.995))


def arrivals(of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds of each request: the hours of the last day with the greatest rise and fall."""
    steps = int((WARM_UP_SECONDS + SECONDS) / PARAMS["interval_seconds"])
    day = of[-1440:]
    spread = [float(np.ptp(np.convolve(day[at : at + steps], np.ones(15) / 15, "valid"))) for at in range(0, 1440 - steps, 10)]
    window = day[10 * int(np.argmax(spread)) :][:steps]
    rng = np.random.default_rng(0)
    counts = rng.poisson(window * PARAMS["interval_seconds"])
    moments = [(at + rng.random(count)) * PARAMS["interval_seconds"] for at, count in enumerate(counts)]
    return np.sort(np.concatenate(moments))


def trained(folder: Path) -> str:
    """A network for `PARAMS`, trained on the trace before its last day."""
    began, step = datetime(2026, 1, 1, tzinfo=UTC), timedelta(seconds=PARAMS["interval_seconds"])
    with (folder / "trace.csv").open("w", encoding="utf-8") as file:
        print("timestamp,requests_per_second", file=file)
        for at, rate in enumerate(rates()[:-1440]):
            print(f"{(began + at * step).isoformat()},{rate:.4f}", file=file)
    config = {
        "name": "serve",
        "env": {"params": PARAMS, "episode_steps": 240, "randomisation": {"workload_scale": [0.6, 1.4]}},
        "ppo": {
            "total_env_steps": 1_000_000,
            "num_envs": 128,
            "rollout_steps": 64,
            "minibatch_size": 1024,
            "envs_per_input": 8,
            "gamma": 0.97,
            "gae_lambda": 0.9,
            "entropy_coefficient": 0.003,
            "reward_clip": 1000,
            "reward_scale": 1,
        },
    }
    (folder / "train.yaml").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "scalepilot.cli", "train", "train.yaml", "--workload", "trace.csv", "--peak-rps", "0"]
    subprocess.run([*command, "--no-evaluation"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (run,) = (folder / "runs" / "serve").iterdir()
    return str(run / "policy")


def scaled_by_serve(target: float) -> dict[str, Any]:
    """Its own autoscaler, as quick as it can be."""
    return {"target_ongoing_requests": target, "upscale_delay_s": 0, "downscale_delay_s": 10, "look_back_period_s": 4}


def scaled_by_ours(policy: str, records: Path) -> dict[str, Any]:
    """A policy of ours, without its limits' caution: Serve's has none."""
    limits = {"min_replicas": 1, "max_replicas": PARAMS["max_replicas"], "reversals_per_hour": 10_000}
    arguments: dict[str, Any] = {"policy": policy, "limits": limits, "records": str(records)}
    arguments["capacity_rps"] = PARAMS["replica_capacity_rps"]
    if policy == RULE:
        arguments["service"] = PARAMS
    chosen = {"policy_function": "scalepilot.operate.ray_serve:ScalepilotPolicy", "policy_kwargs": arguments}
    return {"policy": chosen, "upscale_delay_s": 0, "downscale_delay_s": 0, "look_back_period_s": 2}


def deployed(scaling: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Handle of an application that is scaled so, by name."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig

    from scalepilot.operate.ray_serve import Counted

    class Service(Counted):
        """One request at a time; slow to start."""

        latency_bounds = (0.45, 0.6, 0.8, 1.0, 1.4, 2.0, 4.0, 8.0)

        def __init__(self) -> None:
            time.sleep(STARTS_SECONDS)
            self.gate = asyncio.Semaphore(1)

        async def __call__(self) -> None:
            with self.counted():
                async with self.gate:
                    await asyncio.sleep(PARAMS["service_time_seconds"])

    handles = {}
    for name, settings in scaling.items():
        config = AutoscalingConfig(
            min_replicas=1, initial_replicas=3, max_replicas=PARAMS["max_replicas"], metrics_interval_s=0.5, **settings
        )
        made = serve.deployment(
            Service, max_ongoing_requests=100, autoscaling_config=config, ray_actor_options={"num_cpus": 0.01}
        )
        handles[name] = serve.run(made.bind(), name=name, route_prefix=None)
    return handles


def billed(names: list[str], seen: dict[str, list[tuple[float, int]]], stop: threading.Event) -> None:
    """Look at the replicas that serve or start, twice a second, until told to stop."""
    from ray import serve

    while not stop.wait(0.5):
        applications = serve.status().applications
        for name in names:
            (deployment,) = applications[name].deployments.values()
            states = {str(getattr(state, "value", state)): count for state, count in deployment.replica_states.items()}
            seen[name].append((time.time(), states.get("RUNNING", 0) + states.get("STARTING", 0)))


async def replayed(handles: Mapping[str, Any], moments: NDArray[np.float64]) -> dict[str, list[tuple[float, float]]]:
    """Moment and latency in seconds of each request, by name; infinite where it failed."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in handles}
    began = time.monotonic()

    async def ask(name: str, moment: float) -> None:
        try:
            await asyncio.wait_for(handles[name].remote(), 60)
            found[name].append((moment, time.monotonic() - began - moment))
        except Exception:  # noqa: BLE001 - whatever failed, the request is late
            found[name].append((moment, float("inf")))

    tasks = []
    for moment in moments:
        await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
        tasks += [asyncio.create_task(ask(name, float(moment))) for name in handles]
    await asyncio.gather(*tasks)
    return found


def cost(latencies: list[tuple[float, float]], replicas: list[tuple[float, int]]) -> dict[str, float]:
    """J an hour and its parts, after the warm-up."""
    judged = np.array([latency for moment, latency in latencies if moment >= WARM_UP_SECONDS])
    late = judged > PARAMS["service_time_seconds"] + PARAMS["wait_slo_seconds"]
    start = replicas[0][0] + WARM_UP_SECONDS
    mean = float(np.mean([count for at, count in replicas if start <= at <= start + SECONDS]))
    per_hour = float(late.sum()) * 3600 / SECONDS * PARAMS["price_per_late_request"]
    counts = [count for at, count in replicas if at >= start]
    moves = float(np.abs(np.diff(counts)).sum())
    finite = judged[np.isfinite(judged)]
    p95 = float(np.quantile(finite, 0.95)) if len(finite) else 60.0
    return {"J": mean + per_hour, "replicas": mean, "late_share": float(late.mean()), "p95_seconds": p95, "moves": moves}


def run() -> tuple[dict[str, float], dict[str, float]]:
    """Costs an hour of each contender, and ours against the cheapest of Serve's."""
    os.environ.update(PUSH)
    import ray
    from ray import serve

    folder = Path(tempfile.mkdtemp(prefix="sp"))
    policy = os.environ.get("SCALEPILOT_SERVE_POLICY") or trained(folder)
    scaling = {f"serve_{target:g}": scaled_by_serve(target) for target in SERVE_TARGETS}
    scaling["rule"] = scaled_by_ours(RULE, folder / "rule")
    scaling["network"] = scaled_by_ours(policy, folder / "network")
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=150 * 1024**2, log_to_driver=False, logging_level="ERROR")
    try:
        serve.start(proxy_location="Disabled")
        handles = deployed(scaling)
        seen: dict[str, list[tuple[float, int]]] = {name: [] for name in handles}
        stop = threading.Event()
        thread = threading.Thread(target=billed, args=(list(handles), seen, stop))
        thread.start()
        latencies = asyncio.run(replayed(handles, arrivals(rates())))
        stop.set()
        thread.join()
        serve.shutdown()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    costs = {name: cost(latencies[name], seen[name]) for name in handles}
    figures = {f"{name}_{key}": round(value, 4) for name, parts in costs.items() for key, value in parts.items()}
    best = min(costs[f"serve_{target:g}"]["J"] for target in SERVE_TARGETS)
    return figures, {f"{name}_vs_serve_best": round(costs[name]["J"] / best, 4) for name in ("rule", "network")}
