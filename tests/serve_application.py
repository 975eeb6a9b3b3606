"""Real applications in Ray Serve, one scaled by a policy of ours from within and one from outside; writes down what happened.

usage: serve_application.py DASHBOARD_PORT FOLDER POLICY_FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from scalepilot.operate.ray_serve import Counted
from scalepilot.operate.targets import Target, TargetContext, make_target, ray_serve

# What is looked at is what the dashboard answers, not how fast it does on a busy machine.
ray_serve._SECONDS = 30.0
INTERVAL, STARTUP, SERVICE, MOST = 0.5, 1.5, 0.05, 4
port, folder, shadow = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]


class Web(Counted):
    """One request at a time, in 50 ms; slow to start."""

    latency_bounds = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)

    def __init__(self) -> None:
        time.sleep(STARTUP)
        self.gate = asyncio.Semaphore(1)

    async def __call__(self, fail: bool = False) -> None:
        with self.counted():
            async with self.gate:
                await asyncio.sleep(SERVICE)
            if fail:
                raise ValueError("as asked")


class Plain:
    def __call__(self) -> int:
        return 1


def target(application: str, deployment: str, *, dry_run: bool = False) -> Target:
    settings = {"kind": "ray_serve", "application": application, "deployment": deployment, "url": f"http://127.0.0.1:{port}"}
    return make_target(settings, TargetContext("test", dry_run, INTERVAL))


def until(what: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.1)
    return False


def main() -> dict[str, Any]:
    policy = AutoscalingPolicy(
        policy_function="scalepilot.operate.ray_serve:ScalepilotPolicy",
        policy_kwargs={
            "policy": "tracking:utilisation=0.7",
            "service": {"interval_seconds": INTERVAL, "startup_seconds": STARTUP, "service_time_seconds": SERVICE},
            "limits": {
                "min_replicas": 1,
                "max_replicas": MOST,
                "down_share": 0.5,
                "reversals_per_hour": 1000,
                "harm_ticks": 1000,
            },
            "capacity_rps": 1 / SERVICE,
            "shadows": [shadow],
            "records": str(folder / "records"),
        },
    )
    scaling = AutoscalingConfig(
        min_replicas=1,
        max_replicas=MOST,
        upscale_delay_s=0,
        downscale_delay_s=0,
        look_back_period_s=INTERVAL,
        metrics_interval_s=INTERVAL / 2,
        policy=policy,
    )
    options = {"ray_actor_options": {"num_cpus": 0.1}}
    web = serve.deployment(Web, max_ongoing_requests=200, autoscaling_config=scaling, **options)
    plain = serve.deployment(Plain, **options)
    handle = serve.run(web.bind(), name="shop", route_prefix=None)
    serve.run(plain.bind(), name="ext", route_prefix=None, external_scaler_enabled=True)
    shop, ext = target("shop", "Web"), target("ext", "Plain")
    found: dict[str, Any] = {"read": ext.read(time.time()).to_json(), "check": ext.check(dry_run=False)}
    found["written"] = ext.write(3, 1).outcome
    found["stale"] = ext.write(5, 1).outcome
    found["dry"] = target("ext", "Plain", dry_run=True).write(5, 3).outcome
    found["shop"], refused = shop.check(dry_run=False), shop.write(2, 1)
    found["shop_write"] = [refused.outcome, refused.detail]
    found["nobody"] = [target("nobody", "Web").check(dry_run=True), target("ext", "Nobody").check(dry_run=True)]

    rate, sent, stop = [4.0], [0], threading.Event()

    def load() -> None:
        due, last = 0.0, time.monotonic()
        while not stop.wait(0.02):
            # What is due is sent, also when a busy machine woke this thread late.
            now = time.monotonic()
            due, last = due + rate[0] * (now - last), now
            while due >= 1.0:
                due -= 1.0
                sent[0] += 1
                handle.remote(sent[0] % 10 == 0)

    thread = threading.Thread(target=load)
    thread.start()
    timeline = []

    def spec() -> int:
        seen = shop.read(time.time())
        timeline.append([round(time.time(), 2), rate[0], seen.spec, seen.ready])
        return seen.spec or 0

    # Until the policy's history is full.
    until(lambda: spec() and False, 5)
    rate[0], began = 45.0, time.time()
    found["up"] = until(lambda: spec() >= 3, 90)
    found["ready"] = until(lambda: spec() and (timeline[-1][3] or 0) >= 3 and time.time() - began > 3, 90)
    found["surge"] = [began, time.time()]
    rate[0] = 4.0
    found["down"] = until(lambda: 1 <= spec() <= 2, 90)
    stop.set()
    thread.join()
    found["ext_ready"] = until(lambda: ext.read(time.time()).ready == 3, 60)
    found["timeline"] = timeline
    return found


if __name__ == "__main__":
    context = ray.init(
        num_cpus=4,
        include_dashboard=True,
        dashboard_port=port,
        object_store_memory=100 * 1024**2,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=str(folder / "s"),
    )
    serve.start(proxy_location="Disabled")
    (folder / "happened.json").write_text(json.dumps(main()))
    serve.shutdown()
    ray.shutdown()
