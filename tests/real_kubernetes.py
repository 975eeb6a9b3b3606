"""A real Kubernetes API server of 1.20 with its controller manager; skips visibly where its parts are absent.

No kubelet: pods stay Pending until a test patches their status, which is how a start-up is simulated on a real server.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from benchmarks.ports import free_port
from tests.conftest import SHARED

from scalepilot.operate.targets.kubernetes.connection import connect

PARTS = SHARED / "kubernetes"
# Who of the service accounts asked for what; the rest would fill the disk.
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}
_PROGRAMS = ("kube-apiserver", "kube-controller-manager")


@dataclass(frozen=True)
class Kubernetes:
    """A cluster of one's own, and the administrator's client."""

    folder: Path
    admin: httpx2.Client

    @property
    def kubeconfig(self) -> str:
        return str(self.folder / "kubeconfig")

    @property
    def server(self) -> int:
        return int((self.folder / "apiserver.pid").read_text())

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        answer = self.admin.request(method, path, json=body, headers={"Content-Type": content_type} if body is not None else None)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def apply(self, found: dict[str, Any], namespace: str) -> Any:
        """Create an object of a manifest, in a namespace."""
        plural = f"{found['kind'].lower()}s"
        root = f"/apis/{found['apiVersion']}" if "/" in found["apiVersion"] else f"/api/{found['apiVersion']}"
        meta = {**found["metadata"], "namespace": namespace}
        return self.ask("POST", f"{root}/namespaces/{namespace}/{plural}", {**found, "metadata": meta})

    def patch(self, path: str, body: Any) -> Any:
        return self.ask("PATCH", path, body, "application/merge-patch+json")

    def namespace(self, name: str) -> str:
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def kubeconfig_of(self, namespace: str, account: str) -> str:
        """A kubeconfig of a service account, with a token of ten minutes."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token = self.ask("POST", path, {"spec": {"expirationSeconds": 600, "audiences": ["https://localhost"]}})["status"][
            "token"
        ]
        config = yaml.safe_load(Path(self.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": token}
        written = self.folder / f"kubeconfig-{namespace}-{account}"
        written.write_text(yaml.safe_dump(config))
        written.chmod(0o600)
        return str(written)

    def asked_by(self, namespace: str, account: str) -> set[tuple[str, str, str, str]]:
        """(verb, group, resource, name) of what a service account has asked for in its namespace, by the server's audit log."""
        found = set()
        for line in (self.folder / "audit.log").read_text().splitlines():
            event = json.loads(line)
            seen = event.get("objectRef", {})
            if event["user"]["username"] == f"system:serviceaccount:{namespace}:{account}" and seen.get("namespace") == namespace:
                resource = "/".join(filter(None, (seen["resource"], seen.get("subresource"))))
                found.add((event["verb"], seen.get("apiGroup", ""), resource, seen.get("name", "")))
        return found

    def make_ready(self, namespace: str, selector: str, count: int) -> int:
        """Let so many more pods become ready, as a kubelet would."""
        pods = self.ask("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")["items"]
        waiting = [
            pod for pod in pods if not (pod.get("status") or {}).get("conditions") and "deletionTimestamp" not in pod["metadata"]
        ]
        for pod in waiting[:count]:
            condition = {
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status"
            self.patch(path, {"status": {"phase": "Running", "conditions": [condition]}})
        return len(waiting[:count])


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What it returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found


def _programs(cache: Path) -> Path:
    """The two programs, unpacked once for all processes of the tests, and etcd beside them."""
    etcd = shutil.which("etcd")
    if not PARTS.is_dir() or etcd is None or shutil.which("openssl") is None or shutil.which("curl") is None:
        pytest.skip("no Kubernetes here (../shared/kubernetes, and etcd: apt-get install etcd-server)")
    folder = cache / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name in _PROGRAMS:
        if not (folder / name).exists():
            aside = folder / f"{name}.{os.getpid()}"
            with lzma.open(PARTS / f"{name}.xz") as packed, aside.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            aside.chmod(0o700)
            aside.rename(folder / name)
    with suppress(FileExistsError):
        (folder / "etcd").symlink_to(etcd)
    # Without the controller manager's old second port, which is always the same one: two clusters at once would have one alone.
    ours = "--secure-port=$((P+1)) --port=0 --horizontal-pod-autoscaler-tolerance=${HPA_TOLERANCE:-0.1}"
    script = (PARTS / "up.sh").read_text().replace("--secure-port=$((P+1))", ours)
    assert ours in script
    audited = "--audit-policy-file=$H/audit.yaml --audit-log-path=$R/audit.log --disable-admission-plugins=ServiceAccount"
    script = script.replace("--disable-admission-plugins=ServiceAccount", audited)
    (cache / "audit.yaml").write_text(yaml.safe_dump(_AUDIT))
    (cache / "up.sh").write_text(script)
    return cache


def _ports() -> dict[str, str]:
    # The start script uses the number after each as well.
    api = free_port()
    etcd = free_port()
    while abs(api - etcd) < 2:
        etcd = free_port()
    return {"APISERVER_PORT": str(api), "ETCD_PORT": str(etcd), "HPA_SYNC": "1s"}


@contextmanager
def running(folder: Path, cache_folder: Path, **environment: str) -> Iterator[Kubernetes]:
    """A cluster of its own.

    Args:
        folder: for its files; made anew.
        cache_folder: where its programs are kept unpacked.
        environment: of the script that starts it, such as HPA_TOLERANCE.
    """
    home = _programs(cache_folder)
    try:
        ran = subprocess.run(
            ["bash", str(home / "up.sh"), str(folder)],
            env={**os.environ, **_ports(), **environment},
            stdout=subprocess.DEVNULL,
            stderr=(cache_folder / "up.log").open("w"),
            check=False,
            timeout=120,
        )
        assert ran.returncode == 0, (cache_folder / "up.log").read_text()
        connection = connect(str(folder / "kubeconfig"), None)
        with httpx2.Client(base_url=connection.server, verify=connection.verify, auth=connection.auth, timeout=20) as admin:
            yield Kubernetes(folder, admin)
    finally:
        for path in folder.glob("*.pid"):
            with suppress(ProcessLookupError, ValueError):
                process = int(path.read_text())
                os.kill(process, signal.SIGCONT)
                os.kill(process, signal.SIGKILL)


def cache(folders: pytest.TempPathFactory) -> Path:
    """Where all processes of one run of the tests keep the unpacked programs."""
    base = folders.getbasetemp()
    return (base.parent if base.name.startswith("popen") else base) / "kubernetes"
