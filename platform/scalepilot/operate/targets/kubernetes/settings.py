"""Keys of `target` with `kind: kubernetes`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scalepilot.config.checks import Section

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RESOURCE = re.compile(r"[a-z0-9.-]+/v[a-z0-9]+/[a-z0-9-]+|[a-z0-9-]+(\.[a-z0-9.-]+)?")
_PATTERNS = {
    "namespace": (_NAMESPACE, "a name of lower-case letters, digits and -"),
    "name": (_NAME, "a name of lower-case letters, digits, - and ."),
    "resource": (_RESOURCE, "deployments.apps, statefulsets.apps, PLURAL.GROUP or GROUP/VERSION/PLURAL"),
}


@dataclass(frozen=True)
class KubernetesSettings(Section):
    """Keys of `target` with `kind: kubernetes`.

    Attributes:
        namespace: of the object.
        name: of the object.
        resource: what it is: `deployments.apps`, `statefulsets.apps`, or any other resource with a scale, as PLURAL.GROUP or
            GROUP/VERSION/PLURAL.
        pods_selector: labels of its pods; null for what its scale says.
        kubeconfig: path of the file; null for the pod's service account, else `KUBECONFIG`, else `~/.kube/config`.
        context: of the kubeconfig; null for its current one.
        owner: what the annotation `scalepilot.io/owner` on the object must say, if it is there: else another owns it.
    """

    namespace: str
    name: str
    resource: str = "deployments.apps"
    pods_selector: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    owner: str = "scalepilot"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, (pattern, allowed) in _PATTERNS.items():
            value = getattr(self, key)
            if not pattern.fullmatch(value):
                raise ValueError(f"{key}: {value!r} is not allowed; allowed: {allowed}")

    @property
    def lease(self) -> str:
        """Name of the Lease of this target. Its kind is part of it where it is no Deployment: two kinds may share a name."""
        plural = self.resource.rpartition("/")[2].partition(".")[0]
        suffix = "" if plural == "deployments" else f"-{plural}"
        return f"scalepilot-{self.namespace}-{self.name}{suffix}"[:253]


__all__ = ["KubernetesSettings"]
