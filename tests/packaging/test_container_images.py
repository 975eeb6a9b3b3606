"""Images and compose file: what is written, on every machine; what is built and run, where SCALEPILOT_IMAGES=1 asks for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
DOCKER = REPO / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
HADOLINT = Path(sys.executable).parent / "hadolint"
# `compose run` starts it; nothing waits for its health.
ONE_SHOT = {"train"}


def tool(*command, cwd=REPO, given=None):
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, input=given, capture_output=True, text=True, timeout=120, check=False
    )


def instructions(text):
    """(instruction, its words) of a Dockerfile, lines put together, comments left out."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in code.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def stages(text):
    """The instructions of every stage."""
    found = []
    for name, words in instructions(text):
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, words))
    return found


def unpinned_installs(text):
    """Installs by pip that no constraints file bounds."""
    commands = [c for name, words in instructions(text) if name == "RUN" for c in words.split("&&")]
    return [c.strip() for c in commands if re.search(r"\bpip\b.* (install|wheel) ", c) and "-c constraints.txt" not in c]


def test_there_is_an_image_to_train_with_one_to_serve_with_and_one_to_operate_with():
    assert [p.name for p in DOCKERFILES] == ["operate.Dockerfile", "serve.Dockerfile", "train.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_hadolint_has_nothing_to_say(path):
    answer = tool(HADOLINT, path)
    assert (answer.returncode, answer.stdout) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("FROM ${BASE} AS tools", "FROM debian AS tools", "DL3006"),
        ("# hadolint ignore=DL3008\n", "", "DL3008"),
        ("USER 1000:1000", "USER root", "DL3002"),
    ],
    ids=["a base without a version", "a package without a version", "root"],
)
def test_hadolint_finds_what_is_wrong(right, wrong, rule):
    text = (DOCKER / "serve.Dockerfile").read_text(encoding="utf-8")
    assert right in text
    answer = tool(HADOLINT, "-", given=text.replace(right, wrong))
    assert answer.returncode == 1
    assert rule in answer.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_every_install_is_bounded_by_the_constraints(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("pip") > 3
    assert unpinned_installs(text) == []
    assert unpinned_installs(text.replace("-c constraints.txt -r", "-r"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_the_last_stage_is_an_ordinary_users_and_holds_no_build_tools(path):
    last = stages(path.read_text(encoding="utf-8"))[-1]
    assert [words for name, words in last if name == "USER"] == ["1000:1000"]
    after_user = [name for name, _ in last][[name for name, _ in last].index("USER") :]
    assert "RUN" not in after_user
    assert [words for name, words in last if name == "STOPSIGNAL"] == ["SIGTERM"]
    # What is made of nothing holds nothing but what is copied.
    installed = next((words for name, words in last if name == "RUN"), "")
    assert not set(installed.split()) & {"gcc", "g++", "build-essential", "python3-pip", "git"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_an_image_says_what_it_is_and_of_which_version(path):
    labels = next(words for name, words in stages(path.read_text(encoding="utf-8"))[-1] if name == "LABEL")
    found = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', labels))
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found["title"] == f"scalepilot-{path.name.split('.')[0]}"
    assert (found["version"], found["licenses"]) == (project["version"], project["license"])
    assert found["description"]


def sent_to_the_build(ignore):
    """What a .dockerignore that leaves everything out but some names lets through."""
    lines = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_what_a_build_copies_is_there_and_is_sent(path):
    sent = sent_to_the_build((REPO / ".dockerignore").read_text(encoding="utf-8"))
    copied = set()
    for name, words in instructions(path.read_text(encoding="utf-8")):
        if name == "COPY" and "--from=" not in words:
            copied |= {word for word in words.split()[:-1] if not word.startswith("--")}
    assert copied
    assert [source for source in copied if not (REPO / source).exists()] == []
    assert copied <= sent


def test_no_more_is_sent_than_some_image_copies():
    copies = " ".join(path.read_text(encoding="utf-8") for path in DOCKERFILES)
    assert [name for name in sent_to_the_build((REPO / ".dockerignore").read_text(encoding="utf-8")) if name not in copies] == []


@pytest.mark.parametrize(("extras", "has", "lacks"), [(("serve",), "msgspec", "torch"), (("train", "atari"), "torch", "msgspec")])
def test_the_requirements_are_pyprojects(extras, has, lacks):
    answer = tool(sys.executable, DOCKER / "requirements.py", *extras)
    lines = answer.stdout.splitlines()
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert lines == project["dependencies"] + [line for e in extras for line in project["optional-dependencies"][e]]
    names = {re.split(r"[\[<>=]", line)[0] for line in lines}
    assert has in names
    assert lacks not in names


def test_a_requirement_can_be_left_out_and_one_that_is_not_there_cannot():
    lines = tool(sys.executable, DOCKER / "requirements.py", "operate", "-pyarrow").stdout.splitlines()
    assert lines
    assert not [line for line in lines if line.startswith("pyarrow")]
    assert "KeyError: 'torch'" in tool(sys.executable, DOCKER / "requirements.py", "operate", "-torch").stderr


def test_pruning_leaves_what_runs(tmp_path):
    kept = ["numpy/core.py", "numpy/testing/util.py", "pyarrow/libarrow.so", "torch/bin/torch_shm_manager", "ours/tests/a.py"]
    gone = [
        "numpy/tests/a.py",
        "ray/jars/a.jar",
        "pyarrow/_flight.so",
        "torch/bin/test_api",
        "torch/lib/libx.a",
        "torch/include/a.h",
    ]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    answer = tool("sh", DOCKER / "prune.sh", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_brings_up_head_worker_server_and_prometheus(compose):
    assert set(compose["services"]) == {"head", "worker", "train", "serve", "prometheus"}
    assert {name for name, service in compose["services"].items() if service.get("profiles")} == ONE_SHOT


def weaknesses(service):
    """What a service of the compose file leaves open."""
    found = []
    if service.get("read_only") is not True:
        found.append("its file system can be written")
    if service.get("cap_drop") != ["ALL"]:
        found.append("it has capabilities")
    if "no-new-privileges:true" not in service.get("security_opt", []):
        found.append("it may gain privileges")
    if service.get("privileged") or service.get("network_mode") == "host":
        found.append("it is the host")
    if not set(service.get("deploy", {}).get("resources", {}).get("limits", {})) >= {"cpus", "memory"}:
        found.append("it may take all of the machine")
    found += [f"{port} is published beyond loopback" for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    if not re.search(r":[^:/]+$", service["image"]):
        found.append("its image has no tag")
    for key, value in dict(service.get("environment", {})).items():
        if re.search("TOKEN|KEY|PASSWORD", key) and not key.endswith(("_PATH", "_FILE")):
            found.append(f"{key} holds a secret ({len(value)} characters)")
    return found


def test_no_service_has_more_than_it_needs(compose):
    assert [(name, found) for name, service in compose["services"].items() if (found := weaknesses(service))] == []


@pytest.mark.parametrize(
    "change",
    [
        {"ports": ["8000:8000"]},
        {"cap_drop": []},
        {"deploy": {}},
        {"read_only": False},
        {"environment": {"RAY_AUTH_TOKEN": "x" * 32}},
        {"image": "scalepilot-serve"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_service_that_has_more_is_found(compose, change):
    assert weaknesses(compose["services"]["serve"] | change)


def test_what_stays_up_says_whether_it_is_well(compose):
    assert {name for name, service in compose["services"].items() if "healthcheck" not in service} == ONE_SHOT


def test_secrets_networks_and_volumes_are_declared_and_none_is_committed(compose):
    for kind in ("secrets", "networks", "volumes"):
        used = set()
        for service in compose["services"].values():
            used |= {str(entry).split(":")[0] for entry in service.get(kind, [])}
        used = {name for name in used if not name.startswith((".", "$"))}
        assert used <= set(compose[kind])
    for secret in compose["secrets"].values():
        assert tool("git", "check-ignore", "--quiet", DOCKER / secret["file"]).returncode == 0


def test_the_cluster_asks_for_its_token(compose):
    for name in ("head", "worker", "train"):
        service = compose["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{service['secrets'][0]}"
    assert "networks" in compose["services"]["serve"]
    assert "cluster" not in compose["services"]["serve"]["networks"]


def test_what_is_mounted_from_the_repository_is_there(compose):
    mounted = [v.split(":")[0] for s in compose["services"].values() for v in s.get("volumes", []) if v.startswith(".")]
    assert mounted
    assert [path for path in mounted if not (DOCKER / path).is_file()] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(("wrong", "code"), [("static_configs", 0), ("static_config", 1)], ids=["as it is", "a wrong key"])
def test_prometheus_takes_its_configuration(tmp_path, wrong, code):
    text = (DOCKER / "prometheus.yaml").read_text(encoding="utf-8").replace("static_configs", wrong)
    (tmp_path / "prometheus.yaml").write_text(text.replace("/run/secrets/", f"{tmp_path}/"), encoding="utf-8")
    (tmp_path / "prometheus_key").write_text("k" * 32, encoding="utf-8")
    shutil.copy(REPO / "cluster" / "prometheus" / "serving-rules.yaml", tmp_path)
    answer = tool("promtool", "check", "config", tmp_path / "prometheus.yaml")
    assert answer.returncode == code, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["trian"], {}, "image: 'trian' is not allowed; allowed: train, serve, operate"),
        (["serve"], {"SCALEPILOT_CONTAINER_TOOL": "no-such-tool"}, "neither docker nor podman works here"),
    ],
)
def test_the_check_refuses_what_it_cannot_do_in_a_line(arguments, environment, words):
    answer = subprocess.run(
        ["bash", str(DOCKER / "check.sh"), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert words in answer.stderr


@pytest.mark.skipif(os.environ.get("SCALEPILOT_IMAGES") != "1", reason="SCALEPILOT_IMAGES=1 builds and runs the images, minutes")
@pytest.mark.timeout(3600)
def test_the_images_build_train_and_serve():
    answer = subprocess.run(["bash", str(DOCKER / "check.sh")], capture_output=True, text=True, timeout=3600, check=False)
    print(answer.stdout[-3000:])
    assert answer.returncode == 0, answer.stderr[-3000:]
