"""Feeds with real parts: the HPA controller follows ours, and two of our processes answer alike."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests import real_kubernetes
from tests.contract.test_kubernetes_target import web
from tests.integration.test_kubernetes import QUICK, Shop, account_with
from tests.keda_client import asking, certificate, made
from tests.real_kubernetes import Kubernetes, until
from tests.unit.test_operate_controller import Healthy
from tests.unit.test_operate_tick import Wants, deciders

from scalepilot.operate.config import load_service, operate_config
from scalepilot.operate.controller import Controller
from scalepilot.operate.feeds import FeedContext, Offers, make_feed
from scalepilot.operate.targets import WARNING, TargetContext
from scalepilot.operate.targets.kubernetes import KubernetesSettings, KubernetesTarget
from scalepilot.operate.targets.kubernetes.api import Api
from scalepilot.operate.targets.kubernetes.connection import connect

pytestmark = pytest.mark.slow
MANIFESTS = Path(__file__).resolve().parents[2] / "cluster" / "operate"
# The real HPA controller of 1.20 has v2beta2, and takes its tolerance from the command line alone.
HPAS = "/apis/autoscaling/v2beta2"


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    folders = tmp_path_factory.mktemp("k8s"), real_kubernetes.cache(tmp_path_factory)
    with real_kubernetes.running(*folders, HPA_TOLERANCE="0") as found:
        yield found


@dataclass
class Process:
    """One of ours: a controller whose policy wants what it is told to."""

    controller: Controller
    policy: Wants
    offers: Offers

    def wants(self, replicas: int) -> None:
        self.policy.wanted = [float(replicas)]
        self.controller.step()


def shop_of(cluster: Kubernetes, name: str) -> Shop:
    cluster.namespace(name)
    cluster.apply(web(replicas=5), name)
    return Shop(cluster, name, f"/apis/apps/v1/namespaces/{name}/deployments/web")


def process(shop: Shop, identity: str = "a", kubeconfig: str = "") -> Process:
    settings = KubernetesSettings(shop.name, "web")
    context = TargetContext(identity, dry_run=False, interval_seconds=0.0, feeds=True)
    target = KubernetesTarget(settings, context, Api(connect(kubeconfig or shop.cluster.kubeconfig, None)), timing=QUICK)
    policy = Wants(5.0)
    service = load_service(operate_config({"policy": "hpa", "feed": {"kind": "metrics_api"}}))
    controller = Controller(replace(service, deciders=deciders(policy)), Healthy(), target)
    return Process(controller, policy, Offers(controller, None))


def register(shop: Shop, address: str, folder: Path) -> str:
    """Make the aggregator ask an address for external metrics; the path of what was made, to be deleted."""
    cluster = shop.cluster
    (found,) = yaml.safe_load_all((MANIFESTS / "hpa" / "api-service.yaml").read_text())
    # There is no network of pods here: the service is a name for this machine.
    port = int(address.split(":")[2].partition("/")[0])
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    name = found["spec"]["service"]["name"]
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}, shop.name)
    found["spec"]["service"] |= {"namespace": shop.name, "port": port}
    found["spec"]["caBundle"] = base64.b64encode((folder / "ca.crt").read_bytes()).decode()
    root = "/apis/apiregistration.k8s.io/v1/apiservices"
    cluster.ask("POST", root, found)
    path = f"{root}/{found['metadata']['name']}"

    def available() -> bool:
        conditions = (cluster.ask("GET", path).get("status") or {}).get("conditions", ())
        return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)

    until(available)
    return path


def autoscale(shop: Shop) -> str:
    """The HPA of our manifest; its path."""
    (found,) = yaml.safe_load_all((MANIFESTS / "hpa" / "shop" / "hpa.yaml").read_text())
    found["apiVersion"] = HPAS.removeprefix("/apis/")
    found["spec"]["maxReplicas"] = 40
    for rules in found["spec"]["behavior"].values():
        del rules["tolerance"]
    shop.cluster.ask("POST", f"{HPAS}/namespaces/{shop.name}/horizontalpodautoscalers", found)
    return f"{HPAS}/namespaces/{shop.name}/horizontalpodautoscalers/web"


def test_the_real_hpa_follows_by_one_up_and_down_and_holds_without_a_number(kubernetes: Kubernetes, tmp_path: Path) -> None:
    shop = shop_of(kubernetes, "followed")
    certificate(tmp_path, "ca", authority=True)
    certificate(tmp_path, "server", "ca", host=f"operate-web.{shop.name}.svc")
    ours = process(shop)
    files = {"cert_file": str(tmp_path / "server.crt"), "key_file": str(tmp_path / "server.key")}
    settings = {"kind": "external_metrics", "listen": "127.0.0.1:0", **files}
    feed = make_feed(settings, FeedContext(f"{shop.name}/web", 15.0, None))

    def follows(replicas: int) -> None:
        def there() -> bool:
            ours.wants(replicas)
            time.sleep(0.2)
            return shop.replicas == replicas

        until(there)
        # And sees it.
        ours.wants(replicas)

    def active() -> str:
        conditions = kubernetes.ask("GET", path)["status"].get("conditions", ())
        return next((each["status"] for each in conditions if each["type"] == "ScalingActive"), "")

    with feed.answering(ours.offers.newest) as url:
        registered = register(shop, url, tmp_path)
        path = autoscale(shop)
        try:
            for replicas in (6, 5):
                follows(replicas)
            # Where the HPA's own tolerance of 10 % would swallow it.
            kubernetes.patch(shop.path, {"spec": {"replicas": 20}})
            for replicas in (20, 21, 20):
                follows(replicas)
            # No decision is young enough any more.
            ours.offers.max_age_seconds = -1.0
            until(lambda: active() == "False")
            ours.wants(25)
            time.sleep(2.0)
            assert (active(), shop.replicas) == ("False", 20)
            ours.offers.max_age_seconds = 45.0
            follows(21)
            assert until(lambda: active() == "True")
        finally:
            kubernetes.ask("DELETE", registered)
            kubernetes.ask("DELETE", path)
            ours.controller.target.close()
    outcomes = {entry.record.outcome for entry in ours.controller.entries}
    # "" where the lease was not renewed in time on a busy machine.
    assert {"feed", "same"} <= outcomes <= {"feed", "same", ""}
    # What followed is a move of ours to the limits.
    assert {(5, 6), (6, 5), (20, 21), (21, 20)} <= {move[1:] for move in ours.controller.state.guard.moves}


def test_of_two_processes_both_tell_what_the_leader_has_decided(kubernetes: Kubernetes, tmp_path: Path) -> None:
    shop = shop_of(kubernetes, "two")
    leader, other = process(shop, "a"), process(shop, "b")
    leader.wants(7)
    other.wants(9)
    assert (leader.offers.newest().replicas, other.controller.entries[-1].record.mode) == (7, "standby")

    def alike() -> bool:
        other.controller.step()
        return other.offers.newest() == leader.offers.newest()

    context = FeedContext(f"{shop.name}/web", 15.0, None)
    feeds = [make_feed({"kind": "keda", "listen": "127.0.0.1:0"}, context) for _ in range(2)]
    with feeds[0].answering(leader.offers.newest) as one, feeds[1].answering(other.offers.newest) as two:
        stubs = made(tmp_path)
        where = {"target": f"{shop.name}/web", "namespace": shop.name}
        with asking(stubs, one, **where) as first, asking(stubs, two, **where) as second:
            until(alike)
            assert first.value() == second.value() == (7, 7.0)
            # A leader that decides no more is heard no longer, although its lease is renewed.
            other.offers.max_age_seconds = -1.0
            assert second.refused()[0] == "UNAVAILABLE"
            other.offers.max_age_seconds = 45.0
            # The leader has no number: nor has the other, with the same words.
            leader.controller.pause(True)
            leader.controller.step()
            until(alike)
            assert first.refused() == second.refused() == ("UNAVAILABLE", "paused: at the controller")
            leader.controller.target.close()

            def leads() -> bool:
                other.wants(8)
                return other.controller.entries[-1].record.mode == "active"

            until(leads)
            assert second.value() == (8, 8.0)
            other.controller.target.close()


def test_the_role_of_a_feed_reads_leads_and_changes_nothing(kubernetes: Kubernetes) -> None:
    shop = shop_of(kubernetes, "rights")
    ours = process(shop, kubeconfig=account_with(shop, "rights-feed"))
    target: Any = ours.controller.target
    (line,) = target.check(dry_run=False)
    assert line == f"{WARNING}no HPA or ScaledObject scales it yet: nothing follows the feed"
    path = autoscale(shop)
    assert target.check(dry_run=False) == []
    ours.wants(6)
    record = ours.controller.entries[-1].record
    assert (record.mode, record.outcome, record.snapshot.replicas.problem) == ("active", "feed", "")
    assert target.write(6, 5).outcome == "forbidden"
    assert target._patch(target._find(), 6, 5).status == 403
    ours.controller.pause(True)
    ours.controller.step()
    reasons = {each["reason"] for each in kubernetes.ask("GET", f"/api/v1/namespaces/{shop.name}/events")["items"]}
    assert "Paused" in reasons
    kubernetes.ask("DELETE", path)
    target.close()
