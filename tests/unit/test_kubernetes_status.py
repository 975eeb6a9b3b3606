"""What an object and its pods say, the way into the cluster, and the settings: plain functions, no server."""

from __future__ import annotations

import datetime as dt
import json
import re
import stat
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import yaml

from scalepilot.errors import ConfigError, InputError
from scalepilot.operate.targets import TargetContext, make_target
from scalepilot.operate.targets.kubernetes import status
from scalepilot.operate.targets.kubernetes.connection import ExecAuth, connect
from scalepilot.operate.targets.kubernetes.resource import Resource, split
from scalepilot.operate.targets.kubernetes.settings import KubernetesSettings


def body(kind: str = "Deployment", spec: dict[str, Any] | None = None, generation: int = 4, **found: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"generation": generation},
        "spec": spec or {},
        "status": {"observedGeneration": 4, **found},
    }


PARTITION = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (body(replicas=3, updatedReplicas=3), False),
        (body(replicas=4, updatedReplicas=1), True),
        # The API leaves a 0 out: the first new pod is not there yet.
        (body(replicas=3), True),
        (body(), False),
        (body(generation=5, replicas=3, updatedReplicas=3), True),
        # Held half-way by its owner, for weeks perhaps.
        (body(spec={"paused": True}, replicas=4, updatedReplicas=1), False),
        (body("StatefulSet", replicas=3, updatedReplicas=1, updateRevision="b", currentRevision="a"), True),
        (body("StatefulSet", replicas=3, updatedReplicas=3, updateRevision="b", currentRevision="b"), False),
        (body("StatefulSet", PARTITION, replicas=3, updatedReplicas=1, updateRevision="b", currentRevision="a"), False),
        (
            body("StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, replicas=3, updateRevision="b", currentRevision="a"),
            False,
        ),
        (body("ReplicaSet", replicas=3), False),
        ({"apiVersion": "example.com/v1", "kind": "Farm", "metadata": {"generation": 2}, "status": {"replicas": 3}}, False),
        ({"apiVersion": "example.com/v1", "kind": "Farm", "metadata": {}, "spec": {}}, False),
        ({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "status": {"replicas": 3, "updatedReplicas": 1}}, True),
    ],
)
def test_a_rollout_is_one_that_moves(found: dict[str, Any], expected: bool) -> None:
    assert status.rolling_out(found) == (expected, "")


def test_a_rollout_that_kubernetes_has_given_up_is_told_but_does_not_hold_for_ever() -> None:
    conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    rolling, problem = status.rolling_out(body(replicas=4, updatedReplicas=1, conditions=conditions))
    assert not rolling
    assert "3 of 4 replicas are of an old version" in problem


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (body(readyReplicas=2), 2),
        (body(), 0),
        ({"apiVersion": "apps/v1", "kind": "Deployment", "status": {}}, None),
        ({"apiVersion": "example.com/v1", "kind": "Farm", "status": {"replicas": 3, "observedGeneration": 1}}, None),
    ],
)
def test_ready_is_zero_only_where_somebody_counted(found: dict[str, Any], expected: int | None) -> None:
    assert status.ready_replicas(found) == expected


def pod(age: float, *, ready: bool | None = None, phase: str = "Pending", deleted: bool = False) -> dict[str, Any]:
    made = dt.datetime.fromtimestamp(10_000 - age, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    meta = {"creationTimestamp": made, **({"deletionTimestamp": made} if deleted else {})}
    conditions = [] if ready is None else [{"type": "Ready", "status": str(ready)}]
    return {"metadata": meta, "status": {"phase": phase, "conditions": conditions, "podIP": "10.0.0.1"}}


def test_pods_that_start_are_told_from_those_that_serve_end_or_are_going() -> None:
    pods = [
        pod(90),
        pod(20, ready=False, phase="Running"),
        pod(500, ready=True, phase="Running"),
        pod(20, ready=True, phase="Running"),
        pod(700, phase="Failed"),
        pod(700, phase="Succeeded"),
        pod(700, ready=True, phase="Running", deleted=True),
        # Of a server whose clock is ahead.
        pod(-5),
        {"metadata": {"creationTimestamp": None}},
    ]
    found = msgspec.json.decode(json.dumps({"items": pods}).encode(), type=status.PodList)
    assert status.ready_and_ages(found.items, 10_000) == (2, (90.0, 20.0, 0.0))


APPLIED = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"spec": {"replicas": 3}})}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, ""),
        ({"annotations": APPLIED}, ""),
        ({"labels": {"argocd.argoproj.io/instance": "shop"}, "annotations": APPLIED}, "Argo CD"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD"),
        (
            {
                "labels": {"argocd.argoproj.io/instance": "shop"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"spec": {}}'},
            },
            "",
        ),
        (
            {
                "labels": {"kustomize.toolkit.fluxcd.io/name": "shop"},
                "managedFields": [{"manager": "kustomize-controller", "fieldsV1": {"f:spec": {"f:replicas": {}}}}],
            },
            "Flux",
        ),
        (
            {
                "labels": {"kustomize.toolkit.fluxcd.io/name": "shop"},
                "managedFields": [{"manager": "kustomize-controller", "fieldsV1": {"f:spec": {"f:template": {}}}}],
            },
            "",
        ),
    ],
)
def test_git_owns_the_replicas_where_its_manifest_holds_them(meta: dict[str, Any], expected: str) -> None:
    assert status.gitops({"metadata": meta}) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("deployments.apps", ("apps", "", "deployments")),
        ("farms.example.com", ("example.com", "", "farms")),
        ("example.com/v1beta1/farms", ("example.com", "v1beta1", "farms")),
        ("replicationcontrollers", ("", "", "replicationcontrollers")),
    ],
)
def test_a_resource_is_named_as_people_do(text: str, parts: tuple[str, str, str]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, True),
        ({"apiVersion": "apps/v1beta2", "kind": "Deployment", "name": "web"}, True),
        ({"name": "web"}, True),
        ({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"}, False),
        ({"apiVersion": "example.com/v1", "kind": "Deployment", "name": "web"}, False),
        ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}, False),
        (None, False),
    ],
)
def test_a_reference_means_the_object_whatever_its_version(reference: Any, expected: bool) -> None:
    assert Resource("apps", "v1", "deployments", "Deployment", "shop", "web").is_named(reference) == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "web/../secrets"}, "name: 'web/../secrets' is not allowed"),
        ({"namespace": "Shop"}, "namespace: 'Shop' is not allowed"),
        ({"resource": "deployments/scale"}, "resource: 'deployments/scale' is not allowed"),
        ({"nmae": "web"}, "nmae"),
    ],
)
def test_settings_that_are_not_allowed_are_told_in_a_line(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        make_target({"kind": "kubernetes", "namespace": "shop", "name": "web", **settings}, TargetContext("a", True, 15.0))


def test_two_kinds_of_one_name_have_leases_of_their_own() -> None:
    names = {KubernetesSettings("shop", "web", resource).lease for resource in ("deployments.apps", "statefulsets.apps")}
    assert names == {"scalepilot-shop-web", "scalepilot-shop-web-statefulsets"}


def kubeconfig(path: Path, user: dict[str, Any], **cluster: Any) -> str:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contexts": []}, "Context 'c' not found"),
        ({"users": []}, "cannot be used"),
        ({"clusters": "x"}, "cannot be used"),
        ({"users": [{"name": "u", "user": None}]}, "cannot be used"),
        (
            {"clusters": [{"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": "AAAA"}}]},
            "cannot be used",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_told_in_a_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = kubeconfig(tmp_path / "k", {"token": "t"})
    Path(path).write_text(yaml.safe_dump({**yaml.safe_load(Path(path).read_text()), **change}))
    with pytest.raises(ConfigError, match=words):
        connect(path, None)


def test_a_file_that_is_no_kubeconfig_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("just words")
    with pytest.raises(ConfigError, match="cannot be used"):
        connect(str(tmp_path / "k"), None)


def test_a_kubeconfig_that_others_may_change_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "k", {"token": "t"})
    Path(path).chmod(0o666)
    with pytest.raises(InputError, match=r"target\.kubeconfig"):
        connect(path, None)


def test_without_any_way_in_the_line_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist, and this is not a pod"):
        connect(str(tmp_path / "absent"), None)


def command(tmp_path: Path, lines: str) -> ExecAuth:
    program = tmp_path / "login"
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    section = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "args": ["x"]}
    return ExecAuth(section, tmp_path)


def asked(auth: httpx2.Auth, accepted: str) -> tuple[list[str], int]:
    """Tokens that a server saw which takes one of them."""
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["Authorization"])
        return httpx2.Response(200 if seen[-1] == f"Bearer {accepted}" else 401)

    with httpx2.Client(transport=httpx2.MockTransport(answer), auth=auth) as client:
        return seen, client.get("http://kubernetes/").status_code


def test_a_clouds_command_is_run_until_its_token_is_refused(tmp_path: Path) -> None:
    count = tmp_path / "count"
    status_line = '{"kind":"ExecCredential","status":{"token":"t%s"}}'
    auth = command(tmp_path, f"echo x >> {count}\nprintf '{status_line}' $(wc -l < {count})")
    assert asked(auth, "t1") == (["Bearer t1"], 200)
    assert asked(auth, "t1") == (["Bearer t1"], 200)
    assert asked(auth, "t2") == (["Bearer t1", "Bearer t2"], 200)
    assert asked(auth, "t9") == (["Bearer t2", "Bearer t3"], 401)


def test_a_clouds_token_that_runs_out_is_replaced(tmp_path: Path) -> None:
    count = tmp_path / "count"
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = '{"status":{"token":"t%s","expirationTimestamp":"' + soon + '"}}'
    auth = command(tmp_path, f"echo x >> {count}\nprintf '{line}' $(wc -l < {count})")
    assert asked(auth, "t1") == (["Bearer t1"], 200)
    assert asked(auth, "t2") == (["Bearer t2"], 200)


@pytest.mark.parametrize(("lines", "words"), [("echo no luck >&2; exit 3", "exited 3: no luck"), ("echo {}", "printed no token")])
def test_a_clouds_command_that_fails_is_told_in_a_line(tmp_path: Path, lines: str, words: str) -> None:
    with pytest.raises(OSError, match=words):
        asked(command(tmp_path, lines), "t")
