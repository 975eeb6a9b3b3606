"""The Kubernetes target where the server throttles, fails, hangs or says nonsense, and where a Lease is in dispute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import fake_kubernetes
from tests.contract.test_kubernetes_target import web
from tests.fake_kubernetes import FakeKubernetes

from scalepilot.operate.targets import TargetContext
from scalepilot.operate.targets.kubernetes import KubernetesTarget
from scalepilot.operate.targets.kubernetes.api import JSON_PATCH, Api
from scalepilot.operate.targets.kubernetes.connection import connect
from scalepilot.operate.targets.kubernetes.lease import Lease, LeaseTiming
from scalepilot.operate.targets.kubernetes.settings import KubernetesSettings

LEASES = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
WEB = "/apis/apps/v1/namespaces/shop/deployments/web"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeKubernetes]:
    with fake_kubernetes.running(tmp_path) as found:
        found.apply(web(), "shop")
        yield found


@pytest.fixture
def api(fake: FakeKubernetes) -> Iterator[Api]:
    found = Api(connect(fake.kubeconfig, None))
    yield found
    found.close()


@pytest.fixture
def target(api: Api) -> Iterator[KubernetesTarget]:
    found = KubernetesTarget(KubernetesSettings("shop", "web"), TargetContext("a", False, 0.0), api)
    assert found.read(time.time()).spec == 3
    yield found
    found.close()


@pytest.mark.parametrize(
    ("code", "headers", "outcome", "wait"),
    [
        (429, {"Retry-After": "7"}, "throttled", 7.0),
        (429, {}, "throttled", 1.0),
        (500, {}, "unknown", 0.0),
        (503, {"Retry-After": "3"}, "unknown", 3.0),
        (504, {}, "unknown", 0.0),
        (401, {}, "forbidden", 0.0),
        (403, {}, "forbidden", 0.0),
        (409, {}, "refused", 0.0),
        (422, {}, "refused", 0.0),
        (404, {}, "refused", 0.0),
        (400, {}, "refused", 0.0),
        (302, {"Location": "/"}, "unknown", 0.0),
        (200, {}, "written", 0.0),
    ],
)
def test_each_answer_has_its_outcome(
    fake: FakeKubernetes, target: KubernetesTarget, code: int, headers: dict[str, str], outcome: str, wait: float
) -> None:
    fake.answers[("PATCH", "/scale")] = (code, headers)
    written = target.write(5, 3)
    assert (written.outcome, written.retry_after_seconds) == (outcome, wait)
    # Once: nothing is tried again by itself.
    assert len([method for method, path, _ in fake.asked if method == "PATCH"]) == 1


def test_a_write_that_comes_too_late_is_not_sent(fake: FakeKubernetes, api: Api) -> None:
    api.ask("GET", WEB)
    # As when the server's name takes long to be found: the time is up before the first byte.
    answer = api.ask("PATCH", f"{WEB}/scale", body=[], content_type=JSON_PATCH, seconds=0.0)
    assert answer.status == 0
    time.sleep(0.2)
    assert [method for method, _, _ in fake.asked] == ["GET"]


@pytest.mark.slow
def test_a_slow_server_takes_no_longer_than_it_may(fake: FakeKubernetes, target: KubernetesTarget) -> None:
    fake.delay_seconds[("PATCH", "/scale")] = 3.0
    began = time.monotonic()
    assert target.write(5, 3).outcome == "unknown"
    assert time.monotonic() - began < 2.4


def test_what_a_proxy_says_instead_of_the_server_is_no_number(fake: FakeKubernetes, target: KubernetesTarget) -> None:
    fake.answers[("GET", "/scale")] = (502, {})
    found = target.read(time.time())
    assert (found.spec, found.ready, found.starting_ages_seconds) == (None, None, None)
    assert "HTTP 502" in found.problem


@pytest.mark.parametrize(
    ("forbidden", "lost", "problem"),
    [
        (("get", "/deployments"), {"rolling_out": False, "ready": 0}, 'get deployments: HTTP 403: "x" is forbidden'),
        (("list", "/pods"), {"ready": 0, "starting_ages_seconds": None}, "list pods: HTTP 403"),
    ],
)
def test_without_an_optional_right_the_rest_is_still_known(
    fake: FakeKubernetes, target: KubernetesTarget, forbidden: tuple[str, str], lost: dict[str, Any], problem: str
) -> None:
    fake.forbidden.add(forbidden)
    found = target.read(time.time())
    assert found.spec == 3
    assert {key: getattr(found, key) for key in lost} == lost
    assert problem in found.problem
    (line,) = target.check(dry_run=False)
    assert line.startswith("warning: no right to ")


def test_without_both_nothing_is_made_up(fake: FakeKubernetes, target: KubernetesTarget) -> None:
    fake.forbidden |= {("get", "/deployments"), ("list", "/pods")}
    found = target.read(time.time())
    assert (found.spec, found.ready, found.starting_ages_seconds) == (3, None, None)


def test_nothing_is_written_before_it_is_known_who_else_scales_it(fake: FakeKubernetes, api: Api) -> None:
    fake.forbidden.add(("list", "/horizontalpodautoscalers"))
    target = KubernetesTarget(KubernetesSettings("shop", "web"), TargetContext("a", False, 0.0), api)
    found = target.read(time.time())
    assert "list horizontalpodautoscalers: HTTP 403" in found.problem
    assert target.write(5, 3).outcome == "refused"
    fake.forbidden.clear()
    assert target.write(5, 3).outcome == "written"
    target.close()


def test_pods_come_in_pages(fake: FakeKubernetes, target: KubernetesTarget) -> None:
    fake.patch(WEB, {"spec": {"replicas": 1203}})
    fake.make_ready("shop", "app=web", 700)
    found = target.read(time.time())
    assert (found.ready, len(found.starting_ages_seconds or ())) == (700, 503)


def test_a_note_never_raises(fake: FakeKubernetes, target: KubernetesTarget) -> None:
    fake.answers[("POST", "/events")] = (500, {})
    target.tell("ScaledUp", "3 → 5")
    assert "events: HTTP 500" in target.read(time.time()).problem


class Clock:
    """Monotonic seconds that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def candidate(api: Api, clock: Clock) -> Callable[[str], Lease]:
    return lambda name: Lease(api, "shop", "l", name, patience_seconds=60, timing=LeaseTiming(), clock=clock)


@pytest.mark.parametrize("renewed", ["2000-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
def test_no_clock_of_another_machine_is_believed(
    fake: FakeKubernetes, candidate: Callable[[str], Lease], clock: Clock, renewed: str
) -> None:
    spec = {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": renewed}
    fake.ask("POST", LEASES, {"metadata": {"name": "l"}, "spec": spec})
    lease = candidate("a")
    lease.attempt()
    clock.now += 14.9
    lease.attempt()
    assert not lease.held()
    assert lease.holder == "other"
    clock.now += 0.2
    lease.attempt()
    assert lease.held()


def test_a_change_of_the_lease_begins_the_wait_anew(
    fake: FakeKubernetes, candidate: Callable[[str], Lease], clock: Clock
) -> None:
    fake.ask("POST", LEASES, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "other", "leaseDurationSeconds": 15}})
    lease = candidate("a")
    lease.attempt()
    clock.now += 14.0
    fake.ask("PATCH", f"{LEASES}/l", {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    lease.attempt()
    clock.now += 14.0
    lease.attempt()
    assert not lease.held()


def test_who_cannot_renew_stops_writing_before_another_may_lead(
    fake: FakeKubernetes, candidate: Callable[[str], Lease], clock: Clock
) -> None:
    first, second = candidate("a"), candidate("b")
    first.attempt()
    second.attempt()
    assert first.held()
    assert not second.held()
    fake.answers[("PUT", "/leases")] = (503, {})
    clock.now += 9.9
    first.attempt()
    assert first.held()
    clock.now += 0.2
    assert not first.held()
    fake.answers.clear()
    clock.now += 3.0
    second.attempt()
    assert not second.held()
    clock.now += 3.0
    second.attempt()
    assert second.held()
    first.attempt()
    assert not first.held()
    assert first.holder == second.identity


def test_two_of_one_name_never_both_lead(candidate: Callable[[str], Lease]) -> None:
    first, second = candidate("same"), candidate("same")
    first.attempt()
    second.attempt()
    assert [first.held(), second.held()] == [True, False]


def test_labels_that_others_put_on_the_lease_stay(fake: FakeKubernetes, candidate: Callable[[str], Lease]) -> None:
    lease = candidate("a")
    lease.attempt()
    fake.ask("PATCH", f"{LEASES}/l", {"metadata": {"labels": {"team": "shop"}}})
    lease.attempt()
    assert lease.held()
    found = fake.ask("GET", f"{LEASES}/l")
    assert found["metadata"]["labels"] == {"team": "shop"}
    assert found["spec"]["leaseTransitions"] == 0


def test_a_lease_that_is_deleted_is_made_anew(fake: FakeKubernetes, candidate: Callable[[str], Lease], clock: Clock) -> None:
    lease = candidate("a")
    lease.attempt()
    fake.ask("DELETE", f"{LEASES}/l")
    for _ in range(2):
        clock.now += 2.0
        lease.attempt()
    assert lease.held()
    assert fake.ask("GET", f"{LEASES}/l")["spec"]["holderIdentity"] == lease.identity


def test_what_is_gone_is_looked_for_anew(fake: FakeKubernetes, target: KubernetesTarget) -> None:
    found = fake.objects.pop(WEB)
    assert "HTTP 404" in target.read(time.time()).problem
    fake.asked.clear()
    fake.objects[WEB] = found
    assert target.read(time.time()).spec == 3
    # As after an upgrade that serves it in another version.
    assert ("GET", "/apis/apps", None) in fake.asked


@pytest.mark.slow
def test_a_slow_server_is_asked_for_owners_no_longer_than_a_read_may_take(fake: FakeKubernetes, api: Api) -> None:
    target = KubernetesTarget(KubernetesSettings("shop", "web"), TargetContext("a", True, 0.0), api)
    fake.delay_seconds |= {("GET", "/scale"): 1.5, ("GET", "/pods"): 1.5, ("GET", "/horizontalpodautoscalers"): 1.5}
    began = time.monotonic()
    found = target.read(time.time())
    assert time.monotonic() - began < 4.0
    assert found.spec == 3
    assert "list horizontalpodautoscalers: no answer" in found.problem
