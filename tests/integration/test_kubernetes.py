"""The Kubernetes target on a real API server where it goes wrong: rights, other writers, hangs, dead leaders."""

from __future__ import annotations

import copy
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.contract.test_kubernetes_target import web
from tests.frozen import frozen
from tests.real_kubernetes import Kubernetes, until

from scalepilot.operate.targets import WARNING, TargetContext
from scalepilot.operate.targets.kubernetes import KubernetesTarget
from scalepilot.operate.targets.kubernetes.api import Api
from scalepilot.operate.targets.kubernetes.connection import connect
from scalepilot.operate.targets.kubernetes.lease import Lease, LeaseTiming
from scalepilot.operate.targets.kubernetes.settings import KubernetesSettings

pytestmark = pytest.mark.slow
MANIFESTS = Path(__file__).resolve().parents[2] / "cluster" / "operate"
QUICK = LeaseTiming(duration_seconds=2.0, deadline_seconds=1.2, retry_seconds=0.2)


@dataclass
class Shop:
    """A namespace with a Deployment web of 3."""

    cluster: Kubernetes
    name: str
    path: str

    @property
    def replicas(self) -> int:
        return int(self.cluster.ask("GET", self.path)["spec"]["replicas"])


@pytest.fixture
def shop(kubernetes: Kubernetes, request: pytest.FixtureRequest) -> Shop:
    name = kubernetes.namespace("t-" + re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-50:])
    kubernetes.apply(web(), name)
    return Shop(kubernetes, name, f"/apis/apps/v1/namespaces/{name}/deployments/web")


Make = Callable[..., KubernetesTarget]


@pytest.fixture
def make(shop: Shop) -> Iterator[Make]:
    made: list[KubernetesTarget] = []

    def target(
        kubeconfig: str = "", *, identity: str = "a", dry_run: bool = False, feeds: bool = False, **settings: Any
    ) -> KubernetesTarget:
        chosen = KubernetesSettings(**{"namespace": shop.name, "name": "web", **settings})
        api = Api(connect(kubeconfig or shop.cluster.kubeconfig, None))
        made.append(KubernetesTarget(chosen, TargetContext(identity, dry_run, 0.0, feeds=feeds), api, timing=QUICK))
        return made[-1]

    yield target
    for found in made:
        found.close()


def test_two_controllers_at_once_lose_no_write(shop: Shop, make: Make) -> None:
    accepted, refused = [], []

    def run(name: str, step: int) -> None:
        # Of different kinds, so that both lead: what keeps them apart is the precondition alone.
        target = make(identity=name, owner=name)
        target._lease = Lease(target._api, shop.name, f"own-{name}", name, patience_seconds=60)
        rng = random.Random(name)
        for _ in range(15):
            seen = target.read(time.time())
            time.sleep(rng.uniform(0.0, 0.03))
            assert seen.spec is not None
            written = target.write(seen.spec + step, seen.spec)
            assert written.outcome in ("written", "refused")
            (accepted if written.outcome == "written" else refused).append(step)

    shop.cluster.patch(shop.path, {"spec": {"replicas": 40}})
    threads = [threading.Thread(target=run, args=each) for each in (("a", 1), ("b", -2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted.count(1) > 0
    assert accepted.count(-2) > 0
    assert shop.replicas == 40 + sum(accepted)


def account_with(shop: Shop, folder: str) -> str:
    """A kubeconfig of a service account with exactly the Role of our manifests."""
    cluster = shop.cluster
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operate-web"}}
    role = yaml.safe_load((MANIFESTS / folder / "role.yaml").read_text())
    binding = yaml.safe_load((MANIFESTS / folder / "role-binding.yaml").read_text())
    for rule in role["rules"]:
        if rule.get("resourceNames") == ["scalepilot-shop-web"]:
            rule["resourceNames"] = [f"scalepilot-{shop.name}-web"]
    binding["subjects"][0]["namespace"] = shop.name
    for found in (account, role, binding):
        cluster.apply(found, shop.name)
    return cluster.kubeconfig_of(shop.name, "operate-web")


def test_the_role_of_our_manifest_is_enough_and_no_more(shop: Shop, make: Make) -> None:
    kubeconfig = account_with(shop, "rights")
    target = make(kubeconfig)
    assert target.check(dry_run=False) == []
    found = until(lambda: (found := target.read(time.time())).leading and found)
    assert (found.spec, found.problem.count("403")) == (3, 0)
    assert target.write(4, 3).outcome == "written"
    target.tell("ScaledUp", "3 → 4")
    events = shop.cluster.ask("GET", f"/api/v1/namespaces/{shop.name}/events")["items"]
    assert "ScaledUp" in {each["reason"] for each in events}
    shop.cluster.apply(web("other"), shop.name)
    other = make(kubeconfig, name="other")
    lines = other.check(dry_run=False)
    assert f"no right to patch deployments.apps/scale other in namespace {shop.name}" in lines
    assert any(line.startswith("get deployments/scale other: HTTP 403") for line in lines)
    seen = other.read(time.time())
    assert (seen.spec, seen.leading) == (None, False)
    assert "deployments" in seen.problem
    assert "403" in seen.problem


@pytest.mark.parametrize("folder", ["rights", "rights-dry-run", "rights-feed"])
def test_every_right_of_our_manifest_is_used_and_none_beside_it(shop: Shop, make: Make, folder: str) -> None:
    with_keda(shop)
    kubeconfig, dry_run = account_with(shop, folder), folder == "rights-dry-run"
    target = make(kubeconfig, dry_run=dry_run, feeds=folder == "rights-feed")
    assert [line for line in target.check(dry_run=dry_run) if "right" in line] == []
    if dry_run:
        assert target.read(time.time()).problem == ""
    else:
        until(lambda: target.read(time.time()).leading)
        target._events._pause_seconds = 0.0
        if folder == "rights":
            assert target.write(4, 3).outcome == "written"
        for _ in range(2):
            target.tell("TelemetryLost", "4 stays: holding")
        assert target._events.problem == ""
    role = yaml.safe_load((MANIFESTS / folder / "role.yaml").read_text())
    granted = {
        (verb, group, resource, name.replace("scalepilot-shop-", f"scalepilot-{shop.name}-"))
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
    }
    # A right to all names is used by whichever is asked for.
    named = {name for _, _, _, name in granted}

    def used() -> bool:
        asked = shop.cluster.asked_by(shop.name, "operate-web")
        return {(v, g, r, n if (v, g, r, n) in granted else "*") for v, g, r, n in asked} == granted

    assert "*" in named
    until(used, 10.0)


def test_the_role_of_a_dry_run_reads_everything_and_writes_nothing(shop: Shop, make: Make) -> None:
    kubeconfig = account_with(shop, "rights-dry-run")
    dry = make(kubeconfig, dry_run=True)
    assert dry.check(dry_run=True) == []
    assert dry.read(time.time()).problem == ""
    live = make(kubeconfig)
    lines = live.check(dry_run=False)
    assert [line for line in lines if not line.startswith(WARNING)][:4] == [
        f"no right to {right} in namespace {shop.name}"
        for right in (
            "patch deployments.apps/scale web",
            f"get leases.coordination.k8s.io scalepilot-{shop.name}-web",
            f"update leases.coordination.k8s.io scalepilot-{shop.name}-web",
            "create leases.coordination.k8s.io",
        )
    ]
    assert any("trial write" in line and "403" in line for line in lines)
    assert not live.read(time.time()).leading
    assert live.write(9, 3).outcome == "refused"
    assert shop.replicas == 3


def test_a_right_taken_away_while_it_runs_is_named(shop: Shop, make: Make) -> None:
    target = make(account_with(shop, "rights"))
    until(lambda: target.read(time.time()).leading)
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{shop.name}/roles/operate-web"
    rules = shop.cluster.ask("GET", path)["rules"]
    for rule in rules:
        rule["verbs"] = [verb for verb in rule["verbs"] if verb != "patch"] or ["get"]
    shop.cluster.patch(path, {"rules": rules})
    written = until(lambda: (written := target.write(3, 3)).outcome == "forbidden" and written)
    assert "patch" in written.detail
    assert "deployments/scale" in written.detail


def test_a_frozen_server_blocks_nobody_and_is_recovered_from(shop: Shop, make: Make) -> None:
    target = make()
    shop.cluster.patch(shop.path, {"metadata": {"annotations": {"scalepilot.io/paused-scale-in": "true"}}})
    assert target.read(time.time()).leading
    with frozen(shop.cluster.server):
        began = time.monotonic()
        written = target.write(5, 3)
        assert time.monotonic() - began < 2.5
        assert written.outcome == "unknown"
        began = time.monotonic()
        target.tell("Holding", "…")
        assert time.monotonic() - began < 2.5
        began = time.monotonic()
        found = target.read(time.time())
        assert time.monotonic() - began < 4.0
        # What people forbade holds although nobody can be asked; and who cannot renew does not lead.
        assert (found.spec, found.ready, found.paused, found.leading) == (None, None, {"in"}, False)
        assert "no answer" in found.problem
        assert target.write(5, 3).outcome == "refused"
    found = until(lambda: (found := target.read(time.time())).leading and found)
    # The first write may have been done by now: that is what "unknown" means.
    assert found.spec in (3, 5)
    assert target.write(6, found.spec).outcome == "written"


def test_of_three_candidates_one_leads_and_another_after_it_dies(shop: Shop) -> None:
    api = Api(connect(shop.cluster.kubeconfig, None))
    three = [Lease(api, shop.name, "three", f"c{number}", patience_seconds=1.0, timing=QUICK) for number in range(3)]
    stop, dead, both = threading.Event(), set[str](), []

    def loop(lease: Lease) -> None:
        while not stop.is_set() and lease.identity not in dead:
            lease.alive()
            time.sleep(0.1)

    def leaders() -> list[str]:
        held = [lease.identity for lease in three if lease.held()]
        both.append(len(held))
        return held

    threads = [threading.Thread(target=loop, args=(lease,)) for lease in three]
    for thread in threads:
        thread.start()
    (first,) = until(leaders)
    time.sleep(0.5)
    assert leaders() == [first]
    # Its loop hangs: nobody calls alive() any more, although its thread lives.
    dead.add(first)
    (second,) = until(lambda: [name for name in leaders() if name != first])
    released = next(lease for lease in three if lease.identity == second)
    dead.add(second)
    began = time.monotonic()
    released.close()
    until(lambda: [name for name in leaders() if name not in (first, second)])
    assert time.monotonic() - began < 1.5
    assert max(both) == 1
    stop.set()
    for thread in threads:
        thread.join()
    for lease in three:
        lease.close()
    api.close()


def test_a_rollout_is_seen_while_it_lasts(shop: Shop, make: Make) -> None:
    target = make(dry_run=True)

    def ready() -> bool:
        shop.cluster.make_ready(shop.name, "app=web", 4)
        found = target.read(time.time())
        return not found.rolling_out and found.ready == 3

    until(ready)
    shop.cluster.patch(shop.path, {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}})
    found = until(lambda: (found := target.read(time.time())).rolling_out and found)
    assert found.spec == 3
    until(ready)


FARM = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "farms.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "farms", "singular": "farm", "kind": "Farm"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            }
        ],
    },
}


def test_a_custom_resource_scales_alike_and_its_pods_are_named_by_a_selector(shop: Shop, make: Make) -> None:
    shop.cluster.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", FARM)
    farm = {"apiVersion": "example.com/v1", "kind": "Farm", "metadata": {"name": "f"}, "spec": {"replicas": 3}}
    path = f"/apis/example.com/v1/namespaces/{shop.name}/farms"
    until(lambda: shop.cluster.admin.get(path).is_success)
    shop.cluster.ask("POST", path, farm)
    blind = make(name="f", resource="farms.example.com", dry_run=True).read(time.time())
    assert (blind.spec, blind.ready, blind.starting_ages_seconds) == (3, None, None)
    assert "target.pods_selector" in blind.problem
    target = make(name="f", resource="example.com/v1/farms", pods_selector="app=web")
    # As soon as the controllers have made all three.
    pods = f"/api/v1/namespaces/{shop.name}/pods?labelSelector=app=web"
    until(lambda: len(shop.cluster.ask("GET", pods)["items"]) == 3)
    shop.cluster.make_ready(shop.name, "app=web", 2)
    found = target.read(time.time())
    assert (found.spec, found.ready, len(found.starting_ages_seconds or ())) == (3, 2, 1)
    assert target.write(8, 3).replicas == 8
    assert target.write(9, 3).outcome == "refused"
    assert target.name == f"farm {shop.name}/f"


def with_keda(shop: Shop) -> str:
    """Where ScaledObjects are, of a KEDA that knows but their names."""
    path = f"/apis/keda.sh/v1alpha1/namespaces/{shop.name}/scaledobjects"
    if not shop.cluster.admin.get(path).is_success:
        names = {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject"}
        definition: dict[str, Any] = copy.deepcopy(FARM)
        definition["metadata"]["name"] = "scaledobjects.keda.sh"
        definition["spec"] |= {"group": "keda.sh", "names": names}
        definition["spec"]["versions"][0] |= {"name": "v1alpha1", "subresources": {}}
        shop.cluster.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        until(lambda: shop.cluster.admin.get(path).is_success)
    return path


def test_keda_is_seen_where_it_is(shop: Shop, make: Make) -> None:
    path = with_keda(shop)
    scaled = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "s"}}
    shop.cluster.ask("POST", path, {**scaled, "spec": {"scaleTargetRef": {"name": "web"}}})
    assert make(dry_run=True).read(time.time()).owners == ("ScaledObject s",)
    shop.cluster.patch(f"{path}/s", {"metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}}})
    assert make(dry_run=True).read(time.time()).owners == ()


def test_who_changed_the_replicas_is_named_where_the_server_knows(shop: Shop, make: Make) -> None:
    target = make()
    target.read(time.time())
    shop.cluster.ask("PATCH", f"{shop.path}?fieldManager=somebody", {"spec": {"replicas": 7}}, "application/merge-patch+json")
    written = target.write(5, 3)
    assert written.outcome == "refused"
    assert "/spec/replicas is 7, not 3 (set by somebody at " in written.detail
