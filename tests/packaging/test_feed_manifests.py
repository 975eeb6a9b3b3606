"""The manifests of feeds: they fit their schemas, the configuration and limits of the controller, and fall back safely."""

from __future__ import annotations

import copy
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.packaging.test_manifests import Manifest, core_problem, kustomization, resources
from tests.packaging.test_operate_manifests import OPERATE, one

from scalepilot.operate.config import OperateConfig, load_operate_config
from scalepilot.operate.feeds import KINDS, METRIC
from scalepilot.operate.feeds.external_metrics import ExternalMetricsSettings
from scalepilot.operate.feeds.keda import KedaSettings

KEDA = "keda.sh/v1alpha1"
FOLDERS = ("rights-feed", "keda", "keda/shop", "hpa", "hpa/shop")
FOUND: list[Manifest] = [each for name in FOLDERS for each in resources(OPERATE / name)]


@pytest.fixture(scope="module")
def problems(schemas: Path) -> Callable[[Manifest], list[str]]:
    """What KEDA's strict schemas say against a manifest: without KubeRay's, which take seconds to read."""
    strict = runpy.run_path(str(schemas / "validate_manifests.py"))["strict"]
    known = {}
    for path in (schemas / "keda").glob("*.yaml"):
        spec = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]
        (version,) = spec["versions"]
        schema = strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
        schema["properties"]["metadata"] = {"type": "object"}
        known[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft202012Validator(schema)

    def check(found: Manifest) -> list[str]:
        return [error.message for error in known[found["apiVersion"], found["kind"]].iter_errors(found)]

    return check


@pytest.fixture
def with_feed(tmp_path: Path) -> Callable[[str], OperateConfig]:
    """The ConfigMap's configuration with the feed of a kind, whose line is commented out in it."""

    def config(kind: str) -> OperateConfig:
        text = one("ConfigMap")["data"]["operate.yaml"]
        text, count = re.subn(rf"^# (feed: \{{kind: {kind},)", r"\1", text, flags=re.MULTILINE)
        assert count == 1
        path = tmp_path / "operate.yaml"
        path.write_text(text, encoding="utf-8")
        return load_operate_config(path)

    return config


def settings(config: OperateConfig) -> Any:
    kinds = {"keda": KedaSettings, "external_metrics": ExternalMetricsSettings}
    assert kinds.keys() < KINDS.keys()
    return kinds[config.feed["kind"]](**{key: value for key, value in config.feed.items() if key != "kind"})


@pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found['kind']} {found['metadata']['name']}")
def test_a_manifest_fits_its_schema(found: Manifest, problems: Callable[[Manifest], list[str]]) -> None:
    if found["apiVersion"] == KEDA:
        assert problems(found) == []
        assert problems(found | {"spec": found["spec"] | {"sepc": 1}}) != []
    else:
        assert core_problem(found) is None
        assert core_problem(found | {"sepc": {}}) is not None


@pytest.mark.parametrize(("kind", "folder"), [("keda", "keda"), ("external_metrics", "hpa")])
def test_the_service_leads_to_the_feed(kind: str, folder: str, with_feed: Callable[[str], OperateConfig]) -> None:
    feed, service, policy = settings(with_feed(kind)), one("Service", folder)["spec"], one("NetworkPolicy", folder)["spec"]
    port = int(feed.listen.rpartition(":")[2])
    assert feed.listen.startswith("0.0.0.0:")
    assert [each["targetPort"] for each in service["ports"]] == [port]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": port}]
    assert all(peer["namespaceSelector"]["matchLabels"] for peer in rule.get("from", ()))
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert kustomization(OPERATE / folder)["namespace"] == kustomization(OPERATE)["namespace"]


@pytest.mark.parametrize("kind", ["keda", "external_metrics"])
def test_the_certificate_is_mounted_and_its_key_is_nobody_elses(kind: str, with_feed: Callable[[str], OperateConfig]) -> None:
    feed, pod = settings(with_feed(kind)), one("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tls"]
    (volume,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "tls"]
    assert {feed.cert_file, feed.key_file} == {f"{mount['mountPath']}/tls.crt", f"{mount['mountPath']}/tls.key"}
    assert mount["readOnly"]
    # Who has no feed needs no certificate.
    assert volume == {"secretName": "operate-web-tls", "defaultMode": 0o440, "optional": True}


def test_what_scales_is_the_target_within_the_controllers_bounds(with_feed: Callable[[str], OperateConfig]) -> None:
    config = with_feed("keda")
    hpa, scaled = one("HorizontalPodAutoscaler", "hpa/shop"), one("ScaledObject", "keda/shop")
    for found, low, high in ((hpa, "minReplicas", "maxReplicas"), (scaled, "minReplicaCount", "maxReplicaCount")):
        target = found["spec"]["scaleTargetRef"]
        assert (target["apiVersion"], target["kind"], target["name"]) == ("apps/v1", "Deployment", config.target["name"])
        assert (found["spec"][low], found["spec"][high]) == (config.limits.min_replicas, config.limits.max_replicas)
        assert found["spec"][low] >= 1
    for folder in ("hpa/shop", "keda/shop", "rights-feed"):
        assert kustomization(OPERATE / folder)["namespace"] == config.target["namespace"]


def test_both_let_it_go_as_far_at_once_as_the_limits_do(with_feed: Callable[[str], OperateConfig]) -> None:
    limits = with_feed("keda").limits
    advanced = one("ScaledObject", "keda/shop")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behaviour = one("HorizontalPodAutoscaler", "hpa/shop")["spec"]["behavior"]
    assert advanced == behaviour
    wanted = {
        "scaleUp": {"Percent": 100 * (limits.up_factor - 1), "Pods": limits.up_replicas},
        "scaleDown": {"Percent": 100 * limits.down_share, "Pods": limits.down_replicas},
    }
    for direction, most in wanted.items():
        rules = behaviour[direction]
        assert {policy["type"]: policy["value"] for policy in rules["policies"]} == most
        # What is swallowed or waits for minutes is neither this policy nor any other.
        assert (rules["tolerance"], rules["stabilizationWindowSeconds"], rules["selectPolicy"]) == ("0", 0, "Max")


def test_keda_falls_back_to_more_and_never_to_nothing() -> None:
    spec = one("ScaledObject", "keda/shop")["spec"]
    assert spec["fallback"]["replicas"] >= spec["minReplicaCount"] >= 1
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert "idleReplicaCount" not in spec


def test_keda_asks_the_service_for_this_target_over_tls(with_feed: Callable[[str], OperateConfig]) -> None:
    config, service = with_feed("keda"), one("Service", "keda")
    (trigger,) = one("ScaledObject", "keda/shop")["spec"]["triggers"]
    where = f"{service['metadata']['name']}.{kustomization(OPERATE / 'keda')['namespace']}.svc"
    assert trigger["metadata"]["scalerAddress"] == f"{where}:{service['spec']['ports'][0]['port']}"
    assert trigger["metadata"]["target"] == f"{config.target['namespace']}/{config.target['name']}"
    assert trigger["type"] in ("external", "external-push")
    assert trigger["metricType"] == "AverageValue"
    trust = one("TriggerAuthentication", "keda/shop")
    assert trigger["authenticationRef"] == {"name": trust["metadata"]["name"]}
    assert [each["parameter"] for each in trust["spec"]["secretTargetRef"]] == ["caCert"]


def test_the_hpa_asks_for_our_metric_and_the_api_server_asks_our_service() -> None:
    (metric,) = one("HorizontalPodAutoscaler", "hpa/shop")["spec"]["metrics"]
    assert metric["external"] == {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": "1"}}
    registered, service = one("APIService", "hpa")["spec"], one("Service", "hpa")
    assert registered["service"]["name"] == service["metadata"]["name"]
    assert registered["service"]["namespace"] == kustomization(OPERATE / "hpa")["namespace"]
    assert registered["service"]["port"] == service["spec"]["ports"][0]["port"]
    assert "insecureSkipTLSVerify" not in registered
