"""A stand-in for the API server, of the few calls that operate makes; tests/contract holds it to the real one.

It can do what the real one cannot be brought to do at will: throttle, fail, and answer too late.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

_SCALABLE = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
_LISTED = {
    "pods": "PodList",
    "leases": "LeaseList",
    "events": "EventList",
    "horizontalpodautoscalers": "HorizontalPodAutoscalerList",
}


class _RefusalError(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
        self.code = code


class FakeKubernetes:
    """Objects by path, as the server would show them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: dict[str, dict[str, Any]] = {}
        # (verb, part of the path) that are not allowed.
        self.forbidden: set[tuple[str, str]] = set()
        # Method and part of the path → status and headers of the next answers.
        self.answers: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}
        self.delay_seconds: dict[tuple[str, str], float] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self._lock, self._version = threading.RLock(), 100

    @property
    def kubeconfig(self) -> str:
        return str(self.folder / "kubeconfig")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """As the administrator, past all rights and faults."""
        with self._lock:
            return copy.deepcopy(self._do(method, urlsplit(path).path, parse_qs(urlsplit(path).query), body))

    def patch(self, path: str, body: Any) -> Any:
        return self.ask("PATCH", path, body)

    def namespace(self, name: str) -> str:
        return name

    def apply(self, found: dict[str, Any], namespace: str) -> Any:
        root = f"/apis/{found['apiVersion']}" if "/" in found["apiVersion"] else f"/api/{found['apiVersion']}"
        plural = f"{found['kind'].lower()}s"
        made = self.ask("POST", f"{root}/namespaces/{namespace}/{plural}", found)
        if plural in _SCALABLE:
            self._controllers(f"{root}/namespaces/{namespace}/{plural}/{found['metadata']['name']}")
        return made

    def make_ready(self, namespace: str, selector: str, count: int) -> int:
        done = 0
        with self._lock:
            for path, pod in self.objects.items():
                if f"/{namespace}/pods/" in path and "conditions" not in pod["status"] and done < count:
                    pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                    done += 1
            for path, found in self.objects.items():
                if found.get("kind") in _SCALABLE.values():
                    self._controllers(path)
        return done

    def _controllers(self, path: str) -> None:
        """What the controller manager would do by now: as many pods as are asked for, and their number in the status."""
        found = self.objects[path]
        collection = f"/api/v1/namespaces/{found['metadata']['namespace']}/pods"
        mine = [each for each in self.objects if each.startswith(f"{collection}/{found['metadata']['name']}-")]
        for extra in mine[found["spec"]["replicas"] :]:
            del self.objects[extra]
        for _ in range(found["spec"]["replicas"] - len(mine)):
            labels = found["spec"]["template"]["metadata"]["labels"]
            meta = {"name": f"{found['metadata']['name']}-{uuid.uuid4().hex[:12]}", "labels": labels}
            self._do("POST", collection, {}, {"kind": "Pod", "metadata": meta, "status": {"phase": "Pending"}})
        pods = [each for name, each in self.objects.items() if name.startswith(f"{collection}/{found['metadata']['name']}-")]
        ready = sum("conditions" in pod["status"] for pod in pods)
        found["status"] = {
            "observedGeneration": found["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
        }
        found["status"] |= {"readyReplicas": ready} if ready else {}

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers for one request of whoever is tested."""
        self.asked.append((method, path, body))
        for (verb, part), seconds in self.delay_seconds.items():
            if verb == method and part in path:
                time.sleep(seconds)
        for (verb, part), (code, headers) in self.answers.items():
            if verb == method and part in path:
                return code, {"kind": "Status", "message": "made to fail", "code": code}, headers
        try:
            with self._lock:
                self._check_rights(method, path)
                return 200, copy.deepcopy(self._do(method, path, query, body)), {}
        except _RefusalError as refusal:
            return refusal.code, refusal.body, {}

    def _check_rights(self, method: str, path: str) -> None:
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, "get")
        parts = path.split("/")
        if verb == "get" and parts[-1] in _LISTED:
            verb = "list"
        resource = "/scale" if parts[-1] == "scale" else f"/{parts[-2] if verb in ('get', 'update', 'patch') else parts[-1]}"
        if (verb, resource) in self.forbidden:
            raise _RefusalError(403, "Forbidden", f'"x" is forbidden: User "fake" cannot {verb} resource "{resource[1:]}"')

    def _do(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        if path == "/apis/apps":
            return {"kind": "APIGroup", "preferredVersion": {"version": "v1"}}
        if path == "/apis/apps/v1":
            names = [{"name": plural, "kind": kind} for plural, kind in _SCALABLE.items()]
            return {
                "kind": "APIResourceList",
                "resources": [*names, *({"name": f"{name}/scale", "kind": "Scale"} for name in ("deployments", "statefulsets"))],
            }
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            resource = f"/{asked['resource']}" if "subresource" not in asked else f"/{asked['subresource']}"
            return {**body, "status": {"allowed": (asked["verb"], resource) not in self.forbidden}}
        if path.endswith("/scale"):
            return self._scale(method, path.removesuffix("/scale"), query, body)
        last = path.rsplit("/", 1)[1]
        if method == "GET" and (last in _LISTED or last in _SCALABLE):
            return self._list(path, query)
        if method == "POST":
            return self._create(path, body)
        if path not in self.objects:
            raise _RefusalError(404, "NotFound", f"{last!r} not found")
        if method == "GET":
            return self.objects[path]
        if method == "DELETE":
            return self.objects.pop(path)
        return self._change(method, path, body)

    def _list(self, path: str, query: dict[str, list[str]]) -> Any:
        wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", [""])[0].split(",") if pair)
        items = [found for name, found in self.objects.items() if name.rpartition("/")[0] == path]
        items = [item for item in items if wanted.items() <= (item["metadata"].get("labels") or {}).items()]
        first, size = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["500"])[0])
        rest = {"continue": str(first + size)} if first + size < len(items) else {}
        return {"kind": "List", "metadata": rest, "items": items[first : first + size]}

    def _create(self, path: str, body: Any) -> Any:
        meta = body["metadata"]
        name = meta.get("name") or meta["generateName"] + uuid.uuid4().hex[:12]
        if f"{path}/{name}" in self.objects:
            raise _RefusalError(409, "AlreadyExists", f"{name!r} already exists")
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace = path.split("/namespaces/")[1].split("/")[0]
        made = {
            **copy.deepcopy(body),
            "metadata": {
                **meta,
                "name": name,
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": now,
                "generation": 1,
            },
        }
        self.objects[f"{path}/{name}"] = made
        self._touch(made)
        return made

    def _touch(self, found: dict[str, Any]) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)

    def _change(self, method: str, path: str, body: Any) -> Any:
        found = self.objects[path]
        if method == "PUT":
            if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
                raise _RefusalError(409, "Conflict", "the object has been modified")
            found = self.objects[path] = copy.deepcopy(body)
        else:
            _merge(found, body)
            found["metadata"]["generation"] = found["metadata"].get("generation", 1) + ("spec" in body)
        self._touch(found)
        if found.get("kind") in _SCALABLE.values() and "status" not in body:
            self._controllers(path)
        return found

    def _scale(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        if path not in self.objects:
            raise _RefusalError(404, "NotFound", f"{path.rsplit('/', 1)[1]!r} not found")
        found = self.objects[path]
        have = found["spec"]["replicas"]
        if method == "PATCH":
            test, change = body
            # An encoder in Go leaves out a 0.
            shown: dict[str, Any] = {"/spec/replicas": have or None, "/spec": {"replicas": have} if have else {}}
            if shown[test["path"]] != test["value"] or change["value"] < 0 or (change["op"] == "replace" and not have):
                raise _RefusalError(422, "Invalid", "the server rejected our request due to an error in our request")
            have = change["value"]
            if "dryRun" not in query:
                found["spec"]["replicas"] = have
                found["metadata"]["generation"] += 1
                self._touch(found)
                self._controllers(path)
        selector = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"]["matchLabels"].items())
        meta = {key: found["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        status = {"replicas": found["status"].get("replicas", 0), "selector": selector}
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": meta,
            "spec": {"replicas": have} if have else {},
            "status": status,
        }


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


@contextmanager
def running(folder: Path) -> Iterator[FakeKubernetes]:
    """A stand-in on loopback, with a kubeconfig in a folder."""
    fake = FakeKubernetes(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body in one packet, or each answer waits 40 ms for the other side's.
        wbufsize = 1 << 16

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, BrokenPipeError):
                self.close_connection = True

        def _any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            asked = json.loads(data) if data else None
            code, body, headers = fake.answer(self.command, url.path, parse_qs(url.query), asked)
            out = json.dumps(body).encode()
            self.send_response(code)
            for key, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(out))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    config = {
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "fake", "user": {"token": "fake"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "current-context": "fake",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
