"""What the server counts: every kind of request, several replicas added up, and no label that a client can choose."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.haproxy_stats import STATS, admin_socket
from tests.own_loop import run

from scalepilot.policy import NetworkPolicy, save_policy
from scalepilot.policy.rules import make_rule
from scalepilot.serve import PolicyApi, PolicyStore, ServeConfig, serve_config
from scalepilot.serve.http.metrics import Metrics
from scalepilot.serve.ingress.proxy_counts import proxy_socket
from scalepilot.serve.ingress.replica_counts import Counts, ReplicaFiles
from scalepilot_envs.autoscale import AutoscaleParams

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def store(tmp_path: Path, tiny_network: Callable[..., NetworkPolicy]) -> PolicyStore:
    save_policy(make_rule("hpa", AutoscaleParams()), tmp_path / "hpa")
    save_policy(tiny_network(), tmp_path / "tiny")
    return PolicyStore.load([tmp_path / "hpa", tmp_path / "tiny"])


def samples(text: bytes) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """Sum of all samples with these labels, whatever their others."""
    matching = [number for (sample, all_labels), number in found.items() if sample == name and labels.items() <= all_labels]
    assert matching, f"no sample {name} {labels}"
    return sum(matching)


def scraped(metrics: Metrics, store: PolicyStore) -> Samples:
    return samples(metrics.text(store.catalogue, ready=True, in_flight=1))


def ask(api: PolicyApi, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    async def exchange() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            answers = [await client.request(method, path, **content) for method, path, content in requests]
            # A shadow decides after the answer has gone out.
            await asyncio.sleep(0.05)
            return answers

    return run(exchange())


def decide(name: str, request: Any) -> tuple[str, str, dict[str, Any]]:
    return "POST", f"/v1/policies/{name}:decide", {"json": request}


def test_requests_are_counted_by_endpoint_policy_version_and_status(store: PolicyStore) -> None:
    example = store.get("hpa").example
    api = PolicyApi(store)
    ask(
        api,
        decide("hpa", {"observation": example}),
        decide("hpa", {"observation": [example] * 3}),
        decide("tiny", {"observation": {}}),
        decide("absent", {}),
        ("GET", "/health/ready", {}),
        ("GET", "/v1/policies", {}),
    )
    found = scraped(api.metrics, store)
    requests = "scalepilot_serve_requests_total"
    assert value(found, requests, endpoint="decide", policy="hpa", version="1", status="200") == 2
    assert value(found, requests, endpoint="decide", policy="tiny", version="1", status="422") == 1
    assert value(found, requests, endpoint="other", policy="", status="404") == 1
    assert value(found, requests, endpoint="health") == value(found, requests, endpoint="page") == 1
    assert value(found, "scalepilot_serve_request_duration_seconds_count", endpoint="decide") == 3
    assert value(found, "scalepilot_serve_batch_observations_sum", endpoint="decide") == 4
    assert value(found, "scalepilot_serve_decisions_total", policy="hpa") == 4


def test_the_requests_counted_are_the_durations_counted(store: PolicyStore) -> None:
    api = PolicyApi(store)
    ask(api, *[decide(name, {"observation": store.get("hpa").example}) for name in ("hpa", "tiny", "absent") * 5])
    found = scraped(api.metrics, store)
    assert value(found, "scalepilot_serve_requests_total") == 15
    assert value(found, "scalepilot_serve_request_duration_seconds_count") == 15


def test_a_bucket_counts_everything_up_to_and_at_its_bound(store: PolicyStore) -> None:
    metrics = Metrics()
    for seconds in (0.00005, 0.0001, 0.00011, 0.3, 99.0):
        metrics.observe("request_duration_seconds", "decide", seconds)
    found = scraped(metrics, store)
    name = "scalepilot_serve_request_duration_seconds"
    counts = {le: value(found, f"{name}_bucket", endpoint="decide", le=le) for le in ("0.0001", "0.00025", "0.25", "0.5", "+Inf")}
    assert counts == {"0.0001": 2, "0.00025": 3, "0.25": 3, "0.5": 4, "+Inf": 5}
    assert value(found, f"{name}_count", endpoint="decide") == 5
    assert value(found, f"{name}_sum", endpoint="decide") == pytest.approx(99.30026)


def test_the_replicas_asked_for_are_the_same_counted_one_by_one_or_together(store: PolicyStore) -> None:
    served = store.get("hpa")
    rng = np.random.default_rng(0)
    rows = [served.example | {"cpu_utilisation": float(share)} for share in rng.random(40)]
    together, one_by_one = PolicyApi(store), PolicyApi(store)
    ask(together, decide("hpa", {"observation": rows}))
    answers = ask(one_by_one, *[decide("hpa", {"observation": row}) for row in rows])
    desired = [answer.json()["desired_replicas"] for answer in answers]
    assert len(set(desired)) > 2
    name = "scalepilot_serve_desired_replicas"
    for api in (together, one_by_one):
        found = scraped(api.metrics, store)
        assert value(found, f"{name}_count", policy="hpa", version="1") == len(rows)
        assert value(found, f"{name}_sum", policy="hpa", version="1") == sum(desired)
        for bound in (1, 3, 5, 10, 20):
            at_most = sum(replicas <= bound for replicas in desired)
            assert value(found, f"{name}_bucket", policy="hpa", le=str(float(bound))) == at_most


def test_one_decision_may_say_how_many_replicas_it_asks_for(store: PolicyStore) -> None:
    metrics = Metrics()
    metrics.decided_one(store.get("tiny"), "hold", "decide", 7)
    found = scraped(metrics, store)
    assert value(found, "scalepilot_serve_desired_replicas_sum", policy="tiny") == 7
    assert value(found, "scalepilot_serve_decisions_total", policy="tiny", move="hold") == 1


def test_clipped_fields_are_counted_by_field(store: PolicyStore) -> None:
    api = PolicyApi(store)
    wrong = store.get("hpa").example | {"cpu_utilisation": 7.0}
    (answer,) = ask(api, decide("hpa", {"observation": [wrong, wrong], "clip": True}))
    assert answer.status_code == 200, answer.text
    assert value(scraped(api.metrics, store), "scalepilot_serve_clipped_fields_total", policy="hpa", field="cpu_utilisation") == 2


def test_what_alerts_look_for_is_there_at_zero_before_it_happens(tmp_path: Path, store: PolicyStore) -> None:
    routes = serve_config({"routes": {"hpa": {"shadow": "tiny", "canary": {"policy": "tiny", "share": 0.5}}}}).routes
    routed = PolicyStore(list(store), routes)
    found = scraped(Metrics(), routed)
    for name in ("hpa", "tiny"):
        assert value(found, "scalepilot_serve_fallbacks_total", policy=name) == 0
        assert value(found, "scalepilot_serve_requests_total", policy=name, status="500") == 0
        assert value(found, "scalepilot_serve_shadow_decisions_total", policy=f"{name}@1", agreement="different") == 0
    for result in ("loaded", "refused"):
        assert value(found, "scalepilot_serve_policy_loads_total", result=result) == 0
    assert value(found, "scalepilot_serve_requests_total", endpoint="other", status="401") == 0


def test_what_is_served_has_a_version_and_one_default_a_name(store: PolicyStore) -> None:
    found = scraped(Metrics(), store)
    info = {key: number for key, number in found.items() if key[0] == "scalepilot_serve_policy_info"}
    assert len(info) == 2
    assert value(found, "scalepilot_serve_policy_info", policy="tiny", version="1", kind="network", default="true") == 1
    assert value(found, "scalepilot_serve_build_info") == 1


HOSTILE = ('a"} 1\nevil_metric 1\n', "\ud800", "x" * 300, "..%2f", "{}", "policy-%d")


def test_no_string_of_a_client_becomes_a_label(store: PolicyStore) -> None:
    api = PolicyApi(store)
    before = set(scraped(api.metrics, store))
    example = store.get("hpa").example
    requests = []
    for i in range(40):
        text = HOSTILE[i % len(HOSTILE)].replace("%d", str(i))
        body = json.dumps({"observation": example | {text: 1}, "clip": True, text: text}).encode()
        quoted = text.encode("utf-8", "replace").hex()
        requests += [
            ("POST", "/v1/policies/hpa:decide", {"content": body, "headers": {"x-request-id": f"id-{i}", "x-api-key": f"k{i}"}}),
            ("POST", f"/v1/policies/{quoted}:decide", {"content": body}),
            ("POST", f"/v1/policies/hpa@{quoted}:decide", {"content": body}),
            ("POST", f"/v2/models/hpa/versions/{quoted}/infer", {"content": body}),
            ("GET", f"/{quoted}", {}),
            (f"METHOD{i}", "/v1/policies", {}),
        ]
    answers = ask(api, *requests)
    assert all(400 <= answer.status_code < 500 for answer in answers)
    found = scraped(api.metrics, store)
    allowed = {
        "endpoint": {"decide", "infer", "health", "metrics", "page", "other"},
        "policy": {"", "hpa", "tiny"},
        "version": {"", "1"},
        "status": {str(status) for status in range(100, 600)},
    }
    for name, labels in set(found) - before:
        assert name.startswith("scalepilot_serve_")
        for label, text in labels:
            assert label == "le" or text in allowed[label], (name, label, text)
    # 240 requests of forty strings each: a dozen series, not hundreds.
    requests_series = [key for key in found if key[0] == "scalepilot_serve_requests_total"]
    assert len(requests_series) < 24


def test_the_counts_of_two_replicas_are_added(tmp_path: Path, store: PolicyStore) -> None:
    one, other = Metrics(tmp_path), Metrics(tmp_path)
    for metrics, times in ((one, 2), (other, 3)):
        metrics.count("requests", ("decide", "hpa", "1", "200"), times)
        for _ in range(times):
            metrics.observe("request_duration_seconds", "decide", 0.0007)
    other.save()
    found = scraped(one, store)
    assert value(found, "scalepilot_serve_requests_total", policy="hpa", status="200", endpoint="decide") == 5
    name = "scalepilot_serve_request_duration_seconds"
    assert value(found, f"{name}_bucket", endpoint="decide", le="0.001") == value(found, f"{name}_count", endpoint="decide") == 5
    assert value(found, f"{name}_sum", endpoint="decide") == pytest.approx(5 * 0.0007)


def test_a_replica_tells_the_others_whether_it_is_ready_and_what_it_has_begun(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.follow(lambda: (False, 5))
    metrics.save()
    ((counts, present),) = ReplicaFiles(tmp_path).others()
    assert present
    assert (counts.gauges["ready"], counts.gauges["in_flight_requests"]) == (0, 5)


def put_replica(folder: Path, replica: str, age_seconds: float = 0.0, **gauges: float) -> Path:
    """The file of a replica in another process."""
    file = folder / f"replica-{replica}-1.json"
    counters = {"requests": [(("decide", "hpa", "1", "200"), 10.0)]}
    file.write_bytes(msgspec.json.encode(Counts(counters, {}, gauges, replica)))
    then = time.time() - age_seconds
    os.utime(file, (then, then))
    return file


def test_every_replica_that_is_there_has_its_own_gauges(tmp_path: Path, store: PolicyStore) -> None:
    put_replica(tmp_path, "77", ready=0.0, in_flight_requests=4.0, process_resident_memory_bytes=1e6, process_cpu_seconds=3.0)
    found = scraped(Metrics(tmp_path), store)
    own = str(os.getpid())
    assert value(found, "scalepilot_serve_ready", replica="77") == 0
    assert value(found, "scalepilot_serve_ready", replica=own) == 1
    assert value(found, "scalepilot_serve_in_flight_requests") == 5
    assert value(found, "process_cpu_seconds_total", replica="77") == 3
    assert value(found, "process_resident_memory_bytes", replica=own) > 1e6


def test_a_replica_that_ended_stays_counted_and_is_no_longer_there(tmp_path: Path, store: PolicyStore) -> None:
    put_replica(tmp_path, "77", age_seconds=60, ready=1.0, in_flight_requests=4.0)
    found = scraped(Metrics(tmp_path), store)
    assert value(found, "scalepilot_serve_requests_total", policy="hpa", status="200", endpoint="decide") == 10
    assert ("scalepilot_serve_ready", frozenset({("replica", "77")})) not in found


def test_a_process_id_used_again_takes_no_counts_away(tmp_path: Path, store: PolicyStore) -> None:
    first = Metrics(tmp_path)
    first.count("policy_loads", ("loaded",), 3)
    first.save()
    again = Metrics(tmp_path)
    again.save()
    assert value(scraped(again, store), "scalepilot_serve_policy_loads_total", result="loaded") == 3


def test_counters_never_fall_from_one_replica_scraped_to_the_next(tmp_path: Path, store: PolicyStore) -> None:
    one, other = Metrics(tmp_path), Metrics(tmp_path)
    last = 0.0
    for turn in range(6):
        one.count("requests", ("decide", "hpa", "1", "200"))
        # Nobody saved in between: what one told must be in its file already.
        found = scraped((one, other)[turn % 2], store)
        now = value(found, "scalepilot_serve_requests_total", policy="hpa", status="200")
        assert now >= last
        last = now
    assert last >= 5


def test_a_damaged_file_of_a_replica_is_left_out(tmp_path: Path, store: PolicyStore) -> None:
    put_replica(tmp_path, "77").write_bytes(b'{"counters": {"req')
    (tmp_path / "replica-78-1.json").mkdir()
    assert value(scraped(Metrics(tmp_path), store), "scalepilot_serve_requests_total", policy="hpa") == 0


def test_a_folder_that_is_gone_is_an_error_to_save_and_none_to_scrape(tmp_path: Path, store: PolicyStore) -> None:
    metrics = Metrics(tmp_path / "gone")
    with pytest.raises(OSError, match="gone"):
        metrics.save()
    assert value(scraped(metrics, store), "scalepilot_serve_ready") == 1


def test_other_replicas_see_nothing_half_written(tmp_path: Path) -> None:
    files = ReplicaFiles(tmp_path)
    files.write(lambda: Counts(replica="1"))
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    ((counts, present),) = ReplicaFiles(tmp_path).others()
    assert (counts.replica, present) == ("1", True)


def test_the_shadow_is_counted_by_agreement_and_the_canary_by_its_own_name(store: PolicyStore) -> None:
    routes = {"hpa": {"shadow": "tiny", "canary": {"policy": "tiny", "share": 1.0}}}
    config: ServeConfig = serve_config({"routes": routes})
    routed = PolicyStore(list(store), config.routes)
    api = PolicyApi(routed, config)
    ask(api, *[decide("hpa", {"observation": store.get("hpa").example})] * 3)
    found = scraped(api.metrics, routed)
    # The canary answers everything here, and its shadow is itself: always of the same mind.
    assert value(found, "scalepilot_serve_requests_total", policy="tiny", status="200", endpoint="decide") == 3
    assert value(found, "scalepilot_serve_shadow_decisions_total", policy="tiny@1", shadow="tiny@1", agreement="same") == 3
    assert value(found, "scalepilot_serve_shadow_difference_replicas_total", policy="tiny@1") == 0


def test_the_proxy_in_front_says_what_clients_were_answered(store: PolicyStore) -> None:
    with admin_socket() as proxy:
        found = scraped(Metrics(proxy=proxy), store)
    responses = {
        status: value(found, "scalepilot_serve_proxy_responses_total", status=status) for status in ("2xx", "4xx", "5xx")
    }
    assert responses == {"2xx": 6800, "4xx": 150, "5xx": 50}
    assert value(found, "scalepilot_serve_proxy_queued_requests") == 7
    assert value(found, "scalepilot_serve_proxy_connections") == 12
    assert value(found, "scalepilot_serve_proxy_retries_total") == 7


@pytest.mark.parametrize(
    "answer", [None, b"", b"Unknown command\n", b"\xff\xfe", b"# pxname,svname\nx,BACKEND\n", STATS.encode()[:60]]
)
def test_a_proxy_that_answers_nothing_or_nonsense_is_left_out_at_once(store: PolicyStore, answer: bytes | None) -> None:
    began = time.monotonic()
    with admin_socket(answer) as proxy:
        found = scraped(Metrics(proxy=proxy), store)
    assert time.monotonic() - began < 10
    assert not [name for name, _ in found if "proxy" in name]
    assert value(found, "scalepilot_serve_ready") == 1


def test_a_proxy_that_is_gone_is_left_out(tmp_path: Path, store: PolicyStore) -> None:
    assert not [name for name, _ in scraped(Metrics(proxy=tmp_path / "admin.sock"), store) if "proxy" in name]


def test_the_proxys_socket_is_where_serve_puts_it() -> None:
    with admin_socket() as proxy:
        serves = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_SOCKET_PATH": str(proxy)}
        assert proxy_socket(serves) == proxy
        assert proxy_socket(serves | {"RAY_SERVE_ENABLE_HA_PROXY": "0"}) is None
        # Serve names a file and puts the socket into a folder beside it.
        (proxy.parent / "node").mkdir()
        moved = proxy.rename(proxy.parent / "node" / proxy.name)
        assert proxy_socket(serves) == moved
    assert proxy_socket(serves) is None
    assert proxy_socket({}) is None
