"""The whole loop through the real HPA: the twin, a real Prometheus, the controller, its feed, and the HPA controller that scales.

By hand: `python -m tests.feed_loop DECISIONS INTERVAL RULE_OR_POLICY [TOLERANCE]`. The HPA looks once an interval and
goes as far at once as it is told: what is measured is the way through it. Prometheus stands still for five intervals midway.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
from tests import real_kubernetes
from tests.frozen import frozen
from tests.integration.test_kubernetes import Shop
from tests.integration.test_operate_feeds import HPAS, autoscale, register
from tests.keda_client import certificate
from tests.live_loop import live_loop, run_for, service_of, summary

from scalepilot.operate.feeds import FeedContext, Offers, make_feed
from scalepilot.operate.ledger import sentence

OUTAGE_INTERVALS = 5


def main() -> None:
    decisions, interval, policy = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    tolerance = sys.argv[4] if len(sys.argv) > 4 else "0"
    service = replace(service_of(policy, interval), feeds=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o700)
        certificate(folder, "ca", authority=True)
        certificate(folder, "server", "ca", host="operate-web.shop.svc")
        files = {"cert_file": str(folder / "server.crt"), "key_file": str(folder / "server.key")}
        feed = make_feed({"kind": "external_metrics", "listen": "127.0.0.1:0", **files}, FeedContext("shop/web", interval, None))
        environment = {"HPA_TOLERANCE": tolerance, "HPA_SYNC": f"{interval:g}s"}
        with (
            real_kubernetes.running(folder / "cluster", folder / "cache", **environment) as kubernetes,
            live_loop(kubernetes, folder, service, decisions) as loop,
        ):
            offers = Offers(loop.controller, None)
            with feed.answering(offers.newest) as url:
                shop = Shop(kubernetes, "shop", "/apis/apps/v1/namespaces/shop/deployments/web")
                register(shop, url, folder)
                path = autoscale(shop)
                assert path.startswith(HPAS)
                fast = {"policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]}
                kubernetes.patch(path, {"spec": {"behavior": {"scaleUp": fast, "scaleDown": fast}}})
                run_for(loop, lambda: len(loop.controller.entries) >= decisions // 2)
                before = len(loop.controller.entries)
                prometheus = next(p for p in psutil.Process().children() if p.name() == "prometheus")
                with frozen(prometheus.pid):
                    run_for(loop, lambda: len(loop.controller.entries) >= before + OUTAGE_INTERVALS)
                outage = list(loop.controller.entries)[before:]
                run_for(loop, lambda: False)
            for entry in loop.controller.entries:
                print(sentence(entry.record))
            entries = list(loop.controller.entries)
            specs = [entry.record.snapshot.replicas.spec or 0 for entry in entries]
            offered = [entry.record.target if entry.record.wanted is not None else None for entry in entries]
            followed = [b == a for a, b in zip(offered, specs[1:], strict=False) if a is not None]
            found = {
                "outage": [(entry.record.mode, entry.record.snapshot.replicas.spec) for entry in outage],
                "moves": sum(a != b for a, b in itertools.pairwise(specs)),
                "moves_by_one": sum(abs(a - b) == 1 for a, b in itertools.pairwise(specs)),
                "followed_by_the_next_decision": sum(followed) / max(len(followed), 1),
            }
            print(json.dumps(summary(loop) | found, indent=1))


if __name__ == "__main__":
    main()
