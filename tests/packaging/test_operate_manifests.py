"""The manifests in cluster/operate: they fit their schemas and each other, and grant what the controller needs and no more."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.packaging.test_manifests import CLUSTER, IMAGES, Manifest, core_problem, kustomization, pods, resources

from scalepilot.cli import build_parser
from scalepilot.operate.config import OperateConfig, load_operate_config
from scalepilot.operate.targets.kubernetes.access import needed
from scalepilot.operate.targets.kubernetes.resource import Resource
from scalepilot.operate.targets.kubernetes.settings import KubernetesSettings

OPERATE = CLUSTER / "operate"
FOUND: list[Manifest] = [each for name in (".", "rights", "rights-dry-run") for each in resources(OPERATE / name)]


def one(kind: str, folder: str = ".") -> Manifest:
    (found,) = [each for each in resources(OPERATE / folder) if each["kind"] == kind]
    return found


@pytest.fixture
def config(tmp_path: Path) -> OperateConfig:
    """The ConfigMap's, as the command reads it."""
    path = tmp_path / "operate.yaml"
    path.write_text(one("ConfigMap")["data"]["operate.yaml"], encoding="utf-8")
    return load_operate_config(path)


def settings(config: OperateConfig) -> KubernetesSettings:
    return KubernetesSettings(**{key: value for key, value in config.target.items() if key != "kind"})


@pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found['kind']} {found['metadata']['name']}")
def test_a_manifest_fits_its_schema(found: Manifest) -> None:
    assert core_problem(found) is None
    assert core_problem(found | {"sepc": {}}) is not None


def test_the_configuration_is_one_that_the_command_takes(config: OperateConfig) -> None:
    from scalepilot.operate.telemetry import KINDS

    assert config.telemetry["kind"] in KINDS
    assert settings(config).resource == "deployments.apps"
    assert config.listen is not None
    (container,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert config.listen.endswith(f":{container['ports'][0]['containerPort']}")


def granted(role: Manifest) -> set[tuple[str, str, str, str]]:
    """(verb, group, resource, name) of each right."""
    return {
        (verb, group, resource, name)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }


@pytest.mark.parametrize(
    ("folder", "dry_run", "feeds"), [("rights", False, False), ("rights-dry-run", True, False), ("rights-feed", False, True)]
)
def test_a_role_grants_what_is_needed_and_no_more(folder: str, dry_run: bool, feeds: bool, config: OperateConfig) -> None:
    chosen = settings(config)
    resource = Resource("apps", "v1", "deployments", "Deployment", chosen.namespace, chosen.name)
    rights = needed(resource, chosen.lease, dry_run=dry_run, feeds=feeds)
    wanted = {(right.verb, right.group, right.resource, right.name) for right in rights}
    # Asked about only where there is KEDA.
    assert granted(one("Role", folder)) == wanted | {("list", "keda.sh", "scaledobjects", "")}
    assert kustomization(OPERATE / folder)["namespace"] == chosen.namespace


def test_there_are_eight_rights_and_none_of_a_dry_run_writes(config: OperateConfig) -> None:
    chosen = settings(config)
    resource = Resource("apps", "v1", "deployments", "Deployment", chosen.namespace, chosen.name)
    to_run = [
        right for right in needed(resource, chosen.lease, dry_run=False) if not (right.loss and right.verb in ("get", "list"))
    ]
    assert len(to_run) == 8
    assert {right.verb for right in needed(resource, chosen.lease, dry_run=True)} == {"get", "list"}


@pytest.mark.parametrize("folder", ["rights", "rights-dry-run", "rights-feed"])
def test_the_rights_are_given_to_the_account_that_the_pod_has(folder: str) -> None:
    binding, account = one("RoleBinding", folder), one("ServiceAccount")["metadata"]["name"]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": kustomization(OPERATE)["namespace"]}
    assert binding["subjects"] == [subject]
    assert binding["roleRef"]["name"] == one("Role", folder)["metadata"]["name"]
    assert one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account


def test_its_containers_are_bounded_and_can_change_nothing_of_their_image(config: OperateConfig) -> None:
    (pod,) = pods(one("Deployment"))
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["containers"], *pod["initContainers"]]:
        assert container["image"] in IMAGES
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == wanted
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["memory"] == "128Mi"
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert config.records in writable
    assert "/tmp" in writable


def test_what_is_mounted_and_asked_is_there(config: OperateConfig) -> None:
    deployment = one("Deployment")
    (pod,) = pods(deployment)
    (container,), (fetch,) = pod["containers"], pod["initContainers"]
    program, *words = container["args"]
    arguments = build_parser().parse_args(words)
    assert (program, arguments.command) == ("scalepilot", "operate")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(arguments.config) == f"{mounts['config']}/operate.yaml"
    (volume,) = [volume["configMap"] for volume in pod["volumes"] if "configMap" in volume]
    assert volume["name"] == one("ConfigMap")["metadata"]["name"]
    assert config.policy.startswith(mounts["policies"] + "/")
    assert config.policy in fetch["args"][0]
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": container["ports"][0]["containerPort"]}


def test_the_network_policy_is_of_these_pods_and_opens_their_port_alone() -> None:
    policy, deployment = one("NetworkPolicy")["spec"], one("Deployment")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [9464]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"]


def test_the_image_has_what_operate_imports(repo: Path) -> None:
    (line,) = [
        line for line in (repo / "docker" / "operate.Dockerfile").read_text().splitlines() if "requirements.py operate" in line
    ]
    assert "operate" in shlex.split(line.partition(">")[0])
