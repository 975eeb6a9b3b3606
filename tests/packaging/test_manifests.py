"""The manifests in cluster/: they fit their schemas, each other, the images, and what Scalepilot itself takes."""

from __future__ import annotations

import copy
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from scalepilot import __version__
from scalepilot.cli import build_parser
from scalepilot.config import load_config
from scalepilot.serve.config import ServeConfig, serve_config

REPO = Path(__file__).resolve().parents[2]
CLUSTER = REPO / "cluster"


def kustomization(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    return found


FOLDERS = {str(path.parent.relative_to(CLUSTER)): path.parent for path in sorted(CLUSTER.rglob("kustomization.yaml"))}
BUILT = [name for name, folder in FOLDERS.items() if "resources" in kustomization(folder)]
KUBERAY = {"RayCluster": "training", "RayJob": "job", "RayService": "serving"}
CORE = {"Namespace": "base", "NetworkPolicy": "base"}
IMAGES = {f"scalepilot-train:{__version__}", f"scalepilot-train:{__version__}-cuda", f"scalepilot-serve:{__version__}"} | {
    f"scalepilot-operate:{__version__}"
}
GCS, DASHBOARD, CLIENT, SERVE = 6379, 8265, 10001, 8000
# Where the images have what an entrypoint names.
IMAGE_CONFIGS = "/home/scalepilot/tune_configs"

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


def resources(folder: Path) -> list[Manifest]:
    """What a kustomization lists, before its patches; every path must lead somewhere."""
    found: list[Manifest] = []
    for name in kustomization(folder).get("resources", ()):
        path = (folder / name).resolve()
        assert path.exists(), f"{folder / 'kustomization.yaml'}: no {name}"
        found += resources(path) if path.is_dir() else documents(path)
    return found


def manifest(kind: str) -> Manifest:
    (found,) = [each for each in resources(CLUSTER / (KUBERAY | CORE)[kind]) if each["kind"] == kind]
    return found


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a manifest."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


def pods(node: Manifest) -> list[dict[str, Any]]:
    return [each for each in walk(node) if "containers" in each]


def ray_cluster(found: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def kustomize(folder: Path) -> list[Manifest]:
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            break
    else:
        pytest.skip("neither kubectl nor kustomize is on the path: overlays are not built")
    ran = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return [found for found in yaml.safe_load_all(ran.stdout) if found]


@pytest.fixture(scope="module")
def problems(schemas: Path) -> Callable[[Manifest], list[str]]:
    """What a CRD's strict schema says against a manifest."""
    known: dict[tuple[str, str], jsonschema.Draft202012Validator]
    known = runpy.run_path(str(schemas / "validate_manifests.py"))["validators"]()

    def check(found: Manifest) -> list[str]:
        return [error.message for error in known[found["apiVersion"], found["kind"]].iter_errors(found)]

    return check


def core_problem(found: Manifest) -> str | None:
    try:
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return None


@pytest.mark.parametrize("kind", KUBERAY)
def test_a_kuberay_manifest_fits_its_schema(kind: str, problems: Callable[[Manifest], list[str]]) -> None:
    assert problems(manifest(kind)) == []


@pytest.mark.parametrize("kind", KUBERAY)
def test_a_wrong_key_or_value_anywhere_in_a_kuberay_manifest_is_found(
    kind: str, problems: Callable[[Manifest], list[str]]
) -> None:
    for place in ("spec", "cluster", "head", "container"):
        wrong = copy.deepcopy(manifest(kind))
        cluster = ray_cluster(wrong)
        container = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
        {"spec": wrong["spec"], "cluster": cluster, "head": cluster["headGroupSpec"], "container": container}[place]["sepc"] = 1
        (problem,) = problems(wrong)
        assert "'sepc' was unexpected" in problem
    wrong = copy.deepcopy(manifest(kind))
    ray_cluster(wrong)["authOptions"]["mode"] = "password"
    assert "'password' is not one of" in problems(wrong)[0]


@pytest.mark.parametrize("kind", CORE)
def test_a_core_manifest_fits_its_schema_and_one_with_a_wrong_key_does_not(kind: str) -> None:
    found = manifest(kind)
    assert core_problem(found) is None
    assert "sepc" in (core_problem(found | {"sepc": {}}) or "")


@pytest.mark.parametrize("name", BUILT)
def test_a_kustomization_builds_and_what_it_builds_fits(name: str, problems: Callable[[Manifest], list[str]]) -> None:
    built = kustomize(FOLDERS[name])
    assert {each["kind"] for each in built} == {each["kind"] for each in resources(FOLDERS[name])}
    for each in built:
        if each["kind"] in KUBERAY or each["apiVersion"].startswith("keda.sh/"):
            assert problems(each) == []
        else:
            assert core_problem(each) is None
        if each["kind"] not in ("Namespace", "APIService"):
            assert each["metadata"]["namespace"] == kustomization(FOLDERS[name])["namespace"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_kustomization_names_files_and_targets_that_there_are(name: str) -> None:
    folder = FOLDERS[name]
    wanted = kustomization(folder)
    there = {(each["kind"], each["metadata"]["name"]) for each in resources(folder)}
    for patch in wanted.get("patches", ()):
        assert (patch["target"]["kind"], patch["target"]["name"]) in there
        for step in yaml.safe_load((folder / patch["path"]).read_text(encoding="utf-8")):
            assert step["op"] in ("test", "replace"), "an `add` to a misspelt path would pass unnoticed"
    for component in wanted.get("components", ()):
        assert kustomization(folder / component)["kind"] == "Component"
    assert {image["name"] for image in wanted.get("images", ())} <= {image.partition(":")[0] for image in IMAGES}


def test_one_component_renames_the_registry_of_every_image() -> None:
    for name in ("job", "training", "serving"):
        (built,) = kustomize(CLUSTER / "overlays" / "example" / name)
        images = {each["image"] for each in walk(built) if "image" in each}
        assert images
        assert all(image.startswith("registry.example/team/scalepilot-") for image in images)
        assert {image.removeprefix("registry.example/team/") for image in images} <= IMAGES


def test_no_two_resources_give_a_service_the_same_name() -> None:
    # KubeRay names services after the resource: NAME-head-svc, NAME-serve-svc.
    names = [manifest(kind)["metadata"]["name"] for kind in KUBERAY]
    assert len(set(names)) == len(names)


def test_the_gpu_overlay_brings_a_gpu_and_asks_for_it() -> None:
    (job,) = kustomize(CLUSTER / "overlays" / "gpu")
    (group,) = [group for group in ray_cluster(job)["workerGroupSpecs"] if group["groupName"] == "gpu-learner"]
    assert group["minReplicas"] == group["replicas"] == 1
    assert "resources.device=cuda" in shlex.split(job["spec"]["entrypoint"])
    assert group["template"]["spec"]["containers"][0]["image"].endswith("-cuda")


@pytest.mark.parametrize("kind", KUBERAY)
def test_images_and_rays_version_are_the_tested_ones(kind: str) -> None:
    pinned = dict(line.split("==") for line in (REPO / "constraints.txt").read_text().split() if line.count("==") == 1)
    found = manifest(kind)
    assert ray_cluster(found)["rayVersion"] == pinned["ray"]
    assert {each["image"] for each in walk(found) if "image" in each} <= IMAGES


@pytest.mark.parametrize("kind", KUBERAY)
def test_every_container_is_bounded_and_has_no_privileges(kind: str) -> None:
    found = manifest(kind)
    assert len(pods(found)) >= 2
    for pod in pods(found):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            limits = container["resources"]["limits"]
            assert limits.keys() >= {"cpu", "memory"}
            assert container["resources"]["requests"]["memory"] == limits["memory"], (
                "memory that is not reserved may be taken away"
            )
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    autoscaler = ray_cluster(found).get("autoscalerOptions")
    assert autoscaler is None or autoscaler["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("kind", KUBERAY)
def test_every_node_of_ray_is_probed_where_no_token_is_asked_for(kind: str) -> None:
    from ray.dashboard import http_server_agent

    cluster = ray_cluster(manifest(kind))
    groups = {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}
    for name, group in groups.items():
        (container,) = group["template"]["spec"]["containers"]
        probes = [container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
        open_paths = {"/api/gcs_healthz": DASHBOARD} if name == "head" else {"/-/healthz": SERVE}
        open_paths |= dict.fromkeys(http_server_agent.PUBLIC_EXACT_PATHS, 52365)
        assert all(open_paths.get(probe["path"]) == probe["port"] for probe in probes), name


@pytest.mark.parametrize("kind", KUBERAY)
def test_the_token_is_on_and_its_secret_is_the_one_we_make(kind: str) -> None:
    auth = ray_cluster(manifest(kind))["authOptions"]
    secrets = {each["name"]: each["files"] for each in kustomization(CLUSTER / "secrets")["secretGenerator"]}
    assert auth["mode"] == "token"
    assert secrets[auth["secretName"]] == ["auth_token"], "KubeRay reads this key"


def test_secrets_are_built_from_files_and_from_nothing_else(tmp_path: Path) -> None:
    for file in (CLUSTER / "secrets").iterdir():
        if file.name == "kustomization.yaml":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(AssertionError, match="auth_token"):
        kustomize(tmp_path)
    (tmp_path / "auth_token").write_text("a-token")
    (tmp_path / "keys").write_text("a-key-of-sixteen-characters\n")
    built = kustomize(tmp_path)
    assert {each["metadata"]["name"] for each in built} == {"scalepilot-ray-token", "scalepilot-api-keys"}
    assert all(core_problem(each) is None for each in built)


def test_from_outside_the_namespace_only_named_ports_are_reached_and_never_the_gcs() -> None:
    policy = manifest("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    reached: dict[int, int] = {}
    for rule in policy["ingress"]:
        (who,) = rule["from"]
        if "namespaceSelector" not in who:
            assert who == {"podSelector": {}}
            continue
        assert who["namespaceSelector"]["matchLabels"], "an empty selector is every namespace"
        assert rule["ports"], "no ports are all ports"
        for port in rule["ports"]:
            reached[port["port"]] = reached.get(port["port"], 0) + 1
    assert GCS not in reached
    assert {DASHBOARD, CLIENT, SERVE} <= reached.keys()


def serve_application() -> dict[str, Any]:
    (application,) = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])["applications"]
    found: dict[str, Any] = application
    return found


def test_the_service_gives_serve_what_it_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    from scalepilot.serve.app import ServeArgs, build

    text = manifest("RayService")["spec"]["serveConfigV2"]
    ServeDeploySchema.model_validate(yaml.safe_load(text))
    with pytest.raises(ValueError, match="EveryNode"):
        ServeDeploySchema.model_validate(yaml.safe_load(text) | {"proxy_location": "EverySecondNode"})
    application = serve_application()
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    assert isinstance(ServeArgs.model_validate(application["args"]).config(), ServeConfig)


def test_the_service_mounts_the_keys_and_the_policies_it_serves() -> None:
    config = serve_config(serve_application()["args"])
    (group,) = ray_cluster(manifest("RayService"))["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,), (fetch,) = pod["containers"], pod["initContainers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (keys,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert config.api_key_file == f"{mounts['api-keys']}/keys"
    assert keys["secretName"] == "scalepilot-api-keys"
    # The server refuses what every user may read; the pod's group reads it through fsGroup.
    assert keys["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert all(policy.startswith(mounts["policies"] + "/") for policy in config.policies)
    assert config.policies[0] in fetch["args"][0]
    assert config.replicas <= group["replicas"] * int(container["resources"]["limits"]["cpu"])


def test_the_init_container_fetches_a_policy_that_others_cannot_write(tmp_path: Path, tiny_artifact: Path) -> None:
    (group,) = ray_cluster(manifest("RayService"))["workerGroupSpecs"]
    (fetch,) = group["template"]["spec"]["initContainers"]
    script = fetch["args"][0].replace(serve_application()["args"]["policies"][0], str(tmp_path / "to" / "demo"))
    interpreter, *arguments = fetch["command"]
    assert interpreter == "python"
    command, env = [sys.executable, *arguments, script], {"POLICY_URI": tiny_artifact.as_uri()}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    fetched = tmp_path / "to" / "demo"
    assert {path.name for path in fetched.iterdir()} == {path.name for path in tiny_artifact.iterdir()}
    assert fetched.stat().st_mode & 0o022 == 0


def entrypoints() -> dict[str, str]:
    (patch, *_) = yaml.safe_load((CLUSTER / "overlays" / "gpu" / "gpu-learner.yaml").read_text(encoding="utf-8"))
    return {"job": manifest("RayJob")["spec"]["entrypoint"], "gpu": patch["value"]}


def test_the_service_fetches_from_where_the_job_stores() -> None:
    (group,) = ray_cluster(manifest("RayService"))["workerGroupSpecs"]
    (variable,) = group["template"]["spec"]["initContainers"][0]["env"]
    arguments = build_parser().parse_args(shlex.split(entrypoints()["job"])[1:])
    run = f"{arguments.storage}/{load_config(REPO / 'tune_configs' / arguments.config.name).name}/"
    assert (variable["name"], variable["value"].startswith(run), variable["value"].endswith("/policy")) == (
        "POLICY_URI",
        True,
        True,
    )


@pytest.mark.parametrize("name", ["job", "gpu"])
def test_an_entrypoint_is_a_command_that_scalepilot_has(name: str) -> None:
    program, *words = shlex.split(entrypoints()[name])
    arguments = build_parser().parse_args(words)
    assert (program, arguments.command, arguments.address) == ("scalepilot", "train", "auto")
    assert arguments.storage.startswith("s3://")
    config = load_config(REPO / "tune_configs" / arguments.config.relative_to(IMAGE_CONFIGS), arguments.set)
    job = manifest("RayJob")
    (cpus, *_) = ray_cluster(job)["workerGroupSpecs"]
    cores = cpus["maxReplicas"] * int(cpus["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert config.resources.num_env_runners + job["spec"]["entrypointNumCpus"] <= cores


def test_ray_up_takes_its_file_and_refuses_one_with_a_wrong_key() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(copy.deepcopy(config)))
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    assert f"scalepilot-train:{__version__}" in config["initialization_commands"][0]
    assert f"-t {config['docker']['image']}" in config["initialization_commands"][0]
    with pytest.raises(jsonschema.ValidationError, match="dcoker"):
        validate_config(prepare_config(config | {"dcoker": {}}))
