"""Which object is scaled: its kind and paths, as the server's discovery tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scalepilot.operate.targets.kubernetes.api import Api


@dataclass(frozen=True)
class Resource:
    """One scalable object.

    Attributes:
        group: of its API; "" for the core.
        version: of its API.
        plural: name of its resource.
        kind: as in manifests.
        namespace: it is in.
        name: its name.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespace: str
    name: str

    @property
    def api_version(self) -> str:
        """As in manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        """Of the object."""
        return f"{_root(self.group)}/{self.version}/namespaces/{self.namespace}/{self.plural}/{self.name}"

    @property
    def scale_path(self) -> str:
        """Of its scale."""
        return f"{self.path}/scale"

    def is_named(self, reference: Any) -> bool:
        """Whether a `scaleTargetRef` means this object. Only the group counts: versions are views of the same."""
        if not isinstance(reference, dict):
            return False
        group = str(reference.get("apiVersion") or "apps/v1").rpartition("/")[0]
        return (group, reference.get("kind") or "Deployment", reference.get("name")) == (self.group, self.kind, self.name)


def split(resource: str) -> tuple[str, str, str]:
    """Group, version ("" for the preferred one) and plural of "deployments.apps" or "group/version/plural"."""
    if "/" in resource:
        group, version, plural = resource.split("/")
        return group, version, plural
    plural, _, group = resource.partition(".")
    return group, "", plural


def _root(group: str) -> str:
    return f"/apis/{group}" if group else "/api"


def discover(api: Api, resource: str, namespace: str, name: str) -> Resource | str:
    """The object of these settings, or a line that says why there is none.

    Args:
        api: of the cluster.
        resource: as `split` takes it.
        namespace: it is in.
        name: its name.
    """
    group, version, plural = split(resource)
    if not version:
        version = "v1"
        if group:
            answer = api.ask("GET", _root(group))
            if answer.status == 404:
                return f"target.resource: {resource}: this cluster has no API group {group}"
            if answer.problem:
                return f"{_root(group)}: {answer.problem}"
            version = str((answer.body.get("preferredVersion") or {}).get("version") or "v1")
    path = f"{_root(group)}/{version}"
    answer = api.ask("GET", path)
    if answer.problem and answer.status != 404:
        return f"{path}: {answer.problem}"
    known = {str(each.get("name")): each for each in answer.body.get("resources") or ()}
    if plural not in known:
        return f"target.resource: {resource}: this cluster has no {plural} in {path}"
    if f"{plural}/scale" not in known:
        scalable = sorted(found.removesuffix("/scale") for found in known if found.endswith("/scale"))
        return (
            f"target.resource: {resource}: has no scale subresource; allowed here: {', '.join(scalable) or 'none of this group'}"
        )
    return Resource(group, version, plural, str(known[plural].get("kind")), namespace, name)


__all__ = ["Resource", "discover", "split"]
