"""The Kubernetes target against a real API server, and against the stand-in that other tests use where none can run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests import fake_kubernetes
from tests.real_kubernetes import until

from scalepilot.operate.targets import TargetContext, make_target
from scalepilot.operate.targets.kubernetes import KubernetesTarget

NAMES = (f"shop-{number}" for number in itertools.count())


def web(name: str = "web", replicas: int = 3, kind: str = "Deployment") -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    spec |= {"serviceName": name} if kind == "StatefulSet" else {}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def hpa(name: str, target: str) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    spec = {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 9}
    return {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "fake":
        with fake_kubernetes.running(tmp_path_factory.mktemp("fake")) as found:
            yield found
    else:
        yield request.getfixturevalue("kubernetes")


@pytest.fixture
def shop(cluster: Any) -> str:
    """A namespace of one's own with a Deployment web of 3."""
    name: str = cluster.namespace(next(NAMES))
    cluster.apply(web(), name)
    return name


Make = Callable[..., KubernetesTarget]


@pytest.fixture
def make(cluster: Any, shop: str) -> Iterator[Make]:
    made: list[KubernetesTarget] = []

    def target(*, identity: str = "pilot-0", dry_run: bool = False, interval: float = 0.0, **settings: Any) -> KubernetesTarget:
        chosen = {"kind": "kubernetes", "namespace": shop, "name": "web", "kubeconfig": cluster.kubeconfig, **settings}
        found = make_target(chosen, TargetContext(identity, dry_run, interval))
        assert isinstance(found, KubernetesTarget)
        made.append(found)
        return found

    yield target
    for found in made:
        found.close()


def deployment(shop: str) -> str:
    return f"/apis/apps/v1/namespaces/{shop}/deployments/web"


def spec(cluster: Any, shop: str) -> int:
    return int(cluster.ask("GET", deployment(shop))["spec"]["replicas"])


def test_replicas_are_read_and_written(cluster: Any, shop: str, make: Make) -> None:
    target = make()
    assert target.read(time.time()).spec == 3
    written = target.write(5, 3)
    assert (written.outcome, written.replicas) == ("written", 5)
    assert spec(cluster, shop) == 5
    assert target.name == f"deployment {shop}/web"


def test_a_write_on_what_is_no_longer_so_changes_nothing(cluster: Any, shop: str, make: Make) -> None:
    target = make()
    target.read(time.time())
    cluster.patch(deployment(shop), {"spec": {"replicas": 7}})
    written = target.write(5, 3)
    assert (written.outcome, written.replicas) == ("refused", 7)
    assert "/spec/replicas is 7, not 3" in written.detail
    assert spec(cluster, shop) == 7


def test_to_zero_and_from_zero(cluster: Any, shop: str, make: Make) -> None:
    target = make()
    target.read(time.time())
    assert target.write(0, 3).outcome == "written"
    assert target.read(time.time()).spec == 0
    assert target.write(2, 3).outcome == "refused"
    assert target.write(2, 0).outcome == "written"
    assert target.write(4, 0).outcome == "refused"
    assert spec(cluster, shop) == 2


def test_pods_become_ready(cluster: Any, shop: str, make: Make) -> None:
    target = make()
    until(lambda: cluster.make_ready(shop, "app=web", 1))
    found = until(
        lambda: (found := target.read(time.time())).ready == 1 and len(found.starting_ages_seconds or ()) == 2 and found
    )
    assert not found.rolling_out
    assert all(0 <= age < 60 for age in found.starting_ages_seconds)
    cluster.make_ready(shop, "app=web", 2)
    found = until(lambda: (found := target.read(time.time())).ready == 3 and found)
    assert (found.starting_ages_seconds, found.problem) == ((), "")


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"paused": "true"}, {"in", "out"}),
        ({"paused": "yes please"}, {"in", "out"}),
        ({"paused": ""}, {"in", "out"}),
        ({"paused": "false"}, set()),
        ({"paused-scale-in": "true"}, {"in"}),
        ({"paused-scale-out": "true"}, {"out"}),
        ({"paused": "False", "paused-scale-in": "1"}, {"in"}),
    ],
)
def test_people_pause_it_with_annotations(
    cluster: Any, shop: str, make: Make, annotations: dict[str, str], expected: set[str]
) -> None:
    target = make()
    assert target.read(time.time()).paused == set()
    cluster.patch(
        deployment(shop), {"metadata": {"annotations": {f"scalepilot.io/{key}": text for key, text in annotations.items()}}}
    )
    assert target.read(time.time()).paused == expected


def test_an_autoscaler_that_points_at_it_owns_it(cluster: Any, shop: str, make: Make) -> None:
    cluster.apply(hpa("other", "another"), shop)
    target = make()
    assert target.read(time.time()).owners == ()
    cluster.apply(hpa("web", "web"), shop)
    assert make(identity="pilot-1", dry_run=True).read(time.time()).owners == ("HorizontalPodAutoscaler web",)
    late = make(identity="pilot-2", dry_run=True)
    assert late.check(dry_run=True) == ["it is scaled by HorizontalPodAutoscaler web: remove one of the two"]


def test_who_claims_it_by_annotation_owns_it_unless_it_is_us(cluster: Any, shop: str, make: Make) -> None:
    target = make(dry_run=True)
    claim = {"metadata": {"annotations": {"scalepilot.io/owner": "the night shift"}}}
    cluster.patch(deployment(shop), claim)
    assert target.read(time.time()).owners == ("the night shift (annotation scalepilot.io/owner)",)
    assert make(dry_run=True, owner="the night shift").read(time.time()).owners == ()


def test_a_dry_run_writes_nothing_and_takes_no_lease(cluster: Any, shop: str, make: Make) -> None:
    target = make(dry_run=True)
    assert target.read(time.time()).leading
    assert target.write(9, 3).outcome == "forbidden"
    target.tell("ScaledUp", "3 → 9")
    assert target.check(dry_run=True) == []
    assert spec(cluster, shop) == 3
    assert cluster.ask("GET", f"/apis/coordination.k8s.io/v1/namespaces/{shop}/leases")["items"] == []
    assert events(cluster, shop) == []


def events(cluster: Any, shop: str) -> list[tuple[str, str, int]]:
    found = cluster.ask("GET", f"/api/v1/namespaces/{shop}/events")["items"]
    return [(each["reason"], each["message"], each["count"]) for each in found if each["source"].get("component") == "scalepilot"]


def test_a_state_that_lasts_is_one_event_and_each_move_another(cluster: Any, shop: str, make: Make) -> None:
    target = make()
    target.read(time.time())
    for seconds in (15, 30, 45):
        target.tell("Holding", f"telemetry is {seconds} s old")
    target.tell("ScaledUp", "3 → 5")
    target.tell("ScaledUp", "5 → 8")
    assert sorted(events(cluster, shop)) == [
        ("Holding", "telemetry is 45 s old", 3),
        ("ScaledUp", "3 → 5", 1),
        ("ScaledUp", "5 → 8", 1),
    ]


def test_an_event_that_the_server_has_dropped_is_made_anew(cluster: Any, shop: str, make: Make) -> None:
    target = make()
    target.read(time.time())
    target.tell("Holding", "one")
    root = f"/api/v1/namespaces/{shop}/events"
    (name,) = [each["metadata"]["name"] for each in cluster.ask("GET", root)["items"] if each["reason"] == "Holding"]
    cluster.ask("DELETE", f"{root}/{name}")
    target.tell("Holding", "two")
    assert events(cluster, shop) == [("Holding", "two", 1)]


def test_nothing_stands_in_the_way_of_an_administrator(make: Make, shop: str, cluster: Any) -> None:
    assert make().check(dry_run=False) == []
    assert spec(cluster, shop) == 3


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"name": "nobody"}, "get deployments/scale nobody: HTTP 404"),
        ({"resource": "deploymints.apps"}, "no deploymints in /apis/apps/v1"),
        ({"resource": "daemonsets.apps"}, "has no scale subresource; allowed here: deployments"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(make: Make, settings: dict[str, str], line: str) -> None:
    target = make(dry_run=True, **settings)
    assert any(line in found for found in target.check(dry_run=True))
    found = target.read(time.time())
    assert (found.spec, found.ready, found.starting_ages_seconds) == (None, None, None)
    assert found.problem


def test_one_of_two_leads_and_the_other_after_it_has_let_go(cluster: Any, shop: str, make: Make) -> None:
    first, second = make(identity="a"), make(identity="b")
    assert first.read(time.time()).leading
    standby = second.read(time.time())
    assert not standby.leading
    assert f"lease scalepilot-{shop}-web is held by a_" in standby.problem
    assert second.write(9, 3).outcome == "refused"
    first.close()
    until(lambda: second.read(time.time()).leading)
    assert second.write(9, 3).outcome == "written"


def test_a_stateful_set_scales_alike(cluster: Any, shop: str, make: Make) -> None:
    cluster.apply(web("db", 2, "StatefulSet"), shop)
    target = make(name="db", resource="statefulsets.apps")
    assert target.read(time.time()).spec == 2
    assert target.write(4, 2).replicas == 4
    assert target.name == f"statefulset {shop}/db"
